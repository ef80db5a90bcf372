//! Exclusion: one holder of a key at a time, whoever asks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lock_core::AnyLocker;
use tokio::{task, task::JoinSet, time};

use crate::{
    Fixture,
    agent::Agent,
    steps::{SOON, acquire, assert_held, assert_no_traces, client, fresh_key, release, take},
};

properties! {
    a_held_key_is_refused_to_others,
    two_handles_of_one_client_exclude_each_other,
    locks_are_not_reentrant,
    tasks_of_one_client_never_overlap,
    clients_never_overlap,
    processes_never_overlap [Processes],
    different_keys_do_not_exclude_each_other,
}

/// A key that one client holds is refused to every other, until it is released, and then the other way round.
pub async fn a_held_key_is_refused_to_others(fx: &impl Fixture) {
    let (key, one, other) = (fresh_key(), client(fx).await, client(fx).await);
    for (holder, rival) in [(&one, &other), (&other, &one)] {
        let guard = take(holder, &key).await;
        assert_held(rival, &key).await;
        release(guard).await;
    }
}

/// Clones of one locker are as strange to each other as two processes.
pub async fn two_handles_of_one_client_exclude_each_other(fx: &impl Fixture) {
    let (key, locker) = (fresh_key(), client(fx).await);
    let clone = locker.clone();
    let guard = take(&locker, &key).await;
    assert_held(&clone, &key).await;
    release(guard).await;
    release(take(&clone, &key).await).await;
}

/// A task that holds a key is refused it like any other.
pub async fn locks_are_not_reentrant(fx: &impl Fixture) {
    let (key, locker) = (fresh_key(), client(fx).await);
    let guard = take(&locker, &key).await;
    assert_held(&locker, &key).await;
    release(guard).await;
}

/// Many tasks that share one client never hold one key at one time.
pub async fn tasks_of_one_client_never_overlap(fx: &impl Fixture) {
    let locker = client(fx).await;
    contend(fx, vec![locker; 12], 12).await;
}

/// Tasks of several clients never hold one key at one time.
pub async fn clients_never_overlap(fx: &impl Fixture) {
    let clients = [client(fx).await, client(fx).await, client(fx).await, client(fx).await];
    contend(fx, [clients.clone(), clients.clone(), clients].concat(), 12).await;
}

/// Holders in several processes never hold one key at one time, and the later one has the larger token.
pub async fn processes_never_overlap(fx: &impl Fixture) {
    let key = fresh_key();
    let mut agents = JoinSet::new();
    for _ in 0..3 {
        let (mut agent, key) = (Agent::start(fx, Duration::from_secs(30)).await, key.clone());
        agents.spawn(async move { agent.contend(&key, 20).await });
    }
    let mut stays = agents.join_all().await.concat();
    assert_eq!(stays.len(), 60, "each of three processes enters twenty times");
    stays.sort_by_key(|stay| stay.entered);
    for pair in stays.windows(2) {
        let (earlier, later) = (&pair[0], &pair[1]);
        assert!(earlier.left <= later.entered, "two processes were in at once: {earlier:?} and {later:?}");
        assert!(earlier.token < later.token, "tokens must grow: {earlier:?}, then {later:?}");
    }
}

/// A held key refuses nobody another key.
pub async fn different_keys_do_not_exclude_each_other(fx: &impl Fixture) {
    let locker = client(fx).await;
    let first = take(&locker, &fresh_key()).await;
    let second = take(&locker, &fresh_key()).await;
    release(first).await;
    release(second).await;
}

/// Each locker's task enters `rounds` times a section that loses an update if two are in it at once.
async fn contend(fx: &impl Fixture, lockers: Vec<AnyLocker>, rounds: u64) {
    let (key, counter) = (fresh_key(), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    let entries = lockers.len() as u64 * rounds;
    for locker in lockers {
        let (key, counter) = (key.clone(), Arc::clone(&counter));
        tasks.spawn(async move {
            for _ in 0..rounds {
                let guard = acquire(&locker, &key).await;
                let seen = counter.load(Ordering::Relaxed);
                task::yield_now().await;
                time::sleep(Duration::from_micros(100)).await;
                let replaced = counter.swap(seen + 1, Ordering::Relaxed);
                assert_eq!(replaced, seen, "two tasks held {key:?} at once: an update was lost");
                let released = guard.release().await;
                assert!(released.is_ok(), "two tasks held {key:?} at once: a release gave {released:?}");
            }
        });
    }
    // It hands on the panic of a task.
    tasks.join_all().await;
    assert_eq!(counter.load(Ordering::Relaxed), entries, "each entry counts once");
    assert_no_traces(fx, &key, SOON).await;
}
