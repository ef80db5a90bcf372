//! What users call.

use std::time::Duration;

use lock_core::{Key, LockGuard, Locker, Result};

use crate::{LocalBackend, blocking::block_on};

/// Acquires locks by name in this process. Cheap to clone; clones share everything, two lockers share nothing.
///
/// Async code uses the methods of [`Locker`], to which this dereferences: `lock`, `try_lock`, `try_lock_for`.
/// [`try_lock_now`](Self::try_lock_now), [`blocking_lock`](Self::blocking_lock) and
/// [`blocking_try_lock_for`](Self::blocking_try_lock_for) are for code outside async. Tasks and threads wait in one
/// queue.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use lock_local::LocalLocker;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> lock_local::Result<()> {
/// let locks = LocalLocker::new();
/// let guard = locks.lock("orders/42").await?;
///
/// assert!(locks.try_lock("orders/42").await?.is_none(), "busy is a value, not an error");
/// let other = locks.try_lock_for("orders/43", Duration::from_secs(1)).await?;
/// assert!(other.is_some(), "another key is another lock");
///
/// drop(guard);
/// assert!(locks.try_lock("orders/42").await?.is_some());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct LocalLocker(Locker<LocalBackend>);

impl LocalLocker {
    /// Makes a locker whose keys are all free.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tries as [`try_lock`](Locker::try_lock) does, for code outside async. It never blocks, so async
    /// code may call it too.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](lock_core::ErrorKind::InvalidInput): `key` is empty or too long (see [`Key`]).
    /// - [`Closed`](lock_core::ErrorKind::Closed): [`close`](Locker::close) was called.
    pub fn try_lock_now(&self, key: &str) -> Result<Option<LockGuard>> {
        self.backend().try_now(Key::new(key)?)
    }

    /// Waits as [`lock`](Locker::lock) does, for code outside async: blocks the thread until the key is free.
    ///
    /// Do not call it in async code. A blocked thread runs no other task, and the task that holds the key may be
    /// one of those.
    ///
    /// # Errors
    ///
    /// As [`try_lock_now`](Self::try_lock_now).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::thread;
    /// use lock_local::LocalLocker;
    ///
    /// let locks = LocalLocker::new();
    /// let guard = locks.blocking_lock("orders/42")?;
    /// thread::scope(|scope| {
    ///     scope.spawn(|| locks.blocking_lock("orders/42").map(drop));
    ///     drop(guard); // Now the other thread gets the lock.
    /// });
    /// # Ok::<(), lock_local::Error>(())
    /// ```
    pub fn blocking_lock(&self, key: &str) -> Result<LockGuard> {
        block_on(self.lock(key), None).expect("without a timeout the wait ends with a result")
    }

    /// Waits as [`try_lock_for`](Locker::try_lock_for) does, for code outside async: blocks the thread for at most
    /// `timeout`.
    ///
    /// `None` means that others held the key all the time. Do not call it in async code, as
    /// [`blocking_lock`](Self::blocking_lock).
    ///
    /// # Errors
    ///
    /// As [`try_lock_now`](Self::try_lock_now).
    pub fn blocking_try_lock_for(&self, key: &str, timeout: Duration) -> Result<Option<LockGuard>> {
        block_on(self.lock(key), Some(timeout)).transpose()
    }

    /// Returns how many keys are held or awaited. While locks come and go, it is true of no single instant.
    #[must_use]
    pub fn keys_in_use(&self) -> usize {
        self.backend().keys_in_use()
    }
}

lock_core::deref_to_locker!(LocalLocker, LocalBackend, new);
