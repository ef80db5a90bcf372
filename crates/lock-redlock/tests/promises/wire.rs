//! What goes over the wire: one request to each server to acquire, one to release, a push at the hand-over.

use std::time::Duration;

use anyhow::{Result, ensure};
use test_cluster::{eventually, resp::Value};

use crate::set::{KEY, NAME, SOON, Set, patient};

fn requests(set: &Set) -> Vec<u64> {
    set.proxies.iter().map(test_cluster::Proxy::requests).collect()
}

fn eventually_requests(set: &Set, expected: &[u64]) -> Result<()> {
    eventually("the requests", SOON, || {
        let requests = requests(set);
        ensure!(requests == expected, "{requests:?}, not {expected:?}");
        Ok(())
    })
}

/// Until the waiter is known and listens.
fn eventually_waits(set: &Set) -> Result<()> {
    eventually("the waiter to be known and to listen", SOON, || {
        let mut listens = 0;
        for redis in &set.servers {
            let Value::Array(channels) = redis.command(&["PUBSUB", "CHANNELS"])? else {
                anyhow::bail!("PUBSUB CHANNELS gives a list");
            };
            listens += channels.len();
            let held = redis.command(&["GET", NAME])?.text();
            ensure!(held.ends_with('+'), "{held}");
        }
        ensure!(listens >= 2, "it listens to {listens} servers, which are no majority");
        Ok(())
    })
}

async fn is_silent(set: &Set) {
    // why: silence can only be shown by letting time pass; too short a time hides a fault but invents none.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = requests(set);
    // why: silence can only be shown by letting time pass
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(requests(set), before, "a waiter that is not told anything sends nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_and_a_release_cost_one_request_to_each_server() -> Result<()> {
    let set = Set::start(5)?;
    let locks = set.locker(patient()).await?;
    let mut expected = requests(&set);
    for _ in 0..3 {
        let guard = locks.lock(KEY).await?;
        expected.iter_mut().for_each(|requests| *requests += 1);
        eventually_requests(&set, &expected)?;
        guard.release().await?;
        expected.iter_mut().for_each(|requests| *requests += 1);
        eventually_requests(&set, &expected)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_is_silent_until_it_is_told() -> Result<()> {
    let set = Set::start(3)?;
    // So long a lease that neither a renewal nor the look at its end falls into the test.
    let options = || patient().with_ttl(Duration::from_secs(3600));
    let holder =
        lock_redlock::RedlockLocker::connect(set.servers.iter().map(test_cluster::Redis::url), options());
    let (holder, waiter) = (holder.await?, set.locker(options()).await?);
    let guard = holder.lock(KEY).await?;
    set.eventually_votes(3)?;
    let waiting = tokio::spawn(async move { waiter.lock(KEY).await });
    eventually_waits(&set)?;
    is_silent(&set).await;

    guard.release().await?;
    let guard = tokio::time::timeout(SOON, waiting).await???;
    guard.release().await?;
    Ok(())
}

/// Somebody took the end from the keys: that they are never free is no reason to look all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_without_an_end_is_waited_for_in_silence() -> Result<()> {
    let set = Set::start(3)?;
    let (holder, waiter) = (set.locker(patient()).await?, set.locker(patient()).await?);
    let guard = holder.lock(KEY).await?;
    set.eventually_votes(3)?;
    for redis in &set.servers {
        ensure!(redis.command(&["PERSIST", NAME])?.as_int() == Some(1), "it had an end");
    }
    let waiting = tokio::spawn(async move { waiter.lock(KEY).await });
    eventually_waits(&set)?;
    is_silent(&set).await;

    guard.release().await?;
    tokio::time::timeout(SOON, waiting).await???.release().await?;
    Ok(())
}
