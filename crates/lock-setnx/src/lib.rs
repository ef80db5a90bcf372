#![doc = include_str!("../README.md")]

mod gate;
#[cfg(feature = "movable")]
mod markers;
#[cfg(feature = "movable")]
mod movable;
mod scripts;
mod store;

pub use lock_core::{
    self, AnyLocker, Backoff, Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Locker,
    LossReason, Options, Result,
};
pub use lock_redis::{Target, redis};

pub use crate::store::{Holder, SetnxStore};

use lock_core::backend::Leased;

/// Locks on one Redis. Cheap to clone; clones share everything, connections too.
///
/// It dereferences to [`Locker`], which has `try_lock`, `lock`, `try_lock_for` and `close`.
#[derive(Clone, Debug)]
pub struct SetnxLocker(Locker<Leased<SetnxStore>>);

impl SetnxLocker {
    /// Connects to `target`: an address such as `redis://127.0.0.1:6379`, a [`redis::Client`], or a [`Target`].
    ///
    /// The server is checked at once, and again at each reconnection: it must be a primary that never evicts keys.
    /// Locks are renewed, abandoned ones released, and connections made, by tasks in the runtime in which this is
    /// called.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`]: the address or the options cannot work. Nothing was sent.
    /// - [`ErrorKind::Unavailable`]: no server answered within the request timeout.
    /// - [`ErrorKind::Auth`]: wrong user or password.
    /// - [`ErrorKind::UnsafeConfig`]: the server may evict locks.
    /// - [`ErrorKind::Unexpected`]: what answers is not Redis.
    /// - [`ErrorKind::Closed`]: not called within a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lock_setnx::{Options, SetnxLocker};
    ///
    /// # async fn example() -> lock_setnx::Result<()> {
    /// let locks = SetnxLocker::connect("redis://127.0.0.1:6379", Options::default()).await?;
    /// if let Some(guard) = locks.try_lock("orders/42").await? {
    ///     println!("ours, with token {}", guard.fencing_token());
    ///     guard.release().await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn connect<T>(target: T, options: Options) -> Result<Self>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let store = SetnxStore::connect(target.try_into()?, &options, gate::Slots::default()).await?;
        Ok(Self(Locker::new(Leased::new(store, &options)?)))
    }

    /// Returns the name under which Redis keeps the lock on `key`, for a look with `redis-cli`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: no such key can be.
    pub fn name_in_redis(&self, key: &str) -> Result<String> {
        Ok(self.0.backend().store().names(&Key::new(key)?).lock().to_owned())
    }

    /// Returns who holds `key`, if anybody does: a look at the server, out of date at once.
    ///
    /// # Errors
    ///
    /// As [`Locker::try_lock`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn inspect(&self, key: &str) -> Result<Option<Holder>> {
        let key = Key::new(key)?;
        let leased = self.0.backend();
        leased.bounded(leased.store().inspect(&key)).await.map_err(|error| error.with_key(&key))
    }
}

lock_core::deref_to_locker!(SetnxLocker, Leased<SetnxStore>, new);
