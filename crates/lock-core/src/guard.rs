//! What a holder has in hand.

use std::{
    fmt,
    future::{self, Future},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use crate::{Error, FencingToken, Key, LossReason, Result};

/// A boxed future, as type-erased backends return them.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One hold of one key, as a backend keeps it. Users see the [`LockGuard`] around it.
///
/// Exactly one of [`release`](Self::release) and [`abandon`](Self::abandon) is called, once.
pub trait Hold: Send + Sync + 'static {
    /// Returns the key that is held.
    fn key(&self) -> &Key;

    /// Returns the token of this hold.
    fn fencing_token(&self) -> FencingToken;

    /// Returns by which name servers know it, if any do.
    #[cfg(feature = "movable")]
    fn owner(&self) -> Option<crate::backend::OwnerId> {
        None
    }

    /// Returns how long it is certain that no other holds the key; `Duration::MAX` if it cannot be lost, zero once it
    /// is lost. No I/O.
    fn remaining(&self) -> Duration;

    /// Returns why it was lost, if it was.
    fn loss(&self) -> Option<LossReason>;

    /// Resolves once the hold is lost; never if it cannot be lost.
    fn lost(&self) -> BoxFuture<'_, ()>;

    /// Asks the server whether the hold stands.
    fn verify(&self) -> BoxFuture<'_, Result<()>>;

    /// Gives the key back. If the returned future is dropped, the release goes on in the background.
    fn release(self: Arc<Self>) -> Release;

    /// Gives the key back in the background: must not block, must not panic, must work outside a runtime.
    fn abandon(self: Arc<Self>);
}

/// A hold inside one process: it cannot be lost, and to drop it is to give the key back.
///
/// Every one of them is a [`Hold`]. The guard has the only count of it, so that nothing more is to be done when the
/// guard lets go.
pub trait InProcessHold: Send + Sync + 'static {
    /// Returns the key that is held.
    fn key(&self) -> &Key;

    /// Returns the token of this hold.
    fn fencing_token(&self) -> FencingToken;
}

impl<H: InProcessHold> Hold for H {
    fn key(&self) -> &Key {
        InProcessHold::key(self)
    }

    fn fencing_token(&self) -> FencingToken {
        InProcessHold::fencing_token(self)
    }

    fn remaining(&self) -> Duration {
        Duration::MAX
    }

    fn loss(&self) -> Option<LossReason> {
        None
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(future::pending())
    }

    fn verify(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(future::ready(Ok(())))
    }

    fn release(self: Arc<Self>) -> Release {
        Release::Done(Ok(()))
    }

    fn abandon(self: Arc<Self>) {}
}

/// What [`Hold::release`] returns.
pub enum Release {
    /// It is done.
    Done(Result<()>),
    /// It needs a round trip.
    Pending(BoxFuture<'static, Result<()>>),
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(result) => f.debug_tuple("Done").field(result).finish(),
            Self::Pending(_) => f.debug_tuple("Pending").finish_non_exhaustive(),
        }
    }
}

/// The lock is held as long as this value lives, or until it is lost.
///
/// Dropping it gives the key back in the background: that never blocks and never panics, also outside a
/// runtime. [`release`](Self::release) does it in the foreground and tells whether the lock was held until then.
/// If the process ends, or the runtime that the locker was made in, before the background release was sent, the
/// server frees the key when the lease ends.
///
/// # Examples
///
/// ```
/// use lock_core::{AnyLocker, Result};
///
/// async fn pay(locks: &AnyLocker) -> Result<()> {
///     let guard = locks.lock("orders/42").await?;
///     // The resource refuses a smaller token than one that it saw.
///     println!("pay with token {}", guard.fencing_token());
///     // The work is dropped if the lock is lost.
///     let paid = guard.run(async { "paid" }).await?;
///     println!("{paid}, with {:?} to go", guard.remaining());
///     guard.release().await
/// }
/// ```
#[must_use = "the lock is given back as soon as the guard is dropped"]
pub struct LockGuard {
    // None only while a release consumes the guard.
    hold: Option<Arc<dyn Hold>>,
}

