//! A locker whose backend is chosen at run time.

use std::{fmt, ops::Deref, sync::Arc};

use crate::{
    Capabilities, Error, ErrorKind, Key, LockGuard, Locker, Result,
    backend::{Backend, BoxFuture, WaitingBackend},
};

/// A [`Locker`] that has forgotten the type of its backend.
///
/// It dereferences to [`Locker`], which has `try_lock`, `lock`, `try_lock_for` and `close`.
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
#[derive(Clone, Debug)]
pub struct AnyLocker(Locker<AnyBackend>);

impl AnyLocker {
    /// Forgets the backend of a locker that can wait.
    #[must_use]
    pub fn new<B: WaitingBackend>(locker: Locker<B>) -> Self {
        Self::of(locker, |backend, key| Box::pin(backend.lock(key)))
    }

    /// Forgets the backend of a locker that can only try.
    ///
    /// [`lock`](Locker::lock) and [`try_lock_for`](Locker::try_lock_for) will fail with [`ErrorKind::Unsupported`].
    #[must_use]
    pub fn try_only<B: Backend>(locker: Locker<B>) -> Self {
        Self::of(locker, |_, _| {
            let message = "this backend cannot wait; use try_lock, or wrap it with retrying";
            Box::pin(async move { Err(Error::new(ErrorKind::Unsupported, message).without_effect()) })
        })
    }

    fn of<B: Backend>(locker: Locker<B>, lock: LockOf<B>) -> Self {
        Self(Locker::new(AnyBackend(Arc::new(Forgotten { locker, lock }))))
    }
}

impl Deref for AnyLocker {
    type Target = Locker<AnyBackend>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// The backend of an [`AnyLocker`].
pub struct AnyBackend(Arc<dyn Erased>);

trait Erased: Send + Sync {
    fn capabilities(&self) -> Capabilities;
    fn try_lock(&self, key: Key) -> BoxFuture<'_, Result<Option<LockGuard>>>;
    fn lock(&self, key: Key) -> BoxFuture<'_, Result<LockGuard>>;
    fn close(&self) -> BoxFuture<'_, ()>;
}

struct Forgotten<B> {
    locker: Locker<B>,
    lock: LockOf<B>,
}

/// How a backend waits, if it can.
type LockOf<B> = for<'a> fn(&'a B, Key) -> BoxFuture<'a, Result<LockGuard>>;

impl<B: Backend> Erased for Forgotten<B> {
    fn capabilities(&self) -> Capabilities {
        self.locker.capabilities()
    }

    fn try_lock(&self, key: Key) -> BoxFuture<'_, Result<Option<LockGuard>>> {
        Box::pin(self.locker.backend().try_lock(key))
    }

    fn lock(&self, key: Key) -> BoxFuture<'_, Result<LockGuard>> {
        (self.lock)(self.locker.backend(), key)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.locker.backend().close())
    }
}

impl Backend for AnyBackend {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn try_lock(&self, key: Key) -> Result<Option<LockGuard>> {
        self.0.try_lock(key).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

impl WaitingBackend for AnyBackend {
    async fn lock(&self, key: Key) -> Result<LockGuard> {
        self.0.lock(key).await
    }
}

impl fmt::Debug for AnyBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyBackend").finish_non_exhaustive()
    }
}
