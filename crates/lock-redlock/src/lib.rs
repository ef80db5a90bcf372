#![doc = include_str!("../README.md")]

#[cfg(feature = "movable")]
mod agreement;
#[cfg(feature = "movable")]
mod census;
mod gate;
mod handshake;
mod listener;
#[cfg(feature = "movable")]
mod look;
#[cfg(feature = "movable")]
mod markers;
#[cfg(feature = "movable")]
mod movable;
mod names;
#[cfg(feature = "movable")]
mod questions;
mod queues;
mod recovery;
#[cfg(feature = "movable")]
mod register;
mod remembered;
mod requests;
mod servers;
#[cfg(all(test, feature = "movable"))]
mod simulation;
mod store;
mod unfinished;
#[cfg(feature = "movable")]
mod value;
mod voter;
mod votes;

pub use lock_core::{
    self, AnyLocker, Backoff, Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Locker,
    LossReason, Options, Result,
};
pub use lock_redis::Target;
pub use redis;

pub use crate::store::RedlockStore;

use lock_core::backend::Leased;

use crate::names::RedlockNames;

/// Locks on a majority of independent Redis servers. Cheap to clone; clones share everything, connections too.
///
/// It dereferences to [`Locker`], which has `try_lock`, `lock`, `try_lock_for` and `close`.
#[derive(Clone, Debug)]
pub struct RedlockLocker(Locker<Leased<RedlockStore>>);

impl RedlockLocker {
    /// Connects to `targets`, each an address such as `redis://127.0.0.1:6379`, a [`redis::Client`], or a [`Target`]:
    /// an odd number of servers, at least three, that share nothing and do not replicate each other.
    ///
    /// A majority must be reachable; the others are connected to later. The first time that servers are used together,
    /// all must be, since new servers cannot be told from ones that lost their data.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`]: an address or the options cannot work, the number is even or below three, or two
    ///   addresses lead to one server.
    /// - [`ErrorKind::Unavailable`]: no majority can be connected to, or has its votes. The first is certain after
    ///   three and a half request timeouts at the latest, since connecting takes several round trips; asking what they
    ///   remember takes up to two more, and each server of a new set that falls silent while it is set up one.
    /// - [`ErrorKind::Auth`]: wrong user or password of one of the servers.
    /// - [`ErrorKind::UnsafeConfig`]: a server may evict locks, or too many have lost their data. A new set that was
    ///   left half set up looks like that too.
    /// - [`ErrorKind::Unexpected`]: what answers is not Redis.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lock_redlock::{Options, RedlockLocker};
    ///
    /// # async fn example() -> lock_redlock::Result<()> {
    /// let servers = ["redis://one.example", "redis://two.example", "redis://three.example"];
    /// let locks = RedlockLocker::connect(servers, Options::default()).await?;
    /// if let Some(guard) = locks.try_lock("orders/42").await? {
    ///     println!("ours, with token {}", guard.fencing_token());
    ///     guard.release().await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn connect<T>(targets: impl IntoIterator<Item = T>, options: Options) -> Result<Self>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let targets = targets.into_iter().map(TryInto::try_into).collect::<Result<Vec<Target>, _>>()?;
        let store = RedlockStore::connect(targets, RedlockNames::new(&options)?, &options).await?;
        Ok(Self(Locker::new(Leased::new(store, &options)?)))
    }

    /// Returns the name under which each server keeps the lock on `key`, for a look with `redis-cli`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: no such key can be.
    pub fn name_in_redis(&self, key: &str) -> Result<String> {
        Ok(self.0.backend().store().names(&Key::new(key)?).lock().to_owned())
    }
}

lock_core::deref_to_locker!(RedlockLocker, Leased<RedlockStore>, new);
