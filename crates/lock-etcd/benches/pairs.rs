//! What a lock costs, beside the fewest requests that it can be made of and etcd's own lock RPC, in one run.
//!
//! `cargo bench -p lock-etcd --bench pairs [rounds]`

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use etcd_client::{Client, Compare, CompareOp, LockOptions, PutOptions, Txn, TxnOp};
use lock_etcd::{EtcdLocker, Options};
use test_cluster::{Etcd, EtcdCluster};
use tokio::{task::JoinSet, time};

/// How long each has its turn.
const SLICE: Duration = Duration::from_millis(700);

#[derive(Clone)]
enum Lock {
    Ours(EtcdLocker),
    /// Not a lock: a key is put if it is not there, with a lease, and deleted.
    Bare(Box<Client>, i64),
    Rpc(Box<Client>, i64),
}

impl Lock {
    async fn all(urls: &str) -> Result<[Self; 3]> {
        let options = Options::default().with_ttl(Duration::from_secs(60));
        let ours = EtcdLocker::connect(urls, options).await?;
        let url = urls.split(',').next().expect("a server");
        let mut client = Client::connect([url], None).await?;
        let lease = client.lease_grant(600, None).await?.id();
        let client = Box::new(client);
        Ok([Self::Ours(ours), Self::Bare(client.clone(), lease), Self::Rpc(client, lease)])
    }

    async fn pair(&mut self, key: &str) -> Result<()> {
        match self {
            Self::Ours(locks) => locks.lock(key).await?.release().await?,
            Self::Bare(client, lease) => {
                let key = format!("bare/{key}");
                let put = TxnOp::put(&*key, "", Some(PutOptions::new().with_lease(*lease)));
                let absent = Compare::create_revision(&*key, CompareOp::Equal, 0);
                client.txn(Txn::new().when([absent]).and_then([put])).await?;
                client.delete(key, None).await?;
            }
            Self::Rpc(client, lease) => {
                let options = LockOptions::new().with_lease(*lease);
                let held = client.lock(format!("rpc/{key}"), Some(options)).await?;
                client.unlock(held.key()).await?;
            }
        }
        Ok(())
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(7);
    println!("pairs a second, medians of {rounds} rounds, and the medians of the rounds' ratios");
    println!(
        "{:>8} {:>6} {:>10} {:>10} {:>10} {:>8} {:>8}",
        "members", "tasks", "lock-etcd", "bare", "RPC", "of bare", "of RPC"
    );
    let (one, three) = (Etcd::start()?, EtcdCluster::start(3)?);
    for (members, urls) in [(1, one.url()), (three.len(), three.urls())] {
        let locks = Lock::all(&urls).await?;
        for tasks in [1, 64] {
            let (mut rates, mut ratios) = ([const { Vec::new() }; 3], [const { Vec::new() }; 2]);
            for _ in 0..rounds {
                let mut round = Vec::new();
                for (lock, rates) in locks.iter().zip(&mut rates) {
                    round.push(rate(lock, tasks).await?);
                    rates.extend(round.last());
                }
                ratios[0].push(round[0] / round[1]);
                ratios[1].push(round[0] / round[2]);
            }
            let ([ours, bare, rpc], [of_bare, of_rpc]) = (rates.map(median), ratios.map(median));
            println!(
                "{members:>8} {tasks:>6} {ours:>10.0} {bare:>10.0} {rpc:>10.0} {of_bare:>8.3} {of_rpc:>8.3}"
            );
        }
    }
    Ok(())
}

/// Returns how many pairs a second `tasks` tasks get done, each with a key of its own.
async fn rate(lock: &Lock, tasks: usize) -> Result<f64> {
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut working = JoinSet::new();
    for number in 0..tasks {
        let (over, count, mut lock) = (Arc::clone(&over), Arc::clone(&count), lock.clone());
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
