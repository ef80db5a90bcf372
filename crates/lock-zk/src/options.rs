//! What can be chosen beside the ensemble.

use std::{fmt, time::Duration};

use lock_core::Options as LeaseOptions;

/// How a [`ZkLocker`](crate::ZkLocker) behaves.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let options = lock_zk::Options::default().with_ttl(Duration::from_secs(6)).with_prefix("shop/locks");
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) lease: LeaseOptions,
    pub(crate) prefix: String,
    pub(crate) auth: Vec<(String, Vec<u8>)>,
    pub(crate) acl: Option<String>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::tls::Tls>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease: LeaseOptions::default(),
            prefix: "lock".to_owned(),
            auth: Vec::new(),
            acl: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl Options {
    /// The timeout of the ZooKeeper session: how long the locks of a dead holder stay; 10 s by default.
    ///
    /// The servers have bounds of their own, by default 2 and 20 of their ticks, and what they grant counts. Four ticks or
    /// more are advisable.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.lease = self.lease.with_ttl(ttl);
        self
    }

    /// Everything about leases: TTL, renewal, request timeout, drift.
    ///
    /// The session is renewed twice per renewal period. The minimum validity has no meaning here, since a session is
    /// older than most of the locks in it.
    #[must_use]
    pub fn with_lease(mut self, lease: LeaseOptions) -> Self {
        self.lease = lease;
        self
    }

    /// The path above all locks, `lock` by default: names separated by slashes, 1 to 256 visible ASCII characters.
    ///
    /// Lockers of different prefixes do not exclude each other. Missing nodes are made, as containers, which the servers
    /// remove when they have been emptied.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
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

    /// Who may use the nodes, as ZooKeeper's command line writes it: `world:anyone:r,auth::cdrw`.
    ///
    /// A locker needs `c`, `d` and `r` for itself. Without this, everybody may do everything, or the user who logged in.
    #[must_use]
    pub fn with_acl(mut self, entries: impl Into<String>) -> Self {
        self.acl = Some(entries.into());
        self
    }

    /// Speaks TLS with all servers, except those whose address begins with `tcp://`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: crate::tls::Tls) -> Self {
        self.tls = Some(tls);
        self
    }
}

/// Shows who logs in by which scheme, and no credentials.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schemes: Vec<_> = self.auth.iter().map(|(scheme, _)| scheme).collect();
        let mut shown = f.debug_struct("Options");
        shown
            .field("lease", &self.lease)
            .field("prefix", &self.prefix)
            .field("auth", &schemes)
            .field("acl", &self.acl);
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_keeps_secrets() {
        let shown = format!("{:?}", Options::default().with_digest("ann", "secret"));
        assert!(shown.contains("digest") && !shown.contains("secret"), "{shown}");
    }
}
