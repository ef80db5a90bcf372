//! Tokens without trust in clocks, and servers that forgot what they voted for.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use lock_redlock::{ErrorKind, RedlockLocker};
use test_cluster::{Persistence, Redis};
use tokio::time;

use crate::set::{KEY, MEMORY, SOON, Set, brief, patient, remembers};

const FENCE: &str = "lock:{redlock:df}#fence";

fn tomorrow() -> Result<u64> {
    let day = Duration::from_secs(24 * 60 * 60);
    Ok(u64::try_from((SystemTime::now().duration_since(UNIX_EPOCH)? + day).as_micros())?)
}

fn set_counter(redis: &Redis, token: u64) -> Result<()> {
    redis.command(&["HSET", MEMORY, FENCE, &token.to_string()])?;
    Ok(())
}

async fn cycle(locks: &RedlockLocker) -> Result<u64> {
    let guard = locks.lock(KEY).await?;
    let token = guard.fencing_token().get();
    guard.release().await?;
    Ok(token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_grow_past_those_of_clients_whose_clocks_are_ahead() -> Result<()> {
    let set = Set::start(5)?;
    let (locks, other) = (set.locker(patient()).await?, set.locker(patient()).await?);
    let ahead = tomorrow()?;
    for (redis, beyond) in set.servers.iter().zip([0, 10, 20, 30, 40]) {
        set_counter(redis, ahead + beyond)?;
    }
    let first = cycle(&locks).await?;
    assert!(first > ahead + 20, "{first} must be larger than what a majority of {ahead} and more has seen");
    let second = cycle(&other).await?;
    let third = cycle(&locks).await?;
    assert!(first < second && second < third, "{first}, {second}, {third}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_beyond_all_clocks_is_refused() -> Result<()> {
    let set = Set::start(3)?;
    let locks = set.locker(patient()).await?;
    set.servers.iter().try_for_each(|redis| set_counter(redis, (1 << 53) - 1))?;
    let error = locks.try_lock(KEY).await.expect_err("no larger token can be compared exactly");
    assert_eq!(error.kind(), ErrorKind::UnsafeConfig, "{error}");
    Ok(())
}

/// The server that forgot would vote a second time, and for an old token: it must not, until both are impossible.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgot_has_no_vote_until_it_has_learnt_and_leases_are_over() -> Result<()> {
    let set = Set::start(3)?;
    let (locks, rival) = (set.locker(brief()).await?, set.locker(brief()).await?);
    // The holder has the votes of two, of which one forgets.
    set.servers[2].kill()?;
    let guard = locks.lock(KEY).await?;
    set.servers[2].restart()?;
    set.servers[0].restart_without_data()?;
    // The server that came back and the one that forgot would be a majority for the rival.
    let refused = rival.try_lock(KEY).await;
    ensure!(!matches!(refused, Ok(Some(_))), "{refused:?}");
    ensure!(
        !remembers(&set.servers[0])?,
        "it may have its vote back only when the leases of before are over"
    );

    let token = guard.fencing_token().get();
    drop(guard);
    let ahead = tomorrow()?;
    for redis in &set.servers[1..] {
        set_counter(redis, ahead)?;
    }
    let start = Instant::now();
    while !remembers(&set.servers[0])? {
        ensure!(start.elapsed() < SOON, "it has not learnt anything");
        // It takes part again at the request of those who need it.
        let _ = rival.try_lock("another").await;
        // why: a bounded poll of a condition
        time::sleep(Duration::from_millis(20)).await;
    }
    let floor = set.servers[0].command(&["HGET", MEMORY, "floor"])?.text();
    assert!(floor.parse::<u64>()? >= ahead, "it has learnt the newest token of the others: {floor}");

    // Its vote counts again, and only for larger tokens.
    set.servers[1].kill()?;
    let next = time::timeout(SOON, async {
        loop {
            match cycle(&rival).await {
                Ok(token) => return token,
                // why: a bounded poll of a condition
                Err(_) => time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    let next = next.await?;
    assert!(next > ahead && next > token, "{next}");
    Ok(())
}

/// A snapshot is older than the last votes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restored_from_a_snapshot_has_forgotten_too() -> Result<()> {
    let set = Set::with(3, Persistence::None)?;
    let locks = set.locker(patient()).await?;
    cycle(&locks).await?;
    set.servers[0].command(&["SAVE"])?;
    set.servers[0].restart()?;
    ensure!(remembers(&set.servers[0])?, "the snapshot is loaded");
    let start = Instant::now();
    while remembers(&set.servers[0])? {
        ensure!(start.elapsed() < SOON, "the snapshot is believed");
        locks.lock("another").await?.release().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_trusted_over_a_restart() -> Result<()> {
    let set = Set::start(3)?;
    let locks = set.locker(patient()).await?;
    let before = cycle(&locks).await?;
    for redis in &set.servers {
        redis.restart()?;
    }
    let after = cycle(&locks).await?;
    assert!(after > before);
    ensure!(set.servers.iter().map(remembers).collect::<Result<Vec<_>>>()?.iter().all(|all| *all));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_that_forgot_is_for_people_to_settle() -> Result<()> {
    let set = Set::start(3)?;
    let locks = set.locker(patient()).await?;
    cycle(&locks).await?;
    set.servers[..2].iter().try_for_each(Redis::restart_without_data)?;
    let error = locks.try_lock(KEY).await.expect_err("two of three have no vote");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let error = set.locker(patient()).await.expect_err("two of three have no vote");
    assert_eq!(error.kind(), ErrorKind::UnsafeConfig, "{error}");
    assert!(error.to_string().contains(MEMORY), "it says what to do: {error}");

    for redis in &set.servers {
        redis.command(&["DEL", MEMORY])?;
    }
    cycle(&set.locker(patient()).await?).await?;
    Ok(())
}

/// Those who were down at the first hold remember that nobody ever held anything; those who granted it remember
/// nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_that_forgot_the_first_hold_ever_is_no_new_set() -> Result<()> {
    let set = Set::start(5)?;
    let (locks, rival) = (set.locker(patient()).await?, set.locker(patient()).await?);
    set.servers[3..].iter().try_for_each(Redis::kill)?;
    let guard = locks.lock(KEY).await?;
    set.servers[3..].iter().try_for_each(Redis::restart)?;
    set.servers[..3].iter().try_for_each(Redis::restart_without_data)?;
    let error = set.locker(patient()).await.expect_err("three of five have no vote");
    assert_eq!(error.kind(), ErrorKind::UnsafeConfig, "{error}");
    for _ in 0..5 {
        let refused = rival.try_lock(KEY).await;
        ensure!(!matches!(refused, Ok(Some(_))), "{refused:?}");
    }
    ensure!(guard.is_held(), "the first holder still believes in its lease");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_set_may_be_met_by_many_at_once() -> Result<()> {
    for _ in 0..5 {
        let set = Set::start(3)?;
        let urls = set.urls();
        let connect = || tokio::spawn(RedlockLocker::connect(urls.clone(), patient()));
        let clients: Vec<_> = std::iter::repeat_with(connect).take(16).collect();
        for client in clients {
            cycle(&client.await?.context("a set that others set up")?).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_set_must_be_complete_once() -> Result<()> {
    let set = Set::start(3)?;
    set.servers[2].kill()?;
    let error = set.locker(patient()).await.expect_err("the third may have data");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("2 of 3 servers are new"), "{error}");
    set.servers[2].restart()?;
    let locks = set.locker(patient()).await.context("a complete set")?;
    cycle(&locks).await?;
    Ok(())
}
