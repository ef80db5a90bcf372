//! Leaks: when all is over, nothing is left, on the servers or here.

use std::time::Duration;

use lock_core::{AnyLocker, Key, Waiting};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{runtime::Handle, task::JoinSet, time};

use crate::{
    Fixture,
    steps::{SOON, client, dropped_after, eventually, fresh_key, traces},
};

properties! {
    no_trace_and_no_task_is_left [OwnServers],
    no_connection_is_left [Servers, OwnServers],
}

/// After tries, waits, cancels, drops and releases by many, no record, no waiter and no task is left.
pub async fn no_trace_and_no_task_is_left(fx: &impl Fixture) {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let keys = churn(fx).await;
    eventually("the traces and tasks of the churn to be gone", SOON, || async {
        let mut left = 0;
        for key in &keys {
            left += traces(fx, key).await;
        }
        let more = tasks().saturating_sub(before);
        if left + more == 0 { Ok(()) } else { Err(format!("{left} traces and {more} tasks left")) }
    })
    .await;
}

/// After all handles of all clients were dropped, no connection of theirs is left.
pub async fn no_connection_is_left(fx: &impl Fixture) {
    let connections = || async { fx.connections().await.expect("the fixture counts connections") };
    let before = connections().await;
    let probe = client(fx).await;
    let _ = probe.try_lock(fresh_key().as_str()).await;
    let open = connections().await;
    assert!(open > before, "a client in use must be counted: {before} connections before, {open} now");
    drop(probe);
    churn(fx).await;
    eventually("the connections of the churn to be closed", SOON, || async {
        let left = connections().await;
        if left <= before { Ok(()) } else { Err(format!("{left} connections, {before} before")) }
    })
    .await;
}

/// Four clients use three keys in every way, and are dropped.
async fn churn(fx: &impl Fixture) -> [Key; 3] {
    let keys = [fresh_key(), fresh_key(), fresh_key()];
    let mut tasks = JoinSet::new();
    for seed in 0..8 {
        let (locker, keys) = (client(fx).await, keys.clone());
        tasks.spawn(async move {
            let mut dice = StdRng::seed_from_u64(seed);
            for _ in 0..40 {
                let key = keys[dice.random_range(0..keys.len())].as_str();
                use_somehow(&locker, key, &mut dice).await;
            }
        });
    }
    tasks.join_all().await;
    keys
}

async fn use_somehow(locker: &AnyLocker, key: &str, dice: &mut StdRng) {
    let can_wait = locker.capabilities().waiting != Waiting::Never;
    let moment = Duration::from_micros(dice.random_range(0..3_000));
    let acquired = match dice.random_range(0..4) {
        0 if can_wait => time::timeout(10 * moment, locker.lock(key)).await.ok().map(|lock| lock.map(Some)),
        1 if can_wait => Some(locker.try_lock_for(key, moment).await),
        2 => dropped_after(dice.random_range(1..6), locker.try_lock(key)).await,
        _ => Some(locker.try_lock(key).await),
    };
    let Some(guard) = acquired.transpose().expect("the servers answer").flatten() else { return };
    time::sleep(moment / 10).await;
    match dice.random_range(0..3) {
        0 => drop(guard),
        1 => drop(dropped_after(dice.random_range(1..4), guard.release()).await),
        _ => guard.release().await.expect("the lock was held until now"),
    }
}
