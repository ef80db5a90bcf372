//! What goes over the wire: one request to acquire, one to release, a push at the hand-over, no polling.

use std::time::Duration;

use anyhow::Result;
use lock_setnx::{Options, SetnxLocker};
use test_cluster::{Proxy, Redis, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uncontended_acquire_and_its_release_cost_one_request_each() -> Result<()> {
    let redis = Redis::start()?;
    let proxy = Proxy::start(redis.address())?;
    let locks = SetnxLocker::connect(format!("redis://{}", proxy.address()), Options::default()).await?;

    for _ in 0..3 {
        let before = proxy.requests();
        let guard = locks.lock("orders/42").await?;
        assert_eq!(proxy.requests() - before, 1, "an acquire");
        guard.release().await?;
        assert_eq!(proxy.requests() - before, 2, "an acquire and a release");
    }
    let before = proxy.requests();
    let guard = locks.try_lock("orders/42").await?.expect("it is free");
    assert!(locks.try_lock("orders/42").await?.is_none());
    guard.release().await?;
    assert_eq!(proxy.requests() - before, 3, "a granted try, a refused one, a release");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_is_silent_until_it_is_told() -> Result<()> {
    let redis = Redis::start()?;
    let proxy = Proxy::start(redis.address())?;
    // A lease so long that neither a renewal nor the look at its end falls into the test.
    let options = Options::default().with_ttl(Duration::from_secs(3600));
    let holder = SetnxLocker::connect(redis.url(), options.clone()).await?;
    let waiter = SetnxLocker::connect(format!("redis://{}", proxy.address()), options).await?;

    let guard = holder.lock("orders/42").await?;
    let waiting = tokio::spawn(async move { waiter.lock("orders/42").await });
    queued(&redis, 1)?;
    // The second look follows the subscription; after it nothing more may be sent.
    eventually("the second look", Duration::from_secs(10), || {
        let looks = calls(&redis, "evalsha")?;
        anyhow::ensure!(looks >= 3, "{looks} looks, the holder's included");
        Ok(())
    })?;
    let before = proxy.requests();
    // why: silence can only be shown by letting time pass; too short a time hides a fault but invents none.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(proxy.requests(), before, "a waiter that is not told anything sends nothing");

    guard.release().await?;
    let guard = tokio::time::timeout(Duration::from_secs(10), waiting).await???;
    assert_eq!(guard.key().as_str(), "orders/42");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_nobody_waits_for_publishes_nothing() -> Result<()> {
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), Options::default()).await?;
    // To connect takes one, which shows whether the user may.
    let before = calls(&redis, "publish")?;
    let guard = locks.lock("orders/42").await?;
    assert!(locks.try_lock("orders/42").await?.is_none(), "one that only tries does not wait");
    guard.release().await?;
    assert_eq!(calls(&redis, "publish")?, before);

    let guard = locks.lock("orders/42").await?;
    assert!(locks.try_lock_for("orders/42", Duration::from_millis(50)).await?.is_none());
    queued(&redis, 0)?;
    guard.release().await?;
    assert_eq!(calls(&redis, "publish")?, before, "one who waits no more has left the queue");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_waiters_of_one_process_cost_one_wake_up_each_release() -> Result<()> {
    const WAITERS: u64 = 1000;
    let redis = Redis::start()?;
    let options = Options::default().with_ttl(Duration::from_secs(3600));
    let locks = SetnxLocker::connect(redis.url(), options).await?;
    let guard = locks.lock("orders/42").await?;
    let mut waiters = tokio::task::JoinSet::new();
    for _ in 0..WAITERS {
        let locks = locks.clone();
        waiters.spawn(async move { locks.lock("orders/42").await?.release().await });
    }
    queued(&redis, 1)?;
    guard.release().await?;
    while let Some(done) = waiters.join_next().await {
        done??;
    }
    // Each waiter stands in the queue, confirms when it is told, and releases; some ask before there is a line.
    let scripts = calls(&redis, "evalsha")?;
    assert!(scripts <= 50 + 3 * WAITERS, "{scripts} scripts for {WAITERS} hand-overs");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_for_each_hand_over_do_not_grow_with_waiters() -> Result<()> {
    const ROUNDS: u64 = 10;
    let redis = Redis::start()?;
    let options = Options::default().with_ttl(Duration::from_secs(3600));
    for clients in [2, 40] {
        let mut contenders = tokio::task::JoinSet::new();
        let before = calls(&redis, "evalsha")?;
        for _ in 0..clients {
            let locks = SetnxLocker::connect(redis.url(), options.clone()).await?;
            contenders.spawn(async move {
                for _ in 0..ROUNDS {
                    locks.lock("orders/42").await?.release().await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = contenders.join_next().await {
            done??;
        }
        // A client asks once more before it listens for the first time, and may look while the key is reserved.
        let (scripts, most) = (calls(&redis, "evalsha")? - before, clients * (3 * ROUNDS + 5));
        assert!(scripts <= most, "{scripts} scripts for {clients} clients with {ROUNDS} rounds");
    }
    Ok(())
}

fn queued(redis: &Redis, waiters: i64) -> Result<()> {
    eventually("the queue", Duration::from_secs(10), || {
        let found = redis.command(&["ZCARD", "lock:{df}#queue:orders/42"])?.as_int();
        anyhow::ensure!(found == Some(waiters), "{found:?} waiters, not {waiters}");
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_whose_end_was_taken_away_is_not_polled() -> Result<()> {
    let redis = Redis::start()?;
    let options = Options::default().with_ttl(Duration::from_secs(60));
    let locks = SetnxLocker::connect(redis.url(), options).await?;
    let guard = locks.lock("orders/42").await?;
    redis.command(&["PERSIST", &locks.name_in_redis("orders/42")?])?;
    let holder = locks.inspect("orders/42").await?.expect("it is held");
    assert_eq!(holder.free_in, Duration::MAX);
    let before = calls(&redis, "evalsha")?;
    assert!(locks.try_lock_for("orders/42", Duration::from_millis(500)).await?.is_none());
    let looks = calls(&redis, "evalsha")? - before;
    assert!(looks <= 4, "{looks} looks in half a second, and a leave");
    guard.release().await?;
    Ok(())
}

/// How often `command` was run, also from within scripts.
fn calls(redis: &Redis, command: &str) -> Result<u64> {
    let stats = redis.command(&["INFO", "commandstats"])?;
    let text = stats.text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    Ok(line.and_then(|rest| rest.split(',').next()).map_or(Ok(0), str::parse)?)
}
