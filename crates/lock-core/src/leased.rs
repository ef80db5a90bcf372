//! A backend made of leases: attempts that undo themselves, guards with a deadline.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use crate::{
    Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, LossReason, Options, Result,
    backend::{
        AcquireReply, Backend, BoxFuture, Claim, Effect, Hold, LeaseStore, Release, Released, Validity,
        WaitingBackend, WaitingStore,
    },
    keeper::{Keeper, Lease},
};

/// Makes a [`Backend`] of a [`LeaseStore`].
///
/// One task, the keeper, renews all leases and does what remains to be done in the background. It runs in the
/// runtime in which this value was made, and ends with the last locker and guard. An uncontended acquire or
/// release is done on the caller's own task.
pub struct Leased<S: LeaseStore> {
    keeper: Arc<Keeper<S>>,
}

impl<S: LeaseStore> Leased<S> {
    /// Starts the keeper of `store`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: the options contradict each other. [`ErrorKind::Closed`]: not called within a
    /// tokio runtime.
    pub fn new(store: S, options: &Options) -> Result<Self> {
        Ok(Self { keeper: Keeper::start(store, options.check()?)? })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &S {
        self.keeper.store()
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
        self.keeper.bounded(request).await
    }
}

impl<S: LeaseStore> Drop for Leased<S> {
    fn drop(&mut self) {
        self.keeper.leave();
    }
}

impl<S: LeaseStore> fmt::Debug for Leased<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leased").field("terms", self.keeper.timing()).finish_non_exhaustive()
    }
}

impl<S: LeaseStore> Backend for Leased<S> {
    fn capabilities(&self) -> Capabilities {
        self.keeper.store().capabilities()
    }

    async fn try_lock(&self, key: Key) -> Result<Option<LockGuard>> {
        match attempt_once(&self.keeper, &key, false).await? {
            Outcome::Acquired(guard) => Ok(Some(guard)),
            Outcome::Busy { .. } => Ok(None),
        }
    }

    async fn close(&self) {
        self.keeper.close().await;
    }
}

impl<S: WaitingStore> WaitingBackend for Leased<S> {
    async fn lock(&self, key: Key) -> Result<LockGuard> {
        let acquirer = Acquirer { keeper: &self.keeper, key };
        self.keeper.store().lock(&acquirer).await.map_err(|error| error.with_key(&acquirer.key))
    }
}

/// The way in which a [`WaitingStore`] tries for one key.
pub struct Acquirer<'a, S: LeaseStore> {
    keeper: &'a Arc<Keeper<S>>,
    key: Key,
}

impl<S: LeaseStore> Acquirer<'_, S> {
    /// The key to acquire.
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
        attempt_once(self.keeper, &self.key, true).await
    }

    /// Begins an attempt that may take long, such as a place in a queue. Each of its requests must be
    /// [bounded](Self::bounded).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`]: the locker was closed, or its runtime has ended.
    pub fn begin(&self) -> Result<Attempt<'_, S>> {
        Attempt::begin(self.keeper, &self.key, true)
    }

    /// How long a lease lasts.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.keeper.timing().ttl()
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
        self.keeper.bounded(request).await
    }
}

impl<S: LeaseStore> fmt::Debug for Acquirer<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquirer").field("key", &self.key).finish_non_exhaustive()
    }
}

/// How one attempt ended.
#[derive(Debug)]
pub enum Outcome {
    /// The key is held.
    Acquired(LockGuard),
    /// Another holds it.
    Busy {
        /// When the holder's lease will end unless it is renewed.
        free_in: Duration,
    },
}

/// An attempt that has been or may have been sent. Dropped before it is concluded, it is undone in the background.
pub struct Attempt<'a, S: LeaseStore> {
    keeper: &'a Arc<Keeper<S>>,
    claim: Option<Claim>,
}

impl<'a, S: LeaseStore> Attempt<'a, S> {
    fn new(keeper: &'a Arc<Keeper<S>>, claim: Claim) -> Self {
        Self { keeper, claim: Some(claim) }
    }

    fn begin(keeper: &'a Arc<Keeper<S>>, key: &Key, waits: bool) -> Result<Self> {
        keeper.check_open().map_err(|error| error.with_key(key))?;
        Ok(Self::new(keeper, Claim::new(key.clone(), keeper.timing().ttl(), waits)))
    }

