//! All slots of a lock space with 1,000 held locks move, by the program, whose process is killed twice. By hand:
//! `cargo test --release -p lock-sharded --test moves -- --ignored --nocapture large`.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, future::try_join_all, stream};
use lock_sharded::{LockGuard, MapSource, Mover, Options, ShardMap, ShardedLocker};
use serde_json::Value;
use test_cluster::{EtcdCluster, Redis, ZooKeeperCluster};
use tokio::{task::block_in_place, time};

use crate::{common::Servers, history::Contenders, redlock::Redlock};

const HELD: usize = 1_000;
const CONTENDERS: usize = 16;

fn mover(map: &str) -> Result<Child> {
    let program = env!("CARGO_BIN_EXE_lock-shards");
    let arguments =
        ["--map", map, "--ttl", "6", "--json", "move", "--slots", "all", "--to", "b", "--parallel", "4"];
    Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().context("cannot start lock-shards")
}

/// Runs the program until it ends, or until so many slots were opened and it is killed; returns what it said of the
/// slots that it opened.
fn run(map: &str, kill_after: Option<usize>) -> Result<(Vec<Value>, Option<Value>)> {
    let mut child = mover(map)?;
    let lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
    let (mut opened, mut last) = (Vec::new(), None);
    for line in lines {
        let line: Value = serde_json::from_str(&line?)?;
        if line.get("opened").is_some() {
            opened.push(line.clone());
        }
        last = Some(line);
        if kill_after.is_some_and(|most| opened.len() >= most) {
            child.kill()?;
            child.wait()?;
            return Ok((opened, None));
        }
    }
    ensure!(child.wait()?.success(), "the mover failed: {last:?}");
    Ok((opened, last))
}

async fn all_slots_move<A: Servers, B: Servers>() -> Result<()> {
    let (a, b) = block_in_place(|| Ok::<_, anyhow::Error>((A::start()?, B::start()?)))?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("shards.json").display().to_string();
    let source = MapSource::file(&path);
    source.store(&ShardMap::even([("a", a.address())])?.with_cluster("b", b.address())?).await?;
    Mover::connect(source.clone(), Options::default()).await?.init().await?;
    let connect = || ShardedLocker::connect(source.clone(), Options::default());

    let holders = try_join_all((0..10).map(|_| connect())).await?;
    let hold = |number: usize| {
        let locks = holders[number % holders.len()].clone();
        async move { locks.lock(&format!("held/{number}")).await }
    };
    let guards: Vec<LockGuard> = stream::iter((0..HELD).map(hold)).buffered(64).try_collect().await?;
    let tokens: Vec<_> = guards.iter().map(LockGuard::fencing_token).collect();
    let lockers = try_join_all((0..CONTENDERS).map(|_| connect())).await?;
    let keys: Vec<_> = (0..64).map(|number| format!("contended/{number}")).collect();
    let contenders = Contenders::start(lockers, &keys);
    contenders.go_on(100).await;

    let begun = Instant::now();
    let mut opened = Vec::new();
    for kill_after in [Some(40), Some(90), None] {
        let (some, last) = block_in_place(|| run(&path, kill_after))?;
        opened.extend(some);
        if let Some(last) = last {
            println!("the last mover says: {last}");
        }
    }
    let took = begun.elapsed();
    contenders.go_on(100).await;
    let mut refused: Vec<_> = opened.iter().filter_map(|line| line.get("refused_ms")?.as_f64()).collect();
    refused.sort_by(f64::total_cmp);
    let copied: u64 = opened.iter().filter_map(|line| line.get("copied")?.as_u64()).sum();
    let holds = contenders.check().await?;

    // A mover that was killed may have opened a slot and not told the map.
    Mover::connect(source.clone(), Options::default()).await?.rebuild_map().await?;
    block_in_place(|| a.stop())?;
    time::sleep(Duration::from_secs(12)).await; // why: longer than any lease on the old cluster
    let other = connect().await?;
    for (number, guard) in guards.iter().enumerate() {
        guard.verify().await.with_context(|| format!("hold {number} after the old cluster has gone"))?;
        ensure!(guard.is_held() && guard.fencing_token() == tokens[number]);
    }
    ensure!(other.try_lock("held/0").await?.is_none(), "a hold was given to another");
    println!(
        "256 slots in {took:.1?}, mover killed twice: {copied} holds copied; a free key refused for {:.1} ms in the \
         median, {:.1} ms at the longest where one mover did both; {holds} holds of {CONTENDERS} contenders without a \
         violation; all {HELD} holds believed and verified after the old cluster was stopped",
        refused.get(refused.len() / 2).copied().unwrap_or_default(),
        refused.last().copied().unwrap_or_default(),
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "by hand: it takes minutes"]
async fn large_from_etcd_to_etcd() -> Result<()> {
    all_slots_move::<EtcdCluster, EtcdCluster>().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "by hand: it takes minutes"]
async fn large_from_zk_to_zk() -> Result<()> {
    all_slots_move::<ZooKeeperCluster, ZooKeeperCluster>().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "by hand: it takes minutes"]
async fn large_from_redis_to_etcd() -> Result<()> {
    all_slots_move::<Redis, EtcdCluster>().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "by hand: it takes minutes"]
async fn large_from_redlock_to_etcd() -> Result<()> {
    all_slots_move::<Redlock, EtcdCluster>().await
}
