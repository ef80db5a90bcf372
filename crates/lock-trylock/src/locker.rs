//! What users call.

use lock_core::{Key, LockGuard, Locker, Result};

use crate::TryBackend;

/// Tries to acquire locks by name in this process. Cheap to clone; clones share everything, two lockers share nothing.
///
/// Async code uses the methods of [`Locker`], to which this dereferences. Made an [`AnyLocker`](lock_core::AnyLocker),
/// its `lock` and `try_lock_for` fail with [`Unsupported`](lock_core::ErrorKind::Unsupported).
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

    /// Returns how many keys are held. While locks come and go, it is true of no single instant.
    #[must_use]
    pub fn keys_in_use(&self) -> usize {
        self.backend().keys_in_use()
    }
}

lock_core::deref_to_locker!(TryLocker, TryBackend, try_only);
