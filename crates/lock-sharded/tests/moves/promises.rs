//! What is promised of every kind of cluster.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lock_sharded::{Epoch, ErrorKind, LockGuard, Marker, ShardedLocker, Step};
use test_cluster::{Etcd, Redis, ZooKeeper};
use tokio::{
    task::{block_in_place, spawn},
    time,
};

use crate::{
    common::{Servers, Space, TTL, bounded, options, quiet, slot},
    history::Contenders,
    redlock::Redlock,
};

const HELD: &str = "{order-42}/payment";

/// Waits until a guard is another cluster's: then it stands when the old one is gone.
async fn is_verified(guard: &LockGuard) -> Result<()> {
    guard.verify().await.context("the hold does not stand")?;
    ensure!(guard.is_held(), "the hold is not believed in");
    Ok(())
}

fn contended() -> Vec<String> {
    (0..4).map(|number| format!("{{order-42}}/{number}")).collect()
}

/// A hold outlives its cluster; contenders go on; a mover that was killed before each step is succeeded by another.
async fn holds_move_and_outlive_their_cluster<A: Servers, B: Servers>() -> Result<()> {
    let space = Space::<A, B>::start().await?;
    let (slot, to) = (slot(HELD)?, space.name("b").await?);
    let holder = space.locker_with_old_map().await?;
    let guard = holder.lock(HELD).await?;
    let token = guard.fencing_token();
    let mut lockers = Vec::new();
    for _ in 0..3 {
        lockers.push(space.locker().await?);
    }
    lockers.push(space.locker_with_old_map().await?);
    let contenders = Contenders::start(lockers, &contended());
    contenders.go_on(20).await;
    for step in Step::ALL {
        let killed = space.mover().await?.stopping_before(step);
        let stopped = killed.move_slot(slot, &to, &*quiet()).await;
        ensure!(stopped.is_err(), "it did not stop before {step}");
        drop(killed);
    }
    let mover = space.mover().await?;
    mover.move_slot(slot, &to, &*quiet()).await?;
    contenders.go_on(20).await;

    ensure!(mover.verify().await?.is_empty(), "{:?}", mover.verify().await?);
    let other = space.locker().await?;
    ensure!(other.try_lock(HELD).await?.is_none(), "the hold did not move");
    block_in_place(|| space.a.stop())?;
    time::sleep(TTL + Duration::from_secs(2)).await; // why: longer than any lease on the old cluster
    is_verified(&guard).await?;
    ensure!(guard.fencing_token() == token, "a hold keeps its token");
    ensure!(other.try_lock(HELD).await?.is_none(), "the hold was given to another");
    contenders.go_on(20).await;
    guard.release().await?;
    let next = other.lock(HELD).await?;
    ensure!(next.fencing_token() > token, "{} after {token}", next.fencing_token());
    ensure!(Epoch::of(next.fencing_token()).number() == 1);
    let count = contenders.check().await?;
    ensure!(count > 60, "only {count} holds");
    Ok(())
}

/// A move can be given up before each step up to the opening, and begun anew; not afterwards.
async fn a_move_can_be_given_up_until_it_is_open<A: Servers, B: Servers>() -> Result<()> {
    let space = Space::<A, B>::start().await?;
    let (slot, to) = (slot(HELD)?, space.name("b").await?);
    let holder = space.locker().await?;
    let guard = holder.lock(HELD).await?;
    let contenders = Contenders::start(vec![space.locker().await?, space.locker().await?], &contended());
    for step in [Step::Seal, Step::Census, Step::Copy, Step::Open] {
        let killed = space.mover().await?.stopping_before(step);
        killed.move_slot(slot, &to, &*quiet()).await.expect_err("it stops");
        space.mover().await?.abort(slot).await?;
        contenders.go_on(8).await;
        is_verified(&guard).await?;
        ensure!(holder.find(HELD)?.1.as_str() == "a");
    }
    let killed = space.mover().await?.stopping_before(Step::Drain);
    killed.move_slot(slot, &to, &*quiet()).await.expect_err("it stops");
    let mover = space.mover().await?;
    let error = mover.abort(slot).await.expect_err("it is open");
    ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
    mover.resume(slot, &*quiet()).await?.context("it was not done")?;
    is_verified(&guard).await?;
    // And back.
    let home = space.name("a").await?;
    mover.move_slot(slot, &home, &*quiet()).await?;
    is_verified(&guard).await?;
    guard.release().await?;
    contenders.go_on(8).await;
    ensure!(mover.verify().await?.is_empty());
    contenders.check().await?;
    Ok(())
}

