//! Tokens: each hold of a key has a larger one than all holds before it.

use std::sync::Arc;

use lock_core::{AnyLocker, FencingToken, Key};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::{
    Data, Fixture,
    steps::{
        GRACE, SOON, TTL, acquire, assert_held, brief, client, fresh_key, orphan, release, take, take_within,
    },
};

properties! {
    tokens_grow_from_client_to_client,
    tokens_grow_in_the_order_of_holds,
    tokens_grow_past_dropped_guards_and_refusals,
    tokens_grow_past_the_end_of_a_lease [Servers],
    tokens_grow_past_the_deletion_of_the_key [Servers],
    tokens_grow_past_a_restart_with_data [Servers, StoppedServers, TokensWithData],
    tokens_grow_past_a_restart_without_data [Servers, StoppedServers, TokensWithoutData],
}

/// Of two holds one after the other, by whichever client, the later has the larger token.
pub async fn tokens_grow_from_client_to_client(fx: &impl Fixture) {
    let (key, clients) = (fresh_key(), [client(fx).await, client(fx).await, client(fx).await]);
    let mut last = None;
    for locker in clients.iter().cycle().take(30) {
        last = Some(hold_after(last, locker, &key).await);
    }
}

/// Among contending tasks too the tokens grow in the order in which they held the key.
pub async fn tokens_grow_in_the_order_of_holds(fx: &impl Fixture) {
    let (key, seen) = (fresh_key(), Arc::new(Mutex::new(Vec::new())));
    let mut tasks = JoinSet::new();
    for _ in 0..6 {
        let (key, seen, locker) = (key.clone(), Arc::clone(&seen), client(fx).await);
        tasks.spawn(async move {
            for _ in 0..10 {
                let guard = acquire(&locker, &key).await;
                seen.lock().push(guard.fencing_token());
                release(guard).await;
            }
        });
    }
    tasks.join_all().await;
    let seen = seen.lock();
    assert_eq!(seen.len(), 60, "six tasks hold the key ten times each");
    assert!(
        seen.is_sorted_by(|earlier, later| earlier < later),
        "tokens must grow from hold to hold: {seen:?}"
    );
}

/// Refused tries, and guards dropped instead of released, do not disturb the order.
pub async fn tokens_grow_past_dropped_guards_and_refusals(fx: &impl Fixture) {
    let (key, one, other) = (fresh_key(), client(fx).await, client(fx).await);
    let mut last = None;
    for _ in 0..10 {
        let guard = take_within(SOON, &one, &key).await;
        last = Some(check_grown(last, guard.fencing_token()));
        assert_held(&other, &key).await;
        drop(guard);
    }
}

/// The hold after one whose lease ran out has a larger token.
pub async fn tokens_grow_past_the_end_of_a_lease(fx: &impl Fixture) {
    let (key, locker) = (fresh_key(), client(fx).await);
    let orphan = orphan(fx, &brief(), &key);
    let guard = take_within(TTL + GRACE, &locker, &key).await;
    check_grown(Some(orphan.fencing_token()), guard.fencing_token());
    release(guard).await;
}

/// The hold after one whose record was deleted has a larger token.
pub async fn tokens_grow_past_the_deletion_of_the_key(fx: &impl Fixture) {
    let (key, one, other) = (fresh_key(), client(fx).await, client(fx).await);
    let mut last = None;
    for locker in [&one, &other, &one, &other] {
        let guard = take(locker, &key).await;
        last = Some(check_grown(last, guard.fencing_token()));
        fx.lose(&key).await.expect("the fixture loses a key");
    }
}

/// The hold after a restart of the servers with their data has a larger token.
pub async fn tokens_grow_past_a_restart_with_data(fx: &impl Fixture) {
    past_a_restart(fx, Data::Kept).await;
}

/// The hold after a restart of the servers without their data has a larger token.
pub async fn tokens_grow_past_a_restart_without_data(fx: &impl Fixture) {
    past_a_restart(fx, Data::Erased).await;
}

async fn past_a_restart(fx: &impl Fixture, data: Data) {
    let (key, locker) = (fresh_key(), client(fx).await);
    let mut last = None;
    for _ in 0..3 {
        last = Some(hold_after(last, &locker, &key).await);
    }
    fx.restart(data).await.expect("the fixture restarts its servers");
    let guard = take_within(2 * SOON, &locker, &key).await;
    check_grown(last, guard.fencing_token());
    release(guard).await;
    hold_after(last, &client(fx).await, &key).await;
}

async fn hold_after(last: Option<FencingToken>, locker: &AnyLocker, key: &Key) -> FencingToken {
    let guard = take(locker, key).await;
    let token = check_grown(last, guard.fencing_token());
    release(guard).await;
    token
}

fn check_grown(last: Option<FencingToken>, token: FencingToken) -> FencingToken {
    if let Some(last) = last {
        assert!(token > last, "a token must be larger than the one before: {last}, then {token}");
    }
    token
}
