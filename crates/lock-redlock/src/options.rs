//! What can be chosen beside the servers.

use std::time::Duration;

use lock_core::Options as LeaseOptions;

/// How a [`RedlockLocker`](crate::RedlockLocker) behaves.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let options = lock_redlock::Options::default().with_ttl(Duration::from_secs(5)).with_prefix("shop");
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) lease: LeaseOptions,
    pub(crate) prefix: String,
    pub(crate) accept_eviction: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { lease: LeaseOptions::default(), prefix: "redlock".to_owned(), accept_eviction: false }
    }
}

impl Options {
    /// How long the servers keep a lock that is not renewed; 50 ms to 24 h, 10 s by default.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.lease = self.lease.with_ttl(ttl);
        self
    }

    /// Everything about leases: TTL, renewal, request timeout, drift.
    #[must_use]
    pub fn with_lease(mut self, lease: LeaseOptions) -> Self {
        self.lease = lease;
        self
    }

    /// What all names in Redis begin with, `redlock` by default: 1 to 256 visible ASCII characters without braces.
    ///
    /// Lockers of different prefixes do not exclude each other. A `SetnxLocker` on one of the servers needs another
    /// prefix.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Connects even to a server whose `maxmemory-policy` may delete locks, or does not tell its policy.
    ///
    /// A lock that a majority evicts is free for others while its holder still believes in it, until the next renewal.
    /// A server that may not be asked what it is cannot be told from its double under another address either.
    #[must_use]
    pub fn accepting_eviction(mut self) -> Self {
        self.accept_eviction = true;
        self
    }
}
