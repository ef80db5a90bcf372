//! How leases are renewed that are held by one locker: many with one request, and none at the cost of another.

use std::time::Duration;

use anyhow::Result;
use lock_conformance::{assert_held_for, hold_many};
use test_cluster::Proxy;
use tokio::time;

use crate::set::{SOON, Set, brief};

const LOCKS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_that_are_due_together_are_renewed_with_one_request_to_each_server() -> Result<()> {
    let set = Set::start(3)?;
    let locks = set.locker(brief()).await?;
    let guards = hold_many(&locks, LOCKS).await?;
    let requests = || set.proxies.iter().map(Proxy::requests).sum::<u64>();
    let before = requests();
    // Each is renewed about four times, at three servers.
    assert_held_for(&guards, Duration::from_secs(2)).await;
    let requests = requests() - before;
    assert!(requests > 0 && requests <= LOCKS as u64 * 6, "{requests} requests renewed {LOCKS} leases");
    Ok(())
}

/// Two servers say no of one lock, and one is silent: it has no majority, and the others have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_without_a_majority_costs_no_other_its_renewal() -> Result<()> {
    let set = Set::start(5)?;
    let locks = set.locker(brief()).await?;
    let guards = hold_many(&locks, LOCKS).await?;
    let (doubtful, others) = guards.split_first().expect("it holds some");
    set.servers[0].pause()?;
    let name = locks.name_in_redis(doubtful.key().as_str())?;
    for redis in &set.servers[1..3] {
        redis.command(&["DEL", &name])?;
    }
    time::timeout(SOON, doubtful.lost()).await?;
    assert_held_for(others, Duration::from_secs(4)).await;
    Ok(())
}
