//! A server that comes back with a snapshot older than its last votes, whatever that snapshot holds.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lock_redlock::{ErrorKind, Options, RedlockLocker};
use test_cluster::{Persistence, Redis};
use tokio::time;

use crate::set::{KEY, SOON, Set, remembers};

/// Keeps nothing but the snapshots that it is told to save.
const SNAPSHOTS: usize = 2;

/// Two servers with a log of their writes, and one with snapshots only.
fn set() -> Result<Set> {
    Set::of(&[Persistence::Aof, Persistence::Aof, Persistence::None])
}

/// A holder learns late that a server forgot its vote.
fn seldom_renewed() -> Options {
    let ttl = Duration::from_secs(3);
    Options::default().with_ttl(ttl).with_renew_every(ttl * 3 / 5).with_request_timeout(ttl / 6)
}

async fn eventually_remembers(set: &Set, locks: &RedlockLocker) -> Result<()> {
    let start = Instant::now();
    while !remembers(&set.servers[SNAPSHOTS])? {
        ensure!(start.elapsed() < SOON, "it does not get its vote back");
        // It takes part again at the request of those who need it.
        if let Ok(Some(guard)) = locks.try_lock("another").await {
            guard.release().await?;
        }
        // why: a bounded poll of a condition
        time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A holder has the votes of the first server and of the one that then comes back with the snapshot. That one and the
/// second, which was down at the vote, would be a majority for a rival.
async fn nobody_else_is_granted(set: &Set, restart: impl FnOnce(&Redis) -> Result<()>) -> Result<()> {
    let (holder, rival) = (set.locker(seldom_renewed()).await?, set.locker(seldom_renewed()).await?);
    rival_of(set, &holder, &rival, restart).await
}

async fn rival_of(
    set: &Set,
    holder: &RedlockLocker,
    rival: &RedlockLocker,
    restart: impl FnOnce(&Redis) -> Result<()>,
) -> Result<()> {
    set.servers[1].kill()?;
    let guard = holder.lock(KEY).await?;
    set.servers[1].restart()?;
    restart(&set.servers[SNAPSHOTS])?;
    let mut tries = 0;
    while guard.is_held() {
        let next = rival.try_lock(KEY).await;
        ensure!(
            !(matches!(next, Ok(Some(_))) && guard.is_held()),
            "two hold the key at once, the second after {tries} tries"
        );
        tries += 1;
        // why: a pause between rounds, which the lease bounds
        time::sleep(Duration::from_millis(10)).await;
    }
    ensure!(tries > 2, "the rival tried {tries} times only while the other held the key");
    drop(guard);
    eventually_remembers(set, rival).await?;
    let guard = time::timeout(SOON, rival.lock(KEY)).await??;
    guard.release().await?;
    Ok(())
}

/// The snapshot says that the server has forgotten, as it had some time before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mark_of_an_earlier_loss_gives_no_vote() -> Result<()> {
    let set = set()?;
    let (holder, rival) = (set.locker(seldom_renewed()).await?, set.locker(seldom_renewed()).await?);
    set.servers[SNAPSHOTS].restart_without_data()?;
    // Both notice it, so that the time that they wait for is over when the snapshot is loaded.
    for locks in [&holder, &rival] {
        locks.lock("another").await?.release().await?;
    }
    set.servers[SNAPSHOTS].command(&["SAVE"])?;
    eventually_remembers(&set, &rival).await?;
    rival_of(&set, &holder, &rival, Redis::restart).await
}

/// The snapshot has what the server remembered, and the vote for a hold that has ended since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_votes_of_a_snapshot_give_no_vote() -> Result<()> {
    let set = set()?;
    let locks = set.locker(seldom_renewed()).await?;
    let guard = locks.lock(KEY).await?;
    set.eventually_votes(3)?;
    set.servers[SNAPSHOTS].command(&["SAVE"])?;
    guard.release().await?;
    set.eventually_votes(0)?;
    nobody_else_is_granted(&set, Redis::restart).await
}

/// A log that is begun after the snapshot was loaded says nothing of the votes before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_begins_after_the_restart_gives_no_vote() -> Result<()> {
    let set = set()?;
    let locks = set.locker(seldom_renewed()).await?;
    locks.lock(KEY).await?.release().await?;
    set.eventually_votes(0)?;
    set.servers[SNAPSHOTS].command(&["SAVE"])?;
    nobody_else_is_granted(&set, |redis| {
        set.proxies[SNAPSHOTS].refuse(true);
        redis.restart()?;
        redis.command(&["CONFIG", "SET", "appendonly", "yes"])?;
        set.proxies[SNAPSHOTS].refuse(false);
        Ok(())
    })
    .await
}

/// Nobody has a vote then, but a set that has been used is no new one: its holders may believe in their leases still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_set_restored_from_snapshots_waits_for_the_leases_of_before() -> Result<()> {
    let set = Set::with(3, Persistence::None)?;
    let (holder, rival) = (set.locker(seldom_renewed()).await?, set.locker(seldom_renewed()).await?);
    for redis in &set.servers {
        redis.command(&["SAVE"])?;
    }
    let guard = holder.lock(KEY).await?;
    let token = guard.fencing_token();
    set.servers.iter().try_for_each(Redis::restart)?;
    let error = set.locker(seldom_renewed()).await.expect_err("nobody can know what they voted for");
    ensure!(error.kind() == ErrorKind::UnsafeConfig, "{error}");
    while guard.is_held() {
        let next = rival.try_lock(KEY).await;
        ensure!(!(matches!(next, Ok(Some(_))) && guard.is_held()), "two hold the key at once");
        // why: a pause between rounds, which the lease bounds
        time::sleep(Duration::from_millis(10)).await;
    }
    eventually_remembers(&set, &rival).await?;
    let next = time::timeout(SOON, rival.lock(KEY)).await??;
    ensure!(next.fencing_token() > token, "the clock still orders tokens");
    next.release().await?;
    Ok(())
}

/// The first server is seen to have forgotten a while before the others are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_set_whose_losses_are_noticed_one_by_one_gets_its_votes_back() -> Result<()> {
    let set = Set::with(3, Persistence::None)?;
    let locks = set.locker(seldom_renewed()).await?;
    for redis in &set.servers {
        redis.command(&["SAVE"])?;
    }
    set.servers.iter().try_for_each(Redis::restart)?;
    set.servers[1..].iter().try_for_each(Redis::pause)?;
    ensure!(locks.try_lock("another").await.is_err(), "nobody has a vote");
    // why: the time between the losses is what matters
    time::sleep(Duration::from_secs(1)).await;
    set.servers[1..].iter().try_for_each(Redis::resume)?;
    let guard = lock_conformance::eventually("the votes", SOON, || async {
        locks.try_lock(KEY).await?.ok_or_else(|| anyhow::anyhow!("nobody holds it, and it is refused"))
    })
    .await;
    guard.release().await?;
    Ok(())
}
