//! What is left of a move when a cluster, its data or the map is lost, and what an operator does then.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use lock_etcd::EtcdLocker;
use lock_sharded::{
    ClusterName, Epoch, ErrorKind, Event, MapSource, Marker, Mover, Observer, Options, ShardMap,
    ShardedLocker, Slot, Step,
};
use test_cluster::{Etcd, ZooKeeper};
use tokio::{
    runtime::Handle,
    task::{block_in_place, spawn},
    time,
};

use crate::{
    common::{Servers, Space, TTL, bounded, options, quiet, slot},
    redlock::Redlock,
};

const HELD: &str = "{order-42}/payment";
const OTHER: &str = "{order-42}/other";

/// For the operator who knows that no lease is left.
const NO_LEASE: Duration = Duration::from_millis(100);

async fn marker(mover: &Mover, slot: Slot, at: &ClusterName) -> Result<Option<Marker>> {
    let status = mover.status().await?;
    Ok(status[slot.index()].markers.iter().find(|(name, _)| name == at).map(|(_, marker)| marker.clone()))
}

async fn open(mover: &Mover, slot: Slot) -> Result<Vec<(String, u16)>> {
    let status = mover.status().await?;
    let open = |(name, marker): &(ClusterName, Marker)| Some((name.to_string(), marker.open()?.number()));
    Ok(status[slot.index()].markers.iter().filter_map(open).collect())
}

/// Does something in the moment in which a step begins.
struct Before<F>(Step, F);

impl<F: Fn() -> Result<()> + Send + Sync> Observer for Before<F> {
    fn tell(&self, event: &Event) {
        if matches!(event, Event::Begins { step, .. } if *step == self.0) {
            block_in_place(&self.1).expect("what is done in between");
        }
    }
}

/// A mover that goes on with a move, and finds that the new cluster has lost its data, does not prepare it again:
/// another mover, which has copied already, would open it without the copies.
#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_with_a_move_prepares_nothing() -> Result<()> {
    bounded("a loss", async {
        let space = Space::<Etcd, Etcd>::start().await?;
        let (slot, to) = (slot(HELD)?, space.name("b").await?);
        let planner = space.mover().await?.stopping_before(Step::Seal);
        planner.move_slot(slot, &to, &*quiet()).await.expect_err("it stops");
        let movers = EtcdLocker::connect(space.a.url(), options().with_prefix("lock.movers")).await?;
        let (lock, mover) = (format!("move/{slot}"), space.mover().await?);
        let keeper = movers.lock(&lock).await?;
        let goes_on = spawn(async move { mover.resume(slot, &*quiet()).await });
        while movers.queue(&lock).await?.len() < 2 {
            time::sleep(Duration::from_millis(10)).await; // why: the condition is in the loop
        }
        block_in_place(|| space.b.wipe())?;
        keeper.release().await?;
        let error = goes_on.await?.expect_err("nothing is left to go on with");
        ensure!(error.kind() == ErrorKind::UnsafeConfig, "{error}");
        let mover = space.mover().await?;
        ensure!(marker(&mover, slot, &to).await?.is_none());
        // Nothing was sealed: the slot can be moved anew.
        space.locker().await?.lock(HELD).await?.release().await?;
        mover.move_slot(slot, &to, &*quiet()).await?;
        ensure!(open(&mover, slot).await? == [("b".to_owned(), 1)]);
        Ok(())
    })
    .await
}

/// As long as the old cluster does not answer, nobody says that nothing is left of the slot there.
#[tokio::test(flavor = "multi_thread")]
async fn no_move_is_called_done_while_a_cluster_is_silent() -> Result<()> {
    bounded("a silence", async {
        let space = Space::<Etcd, Etcd>::start().await?;
        let (slot, to) = (slot(HELD)?, space.name("b").await?);
        let stopped = space.mover().await?.stopping_before(Step::Clean);
        stopped.move_slot(slot, &to, &*quiet()).await.expect_err("it stops");
        let mover = space.mover().await?;
        block_in_place(|| space.a.pause())?;
        for error in [
            mover.move_slot(slot, &to, &*quiet()).await.expect_err("it is not known to be done"),
            mover.resume(slot, &*quiet()).await.expect_err("the same"),
            mover.abort(slot).await.expect_err("the same"),
        ] {
            ensure!(error.kind() == ErrorKind::Unavailable, "{error}");
        }
        block_in_place(|| space.a.resume())?;
        mover.move_slot(slot, &to, &*quiet()).await?;
        ensure!(mover.unfinished().await?.is_empty() && mover.verify().await?.is_empty());
        Ok(())
    })
    .await
}

