//! What a locker, its guards and its task share.

use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use lock_core::{
    Capabilities, Error, ErrorKind, Result, Scope, TokenOrder, Waiting,
    backend::LeaseTiming,
    movable::{ClusterName, Slot},
};
use tokio::{sync::Notify, task::AbortHandle};

use crate::{
    hold::Holds,
    map::ShardMap,
    members::{Members, locked},
    source::MapSource,
};

pub(crate) struct Shared {
    pub(crate) members: Members,
    pub(crate) timing: LeaseTiming,
    pub(crate) source: MapSource,
    pub(crate) capabilities: Capabilities,
    /// Where each slot is believed to be.
    routes: RwLock<Vec<ClusterName>>,
    pub(crate) holds: Arc<Holds>,
    /// A slot was seen that is not where it was believed to be.
    pub(crate) has_moved: Arc<Notify>,
    is_closed: AtomicBool,
    closed: Notify,
    /// Moves the holds, as long as there is a locker or a guard.
    task: Mutex<Option<AbortHandle>>,
}

impl Shared {
    pub(crate) fn new(
        members: Members,
        timing: LeaseTiming,
        source: MapSource,
        map: &ShardMap,
        capabilities: Capabilities,
    ) -> Self {
        Self {
            members,
            timing,
            source,
            capabilities,
            routes: RwLock::new(Slot::all().map(|slot| map.home(slot).clone()).collect()),
            holds: Arc::default(),
            has_moved: Arc::default(),
            is_closed: AtomicBool::new(false),
            closed: Notify::new(),
            task: Mutex::default(),
        }
    }

    pub(crate) fn set_task(&self, task: AbortHandle) {
        *locked(&self.task) = Some(task);
    }

    pub(crate) fn route(&self, slot: Slot) -> ClusterName {
        self.routes.read().unwrap_or_else(PoisonError::into_inner)[slot.index()].clone()
    }

    /// Believes that `slot` is on `cluster` from now on; returns whether that is new.
    pub(crate) fn set_route(&self, slot: Slot, cluster: &ClusterName) -> bool {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = routes[slot.index()] != *cluster;
        if is_new {
            routes[slot.index()] = cluster.clone();
            self.has_moved.notify_one();
        }
        is_new
    }

    /// Reads the map again, and believes it of `slot`; returns whether that is new.
    pub(crate) async fn ask_map(&self, slot: Slot) -> Result<bool> {
        let map = self.source.load().await?;
        self.members.learn(&map)?;
        Ok(self.set_route(slot, map.home(slot)))
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the locker was closed").without_effect());
        }
        Ok(())
    }

    pub(crate) async fn closed(&self) -> Error {
        loop {
            let closed = self.closed.notified();
            if let Err(error) = self.check_open() {
                return error;
            }
            closed.await;
        }
    }

    pub(crate) async fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.closed.notify_waiters();
        for (_, member) in self.members.connected() {
            member.close().await;
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = locked(&self.task).take() {
            task.abort();
        }
    }
}

/// Returns what can be said of a lock space of clusters that can this.
///
/// Those who wait when their slot moves queue again at its new cluster, so that no order of arrival is promised.
pub(crate) fn weakest(of: impl Iterator<Item = Capabilities>) -> Capabilities {
    let tokens = of.map(|one| one.tokens).reduce(|one, other| match (one, other) {
        (TokenOrder::Cluster, other) => other,
        (one, TokenOrder::Cluster) => one,
        (TokenOrder::ServerData, other) | (other, TokenOrder::ServerData) => other,
        (one, _) => one,
    });
    Capabilities::new(Scope::Servers, Waiting::Notified, tokens.unwrap_or(TokenOrder::ServerData))
}
