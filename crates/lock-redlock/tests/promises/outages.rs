//! Servers that die, freeze, answer late or forget while locks are taken, held and given back.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lock_redlock::{Error, ErrorKind, LockGuard};
use test_cluster::{Direction, Proxy, Redis, eventually, proxy::Behaviour};
use tokio::time;

use crate::set::{KEY, SOON, Set, brief, patient};

/// Breaks one server after the other up to a minority of five, each time while a lock is held for longer than its
/// lease.
async fn a_minority_may_fail(fail: impl Fn(&Set, usize) -> Result<()>) -> Result<()> {
    let set = Set::start(5)?;
    let (locks, rival) = (set.locker(brief()).await?, set.locker(brief()).await?);
    for broken in 0..2 {
        let guard = locks.lock(KEY).await?;
        fail(&set, broken)?;
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            ensure!(guard.is_held(), "with {} servers broken the lock was lost", broken + 1);
            ensure!(rival.try_lock(KEY).await?.is_none(), "a held lock is refused");
            locks.lock("another").await?.release().await?;
            // why: a pause between rounds, which the caller bounds
            time::sleep(Duration::from_millis(20)).await;
        }
        guard.verify().await?;
        guard.release().await?;
        soon(&rival).await?.release().await?;
    }
    Ok(())
}

