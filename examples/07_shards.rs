//! Tutorial 07: a slot moves from one etcd to another while its locks are held and awaited, and the mover is killed.
//!
//! Four programs contend for two keys of one order, and one holds a third all the time. The mover is another process,
//! killed at a random step; the next one goes on. In the end the holder's lock is on the new etcd, with the token that
//! it had. Needs two of them, at `LOCK_TEST_ETCD` and `LOCK_TEST_SECOND_ETCD`.

use std::{
    env,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lock_sharded::{Epoch, Event, MapSource, Mover, Observer, Options, ShardMap, ShardedLocker, Step};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinSet,
    time,
};

/// What stands in braces decides the slot, so that all keys of an order move together.
const HELD: &str = "{order-42}/payment";
const CONTENDED: [&str; 2] = ["{order-42}/stock", "{order-42}/invoice"];

/// The next mover waits for the TTL of one that was killed, and free keys may wait for it.
const MOVER_TTL: Duration = Duration::from_secs(2);

/// An acquire waits for one TTL if its slot is open nowhere, so that of the programs is the longer.
const TTL: Duration = Duration::from_secs(10);

fn options(prefix: &str, ttl: Duration) -> Options {
    Options::default().with_ttl(ttl).with_request_timeout(ttl * 3 / 10).with_prefix(prefix)
}

/// What the programs saw.
#[derive(Default)]
struct Seen {
    inside: [AtomicUsize; 2],
    newest: [AtomicU64; 2],
    holds: AtomicUsize,
    overlaps: AtomicUsize,
    smaller_tokens: AtomicUsize,
    longest_wait: AtomicU64,
    stop: AtomicBool,
}

async fn contend(locks: ShardedLocker, seen: Arc<Seen>) -> Result<()> {
    while !seen.stop.load(Relaxed) {
        for (index, key) in CONTENDED.into_iter().enumerate() {
            let guard = locks.lock(key).await?;
            seen.overlaps.fetch_add(seen.inside[index].fetch_add(1, Relaxed), Relaxed);
            let token = guard.fencing_token().get();
            let is_smaller = seen.newest[index].fetch_max(token, Relaxed) > token;
            seen.smaller_tokens.fetch_add(usize::from(is_smaller), Relaxed);
            seen.holds.fetch_add(1, Relaxed);
            time::sleep(Duration::from_millis(1)).await;
            seen.inside[index].fetch_sub(1, Relaxed);
            guard.release().await?;
        }
    }
    Ok(())
}

/// Acquires a key that nobody else wants, and notes how long that took at the longest.
async fn probe(locks: ShardedLocker, seen: Arc<Seen>) -> Result<()> {
    while !seen.stop.load(Relaxed) {
        let asked = Instant::now();
        locks.lock("{order-42}/free").await?.release().await?;
        seen.longest_wait.fetch_max(asked.elapsed().as_millis().try_into()?, Relaxed);
    }
    Ok(())
}

/// The mover, in a process of its own, says what it does.
struct Aloud;

impl Observer for Aloud {
    fn tell(&self, event: &Event) {
        if let Event::Begins { step, .. } = event {
            println!("{step}");
        }
    }
}

async fn be_the_mover(map: &str, prefix: &str) -> Result<()> {
    let mover = Mover::connect(MapSource::file(map), options(prefix, MOVER_TTL)).await?;
    let map = mover.map().await?;
    mover.move_slot(map.find(HELD)?.0, &map.named("new")?, &Aloud).await?;
    Ok(())
}

/// Starts a mover, and lets it work up to `last`, or to the end.
async fn run_mover(map: &str, prefix: &str, last: Option<Step>) -> Result<()> {
    let mut mover: Child = Command::new(env::current_exe()?)
        .args(["mover", map, prefix])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(mover.stdout.take().context("it is piped")?).lines();
    while let Some(step) = lines.next_line().await? {
        println!("  {step}");
        if last.is_some_and(|last| last.to_string() == step) {
            mover.kill().await?;
            println!("  (killed)");
            return Ok(());
        }
    }
    ensure!(mover.wait().await?.success(), "the mover failed");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [role, map, prefix] = arguments.as_slice() {
        ensure!(role == "mover", "there is no role {role}");
        return be_the_mover(map, prefix).await;
    }

    let address = |name, port| env::var(name).unwrap_or_else(|_| format!("http://127.0.0.1:{port}"));
    let (old, new) = (address("LOCK_TEST_ETCD", 2379), address("LOCK_TEST_SECOND_ETCD", 2479));
    let (prefix, directory) = (examples::prefix("tutorial07"), tempfile::tempdir()?);
    let path = directory.path().join("shards.json").display().to_string();
    let source = MapSource::file(&path);
    let map = ShardMap::even([("old", format!("etcd:{old}"))])?.with_cluster("new", format!("etcd:{new}"))?;
    source.store(&map).await?;
    let opened = Mover::connect(source.clone(), options(&prefix, MOVER_TTL)).await?.init().await?;
    println!(
        "{opened} slots are open on the old etcd. {HELD} is in slot {}, with all of order 42.",
        map.find(HELD)?.0
    );

    let connect = || ShardedLocker::connect(source.clone(), options(&prefix, TTL));
    let guard = connect().await?.lock(HELD).await?;
    let token = guard.fencing_token();
    println!("It is held, with token {token}. Four programs contend for two other keys of the order.");
    let (seen, mut programs) = (Arc::<Seen>::default(), JoinSet::new());
    for _ in 0..4 {
        programs.spawn(contend(connect().await?, Arc::clone(&seen)));
    }
    programs.spawn(probe(connect().await?, Arc::clone(&seen)));
    time::sleep(Duration::from_millis(300)).await;
    println!("Without a move, a free key takes {} ms at the longest.\n", seen.longest_wait.swap(0, Relaxed));

    let last = Step::ALL[usize::from(rand::random::<u8>()) % Step::ALL.len()];
    println!("A mover begins, and is killed at {last}:");
    run_mover(&path, &prefix, Some(last)).await?;
    println!("Another goes on, once the first one's lock has run out:");
    run_mover(&path, &prefix, None).await?;
    let killed = seen.longest_wait.swap(0, Relaxed);

    time::sleep(Duration::from_millis(300)).await;
    seen.stop.store(true, Relaxed);
    while let Some(program) = programs.join_next().await {
        program??;
    }
    guard.verify().await?;
    ensure!(guard.is_held() && guard.fencing_token() == token, "the hold has moved as it was");
    let (holds, overlaps) = (seen.holds.load(Relaxed), seen.overlaps.load(Relaxed));
    let smaller = seen.smaller_tokens.load(Relaxed);
    guard.release().await?;
    let next = connect().await?.lock(HELD).await?;
    println!(
        "\n{HELD} was held all the time, and is released. Its next token is {}: epoch {}, number {}.",
        next.fencing_token(),
        Epoch::of(next.fencing_token()),
        next.fencing_token().get() & ((1 << 53) - 1)
    );
    ensure!(overlaps == 0 && smaller == 0 && next.fencing_token() > token);
    println!("=> the mover was killed at {last}: {overlaps} overlaps in {holds} holds, and all tokens grew");
    println!(
        "=> a free key waited for {killed} ms at the longest; killed between seal and open, that is for the next mover"
    );
    next.release().await?;
    Ok(())
}
