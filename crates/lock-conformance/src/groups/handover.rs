//! Hand-over: the next is told when the key is free.

use std::time::Duration;

use lock_core::{AnyLocker, Key, LockGuard, backend::BootInstant};
use tokio::{task::JoinSet, time};

use crate::{
    Fixture,
    steps::{GRACE, SOON, TTL, brief, client, fresh_key, orphan, release, take, traces, within},
};

/// Half of the hand-overs must be faster. It is far above a push and below any sensible period of polling.
const TYPICAL: Duration = Duration::from_millis(200);

properties! {
    a_release_wakes_the_waiter [Told],
    a_dropped_guard_wakes_the_waiter [Told],
    fifty_waiters_all_get_the_key [Waiting],
    the_end_of_a_lease_serves_the_waiter [Waiting, Servers],
}

/// After a release a waiter has the key by being told, not by looking now and then, nor at the end of a lease.
pub async fn a_release_wakes_the_waiter(fx: &impl Fixture) {
    hand_over(fx, async |guard| release(guard).await).await;
}

/// After the drop of a guard too.
pub async fn a_dropped_guard_wakes_the_waiter(fx: &impl Fixture) {
    hand_over(fx, async |guard| drop(guard)).await;
}

/// Fifty waiters for one key all get it, in turn.
pub async fn fifty_waiters_all_get_the_key(fx: &impl Fixture) {
    let (key, holder, other) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = take(&holder, &key).await;
    let mut waiters = JoinSet::new();
    for _ in 0..25 {
        for locker in [&holder, &other] {
            let (locker, key) = (locker.clone(), key.clone());
            waiters.spawn(async move { release(locker.lock(key.as_str()).await.expect("the wait")).await });
        }
    }
    time::sleep(Duration::from_millis(100)).await;
    release(guard).await;
    within("the waits of fifty", 4 * SOON, waiters.join_all()).await;
    assert_eq!(traces(fx, &key).await, 0, "after the last release nothing may be left of {key:?}");
}

/// A waiter gets the key of a dead holder, without anybody's release, within 2 s of the end of its lease.
pub async fn the_end_of_a_lease_serves_the_waiter(fx: &impl Fixture) {
    let (key, waiter) = (fresh_key(), client(fx).await);
    let orphan = orphan(fx, &brief(), &key);
    let guard = within("the wait behind a dead holder", TTL + GRACE, waiter.lock(key.as_str())).await;
    release(guard.expect("the wait")).await;
    drop(orphan);
}

async fn hand_over(fx: &impl Fixture, give_back: impl AsyncFn(LockGuard)) {
    let (key, one, other) = (fresh_key(), client(fx).await, client(fx).await);
    let mut guard = take(&one, &key).await;
    let mut times = Vec::new();
    for round in 0..20 {
        let waiter = if round % 2 == 0 { &other } else { &one };
        let hold = async {
            time::sleep(Duration::from_millis(30)).await;
            let freed = BootInstant::now();
            give_back(guard).await;
            freed
        };
        let (freed, (next, got)) =
            within("a hand-over", SOON, async { tokio::join!(hold, wait(waiter, &key)) }).await;
        times.push(got.since(freed));
        guard = next;
    }
    release(guard).await;
    times.sort();
    let median = times[times.len() / 2];
    assert!(
        median < TYPICAL,
        "a waiter must be told of a release; half of the hand-overs took {median:?} or more"
    );
}

async fn wait(locker: &AnyLocker, key: &Key) -> (LockGuard, BootInstant) {
    let guard = locker.lock(key.as_str()).await.expect("the wait");
    (guard, BootInstant::now())
}
