//! Slots: what one Redis grants while they move, and after it was restarted.

use anyhow::{Result, ensure};
use lock_setnx::{
    ErrorKind, Key, Options, SetnxLocker, SetnxStore,
    lock_core::movable::{Epoch, Marker, MoveId, NotOpen, Slot, SlotStore},
};
use test_cluster::{Persistence, Redis, eventually};

const KEY: &str = "orders/42";

fn slot() -> Slot {
    Slot::of(&Key::new(KEY).expect("a key"))
}

fn open(number: u16) -> Marker {
    Marker::Open { epoch: Epoch::new(number).expect("an epoch") }
}

fn sealed(number: u16) -> Marker {
    let epoch = |number| Epoch::new(number).expect("an epoch");
    let to = "b".parse().expect("a name");
    Marker::Sealed { epoch: epoch(number), to, next: epoch(number + 1), id: MoveId::random() }
}

fn store(locks: &SetnxLocker) -> &SetnxStore {
    locks.backend().store()
}

async fn movable(redis: &Redis) -> Result<SetnxLocker> {
    Ok(SetnxLocker::connect_movable(redis.url(), Options::default()).await?)
}

async fn change(locks: &SetnxLocker, from: Option<&Marker>, to: &Marker) -> Result<()> {
    ensure!(store(locks).change_marker(slot(), from, to).await?, "the marker was another than {from:?}");
    Ok(())
}

async fn refusal(locks: &SetnxLocker) -> Result<Option<Marker>> {
    let error = locks.try_lock(KEY).await.expect_err("the slot is not open");
    ensure!(error.kind() == ErrorKind::Unavailable, "{error}");
    Ok(NotOpen::of(&error).expect("that is why").marker.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_granted_only_while_its_slot_is_open() -> Result<()> {
    let redis = Redis::start()?;
    let (locks, mover) = (movable(&redis).await?, movable(&redis).await?);
    ensure!(refusal(&locks).await?.is_none());
    change(&mover, None, &open(3)).await?;
    let guard = locks.lock(KEY).await?;
    ensure!(Epoch::of(guard.fencing_token()).number() == 3);
    let seal = sealed(3);
    change(&mover, Some(&open(3)), &seal).await?;
    ensure!(refusal(&locks).await? == Some(seal.clone()));
    let holds = store(&mover).holds(slot(), None).await?;
    ensure!(holds.len() == 1 && holds[0].token == guard.fencing_token(), "{holds:?}");
    ensure!(store(&mover).holds(slot(), Some(guard.key())).await? == holds);
    guard.verify().await?;
    guard.release().await?;
    ensure!(store(&mover).holds(slot(), None).await?.is_empty());
    ensure!(!store(&mover).change_marker(slot(), Some(&open(3)), &open(5)).await?, "it is sealed");
    change(&mover, Some(&seal), &open(5)).await?;
    // The epoch that it knows is an old one, which costs it another request.
    ensure!(Epoch::of(locks.lock(KEY).await?.fencing_token()).number() == 5);
    Ok(())
}

/// A snapshot may be older than the seal, and would grant what was moved away.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_from_a_snapshot_has_no_slot_open() -> Result<()> {
    let redis = Redis::start()?;
    let locks = movable(&redis).await?;
    change(&locks, None, &open(0)).await?;
    redis.command(&["SAVE"])?;
    change(&locks, Some(&open(0)), &sealed(0)).await?;
    redis.kill()?;
    redis.restart()?;
    let name = "lock:{slot:df}#marker";
    ensure!(redis.command(&["GET", name])?.text() == "open 0", "the snapshot has the old marker");
    ensure!(refusal(&locks).await?.is_none());
    ensure!(redis.command(&["EXISTS", name])?.as_int() == Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_log_keeps_its_markers() -> Result<()> {
    let redis = Redis::builder().persistence(Persistence::AofAlways).start()?;
    let locks = movable(&redis).await?;
    change(&locks, None, &open(0)).await?;
    redis.kill()?;
    redis.restart()?;
    let guard = locks.lock(KEY).await?;
    ensure!(store(&locks).marker(slot()).await? == Some(open(0)));
    guard.release().await?;
    Ok(())
}

/// Who waits in the queue of a slot that is sealed is refused when its turn comes, and leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_of_a_sealed_slot_is_refused_and_leaves_its_place() -> Result<()> {
    let redis = Redis::start()?;
    let (locks, waiting) = (movable(&redis).await?, movable(&redis).await?);
    change(&locks, None, &open(0)).await?;
    let guard = locks.lock(KEY).await?;
    let waiter = tokio::spawn(async move { waiting.lock(KEY).await });
    let queue = "lock:{slot:df}#queue:orders/42";
    let stands = |count| {
        tokio::task::block_in_place(|| {
            eventually("the queue", std::time::Duration::from_secs(10), || {
                let waiters = redis.command(&["ZCARD", queue])?.as_int();
                ensure!(waiters == Some(count), "{waiters:?} wait");
                Ok(())
            })
        })
    };
    stands(1)?;
    let seal = sealed(0);
    change(&locks, Some(&open(0)), &seal).await?;
    guard.release().await?;
    let error = waiter.await?.expect_err("it is sealed");
    ensure!(NotOpen::of(&error).is_some_and(|refusal| refusal.marker == Some(seal)), "{error}");
    stands(0)?;
    Ok(())
}
