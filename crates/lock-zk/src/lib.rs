#![doc = include_str!("../README.md")]

mod acl;
mod connection;
mod ensemble;
mod failure;
mod gate;
#[cfg(feature = "movable")]
mod markers;
#[cfg(feature = "movable")]
mod movable;
mod names;
#[cfg(feature = "movable")]
mod node;
mod session;
mod store;
mod target;
#[cfg(feature = "tls")]
mod tls;

pub use lock_core::{
    self, AnyLocker, Backoff, Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Locker,
    LossReason, Options, Result,
};

#[cfg(feature = "movable")]
pub use crate::node::Node;
#[cfg(feature = "tls")]
pub use crate::tls::Tls;
pub use crate::{store::ZkStore, target::Target};

use lock_core::backend::Queued;

/// Locks on one ZooKeeper ensemble. Cheap to clone; clones share everything, sessions too.
///
/// It dereferences to [`Locker`], which has `try_lock`, `lock`, `try_lock_for` and `close`.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
///
/// use lock_zk::{Options, ZkLocker};
///
/// # async fn example() -> lock_zk::Result<()> {
/// let options = Options::default().with_ttl(Duration::from_secs(20)).with_prefix("shop/locks");
/// let locks = ZkLocker::connect("zk1:2181,zk2:2181,zk3:2181", options).await?;
/// match locks.try_lock_for("orders/42", Duration::from_secs(5)).await? {
///     Some(guard) => guard.release().await?,
///     None => println!("another held it all the time"),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ZkLocker(Locker<Queued<ZkStore>>);

impl ZkLocker {
    /// Connects to `target`: the addresses of an ensemble, such as `zk1:2181,zk2:2181,zk3:2181/shop`, or a [`Target`]
    /// that also says how to log in.
    ///
    /// A session is opened at once. It is kept alive, and abandoned locks are released, by tasks in the runtime in
    /// which this is called. If there are several servers, it is checked that those that answer know each other's
    /// sessions.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`]: the address or the options cannot work.
    /// - [`ErrorKind::Unavailable`]: no server opened a session within the request timeout.
    /// - [`ErrorKind::Auth`]: the servers refused the user.
    /// - [`ErrorKind::UnsafeConfig`]: the servers are of different ensembles, or keep local sessions.
    /// - [`ErrorKind::Closed`]: not called within a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lock_zk::{Options, ZkLocker};
    ///
    /// # async fn example() -> lock_zk::Result<()> {
    /// let locks = ZkLocker::connect("127.0.0.1:2181", Options::default()).await?;
    /// let guard = locks.lock("orders/42").await?;
    /// println!("ours, with token {}", guard.fencing_token());
    /// guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub async fn connect<T>(target: T, options: Options) -> Result<Self>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let store = ZkStore::new(target.try_into()?, &options)?;
        let queued = Queued::connect(store, &options).await?;
        queued.store().check_servers().await?;
        Ok(Self(Locker::new(queued)))
    }
}

lock_core::deref_to_locker!(ZkLocker, Queued<ZkStore>, new);
