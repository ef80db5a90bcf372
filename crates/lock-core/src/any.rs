//! A locker whose backend is chosen at run time.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    Capabilities, Error, ErrorKind, LockGuard, Locker, Result,
    backend::{Backend, BoxFuture, WaitingBackend},
};

/// A [`Locker`] that has forgotten the type of its backend.
///
/// # Examples
///
/// ```no_run
/// # async fn example<A: lock_core::backend::WaitingBackend, B: lock_core::backend::WaitingBackend>(
/// #     in_process: lock_core::Locker<A>, on_redis: lock_core::Locker<B>) -> lock_core::Result<()> {
/// use lock_core::AnyLocker;
///
/// let testing = std::env::args().any(|argument| argument == "--testing");
/// let locks = if testing { AnyLocker::new(in_process) } else { AnyLocker::new(on_redis) };
/// let guard = locks.lock("orders/42").await?;
/// # guard.release().await
/// # }
/// ```
#[derive(Clone)]
pub struct AnyLocker(Arc<dyn Erased>);

trait Erased: Send + Sync {
    fn capabilities(&self) -> Capabilities;
    fn try_lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<LockGuard>>>;
    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<LockGuard>>;
    fn try_lock_for<'a>(
        &'a self,
        key: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Option<LockGuard>>>;
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl AnyLocker {
    /// Forgets the backend of a locker that can wait.
    #[must_use]
    pub fn new<B: WaitingBackend>(locker: Locker<B>) -> Self {
        Self(Arc::new(Waits(locker)))
    }

    /// Forgets the backend of a locker that can only try.
    ///
    /// [`lock`](Self::lock) and [`try_lock_for`](Self::try_lock_for) will fail with [`ErrorKind::Unsupported`].
    #[must_use]
    pub fn try_only<B: Backend>(locker: Locker<B>) -> Self {
        Self(Arc::new(Tries(locker)))
    }

    /// See [`Locker::capabilities`].
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    /// See [`Locker::try_lock`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn try_lock(&self, key: &str) -> Result<Option<LockGuard>> {
        self.0.try_lock(key).await
    }

    /// See [`Locker::lock`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Unsupported`] if the backend cannot wait.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn lock(&self, key: &str) -> Result<LockGuard> {
        self.0.lock(key).await
    }

    /// See [`Locker::try_lock_for`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Unsupported`] if the backend cannot wait.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn try_lock_for(&self, key: &str, timeout: Duration) -> Result<Option<LockGuard>> {
        self.0.try_lock_for(key, timeout).await
    }

    /// See [`Locker::close`].
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

impl fmt::Debug for AnyLocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyLocker").field("capabilities", &self.capabilities()).finish_non_exhaustive()
    }
}

struct Waits<B>(Locker<B>);

impl<B: WaitingBackend> Erased for Waits<B> {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn try_lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<LockGuard>>> {
        Box::pin(self.0.try_lock(key))
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<LockGuard>> {
        Box::pin(self.0.lock(key))
    }

    fn try_lock_for<'a>(
        &'a self,
        key: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Option<LockGuard>>> {
        Box::pin(self.0.try_lock_for(key, timeout))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.close())
    }
}

struct Tries<B>(Locker<B>);

fn cannot_wait() -> Error {
    let message = "this backend cannot wait; use try_lock, or wrap it with retrying";
    Error::new(ErrorKind::Unsupported, message).without_effect()
}

impl<B: Backend> Erased for Tries<B> {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn try_lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<LockGuard>>> {
        Box::pin(self.0.try_lock(key))
    }

    fn lock<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<LockGuard>> {
        Box::pin(std::future::ready(Err(cannot_wait())))
    }

    fn try_lock_for<'a>(
        &'a self,
        _key: &'a str,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<Option<LockGuard>>> {
        Box::pin(std::future::ready(Err(cannot_wait())))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.close())
    }
}
