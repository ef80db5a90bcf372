//! Moves to and fro under load, with movers that are killed at random steps. A few moves by default; as many as
//! `LOCK_SHARDED_MOVES` says, by hand.

use std::{env, time::Instant};

use anyhow::{Context, Result, ensure};
use lock_sharded::Step;
use rand::RngExt;
use test_cluster::{Etcd, Redis, ZooKeeper};

use crate::{
    common::{Servers, Space, quiet, slot},
    history::Contenders,
    redlock::Redlock,
};

const HELD: &str = "{order-42}/payment";

/// Below what one hold can bear; and moves need an epoch each.
const MOST: usize = 500;

async fn many_moves_with_killed_movers_break_nothing<A: Servers, B: Servers>() -> Result<()> {
    let moves =
        env::var("LOCK_SHARDED_MOVES").ok().map(|moves| moves.parse()).transpose()?.unwrap_or(6).min(MOST);
    let space = Space::<A, B>::start().await?;
    let (slot, names) = (slot(HELD)?, [space.name("b").await?, space.name("a").await?]);
    let guard = space.locker().await?.lock(HELD).await?;
    let token = guard.fencing_token();
    let mut lockers = Vec::new();
    for _ in 0..4 {
        lockers.push(space.locker().await?);
    }
    let keys: Vec<_> = (0..4).map(|number| format!("{{order-42}}/{number}")).collect();
    let contenders = Contenders::start(lockers, &keys);
    let (begun, mut killed) = (Instant::now(), 0);
    for number in 0..moves {
        let to = &names[number % 2];
        if rand::rng().random_bool(0.7) {
            let step = Step::ALL[rand::rng().random_range(0..Step::ALL.len())];
            let mover = space.mover().await?.stopping_before(step);
            mover.move_slot(slot, to, &*quiet()).await.expect_err("it stops");
            killed += 1;
        }
        let mover = space.mover().await?;
        mover.move_slot(slot, to, &*quiet()).await.with_context(|| format!("move {number}"))?;
        contenders.go_on(4).await;
        guard.verify().await.with_context(|| format!("the hold after move {number}"))?;
        ensure!(guard.is_held() && guard.fencing_token() == token);
    }
    guard.release().await?;
    let holds = contenders.check().await?;
    let mover = space.mover().await?;
    let problems = mover.verify().await?;
    ensure!(problems.is_empty(), "{problems:?}");
    println!("{moves} moves, {killed} movers killed, {holds} holds, {:.1?}, no violation", begun.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_moves_between_etcds_break_nothing() -> Result<()> {
    many_moves_with_killed_movers_break_nothing::<Etcd, Etcd>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_moves_between_zookeepers_break_nothing() -> Result<()> {
    many_moves_with_killed_movers_break_nothing::<ZooKeeper, ZooKeeper>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_moves_between_etcd_and_zookeeper_break_nothing() -> Result<()> {
    many_moves_with_killed_movers_break_nothing::<Etcd, ZooKeeper>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_moves_between_redis_servers_break_nothing() -> Result<()> {
    many_moves_with_killed_movers_break_nothing::<Redis, Redis>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_moves_between_redlocks_break_nothing() -> Result<()> {
    many_moves_with_killed_movers_break_nothing::<Redlock, Redlock>().await
}