    /// Makes a guard of a grant, and of anything else what it is; undoes whatever may have been left behind.
    ///
    /// # Errors
    ///
    /// The error in `verdict`, or [`ErrorKind::Unavailable`] if the grant came too late to be worth anything.
    pub fn conclude(self, reply: Result<AcquireReply>) -> Result<Outcome> {
        let timing = self.keeper.timing();
        let (token, validity, renewed) = match reply {
            Ok(AcquireReply::Granted { token, ttl }) => {
                let deadline = timing.deadline(self.claim().started(), ttl);
                (token, Arc::new(Validity::until(deadline)), true)
            }
            Ok(AcquireReply::Joined { token, validity }) => (token, validity, false),
            Ok(AcquireReply::Busy { free_in, effect }) => {
                if effect == Effect::None {
                    self.settled();
                }
                return Ok(Outcome::Busy { free_in });
            }
            Err(error) => {
                let error = error.with_key(self.claim().key());
                if error.effect() == Effect::None {
                    self.settled();
                }
                return Err(error);
            }
        };
        let left = validity.remaining();
        if renewed && left < timing.min_validity() || left.is_zero() {
            let message =
                format!("the answer came so late that {left:?} of the lease was left; it was given back");
            return Err(Error::new(ErrorKind::Unavailable, message).with_key(self.claim().key()));
        }
        let keeper = Arc::clone(self.keeper);
        let lease = Arc::new(Lease::new(self.settled(), validity));
        keeper.enter();
        if renewed {
            keeper.renew_from_now_on(&lease);
        }
        Ok(Outcome::Acquired(LockGuard::new(Arc::new(LeaseHold { keeper, lease, token }))))
    }

    /// What is claimed, and under which owner id.
    #[must_use]
    pub fn claim(&self) -> &Claim {
        self.claim.as_ref().expect("only settled takes the claim, and it takes the attempt too")
    }

    /// Nothing is left to undo.
    fn settled(mut self) -> Claim {
        self.claim.take().expect("only settled takes the claim, and it takes the attempt too")
    }
}

impl<S: LeaseStore> fmt::Debug for Attempt<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Attempt").field(&self.claim).finish()
    }
}

impl<S: LeaseStore> Drop for Attempt<'_, S> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.keeper.undo(claim);
        }
    }
}

async fn attempt_once<S: LeaseStore>(keeper: &Arc<Keeper<S>>, key: &Key, waits: bool) -> Result<Outcome> {
    let attempt = Attempt::begin(keeper, key, waits)?;
    let reply = keeper.bounded(keeper.store().acquire(attempt.claim())).await;
    attempt.conclude(reply)
}

/// A hold whose lease the keeper renews.
struct LeaseHold<S: LeaseStore> {
    keeper: Arc<Keeper<S>>,
    lease: Arc<Lease>,
    token: FencingToken,
}

impl<S: LeaseStore> LeaseHold<S> {
    fn validity(&self) -> &Validity {
        self.lease.validity()
    }

    fn not_owner(&self) -> Error {
        Error::lost(LossReason::NotOwner).with_key(self.key())
    }
}

impl<S: LeaseStore> Hold for LeaseHold<S> {
    fn key(&self) -> &Key {
        self.lease.claim().key()
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
            let verified = self.keeper.bounded(self.keeper.store().verify(self.lease.claim())).await;
            if !verified.map_err(|error| error.with_key(self.key()))? {
                self.validity().end(LossReason::NotOwner);
            }
            match self.loss() {
                None => Ok(()),
                Some(reason) => Err(Error::lost(reason).with_key(self.key())),
            }
        })
    }

    fn release(self: Arc<Self>) -> Release {
        Release::Pending(Box::pin(async move {
            // From here on the lease is not renewed, and whatever ends this future early ends in an undo.
            self.keeper.withdraw(&self.lease);
            let pending = Attempt::new(&self.keeper, self.lease.claim().clone());
            if let Some(reason) = self.loss() {
                return Err(Error::lost(reason).with_key(self.key()));
            }
            let released = self.keeper.bounded(self.keeper.store().release(pending.claim())).await;
            match released.map_err(|error| error.with_key(self.key()))? {
                Released::Freed => pending.settled(),
                Released::NotOwner => {
                    pending.settled();
                    return Err(self.not_owner());
                }
            };
            Ok(())
        }))
    }

    fn abandon(self: Arc<Self>) {
        self.keeper.withdraw(&self.lease);
        self.keeper.undo(self.lease.claim().clone());
    }
}

impl<S: LeaseStore> Drop for LeaseHold<S> {
    fn drop(&mut self) {
        self.keeper.leave();
    }
}
