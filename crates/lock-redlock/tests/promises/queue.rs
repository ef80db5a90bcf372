//! The queues at the servers: their order, who is told, waiters who are gone, and what is left of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use lock_redlock::{LockGuard, Options, RedlockLocker};
use test_cluster::{Direction, Redis, eventually, proxy::Behaviour};
use tokio::{
    runtime::{self, Runtime},
    task::{JoinHandle, JoinSet},
    time,
};

use crate::set::{KEY, NAME, Set, brief};

const QUEUE: &str = "lock:{redlock:df}#queue:orders/42";
const PATIENCE: Duration = Duration::from_secs(10);

/// A lease so long that nothing but the queues can end a wait in time.
fn long() -> Options {
    Options::default().with_ttl(Duration::from_secs(3600))
}

type Waiter = JoinHandle<lock_redlock::Result<LockGuard>>;

fn wait(locks: &RedlockLocker) -> Waiter {
    let locks = locks.clone();
    tokio::spawn(async move { locks.lock(KEY).await })
}

async fn soon(waiter: Waiter) -> Result<LockGuard> {
    Ok(time::timeout(PATIENCE, waiter).await???)
}

impl Set {
    /// A locker that is not behind the proxies.
    async fn direct(&self) -> lock_redlock::Result<RedlockLocker> {
        RedlockLocker::connect(self.servers.iter().map(Redis::url), long()).await
    }

    fn eventually_stand(&self, waiters: i64) -> Result<()> {
        eventually("the queues", PATIENCE, || {
            for redis in &self.servers {
                let found = redis.command(&["ZCARD", QUEUE])?.as_int();
                ensure!(found == Some(waiters), "{found:?} waiters, not {waiters}");
            }
            Ok(())
        })
    }

    fn eventually_has_nothing(&self) -> Result<()> {
        eventually("all servers to have nothing", PATIENCE, || {
            for redis in &self.servers {
                let left = redis.command(&["EXISTS", NAME, QUEUE])?.as_int();
                ensure!(left == Some(0), "{left:?} keys are left");
            }
            Ok(())
        })
    }

    fn eventually_listen(&self, lockers: usize) -> Result<()> {
        eventually("the listeners", PATIENCE, || {
            for redis in &self.servers {
                let channels = redis.command(&["PUBSUB", "CHANNELS", "lock:#*"])?;
                let test_cluster::resp::Value::Array(channels) = channels else {
                    anyhow::bail!("PUBSUB CHANNELS gives a list");
                };
                ensure!(channels.len() == lockers, "{} listen, not {lockers}", channels.len());
            }
            Ok(())
        })
    }

