//! Waiting made of tries, for those who ask for it.

use std::time::Duration;

use rand::RngExt;
use tokio::time;

use crate::{
    Capabilities, Error, ErrorKind, Key, LockGuard, Locker, Result, Waiting,
    backend::{Backend, WaitingBackend},
};

/// Waits by trying again and again, with a pause between tries.
///
/// # Why this is not the default: livelock
///
/// A waiter that tries in a tight loop is busy and gets nothing done: the processor burns on grabbing, and the
/// holder, whose work everybody waits for, gets less of it the more wait. Everything moves and nothing advances,
/// which is called a *livelock*. A pause between tries trades that for latency: the key may lie free for the rest
/// of a pause. There is no order either; a waiter may starve while others win. Tutorial `02_trylock` shows it in
/// figures.
///
/// If you find yourself here, you probably want a lock that waits: `lock-local` in one process, or a server's.
///
/// # Examples
///
/// See `lock-trylock`, whose locker has no `lock` without this.
#[derive(Debug)]
pub struct Retrying<B: Backend> {
    tries: Locker<B>,
    backoff: Backoff,
}

/// The pauses between tries: each twice as long as the one before, up to a limit, and each cut at random to
/// between a half and all of its length, so that waiters do not march in step.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Makes pauses that grow from `first` to `longest`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: `first` is zero, which would be a busy loop, or longer than `longest`.
    pub fn new(first: Duration, longest: Duration) -> Result<Self> {
        if first.is_zero() || first > longest {
            let reason = format!(
                "pauses from {first:?} to {longest:?}: the first must be above zero and not the longer"
            );
            return Err(Error::new(ErrorKind::InvalidInput, reason).without_effect());
        }
        Ok(Self { first, longest })
    }

    /// Returns the pause after the `tries`-th try, which counts from zero.
    #[must_use]
    pub fn pause(&self, tries: u32) -> Duration {
        let full = self.first.saturating_mul(1_u32.checked_shl(tries).unwrap_or(u32::MAX)).min(self.longest);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

impl<B: Backend> Locker<B> {
    /// Returns a locker that can wait, by trying again and again; clones and this one exclude each other.
    ///
    /// Read [`Retrying`] before: under contention the tries themselves eat the processor.
    #[must_use]
    pub fn retrying(&self, backoff: Backoff) -> Locker<Retrying<B>> {
        Locker::new(Retrying { tries: self.clone(), backoff })
    }
}

impl<B: Backend> Backend for Retrying<B> {
    fn capabilities(&self) -> Capabilities {
        Capabilities { waiting: Waiting::Polling, ..self.tries.capabilities() }
    }

    async fn try_lock(&self, key: Key) -> Result<Option<LockGuard>> {
        self.tries.backend().try_lock(key).await
    }

    async fn close(&self) {
        self.tries.close().await;
    }
}

impl<B: Backend> WaitingBackend for Retrying<B> {
    async fn lock(&self, key: Key) -> Result<LockGuard> {
        for tries in 0_u32.. {
            if let Some(guard) = self.try_lock(key.clone()).await? {
                return Ok(guard);
            }
            time::sleep(self.backoff.pause(tries)).await;
        }
        unreachable!("2^32 pauses outlast the process")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit() {
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(60)).unwrap();
        for (tries, full) in [(0, 10), (1, 20), (2, 40), (3, 60), (31, 60), (32, 60), (u32::MAX, 60)] {
            let full = Duration::from_millis(full);
            assert!((full / 2..=full).contains(&backoff.pause(tries)), "try {tries}");
        }
    }

    #[test]
    fn a_busy_loop_is_refused() {
        assert!(Backoff::new(Duration::ZERO, Duration::MAX).is_err());
        assert!(Backoff::new(Duration::from_secs(2), Duration::from_secs(1)).is_err());
    }
}