/// The copy of a hold whose holder is gone is freed, by the mover or by who waits.
async fn who_dies_in_a_move_blocks_nobody<A: Servers, B: Servers>() -> Result<()> {
    let space = Space::<A, B>::start().await?;
    let (slot, to) = (slot(HELD)?, space.name("b").await?);
    let doomed = std::thread::spawn({
        let source = space.source.clone();
        move || {
            // A process that dies: nothing of it goes on when its runtime is gone.
            let runtime = tokio::runtime::Runtime::new()?;
            let guard = runtime.block_on(async {
                let locks = ShardedLocker::connect(source, options()).await?;
                locks.lock(HELD).await
            })?;
            runtime.shutdown_background();
            std::mem::forget(guard);
            anyhow::Ok(())
        }
    });
    doomed.join().expect("it does not panic")?;
    let killed = space.mover().await?.stopping_before(Step::Drain);
    killed.move_slot(slot, &to, &*quiet()).await.expect_err("it stops");
    // No mover is there any more.
    let next = space.locker().await?.lock(HELD).await?;
    ensure!(Epoch::of(next.fencing_token()).number() == 1);
    space.mover().await?.resume(slot, &*quiet()).await?;
    is_verified(&next).await?;
    Ok(())
}

/// Who waits behind a copy goes on waiting when its holder takes it over.
async fn who_waits_behind_a_copy_waits_for_the_hold<A: Servers, B: Servers>() -> Result<()> {
    let space = Space::<A, B>::start().await?;
    let (slot, to) = (slot(HELD)?, space.name("b").await?);
    let (holder, waiter) = (space.locker().await?, space.locker().await?);
    let guard = holder.lock(HELD).await?;
    let stopped = space.mover().await?.stopping_before(Step::Drain);
    stopped.move_slot(slot, &to, &*quiet()).await.expect_err("it stops");
    let waiting = spawn(async move { waiter.lock(HELD).await });
    space.mover().await?.move_slot(slot, &to, &*quiet()).await?;
    is_verified(&guard).await?;
    time::sleep(Duration::from_millis(500)).await; // why: a wrong grant would come by now
    ensure!(!waiting.is_finished(), "two hold the key");
    let token = guard.fencing_token();
    guard.release().await?;
    ensure!(waiting.await??.fencing_token() > token);
    Ok(())
}

/// A cluster that does not answer delays a move, and no more.
async fn silence_delays_a_move<A: Servers, B: Servers>() -> Result<()> {
    let space = Space::<A, B>::start().await?;
    let (slot, to) = (slot(HELD)?, space.name("b").await?);
    let holder = space.locker().await?;
    let guard = holder.lock(HELD).await?;
    let mover = space.mover().await?.stopping_before(Step::Census);
    mover.move_slot(slot, &to, &*quiet()).await.expect_err("it stops");
    block_in_place(|| space.b.pause())?;
    let mover = space.mover().await?;
    let error = mover.resume(slot, &*quiet()).await.expect_err("the new cluster does not answer");
    ensure!(error.is_transient(), "{error}");
    let refused = holder.try_lock("{order-42}/other").await.expect_err("it is open nowhere");
    ensure!(refused.kind() == ErrorKind::Unavailable, "{refused}");
    is_verified(&guard).await?;
    block_in_place(|| space.b.resume())?;
    space.mover().await?.stopping_before(Step::Drain).resume(slot, &*quiet()).await.expect_err("it stops");
    holder.lock("{order-42}/other").await?.release().await?;
    block_in_place(|| space.a.pause())?;
    // Keys of the slot are the new cluster's affair.
    holder.lock("{order-42}/other").await?.release().await?;
    block_in_place(|| space.a.resume())?;
    space.mover().await?.resume(slot, &*quiet()).await?.context("it was not done")?;
    is_verified(&guard).await?;
    guard.release().await?;
    Ok(())
}

