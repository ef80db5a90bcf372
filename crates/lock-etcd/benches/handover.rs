//! How fast a contended lock changes hands, beside etcd's own lock RPC on the same server, in one run.
//!
//! `cargo bench -p lock-etcd --bench handover [seconds]`

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use etcd_client::{Client, LockOptions, PutOptions, Txn, TxnOp};
use lock_etcd::{EtcdLocker, Options};
use test_cluster::{Etcd, EtcdCluster};
use tokio::task::JoinSet;

const KEY: &str = "contended";

#[derive(Clone, Copy)]
enum Lock {
    Ours,
    Rpc,
    /// Not a lock: what two bare transactions take, one to put a key and one to delete it.
    Bare,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let seconds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(5);
    let time = Duration::from_secs(seconds);
    println!("hand-overs a second, each contender a client of its own; {seconds} s each");
    println!(
        "{:>8} {:>11} {:>10} {:>10} {:>10}",
        "members", "contenders", "lock-etcd", "etcd's RPC", "bare txns"
    );
    let (one, three) = (Etcd::start()?, EtcdCluster::start(3)?);
    for (members, urls) in [(1, one.url()), (three.len(), three.urls())] {
        for contenders in [1, 2, 16, 64] {
            let ours = measure(Lock::Ours, &urls, contenders, time).await?;
            let rpc = measure(Lock::Rpc, &urls, contenders, time).await?;
            let bare = measure(Lock::Bare, &urls, contenders, time).await?;
            println!("{members:>8} {contenders:>11} {ours:>10.0} {rpc:>10.0} {bare:>10.0}");
        }
    }
    Ok(())
}

/// Lets contenders take the lock and give it back again and again; returns how often a second it was had.
async fn measure(lock: Lock, urls: &str, contenders: usize, time: Duration) -> Result<f64> {
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for number in 0..contenders {
        let (over, count) = (Arc::clone(&over), Arc::clone(&count));
        match lock {
            Lock::Ours => {
                let options = Options::default().with_ttl(Duration::from_secs(60));
                let locks = EtcdLocker::connect(urls, options).await?;
                tasks.spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        locks.lock(KEY).await?.release().await?;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    anyhow::Ok(())
                });
            }
            Lock::Bare => {
                let mut client = Client::connect(urls.split(',').take(1).collect::<Vec<_>>(), None).await?;
                let lease = client.lease_grant(600, None).await?.id();
                let key = format!("bare/{number}");
                tasks.spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        let put = TxnOp::put(&*key, "", Some(PutOptions::new().with_lease(lease)));
                        client.txn(Txn::new().and_then([put])).await?;
                        client.txn(Txn::new().and_then([TxnOp::delete(&*key, None)])).await?;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    client.lease_revoke(lease).await?;
                    anyhow::Ok(())
                });
            }
            Lock::Rpc => {
                let mut client = Client::connect(urls.split(',').take(1).collect::<Vec<_>>(), None).await?;
                let lease = client.lease_grant(600, None).await?.id();
                tasks.spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        let held = client.lock(KEY, Some(LockOptions::new().with_lease(lease))).await?;
                        client.unlock(held.key()).await?;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    client.lease_revoke(lease).await?;
                    anyhow::Ok(())
                });
            }
        }
    }
    let (start, before) = (Instant::now(), count.load(Ordering::Relaxed));
    tokio::time::sleep(time).await;
    let rate = (count.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(rate)
}
