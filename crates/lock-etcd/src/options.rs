//! What can be chosen beside the servers.

use std::time::Duration;

use lock_core::Options as LeaseOptions;

/// How an [`EtcdLocker`](crate::EtcdLocker) behaves.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let options = lock_etcd::Options::default().with_ttl(Duration::from_secs(5)).with_prefix("shop/locks");
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) lease: LeaseOptions,
    pub(crate) prefix: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { lease: LeaseOptions::default(), prefix: "lock".to_owned() }
    }
}

impl Options {
    /// How long etcd keeps a session that is not kept alive, and so its locks; 10 s by default.
    ///
    /// etcd counts in whole seconds, to which this is rounded up, and grants no less than 1.5 times its election
    /// timeout: 2 s as it is delivered.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.lease = self.lease.with_ttl(ttl);
        self
    }

    /// Everything about leases: TTL, renewal, request timeout, drift.
    ///
    /// The minimum validity has no effect here, since an acquire does not renew the session that it rests on.
    #[must_use]
    pub fn with_lease(mut self, lease: LeaseOptions) -> Self {
        self.lease = lease;
        self
    }

    /// What all names in etcd begin with, `lock` by default: 1 to 256 visible ASCII characters, no colon.
    ///
    /// Lockers of different prefixes do not exclude each other. With authentication, the user needs the right to read
    /// and write all names that begin with the prefix and a slash.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }
}
