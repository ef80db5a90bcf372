//! What users call.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::{self, Instant};

use crate::{
    Capabilities, Key, LockGuard, Result, Waiting,
    backend::{Backend, WaitingBackend},
};

/// Acquires locks by name. Cheap to clone; clones share everything.
///
/// Locks are not reentrant: a task that acquires a key that it already holds waits for itself.
///
/// `lock` and `try_lock_for` exist only if the backend can wait. One that cannot is given them by
/// [`retrying`](Self::retrying), where the price is spelled out.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use lock_core::{Locker, Result, backend::WaitingBackend};
///
/// // Every backend's locker is one of these, or dereferences to one.
/// async fn visit<B: WaitingBackend>(locks: &Locker<B>) -> Result<()> {
///     locks.lock("orders/42").await?.release().await?; // waits
///     if let Some(guard) = locks.try_lock("orders/42").await? {
///         println!("ours, with token {}", guard.fencing_token());
///     } // dropped: given back in the background
///     let Some(guard) = locks.try_lock_for("orders/42", Duration::from_secs(1)).await? else {
///         return Ok(()); // busy is a value, not an error
///     };
///     guard.release().await
/// }
/// ```
pub struct Locker<B> {
    backend: Arc<B>,
}

impl<B: Backend> Locker<B> {
    /// Makes a locker of a backend.
    #[must_use]
    pub fn new(backend: B) -> Self {
        Self { backend: Arc::new(backend) }
    }

    /// Returns what the backend can do and what it promises.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    /// Returns the backend, for what it can do beyond locking.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Acquires the lock on `key` if it is free; `None` if another holds it.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](crate::ErrorKind::InvalidInput): `key` is empty or too long (see [`Key`]).
    /// - [`Unavailable`](crate::ErrorKind::Unavailable): no answer within the request timeout. If the server did
    ///   act, that is undone in the background.
    /// - [`Closed`](crate::ErrorKind::Closed): [`close`](Self::close) was called, or the runtime has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. If the future is dropped and the server grants the lock anyway, it is given back in the
    /// background.
    pub async fn try_lock(&self, key: &str) -> Result<Option<LockGuard>> {
        self.backend.try_lock(Key::new(key)?).await
    }

    /// Refuses new acquires from now on, in all clones, and waits until nothing is left to undo.
    ///
    /// Call it before the runtime ends if the guards dropped last should free their keys at once and not when
    /// their leases end. Guards that still live stay held and are renewed as before.
    /// Those who wait for servers fail with [`Closed`](crate::ErrorKind::Closed); those in a queue of this process
    /// (`lock-local`) are still served.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, but new acquires stay refused.
    pub async fn close(&self) {
        self.backend.close().await;
    }
}

impl<B: WaitingBackend> Locker<B> {
    /// Acquires the lock on `key`, waiting until it is free.
    ///
    /// Waiters are served in order of arrival if the backend's [`waiting`](Capabilities::waiting) is
    /// [`Fifo`](crate::Waiting::Fifo); otherwise any waiter may win. There is no timeout: see
    /// [`try_lock_for`](Self::try_lock_for).
    ///
    /// # Errors
    ///
    /// As [`try_lock`](Self::try_lock). A server that stops answering ends the wait.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. Dropping the future gives up the place in the queue. If the server grants the lock anyway, it
    /// is given back in the background.
    pub async fn lock(&self, key: &str) -> Result<LockGuard> {
        self.backend.lock(Key::new(key)?).await
    }

    /// Acquires the lock on `key`, waiting for at most `timeout`; `None` if another held it all the time.
    ///
    /// The timeout bounds the whole wait, however often the waiter is woken. The first look at the key is always
    /// taken to its end, which the request timeout bounds, so that `None` means busy and never unreachable: with a
    /// timeout of zero this is [`try_lock`](Self::try_lock).
    ///
    /// # Errors
    ///
    /// As [`try_lock`](Self::try_lock).
    ///
    /// # Cancel safety
    ///
    /// As [`lock`](Self::lock).
    pub async fn try_lock_for(&self, key: &str, timeout: Duration) -> Result<Option<LockGuard>> {
        let key = Key::new(key)?;
        // One that cannot wait says so at once, and not only when the key is busy.
        if self.capabilities().waiting == Waiting::Never {
            return self.backend.lock(key).await.map(Some);
        }
        let start = Instant::now();
        if let Some(guard) = self.backend.try_lock(key.clone()).await? {
            return Ok(Some(guard));
        }
        tokio::select! {
            biased;
            acquired = self.backend.lock(key) => acquired.map(Some),
            () = time::sleep(timeout.saturating_sub(start.elapsed())) => Ok(None),
        }
    }
}

impl<B: Backend + Default> Default for Locker<B> {
    fn default() -> Self {
        Self::new(B::default())
    }
}

impl<B> Clone for Locker<B> {
    fn clone(&self) -> Self {
        Self { backend: Arc::clone(&self.backend) }
    }
}

impl<B: Backend> fmt::Debug for Locker<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locker").field("capabilities", &self.capabilities()).finish_non_exhaustive()
    }
}
