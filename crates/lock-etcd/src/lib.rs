#![doc = include_str!("../README.md")]

mod failure;
mod gate;
#[cfg(feature = "movable")]
mod movable;
mod names;
mod requests;
mod reuse;
mod servers;
mod store;
mod target;
mod watches;

pub use etcd_client;
pub use lock_core::{
    self, AnyLocker, Backoff, Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Locker,
    LossReason, Options, Result,
};

pub use crate::{
    store::{EtcdStore, QueueEntry},
    target::Target,
};

use lock_core::backend::Queued;

/// Locks on etcd. Cheap to clone; clones share everything: one connection, one session.
///
/// It dereferences to [`Locker`], which has `try_lock`, `lock`, `try_lock_for` and `close`.
#[derive(Clone, Debug)]
pub struct EtcdLocker(Locker<Queued<EtcdStore>>);

impl EtcdLocker {
    /// Connects to `target`: an endpoint such as `http://127.0.0.1:2379`, several of them (separated by commas, or a
    /// slice), or a [`Target`] with a user, TLS or a client's own options.
    ///
    /// A session is opened at once, so that a wrong address or password shows here. It is kept alive, and abandoned
    /// locks are released, by tasks in the runtime in which this is called.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`]: the endpoints or the options cannot work. Nothing was sent.
    /// - [`ErrorKind::Unavailable`]: no server answered within the request timeout, or none speaks as this one does.
    /// - [`ErrorKind::UnsafeConfig`]: the endpoints belong to different clusters. One that does not answer now is
    ///   looked at when it is first used.
    /// - [`ErrorKind::Auth`]: wrong user or password.
    /// - [`ErrorKind::Closed`]: not called within a tokio runtime.
    /// - [`ErrorKind::Unexpected`]: what answers is not etcd.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. A session that was opened unseen ends by itself.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lock_etcd::{EtcdLocker, Options};
    ///
    /// # async fn example() -> lock_etcd::Result<()> {
    /// let locks = EtcdLocker::connect("http://127.0.0.1:2379", Options::default()).await?;
    /// let guard = locks.lock("orders/42").await?;
    /// println!("ours, with token {}", guard.fencing_token());
    /// guard.release().await
    /// # }
    /// ```
    pub async fn connect<T>(target: T, options: Options) -> Result<Self>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let store = EtcdStore::new(target.try_into()?, &options)?;
        store.check_endpoints().await?;
        Ok(Self(Locker::new(Queued::connect(store, &options).await?)))
    }

    /// Returns who holds `key` and who waits for it, in this order: a look at the servers, out of date at once.
    ///
    /// # Errors
    ///
    /// As [`Locker::try_lock`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn queue(&self, key: &str) -> Result<Vec<QueueEntry>> {
        let key = Key::new(key)?;
        self.0.backend().store().queue(&key).await.map_err(|error| error.with_key(&key))
    }
}

lock_core::deref_to_locker!(EtcdLocker, Queued<EtcdStore>, new);
