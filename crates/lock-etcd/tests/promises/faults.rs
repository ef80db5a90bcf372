//! What becomes of locks when etcd's operator, its network or its history turn against them.

use crate::common::{LONG, impatient, locker, locker_with, queue_is, revoke, soon, until, waiter};
use anyhow::{Result, ensure};
use lock_core::backend::Effect;
use lock_etcd::{ErrorKind, EtcdLocker};
use test_cluster::{
    Behaviour::{Pass, Stall},
    Direction::ToServer,
    Etcd, Proxy,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_revoked_while_held_is_a_loss() -> Result<()> {
    let etcd = Etcd::start()?;
    // Without beats, it is the watch that tells.
    let locks = locker_with(etcd.url(), LONG).await?;
    let guard = locks.lock("a").await?;
    revoke(&etcd, locks.queue("a").await?[0].lease)?;
    soon("the loss", guard.lost()).await;
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);

    let again = locks.lock("a").await?;
    again.verify().await?;
    Ok(again.release().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_lease_is_noticed_by_the_beats_too() -> Result<()> {
    let etcd = Etcd::start()?;
    let locks = locker(etcd.url()).await?;
    let guard = locks.lock("a").await?;
    let (other, lease) = (locks.lock("b").await?, locks.queue("a").await?[0].lease);
    revoke(&etcd, lease)?;
    soon("the loss", guard.lost()).await;
    soon("the loss", other.lost()).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_whose_lease_is_revoked_queues_up_again() -> Result<()> {
    let etcd = Etcd::start()?;
    let (holder, other) = (locker_with(etcd.url(), LONG).await?, locker_with(etcd.url(), LONG).await?);
    let guard = holder.lock("a").await?;
    let waiting = waiter(&other, "a", 1).await;
    let lease = holder.queue("a").await?[1].lease;
    revoke(&etcd, lease)?;
    until("the waiter to be back", || async {
        let queue = holder.queue("a").await?;
        ensure!(queue.len() == 2 && queue[1].lease != lease, "{queue:?}");
        Ok(())
    })
    .await;
    guard.verify().await?;
    guard.release().await?;
    let guard = soon("the hand-over", waiting).await??;
    guard.verify().await?;
    Ok(guard.release().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_deleted_while_held_is_a_loss_of_that_lock_alone() -> Result<()> {
    let etcd = Etcd::start()?;
    let locks = locker_with(etcd.url(), LONG).await?;
    let (guard, other) = (locks.lock("a").await?, locks.lock("b").await?);
    etcd.delete(&etcd.keys("lock/a:")?[0])?;
    soon("the loss", guard.lost()).await;
    assert!(!guard.is_held());
    other.verify().await?;
    assert!(other.is_held());
    Ok(other.release().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_whose_key_is_deleted_queues_up_again() -> Result<()> {
    let etcd = Etcd::start()?;
    let locks = locker_with(etcd.url(), LONG).await?;
    let guard = locks.lock("a").await?;
    let waiting = waiter(&locks, "a", 1).await;
    let place = etcd.keys("lock/a:")?.remove(1);
    etcd.delete(&place)?;
    until("the waiter to be back", || async {
        let places = etcd.keys("lock/a:")?;
        ensure!(places.len() == 2 && places[1] != place, "{places:?}");
        Ok(())
    })
    .await;
    guard.release().await?;
    Ok(soon("the hand-over", waiting).await??.release().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_during_a_wait_changes_nothing() -> Result<()> {
    let etcd = Etcd::start()?;
    let proxy = Proxy::start(etcd.address())?;
    let (holder, other) =
        (locker_with(etcd.url(), LONG).await?, locker_with(proxy.address().to_string(), LONG).await?);
    let guard = holder.lock("a").await?;
    let waiting = waiter(&other, "a", 1).await;
    for _ in 0..3 {
        let last = holder.lock("b").await?;
        let revision = last.fencing_token();
        last.release().await?;
        etcd.call("/v3/kv/compaction", &format!(r#"{{"revision": "{revision}", "physical": true}}"#))?;
        // The watches have to be made again, later than the revision at which they began.
        proxy.reset_all();
    }
    guard.verify().await?;
    guard.release().await?;
    Ok(soon("the hand-over", waiting).await??.release().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_while_the_watches_are_cut_off_is_not_missed() -> Result<()> {
    let etcd = Etcd::start()?;
    let proxy = Proxy::start(etcd.address())?;
    let holder = locker_with(etcd.url(), LONG).await?;
    let other = EtcdLocker::connect(proxy.address().to_string(), impatient()).await?;
    let guard = holder.lock("a").await?;
    let waiting = waiter(&other, "a", 1).await;
    proxy.refuse(true);
    proxy.reset_all();
    guard.release().await?;
    proxy.refuse(false);
    Ok(soon("the hand-over", waiting).await??.release().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_whose_reply_was_lost_is_found_again() -> Result<()> {
    let etcd = Etcd::start()?;
    let proxy = Proxy::start(etcd.address())?;
    let locks = EtcdLocker::connect(proxy.address().to_string(), impatient()).await?;
    for _ in 0..2 {
        proxy.drop_next_reply();
        let guard = locks.try_lock("a").await?.expect("it is free");
        assert_eq!(etcd.keys("lock/a:")?.len(), 1);
        guard.verify().await?;
        guard.release().await?;
        assert!(etcd.keys("lock/a:")?.is_empty());

        proxy.drop_next_reply();
        let guard = locks.lock("a").await?;
        guard.release().await?;
        assert!(etcd.keys("lock/a:")?.is_empty());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_that_took_effect_unseen_leaves_nothing() -> Result<()> {
    let etcd = Etcd::start()?;
    let proxy = Proxy::start(etcd.address())?;
    let locks = EtcdLocker::connect(proxy.address().to_string(), impatient()).await?;
    // What the server sends next may also be a frame of the transport, and then the request may not be executed.
    let mut took_effect = false;
    for _ in 0..100 {
        locks.lock("b").await?.release().await?;
        proxy.refuse(true);
        proxy.drop_next_reply();
        let error = locks.try_lock("a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        took_effect = !etcd.keys("lock/a:")?.is_empty();
        proxy.refuse(false);
        queue_is(&locks, "a", 0).await;
        if took_effect {
            assert_eq!(error.effect(), Effect::Possible);
            break;
        }
    }
    assert!(took_effect, "no reply of an acquire was ever lost");
    // Requests from before the undo are fenced off, and the session goes on.
    assert_eq!(etcd.keys("lock//")?.len(), 1);
    let guard = locks.lock("a").await?;
    guard.release().await?;
    drop(locks);
    until("the session to be ended", || async {
        ensure!(etcd.keys("lock/")?.is_empty());
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_arrives_after_its_undo_does_nothing() -> Result<()> {
    let etcd = Etcd::start()?;
    let proxy = Proxy::start(etcd.address())?;
    for _ in 0..5 {
        let endpoints = format!("{},{}", proxy.address(), etcd.address());
        let locks = EtcdLocker::connect(endpoints, impatient()).await?;
        proxy.set(ToServer, Stall);
        // It is found by the second endpoint; a copy is on its way to the first.
        let guard = locks.lock("a").await?;
        guard.release().await?;
        assert!(etcd.keys("lock/a:")?.is_empty());
        proxy.set(ToServer, Pass);
        until("the late copy to be delivered", || async {
            ensure!(proxy.open_connections() == 0);
            Ok(())
        })
        .await;
        let rival = soon("the lock", locks.lock("a")).await?;
        assert_eq!(etcd.keys("lock/a:")?.len(), 1, "nobody else stands there");
        rival.release().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_whose_reply_was_lost_frees_the_key() -> Result<()> {
    let etcd = Etcd::start()?;
    let proxy = Proxy::start(etcd.address())?;
    let locks = EtcdLocker::connect(proxy.address().to_string(), impatient()).await?;
    let guard = locks.lock("a").await?;
    proxy.drop_next_reply();
    // Whether it was held until then cannot be known.
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Unavailable);
    queue_is(&locks, "a", 0).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_guard_ends_the_session() -> Result<()> {
    let etcd = Etcd::start()?;
    let locks = locker_with(etcd.url(), LONG).await?;
    let guard = locks.lock("a").await?;
    drop(locks);
    assert!(guard.is_held());
    guard.verify().await?;
    drop(guard);
    until("the end of the lease", || async {
        let leases = etcd.call("/v3/lease/leases", "{}")?;
        ensure!(!leases.contains("ID"), "{leases}");
        Ok(())
    })
    .await;
    Ok(())
}
