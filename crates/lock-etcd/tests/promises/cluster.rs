//! What becomes of locks when members of a cluster die, freeze or come back.

use std::time::Duration;

use crate::common::{locker_with, soon, until, waiter};
use anyhow::{Result, ensure};
use lock_etcd::{ErrorKind, EtcdLocker};
use test_cluster::{Behaviour, Direction, Etcd, EtcdCluster};
use tokio::time;

/// Long enough for an election, and for what a busy machine adds to it.
const TTL: Duration = Duration::from_secs(3);

/// A locker that begins with member `first`.
async fn locker_at(cluster: &EtcdCluster, first: usize) -> Result<EtcdLocker> {
    let count = cluster.len();
    let urls: Vec<_> = (0..count).map(|step| cluster[(first + step) % count].url()).collect();
    locker_with(urls.join(","), TTL).await
}

/// Does `harm` to member `victim` while a lock is held and awaited through it, and expects neither to suffer.
async fn check_survives(
    cluster: &EtcdCluster,
    victim: usize,
    harm: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (holder, other) = (locker_at(cluster, victim).await?, locker_at(cluster, victim).await?);
    let guard = holder.lock("a").await?;
    let waiting = waiter(&other, "a", 1).await;
    harm()?;
    // why: a hold is kept by beats of which each moves the deadline; only time shows that they go on.
    time::sleep(2 * TTL).await;
    assert!(guard.is_held(), "the hold was kept alive through other members");
    assert!(!waiting.is_finished(), "the waiter waits on");
    let token = guard.fencing_token();
    guard.release().await?;
    let next = soon("the hand-over", waiting).await??;
    assert!(next.fencing_token() > token);
    next.verify().await?;
    Ok(next.release().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_follower_harms_nobody() -> Result<()> {
    let cluster = EtcdCluster::start(3)?;
    let victim = cluster.follower()?;
    check_survives(&cluster, victim, || cluster[victim].kill()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_the_leader_harms_nobody() -> Result<()> {
    let cluster = EtcdCluster::start(3)?;
    let victim = cluster.leader()?;
    check_survives(&cluster, victim, || cluster[victim].kill()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_leader_harms_nobody() -> Result<()> {
    let cluster = EtcdCluster::start(3)?;
    let victim = cluster.leader()?;
    check_survives(&cluster, victim, || cluster[victim].pause()).await?;
    cluster[victim].resume()
}

/// It answers its clients and believes that it leads, for a moment, while the others elect another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_no_other_member_hears_harms_nobody() -> Result<()> {
    let cluster = Etcd::builder().proxied_peers().start_cluster(3)?;
    let victim = cluster.leader()?;
    let proxy = cluster.peer_proxy(victim).expect("it was asked for");
    let mute = || {
        proxy.set(Direction::ToServer, Behaviour::Stall);
        proxy.set(Direction::ToClient, Behaviour::Stall);
        Ok(())
    };
    check_survives(&cluster, victim, mute).await?;
    ensure!(cluster.leader()? != victim, "another leads by now");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_follower_harms_nobody() -> Result<()> {
    let cluster = EtcdCluster::start(3)?;
    let victim = cluster.follower()?;
    check_survives(&cluster, victim, || cluster[victim].pause()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_harms_nobody() -> Result<()> {
    let cluster = EtcdCluster::start(3)?;
    check_survives(&cluster, 0, || cluster.iter().try_for_each(Etcd::restart)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_endpoint_at_the_head_of_the_list_costs_nothing() -> Result<()> {
    let cluster = EtcdCluster::start(3)?;
    let victim = cluster.follower()?;
    cluster[victim].kill()?;
    let locks = locker_at(&cluster, victim).await?;
    for _ in 0..10 {
        locks.lock("a").await?.release().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_a_hold_ends_by_its_deadline_and_the_queue_goes_on_afterwards() -> Result<()> {
    let cluster = EtcdCluster::start(3)?;
    let leader = cluster.leader()?;
    let holder = locker_at(&cluster, leader).await?;
    let guard = holder.lock("a").await?;
    let others: Vec<_> = (0..3).filter(|member| *member != leader).collect();
    for member in &others {
        cluster[*member].pause()?;
    }
    let deadline = time::Instant::now() + guard.remaining() + TTL;
    soon("the loss", guard.lost()).await;
    assert!(time::Instant::now() < deadline, "no beat was answered, so the deadline stood");
    let error = holder.try_lock("b").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");

    for member in &others {
        cluster[*member].resume()?;
    }
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
    until("a new lock", || async {
        let again = holder.lock("a").await?;
        again.verify().await?;
        Ok(again.release().await?)
    })
    .await;
    ensure!(holder.queue("a").await?.is_empty());
    Ok(())
}
