//! A hold that servers know of, from the claim for it to its release.

use std::{sync::Arc, time::Duration};

use crate::{
    Error, FencingToken, Key, LockGuard, LossReason, Result,
    backend::{BoxFuture, Hold, Release, Released},
    background::{Background, HoldStore},
};

/// What has been or may have been asked of servers. Dropped before it is settled, it is undone in the background.
pub(crate) struct PendingClaim<S: HoldStore> {
    background: Arc<Background<S>>,
    held: Option<S::Held>,
    is_queued: bool,
}

impl<S: HoldStore> PendingClaim<S> {
    pub(crate) fn new(background: &Arc<Background<S>>, held: S::Held) -> Self {
        Self { background: Arc::clone(background), held: Some(held), is_queued: false }
    }

    /// Notes that it has a place in the servers' queue, which `close` waits for to be given up.
    pub(crate) fn queued(mut self) -> Self {
        if !std::mem::replace(&mut self.is_queued, true) {
            self.background.expect_undo(true);
        }
        self
    }

    /// Makes it what is about to be asked for again, from its place in a queue.
    pub(crate) fn restarted(mut self, held: S::Held) -> Self {
        self.held = Some(held);
        self
    }

    pub(crate) fn held(&self) -> &S::Held {
        self.held.as_ref().expect("only settled takes it, and it takes the rest too")
    }

    /// Takes it out: nothing is left to undo.
    pub(crate) fn settled(mut self) -> S::Held {
        self.held.take().expect("only settled takes it, and it takes the rest too")
    }

    /// Makes a guard of what was granted.
    pub(crate) fn into_guard(self, token: FencingToken) -> LockGuard {
        let background = Arc::clone(&self.background);
        background.enter();
        LockGuard::new(Arc::new(ClaimHold { background, held: self.settled(), token }))
    }
}

impl<S: HoldStore> Drop for PendingClaim<S> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.background.undo(held);
        }
        if self.is_queued {
            self.background.expect_undo(false);
        }
    }
}

/// A claim that was granted.
struct ClaimHold<S: HoldStore> {
    background: Arc<Background<S>>,
    held: S::Held,
    token: FencingToken,
}

impl<S: HoldStore> ClaimHold<S> {
    fn lost_by(&self, reason: LossReason) -> Error {
        Error::lost(reason).with_key(self.key())
    }
}

impl<S: HoldStore> Hold for ClaimHold<S> {
    fn key(&self) -> &Key {
        S::claim(&self.held).key()
    }

    fn fencing_token(&self) -> FencingToken {
        self.token
    }

    #[cfg(feature = "movable")]
    fn owner(&self) -> Option<crate::backend::OwnerId> {
        Some(S::claim(&self.held).owner())
    }

    fn remaining(&self) -> Duration {
        S::validity(&self.held).remaining()
    }

    fn loss(&self) -> Option<LossReason> {
        S::validity(&self.held).reason()
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(S::validity(&self.held).ended())
    }

    fn verify(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let verified = self.background.bounded(self.background.store().verify(&self.held)).await;
            if !verified.map_err(|error| error.with_key(self.key()))? {
                S::validity(&self.held).end(LossReason::NotOwner);
            }
            self.loss().map_or(Ok(()), |reason| Err(self.lost_by(reason)))
        })
    }

    fn release(self: Arc<Self>) -> Release {
        Release::Pending(Box::pin(async move {
            // From here on nothing is renewed, and whatever ends this future early ends in an undo.
            self.background.withdraw(&self.held);
            let pending = PendingClaim::new(&self.background, self.held.clone());
            if let Some(reason) = self.loss() {
                return Err(self.lost_by(reason));
            }
            let released = self.background.bounded(self.background.store().release(&self.held)).await;
            let released = released.map_err(|error| error.with_key(self.key()))?;
            pending.settled();
            match released {
                Released::Freed => Ok(()),
                Released::NotOwner => Err(self.lost_by(LossReason::NotOwner)),
            }
        }))
    }

    fn abandon(self: Arc<Self>) {
        self.background.withdraw(&self.held);
        self.background.undo(self.held.clone());
    }
}

impl<S: HoldStore> Drop for ClaimHold<S> {
    fn drop(&mut self) {
        self.background.leave();
    }
}
