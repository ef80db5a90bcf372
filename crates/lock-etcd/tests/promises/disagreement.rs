//! What becomes of locks when servers and clients do not agree: on how long a lease lasts, on the cluster, on the time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, ensure};
use lock_conformance::eventually;
use lock_etcd::{ErrorKind, EtcdLocker, Options};
use test_cluster::{
    Behaviour::Stall,
    Direction::{ToClient, ToServer},
    Etcd, Proxy,
};
use tokio::{runtime, sync::Notify};

use crate::common::{BOUND, TTL, locker, soon, until};

/// A locker whose renewals stop, and whose lease then ends where it is kept for the least time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_keep_leases_for_different_times_never_make_two_holders() -> Result<()> {
    // A member keeps no lease for less than one and a half of its own election timeouts: this one 8 s, the others 2 s.
    let cluster = Etcd::builder().member_flag(0, "--election-timeout=5000").start_cluster(3)?;
    // why: the others are the first to stand for election, but on a busy machine they may start last
    cluster.move_leader(1)?;
    let proxy = Proxy::start(cluster[0].address())?;
    let holder = locker(proxy.address().to_string()).await?;
    let guard = holder.lock("a").await?;
    proxy.set(ToServer, Stall);
    proxy.set(ToClient, Stall);
    let rival = locker(cluster[1].url()).await?;
    let next = soon("the end of the lease", rival.lock("a")).await?;
    assert!(!guard.is_held(), "two believe that they hold the key");
    Ok(next.release().await?)
}

/// A leader that keeps leases for long is followed by one that does not, before any renewal could tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_that_keeps_leases_for_less_time_never_makes_two_holders() -> Result<()> {
    let cluster = Etcd::builder().member_flag(0, "--election-timeout=5000").start_cluster(3)?;
    cluster.move_leader(0)?;
    let proxy = Proxy::start(cluster[0].address())?;
    let holder = locker(proxy.address().to_string()).await?;
    let guard = holder.lock("a").await?;
    proxy.set(ToServer, Stall);
    proxy.set(ToClient, Stall);
    cluster[0].kill()?;
    // Until the others have elected another leader, no session can be opened.
    let rival = eventually("a session", BOUND, || locker(cluster[1].url())).await;
    let next = soon("the end of the lease", rival.lock("a")).await?;
    assert!(!guard.is_held(), "two believe that they hold the key");
    Ok(next.release().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_of_two_clusters_are_refused() -> Result<()> {
    let (one, other) = (Etcd::start()?, Etcd::start()?);
    for urls in [[one.url(), other.url()], [other.url(), one.url()]] {
        let connected = EtcdLocker::connect(urls, Options::default()).await;
        let error = connected.map(drop).expect_err("two lockers would hold one key, one in each cluster");
        assert_eq!(error.kind(), ErrorKind::UnsafeConfig, "{error:?}");
        assert!(error.to_string().contains("different clusters"), "{error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_of_another_cluster_is_refused_also_when_it_comes_up_later() -> Result<()> {
    let (one, other) = (Etcd::start()?, Etcd::start()?);
    other.kill()?;
    let urls = [one.url(), other.url()];
    let locks = EtcdLocker::connect(urls, Options::default().with_ttl(TTL)).await?;
    other.restart()?;
    one.kill()?;
    until("the refusal", || async {
        let error = locks.try_lock("a").await.expect_err("the session is of a cluster that is down");
        ensure!(error.kind() == ErrorKind::UnsafeConfig, "{error:?}");
        Ok(())
    })
    .await;
    ensure!(other.keys("lock/")?.is_empty(), "nothing was written there");
    one.restart()?;
    until("locks in the first cluster", || async { Ok(locks.lock("a").await?.release().await?) }).await;
    Ok(())
}

/// The connection is broken and leads elsewhere afterwards, as a name or a load balancer may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_leads_to_another_cluster_later_is_refused() -> Result<()> {
    let (one, other) = (Etcd::start()?, Etcd::start()?);
    let proxy = Proxy::start(one.address())?;
    let locks = locker(proxy.address().to_string()).await?;
    locks.lock("a").await?.release().await?;
    proxy.retarget(other.address());
    proxy.reset_all();
    until("the refusal", || async {
        let error = locks.try_lock("a").await.expect_err("the locker belongs to the first cluster");
        ensure!(error.kind() == ErrorKind::UnsafeConfig, "{error:?}");
        Ok(())
    })
    .await;
    Ok(())
}

/// A runtime that stands still is what a stopped process is to its locks. Its lease is kept alive meanwhile, as a new
/// leader does when it gives all leases their full time.
#[test]
fn a_process_that_was_stopped_past_its_deadline_keeps_its_lost_session_no_longer() -> Result<()> {
    let etcd = Etcd::start()?;
    let stopped = runtime::Builder::new_current_thread().enable_all().build()?;
    let holder = stopped.block_on(locker(etcd.url()))?;
    let guard = stopped.block_on(holder.lock("a"))?;
    let lease = stopped.block_on(holder.queue("a"))?[0].lease;

    let over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let kept = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                etcd.call("/v3/lease/keepalive", &format!(r#"{{"ID": "{lease}"}}"#))?;
                // why: as often as a leader could change
                thread::sleep(TTL / 10);
            }
            Ok(())
        });
        // why: only the clock takes the process past its deadline
        thread::sleep(guard.remaining() + TTL / 2);
        over.store(true, Ordering::Relaxed);
        kept.join().expect("keeping a lease alive does not panic")
    })?;

    let running = Arc::new(Notify::new());
    let end = Arc::clone(&running);
    let background = thread::spawn(move || stopped.block_on(end.notified()));
    let rivals = runtime::Builder::new_current_thread().enable_all().build()?;
    let next = rivals.block_on(async {
        let rival = locker(etcd.url()).await?;
        soon("the key of a lost session", rival.lock("a")).await.context("the rival")
    })?;
    assert!(!guard.is_held());
    rivals.block_on(next.release())?;
    running.notify_one();
    background.join().expect("the runtime ends");
    Ok(())
}
