//! What users call.

use std::ops::Deref;

use lock_core::{AnyLocker, Key, LockGuard, Locker, Result};

use crate::TryBackend;

/// Tries to acquire locks by name in this process. Cheap to clone; clones share everything, two lockers share nothing.
///
/// Async code uses the methods of [`Locker`], to which this dereferences.
///
/// # Examples
///
/// ```
/// use lock_trylock::TryLocker;
///
/// let locks = TryLocker::new();
/// let guard = locks.try_lock_now("orders/42")?.expect("nobody else holds it");
/// assert!(locks.try_lock_now("orders/42")?.is_none(), "busy is a value, not an error");
/// drop(guard);
/// assert!(locks.try_lock_now("orders/42")?.is_some());
/// # Ok::<(), lock_trylock::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TryLocker(Locker<TryBackend>);

impl TryLocker {
    /// Makes a locker whose keys are all free.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// [`try_lock`](Locker::try_lock) for code outside async. It never blocks, so async code may call it too.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](lock_core::ErrorKind::InvalidInput): `key` is empty or too long (see [`Key`]).
    /// - [`Closed`](lock_core::ErrorKind::Closed): [`close`](Locker::close) was called.
    pub fn try_lock_now(&self, key: &str) -> Result<Option<LockGuard>> {
        self.backend().try_now(Key::new(key)?)
    }

    /// Returns how many keys are held. While locks come and go, it is true of no single instant.
    #[must_use]
    pub fn keys_in_use(&self) -> usize {
        self.backend().keys_in_use()
    }
}

impl Deref for TryLocker {
    type Target = Locker<TryBackend>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// `lock` and `try_lock_for` of the result fail with [`Unsupported`](lock_core::ErrorKind::Unsupported).
impl From<TryLocker> for AnyLocker {
    fn from(locker: TryLocker) -> Self {
        Self::try_only(locker.0)
    }
}
