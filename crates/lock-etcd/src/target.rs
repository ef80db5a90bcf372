//! Which etcd to lock on, and how to reach it.

use std::fmt;

use etcd_client::ConnectOptions;
use lock_core::{Error, ErrorKind, Result};

/// The endpoints of one etcd cluster, and how to reach them.
///
/// Made of one endpoint, of several separated by commas, or of a slice or vector of them: `host:port`,
/// `http://host:port`, or `https://host:port` with the feature `tls`. The first is used as long as it answers, then
/// the next; name the nearest first.
///
/// # Examples
///
/// ```
/// use lock_etcd::Target;
///
/// # fn main() -> lock_etcd::Result<()> {
/// let target = Target::new(["10.0.0.1:2379", "10.0.0.2:2379", "10.0.0.3:2379"])?.with_user("shop", "secret");
/// assert!(!format!("{target:?}").contains("secret"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Target {
    pub(crate) endpoints: Vec<String>,
    pub(crate) client: ConnectOptions,
}

impl Target {
    /// Makes a target of the endpoints of one cluster.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput): there is none, or one is not an endpoint.
    pub fn new(endpoints: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self> {
        let mut checked = Vec::new();
        for endpoint in endpoints {
            checked.push(check(endpoint.as_ref().trim())?);
        }
        if checked.is_empty() {
            return Err(not_an_endpoint("no endpoint was given"));
        }
        Ok(Self { endpoints: checked, client: ConnectOptions::new() })
    }

    /// Sets everything that the client can be given, such as `with_user` and `with_tls`.
    ///
    /// The locker sets the timeouts, the HTTP/2 keep-alive, the need of a leader and the refresh of tokens itself.
    #[must_use]
    pub fn with_client_options(mut self, client: ConnectOptions) -> Self {
        self.client = client;
        self
    }

    /// Authenticates with this name and password.
    #[must_use]
    pub fn with_user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.client = self.client.with_user(name, password);
        self
    }

    /// Uses these certificates for `https` endpoints.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: etcd_client::TlsOptions) -> Self {
        self.client = self.client.with_tls(tls);
        self
    }
}

fn of_list(endpoints: &str) -> Result<Target> {
    Target::new(endpoints.split(','))
}

fn not_an_endpoint(problem: &str) -> Error {
    let message = format!("{problem}; write host:port, http://host:port, or https://host:port for TLS");
    Error::new(ErrorKind::InvalidInput, message).without_effect()
}

/// Endpoints are repeated in errors, so none may contain a password.
fn check(endpoint: &str) -> Result<String> {
    let (scheme, address) = endpoint.split_once("://").unwrap_or(("", endpoint));
    let address = address.trim_end_matches('/');
    match scheme {
        "" | "http" => {}
        "https" if cfg!(feature = "tls") => {}
        "https" => {
            return Err(not_an_endpoint("this endpoint needs TLS: build lock-etcd with its feature `tls`"));
        }
        _ => return Err(not_an_endpoint("the scheme of an endpoint is neither http nor https")),
    }
    if address.contains('@') {
        return Err(not_an_endpoint("an endpoint contains a user: give it with Target::with_user"));
    }
    let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(_))) || address.contains(['/', ' ', '?', '#']) {
        return Err(not_an_endpoint("an endpoint is not a host with a port"));
    }
    Ok(if scheme.is_empty() { address.to_owned() } else { format!("{scheme}://{address}") })
}

lock_core::target_from_text!(Target, of_list);

impl<S: AsRef<str>> TryFrom<&[S]> for Target {
    type Error = Error;

    fn try_from(endpoints: &[S]) -> Result<Self> {
        Self::new(endpoints)
    }
}

impl<S: AsRef<str>, const N: usize> TryFrom<[S; N]> for Target {
    type Error = Error;

    fn try_from(endpoints: [S; N]) -> Result<Self> {
        Self::new(endpoints)
    }
}

impl<S: AsRef<str>> TryFrom<Vec<S>> for Target {
    type Error = Error;

    fn try_from(endpoints: Vec<S>) -> Result<Self> {
        Self::new(endpoints)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_come_in_several_forms() {
        let one = Target::try_from("http://127.0.0.1:2379/").unwrap();
        assert_eq!(one.endpoints, ["http://127.0.0.1:2379"]);
        let three = Target::try_from("a:1, http://b:2,[::1]:3").unwrap();
        assert_eq!(three.endpoints, ["a:1", "http://b:2", "[::1]:3"]);
        assert_eq!(Target::new(["a:1", "http://b:2", "[::1]:3"]).unwrap().endpoints, three.endpoints);
    }

    #[test]
    fn what_is_no_endpoint_is_refused_and_not_repeated() {
        let none: [&str; 0] = [];
        assert_eq!(Target::new(none).unwrap_err().kind(), ErrorKind::InvalidInput);
        for bad in
            ["", "secret", "redis://secret:1", "http://me:secret@host:1", "secret:http", "host:1/secret"]
        {
            let error = Target::try_from(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
}