/// A mover that has read all it needs to open the new cluster finds that it may not, once the old one was forced open.
async fn a_slot_that_is_forced_open_is_open_once<A: Servers, B: Servers>() -> Result<()> {
    let space = Arc::new(Space::<A, B>::start().await?);
    let (slot, to, home) = (slot(HELD)?, space.name("b").await?, space.name("a").await?);
    let operator = space.mover().await?;
    let between = {
        let (space, home) = (Arc::clone(&space), home.clone());
        Before(Step::Open, move || {
            space.a.wipe()?;
            let operator = Handle::current().block_on(space.mover())?;
            let forced = operator.force(slot, &home, NO_LEASE, &());
            ensure!(Handle::current().block_on(forced)?.number() > 1);
            Ok(())
        })
    };
    let mover = space.mover().await?;
    let error = mover.move_slot(slot, &to, &between).await.expect_err("the slot is open elsewhere");
    ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
    let opened = open(&operator, slot).await?;
    ensure!(matches!(opened.as_slice(), [(name, epoch)] if name == "a" && *epoch > 1), "{opened:?}");
    let guard = space.locker().await?.lock(HELD).await?;
    ensure!(Epoch::of(guard.fencing_token()).number() == opened[0].1);
    guard.release().await?;
    operator.move_slot(slot, &to, &*quiet()).await?;
    ensure!(open(&operator, slot).await? == [("b".to_owned(), opened[0].1 + 1)]);
    Ok(())
}

/// What is sealed on a cluster that comes back ends there, once the slot was forced open where it was going.
async fn what_was_superseded_comes_to_an_end<A: Servers, B: Servers>() -> Result<()> {
    let space = Space::<A, B>::start().await?;
    let (slot, to, home) = (slot(HELD)?, space.name("b").await?, space.name("a").await?);
    let guard = space.locker().await?.lock(HELD).await?;
    let stopped = space.mover().await?.stopping_before(Step::Open);
    stopped.move_slot(slot, &to, &*quiet()).await.expect_err("it stops");
    block_in_place(|| space.a.pause().and_then(|()| space.b.wipe()))?;
    let epoch = space.mover().await?.force(slot, &to, NO_LEASE, &*quiet()).await?;
    block_in_place(|| space.a.resume())?;
    let _ = guard.release().await; // It may have been lost.
    let mover = space.mover().await?;
    let error = mover.abort(slot).await.expect_err("it is open");
    ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
    mover.resume(slot, &*quiet()).await?.context("there is something to end")?;
    ensure!(open(&mover, slot).await? == [("b".to_owned(), epoch.number())]);
    let left = marker(&mover, slot, &home).await?;
    ensure!(matches!(&left, Some(Marker::Moved { to, .. }) if to.as_str() == "b"), "{left:?}");
    mover.move_slot(slot, &home, &*quiet()).await?;
    Ok(())
}

/// The same, if it was forced open on a third cluster: neither going on nor giving up opens the old one again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_forced_open_on_a_third_cluster_stays_open_there_alone() -> Result<()> {
    bounded("a force", async {
        let space = Space::<Etcd, Etcd>::start().await?;
        let third = block_in_place(Etcd::start)?;
        let map = space.source.load().await?.with_cluster("c", Servers::address(&third))?;
        space.source.store(&map).await?;
        let (slot, to, home) = (slot(HELD)?, space.name("b").await?, space.name("c").await?);
        let stopped = space.mover().await?.stopping_before(Step::Census);
        stopped.move_slot(slot, &to, &*quiet()).await.expect_err("it stops");
        block_in_place(|| space.a.pause())?;
        let epoch = space.mover().await?.force(slot, &home, NO_LEASE, &*quiet()).await?;
        block_in_place(|| space.a.resume())?;
        let mover = space.mover().await?;
        mover.resume(slot, &*quiet()).await?.context("there is something to end")?;
        ensure!(open(&mover, slot).await? == [("c".to_owned(), epoch.number())]);
        ensure!(mover.abort(slot).await.is_err(), "nothing is left to give up");
        let guard = space.locker_with_old_map().await?.lock(HELD).await?;
        ensure!(Epoch::of(guard.fencing_token()) == epoch);
        Ok(())
    })
    .await
}