/// A wiped cluster grants nothing.
async fn a_wiped_cluster_grants_nothing<A: Servers, B: Servers>() -> Result<()> {
    let space = Space::<A, B>::start().await?;
    let locks = space.locker().await?;
    locks.lock(HELD).await?.release().await?;
    block_in_place(|| space.a.wipe())?;
    let error = space.locker().await?.try_lock(HELD).await.expect_err("nothing is open");
    ensure!(
        error.kind() == ErrorKind::Unavailable && error.to_string().contains("open on no cluster"),
        "{error}"
    );
    let mover = space.mover().await?;
    ensure!(mover.verify().await?.len() == 256);
    let (slot, to) = (slot(HELD)?, space.name("b").await?);
    let epoch = mover.force(slot, &to, Duration::from_millis(100), &*quiet()).await?;
    ensure!(epoch.number() == 2, "{epoch}");
    let guard = locks.lock(HELD).await?;
    ensure!(Epoch::of(guard.fencing_token()) == epoch);
    let status = mover.status().await?;
    let open = Marker::Open { epoch };
    ensure!(status[slot.index()].markers == [(to, open)], "{:?}", status[slot.index()]);
    Ok(())
}

macro_rules! promises {
    ($module:ident, $a:ty, $b:ty) => {
        mod $module {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            async fn holds_move_and_outlive_their_cluster() -> Result<()> {
                bounded("a move", super::holds_move_and_outlive_their_cluster::<$a, $b>()).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_move_can_be_given_up_until_it_is_open() -> Result<()> {
                bounded("an abort", super::a_move_can_be_given_up_until_it_is_open::<$a, $b>()).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn who_dies_in_a_move_blocks_nobody() -> Result<()> {
                bounded("a death", super::who_dies_in_a_move_blocks_nobody::<$a, $b>()).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn who_waits_behind_a_copy_waits_for_the_hold() -> Result<()> {
                bounded("a wait", super::who_waits_behind_a_copy_waits_for_the_hold::<$a, $b>()).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn silence_delays_a_move() -> Result<()> {
                bounded("silence", super::silence_delays_a_move::<$a, $b>()).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_wiped_cluster_grants_nothing() -> Result<()> {
                bounded("a loss", super::a_wiped_cluster_grants_nothing::<$a, $b>()).await
            }
        }
    };
}

promises!(from_etcd_to_etcd, Etcd, Etcd);
promises!(from_zk_to_zk, ZooKeeper, ZooKeeper);
promises!(from_redis_to_redis, Redis, Redis);
promises!(from_redlock_to_redlock, Redlock, Redlock);

#[tokio::test(flavor = "multi_thread")]
async fn holds_move_from_etcd_to_zk() -> Result<()> {
    bounded("a move", holds_move_and_outlive_their_cluster::<Etcd, ZooKeeper>()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_move_from_zk_to_etcd() -> Result<()> {
    bounded("a move", holds_move_and_outlive_their_cluster::<ZooKeeper, Etcd>()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_move_from_redis_to_etcd() -> Result<()> {
    bounded("a move", holds_move_and_outlive_their_cluster::<Redis, Etcd>()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_move_from_zk_to_redis() -> Result<()> {
    bounded("a move", holds_move_and_outlive_their_cluster::<ZooKeeper, Redis>()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_move_from_redlock_to_etcd() -> Result<()> {
    bounded("a move", holds_move_and_outlive_their_cluster::<Redlock, Etcd>()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_move_from_etcd_to_redlock() -> Result<()> {
    bounded("a move", holds_move_and_outlive_their_cluster::<Etcd, Redlock>()).await
}
