//! The ensemble to lock on, and who logs in to it.

use std::fmt;

use lock_core::Result;

use crate::failure;

/// Names the ensemble to lock on, and says how to log in to it.
///
/// Made of addresses separated by commas, and a chroot if there is one, such as `zk1:2181,zk2:2181,zk3:2181/shop`.
///
/// # Examples
///
/// ```
/// use lock_zk::Target;
///
/// let target = Target::new("zk1:2181,zk2:2181,zk3:2181/shop")?.with_digest("ann", "secret");
/// # Ok::<(), lock_zk::Error>(())
/// ```
#[derive(Clone)]
pub struct Target {
    /// As they were given.
    pub(crate) addresses: String,
    /// Each with the chroot.
    pub(crate) servers: Vec<String>,
    pub(crate) auth: Vec<(String, Vec<u8>)>,
    pub(crate) acl: Option<String>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::tls::Tls>,
}

impl Target {
    /// Makes a target of the addresses of the servers.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](lock_core::ErrorKind::InvalidInput): these are no addresses of servers, or there is an `@` in
    /// them. Errors repeat the address, and so would a password.
    pub fn new(addresses: &str) -> Result<Self> {
        if addresses.contains('@') {
            return Err(failure::user_in_address());
        }
        Ok(Self {
            addresses: addresses.to_owned(),
            servers: servers(addresses)
                .map_err(|reason| failure::bad_address(reason).with_server(addresses))?,
            auth: Vec::new(),
            acl: None,
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// Logs in as `user` by ZooKeeper's digest scheme. Nodes can then be used by the same user only, unless
    /// [`with_acl`](Self::with_acl) says otherwise.
    #[must_use]
    pub fn with_digest(self, user: &str, password: &str) -> Self {
        self.with_auth("digest", format!("{user}:{password}"))
    }

    /// Logs in by any scheme that the servers know, as [`with_digest`](Self::with_digest) does by one.
    #[must_use]
    pub fn with_auth(mut self, scheme: &str, credentials: impl Into<Vec<u8>>) -> Self {
        self.auth.push((scheme.to_owned(), credentials.into()));
        self
    }

    /// Sets who may use the nodes, as ZooKeeper's command line writes it: `world:anyone:r,auth::cdrw`.
    ///
    /// A locker needs `c`, `d` and `r` for itself. Without this, everybody may do everything, or the user who logged
    /// in.
    #[must_use]
    pub fn with_acl(mut self, entries: impl Into<String>) -> Self {
        self.acl = Some(entries.into());
        self
    }

    pub(crate) fn speaks_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        return false;
    }

    /// Speaks TLS with all servers, except those whose address begins with `tcp://`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: crate::tls::Tls) -> Self {
        self.tls = Some(tls);
        self
    }
}

/// Splits addresses into those of one server each, all with the chroot of the last.
fn servers(addresses: &str) -> std::result::Result<Vec<String>, &'static str> {
    let last = addresses.rfind(',').map_or(0, |comma| comma + 1);
    let host = last + addresses[last..].find("://").map_or(0, |scheme| scheme + 3);
    let chroot = addresses[host..].find('/').map_or(addresses.len(), |slash| host + slash);
    let (hosts, chroot) = addresses.split_at(chroot);
    hosts.split(',').map(|server| check_server(server).map(|()| format!("{server}{chroot}"))).collect()
}

fn check_server(server: &str) -> std::result::Result<(), &'static str> {
    let without_scheme = ["tcp://", "tcp+tls://"].iter().find_map(|scheme| server.strip_prefix(scheme));
    let server = without_scheme.unwrap_or(server);
    let (host, port) = match server.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, ""))) => (host, None),
        Some(Some((host, rest))) => (host, Some(rest.strip_prefix(':').ok_or("no colon after a bracket")?)),
        Some(None) => return Err("a bracket is not closed"),
        None => match server.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err("an IPv6 address must be in brackets"),
            Some((host, port)) => (host, Some(port)),
            None => (server, None),
        },
    };
    if host.is_empty() || host.contains('/') {
        return Err("a host is missing, or there is a slash before the last server");
    }
    match port.map(str::parse::<u16>) {
        None | Some(Ok(1..)) => Ok(()),
        Some(_) => Err("a port must be a number from 1 to 65535"),
    }
}

lock_core::target_from_text!(Target, Self::new);

/// Shows who logs in by which scheme, and no credentials.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schemes: Vec<_> = self.auth.iter().map(|(scheme, _)| scheme).collect();
        let mut shown = f.debug_struct("Target");
        shown.field("servers", &self.addresses).field("auth", &schemes).field("acl", &self.acl);
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_keeps_secrets() {
        let shown = format!("{:?}", Target::new("zk").unwrap().with_digest("ann", "secret"));
        assert!(shown.contains("digest") && !shown.contains("secret"), "{shown}");
    }
}
