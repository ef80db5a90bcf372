//! A hold that servers know of, from the claim for it to its release.

use std::{sync::Arc, time::Duration};

use crate::{
    Error, FencingToken, Key, LockGuard, LossReason, Result,
    backend::{BoxFuture, Claim, Hold, Release, Released, Validity},
    background::{Background, HoldStore, Lease},
};

/// A claim that has been or may have been sent to servers. Dropped before it is settled, it is undone in the
/// background.
pub(crate) struct PendingClaim<S: HoldStore> {
    background: Arc<Background<S>>,
    claim: Option<Claim>,
}

impl<S: HoldStore> PendingClaim<S> {
    /// Makes a claim for `key` with a fresh owner id, unless the locker was closed.
    pub(crate) fn new(background: &Arc<Background<S>>, key: &Key, waits: bool) -> Result<Self> {
        background.check_open().map_err(|error| error.with_key(key))?;
        let claim = Claim::new(key.clone(), background.timing().ttl(), waits);
        Ok(Self::of(background, claim))
    }

    fn of(background: &Arc<Background<S>>, claim: Claim) -> Self {
        Self { background: Arc::clone(background), claim: Some(claim) }
    }

    pub(crate) fn claim(&self) -> &Claim {
        self.claim.as_ref().expect("only settled takes the claim, and it takes the rest too")
    }

    /// Takes the claim out: nothing is left to undo.
    pub(crate) fn settled(mut self) -> Claim {
        self.claim.take().expect("only settled takes the claim, and it takes the rest too")
    }

    /// Makes a guard of a granted claim, and of `lease` what is renewed, if it is.
    pub(crate) fn held(
        self,
        token: FencingToken,
        lease: impl FnOnce(Claim) -> Arc<Lease<Claim>>,
    ) -> (LockGuard, Arc<Lease<Claim>>) {
        let background = Arc::clone(&self.background);
        let lease = lease(self.settled());
        background.enter();
        let hold = ClaimHold { background, lease: Arc::clone(&lease), token };
        (LockGuard::new(Arc::new(hold)), lease)
    }
}

impl<S: HoldStore> Drop for PendingClaim<S> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.background.undo(claim);
        }
    }
}

/// A claim that was granted.
struct ClaimHold<S: HoldStore> {
    background: Arc<Background<S>>,
    lease: Arc<Lease<Claim>>,
    token: FencingToken,
}

impl<S: HoldStore> ClaimHold<S> {
    fn claim(&self) -> &Claim {
        self.lease.subject()
    }

    fn validity(&self) -> &Validity {
        self.lease.validity()
    }

    fn lost_by(&self, reason: LossReason) -> Error {
        Error::lost(reason).with_key(self.key())
    }
}

impl<S: HoldStore> Hold for ClaimHold<S> {
    fn key(&self) -> &Key {
        self.claim().key()
    }

    fn fencing_token(&self) -> FencingToken {
        self.token
    }

    fn remaining(&self) -> Duration {
        self.validity().remaining()
    }

    fn loss(&self) -> Option<LossReason> {
        self.validity().reason()
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.validity().ended())
    }

    fn verify(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let verified = self.background.bounded(self.background.store().verify(self.claim())).await;
            if !verified.map_err(|error| error.with_key(self.key()))? {
                self.validity().end(LossReason::NotOwner);
            }
            self.loss().map_or(Ok(()), |reason| Err(self.lost_by(reason)))
        })
    }

    fn release(self: Arc<Self>) -> Release {
        Release::Pending(Box::pin(async move {
            // From here on nothing is renewed, and whatever ends this future early ends in an undo.
            self.background.withdraw(&self.lease);
            let pending = PendingClaim::of(&self.background, self.claim().clone());
            if let Some(reason) = self.loss() {
                return Err(self.lost_by(reason));
            }
            let released = self.background.bounded(self.background.store().release(pending.claim())).await;
            let released = released.map_err(|error| error.with_key(self.key()))?;
            pending.settled();
            match released {
                Released::Freed => Ok(()),
                Released::NotOwner => Err(self.lost_by(LossReason::NotOwner)),
            }
        }))
    }

    fn abandon(self: Arc<Self>) {
        self.background.withdraw(&self.lease);
        self.background.undo(self.claim().clone());
    }
}

impl<S: HoldStore> Drop for ClaimHold<S> {
    fn drop(&mut self) {
        self.background.leave();
    }
}
