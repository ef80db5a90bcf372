//! Tutorial 01: a lock inside one process.
//!
//! A hundred tasks add to one counter, each by reading it, doing something else, and writing back what it read plus
//! one. Without a lock, additions are lost. With one they are not.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use lock_local::LocalLocker;
use tokio::task::{self, JoinSet};

const TASKS: u64 = 100;
const ADDITIONS: u64 = 100;

/// Three steps, and between them others may run: this is what a lock must make one step.
async fn add_one(counter: &AtomicU64) {
    let read = counter.load(Ordering::Relaxed);
    task::yield_now().await;
    counter.store(read + 1, Ordering::Relaxed);
}

async fn race(locks: Option<LocalLocker>) -> anyhow::Result<u64> {
    let counter = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (counter, locks) = (Arc::clone(&counter), locks.clone());
        tasks.spawn(async move {
            for _ in 0..ADDITIONS {
                match &locks {
                    None => add_one(&counter).await,
                    Some(locks) => {
                        // Waits in line; first come, first served. The name says what is locked.
                        let guard = locks.lock("counter").await?;
                        add_one(&counter).await;
                        // Dropping the guard would do as well. Releasing tells whether the lock was held until now.
                        guard.release().await?;
                    }
                }
            }
            Ok::<_, lock_local::Error>(())
        });
    }
    while let Some(finished) = tasks.join_next().await {
        finished??;
    }
    Ok(counter.load(Ordering::Relaxed))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    println!("{TASKS} tasks add one to a counter, {ADDITIONS} times each.");

    let wrong = race(None).await?;
    println!("Without a lock it ends at {wrong}: two tasks read the same number, and one addition is lost.");

    let locks = LocalLocker::new();
    let right = race(Some(locks.clone())).await?;
    println!("With a lock it ends at {right}.");
    anyhow::ensure!(right == TASKS * ADDITIONS, "the lock did not exclude");

    // A key is a lock of its own, and one that nobody uses costs no memory.
    let order = locks.lock("orders/42").await?;
    let other = locks.try_lock("orders/43").await?;
    anyhow::ensure!(other.is_some() && locks.try_lock("orders/42").await?.is_none());
    drop((order, other));
    println!(
        "orders/42 was locked, and orders/43 was free all the time; now {} keys are in use.",
        locks.keys_in_use()
    );

    println!(
        "=> a lock turns read-change-write into one step: {right} of {} instead of {wrong}",
        TASKS * ADDITIONS
    );
    Ok(())
}
