//! Slots: what servers agree on, and what they grant meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lock_redlock::{
    ErrorKind, FencingToken, Key, LockGuard, Options, RedlockLocker, RedlockStore,
    lock_core::{
        backend::OwnerId,
        movable::{CopyLabel, Epoch, Marker, MoveId, NotOpen, Slot, SlotHold, SlotStore},
    },
};
use test_cluster::{Redis, eventually};
use tokio::time;

use crate::set::{KEY, SOON, Set, brief, patient};

const NAME: &str = "lock:{redslot:df}:orders/42";
const MEMORY: &str = "lock:{redlock}#slots";

fn slot() -> Slot {
    Slot::of(&Key::new(KEY).expect("a key"))
}

fn epoch(number: u16) -> Epoch {
    Epoch::new(number).expect("an epoch")
}

fn open(number: u16) -> Marker {
    Marker::Open { epoch: epoch(number) }
}

fn store(locks: &RedlockLocker) -> &RedlockStore {
    locks.backend().store()
}

fn field(redis: &Redis, what: &str) -> Result<String> {
    Ok(redis.command(&["HGET", MEMORY, &format!("df {what}")])?.text())
}

fn set_field(redis: &Redis, what: &str, text: &str) -> Result<()> {
    redis.command(&["HSET", MEMORY, &format!("df {what}"), text]).map(drop)
}

fn remembers(redis: &Redis) -> Result<bool> {
    let has = |field| Ok::<_, anyhow::Error>(redis.command(&["HEXISTS", MEMORY, field])?.as_int() == Some(1));
    Ok(has("floor")? && !has("forgot")?)
}

fn votes(set: &Set) -> Result<usize> {
    let has = |redis: &Redis| Ok(usize::from(redis.command(&["EXISTS", NAME])?.as_int() == Some(1)));
    set.servers.iter().map(has).sum()
}

async fn movable(set: &Set, options: Options) -> Result<RedlockLocker> {
    Ok(RedlockLocker::connect_movable(set.urls(), options).await?)
}

/// A set on which the slot of [`KEY`] has this marker.
async fn marked(set: &Set, marker: &Marker, options: Options) -> Result<RedlockLocker> {
    let locks = movable(set, options).await?;
    ensure!(store(&locks).change_marker(slot(), None, marker).await?, "there is a marker already");
    Ok(locks)
}

fn preparing(number: u16, id: MoveId) -> Marker {
    Marker::Preparing { epoch: epoch(number), from: "a".parse().expect("a name"), id }
}

fn copy(id: MoveId) -> SlotHold {
    SlotHold {
        key: Key::new(KEY).expect("a key"),
        owner: OwnerId::parse(&"a".repeat(32)).expect("an owner"),
        token: FencingToken::new(7),
        copy: Some(CopyLabel { from: "a".parse().expect("a name"), id }),
    }
}

/// What is held soon, though servers may be left out for a moment that have just come back.
async fn held_soon(locks: &RedlockLocker) -> Result<LockGuard> {
    let held = async {
        loop {
            match locks.lock(KEY).await {
                Ok(guard) => return guard,
                Err(_) => time::sleep(Duration::from_millis(20)).await, // why: a bounded poll of a condition
            }
        }
    };
    Ok(time::timeout(SOON, held).await?)
}

/// Waits until a server has its vote back, which it gets at the request of those who need it.
async fn it_remembers(redis: &Redis, locks: &RedlockLocker) -> Result<()> {
    let begun = Instant::now();
    while !remembers(redis)? {
        ensure!(begun.elapsed() < SOON, "it has not learnt anything");
        let _ = locks.try_lock("another").await;
        time::sleep(Duration::from_millis(20)).await; // why: a bounded poll of a condition
    }
    Ok(())
}

