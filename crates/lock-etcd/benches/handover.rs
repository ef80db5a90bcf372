//! How a contended lock changes hands, beside etcd's own lock RPC on the same server, in one run.
//!
//! `cargo bench -p lock-etcd --bench handover [seconds]`

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use etcd_client::{Client, LockOptions};
use lock_etcd::{EtcdLocker, LockGuard, Options};
use test_cluster::{Etcd, EtcdCluster};
use tokio::{sync::Mutex, task::JoinSet, time};

const KEY: &str = "contended";

/// A contender, who has a connection of its own.
enum Contender {
    Ours(EtcdLocker),
    Rpc(Box<Client>, i64),
}

enum Held {
    Ours(LockGuard),
    Rpc(Vec<u8>),
}

impl Contender {
    async fn ours(urls: &str) -> Result<Self> {
        let options = Options::default().with_ttl(Duration::from_secs(60));
        Ok(Self::Ours(EtcdLocker::connect(urls, options).await?))
    }

    async fn rpc(urls: &str) -> Result<Self> {
        let mut client = Client::connect([urls.split(',').next().expect("a server")], None).await?;
        let lease = client.lease_grant(600, None).await?.id();
        Ok(Self::Rpc(Box::new(client), lease))
    }

    async fn lock(&mut self) -> Result<Held> {
        match self {
            Self::Ours(locks) => Ok(Held::Ours(locks.lock(KEY).await?)),
            Self::Rpc(client, lease) => {
                let held = client.lock(KEY, Some(LockOptions::new().with_lease(*lease))).await?;
                Ok(Held::Rpc(held.key().to_vec()))
            }
        }
    }

    async fn release(&mut self, held: Held) -> Result<()> {
        match (self, held) {
            (_, Held::Ours(guard)) => guard.release().await?,
            (Self::Rpc(client, _), Held::Rpc(key)) => {
                client.unlock(key).await?;
            }
            (Self::Ours(_), Held::Rpc(_)) => unreachable!("what is held was had from the same contender"),
        }
        Ok(())
    }

    async fn leave(self) -> Result<()> {
        if let Self::Rpc(mut client, lease) = self {
            client.lease_revoke(lease).await?;
        }
        Ok(())
    }
}

/// What was seen of one contender's turns.
#[derive(Default)]
struct Turns {
    /// From the call of the release by another to the own guard.
    hand_overs: Vec<Duration>,
    /// From the call to the guard.
    waits: Vec<Duration>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let seconds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(5);
    let time = Duration::from_secs(seconds);
    println!("each contender is a client of its own; {seconds} s each; a cycle is a turn of each contender");
    println!(
        "{:>8} {:>11} {:>10} {:>9} {:>14} {:>16} {:>12}",
        "members", "contenders", "lock", "turns/s", "hand-over p50", "wait p99/cycle", "turns of each"
    );
    let (one, three) = (Etcd::start()?, EtcdCluster::start(3)?);
    for (members, urls) in [(1, one.url()), (three.len(), three.urls())] {
        for count in [1, 2, 4, 16, 64] {
            for name in ["lock-etcd", "RPC"] {
                let mut contenders = Vec::new();
                for _ in 0..count {
                    contenders.push(match name {
                        "RPC" => Contender::rpc(&urls).await?,
                        _ => Contender::ours(&urls).await?,
                    });
                }
                let turns = measure(contenders, time).await?;
                report(&format!("{members:>8} {count:>11} {name:>10}"), &turns, time);
            }
        }
    }
    Ok(())
}

/// Lets contenders take the lock and give it back again and again.
async fn measure(contenders: Vec<Contender>, time: Duration) -> Result<Vec<Turns>> {
    let (over, released) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None::<(usize, Instant)>)));
    let mut tasks = JoinSet::new();
    for (number, mut contender) in contenders.into_iter().enumerate() {
        let (over, released) = (Arc::clone(&over), Arc::clone(&released));
        tasks.spawn(async move {
            let mut turns = Turns::default();
            while !over.load(Ordering::Relaxed) {
                let called = Instant::now();
                let held = contender.lock().await?;
                turns.waits.push(called.elapsed());
                let mut released = released.lock().await;
                if let Some((_, at)) = released.filter(|(other, at)| *other != number && *at > called) {
                    turns.hand_overs.push(at.elapsed());
                }
                *released = Some((number, Instant::now()));
                drop(released);
                contender.release(held).await?;
            }
            contender.leave().await?;
            anyhow::Ok(turns)
        });
    }
    time::sleep(time).await;
    over.store(true, Ordering::Relaxed);
    let mut turns = Vec::new();
    while let Some(done) = tasks.join_next().await {
        turns.push(done??);
    }
    Ok(turns)
}

fn report(what: &str, turns: &[Turns], time: Duration) {
    let shares = turns.iter().map(|turns| turns.waits.len());
    let (fewest, most) = (shares.clone().min().unwrap_or(0), shares.clone().max().unwrap_or(0));
    let rate = shares.sum::<usize>() as f64 / time.as_secs_f64();
    let cycle = turns.len() as f64 / rate;
    let quantile = |pick: fn(&Turns) -> &Vec<Duration>, part: f64| {
        let mut all: Vec<_> = turns.iter().flat_map(pick).copied().collect();
        all.sort();
        all.get((all.len() as f64 * part) as usize).copied().unwrap_or_default()
    };
    let hand_over = quantile(|turns| &turns.hand_overs, 0.5);
    let wait = quantile(|turns| &turns.waits, 0.99).as_secs_f64() / cycle;
    println!("{what} {rate:>9.0} {hand_over:>14.2?} {wait:>16.2} {:>12}", format!("{fewest}–{most}"));
}
