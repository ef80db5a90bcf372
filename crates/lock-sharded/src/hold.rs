//! A hold that moves with its slot: the guard of the cluster that has it now, and a bound on belief while that is not
//! certain.

use std::{
    any::Any,
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lock_core::{
    Error, ErrorKind, FencingToken, Key, LockGuard, LossReason, Result,
    backend::{BootInstant, BoxFuture, Hold, OwnerId, Release, Validity},
    movable::{ClusterName, hold_of},
};
use tokio::sync::Notify;

use crate::members::locked;

/// The holds of a locker that are held.
#[derive(Default)]
pub(crate) struct Holds {
    by_number: Mutex<HashMap<u64, Weak<ShardedHold>>>,
    next_number: AtomicU64,
}

impl Holds {
    /// Makes a guard of one that was acquired on `cluster`. As long as it is held, it `keeps` what moves it.
    pub(crate) fn add(
        self: &Arc<Self>,
        keeps: Arc<dyn Any + Send + Sync>,
        cluster: ClusterName,
        guard: LockGuard,
    ) -> LockGuard {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let hold = ShardedHold::new(Arc::clone(self), keeps, number, cluster, guard);
        locked(&self.by_number).insert(number, Arc::downgrade(&hold));
        LockGuard::new(hold)
    }

    pub(crate) fn all(&self) -> Vec<Arc<ShardedHold>> {
        locked(&self.by_number).values().filter_map(Weak::upgrade).collect()
    }
}

/// One hold, wherever it is.
pub(crate) struct ShardedHold {
    holds: Arc<Holds>,
    _keeps: Arc<dyn Any + Send + Sync>,
    number: u64,
    key: Key,
    token: FencingToken,
    owner: Option<OwnerId>,
    /// Over if the hold was lost for a reason that no cluster's guard knows.
    validity: Validity,
    present: Mutex<Present>,
    /// The present guard is another, or there is none any more.
    changed: Notify,
}

struct Present {
    cluster: ClusterName,
    /// That of the cluster; none once it was given back.
    hold: Option<Arc<dyn Hold>>,
    /// How often it was moved.
    moves: u32,
    is_moving: bool,
}

impl ShardedHold {
    fn new(
        holds: Arc<Holds>,
        keeps: Arc<dyn Any + Send + Sync>,
        number: u64,
        cluster: ClusterName,
        guard: LockGuard,
    ) -> Arc<Self> {
        let hold = hold_of(guard);
        Arc::new(Self {
            holds,
            _keeps: keeps,
            number,
            key: hold.key().clone(),
            token: hold.fencing_token(),
            owner: hold.owner(),
            validity: Validity::until(BootInstant::NEVER),
            present: Mutex::new(Present { cluster, hold: Some(hold), moves: 0, is_moving: false }),
            changed: Notify::new(),
        })
    }

    /// Returns the hold of the present cluster, and how often it was moved before.
    fn present(&self) -> Option<(Arc<dyn Hold>, u32)> {
        let present = locked(&self.present);
        present.hold.clone().map(|hold| (hold, present.moves))
    }

    /// Returns which cluster has it, if any still has.
    pub(crate) fn cluster(&self) -> Option<ClusterName> {
        let present = locked(&self.present);
        present.hold.as_ref().map(|_| present.cluster.clone())
    }

    /// Says that it is being moved, unless it is already.
    pub(crate) fn begin_move(&self) -> bool {
        let mut present = locked(&self.present);
        present.hold.is_some() && !std::mem::replace(&mut present.is_moving, true)
    }

    pub(crate) fn end_move(&self) {
        locked(&self.present).is_moving = false;
    }

    /// Returns what ends belief whatever the present cluster says: another one may give the hold a lease that nobody
    /// renews.
    pub(crate) fn belief(&self) -> &Validity {
        &self.validity
    }

    /// Takes that bound away, if it was not reached.
    pub(crate) fn be_certain(&self) {
        self.validity.extend(BootInstant::NEVER);
    }

    /// The hold is on another cluster now. That of the one before is let go; so is the new one, if the hold was lost or
    /// given back meanwhile.
    pub(crate) fn has_moved(&self, cluster: ClusterName, guard: LockGuard) {
        let mut present = locked(&self.present);
        let stands = present.hold.as_ref().is_some_and(|old| !old.remaining().is_zero());
        if !stands || !self.validity.extend(BootInstant::NEVER) {
            drop(present);
            self.validity.end(LossReason::Deadline);
            return drop(guard);
        }
        present.cluster = cluster;
        present.moves += 1;
        let old = present.hold.replace(hold_of(guard));
        drop(present);
        self.changed.notify_waiters();
        if let Some(old) = old {
            old.abandon();
        }
    }

    /// No cluster has it any more.
    pub(crate) fn is_lost(&self) {
        self.validity.end(LossReason::NotOwner);
    }

    /// Lets go of what a cluster still keeps for it, if it was lost for a reason that no cluster's guard knows.
    /// Otherwise a guard that is lost and not dropped would have its original renewed, and the drain would wait for it.
    pub(crate) fn let_go_if_lost(&self) {
        if !self.validity.is_valid()
            && let Some(hold) = self.take()
        {
            hold.abandon();
        }
    }

    /// Resolves once it was given back or lost.
    pub(crate) async fn ended(&self) {
        loop {
            let changed = self.changed.notified();
            let Some((hold, moves)) = self.present() else { return };
            tokio::select! {
                () = changed => {}
                () = self.validity.ended() => return,
                () = hold.lost() => if self.has_not_moved_since(moves) { return },
            }
        }
    }

    fn has_not_moved_since(&self, moves: u32) -> bool {
        locked(&self.present).moves == moves
    }

    fn take(&self) -> Option<Arc<dyn Hold>> {
        let hold = locked(&self.present).hold.take();
        self.changed.notify_waiters();
        locked(&self.holds.by_number).remove(&self.number);
        hold
    }

    fn lost_error(&self, reason: LossReason) -> Error {
        Error::new(ErrorKind::Lost, format!("the lock was lost: {reason}")).with_key(&self.key)
    }
}

impl Hold for ShardedHold {
    fn key(&self) -> &Key {
        &self.key
    }

    fn fencing_token(&self) -> FencingToken {
        self.token
    }

    fn owner(&self) -> Option<OwnerId> {
        self.owner
    }

    fn remaining(&self) -> Duration {
        // Asked under the lock: a loss that was seen once must not be forgotten by a move.
        let present = locked(&self.present);
        let left = present.hold.as_ref().map_or(Duration::ZERO, |hold| hold.remaining());
        left.min(self.validity.remaining())
    }

    fn loss(&self) -> Option<LossReason> {
        self.validity.reason().or_else(|| self.present()?.0.loss())
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.ended())
    }

    fn verify(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            while let Some((hold, moves)) = self.present() {
                let verified = hold.verify().await;
                if self.has_not_moved_since(moves) {
                    verified?;
                    break;
                }
            }
            self.validity.reason().map_or(Ok(()), |reason| Err(self.lost_error(reason)))
        })
    }

    fn release(self: Arc<Self>) -> Release {
        self.let_go_if_lost();
        match self.take() {
            Some(hold) => hold.release(),
            None => {
                let reason = self.validity.reason().unwrap_or(LossReason::NotOwner);
                Release::Done(Err(self.lost_error(reason)))
            }
        }
    }

    fn abandon(self: Arc<Self>) {
        if let Some(hold) = self.take() {
            hold.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lock_core::ErrorKind;
    use lock_local::LocalLocker;

    use super::Holds;

    #[tokio::test]
    async fn a_guard_that_is_lost_and_kept_holds_nobody_up() -> lock_core::Result<()> {
        let (locks, holds) = (LocalLocker::new(), Arc::new(Holds::default()));
        let guard = holds.add(Arc::new(()), "a".parse()?, locks.lock("orders").await?);
        let hold = holds.all().remove(0);
        hold.let_go_if_lost();
        assert!(guard.is_held() && locks.try_lock("orders").await?.is_none());
        hold.is_lost();
        hold.let_go_if_lost();
        assert!(!guard.is_held() && locks.try_lock("orders").await?.is_some());
        assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
        Ok(())
    }
}
