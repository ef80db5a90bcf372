//! What becomes of locks when answers are lost, the disk is full, a connection breaks or a session is lost.

use std::pin::pin;

use anyhow::{Context, Result, ensure};
use lock_etcd::{EtcdLocker, Options};
use test_cluster::{
    Behaviour::{Delay, Pass, Stall},
    Direction::{ToClient, ToServer},
    Etcd, EtcdCluster, Proxy,
};
use tokio::{
    task::JoinSet,
    time::{self, Duration},
};

use crate::common::{LONG, impatient, locker_with, poll_once, revoke, soon, until};

fn set_no_space(etcd: &Etcd, action: &str) -> Result<()> {
    let body = format!(r#"{{"action": "{action}", "memberID": "1", "alarm": "NOSPACE"}}"#);
    etcd.call("/v3/maintenance/alarm", &body).map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_that_took_effect_unseen_is_undone_also_when_the_database_is_full() -> Result<()> {
    let etcd = Etcd::start()?;
    let proxy = Proxy::start(etcd.address())?;
    let locks = EtcdLocker::connect(proxy.address().to_string(), impatient()).await?;
    let empty = || async {
        let left = etcd.keys("lock/a:")?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    };
    // What the server sends next may also be a frame of the transport, and then the request may not be executed.
    let mut took_effect = false;
    for _ in 0..100 {
        locks.lock("b").await?.release().await?;
        proxy.refuse(true);
        proxy.drop_next_reply();
        locks.try_lock("a").await.unwrap_err();
        took_effect = !etcd.keys("lock/a:")?.is_empty();
        if took_effect {
            break;
        }
        proxy.refuse(false);
        until("an undo of nothing", empty).await;
    }
    assert!(took_effect, "no reply of an acquire was ever lost");
    set_no_space(&etcd, "ACTIVATE")?;
    proxy.refuse(false);
    until("the undo", empty).await;
    set_no_space(&etcd, "DEACTIVATE")?;
    Ok(soon("the next hold", locks.lock("a")).await?.release().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_broken_connection_the_entries_of_all_holds_are_looked_at_together() -> Result<()> {
    const HOLDS: u64 = 1000;
    let etcd = Etcd::start()?;
    let proxy = Proxy::start(etcd.address())?;
    let locks = locker_with(proxy.address().to_string(), LONG).await?;
    let mut acquiring = JoinSet::new();
    for hold in 0..HOLDS {
        let locks = locks.clone();
        acquiring.spawn(async move { locks.lock(&format!("{hold}")).await });
    }
    let guards = acquiring.join_all().await.into_iter().collect::<lock_etcd::Result<Vec<_>>>()?;
    let all_watched = || async {
        let watched = etcd.watches()?;
        ensure!(watched == HOLDS, "{watched} of {HOLDS} are watched");
        Ok(())
    };
    until("all watches", all_watched).await;

    proxy.reset_all();
    until("the end of all watches", || async {
        ensure!(etcd.watches()? < HOLDS);
        Ok(())
    })
    .await;
    let before = etcd.requests()?;
    // What goes unnoticed by the new watches is found by the looks.
    let (lost, key) = (&guards[0], etcd.keys(&format!("lock/{}:", guards[0].key().as_str()))?.remove(0));
    etcd.delete(&key)?;
    soon("the loss", lost.lost()).await;
    until("all watches", || async {
        let watched = etcd.watches()?;
        ensure!(watched >= HOLDS - 1, "{watched} of {HOLDS} are watched");
        Ok(())
    })
    .await;
    // why: looks may still be under way; too short a time hides a fault but invents none
    time::sleep(Duration::from_millis(500)).await;
    let requests = etcd.requests()? - before;
    assert!(requests < HOLDS / 5, "{requests} requests for {HOLDS} holds");
    assert!(guards[1..].iter().all(|guard| guard.is_held()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_nobody_needs_any_more_is_ended_at_the_server() -> Result<()> {
    let etcd = Etcd::start()?;
    let locks = locker_with(etcd.url(), LONG).await?;
    let watched = async |expected: u64| {
        until("the watches", || async {
            let watches = etcd.watches()?;
            ensure!(watches == expected, "{watches} watches, not {expected}");
            Ok(())
        })
        .await;
    };
    let guard = locks.lock("a").await?;
    watched(1).await;
    let waiting = tokio::spawn({
        let locks = locks.clone();
        async move { locks.lock("a").await }
    });
    watched(3).await;
    guard.release().await?;
    let guard = soon("the hand-over", waiting).await??;
    watched(1).await;
    guard.release().await?;
    watched(0).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_lease_gives_no_endpoint_up() -> Result<()> {
    let cluster = EtcdCluster::start(3)?;
    let proxies = cluster.addresses().into_iter().map(Proxy::start).collect::<Result<Vec<_>>>()?;
    let endpoints: Vec<_> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    let connections = || proxies.iter().map(Proxy::connections).sum::<u64>();
    let locks = locker_with(endpoints.join(","), LONG).await?;
    locks.lock("a").await?.release().await?;
    for _ in 0..3 {
        let guard = locks.lock("a").await?;
        let lease = locks.queue("a").await?[0].lease;
        let before = connections();
        revoke(&cluster[0], lease)?;
        // Those who do not know yet that the session is over are told so by the servers.
        locks.lock("b").await?.release().await?;
        soon("the loss", guard.lost()).await;
        assert_eq!(connections(), before, "every endpoint is healthy");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_acquire_when_a_lease_was_revoked_go_on_in_the_next_session() -> Result<()> {
    const CALLERS: usize = 200;
    let cluster = EtcdCluster::start(3)?;
    let proxies = cluster.addresses().into_iter().map(Proxy::start).collect::<Result<Vec<_>>>()?;
    let endpoints: Vec<_> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    // A slow machine must not make requests fail that have nothing to do with the session.
    let locks = locker_with(endpoints.join(","), LONG).await?;
    let _guard = locks.lock("a").await?;
    for proxy in &proxies {
        proxy.set(ToServer, Delay(Duration::from_millis(20)));
        proxy.set(ToClient, Delay(Duration::from_millis(20)));
    }
    let lease = locks.queue("a").await?[0].lease;
    revoke(&cluster[0], lease)?;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let locks = locks.clone();
        callers.spawn(async move { locks.try_lock(&format!("{caller}")).await });
    }
    let guards = callers.join_all().await;
    let failed: Vec<_> = guards.iter().filter_map(|guard| guard.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {CALLERS} failed: {:?}", failed.len(), failed.first());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_is_never_polled_again_holds_up_nobody() -> Result<()> {
    let etcd = Etcd::start()?;
    let proxy = Proxy::start(etcd.address())?;
    let locks = EtcdLocker::connect(proxy.address().to_string(), impatient()).await?;
    let guard = locks.lock("a").await?;
    let lease = locks.queue("a").await?.first().context("it is held")?.lease;
    revoke(&etcd, lease)?;
    soon("the loss", guard.lost()).await;
    proxy.set(ToServer, Stall);
    // It needs a new session, and is left alone while it opens one.
    let mut stuck = pin!(locks.lock("b"));
    assert!(poll_once(stuck.as_mut()).is_pending());
    proxy.set(ToServer, Pass);
    until("a lock of another", || async { Ok(locks.lock("c").await?.release().await?) }).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_waits_for_its_leader_is_not_pinged_until_it_hangs_up() -> Result<()> {
    let slow_to_elect = Etcd::builder().flag("--election-timeout=3000").proxied_peers();
    let cluster = slow_to_elect.start_cluster(3)?;
    let (leader, follower) = (cluster.leader()?, cluster.follower()?);
    let proxy = Proxy::start(cluster[follower].address())?;
    let often = Options::default().with_ttl(LONG).with_renew_every(Duration::from_millis(20));
    let guard = EtcdLocker::connect(proxy.address().to_string(), often).await?.lock("a").await?;
    let before = proxy.connections();
    let link = cluster.peer_proxy(leader).context("peers speak through proxies")?;
    link.set(ToServer, Delay(Duration::from_millis(300)));
    link.set(ToClient, Delay(Duration::from_millis(300)));
    for _ in 0..5 {
        guard.verify().await?;
    }
    assert_eq!(proxy.connections(), before, "the server hung up");
    Ok(guard.release().await?)
}
