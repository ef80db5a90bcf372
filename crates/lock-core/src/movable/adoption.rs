//! How a holder takes its hold over on the cluster to which the slot has moved.

use std::sync::Arc;

use super::{Epoch, MovableLease, MovableQueue, SlotStore};
use crate::{
    Error, ErrorKind, FencingToken, Key, LockGuard, Locker, Result,
    backend::{
        BootInstant, BoxFuture, Claim, Effect, Hold, LeaseTiming, Leased, OwnerId, Queued, Validity,
        WaitingBackend, WaitingStore,
    },
    background::Lease,
    hold::PendingClaim,
    queued::Queues,
    session::Entry,
};

/// A backend whose slots can move.
pub trait MovableBackend: WaitingBackend + Sized {
    /// What a mover works with.
    type Slots: SlotStore;

    /// Returns it.
    fn slots(&self) -> &Self::Slots;

    /// Returns the options, checked.
    fn timing(&self) -> &LeaseTiming;

    /// Begins to take over the copy of a hold of `key` by `owner`. Nothing is sent yet.
    fn adoption(locker: &Locker<Self>, key: Key, owner: OwnerId) -> Box<dyn Adoption>;
}

/// A hold that is being taken over. Dropped, the hold is given up: whatever there is of it on this cluster is deleted
/// in the background. So it must be kept as long as the original may be believed in.
pub trait Adoption: Send {
    /// Tries once; `None` if there is nothing of the hold on this cluster. The guard has the `token` that is given.
    ///
    /// Before anything is sent, `belief` is [capped](Validity::cap): from then on the hold may have a lease here that
    /// nobody renews. It may be extended again after a success, and after an error if all that there were say that they
    /// had no effect.
    fn attempt<'a>(
        &'a mut self,
        epoch: Epoch,
        token: FencingToken,
        belief: &'a Validity,
    ) -> BoxFuture<'a, Result<Option<LockGuard>>>;
}

/// Takes the hold out of a guard, for whoever makes another guard of it: one of [`Hold::release`] and [`Hold::abandon`]
/// must be called, once.
#[must_use]
pub fn hold_of(guard: LockGuard) -> Arc<dyn Hold> {
    guard.into_hold()
}

/// A try after which nothing is certain leaves its claim behind, which is undone when the adoption is dropped. Where
/// none did, nothing must be undone: that would delete the copy.
struct QueueAdoption<Q: MovableQueue> {
    locker: Locker<Queued<Q>>,
    claim: Claim,
    uncertain: Option<PendingClaim<Queues<Q>>>,
}

impl<Q: MovableQueue> MovableBackend for Queued<Q> {
    type Slots = Q;

    fn slots(&self) -> &Q {
        self.store()
    }

    fn timing(&self) -> &LeaseTiming {
        self.background.timing()
    }

    fn adoption(locker: &Locker<Self>, key: Key, owner: OwnerId) -> Box<dyn Adoption> {
        let claim = Claim::adopting(key, owner, locker.backend().background.timing().ttl());
        Box::new(QueueAdoption { locker: locker.clone(), claim, uncertain: None })
    }
}

impl<Q: MovableQueue> QueueAdoption<Q> {
    async fn try_once(
        &mut self,
        epoch: Epoch,
        token: FencingToken,
        belief: &Validity,
    ) -> Result<Option<LockGuard>> {
        let queued = self.locker.backend();
        let session = queued.session().await?;
        let left = session.validity().remaining();
        // Belief that rests on the other cluster as well must not get so short that one slow answer ends it.
        if left < 2 * queued.background.timing().request_timeout() {
            let message =
                format!("the session on the new cluster is certain for {left:?} only, too little to move to");
            return Err(Error::new(ErrorKind::Unavailable, message).without_effect());
        }
        belief.cap(BootInstant::now().after(left));
        let entry = Entry::new(session, &self.claim);
        // Nobody stands in a queue here, who could be withdrawn from it.
        entry.set_held();
        let pending = PendingClaim::new(&queued.background, Arc::clone(&entry));
        let was_uncertain = match self.uncertain.replace(pending) {
            Some(earlier) => {
                earlier.settled().set_left();
                true
            }
            None => false,
        };
        let adopting = queued.store().adopt(entry.session.subject().inner(), &self.claim, epoch, token);
        let made = match queued.background.bounded(adopting).await {
            Ok(Some(made)) => made,
            Ok(None) => return Ok(None),
            Err(error) => {
                if error.effect() == Effect::None && !was_uncertain {
                    self.uncertain.take().into_iter().for_each(|pending| pending.settled().set_left());
                }
                return Err(error);
            }
        };
        entry.set_made(made);
        let pending = self.uncertain.take().filter(|_| entry.validity.is_valid());
        Ok(pending.map(|pending| pending.into_guard(token)))
    }
}

impl<Q: MovableQueue> Adoption for QueueAdoption<Q> {
    fn attempt<'a>(
        &'a mut self,
        epoch: Epoch,
        token: FencingToken,
        belief: &'a Validity,
    ) -> BoxFuture<'a, Result<Option<LockGuard>>> {
        Box::pin(self.try_once(epoch, token, belief))
    }
}

/// As a [`QueueAdoption`], of a hold with a lease of its own.
struct LeaseAdoption<S: MovableLease> {
    locker: Locker<Leased<S>>,
    claim: Claim,
    uncertain: Option<PendingClaim<S>>,
}

impl<S: MovableLease + WaitingStore> MovableBackend for Leased<S> {
    type Slots = S;

    fn slots(&self) -> &S {
        self.store()
    }

    fn timing(&self) -> &LeaseTiming {
        self.background.timing()
    }

    fn adoption(locker: &Locker<Self>, key: Key, owner: OwnerId) -> Box<dyn Adoption> {
        let claim = Claim::adopting(key, owner, locker.backend().background.timing().ttl());
        Box::new(LeaseAdoption { locker: locker.clone(), claim, uncertain: None })
    }
}

impl<S: MovableLease> LeaseAdoption<S> {
    async fn try_once(
        &mut self,
        epoch: Epoch,
        token: FencingToken,
        belief: &Validity,
    ) -> Result<Option<LockGuard>> {
        let background = &self.locker.backend().background;
        let (timing, sent) = (background.timing(), BootInstant::now());
        let deadline = timing.deadline(sent, timing.ttl());
        belief.cap(deadline);
        let lease = Lease::new(self.claim.clone(), timing.ttl(), Arc::new(Validity::until(deadline)));
        let pending = PendingClaim::new(background, Arc::clone(&lease));
        let earlier = self.uncertain.replace(pending).map(PendingClaim::settled);
        match background.bounded(background.store().adopt(&self.claim, epoch)).await {
            Ok(true) if lease.validity().remaining() >= timing.min_validity() => {
                background.renew_from_now_on(&lease);
                Ok(self.uncertain.take().map(|pending| pending.into_guard(token)))
            }
            Ok(true) => {
                let message = "the new cluster answered so late that little of the lease was left";
                Err(Error::new(ErrorKind::Unavailable, message))
            }
            Ok(false) => Ok(None),
            Err(error) => {
                if error.effect() == Effect::None && earlier.is_none() {
                    self.uncertain.take().map(PendingClaim::settled);
                }
                Err(error)
            }
        }
    }
}

impl<S: MovableLease> Adoption for LeaseAdoption<S> {
    fn attempt<'a>(
        &'a mut self,
        epoch: Epoch,
        token: FencingToken,
        belief: &'a Validity,
    ) -> BoxFuture<'a, Result<Option<LockGuard>>> {
        Box::pin(self.try_once(epoch, token, belief))
    }
}
