//! Tutorial 02: a lock that never waits, and what happens to those who wait for it all the same.
//!
//! Used well, a try-lock lets you skip what another is doing already. Used in a loop, it makes a *livelock*: everybody
//! is busy grabbing, nobody gets on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use lock_local::{AnyLocker, LocalLocker, LockGuard};
use lock_trylock::TryLocker;
use rustix::time::{ClockId, clock_gettime};
use tokio::{task, time};

const CONTENDERS: u64 = 200;

/// What the lock protects: ten pieces of computing, with a pause for others after each.
async fn job() {
    for piece in 0..10_u64 {
        std::hint::black_box((0..20_000).fold(piece, |sum, number| std::hint::black_box(sum ^ number)));
        task::yield_now().await;
    }
}

/// The loop that this program warns of.
async fn spin(locks: &AnyLocker, attempts: &AtomicU64) -> lock_local::Result<LockGuard> {
    loop {
        attempts.fetch_add(1, Relaxed);
        if let Some(guard) = locks.try_lock("machine").await? {
            return Ok(guard);
        }
        task::yield_now().await; // Without this, two spinning tasks would not even let the holder finish.
    }
}

/// Lets the contenders acquire and work for a second, prints what came of it, and returns the jobs done.
async fn contend(how: &str, locks: AnyLocker, spinning: bool) -> u64 {
    let (attempts, jobs) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let cpu = || clock_gettime(ClockId::ProcessCPUTime);
    let (cpu_before, end) = (cpu(), Instant::now() + Duration::from_secs(1));
    let mut contenders = task::JoinSet::new();
    for _ in 0..CONTENDERS {
        let (attempts, jobs, locks) = (Arc::clone(&attempts), Arc::clone(&jobs), locks.clone());
        contenders.spawn(async move {
            while Instant::now() < end {
                let _guard = if spinning {
                    spin(&locks, &attempts).await?
                } else {
                    attempts.fetch_add(1, Relaxed);
                    locks.lock("machine").await?
                };
                job().await;
                jobs.fetch_add(1, Relaxed);
            }
            Ok::<_, lock_local::Error>(())
        });
    }
    time::sleep_until(end.into()).await;
    let (attempts, jobs) = (attempts.load(Relaxed), jobs.load(Relaxed));
    let used = Duration::try_from(cpu() - cpu_before).unwrap_or_default().as_secs_f64();
    let per_job = used * 1000.0 / jobs.max(1) as f64;
    println!(
        "{how:<24} {attempts:>10} attempts {jobs:>6} jobs {used:>6.2} s CPU {per_job:>8.2} ms CPU a job"
    );
    jobs
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let locks = TryLocker::new();
    let report = locks.try_lock("nightly-report").await?.expect("nobody else makes it");
    if locks.try_lock("nightly-report").await?.is_none() {
        println!("Used well: the report is being made already, so this one goes on to something else.\n");
    }
    drop(report);

    println!("{CONTENDERS} tasks want one lock, for a second:");
    let spinning = contend("spinning on a try-lock", locks.into(), true).await;
    let in_line = contend("waiting in line", LocalLocker::new().into(), false).await;
    println!(
        "Spinning, the processor works on grabbing; the holder, for whom all wait, gets what is left of it."
    );
    println!("=> livelock: {spinning} jobs done while spinning, {in_line} while waiting in line");
    Ok(())
}