/// A cluster that was given up, and comes back, is closed by hand.
async fn a_cluster_that_comes_back_can_be_retired<A: Servers, B: Servers>() -> Result<()> {
    let space = Space::<A, B>::start().await?;
    let (slot, to, home) = (slot(HELD)?, space.name("b").await?, space.name("a").await?);
    let old = space.locker_with_old_map().await?;
    block_in_place(|| space.a.pause())?;
    let epoch = space.mover().await?.force(slot, &to, NO_LEASE, &*quiet()).await?;
    block_in_place(|| space.a.resume())?;
    let mover = space.mover().await?;
    let problems = mover.verify().await?;
    ensure!(problems.len() == 1 && problems[0].slot == slot, "{problems:?}");
    ensure!(mover.retire(slot, &home).await?);
    ensure!(!mover.retire(slot, &home).await?, "it is closed already");
    ensure!(!mover.retire(slot, &to).await?, "nothing is open later");
    ensure!(mover.verify().await?.is_empty());
    ensure!(Epoch::of(old.lock(HELD).await?.fencing_token()) == epoch);
    Ok(())
}

/// If the new cluster loses the copies, the old one still has the holds, and gets the slot back.
async fn the_old_cluster_takes_back_what_the_new_one_lost<A: Servers, B: Servers>() -> Result<()> {
    let space = Space::<A, B>::start().await?;
    let (slot, to, home) = (slot(HELD)?, space.name("b").await?, space.name("a").await?);
    let (holder, other) = (space.locker().await?, space.locker_with_old_map().await?);
    let guard = holder.lock(HELD).await?;
    let stopped = space.mover().await?.stopping_before(Step::Open);
    stopped.move_slot(slot, &to, &*quiet()).await.expect_err("it stops");
    block_in_place(|| space.b.wipe())?;
    let mover = space.mover().await?;
    for error in [
        mover.resume(slot, &*quiet()).await.expect_err("the copies are gone"),
        mover.abort(slot).await.expect_err("the markers fit no stage"),
    ] {
        ensure!(error.kind() == ErrorKind::UnsafeConfig, "{error}");
    }
    let error = mover.force(slot, &to, NO_LEASE, &*quiet()).await.expect_err("the old cluster has a hold");
    ensure!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("1 holds"), "{error}");
    let epoch = mover.force(slot, &home, NO_LEASE, &*quiet()).await?;
    guard.verify().await?;
    ensure!(other.try_lock(HELD).await?.is_none(), "it is held");
    let next = other.lock(OTHER).await?;
    ensure!(Epoch::of(next.fencing_token()) == epoch);
    ensure!(mover.verify().await?.is_empty(), "{:?}", mover.verify().await?);
    // Holds move as always.
    mover.move_slot(slot, &to, &*quiet()).await?;
    guard.verify().await?;
    guard.release().await?;
    next.release().await?;
    Ok(())
}

/// Holds that had moved to the new cluster are lost with its data, are told so, and are not given away before.
async fn holds_are_lost_with_the_new_cluster<A: Servers, B: Servers>() -> Result<()> {
    let space = Space::<A, B>::start().await?;
    let (slot, to) = (slot(HELD)?, space.name("b").await?);
    let guard = space.locker().await?.lock(HELD).await?;
    let stopped = space.mover().await?.stopping_before(Step::Clean);
    stopped.move_slot(slot, &to, &*quiet()).await.expect_err("it stops");
    block_in_place(|| space.b.wipe())?;
    let epoch = space.mover().await?.force(slot, &to, TTL, &*quiet()).await?;
    ensure!(!guard.is_held(), "its lease has ended");
    let next = space.locker().await?.lock(HELD).await?;
    ensure!(Epoch::of(next.fencing_token()) == epoch && next.fencing_token() > guard.fencing_token());
    let mover = space.mover().await?;
    ensure!(mover.verify().await?.is_empty(), "{:?}", mover.verify().await?);
    Ok(())
}

