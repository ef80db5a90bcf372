//! What users call.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use lock_core::{
    Capabilities, Error, ErrorKind, Key, LockGuard, Locker, Options, Result,
    backend::{Backend, WaitingBackend},
    movable::{ClusterName, NotOpen, Slot},
};
use tokio::time;

use crate::{
    cluster::{Cluster, Member},
    drain::drain_key,
    members::Members,
    relocation::relocate,
    routing::Refusals,
    shared::{Shared, weakest},
    source::MapSource,
};

/// Locks over several clusters. Cheap to clone; clones share everything.
///
/// It dereferences to [`Locker`], which has `try_lock`, `lock`, `try_lock_for` and `close`.
#[derive(Clone, Debug)]
pub struct ShardedLocker(Locker<ShardedBackend>);

/// What a [`ShardedLocker`] is made of.
pub struct ShardedBackend {
    shared: Arc<Shared>,
}

impl ShardedLocker {
    /// Connects to the clusters of a map that have slots. Others are connected to when slots move there.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`]: the map, an address in it or the options cannot work.
    /// - [`ErrorKind::Unavailable`]: the map or a cluster cannot be reached.
    /// - Whatever else the lockers of the clusters return.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lock_sharded::{Options, ShardMap, ShardedLocker};
    ///
    /// # async fn example() -> lock_sharded::Result<()> {
    /// let map = ShardMap::even([("a", "etcd:http://10.0.0.1:2379"), ("b", "etcd:http://10.0.1.1:2379")])?;
    /// let locks = ShardedLocker::connect(map, Options::default()).await?;
    /// let guard = locks.lock("{order-42}/payment").await?;
    /// println!("ours, with token {}", guard.fencing_token());
    /// guard.release().await
    /// # }
    /// ```
    pub async fn connect(map: impl Into<MapSource>, options: Options) -> Result<Self> {
        Self::connect_with(map, [], options).await
    }

    /// Connects as [`connect`](Self::connect) does, to `clusters` whose login is not in the map; the map names them.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and [`ErrorKind::InvalidInput`]: a name is none.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn connect_with(
        map: impl Into<MapSource>,
        clusters: impl IntoIterator<Item = (&str, Cluster)>,
        options: Options,
    ) -> Result<Self> {
        let (source, timing) = (map.into(), options.check()?);
        let (members, map) = Members::of(&source, clusters, options).await?;
        let has_slots = |name: &&ClusterName| Slot::all().any(|slot| map.home(slot) == *name);
        let connected = try_join_all(map.clusters().filter(has_slots).map(|name| members.get(name))).await?;
        let capabilities = weakest(connected.iter().map(|member| member.capabilities()));
        let runtime = members.runtime().clone();
        let shared = Arc::new(Shared::new(members, timing, source, &map, capabilities));
        let has_moved = Arc::clone(&shared.has_moved);
        let task = runtime.spawn(relocate(Arc::downgrade(&shared), has_moved, timing.renew_every()));
        shared.set_task(task.abort_handle());
        Ok(Self(Locker::new(ShardedBackend { shared })))
    }

    /// Returns the slot of `key`, and the name of the cluster where it is believed to be open.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: no such key can be.
    pub fn find(&self, key: &str) -> Result<(Slot, ClusterName)> {
        let slot = Slot::of(&Key::new(key)?);
        Ok((slot, self.0.backend().shared.route(slot)))
    }
}

/// How an acquire at one cluster ended.
type Answer = Result<Option<LockGuard>>;

impl ShardedBackend {
    /// Asks the cluster of the key's slot, and follows the slot if it has moved.
    async fn acquire(&self, key: &Key, patience: Duration, waits: bool) -> Answer {
        self.shared.check_open()?;
        let slot = Slot::of(key);
        let mut refusals = Refusals::within(patience);
        loop {
            let cluster = self.shared.route(slot);
            let answer = match self.shared.members.get(&cluster).await {
                Ok(member) if waits => self.wait_at(&*member, slot, key).await,
                Ok(member) => self.try_at(&*member, slot, key).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(guard) => {
                    let keeps = || Arc::clone(&self.shared) as Arc<dyn Any + Send + Sync>;
                    return Ok(guard.map(|guard| self.shared.holds.add(keeps(), cluster, guard)));
                }
                Err(error) => match NotOpen::of(&error) {
                    Some(refusal) => refusals.follow(&self.shared, key, refusal).await?,
                    // The cluster may have been switched off since the slot moved away.
                    None if error.is_transient() && self.shared.ask_map(slot).await.unwrap_or(false) => {}
                    None => return Err(error),
                },
            }
        }
    }

    /// Tries for a key; what refuses it may be a copy of a hold that has been released since.
    async fn try_at(&self, member: &dyn Member, slot: Slot, key: &Key) -> Answer {
        let answer = member.try_lock(key.clone()).await?;
        if answer.is_some() || !drain_key(&self.shared.members, member, slot, key).await.unwrap_or(false) {
            return Ok(answer);
        }
        member.try_lock(key.clone()).await
    }

    /// Waits for a key, and sees to it now and then that what stands before is no copy of a hold that is gone.
    async fn wait_at(&self, member: &dyn Member, slot: Slot, key: &Key) -> Answer {
        let draining = async {
            loop {
                time::sleep(self.shared.timing.ttl() / 2).await;
                if let Err(error) = drain_key(&self.shared.members, member, slot, key).await {
                    tracing::debug!(?key, %error, "whether the holder still holds is not known");
                }
            }
        };
        tokio::select! {
            biased;
            locked = member.lock(key.clone()) => locked.map(Some),
            () = draining => unreachable!("it never ends"),
        }
    }
}

impl Backend for ShardedBackend {
    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities
    }

    async fn try_lock(&self, key: Key) -> Answer {
        let patience = self.shared.timing.request_timeout();
        self.acquire(&key, patience, false).await
    }

    async fn close(&self) {
        self.shared.close().await;
    }
}

impl WaitingBackend for ShardedBackend {
    async fn lock(&self, key: Key) -> Result<LockGuard> {
        let patience = self.shared.timing.ttl();
        let waiting = self.acquire(&key, patience, true);
        let locked = tokio::select! {
            biased;
            locked = waiting => locked?,
            error = self.shared.closed() => return Err(error.with_key(&key)),
        };
        locked.ok_or_else(|| Error::new(ErrorKind::Unexpected, "a wait ended without the key").with_key(&key))
    }
}

lock_core::deref_to_locker!(ShardedLocker, ShardedBackend, new);

impl fmt::Debug for ShardedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedBackend").finish_non_exhaustive()
    }
}
