//! What goes over the wire: two requests in one latency to acquire, one to release, a push at the hand-over.

use std::time::Instant;

use crate::common::{LONG, eventually, keep_queue, locker, operator, soon, watches};
use anyhow::{Context, Result};
use test_cluster::{Behaviour, Direction, Proxy, ZooKeeper};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uncontended_acquire_is_two_requests_and_its_release_is_one() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let locks = locker(zookeeper.address(), LONG).await?;
    let received = || received_of_the_only_session(&zookeeper);
    let operator = operator(&zookeeper).await?;
    keep_queue(&operator).await?;
    drop(operator);
    eventually("the operator to be gone", async || received().map(drop)).await?;

    // A hold that is older than a moment is watched, which is one request more; on a busy machine some are so old.
    let mut cheapest = (u64::MAX, u64::MAX);
    for _ in 0..10 {
        let before = received()?;
        let guard = locks.lock("orders").await?;
        let acquired = received()?;
        guard.release().await?;
        cheapest = cheapest.min((acquired - before, received()? - acquired));
    }
    assert_eq!(cheapest, (2, 1), "the requests of an acquire and of a release");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_takes_as_long_as_one_round_trip() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let proxy = Proxy::start(zookeeper.address())?;
    let locks = locker(proxy.address(), LONG).await?;
    keep_queue(&operator(&zookeeper).await?).await?;

    let delay = std::time::Duration::from_millis(300);
    proxy.set(Direction::ToServer, Behaviour::Delay(delay));
    proxy.set(Direction::ToClient, Behaviour::Delay(delay));
    let start = Instant::now();
    let guard = locks.lock("orders").await?;
    let acquire = start.elapsed();
    let start = Instant::now();
    guard.release().await?;
    let release = start.elapsed();
    assert!(acquire >= 2 * delay && release >= 2 * delay, "{acquire:?} and {release:?} through the proxy");
    let ratio = acquire.as_secs_f64() / release.as_secs_f64();
    assert!(ratio < 1.5, "an acquire took {ratio:.2} times as long as a release, which is one round trip");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_is_silent_until_it_is_told_and_then_asks_nothing() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let proxy = Proxy::start(zookeeper.address())?;
    let (holder, waiter) = (locker(zookeeper.address(), LONG).await?, locker(proxy.address(), LONG).await?);
    let operator = operator(&zookeeper).await?;
    keep_queue(&operator).await?;

    let mut fewest = u64::MAX;
    for _ in 0..5 {
        let guard = holder.lock("orders").await?;
        let waiting = tokio::spawn({
            let waiter = waiter.clone();
            async move { waiter.lock("orders").await }
        });
        watches(&zookeeper, 2).await?;
        let before = proxy.chunks(Direction::ToServer);
        guard.release().await?;
        let guard = soon("the hand-over", waiting).await???;
        // A ping of the client may have come between.
        fewest = fewest.min(proxy.chunks(Direction::ToServer) - before);
        guard.release().await?;
    }
    assert_eq!(fewest, 0, "requests of the waiter at a hand-over");
    Ok(())
}

/// How many requests the server has received over the one connection that has a session.
fn received_of_the_only_session(zookeeper: &ZooKeeper) -> Result<u64> {
    let answer = zookeeper.ask("cons")?;
    let mut sessions = answer.lines().filter(|line| line.contains("sid="));
    let (session, other) = (sessions.next().context("no session")?, sessions.next());
    anyhow::ensure!(other.is_none(), "more than one session: {answer}");
    let received = session.split_once("recved=").and_then(|(_, rest)| rest.split(',').next());
    Ok(received.context("no count")?.parse()?)
}
