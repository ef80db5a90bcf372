//! What goes over the wire: one request to acquire, one to release, none while waiting.

use std::time::Duration;

use crate::common::{LONG, locker_with, queue_is, soon, until, waiter};
use anyhow::Result;
use test_cluster::Etcd;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uncontended_acquire_and_its_release_cost_one_request_each() -> Result<()> {
    let etcd = Etcd::start()?;
    let locks = locker_with(etcd.url(), LONG).await?;
    // The stream of watches is opened for the first hold that lasts, and stays open.
    let lasting = locks.lock("lasting").await?;
    let opened = etcd.requests()?;
    until("the stream of watches", || async {
        anyhow::ensure!(etcd.requests()? > opened + 1);
        Ok(())
    })
    .await;

    for _ in 0..3 {
        let before = etcd.requests()?;
        let guard = locks.lock("a").await?;
        assert_eq!(etcd.requests()? - before, 1, "an acquire");
        guard.release().await?;
        assert_eq!(etcd.requests()? - before, 2, "an acquire and a release");
    }
    let before = etcd.requests()?;
    let guard = locks.try_lock("a").await?.expect("it is free");
    assert!(locks.try_lock("a").await?.is_none());
    guard.release().await?;
    assert_eq!(etcd.requests()? - before, 3, "a granted try, a refused one, a release");
    Ok(lasting.release().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_is_silent_until_it_is_told() -> Result<()> {
    let etcd = Etcd::start()?;
    let (holder, other) = (locker_with(etcd.url(), LONG).await?, locker_with(etcd.url(), LONG).await?);
    let guard = holder.lock("a").await?;
    let waiting = waiter(&other, "a", 1).await;
    // why: silence can only be shown by letting time pass; too short a time hides a fault but invents none.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = etcd.requests()?;
    // why: silence can only be shown by letting time pass
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(etcd.requests()?, before, "a waiter that is not told anything sends nothing");

    guard.release().await?;
    let guard = soon("the hand-over", waiting).await??;
    assert_eq!(etcd.requests()? - before, 2, "the release, and a look at the own place");
    Ok(guard.release().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_costs_the_same_however_many_wait() -> Result<()> {
    const WAITERS: usize = 100;
    let etcd = Etcd::start()?;
    let locks = locker_with(etcd.url(), LONG).await?;
    let guard = locks.lock("a").await?;
    let mut waiters = tokio::task::JoinSet::new();
    for _ in 0..WAITERS {
        let locks = locks.clone();
        waiters.spawn(async move { locks.lock("a").await?.release().await });
    }
    queue_is(&locks, "a", WAITERS + 1).await;
    guard.release().await?;
    let before = etcd.requests()?;
    while let Some(done) = soon("a turn", waiters.join_next()).await {
        done??;
    }
    // Each looks when its watch stands, when it is told, and releases.
    let requests = usize::try_from(etcd.requests()? - before)?;
    assert!(requests <= 4 * WAITERS, "{requests} requests for {WAITERS} hand-overs");
    Ok(())
}
