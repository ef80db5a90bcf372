//! Three independent Redis servers as one cluster.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use test_cluster::{Persistence, Redis};
use tokio::{task::block_in_place, time};

use crate::{
    common::{Servers, Space, bounded, quiet, slot},
    history::Contenders,
};

pub(crate) struct Redlock(Vec<Redis>);

impl Servers for Redlock {
    fn start() -> Result<Self> {
        // What was written survives a kill, and no test waits for the disk.
        let redis = || Redis::builder().persistence(Persistence::Aof).config("appendfsync", "no");
        Ok(Self((0..3).map(|_| redis().start()).collect::<Result<_>>()?))
    }

    fn address(&self) -> String {
        format!("redlock:{}", self.0.iter().map(Redis::url).collect::<Vec<_>>().join(","))
    }

    fn stop(&self) -> Result<()> {
        self.0.iter().try_for_each(Redis::kill)
    }

    fn wipe(&self) -> Result<()> {
        self.stop()?;
        self.0.iter().try_for_each(Redis::restart_without_data)
    }

    fn pause(&self) -> Result<()> {
        self.0.iter().try_for_each(Redis::pause)
    }

    fn resume(&self) -> Result<()> {
        self.0.iter().try_for_each(Redis::resume)
    }
}

const HELD: &str = "{order-42}/payment";

/// One server of each cluster is away in each move, and what comes back lags behind.
async fn a_minority_may_be_away(
    which: impl Fn(usize) -> usize,
    back: impl Fn(&Redis) -> Result<()>,
) -> Result<()> {
    let space = Space::<Redlock, Redlock>::start().await?;
    let (slot, names) = (slot(HELD)?, [space.name("b").await?, space.name("a").await?]);
    let guard = space.locker().await?.lock(HELD).await?;
    let token = guard.fencing_token();
    let keys: Vec<_> = (0..3).map(|number| format!("{{order-42}}/{number}")).collect();
    let contenders = Contenders::start(vec![space.locker().await?, space.locker().await?], &keys);
    // Servers that movers have not used together yet must be complete once.
    for to in &names {
        space.mover().await?.move_slot(slot, to, &*quiet()).await?;
    }
    for number in 0..4 {
        let away = [&space.a.0[which(number)], &space.b.0[which(number + 1)]];
        block_in_place(|| away.iter().try_for_each(|redis| redis.kill()))?;
        let to = &names[number % 2];
        while let Err(error) = space.mover().await?.move_slot(slot, to, &*quiet()).await {
            // One that was away last time may be left out for a moment, and then two are missing.
            ensure!(error.is_transient(), "move {number}: {error}");
            time::sleep(Duration::from_millis(50)).await; // why: the condition is in the loop
        }
        contenders.go_on(4).await;
        guard.verify().await.with_context(|| format!("the hold after move {number}"))?;
        ensure!(guard.is_held() && guard.fencing_token() == token);
        block_in_place(|| away.iter().try_for_each(|redis| back(redis)))?;
        contenders.go_on(4).await;
    }
    guard.release().await?;
    let holds = contenders.check().await?;
    let problems = space.mover().await?.verify().await?;
    ensure!(problems.is_empty(), "{problems:?}");
    println!("{holds} holds beside");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_may_be_away_while_slots_move() -> Result<()> {
    bounded("moves", a_minority_may_be_away(|number| number % 3, Redis::restart)).await
}

/// The same ones each time: those without their data have no vote for longer than a move takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_minority_may_forget_everything_while_slots_move() -> Result<()> {
    bounded("moves", a_minority_may_be_away(|_| 1, Redis::restart_without_data)).await
}
