//! A backend made of leases: attempts that undo themselves, guards with a deadline.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use crate::{
    Capabilities, Error, ErrorKind, Key, LockGuard, LossReason, Options, Result,
    backend::{
        AcquireReply, Backend, Claim, Effect, LeaseStore, Released, Renewal, Validity, WaitingBackend,
        WaitingStore,
    },
    background::{Background, HoldStore, Lease},
    hold::PendingClaim,
    local_waiters::{Contender, LocalWaiters},
};

/// Makes a [`Backend`] of a [`LeaseStore`].
///
/// One background task renews all leases and undoes what was abandoned. It runs in the runtime in which this value was
/// made, and ends with the last locker and guard. An uncontended acquire or release is done on the caller's own task.
pub struct Leased<S: LeaseStore> {
    background: Arc<Background<S>>,
    waiters: Arc<LocalWaiters>,
}

impl<S: LeaseStore> Leased<S> {
    /// Starts the background task of `store`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: the options contradict each other. [`ErrorKind::Closed`]: not called within a
    /// tokio runtime.
    pub fn new(store: S, options: &Options) -> Result<Self> {
        Ok(Self { background: Background::start(store, options.check()?)?, waiters: Arc::default() })
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &S {
        self.background.store()
    }

    /// Bounds a request with the request timeout.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]: no answer in time. Else what `request` returns.
    ///
    /// # Cancel safety
    ///
    /// As that of `request`.
    pub async fn bounded<T: Send>(&self, request: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.background.bounded(request).await
    }
}

impl<S: LeaseStore> Drop for Leased<S> {
    fn drop(&mut self) {
        self.background.leave();
    }
}

impl<S: LeaseStore> fmt::Debug for Leased<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leased").field("timing", self.background.timing()).finish_non_exhaustive()
    }
}

impl<S: LeaseStore> Backend for Leased<S> {
    fn capabilities(&self) -> Capabilities {
        self.background.store().capabilities()
    }

    async fn try_lock(&self, key: Key) -> Result<Option<LockGuard>> {
        match attempt_once(&self.background, &key, false).await? {
            Outcome::Acquired(guard) => Ok(Some(guard)),
            Outcome::Busy { .. } => Ok(None),
        }
    }

    async fn close(&self) {
        self.background.close().await;
    }
}

impl<S: WaitingStore> WaitingBackend for Leased<S> {
    async fn lock(&self, key: Key) -> Result<LockGuard> {
        let mut free_in = None;
        if !self.waiters.has_line(&key) {
            match attempt_once(&self.background, &key, true).await? {
                Outcome::Acquired(guard) => return Ok(guard),
                Outcome::Busy { free_in: told } => free_in = Some(told),
            }
        }
        let contend = |contender| contend(Arc::clone(&self.background), contender, free_in);
        self.waiters.wait(&key, self.background.runtime(), contend).await
    }
}

/// Acquires the key again and again for those who stand in line for it, until nobody does.
async fn contend<S: WaitingStore>(
    background: Arc<Background<S>>,
    contender: Contender,
    mut free_in: Option<Duration>,
) {
    while !contender.finish() {
        let acquirer =
            Acquirer { background: &background, key: contender.key().clone(), free_in: free_in.take() };
        let locked = tokio::select! {
            biased;
            locked = background.store().lock(&acquirer) => locked,
            error = background.closed() => Err(error),
            () = contender.deserted() => continue,
        };
        match locked {
            Ok(guard) => contender.offer(guard).await,
            Err(error) => return contender.fail(&error.with_key(&acquirer.key)),
        }
    }
}

impl<S: LeaseStore> HoldStore for S {
    type Renewed = Claim;

    const LOSS: LossReason = LossReason::NotOwner;

    async fn renew(&self, claim: &Claim) -> Result<Renewal> {
        LeaseStore::renew(self, claim).await
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        LeaseStore::release(self, claim).await
    }

    async fn undo(&self, claim: &Claim) -> Result<()> {
        LeaseStore::undo(self, claim).await
    }

    fn undo_limit(&self, claim: &Claim) -> Duration {
        claim.ttl()
    }

    async fn verify(&self, claim: &Claim) -> Result<bool> {
        LeaseStore::verify(self, claim).await
    }
}

/// The way in which a [`WaitingStore`] tries for one key.
pub struct Acquirer<'a, S: LeaseStore> {
    background: &'a Arc<Background<S>>,
    key: Key,
    /// Told by a try that was just refused.
    free_in: Option<Duration>,
}

impl<S: LeaseStore> Acquirer<'_, S> {
    /// Returns the key to acquire.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Tries once, with a fresh owner id, and announces to the store that a refused claimant will wait.
    ///
    /// # Errors
    ///
    /// As [`Locker::try_lock`](crate::Locker::try_lock).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what a dropped attempt left is undone in the background.
    pub async fn once(&self) -> Result<Outcome> {
        attempt_once(self.background, &self.key, true).await
    }

    /// Tries once, unless a try was refused just before this acquirer was made.
    pub(crate) async fn first(&self) -> Result<Outcome> {
        match self.free_in {
            Some(free_in) => Ok(Outcome::Busy { free_in }),
            None => self.once().await,
        }
    }

    /// Returns how long a lease lasts.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.background.timing().ttl()
    }

    /// Bounds a request that is not an attempt with the request timeout.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]: no answer in time. Else what `request` returns.
    ///
    /// # Cancel safety
    ///
    /// As that of `request`.
    pub async fn bounded<T: Send>(&self, request: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.background.bounded(request).await
    }
}

impl<S: LeaseStore> fmt::Debug for Acquirer<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquirer").field("key", &self.key).finish_non_exhaustive()
    }
}

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

async fn attempt_once<S: LeaseStore>(
    background: &Arc<Background<S>>,
    key: &Key,
    waits: bool,
) -> Result<Outcome> {
    let pending = PendingClaim::new(background, key, waits)?;
    let reply = background.bounded(background.store().acquire(pending.claim())).await;
    conclude(background, pending, reply)
}

/// Makes a guard of a grant, and of anything else what it is; undoes whatever may have been left behind.
fn conclude<S: LeaseStore>(
    background: &Arc<Background<S>>,
    pending: PendingClaim<S>,
    reply: Result<AcquireReply>,
) -> Result<Outcome> {
    let timing = background.timing();
    match reply {
        Ok(AcquireReply::Granted { token, ttl }) => {
            let validity = Validity::until(timing.deadline(pending.claim().started(), ttl));
            let left = validity.remaining();
            if left < timing.min_validity() {
                return Err(too_late(left).with_key(pending.claim().key()));
            }
            let (guard, lease) = pending.held(token, |claim| Lease::new(claim, ttl, Arc::new(validity)));
            background.renew_from_now_on(&lease);
            Ok(Outcome::Acquired(guard))
        }
        Ok(AcquireReply::Busy { free_in, effect }) => {
            if effect == Effect::None {
                pending.settled();
            }
            Ok(Outcome::Busy { free_in })
        }
        Err(error) => {
            let error = error.with_key(pending.claim().key());
            if error.effect() == Effect::None {
                pending.settled();
            }
            Err(error)
        }
    }
}

pub(crate) fn too_late(left: Duration) -> Error {
    let message = format!("the answer came so late that {left:?} of the lease was left; it was given back");
    Error::new(ErrorKind::Unavailable, message)
}
