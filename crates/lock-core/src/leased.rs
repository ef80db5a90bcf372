//! A backend made of leases: attempts that undo themselves, guards with a deadline.

use std::{fmt, future::Future, sync::Arc};

use crate::{
    Capabilities, Key, LockGuard, Options, Result,
    attempt::{Refusal, attempt_once},
    backend::{Acquirer, Backend, LeaseStore, WaitingBackend, WaitingStore},
    background::Background,
    local_waiters::{Contender, LocalWaiters},
};

/// Makes a [`Backend`] of a [`LeaseStore`].
///
/// One background task renews all leases and undoes what was abandoned. It runs in the runtime in which this value was
/// made, and ends with the last locker and guard. An uncontended acquire or release is done on the caller's own task.
pub struct Leased<S: LeaseStore> {
    pub(crate) background: Arc<Background<S>>,
    waiters: Arc<LocalWaiters>,
}

impl<S: LeaseStore> Leased<S> {
    /// Starts the background task of `store`.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput): the options contradict each other.
    /// [`Closed`](crate::ErrorKind::Closed): not called within a tokio runtime.
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
    /// [`Unavailable`](crate::ErrorKind::Unavailable): no answer in time. Else what `request` returns.
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
        Ok(attempt_once(&self.background, &key, false).await?.ok())
    }

    async fn close(&self) {
        self.background.close().await;
    }
}

impl<S: WaitingStore> WaitingBackend for Leased<S> {
    async fn lock(&self, key: Key) -> Result<LockGuard> {
        let mut refused = None;
        if !self.waiters.has_line(&key) {
            match attempt_once(&self.background, &key, true).await? {
                Ok(guard) => return Ok(guard),
                Err(refusal) => refused = Some(refusal),
            }
        }
        let contend = |contender, refused| contend(Arc::clone(&self.background), contender, refused);
        // Boxed: to wait is rare, and would be part of every acquire's future.
        Box::pin(self.waiters.wait(&key, self.background.runtime(), refused, contend)).await
    }
}

/// Acquires the key again and again for those who stand in line for it, until nobody does.
async fn contend<S: WaitingStore>(
    background: Arc<Background<S>>,
    contender: Contender,
    mut refused: Option<Refusal<S>>,
) {
    while !contender.finish() {
        let acquirer = Acquirer::new(&background, contender.key().clone(), refused.take());
        let locked = tokio::select! {
            biased;
            locked = background.store().lock(&acquirer) => locked,
            error = background.closed() => Err(error),
            () = contender.deserted() => continue,
        };
        match locked {
            Ok(guard) => contender.offer(guard).await,
            Err(error) => return contender.fail(&error.with_key(acquirer.key())),
        }
    }
}
