//! Three servers: whichever of them dies or freezes, locks are neither lost nor held twice.

use std::time::Duration;

use crate::common::{eventually, locker, soon, watches_in};
use anyhow::Result;
use lock_zk::{LockGuard, ZkLocker};
use test_cluster::ZooKeeperCluster;
use tokio::task::JoinHandle;

/// Long enough for an election, and for a client to find another server, on a busy machine.
const TTL: Duration = Duration::from_secs(15);

struct Scene {
    ensemble: ZooKeeperCluster,
    holder: ZkLocker,
    guard: LockGuard,
    waiting: JoinHandle<lock_zk::Result<LockGuard>>,
}

impl Scene {
    /// One holds a lock and another waits for it.
    async fn set() -> Result<Self> {
        let ensemble = ZooKeeperCluster::start(3)?;
        let (holder, waiter) =
            (locker(ensemble.connect_string(), TTL).await?, locker(ensemble.connect_string(), TTL).await?);
        let guard = holder.lock("orders").await?;
        let waiting = tokio::spawn(async move { waiter.lock("orders").await });
        watches_in(ensemble.nodes(), 2).await?;
        Ok(Self { ensemble, holder, guard, waiting })
    }

    /// The lock is still held, by one, and is handed over when it is given back.
    async fn check(self) -> Result<()> {
        let Self { ensemble, holder, guard, waiting } = self;
        eventually("a verified hold", async || Ok(guard.verify().await?)).await?;
        assert!(guard.is_held() && !waiting.is_finished());
        let token = guard.fencing_token();
        // A release may meet a connection that breaks; then it is repeated in the background.
        let _ = guard.release().await;
        let guard = soon("the hand-over", waiting).await???;
        assert!(guard.fencing_token() > token);
        eventually("a refusal", async || {
            assert!(holder.try_lock("orders").await?.is_none(), "another holds it");
            Ok(())
        })
        .await?;
        eventually("a verified hold", async || Ok(guard.verify().await?)).await?;
        guard.release().await?;
        drop(ensemble);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_costs_neither_holder_nor_waiter_anything() -> Result<()> {
    let scene = Scene::set().await?;
    let leader = scene.ensemble.leader()?;
    scene.ensemble.node(leader).kill()?;
    scene.check().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_leader_costs_neither_holder_nor_waiter_anything() -> Result<()> {
    let scene = Scene::set().await?;
    let leader = scene.ensemble.leader()?;
    scene.ensemble.node(leader).pause()?;
    scene.check().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_may_be_restarted_in_turn() -> Result<()> {
    let scene = Scene::set().await?;
    for node in scene.ensemble.nodes() {
        node.restart()?;
        scene.ensemble.leader()?;
        eventually("a verified hold", async || Ok(scene.guard.verify().await?)).await?;
    }
    scene.check().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_the_holder_gives_up_before_anybody_else_can_have_the_lock() -> Result<()> {
    let Scene { ensemble, holder, guard, waiting } = Scene::set().await?;
    let leader = ensemble.leader()?;
    for node in (0..3).filter(|node| *node != leader) {
        ensemble.node(node).kill()?;
    }
    soon("the loss", guard.lost()).await?;
    let error = soon("a try without a majority", holder.try_lock("orders")).await?.expect_err("no majority");
    assert_eq!(error.kind(), lock_zk::ErrorKind::Unavailable, "{error}");
    drop(guard);
    for node in (0..3).filter(|node| *node != leader) {
        ensemble.node(node).restart()?;
    }
    ensemble.leader()?;
    // The waiter's session was lost too; it queues again, or says that it could not.
    if let Ok(guard) = soon("the wait", waiting).await?? {
        eventually("a verified hold", async || Ok(guard.verify().await?)).await?;
        drop(guard);
    }
    eventually("a lock", async || Ok(holder.lock("orders").await?)).await?.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_cut_off_keeps_no_lock_alive() -> Result<()> {
    // So patient a follower goes on answering its clients long after the leader has ended their sessions.
    let ensemble = ZooKeeperCluster::builder(3).proxied().config("syncLimit", "200").start()?;
    let follower = (ensemble.leader()? + 1) % 3;
    let (holder, rival) = (
        eventually("a session", async || {
            locker(ensemble.node(follower).address(), Duration::from_secs(4)).await
        })
        .await?,
        locker(ensemble.connect_string(), TTL).await?,
    );
    let guard = eventually("a lock", async || Ok(holder.lock("orders").await?)).await?;
    ensemble.isolate(follower);
    let next =
        eventually("the lock of a holder that was cut off", async || Ok(rival.lock("orders").await?)).await?;
    assert!(!guard.is_held(), "two believe in one lock");
    assert!(next.fencing_token() > guard.fencing_token());
    ensemble.rejoin(follower);
    drop(guard);
    eventually("a verified hold", async || Ok(next.verify().await?)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_keeps_no_client_from_connecting() -> Result<()> {
    let ensemble = ZooKeeperCluster::start(3)?;
    let frozen = (ensemble.leader()? + 1) % 3;
    ensemble.node(frozen).pause()?;
    for _ in 0..5 {
        locker(ensemble.connect_string(), Duration::from_secs(30)).await?;
    }
    Ok(())
}
