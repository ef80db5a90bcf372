//! The queue at the server: its order, waiters who are gone, and what is left of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use lock_setnx::{LockGuard, Options, SetnxLocker};
use test_cluster::{Direction, Proxy, Redis, eventually, proxy::Behaviour};
use tokio::{
    runtime::{self, Runtime},
    task::{JoinHandle, JoinSet},
    time::Instant,
};

const KEY: &str = "orders/42";
const NAME: &str = "lock:{df}:orders/42";
const QUEUE: &str = "lock:{df}#queue:orders/42";
const FENCE: &str = "lock:{df}#fence";
const PATIENCE: Duration = Duration::from_secs(10);
/// Ten reservations, and far less than a lease.
const SOON: Duration = Duration::from_secs(5);

/// A lease so long that nothing but the queue can end a wait in time.
fn long() -> Options {
    Options::default().with_ttl(Duration::from_secs(3600))
}

type Waiter = JoinHandle<lock_setnx::Result<LockGuard>>;

fn wait(locks: &SetnxLocker) -> Waiter {
    let locks = locks.clone();
    tokio::spawn(async move { locks.lock(KEY).await })
}

fn stand(redis: &Redis, waiters: i64) -> Result<()> {
    eventually("the queue", PATIENCE, || {
        let found = redis.command(&["ZCARD", QUEUE])?.as_int();
        ensure!(found == Some(waiters), "{found:?} waiters, not {waiters}");
        Ok(())
    })
}

async fn soon(waiter: Waiter) -> Result<LockGuard> {
    Ok(tokio::time::timeout(SOON, waiter).await???)
}

/// One who waits, in a runtime of its own, which can be shut down.
fn wait_apart(url: String, options: Options) -> Result<Runtime> {
    let apart = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    apart.spawn(
        async move { SetnxLocker::connect(url, options).await?.lock(KEY).await.map(std::mem::forget) },
    );
    Ok(apart)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contenders_have_equal_shares() -> Result<()> {
    const CONTENDERS: usize = 8;
    const HOLDS: usize = 400;
    let redis = Redis::start()?;
    let holds = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut contenders = JoinSet::new();
    let holder = SetnxLocker::connect(redis.url(), long()).await?;
    let guard = holder.lock(KEY).await?;
    for place in 0..CONTENDERS {
        let locks = SetnxLocker::connect(redis.url(), long()).await?;
        let holds = std::sync::Arc::clone(&holds);
        contenders.spawn(async move {
            let mut own = 0_usize;
            while holds.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < HOLDS {
                locks.lock(KEY).await?.release().await?;
                own += 1;
            }
            anyhow::Ok(own)
        });
        stand(&redis, i64::try_from(place + 1)?)?;
    }
    guard.release().await?;
    let shares = contenders.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let (least, most) = (shares.iter().min(), shares.iter().max());
    ensure!(most.zip(least).is_some_and(|(most, least)| *most <= 2 * least), "{shares:?}");
    ensure!(redis.command(&["EXISTS", NAME, QUEUE])?.as_int() == Some(0), "nothing is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_that_are_gone_cost_nothing() -> Result<()> {
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), long()).await?;
    let guard = locks.lock(KEY).await?;
    for gone in 1..=20 {
        let apart = wait_apart(redis.url(), long())?;
        stand(&redis, gone)?;
        apart.shutdown_background();
    }
    eventually("the ends of their connections", PATIENCE, || {
        let channels = redis.command(&["PUBSUB", "CHANNELS", "lock:#*"])?;
        ensure!(format!("{channels:?}") == "Array([])", "{channels:?}");
        Ok(())
    })?;
    let waiter = wait(&SetnxLocker::connect(redis.url(), long()).await?);
    stand(&redis, 21)?;
    guard.release().await?;
    // Twenty reservations would take twice as long.
    soon(waiter).await?.release().await?;
    Ok(())
}