/// What is free at a majority is taken, though the votes of another may still be on their way back.
async fn soon(locks: &lock_redlock::RedlockLocker) -> Result<LockGuard> {
    Ok(time::timeout(SOON, locks.lock(KEY)).await??)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_and_two_of_five_may_be_dead() -> Result<()> {
    a_minority_may_fail(|set, broken| set.servers[broken].kill()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_and_two_of_five_may_be_frozen() -> Result<()> {
    a_minority_may_fail(|set, broken| set.servers[broken].pause()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_and_two_of_five_may_be_cut_off() -> Result<()> {
    a_minority_may_fail(|set, broken| {
        set.delay(broken..broken + 1, Direction::ToServer, Behaviour::Swallow);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_and_two_of_five_may_be_slow() -> Result<()> {
    a_minority_may_fail(|set, broken| {
        let late = Behaviour::Delay(Duration::from_millis(300));
        set.delay(broken..broken + 1, Direction::ToClient, late);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_and_two_of_five_may_forget_everything() -> Result<()> {
    a_minority_may_fail(|set, broken| set.servers[broken].restart_without_data()).await
}

/// While one gives back and the next acquires, a server may still have the vote of the former.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_that_was_refused_is_had_as_soon_as_it_is_given_back() -> Result<()> {
    let set = Set::start(5)?;
    let locks = set.locker(patient()).await?;
    let former = format!("{:032x}:1", 1);
    set.servers[4].command(&["SET", crate::set::NAME, &former, "PX", "150"])?;
    let guard = locks.lock(KEY).await?;
    eventually("all five votes", SOON, || {
        let owner = set.servers[4].command(&["GET", crate::set::NAME])?.text();
        ensure!(!owner.is_empty() && !owner.starts_with(&former), "{owner:?} has the vote of the fifth");
        Ok(())
    })?;
    guard.release().await?;
    set.eventually_votes(0)
}

async fn no_majority(fail: impl Fn(&Redis) -> Result<()>, heal: impl Fn(&Redis) -> Result<()>) -> Result<()> {
    let set = Set::start(5)?;
    let (locks, rival) = (set.locker(patient()).await?, set.locker(patient()).await?);
    let guard = locks.lock(KEY).await?;
    set.eventually_votes(5)?;
    set.servers[..3].iter().try_for_each(&fail)?;
    for key in [KEY, "another"] {
        let error = rival.try_lock(key).await.expect_err("two of five are no majority");
        assert_unavailable(&error);
    }
    assert_unavailable(&guard.verify().await.expect_err("two of five are no majority"));
    ensure!(guard.is_held(), "an outage is no loss before the deadline");
    set.servers[..3].iter().try_for_each(&heal)?;
    guard.release().await?;
    soon(&rival).await?.release().await?;
    set.eventually_votes(0)
}

fn assert_unavailable(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_dead_of_five_are_an_outage_and_not_a_refusal() -> Result<()> {
    no_majority(Redis::kill, Redis::restart).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_frozen_of_five_are_an_outage_and_not_a_refusal() -> Result<()> {
    no_majority(Redis::pause, Redis::resume).await
}

/// What connects to frozen servers is told so within the time that the documentation of `connect` names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_to_a_frozen_majority_fails_after_three_and_a_half_request_timeouts() -> Result<()> {
    const SLACK: Duration = Duration::from_millis(700);
    let set = Set::start(3)?;
    set.locker(patient()).await?;
    set.servers[1..].iter().try_for_each(Redis::pause)?;
    let start = Instant::now();
    let error = set.locker(patient()).await.expect_err("one of three is no majority");
    let took = start.elapsed();
    assert_unavailable(&error);
    // The request timeout of these options is 800 ms.
    assert!(took < Duration::from_millis(2800) + SLACK, "it took {took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_server_slows_nobody() -> Result<()> {
    const ROUNDS: u32 = 20;
    let late = Duration::from_millis(200);
    let set = Set::start(3)?;
    let locks = set.locker(patient()).await?;
    set.delay(0..1, Direction::ToServer, Behaviour::Delay(late));
    let start = Instant::now();
    for _ in 0..ROUNDS {
        locks.lock(KEY).await?.release().await?;
    }
    let took = start.elapsed();
    // Waiting for the slow one even once in each round would take all of it.
    assert!(took < late * ROUNDS / 4, "{ROUNDS} rounds took {took:?} beside a server that is {late:?} late");
    set.delay(0..1, Direction::ToServer, Behaviour::Pass);
    set.eventually_votes(0)
}

/// A vote that arrives after its claim was given up is followed by its undo.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_that_lands_late_is_undone_after_it() -> Result<()> {
    let set = Set::start(3)?;
    let locks = set.locker(patient()).await?;
    set.delay(0..2, Direction::ToServer, Behaviour::Stall);
    assert_unavailable(&locks.try_lock(KEY).await.expect_err("one of three is no majority"));
    set.delay(0..2, Direction::ToServer, Behaviour::Pass);
    eventually("the late votes to arrive", SOON, || {
        for redis in &set.servers {
            let counters = redis.command(&["HEXISTS", crate::set::MEMORY, "lock:{redlock:df}#fence"])?;
            ensure!(counters.as_int() == Some(1), "not all have voted");
        }
        Ok(())
    })?;
    set.eventually_votes(0)
}

/// The last vote for a lock that was held and released meanwhile does not stay either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_that_lands_after_the_release_is_undone_too() -> Result<()> {
    let set = Set::start(3)?;
    let locks = set.locker(patient()).await?;
    set.delay(0..1, Direction::ToServer, Behaviour::Stall);
    let before = set.proxies[0].requests();
    let guard = locks.lock(KEY).await?;
    // What was not sent yet when the lock is released is never sent.
    eventually("the request for the last vote", SOON, || {
        ensure!(set.proxies[0].requests() > before, "it is not under way");
        Ok(())
    })?;
    guard.release().await?;
    set.delay(0..1, Direction::ToServer, Behaviour::Pass);
    locks.close().await;
    eventually("the late vote to be gone", SOON, || {
        let voted = set.servers[0].command(&["HEXISTS", crate::set::MEMORY, "lock:{redlock:df}#fence"])?;
        ensure!(voted.as_int() == Some(1), "it has not arrived");
        ensure!(set.votes()? == 0, "it is there");
        Ok(())
    })
}

/// Before the first majority has answered nothing is held, and after it all votes are collected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_votes_are_collected_in_the_end() -> Result<()> {
    let set = Set::start(5)?;
    let locks = set.locker(patient()).await?;
    set.delay(0..2, Direction::ToServer, Behaviour::Delay(Duration::from_millis(200)));
    let guard = locks.lock(KEY).await?;
    set.eventually_votes(5)?;
    guard.release().await?;
    set.eventually_votes(0)
}

/// What lies before the servers has taken the request in, and hands it on when the client believes it lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_vote_request_that_arrives_after_the_release_takes_nothing() -> Result<()> {
    let set = Set::start(3)?;
    let storing =
        set.servers.iter().map(|redis| Proxy::start(redis.address())).collect::<Result<Vec<_>>>()?;
    for (proxy, storing) in set.proxies.iter().zip(&storing) {
        proxy.retarget(storing.address());
    }
    let locks = set.locker(patient()).await?;
    let asked: Vec<_> = storing.iter().map(Proxy::requests).collect();
    for storing in &storing {
        storing.set(Direction::ToServer, Behaviour::Stall);
    }
    let acquiring = tokio::spawn({
        let locks = locks.clone();
        async move { locks.try_lock(KEY).await }
    });
    eventually("the first copies", SOON, || {
        ensure!(
            storing.iter().zip(&asked).all(|(proxy, before)| proxy.requests() > *before),
            "not all are there"
        );
        Ok(())
    })?;
    for (proxy, redis) in set.proxies.iter().zip(&set.servers) {
        proxy.retarget(redis.address());
        proxy.reset_all();
    }
    let guard = acquiring.await??.expect("it is free");
    set.eventually_votes(3)?;
    guard.release().await?;
    set.eventually_votes(0)?;
    let executed = set.servers.iter().map(scripts).collect::<Result<Vec<_>>>()?;
    for storing in &storing {
        storing.set(Direction::ToServer, Behaviour::Pass);
    }
    eventually("the first copies to be executed", SOON, || {
        for (redis, before) in set.servers.iter().zip(&executed) {
            ensure!(scripts(redis)? > *before, "one has not arrived");
        }
        Ok(())
    })?;
    ensure!(set.votes()? == 0, "nobody holds it");
    Ok(())
}

/// How many scripts a server has run.
fn scripts(redis: &Redis) -> Result<usize> {
    let stats = redis.command(&["INFO", "commandstats"])?.text();
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    Ok(calls.and_then(|rest| rest.split(',').next()).map_or(Ok(0), str::parse)?)
}
