//! What one condition more costs an acquire, and what 1, 2 and 4 small clusters carry side by side.
//!
//! All servers of this table share one machine, so that its rates say little; requests and processor time per lock are
//! what to look at. `cargo bench -p lock-sharded` ends after less than a minute.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lock_etcd::EtcdLocker;
use lock_sharded::{AnyLocker, Mover, Options, ShardMap, ShardedLocker};
use test_cluster::Etcd;
use tokio::{task::JoinSet, time};

const TASKS: usize = 16;
const TIME: Duration = Duration::from_secs(4);

/// The processor time that a process has had, in ticks of 10 ms.
fn ticks(pid: u32) -> Result<u64> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<_> = line.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field =
        |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).context("no such field");
    Ok(field(11)? + field(12)?)
}

fn requests(clusters: &[Etcd]) -> Result<u64> {
    clusters.iter().map(Etcd::requests).sum()
}

fn processor(clusters: &[Etcd]) -> Result<u64> {
    clusters.iter().filter_map(Etcd::pid).map(ticks).sum()
}

/// Locks different keys from many tasks, and prints what that took of the servers.
async fn measure(name: &str, clusters: &[Etcd], lockers: Vec<AnyLocker>) -> Result<()> {
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for (index, locks) in lockers.into_iter().cycle().take(TASKS).enumerate() {
        let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
        tasks.spawn(async move {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                locks.lock(&format!("orders/{index}/{}", number % 64)).await?.release().await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    time::sleep(Duration::from_millis(500)).await;
    let before = (Instant::now(), count.load(Ordering::Relaxed), requests(clusters)?, processor(clusters)?);
    time::sleep(TIME).await;
    let locked = count.load(Ordering::Relaxed) - before.1;
    let (asked, used) = (requests(clusters)? - before.2, processor(clusters)? - before.3);
    let seconds = before.0.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let each = |amount: f64| amount / locked.max(1) as f64;
    println!(
        "{name:<28} {:>8.0} locks/s {:>8.2} requests {:>8.0} µs of the servers' processors, each",
        locked as f64 / seconds,
        each(asked as f64),
        each(used as f64 * 10_000.0),
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    for number in [1, 2, 4] {
        let clusters = (0..number).map(|_| Etcd::start()).collect::<Result<Vec<_>>>()?;
        if let [only] = clusters.as_slice() {
            let plain = EtcdLocker::connect(only.url(), Options::default().with_prefix("plain")).await?;
            measure("lock-etcd, one cluster", &clusters, vec![plain.into()]).await?;
        }
        let address = |(index, etcd): (usize, &Etcd)| (format!("c{index}"), format!("etcd:{}", etcd.url()));
        let map = ShardMap::even(clusters.iter().enumerate().map(address))?;
        Mover::connect(map.clone(), Options::default()).await?.init().await?;
        let locks = ShardedLocker::connect(map, Options::default()).await?;
        measure(&format!("lock-sharded, {number} of them"), &clusters, vec![locks.into()]).await?;
    }
    Ok(())
}