/// To the server a machine that was cut off listens still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_is_cut_off_costs_one_reservation() -> Result<()> {
    let redis = Redis::start()?;
    let proxy = Proxy::start(redis.address())?;
    let locks = SetnxLocker::connect(redis.url(), long()).await?;
    let guard = locks.lock(KEY).await?;
    let cut_off = SetnxLocker::connect(format!("redis://{}", proxy.address()), long()).await?;
    let lost = wait(&cut_off);
    stand(&redis, 1)?;
    let waiters = [(); 2].map(|()| locks.clone());
    let next = wait(&waiters[0]);
    stand(&redis, 2)?;
    proxy.set(Direction::ToClient, Behaviour::Stall);
    let released = Instant::now();
    guard.release().await?;
    soon(next).await?.release().await?;
    ensure!(released.elapsed() >= Duration::from_millis(490), "the first had its time");
    lost.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_try_does_not_take_what_a_waiter_is_next_for() -> Result<()> {
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), long()).await?;
    let _guard = locks.lock(KEY).await?;
    let waiter = wait(&SetnxLocker::connect(redis.url(), long()).await?);
    stand(&redis, 1)?;
    // As if the holder's lease had ended: the waiter does not know.
    redis.command(&["DEL", NAME])?;
    let others = SetnxLocker::connect(redis.url(), long()).await?;
    ensure!(others.try_lock(KEY).await?.is_none(), "a waiter is next");
    // And the try has told it.
    soon(waiter).await?.release().await?;
    ensure!(others.try_lock(KEY).await?.is_some(), "nobody waits any more");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_outlast_a_loss_of_all_data() -> Result<()> {
    let redis = Redis::start()?;
    let brief = || Options::default().with_ttl(Duration::from_secs(2));
    let locks = SetnxLocker::connect(redis.url(), long()).await?;
    let _guard = locks.lock(KEY).await?;
    let clients = [(); 3].map(|()| SetnxLocker::connect(redis.url(), brief()));
    let mut waiters = JoinSet::new();
    for (place, client) in clients.into_iter().enumerate() {
        let locks = client.await?;
        waiters.spawn(async move { locks.lock(KEY).await?.release().await });
        stand(&redis, i64::try_from(place + 1)?)?;
    }
    redis.command(&["FLUSHALL"])?;
    tokio::time::timeout(PATIENCE, waiters.join_all()).await?.into_iter().collect::<Result<(), _>>()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_queue_ends_by_itself() -> Result<()> {
    let redis = Redis::start()?;
    let ttl = Duration::from_secs(1);
    let locks = SetnxLocker::connect(redis.url(), long()).await?;
    let _guard = locks.lock(KEY).await?;
    let apart = wait_apart(redis.url(), Options::default().with_ttl(ttl))?;
    stand(&redis, 1)?;
    apart.shutdown_background();
    eventually("the end of the queue", PATIENCE, || {
        ensure!(redis.command(&["EXISTS", QUEUE])?.as_int() == Some(0), "it is there");
        Ok(())
    })?;
    // So does the mark that made others look for it.
    let marked = redis.command(&["GET", FENCE])?.text();
    ensure!(marked.contains(";q@"), "{marked}");
    redis.command(&["DEL", NAME])?;
    eventually("the end of the mark", PATIENCE, || {
        let fence = redis.command(&["GET", FENCE])?.text();
        if fence.contains(";q@") {
            let till: u64 = fence.split(";q@").nth(1).unwrap_or_default().parse()?;
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
            ensure!(now > u128::from(till), "{fence}");
        }
        Ok(())
    })?;
    locks.try_lock(KEY).await?.expect("it is free").release().await?;
    let fence = redis.command(&["GET", FENCE])?.text();
    ensure!(fence.parse::<u64>().is_ok(), "{fence}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_channels_is_served_in_its_turn() -> Result<()> {
    let redis = Redis::start()?;
    redis.command(&["ACL", "SETUSER", "clerk", "on", ">pw", "~lock:*", "+@all"])?;
    let url = format!("redis://clerk:pw@{}", redis.address());
    let locks = SetnxLocker::connect(redis.url(), long()).await?;
    let guard = locks.lock(KEY).await?;
    let deaf = wait(&SetnxLocker::connect(url.as_str(), long()).await?);
    stand(&redis, 1)?;
    let behind = wait(&SetnxLocker::connect(redis.url(), long()).await?);
    stand(&redis, 2)?;
    guard.release().await?;
    let next = soon(deaf).await?;
    ensure!(!behind.is_finished(), "it came later");
    // It may not tell the other either, who looks by itself only when the lease would have ended.
    drop(next);
    stand(&redis, 1)?;
    behind.abort();
    stand(&redis, 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_memory_hands_on_all_the_same() -> Result<()> {
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), long()).await?;
    let guard = locks.lock(KEY).await?;
    let waiter = wait(&SetnxLocker::connect(redis.url(), long()).await?);
    stand(&redis, 1)?;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"])?;
    guard.release().await?;
    // To hold what was reserved takes no more memory.
    soon(waiter).await?.release().await?;
    ensure!(redis.command(&["EXISTS", NAME, QUEUE])?.as_int() == Some(0), "nothing is left");
    Ok(())
}