macro_rules! losses {
    ($module:ident, $a:ty, $b:ty) => {
        mod $module {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            async fn a_slot_that_is_forced_open_is_open_once() -> Result<()> {
                bounded("a force", super::a_slot_that_is_forced_open_is_open_once::<$a, $b>()).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn what_was_superseded_comes_to_an_end() -> Result<()> {
                bounded("an end", super::what_was_superseded_comes_to_an_end::<$a, $b>()).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_cluster_that_comes_back_can_be_retired() -> Result<()> {
                bounded("a return", super::a_cluster_that_comes_back_can_be_retired::<$a, $b>()).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn the_old_cluster_takes_back_what_the_new_one_lost() -> Result<()> {
                bounded("a loss", super::the_old_cluster_takes_back_what_the_new_one_lost::<$a, $b>()).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn holds_are_lost_with_the_new_cluster() -> Result<()> {
                bounded("a loss", super::holds_are_lost_with_the_new_cluster::<$a, $b>()).await
            }
        }
    };
}

losses!(from_etcd_to_etcd, Etcd, Etcd);
losses!(from_zk_to_zk, ZooKeeper, ZooKeeper);
losses!(from_redlock_to_redlock, Redlock, Redlock);

/// Programs and movers that run go on without the map; new ones need it, and it can be made anew.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_map_all_goes_on() -> Result<()> {
    bounded("a move without a map", async {
        let (a, b) = block_in_place(|| anyhow::Ok((Etcd::start()?, Etcd::start()?)))?;
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("shards.json");
        let (source, first) = (MapSource::file(&path), ShardMap::even([("a", Servers::address(&a))])?);
        let first = first.with_cluster("b", Servers::address(&b))?;
        source.store(&first).await?;
        let mover = Mover::connect(source.clone(), options()).await?;
        mover.init().await?;
        let (slot, to) = (slot(HELD)?, first.named("b")?);
        let locks = ShardedLocker::connect(source.clone(), options()).await?;
        let guard = locks.lock(HELD).await?;
        std::fs::remove_file(&path)?;
        mover.move_slot(slot, &to, &*quiet()).await?;
        guard.verify().await?;
        ensure!(Epoch::of(locks.lock(OTHER).await?.fencing_token()).number() == 1);
        let error = ShardedLocker::connect(source.clone(), options()).await.expect_err("there is no map");
        ensure!(
            error.kind() == ErrorKind::Unavailable && error.to_string().contains("shards.json"),
            "{error}"
        );
        source.store(&first).await?;
        ensure!(mover.rebuild_map().await? == 1);
        ensure!(*source.load().await?.home(slot) == to);
        let other = ShardedLocker::connect(source, Options::default()).await?;
        ensure!(other.try_lock(HELD).await?.is_none(), "it is held");
        Ok(())
    })
    .await
}

/// A map is kept where programs of another language may read it too.
#[tokio::test(flavor = "multi_thread")]
async fn a_map_is_kept_by_the_servers() -> Result<()> {
    bounded("a map", async {
        let (etcd, zk) = block_in_place(|| anyhow::Ok((Etcd::start()?, ZooKeeper::start()?)))?;
        let map = ShardMap::even([("a", Servers::address(&etcd)), ("b", Servers::address(&zk))])?;
        for source in
            [format!("{}#shop/map", Servers::address(&etcd)), format!("{}#/shop/map", Servers::address(&zk))]
        {
            let source: MapSource = source.parse()?;
            let error = source.load().await.expect_err("there is none");
            ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
            for map in [ShardMap::even([("a", Servers::address(&etcd))])?, map.clone()] {
                source.store(&map).await?;
                ensure!(source.load().await? == map);
            }
            let mover = Mover::connect(source.clone(), options()).await?;
            mover.init().await?;
            mover.pause(true).await?;
            ensure!(source.load().await?.is_paused());
            mover.pause(false).await?;
        }
        ensure!("zk://127.0.0.1:2181".parse::<MapSource>().is_err(), "it needs a path");
        ensure!("zk://127.0.0.1:2181#map".parse::<MapSource>().is_err(), "the path must be absolute");
        Ok(())
    })
    .await
}
