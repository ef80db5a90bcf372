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

/// A try that was refused.
pub(crate) struct Refusal<S: LeaseStore> {
    pub(crate) free_in: Duration,
    /// Its claim, if that has a place in the servers' queue.
    pub(crate) queued: Option<PendingClaim<S>>,
}

type Attempted<S> = Result<LockGuard, Refusal<S>>;

/// Tries with a fresh owner id.
pub(crate) async fn attempt_once<S: LeaseStore>(
    background: &Arc<Background<S>>,
    key: &Key,
    waits: bool,
) -> Result<Attempted<S>> {
    let lease = lease_of(background, background.claim(key, waits)?);
    attempt(background, PendingClaim::new(background, lease)).await
}

/// Tries with the claim that has a place in the servers' queue.
pub(crate) async fn attempt_again<S: LeaseStore>(
    background: &Arc<Background<S>>,
    queued: PendingClaim<S>,
) -> Result<Attempted<S>> {
    background.check_open()?;
    let lease = lease_of(background, queued.held().subject().restarted());
    attempt(background, queued.restarted(lease)).await
}

fn lease_of<S: LeaseStore>(background: &Arc<Background<S>>, claim: Claim) -> Arc<Lease<Claim>> {
    let timing = background.timing();
    let validity = Validity::until(timing.deadline(claim.started(), timing.ttl()));
    Lease::new(claim, timing.ttl(), Arc::new(validity))
}

/// Makes a guard of a grant, and of anything else what it is; undoes whatever may have been left behind.
async fn attempt<S: LeaseStore>(
    background: &Arc<Background<S>>,
    pending: PendingClaim<S>,
) -> Result<Attempted<S>> {
    let reply = background.bounded(background.store().acquire(pending.held().subject())).await;
    let (timing, claim) = (background.timing(), pending.held().subject());
    let (effect, outcome) = match reply {
        Ok(AcquireReply::Granted { token, ttl }) => {
            let lease = pending.held();
            lease.grant(ttl, timing.deadline(claim.started(), ttl));
            let left = lease.validity().remaining();
            if left < timing.min_validity() {
                return Err(too_late(left).with_key(claim.key()));
            }
            background.renew_from_now_on(lease);
            return Ok(Ok(pending.into_guard(token)));
        }
        Ok(AcquireReply::Queued { free_in }) => {
            return Ok(Err(Refusal { free_in, queued: Some(pending.queued()) }));
        }
        Ok(AcquireReply::Busy { free_in, effect }) => (effect, Ok(Err(Refusal { free_in, queued: None }))),
        Err(error) => (error.effect(), Err(error.with_key(claim.key()))),
    };
    // What had a place in a queue before has left something, whatever this try did.
    if effect == Effect::None && claim.begun() == claim.started() {
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

    fn renews_at_once(&self) -> usize {
        LeaseStore::renews_at_once(self)
    }

    async fn renew(&self, claims: &[&Claim]) -> Vec<Result<Renewal>> {
        LeaseStore::renew_all(self, claims).await
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
