//! One attempt to have a lease on a key, which undoes itself unless it is settled.

use std::{sync::Arc, time::Duration};

use crate::{
    Error, ErrorKind, Key, LockGuard, LossReason, Result,
    backend::{AcquireReply, Claim, Effect, LeaseStore, Released, Renewal, Validity},
    background::{Background, HoldStore, Lease},
    hold::PendingClaim,
};

/// How one attempt ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The key is held.
    Acquired(LockGuard),
    /// Another holds it.
    Busy {
        /// When the holder's lease will end unless it is renewed.
        free_in: Duration,
    },
}

/// Makes a guard of a grant, and of anything else what it is; undoes whatever may have been left behind.
pub(crate) async fn attempt_once<S: LeaseStore>(
    background: &Arc<Background<S>>,
    key: &Key,
    waits: bool,
) -> Result<Outcome> {
    let claim = background.claim(key, waits)?;
    let (timing, started) = (background.timing(), claim.started());
    let validity = Arc::new(Validity::until(timing.deadline(started, timing.ttl())));
    let pending = PendingClaim::new(background, Lease::new(claim, timing.ttl(), validity));
    let reply = background.bounded(background.store().acquire(pending.held().subject())).await;
    let (effect, outcome) = match reply {
        Ok(AcquireReply::Granted { token, ttl }) => {
            let lease = pending.held();
            lease.grant(ttl, timing.deadline(started, ttl));
            let left = lease.validity().remaining();
            if left < timing.min_validity() {
                return Err(too_late(left).with_key(key));
            }
            background.renew_from_now_on(lease);
            return Ok(Outcome::Acquired(pending.into_guard(token)));
        }
        Ok(AcquireReply::Busy { free_in, effect }) => (effect, Ok(Outcome::Busy { free_in })),
        Err(error) => (error.effect(), Err(error.with_key(key))),
    };
    if effect == Effect::None {
        pending.settled();
    }
    outcome
}

fn too_late(left: Duration) -> Error {
    let message = format!("the answer came so late that {left:?} of the lease was left; it was given back");
    Error::new(ErrorKind::Unavailable, message)
}

impl<S: LeaseStore> HoldStore for S {
    type Renewed = Claim;
    type Held = Arc<Lease<Claim>>;

    const LOSS: LossReason = LossReason::NotOwner;

    fn claim(held: &Self::Held) -> &Claim {
        held.subject()
    }

    fn validity(held: &Self::Held) -> &Validity {
        held.validity()
    }

    fn own_lease(held: &Self::Held) -> Option<&Lease<Claim>> {
        Some(held)
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal> {
        LeaseStore::renew(self, claim).await
    }

    async fn release(&self, held: &Self::Held) -> Result<Released> {
        LeaseStore::release(self, held.subject()).await
    }

    async fn undo(&self, held: &Self::Held) -> Result<()> {
        LeaseStore::undo(self, held.subject()).await
    }

    fn undo_limit(held: &Self::Held) -> Duration {
        held.subject().ttl()
    }

    async fn verify(&self, held: &Self::Held) -> Result<bool> {
        LeaseStore::verify(self, held.subject()).await
    }
}
