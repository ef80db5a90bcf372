//! Moves of slots from one cluster to another, and what operators ask and do besides.

mod admin;
mod lost;
mod report;
mod state;
mod steps;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use lock_core::{
    AnyLocker, Error, ErrorKind, LockGuard, Options, Result,
    movable::{ClusterName, Slot},
};
use tokio::sync::Mutex;

pub use self::{
    report::{Event, Observer, Problem, SlotStatus, Step},
    state::{SlotMove, Stage},
    steps::Moved,
};
use crate::{cluster::Cluster, map::ShardMap, members::Members, source::MapSource};

/// Moves slots between clusters while their locks are held and awaited. Any number of movers may be at work: each step
/// compares before it changes, and what one has begun any other can finish.
///
/// | step | what happens |
/// |---|---|
/// | plan | both clusters are there, and are two; the slot is open on the old one, and no epoch is short |
/// | prepare | the new cluster marks the slot as being prepared |
/// | seal | the old one marks it as sealed: it grants nothing of the slot any more, what is held stays held |
/// | census | the holds there are listed |
/// | copy | each is put on the new cluster, under its owner's name, without an end |
/// | open | the new one marks the slot as open: **from here on there is no way back but another move** |
/// | drain | copies are deleted whose originals are gone; the holders adopt theirs |
/// | clean | nothing is left on the old cluster, and it keeps a marker that says where the slot went |
///
/// A free key is refused from seal to open only.
pub struct Mover {
    members: Members,
    source: MapSource,
    stop_before: Option<Step>,
    /// For the locks of movers, one per cluster: a move has the lock of its slot at the old cluster, lest two movers
    /// do everything twice. Safety does not rest on it.
    locks: Mutex<BTreeMap<ClusterName, AnyLocker>>,
}

impl Mover {
    /// Reads the map. Clusters are connected to when they are needed; `options` must name the prefix of the locks, and
    /// the TTL decides how long a mover waits for one that was killed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: the map, an address in it or the options cannot work.
    /// [`ErrorKind::Unavailable`]: the map cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn connect(map: impl Into<MapSource>, options: Options) -> Result<Self> {
        Self::connect_with(map, [], options).await
    }

    /// As [`connect`](Self::connect), with `clusters` whose login is not in the map.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn connect_with(
        map: impl Into<MapSource>,
        clusters: impl IntoIterator<Item = (&str, Cluster)>,
        options: Options,
    ) -> Result<Self> {
        options.check()?;
        let source = map.into();
        let (members, _) = Members::of(&source, clusters, options).await?;
        Ok(Self { members, source, stop_before: None, locks: Mutex::default() })
    }

    /// Makes moves stop before this step, as if the mover were killed there: to rehearse a move up to the point of no
    /// return, and [abort](Self::abort) it.
    #[must_use]
    pub fn stopping_before(mut self, step: Step) -> Self {
        self.stop_before = Some(step);
        self
    }

    /// Returns the map as it is kept now.
    ///
    /// # Errors
    ///
    /// As [`MapSource::load`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn map(&self) -> Result<ShardMap> {
        let map = self.source.load().await?;
        self.members.learn(&map)?;
        Ok(map)
    }

    /// Says in the map where a slot is. If that fails, clients still follow the clusters.
    async fn tell_map(&self, change: impl FnOnce(&mut ShardMap)) {
        let told = async {
            let mut map = self.source.load().await?;
            change(&mut map);
            self.source.store(&map).await
        };
        if let Err(error) = told.await {
            tracing::warn!(%error, "the map was not written; `lock-shards rebuild-map` makes up for it");
        }
    }

    /// Takes the lock under which movers keep out of each other's way.
    async fn lock(&self, slot: Slot, at: &ClusterName) -> Result<LockGuard> {
        let options = self.members.options();
        let locker = {
            let mut locks = self.locks.lock().await;
            match locks.get(at) {
                Some(locker) => locker.clone(),
                None => {
                    let prefix = format!("{}.movers", options.prefix());
                    let locker =
                        self.members.cluster(at)?.connect_plain(options.clone().with_prefix(prefix)).await?;
                    locks.insert(at.clone(), locker.clone());
                    locker
                }
            }
        };
        let patience: Duration = options.check()?.ttl() * 2;
        locker.try_lock_for(&format!("move/{slot}"), patience).await?.ok_or_else(|| {
            let message = format!("another mover is at work on slot {slot}, and goes on");
            Error::new(ErrorKind::Unavailable, message).without_effect()
        })
    }
}

impl fmt::Debug for Mover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mover").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Tells nobody.
impl Observer for () {
    fn tell(&self, _: &Event) {}
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn tell(&self, event: &Event) {
        (**self).tell(event);
    }
}