    /// Has so many wait there that cannot be told, and do not look, that there is always one that is next.
    fn reserve(&self, servers: usize) -> Result<()> {
        for redis in &self.servers[..servers] {
            for place in 1..=100 {
                redis.command(&["ZADD", QUEUE, &place.to_string(), &format!("{place:032x}?")])?;
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_are_served_in_the_order_in_which_they_came() -> Result<()> {
    const WAITERS: usize = 6;
    let set = Set::start(5)?;
    let guard = set.direct().await?.lock(KEY).await?;
    let served = Arc::new(AtomicUsize::new(0));
    let mut waiters = JoinSet::new();
    for place in 0..WAITERS {
        let (locks, served) = (set.direct().await?, Arc::clone(&served));
        waiters.spawn(async move {
            let guard = locks.lock(KEY).await?;
            let turn = served.fetch_add(1, Ordering::SeqCst);
            guard.release().await?;
            anyhow::Ok((place, turn))
        });
        set.eventually_stand(i64::try_from(place + 1)?)?;
    }
    guard.release().await?;
    let turns = time::timeout(PATIENCE, waiters.join_all()).await?;
    for turn in turns {
        let (place, turn) = turn?;
        assert_eq!(place, turn, "the place in the queue and the turn");
    }
    set.eventually_has_nothing()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contenders_have_like_shares() -> Result<()> {
    const CONTENDERS: usize = 8;
    const HOLDS: usize = 240;
    let set = Set::start(5)?;
    let holds = Arc::new(AtomicUsize::new(0));
    let mut contenders = JoinSet::new();
    let guard = set.direct().await?.lock(KEY).await?;
    for place in 0..CONTENDERS {
        let (locks, holds) = (set.direct().await?, Arc::clone(&holds));
        contenders.spawn(async move {
            let mut own = 0_usize;
            while holds.fetch_add(1, Ordering::Relaxed) < HOLDS {
                locks.lock(KEY).await?.release().await?;
                own += 1;
            }
            anyhow::Ok(own)
        });
        set.eventually_stand(i64::try_from(place + 1)?)?;
    }
    guard.release().await?;
    let shares = contenders.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let (least, most) = (shares.iter().min(), shares.iter().max());
    ensure!(most.zip(least).is_some_and(|(most, least)| *most <= 2 * least), "{shares:?}");
    set.eventually_has_nothing()
}

/// However many wait: who is not next is not told, and asks for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_costs_those_who_are_not_next_nothing() -> Result<()> {
    let set = Set::start(5)?;
    let guard = set.direct().await?.lock(KEY).await?;
    let next = wait(&set.direct().await?);
    set.eventually_stand(1)?;
    let mut others = JoinSet::new();
    for place in 2..=6 {
        let locks = set.locker(long()).await?;
        others.spawn(async move { locks.lock(KEY).await?.release().await });
        set.eventually_stand(place)?;
    }
    // They begin to listen at all servers, of which they need a majority to wait.
    set.eventually_listen(6)?;
    let requests = || set.proxies.iter().map(test_cluster::Proxy::requests).collect::<Vec<_>>();
    let before = requests();
    guard.release().await?;
    let guard = soon(next).await?;
    ensure!(requests() == before, "{:?} requests, before {before:?}", requests());
    guard.release().await?;
    let served = time::timeout(PATIENCE, others.join_all()).await?;
    served.into_iter().collect::<Result<Vec<_>, _>>()?;
    set.eventually_has_nothing()
}

/// One who may not use queues looks again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_rights_to_queues_waits_without_a_place() -> Result<()> {
    let set = Set::start(3)?;
    let mut urls = Vec::new();
    for redis in &set.servers {
        let user = ["ACL", "SETUSER", "clerk", "on", ">pw", "~*", "&*", "+@all", "-@sortedset"];
        redis.command(&user)?;
        urls.push(redis.url().replacen("redis://", "redis://clerk:pw@", 1));
    }
    let (holder, waiter) = (set.direct().await?, RedlockLocker::connect(urls, brief()).await?);
    let guard = holder.lock(KEY).await?;
    let waiting = wait(&waiter);
    set.eventually_listen(1)?;
    guard.release().await?;
    soon(waiting).await?.release().await?;
    set.eventually_has_nothing()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_try_does_not_overtake_who_is_next() -> Result<()> {
    let set = Set::start(5)?;
    let locks = set.direct().await?;
    set.reserve(3)?;
    ensure!(locks.try_lock(KEY).await?.is_none(), "it is reserved at a majority");
    set.eventually_votes(0)?;
    for redis in &set.servers {
        redis.command(&["DEL", QUEUE])?;
    }
    set.reserve(2)?;
    let guard = locks.try_lock(KEY).await?;
    guard.expect("a minority keeps nobody out").release().await?;
    Ok(())
}

/// It is sent again, or was kept on the way, and the same claim has asked for votes once more meanwhile.
#[test]
fn a_yielding_that_comes_late_leaves_a_newer_vote() -> Result<()> {
    let redis = Redis::start()?;
    let script = include_str!("../../scripts/release.lua")
        .replace("-- include queue.lua\n", include_str!("../../scripts/queue.lua"));
    let owner = "a".repeat(32);
    redis.command(&["SET", NAME, &format!("{owner}:8")])?;
    let yields = |token: &str| {
        redis.command(&["EVAL", &script, "2", NAME, QUEUE, &owner, "lock:#1", "5", "60000", token])
    };
    ensure!(yields("7")?.as_int() == Some(0), "the vote is for token 8");
    ensure!(redis.command(&["EXISTS", NAME, QUEUE])?.as_int() == Some(1), "it stays, and nobody waits");
    ensure!(yields("8")?.as_int() == Some(3), "it is given back, and reserved for who waits");
    let reserved = redis.command(&["ZSCORE", QUEUE, &format!("~{owner}lock:#1")])?.text();
    ensure!(reserved.starts_with('-'), "{reserved}");
    Ok(())
}

/// To the servers a machine that was cut off listens still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_is_cut_off_costs_a_reservation() -> Result<()> {
    let set = Set::start(5)?;
    let guard = set.direct().await?.lock(KEY).await?;
    let lost = wait(&set.locker(long()).await?);
    set.eventually_stand(1)?;
    let next = wait(&set.direct().await?);
    set.eventually_stand(2)?;
    set.delay(0..5, Direction::ToClient, Behaviour::Stall);
    set.delay(0..5, Direction::ToServer, Behaviour::Stall);
    guard.release().await?;
    soon(next).await?.release().await?;
    lost.abort();
    Ok(())
}

/// One who waits and then holds for good, in a runtime of its own, which can be shut down.
fn wait_apart(set: &Set, options: Options) -> Result<Runtime> {
    let apart = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let urls: Vec<_> = set.servers.iter().map(Redis::url).collect();
    apart.spawn(
        async move { RedlockLocker::connect(urls, options).await?.lock(KEY).await.map(std::mem::forget) },
    );
    Ok(apart)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_that_are_gone_cost_nothing() -> Result<()> {
    let set = Set::start(3)?;
    let guard = set.direct().await?.lock(KEY).await?;
    for gone in 1..=20 {
        let apart = wait_apart(&set, long())?;
        set.eventually_stand(gone)?;
        apart.shutdown_background();
    }
    set.eventually_listen(0)?;
    let waiter = wait(&set.direct().await?);
    set.eventually_stand(21)?;
    guard.release().await?;
    // Twenty reservations would take as long as this waits.
    soon(waiter).await?.release().await?;
    set.eventually_has_nothing()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_gives_up_leaves_no_place_and_no_reservation() -> Result<()> {
    let set = Set::start(3)?;
    let holder = set.direct().await?;
    let guard = holder.lock(KEY).await?;
    let locks = set.direct().await?;
    let waiter = wait(&locks);
    set.eventually_stand(1)?;
    waiter.abort();
    set.eventually_stand(0)?;
    guard.release().await?;
    holder.lock(KEY).await?.release().await?;
    set.eventually_has_nothing()
}

/// The holder is gone, so that nobody hands the key on: all who wait look when its lease ends, in any order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_is_next_when_a_lease_ends() -> Result<()> {
    let set = Set::start(5)?;
    let apart = wait_apart(&set, brief())?;
    set.eventually_votes(5)?;
    apart.shutdown_background();
    let mut waiters = Vec::new();
    for place in 1..=4 {
        waiters.push(wait(&set.direct().await?));
        set.eventually_stand(place)?;
    }
    for _ in 0..4 {
        let guard = soon(waiters.remove(0)).await?;
        ensure!(!waiters.iter().any(Waiter::is_finished), "the others wait still");
        guard.release().await?;
    }
    set.eventually_has_nothing()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_without_the_right_to_channels_keep_their_place_and_look() -> Result<()> {
    let set = Set::start(3)?;
    for redis in &set.servers {
        let user = ["ACL", "SETUSER", "clerk", "reset", "resetchannels", "on", ">pw", "~lock:*", "+@all"];
        redis.command(&user)?;
    }
    let urls = || set.servers.iter().map(|redis| format!("redis://clerk:pw@{}", redis.address()));
    let (holder, rival) =
        (RedlockLocker::connect(urls(), long()).await?, RedlockLocker::connect(urls(), long()).await?);
    let guard = holder.lock(KEY).await?;
    let waiter = wait(&rival);
    set.eventually_stand(1)?;
    guard.release().await?;
    soon(waiter).await?.release().await?;
    Ok(())
}
