//! Tutorial 05: one key, many who want it, and a queue that can be seen, on etcd.
//!
//! Each writes a key of its own under the name of the lock; the oldest is the holder, and each of the others watches
//! the one before it alone. So they are served in order, and a release wakes one of them, not all. Then a lease is
//! taken away from a holder, and its work stops. Needs an etcd at `LOCK_TEST_ETCD`.

use std::{env, time::Duration};

use anyhow::Result;
use lock_etcd::{EtcdLocker, Options, etcd_client};
use tokio::{sync::mpsc, task::JoinSet, time};

const KEY: &str = "orders/42";
const WAITERS: usize = 4;

async fn connect(endpoints: &str, prefix: &str) -> Result<EtcdLocker> {
    Ok(EtcdLocker::connect(endpoints, Options::default().with_prefix(prefix)).await?)
}

async fn until_in_line(locks: &EtcdLocker, places: usize) -> Result<()> {
    while locks.queue(KEY).await?.len() < places {
        time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let endpoints = env::var("LOCK_TEST_ETCD").unwrap_or_else(|_| "http://127.0.0.1:2379".to_owned());
    let prefix = examples::prefix("tutorial05");
    let locks = connect(&endpoints, &prefix).await?;

    let guard = locks.lock(KEY).await?;
    println!(
        "{KEY} is held, with token {}. {WAITERS} others come, one after the other.",
        guard.fencing_token()
    );
    let (served, mut order) = mpsc::unbounded_channel();
    let mut waiters = JoinSet::new();
    for number in 1..=WAITERS {
        let (others, served) = (connect(&endpoints, &prefix).await?, served.clone());
        waiters.spawn(async move {
            let guard = others.lock(KEY).await?;
            served.send((number, guard.fencing_token()))?;
            anyhow::Ok(guard.release().await?)
        });
        until_in_line(&locks, 1 + number).await?;
    }
    println!("The queue, as etcd has it:");
    for (place, entry) in locks.queue(KEY).await?.iter().enumerate() {
        let what = if place == 0 { "holds it".to_owned() } else { format!("watches place {place}") };
        println!("  {}. token {:>4}, lease {:x}: {what}", place + 1, entry.fencing_token, entry.lease);
    }
    guard.release().await?;
    while let Some(waiter) = waiters.join_next().await {
        waiter??;
    }
    let order: Vec<_> = std::iter::from_fn(|| order.try_recv().ok()).collect();
    let numbers: Vec<_> = order.iter().map(|(number, _)| *number).collect();
    println!("Released, it went down the line: {numbers:?}. The tokens grew with it.\n");
    anyhow::ensure!(
        numbers.is_sorted() && order.is_sorted_by_key(|(_, token)| *token),
        "the queue is in order"
    );

    println!("Now a holder loses its lease while it works:");
    let guard = locks.lock(KEY).await?;
    let lease = locks.queue(KEY).await?[0].lease;
    let endpoints: Vec<_> = endpoints.split(',').collect();
    let mut operator = etcd_client::Client::connect(endpoints, None).await?;
    let (report, mut progress) = mpsc::unbounded_channel();
    let work = async move {
        for piece in 1.. {
            report.send(piece).ok();
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    let revoke = async {
        time::sleep(Duration::from_millis(200)).await;
        operator.lease_revoke(lease).await
    };
    let (stopped, revoked) = tokio::join!(guard.run(work), revoke);
    revoked?;
    let error = stopped.expect_err("the lease is gone");
    let done = std::iter::from_fn(|| progress.try_recv().ok()).last().unwrap_or(0);
    println!("  the work stopped after piece {done}: {error}");
    drop(guard);
    let next = locks.lock(KEY).await?;
    println!(
        "  The same locker opened a new session, and has the key again, with token {}.",
        next.fencing_token()
    );
    next.release().await?;

    println!(
        "=> {WAITERS} waiters were served in the order in which they came, and a lost lease stopped the work"
    );
    Ok(())
}