async fn is_closed(locks: &RedlockLocker) -> Result<Option<Marker>> {
    let error = locks.try_lock(KEY).await.err().context("a slot that is not open is granted from")?;
    let refusal = NotOpen::of(&error).with_context(|| format!("{error}"))?;
    Ok(refusal.marker.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_has_the_epoch_and_plain_locks_are_others() -> Result<()> {
    let set = Set::start(3)?;
    let locks = marked(&set, &open(5), patient()).await?;
    let guard = locks.lock(KEY).await?;
    ensure!(Epoch::of(guard.fencing_token()) == epoch(5), "{}", guard.fencing_token());
    let plain = set.locker(patient()).await?;
    ensure!(plain.try_lock(KEY).await?.is_some(), "another lock has the same name");
    let holds = store(&locks).holds(slot(), None).await?;
    ensure!(holds.len() == 1 && holds[0].token == guard.fencing_token() && holds[0].copy.is_none());
    guard.verify().await?;
    guard.release().await?;
    eventually("no vote", SOON, || {
        ensure!(votes(&set)? == 0);
        Ok(())
    })?;
    ensure!(store(&locks).holds(slot(), None).await?.is_empty());
    Ok(())
}

/// A server that was told of an opening which a majority never agreed on grants alone, and so nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_is_refused_where_a_minority_has_learned_that_a_slot_is_open() -> Result<()> {
    let set = Set::start(3)?;
    let present = preparing(1, MoveId::random());
    let locks = marked(&set, &present, patient()).await?;
    let ballot = field(&set.servers[0], "promised")?;
    for what in ["accepted", "learned"] {
        set_field(&set.servers[0], what, &format!("{ballot} open 0"))?;
    }
    ensure!(is_closed(&locks).await? == Some(present));
    eventually("the one vote to be given back", SOON, || {
        ensure!(votes(&set)? == 0);
        Ok(())
    })
}

/// A value that all accepted, and that nobody was told of, counts as what it is once somebody has asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_agreed_on_and_not_told_is_told_by_whoever_looks() -> Result<()> {
    let set = Set::start(3)?;
    let locks = marked(&set, &open(1), patient()).await?;
    for redis in &set.servers {
        redis.command(&["HDEL", MEMORY, "df learned"])?;
    }
    locks.lock(KEY).await?.release().await?;
    eventually("all to know", SOON, || {
        ensure!(
            set.servers
                .iter()
                .map(|redis| field(redis, "learned"))
                .collect::<Result<Vec<_>>>()?
                .iter()
                .all(|learned| learned.ends_with(" open 1"))
        );
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_away_during_a_change_is_told_of_it() -> Result<()> {
    let set = Set::start(3)?;
    let locks = marked(&set, &preparing(1, MoveId::random()), patient()).await?;
    let present = store(&locks).marker(slot()).await?;
    set.servers[2].kill()?;
    ensure!(store(&locks).change_marker(slot(), present.as_ref(), &open(1)).await?);
    locks.lock(KEY).await?.release().await?;
    set.servers[2].restart()?;
    set.servers[0].kill()?;
    let guard = held_soon(&locks).await?;
    ensure!(Epoch::of(guard.fencing_token()) == epoch(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_change_a_marker_at_once_one_does() -> Result<()> {
    let set = Set::start(3)?;
    let (one, other) = (marked(&set, &open(0), patient()).await?, movable(&set, patient()).await?);
    let mut from = open(0);
    let mut wins = [0; 2];
    for number in 0..40 {
        let to = [0, 1].map(|_| preparing(number, MoveId::random()));
        let (first, second) = tokio::join!(
            store(&one).change_marker(slot(), Some(&from), &to[0]),
            store(&other).change_marker(slot(), Some(&from), &to[1]),
        );
        let done = [first?, second?];
        ensure!(done[0] != done[1], "{done:?} in round {number}");
        let winner = usize::from(done[1]);
        wins[winner] += 1;
        for locks in [&one, &other] {
            ensure!(store(locks).marker(slot()).await?.as_ref() == Some(&to[winner]));
        }
        let all = store(&one).markers().await?;
        ensure!(all == [(slot(), to[winner].clone())], "{all:?}");
        from = to[winner].clone();
    }
    println!("{wins:?}");
    let (first, second) = tokio::join!(store(&one).identity(), store(&other).identity());
    ensure!(first? == second?, "they do not agree on who they are");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_its_data_comes_back_with_the_markers() -> Result<()> {
    let set = Set::start(3)?;
    let locks = marked(&set, &open(3), brief()).await?;
    let identity = store(&locks).identity().await?;
    locks.lock(KEY).await?.release().await?;
    // Those who wait are no holds, and what is kept of them cannot be read like one.
    for redis in &set.servers {
        redis.command(&["ZADD", "lock:{redslot:df}#queue:orders/43", "1", "somebody"])?;
    }
    set.servers[0].restart_without_data()?;
    let begun = Instant::now();
    it_remembers(&set.servers[0], &locks).await?;
    ensure!(begun.elapsed() > Duration::from_secs(2), "leases of before may not be over");
    for what in ["promised", "accepted", "learned"] {
        let all = set.servers.iter().map(|redis| field(redis, what)).collect::<Result<Vec<_>>>()?;
        ensure!(all[0] == all[1] && !all[0].is_empty(), "{what}: {all:?}");
    }
    set.servers[1].kill()?;
    ensure!(Epoch::of(held_soon(&locks).await?.fencing_token()) == epoch(3));
    ensure!(store(&locks).identity().await? == identity);
    Ok(())
}

/// A copy has no lease that could end: a server that may have had it does not vote before it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_its_data_waits_for_copies() -> Result<()> {
    let set = Set::start(3)?;
    let id = MoveId::random();
    let present = preparing(1, id);
    let (mover, locks) = (marked(&set, &present, brief()).await?, movable(&set, brief()).await?);
    ensure!(store(&mover).put_copies(slot(), &present, &[copy(id)]).await?);
    ensure!(store(&mover).change_marker(slot(), Some(&present), &open(1)).await?);
    ensure!(!store(&mover).put_copies(slot(), &present, &[copy(id)]).await?, "it is open");
    // One server has it alone after the loss.
    set.servers[2].command(&["DEL", NAME])?;
    set.servers[0].restart_without_data()?;
    let begun = Instant::now();
    // Twice as long as the leases of all last.
    while begun.elapsed() < Duration::from_secs(4) {
        let refused = locks.try_lock(KEY).await;
        ensure!(!matches!(refused, Ok(Some(_))), "a copy stands before it");
        ensure!(!remembers(&set.servers[0])?);
        time::sleep(Duration::from_millis(50)).await; // why: a bounded poll of a condition
    }
    ensure!(store(&mover).holds(slot(), None).await? == [copy(id)]);
    store(&mover).drop_copy(slot(), &copy(id)).await?;
    let guard = time::timeout(SOON, locks.lock(KEY)).await??;
    guard.release().await?;
    it_remembers(&set.servers[0], &locks).await
}

/// What a mover could not delete everywhere costs nobody a vote for longer than the key is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_left_behind_gives_way_to_a_majority() -> Result<()> {
    let set = Set::start(3)?;
    let id = MoveId::random();
    let present = preparing(1, id);
    let locks = marked(&set, &present, patient()).await?;
    ensure!(store(&locks).put_copies(slot(), &present, &[copy(id)]).await?);
    ensure!(store(&locks).change_marker(slot(), Some(&present), &open(1)).await?);
    ensure!(locks.try_lock(KEY).await?.is_none(), "a copy stands before it");
    for redis in &set.servers[..2] {
        redis.command(&["DEL", NAME])?;
    }
    let guard = locks.lock(KEY).await?;
    eventually("all votes", SOON, || {
        let value = set.servers[2].command(&["GET", NAME])?.text();
        ensure!(value.contains("@1") && !value.contains('='), "{value}");
        Ok(())
    })?;
    guard.release().await?;
    Ok(())
}

/// Who may have a majority is told; where two may have one, nothing is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_is_told_if_those_who_are_silent_may_have_voted_for_it() -> Result<()> {
    let set = Set::start(3)?;
    let locks = marked(&set, &open(0), patient()).await?;
    let value = |letter: &str| format!("{}:7@0", letter.repeat(32));
    set.servers[0].command(&["SET", NAME, &value("b")])?;
    ensure!(store(&locks).holds(slot(), None).await?.is_empty(), "one vote is none");
    set.servers[2].kill()?;
    let holds = store(&locks).holds(slot(), None).await?;
    ensure!(holds.len() == 1 && holds[0].owner.to_string() == "b".repeat(32), "{holds:?}");
    set.servers[1].command(&["SET", NAME, &value("c")])?;
    let error = store(&locks).holds(slot(), None).await.err().context("the votes are split")?;
    ensure!(error.kind() == ErrorKind::Unavailable && error.is_transient(), "{error}");
    Ok(())
}

/// Who was away during a seal, and is heard in a census, gives no vote any more that would not be in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_heard_in_a_census_gives_no_vote_after_it() -> Result<()> {
    let set = Set::start(3)?;
    let locks = marked(&set, &open(0), patient()).await?;
    set.servers[2].kill()?;
    let id = MoveId::random();
    let sealed = Marker::Sealed { epoch: epoch(0), to: "b".parse()?, next: epoch(1), id };
    ensure!(store(&locks).change_marker(slot(), Some(&open(0)), &sealed).await?);
    // A claim had this vote before, and needs one more.
    let owner = "b".repeat(32);
    set.servers[0].command(&["SET", NAME, &format!("{owner}:7@0")])?;
    set.servers[2].restart()?;
    ensure!(field(&set.servers[2], "learned")?.ends_with(" open 0"), "it was told while it was away");
    let begun = Instant::now();
    loop {
        let holds = store(&locks).holds(slot(), None).await?;
        let is_told = holds.iter().any(|hold| hold.owner.to_string() == owner);
        let may_vote = field(&set.servers[2], "learned")?.ends_with(" open 0");
        ensure!(is_told || !may_vote, "a claim that may still win is in no list");
        if !is_told {
            return Ok(());
        }
        ensure!(begun.elapsed() < SOON, "the server is never heard");
        time::sleep(Duration::from_millis(20)).await; // why: a bounded poll of a condition
    }
}
