//! How leases are renewed that are held by one locker: many with one request, and none at the cost of another.

use std::time::Duration;

use anyhow::{Result, ensure};
use lock_conformance::{assert_held_for, hold_many};
use lock_setnx::{LockGuard, LossReason, Options, SetnxLocker, Target};
use test_cluster::{Proxy, Redis, eventually};
use tokio::time;

const TTL: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_that_are_due_together_are_renewed_with_one_request() -> Result<()> {
    const LOCKS: usize = 200;
    let redis = Redis::start()?;
    let proxy = Proxy::start(redis.address())?;
    let options = Options::default().with_ttl(TTL);
    let locks = SetnxLocker::connect(format!("redis://{}", proxy.address()), options).await?;
    let guards = hold_many(&locks, LOCKS).await?;

    let before = proxy.requests();
    let mut least: Vec<_> = guards.iter().map(LockGuard::remaining).collect();
    let mut renewed = vec![false; LOCKS];
    eventually("a renewal of each", 10 * TTL, || {
        for ((guard, least), renewed) in guards.iter().zip(&mut least).zip(&mut renewed) {
            let remaining = guard.remaining();
            *renewed |= remaining > *least;
            *least = remaining;
        }
        let count = renewed.iter().filter(|renewed| **renewed).count();
        ensure!(count == LOCKS, "{count} were renewed");
        Ok(())
    })?;
    let requests = proxy.requests() - before;
    assert!(requests <= LOCKS as u64 / 4, "{requests} requests renewed {LOCKS} leases");
    for guard in guards {
        guard.release().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_program_wrote_over_a_lock_costs_no_other_its_renewal() -> Result<()> {
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), Options::default().with_ttl(TTL)).await?;
    let guards = hold_many(&locks, 50).await?;
    let (overwritten, others) = guards.split_first().expect("it holds some");
    let name = locks.name_in_redis(overwritten.key().as_str())?;
    redis.command(&["DEL", &name])?;
    redis.command(&["LPUSH", &name, "no lock"])?;

    time::timeout(10 * TTL, overwritten.lost()).await?;
    assert_eq!(overwritten.loss_reason(), Some(LossReason::NotOwner));
    assert_held_for(others, TTL).await;
    Ok(())
}

/// Holds locks for longer than their leases at a server that takes no request with keys of two slots.
async fn a_node_of_a_cluster_renews(target: impl Fn(&Redis) -> Result<Target>) -> Result<()> {
    let node = Redis::builder().cluster_mode().start()?;
    let locks = SetnxLocker::connect(target(&node)?, Options::default().with_ttl(TTL)).await?;
    let guards = hold_many(&locks, 50).await?;
    assert_held_for(&guards, 2 * TTL).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_could_be_part_of_a_cluster_renews_each_lease() -> Result<()> {
    a_node_of_a_cluster_renews(|node| Ok(Target::url(&node.url())?)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_leases_are_refused_together_each_is_renewed_alone() -> Result<()> {
    a_node_of_a_cluster_renews(|node| {
        // It does not tell what it is.
        node.command(&["ACL", "SETUSER", "clerk", "reset", "on", ">pw", "~lock:*", "&*", "+@all", "-info"])?;
        Ok(Target::url(&format!("redis://clerk:pw@{}", node.address()))?.accepting_eviction())
    })
    .await
}
