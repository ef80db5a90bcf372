//! How long contenders keep out of each other's way when their votes are split.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rand::RngExt;

/// The size of the crowd, as the time over which its members spread their tries: it doubles with each split vote that
/// is seen here, and halves with each success.
pub(crate) struct Crowd {
    micros: AtomicU64,
    most: u64,
}

impl Crowd {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self { micros: AtomicU64::new(0), most: micros(ttl / 8) }
    }

    /// A vote was split, in a round that took so long.
    pub(crate) fn grows(&self, round: Duration) {
        let least = micros(2 * round).max(1_000);
        let grow = |now: u64| Some((2 * now).max(least).min(self.most));
        let _ = self.micros.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow);
    }

    /// A vote was won.
    pub(crate) fn thins(&self) {
        let _ = self.micros.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now / 2));
    }

    /// A random time to keep out of the way.
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_micros(rand::rng().random_range(0..=self.micros.load(Ordering::Relaxed)))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_a_bound_and_is_gone_when_all_is_quiet() {
        let crowd = Crowd::new(Duration::from_secs(8));
        assert_eq!(crowd.pause(), Duration::ZERO);
        for _ in 0..70 {
            crowd.grows(Duration::from_millis(1));
        }
        assert_eq!(crowd.micros.load(Ordering::Relaxed), 1_000_000);
        for _ in 0..20 {
            crowd.thins();
        }
        assert_eq!(crowd.pause(), Duration::ZERO);
    }
}
