//! Waiting on a condition: bounded, and with something to say when the bound has passed.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Calls `probe` until it returns `Ok`, for at most `bound`.
///
/// The error of a probe is its status: what it saw instead of what it was looking for.
///
/// # Errors
///
/// `bound` has passed. The error names `what` and carries the last status.
///
/// # Examples
///
/// ```
/// use std::{sync::atomic::{AtomicU32, Ordering}, thread, time::Duration};
///
/// # fn main() -> anyhow::Result<()> {
/// let done = AtomicU32::new(0);
/// thread::scope(|scope| {
///     scope.spawn(|| done.store(3, Ordering::Relaxed));
///     test_cluster::eventually("three jobs to be done", Duration::from_secs(5), || {
///         let done = done.load(Ordering::Relaxed);
///         anyhow::ensure!(done == 3, "{done} are done");
///         Ok(())
///     })
/// })
/// # }
/// ```
pub fn eventually<T>(what: &str, bound: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        // The clock is read before the probe, so that the last probe starts when the bound has passed, not before.
        let elapsed = start.elapsed();
        match probe() {
            Ok(found) => return Ok(found),
            Err(status) if elapsed >= bound => {
                return Err(anyhow!("waited {bound:?} for {what}; last seen: {status:#}"));
            }
            Err(_) => thread::sleep(pause.min(bound.saturating_sub(start.elapsed()))),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