impl LockGuard {
    /// Makes a guard of a hold; for those who write a backend.
    #[inline]
    pub fn new(hold: Arc<dyn Hold>) -> Self {
        Self { hold: Some(hold) }
    }

    fn hold(&self) -> &dyn Hold {
        self.hold.as_deref().expect("only release takes the hold, and it takes the guard too")
    }

    #[cfg(feature = "movable")]
    pub(crate) fn into_hold(mut self) -> Arc<dyn Hold> {
        self.hold.take().expect("only release takes the hold, and it takes the guard too")
    }

    /// Returns the key that is held.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.hold().key()
    }

    /// Returns the number to hand to the resource that the lock protects.
    #[must_use]
    pub fn fencing_token(&self) -> FencingToken {
        self.hold().fencing_token()
    }

    /// Returns whether the lock is held for certain.
    ///
    /// True means: at some moment between call and return no correct server, whose clock's rate is within
    /// [`Options::with_drift`](crate::Options::with_drift), can have given the lock to another. It says nothing
    /// of later. No I/O: it compares the clock with the deadline. Once false, it stays false.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.hold().remaining() > Duration::ZERO
    }

    /// Returns how long the lock will be held for certain if no renewal succeeds from now on.
    ///
    /// `Duration::MAX` for a lock that cannot be lost; zero once it is lost. No I/O.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.hold().remaining()
    }

    /// Returns why the lock was lost, if it was. No I/O.
    #[must_use]
    pub fn loss_reason(&self) -> Option<LossReason> {
        self.hold().loss()
    }

    /// Resolves when the lock must be taken as lost; never for a lock that cannot be lost.
    ///
    /// It needs a tokio runtime, and a starved one makes it late; [`is_held`](Self::is_held) is never late.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn lost(&self) {
        self.hold().lost().await;
    }

    /// Runs `work` and drops it at its next await once the lock is lost.
    ///
    /// A loss and a completion at the same poll count as a loss. Work that never awaits cannot be stopped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost): the lock was lost first. Parts of the work may be done.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `work`; the lock stays held.
    pub async fn run<F: Future>(&self, work: F) -> Result<F::Output> {
        let output = tokio::select! {
            biased;
            () = self.lost() => None,
            output = work => Some(output),
        };
        // The work may have held the thread past the deadline and then finished in the same poll.
        match output {
            Some(output) if self.is_held() => Ok(output),
            _ => Err(self.lost_error()),
        }
    }

    /// Asks the server, in one round trip, whether the lock still stands.
    ///
    /// A success is true of a past instant between call and return, not of now. Only the
    /// [fencing token](Self::fencing_token) protects the future.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Lost`](crate::ErrorKind::Lost): it does not; the guard is lost from now on.
    /// - [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable): no answer. Nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn verify(&self) -> Result<()> {
        if !self.is_held() {
            return Err(self.lost_error());
        }
        self.hold().verify().await
    }

    /// Gives the key back and says whether it was held until now.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Lost`](crate::ErrorKind::Lost): it was lost before: another may have held it meanwhile.
    ///   No other's hold was touched.
    /// - [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable): no answer. The release is repeated in the
    ///   background; at the latest the end of the lease frees the key.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. If the future is dropped, the release goes on in the background.
    pub async fn release(mut self) -> Result<()> {
        let hold = self.hold.take().expect("only release takes the hold, and it takes the guard too");
        match hold.release() {
            Release::Done(result) => result,
            Release::Pending(release) => release.await,
        }
    }

    fn lost_error(&self) -> Error {
        let reason = self.hold().loss().unwrap_or(LossReason::Deadline);
        Error::lost(reason).with_key(self.key())
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            hold.abandon();
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("key", self.key())
            .field("fencing_token", &self.fencing_token().get())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}
