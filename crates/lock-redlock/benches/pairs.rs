//! What a lock on five servers and its release cost, beside the floor and beside the same scripts over bare clients, in
//! one run; and how a contended key changes hands.
//!
//! `cargo bench -p lock-redlock --bench pairs [rounds]`

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use lock_redlock::{
    Options, RedlockLocker,
    redis::{self, AsyncConnectionConfig, Client, Script, aio::MultiplexedConnection},
};
use test_cluster::Redis;
use tokio::task::JoinSet;

const ROUND: Duration = Duration::from_millis(500);
const KEY: &str = "contended";

/// What is measured: an acquire and a release, again and again.
#[derive(Clone)]
enum Lock {
    /// `SET NX PX`, and a compare-and-delete, on all five: no token, and nobody is told of the release.
    Floor(Vec<MultiplexedConnection>),
    /// The scripts of this crate.
    Scripts(Vec<MultiplexedConnection>),
    Ours(RedlockLocker),
}

const COMPARE_AND_DELETE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

impl Lock {
    async fn all(servers: &[Redis]) -> Result<[Self; 3]> {
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(1024);
        let connect = async |redis: &Redis| {
            let client = Client::open(redis.url())?;
            let settings = client.get_connection_info().tcp_settings().clone().set_nodelay(true);
            let client = Client::open(client.get_connection_info().clone().set_tcp_settings(settings))?;
            client.get_multiplexed_async_connection_with_config(&config).await
        };
        let options = Options::default().with_ttl(Duration::from_secs(60));
        let ours = RedlockLocker::connect(servers.iter().map(Redis::url), options).await?;
        let floor = try_join_all(servers.iter().map(&connect)).await?;
        let scripts = try_join_all(servers.iter().map(&connect)).await?;
        Ok([Self::Floor(floor), Self::Scripts(scripts), Self::Ours(ours)])
    }

    async fn pairs(mut self, number: usize, over: Arc<AtomicBool>) -> Result<u64> {
        let (key, owner) = (format!("lock:{{redlock:00}}:orders/{number}"), format!("{number:032x}"));
        // Larger in each round than in those before.
        let mut token = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        let mut count = 0;
        let delete = Script::new(COMPARE_AND_DELETE);
        let script = |text: &str| {
            Script::new(&text.replace("-- include queue.lua\n", include_str!("../scripts/queue.lua")))
        };
        let acquire = script(include_str!("../scripts/acquire.lua"));
        let release = script(include_str!("../scripts/release.lua"));
        let queue = format!("{key}#queue");
        let fence = format!("lock:{{redlock:00}}#fence{number}");
        while !over.load(Ordering::Relaxed) {
            match &mut self {
                Self::Floor(connections) => {
                    let mut set = redis::cmd("SET");
                    set.arg(&key).arg(&owner).arg("NX").arg("PX").arg(60_000);
                    let votes = try_join_all(connections.iter_mut().map(|one| set.query_async::<bool>(one)));
                    ensure!(votes.await?.into_iter().all(|vote| vote));
                    let mut delete = delete.key(&key);
                    delete.arg(&owner);
                    let freed =
                        try_join_all(connections.iter_mut().map(|one| delete.invoke_async::<bool>(one)));
                    ensure!(freed.await?.into_iter().all(|freed| freed));
                }
                Self::Scripts(connections) => {
                    token += 1;
                    let mut acquire = acquire.key(&key);
                    acquire
                        .key("lock:{redlock}#memory")
                        .key(&queue)
                        .arg(&owner)
                        .arg("60000")
                        .arg("go")
                        .arg(&fence)
                        .arg(token);
                    let votes =
                        connections.iter_mut().map(|one| acquire.invoke_async::<(String, u64, String)>(one));
                    ensure!(try_join_all(votes).await?.into_iter().all(|(word, ..)| word == "granted"));
                    let mut release = release.key(&key);
                    release.key(&queue).arg(&owner);
                    let freed = connections.iter_mut().map(|one| release.invoke_async::<bool>(one));
                    ensure!(try_join_all(freed).await?.into_iter().all(|freed| freed));
                }
                Self::Ours(locks) => locks.lock(&key).await?.release().await?,
            }
            count += 1;
        }
        Ok(count)
    }

    /// Returns pairs a second.
    async fn rate(&self, tasks: usize) -> Result<f64> {
        let over = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        let start = Instant::now();
        for number in 0..tasks {
            running.spawn(self.clone().pairs(number, Arc::clone(&over)));
        }
        tokio::time::sleep(ROUND).await;
        over.store(true, Ordering::Relaxed);
        let mut count = 0;
        while let Some(done) = running.join_next().await {
            count += done??;
        }
        Ok(count as f64 / start.elapsed().as_secs_f64())
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(11);
    let servers = (0..5).map(|_| Redis::start()).collect::<Result<Vec<_>>>()?;
    let locks = Lock::all(&servers).await?;
    println!("pairs of acquire and release a second on 5 servers, medians of {rounds} interleaved rounds");
    println!(
        "{:>6} {:>9} {:>9} {:>9} {:>13} {:>13}",
        "tasks", "floor", "scripts", "ours", "ours/floor", "ours/scripts"
    );
    for tasks in [1, 64] {
        let mut rates = vec![];
        for _ in 0..=rounds {
            let mut round = [0.0; 3];
            for (rate, lock) in round.iter_mut().zip(&locks) {
                *rate = lock.rate(tasks).await?;
            }
            rates.push(round);
        }
        // The first round warms up.
        let of = |what: &dyn Fn(&[f64; 3]) -> f64| median(rates[1..].iter().map(what).collect());
        let (floor, scripts, ours) = (of(&|round| round[0]), of(&|round| round[1]), of(&|round| round[2]));
        let (to_floor, to_scripts) = (of(&|round| round[2] / round[0]), of(&|round| round[2] / round[1]));
        println!("{tasks:>6} {floor:>9.0} {scripts:>9.0} {ours:>9.0} {to_floor:>13.3} {to_scripts:>13.3}");
    }
    println!("\none key, each contender with a locker of its own");
    println!("{:>10} {:>9} {:>9} {:>9} {:>11}", "contenders", "pairs/s", "p50", "p99", "shares");
    for contenders in [1, 2, 16, 64] {
        contend(&servers, contenders).await?;
    }
    Ok(())
}

async fn contend(servers: &[Redis], contenders: usize) -> Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    let mut running = JoinSet::new();
    let start = Instant::now();
    for _ in 0..contenders {
        let locks = RedlockLocker::connect(servers.iter().map(Redis::url), Options::default()).await?;
        let over = Arc::clone(&over);
        running.spawn(async move {
            let mut waits = vec![];
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let guard = locks.lock(KEY).await?;
                waits.push(asked.elapsed());
                guard.release().await?;
            }
            anyhow::Ok(waits)
        });
    }
    tokio::time::sleep(8 * ROUND).await;
    over.store(true, Ordering::Relaxed);
    let (mut waits, mut shares) = (vec![], vec![]);
    while let Some(done) = running.join_next().await {
        let own = done??;
        shares.push(own.len());
        waits.extend(own);
    }
    let rate = waits.len() as f64 / start.elapsed().as_secs_f64();
    waits.sort_unstable();
    shares.sort_unstable();
    let part = |part: usize| waits[(waits.len() - 1) * part / 100];
    let (p50, p99) = (part(50), part(99));
    let shares = format!("{}–{}", shares[0], shares[shares.len() - 1]);
    println!("{contenders:>10} {rate:>9.0} {p50:>9.2?} {p99:>9.2?} {shares:>11}");
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
