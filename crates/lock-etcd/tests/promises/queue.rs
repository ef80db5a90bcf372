//! The queue: order, hand-over, and what several locks of one session are to each other.

use std::{collections::HashSet, time::Duration};

use crate::common::{LONG, locker, locker_with, queue_is, soon, waiter};
use anyhow::Result;
use test_cluster::{Behaviour, Direction, Etcd, Proxy};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_held_by_one_and_handed_over() -> Result<()> {
    let etcd = Etcd::start()?;
    let (one, other) = (locker(etcd.url()).await?, locker(etcd.url()).await?);

    let guard = one.lock("a").await?;
    assert!(other.try_lock("a").await?.is_none());
    queue_is(&one, "a", 1).await;
    let waiting = waiter(&other, "a", 1).await;
    let token = guard.fencing_token();
    guard.verify().await?;
    guard.release().await?;
    let next = soon("the hand-over", waiting).await??;
    assert!(next.fencing_token() > token);
    next.release().await?;
    queue_is(&one, "a", 0).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_locks_of_one_session_exclude_each_other_and_end_alone() -> Result<()> {
    let etcd = Etcd::start()?;
    let locks = locker(etcd.url()).await?;
    let (a, b) = (locks.lock("a").await?, locks.lock("b").await?);
    assert!(locks.try_lock("a").await?.is_none(), "the same session is refused like any other");
    let waiting = waiter(&locks, "a", 1).await;
    let places = locks.queue("a").await?;
    assert_eq!(places[0].lease, places[1].lease, "one session carries both");

    a.release().await?;
    let next = soon("the hand-over", waiting).await??;
    b.verify().await?;
    drop(next);
    b.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_are_served_in_the_order_of_their_places() -> Result<()> {
    let etcd = Etcd::start()?;
    let lockers = [locker_with(etcd.url(), LONG).await?, locker_with(etcd.url(), LONG).await?];
    let guard = lockers[0].lock("a").await?;
    let mut waiters = Vec::new();
    for place in 1..=8 {
        waiters.push(waiter(&lockers[place % 2], "a", place).await);
    }
    // One in the middle gives up: who comes after it must wait for those before it.
    waiters.remove(3).abort();
    queue_is(&lockers[0], "a", 8).await;

    let mut token = guard.fencing_token();
    guard.release().await?;
    for waiter in waiters {
        let guard = soon("a turn", waiter).await??;
        let queue = lockers[0].queue("a").await?;
        assert_eq!(queue[0].fencing_token, guard.fencing_token(), "the holder is the first of the queue");
        assert!(guard.fencing_token() > token);
        token = guard.fencing_token();
        guard.release().await?;
    }
    queue_is(&lockers[0], "a", 0).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_used_again_once_it_was_released() -> Result<()> {
    let etcd = Etcd::start()?;
    let locks = locker_with(etcd.url(), LONG).await?;
    let mut names = HashSet::new();
    for _ in 0..20 {
        let (one, other) = (locks.lock("a").await?, locks.lock("b").await?);
        assert!(locks.try_lock("a").await?.is_none());
        for key in ["a", "b"] {
            names.extend(locks.queue(key).await?.into_iter().map(|entry| format!("{key}:{}", entry.owner)));
        }
        one.release().await?;
        other.release().await?;
    }
    assert_eq!(
        names.len(),
        2,
        "etcd keeps each name until its history is compacted, and looks pass over them"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_predecessor_that_queues_again_under_its_name_is_not_waited_for() -> Result<()> {
    let etcd = Etcd::start()?;
    let proxy = Proxy::start(etcd.address())?;
    let (one, other) = (
        locker_with(etcd.url(), LONG).await?,
        locker_with(format!("http://{}", proxy.address()), LONG).await?,
    );
    // The stream of watches stands.
    let guard = one.lock("a").await?;
    let waiting = waiter(&other, "a", 1).await;
    guard.release().await?;
    soon("the hand-over", waiting).await??.release().await?;

    for _ in 0..3 {
        let guard = one.lock("a").await?;
        proxy.set(Direction::ToServer, Behaviour::Delay(Duration::from_millis(300)));
        // Its entry is made long before its watch is.
        let waiting = tokio::spawn({
            let other = other.clone();
            async move { other.lock("a").await }
        });
        queue_is(&one, "a", 2).await;
        guard.release().await?;
        let again = waiter(&one, "a", 1).await;
        proxy.set(Direction::ToServer, Behaviour::Pass);
        soon("the turn of the one who waited first", waiting).await??.release().await?;
        soon("the turn of the other", again).await??.release().await?;
    }
    Ok(())
}
