//! Servers that a person names by a variable, to be used by tests instead of servers of their own.

use std::{
    env,
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    Proxy,
    resp::{Connection, Value},
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the URLs or addresses that `variable` names, separated by commas; `None` if it names none.
#[must_use]
pub fn urls(variable: &str) -> Option<Vec<String>> {
    let urls = env::var(variable).ok().filter(|urls| !urls.is_empty())?;
    Some(urls.split(',').map(|url| url.trim().to_owned()).collect())
}

/// How the clients of one test reach servers that others may use too: through proxies, so that their connections can be
/// counted, and under a prefix that nothing else uses.
#[derive(Debug)]
pub struct Front {
    prefix: String,
    proxies: Vec<Proxy>,
    urls: Vec<String>,
}

impl Front {
    /// Puts a proxy before each of `urls`, which may be addresses without a scheme.
    ///
    /// # Errors
    ///
    /// One of them cannot be resolved, or speaks TLS, for which no proxy has the certificate.
    pub fn of(urls: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self> {
        let (mut proxies, mut through) = (Vec::new(), Vec::new());
        for url in urls {
            let parts = Parts::of(url.as_ref())?;
            let proxy = Proxy::start(parts.address()?)?;
            through.push(format!("{}{}{}", parts.before, proxy.address(), parts.after));
            proxies.push(proxy);
        }
        Ok(Self { prefix: format!("test-{:016x}", rand::random::<u64>()), proxies, urls: through })
    }

    /// Returns the prefix for all names.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the prefix and the URLs in one text, for another process.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{} {}", self.prefix, self.urls())
    }

    /// Returns the prefix and the URLs in an [`address`](Self::address).
    #[must_use]
    pub fn parts(address: &str) -> (&str, &str) {
        address.split_once(' ').unwrap_or(("", address))
    }

    /// Returns the same URLs with the proxies in the servers' place, separated by commas.
    #[must_use]
    pub fn urls(&self) -> String {
        self.urls.join(",")
    }

    /// Returns how many connections go through the proxies now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.proxies.iter().map(Proxy::open_connections).sum()
    }
}

/// Sends one command to the Redis at `url`, logged in if there is a password in it, and returns the answer.
///
/// # Errors
///
/// The server does not answer within 5 s, or refuses.
pub fn redis(url: &str, command: &[&str]) -> Result<Value> {
    let parts = Parts::of(url)?;
    let mut connection = Connection::open(parts.address()?, TIMEOUT)?;
    let login = parts.before.rsplit('/').next().unwrap_or_default().trim_end_matches('@');
    if let Some((user, password)) = login.split_once(':') {
        let user = if user.is_empty() { "default" } else { user };
        let answer = connection.call(&["AUTH", user, password])?;
        ensure!(!matches!(answer, Value::Error(_)), "Redis refused the password: {}", answer.text());
    }
    let answer = connection.call(command)?;
    ensure!(!matches!(answer, Value::Error(_)), "Redis refused {}: {}", command[0], answer.text());
    Ok(answer)
}

/// A URL around the host and the port in it.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    before: &'a str,
    host: &'a str,
    after: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Result<Self> {
        let scheme = url.find("://").map_or(0, |at| at + 3);
        ensure!(
            !matches!(&url[..scheme], "https://" | "rediss://"),
            "servers for tests are reached without TLS, and {} names one with it",
            &url[..scheme]
        );
        let end = url[scheme..].find('/').map_or(url.len(), |at| scheme + at);
        let start = url[..end].rfind('@').map_or(scheme, |at| at + 1);
        Ok(Self { before: &url[..start], host: &url[start..end], after: &url[end..] })
    }

    fn address(&self) -> Result<SocketAddr> {
        let resolved = self.host.to_socket_addrs();
        let first = resolved.with_context(|| format!("{:?} is no host with a port", self.host))?.next();
        first.with_context(|| format!("{:?} has no address", self.host))
    }
}

#[cfg(test)]
mod tests {
    use super::Parts;

    #[test]
    fn the_host_is_found_in_every_kind_of_url() {
        for (url, before, host, after) in [
            ("redis://:p@ss@host:6379/0", "redis://:p@ss@", "host:6379", "/0"),
            ("http://host:2379", "http://", "host:2379", ""),
            ("host:2181", "", "host:2181", ""),
        ] {
            assert_eq!(Parts::of(url).unwrap(), Parts { before, host, after });
        }
    }

    #[test]
    fn tls_is_refused_without_a_word_of_the_password() {
        let error = Parts::of("rediss://:secret@host:6379").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
