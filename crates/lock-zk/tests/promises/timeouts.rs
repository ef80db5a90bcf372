//! Servers that grant less than was asked for, or than they granted before.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::common::{LONG, SOON, eventually, locker, soon};
use anyhow::{Result, ensure};
use lock_zk::{LockGuard, Options, ZkLocker};
use test_cluster::{Behaviour, Direction, Proxy, ZooKeeper, ZooKeeperCluster};
use tokio::time;

const TTL: Duration = Duration::from_secs(6);

/// The shortest session that servers allow after the change.
const SHORTER: &str = "1000";

/// Cuts the holder off, and fails if `rival` has the key while it still believes.
async fn assert_no_two_believe(guard: &LockGuard, rival: &ZkLocker) -> Result<()> {
    let start = Instant::now();
    loop {
        let next = rival.try_lock("orders").await;
        let (held, left) = (guard.is_held(), guard.remaining());
        match next {
            Ok(Some(next)) => {
                ensure!(!held, "two believe in one lock, the first for {left:?} more");
                ensure!(next.fencing_token() > guard.fencing_token());
                return Ok(());
            }
            Ok(None) => {}
            Err(error) => ensure!(error.is_transient(), "{error}"),
        }
        ensure!(start.elapsed() < SOON, "nobody gets the key");
        // why: a bounded poll of a condition
        time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_with_shorter_sessions_makes_no_two_holders() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let proxy = Proxy::start(zookeeper.address())?;
    let (holder, rival) = (locker(proxy.address(), TTL).await?, locker(zookeeper.address(), TTL).await?);
    let guard = holder.lock("orders").await?;
    zookeeper.restart_with("maxSessionTimeout", SHORTER)?;
    eventually("the hold to be verified or lost", async || {
        if guard.is_held() { Ok(guard.verify().await?) } else { Ok(()) }
    })
    .await?;
    proxy.refuse(true);
    proxy.reset_all();
    assert_no_two_believe(&guard, &rival).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_stays_with_servers_that_keep_it_as_long_as_was_granted() -> Result<()> {
    let ensemble = ZooKeeperCluster::start(3)?;
    let changed = (ensemble.leader()? + 1) % 3;
    let other = (changed + 1) % 3;
    let proxies = [changed, other].map(|node| Proxy::start(ensemble.node(node).address()));
    let [changed_proxy, other_proxy] = proxies;
    let (changed_proxy, other_proxy) = (changed_proxy?, other_proxy?);
    let servers = format!("{},{}", changed_proxy.address(), other_proxy.address());
    let holder = locker(&servers, TTL).await?;
    let rival = locker(ensemble.node(other).address(), TTL).await?;
    let guard = eventually("a lock", async || Ok(holder.lock("orders").await?)).await?;
    ensemble.node(changed).restart_with("maxSessionTimeout", SHORTER)?;
    ensemble.leader()?;
    for _ in 0..6 {
        changed_proxy.reset_all();
        other_proxy.reset_all();
        eventually("a verified hold", async || Ok(guard.verify().await?)).await?;
    }
    for proxy in [&changed_proxy, &other_proxy] {
        proxy.refuse(true);
        proxy.reset_all();
    }
    assert_no_two_believe(&guard, &rival).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_follower_costs_no_lock_though_less_was_granted_than_asked() -> Result<()> {
    // As patient as the session that was asked for allows, the holder would find out too late. As patient as the one
    // that was granted allows, it has seconds to spare for its move to another server.
    let asked = Options::default().with_ttl(Duration::from_secs(60));
    let ensemble = ZooKeeperCluster::builder(3).config("maxSessionTimeout", "12000").start()?;
    for round in 0..3 {
        let locks = eventually("a session with a follower", async || {
            let locks = ZkLocker::connect(&ensemble.connect_string(), asked.clone()).await?;
            let leader = ensemble.node(ensemble.leader()?).ask("cons")?;
            ensure!(!leader.contains("to=12000"), "it is with the leader");
            Ok(locks)
        })
        .await?;
        let guard = eventually("a lock", async || Ok(locks.lock("orders").await?)).await?;
        let mut connected = None;
        for node in ensemble.nodes() {
            if node.ask("cons")?.contains("to=12000") {
                connected = Some(node);
            }
        }
        let connected = connected.expect("some server has the session");
        connected.pause()?;
        let verified = eventually("a verified hold", async || Ok(guard.verify().await?)).await;
        connected.resume()?;
        verified.map_err(|error| error.context(format!("round {round}")))?;
        guard.release().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_answers_to_those_who_connect_leave_no_heap_of_sessions() -> Result<()> {
    const CONNECTS: usize = 4;
    let zookeeper = ZooKeeper::start()?;
    let proxy = Proxy::start(zookeeper.address())?;
    let late = Duration::from_secs(1);
    proxy.set(Direction::ToClient, Behaviour::Delay(late));
    let options = Options::default().with_ttl(Duration::from_secs(60)).with_request_timeout(late / 2);
    for _ in 0..CONNECTS {
        ZkLocker::connect(&proxy.address().to_string(), options.clone()).await.expect_err("it is late");
    }
    // why: those that opened late have been told so by then
    time::sleep(late).await;
    let dump = zookeeper.ask("dump")?;
    let sessions = dump.lines().filter(|line| line.trim_start().starts_with("0x")).count();
    ensure!(sessions <= CONNECTS, "{sessions} sessions after {CONNECTS} who gave up:\n{dump}");
    Ok(())
}

#[test]
fn a_lost_session_is_kept_alive_no_longer_and_its_keys_go_with_it() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let rivals = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let rival = rivals.block_on(locker(zookeeper.address(), LONG))?;
    let starved = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (locks, guard) = starved.block_on(async {
        let locks = locker(zookeeper.address(), TTL).await?;
        let guard = locks.lock("orders").await?;
        anyhow::Ok((locks, guard))
    })?;
    // why: past the deadline at two thirds, and before the server ends the session
    thread::sleep(TTL * 3 / 4);
    assert!(!guard.is_held());
    let go_on = thread::spawn(move || {
        starved.block_on(async {
            // why: the guard lives for longer than the servers keep its session
            time::sleep(TTL * 2).await;
            drop((locks, guard));
        });
    });
    let next = rivals.block_on(soon("the key of a session that was lost", rival.lock("orders")))??;
    assert!(next.is_held());
    assert!(!go_on.is_finished(), "the guard of the lost lock still lives");
    go_on.join().expect("it only sleeps");
    Ok(())
}
