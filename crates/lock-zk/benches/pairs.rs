//! What a lock costs, beside the fewest requests that it can be made of, through the same client library, in one run.
//!
//! `cargo bench -p lock-zk --bench pairs [rounds]`

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use lock_zk::{Options, ZkLocker};
use test_cluster::{ZooKeeper, ZooKeeperCluster};
use tokio::{task::JoinSet, time};
use zookeeper_client::{Acls, Client, CreateMode};

/// How long each has its turn.
const SLICE: Duration = Duration::from_millis(700);

#[derive(Clone)]
enum Lock {
    Ours(ZkLocker),
    /// Not a lock: a node is made and the queue is listed in one round trip, and the node is deleted.
    Bare(Client),
}

impl Lock {
    async fn ours(servers: &str) -> Result<Self> {
        let options = Options::default().with_ttl(Duration::from_secs(30));
        Ok(Self::Ours(ZkLocker::connect(servers, options).await?))
    }

    async fn bare(servers: &str) -> Result<Self> {
        Ok(Self::Bare(Client::connect(servers).await?))
    }

    /// Makes the queue, which is kept by a node in it: to make it is no part of the lock.
    async fn prepare(&self, key: &str) -> Result<()> {
        let Self::Bare(client) = self else { return Ok(()) };
        let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
        for root in ["lock", "bare"] {
            client.mkdir(&format!("/{root}/{key}/kept"), &persistent).await?;
        }
        Ok(())
    }

    async fn pair(&self, key: &str) -> Result<()> {
        match self {
            Self::Ours(locks) => locks.lock(key).await?.release().await?,
            Self::Bare(client) => {
                let ephemeral = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
                let (queue, stem) =
                    (format!("/bare/{key}"), format!("/bare/{key}/0123456789abcdef0123456789abcdef-"));
                let created = client.create(&stem, &[], &ephemeral);
                let listed = client.list_children(&queue);
                let (_, number) = created.await?;
                listed.await?;
                client.delete(&format!("{stem}{number}"), None).await?;
            }
        }
        Ok(())
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(7);
    println!("pairs a second, medians of {rounds} rounds, and the median of the rounds' ratios");
    println!("{:>8} {:>6} {:>9} {:>9} {:>6}", "servers", "tasks", "lock-zk", "bare", "ratio");
    let (one, three) = (ZooKeeper::start()?, ZooKeeperCluster::start(3)?);
    for (servers, addresses) in
        [(1, one.address().to_string()), (three.nodes().len(), three.connect_string())]
    {
        let (ours, bare) = (Lock::ours(&addresses).await?, Lock::bare(&addresses).await?);
        for tasks in [1, 64] {
            for number in 0..tasks {
                bare.prepare(&format!("key{number}")).await?;
            }
            let (mut rates, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
            for _ in 0..rounds {
                let (our, its) = (rate(&ours, tasks).await?, rate(&bare, tasks).await?);
                rates[0].push(our);
                rates[1].push(its);
                ratios.push(our / its);
            }
            let [our, its] = rates.map(median);
            println!("{servers:>8} {tasks:>6} {our:>9.0} {its:>9.0} {:>6.3}", median(ratios));
        }
    }
    Ok(())
}

/// Returns how many pairs a second `tasks` tasks get done, each with a key of its own.
async fn rate(lock: &Lock, tasks: usize) -> Result<f64> {
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut working = JoinSet::new();
    for number in 0..tasks {
        let (over, count, lock) = (Arc::clone(&over), Arc::clone(&count), lock.clone());
        working.spawn(async move {
            let key = format!("key{number}");
            while !over.load(Ordering::Relaxed) {
                lock.pair(&key).await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    let (start, before) = (Instant::now(), count.load(Ordering::Relaxed));
    time::sleep(SLICE).await;
    let rate = (count.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    while let Some(done) = working.join_next().await {
        done??;
    }
    Ok(rate)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
