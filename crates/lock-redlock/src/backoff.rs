//! How long waiters keep out of each other's way after their votes were split.

use std::{collections::HashMap, time::Duration};

use lock_core::Key;
use parking_lot::Mutex;
use rand::RngExt;

/// For each key that is waited for, the time over which its waiters spread their tries. It doubles with each split vote
/// that is seen here, up to a bound, and is forgotten when the key is waited for no more.
pub(crate) struct SplitVoteBackoff {
    spreads: Mutex<HashMap<Key, Duration>>,
    longest: Duration,
}

impl SplitVoteBackoff {
    const SHORTEST: Duration = Duration::from_millis(1);
    /// Enough for a thousand waiters of a millisecond each.
    const LONGEST: Duration = Duration::from_secs(1);

    pub(crate) fn new(ttl: Duration) -> Self {
        Self { spreads: Mutex::default(), longest: Self::LONGEST.min(ttl / 8) }
    }

    /// The vote for `key` was split, in a round that took so long.
    pub(crate) fn split(&self, key: &Key, round: Duration) {
        let mut spreads = self.spreads.lock();
        let spread = spreads.entry(key.clone()).or_default();
        *spread = (2 * *spread).max(2 * round).clamp(Self::SHORTEST, self.longest);
    }

    /// Returns a random time for a waiter to keep out of the way.
    pub(crate) fn pause(&self, key: &Key) -> Duration {
        let spread = self.spreads.lock().get(key).copied().unwrap_or_default();
        spread.mul_f64(rand::rng().random_range(0.0..=1.0))
    }

    /// The key is waited for no more.
    pub(crate) fn forget(&self, key: &Key) {
        self.spreads.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_a_bound_for_one_key_and_is_forgotten_with_its_waiters() {
        let backoff = SplitVoteBackoff::new(Duration::from_secs(4));
        let (key, other) = (Key::new("a").unwrap(), Key::new("b").unwrap());
        for _ in 0..70 {
            backoff.split(&key, Duration::from_micros(1));
        }
        assert_eq!(backoff.spreads.lock().get(&key), Some(&Duration::from_millis(500)));
        assert_eq!(backoff.pause(&other), Duration::ZERO);
        backoff.forget(&key);
        assert_eq!(backoff.pause(&key), Duration::ZERO);
    }
}
