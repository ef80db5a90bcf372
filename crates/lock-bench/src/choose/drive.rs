//! A load whose callers do not wait for each other: they come when they come, as in a service.

use std::{
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use hdrhistogram::Histogram;
use lock_local::AnyLocker;
use rand::RngExt as _;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{load::name, sample::durations};

/// Whoever waits longer than this for a lock has failed.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// So many failures are no accident.
const FEW: u64 = 5;

/// So many seconds' worth of callers may be under way; if there are more, they come faster than they are served.
const BACKLOG_SECONDS: f64 = 2.0;

/// A load, and its bounds.
#[derive(Clone, Debug)]
pub struct Drive {
    /// Locks a second, within the bound.
    pub rate: f64,
    /// How long each is held.
    pub hold: Duration,
    /// How many keys there are.
    pub keys: usize,
    /// Which part of all acquires wants one and the same key; the others want any.
    pub hot: f64,
    /// How long it goes on.
    pub time: Duration,
    /// It stops when a larger part than this fails.
    pub most_errors: f64,
}

impl Drive {
    /// Returns how often a second the busiest key is wanted.
    #[must_use]
    pub fn busiest(&self) -> f64 {
        self.rate * (self.hot + (1.0 - self.hot) / self.keys as f64)
    }

    fn key(&self) -> &'static str {
        let mut random = rand::rng();
        name(if random.random::<f64>() < self.hot { 0 } else { random.random_range(0..self.keys) })
    }

    fn most_under_way(&self) -> usize {
        const LEAST: usize = 64;
        ((self.rate * BACKLOG_SECONDS) as usize).max(LEAST)
    }
}

/// What a load came to.
#[derive(Clone, Debug)]
pub struct Driven {
    /// How many callers came.
    pub came: u64,
    /// How many had the lock and gave it back.
    pub served: u64,
    /// How many had an error, or waited too long.
    pub failed: u64,
    /// From when a caller came to the guard, in nanoseconds.
    pub latency: Histogram<u64>,
    /// How long it went on.
    pub took: Duration,
    /// Why it ended early.
    pub stopped: Option<String>,
}

impl Driven {
    /// Whether all that came were served, but for the few failures that the load allows.
    #[must_use]
    pub fn carries(&self) -> bool {
        self.stopped.is_none() && self.served > 0
    }

    /// Returns how many were served a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.served as f64 / self.took.as_secs_f64()
    }

    fn note(&mut self, outcome: Outcome, most_errors: f64) {
        match outcome {
            Ok(waited) => {
                self.served += 1;
                self.latency.saturating_record(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX).max(1));
            }
            Err(reason) => {
                self.failed += 1;
                let ended = self.served + self.failed;
                if self.stopped.is_none()
                    && self.failed >= FEW
                    && self.failed as f64 > most_errors * ended as f64
                {
                    self.stopped = Some(format!("{} of {ended} failed, the last: {reason}", self.failed));
                }
            }
        }
    }
}

impl fmt::Display for Driven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} came, {} served, {} failed", self.came, self.served, self.failed)
    }
}

/// How long a caller waited, or why it failed.
type Outcome = Result<Duration, Arc<str>>;

/// Puts `load` on `locker`, and tells `show` now and then how it goes. It stops early when too many fail, or when more
/// come than are served.
pub async fn drive(locker: &AnyLocker, load: &Drive, show: impl Fn(&Driven)) -> Driven {
    let mut driven =
        Driven { came: 0, served: 0, failed: 0, latency: durations(), took: Duration::ZERO, stopped: None };
    let (start, mut callers) = (Instant::now(), JoinSet::new());
    let end = start + load.time;
    let between = Duration::from_secs_f64(1.0 / load.rate);
    let mut next = start;
    while next < end && driven.stopped.is_none() {
        tokio::select! {
            Some(ended) = callers.join_next() => {
                driven.note(ended.expect("no caller panics"), load.most_errors);
                continue;
            }
            () = sleep_until(next) => {}
        }
        if callers.len() >= load.most_under_way() {
            let reason = format!(
                "{} callers wait, more than come in {BACKLOG_SECONDS} s: it cannot keep up",
                callers.len()
            );
            driven.stopped = Some(reason);
            break;
        }
        callers.spawn(call(locker.clone(), load.key(), load.hold, next));
        driven.came += 1;
        if driven.came.is_multiple_of(64) {
            show(&driven);
        }
        next += between;
    }
    let last = Instant::now() + if driven.stopped.is_some() { Duration::ZERO } else { LONGEST_WAIT };
    while let Ok(Some(ended)) = tokio::time::timeout_at(last, callers.join_next()).await {
        driven.note(ended.expect("no caller panics"), load.most_errors);
    }
    driven.took = start.elapsed();
    // Whoever still waits is dropped, and what it asked for is undone.
    callers.shutdown().await;
    driven
}

async fn call(locker: AnyLocker, key: &'static str, hold: Duration, came: Instant) -> Outcome {
    static TOO_LONG: LazyLock<Arc<str>> = LazyLock::new(|| "no lock for 5 s".into());
    let failed = |error: lock_local::Error| -> Arc<str> { error.to_string().into() };
    let guard = timeout(LONGEST_WAIT, locker.lock(key)).await;
    let guard = guard.map_err(|_| Arc::clone(&TOO_LONG))?.map_err(failed)?;
    let waited = came.elapsed();
    sleep(hold).await;
    guard.release().await.map_err(failed)?;
    Ok(waited)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lock_local::LocalLocker;

    use super::{Drive, drive};

    fn load(rate: f64, hold: u64) -> Drive {
        let (hold, time) = (Duration::from_millis(hold), Duration::from_millis(300));
        Drive { rate, hold, keys: 10, hot: 0.0, time, most_errors: 0.01 }
    }

    #[tokio::test]
    async fn a_load_that_is_carried_serves_all_who_come() {
        let driven = drive(&LocalLocker::new().into(), &load(1000.0, 0), |_| {}).await;
        assert!(driven.carries(), "{driven}");
        assert_eq!(driven.served, driven.came);
        assert!((290..=300).contains(&driven.came), "{driven}");
    }

    #[tokio::test]
    async fn a_load_that_is_too_much_stops_and_says_so() {
        let load = Drive { keys: 1, time: Duration::from_secs(20), ..load(2000.0, 50) };
        let driven = drive(&LocalLocker::new().into(), &load, |_| {}).await;
        assert!(driven.stopped.unwrap().contains("cannot keep up"));
    }

    #[tokio::test]
    async fn failures_beyond_the_bound_stop_it() {
        let locks = LocalLocker::new();
        locks.close().await;
        let driven = drive(&locks.into(), &load(1000.0, 0), |_| {}).await;
        assert!(!driven.carries() && driven.failed < 100, "{driven}");
        assert!(driven.stopped.unwrap().contains("failed, the last: "));
    }

    #[test]
    fn the_busiest_key_is_the_hot_one() {
        let load = Drive { hot: 0.5, ..load(1000.0, 0) };
        assert!((load.busiest() - 550.0).abs() < 1e-9);
    }
}
