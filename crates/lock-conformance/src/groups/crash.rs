//! Crash: a process that dies or sleeps holds a key no longer than its lease.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time;

use crate::{
    Fixture,
    agent::Agent,
    steps::{
        GRACE, SOON, TTL, acquire, assert_held, brief, client, fresh_key, orphan, release, take, take_within,
        within,
    },
};

properties! {
    a_killed_holder_is_succeeded [Processes],
    a_stopped_holder_sees_its_loss_at_its_first_question [Processes],
    a_killed_waiter_does_not_block_the_next [Processes, Waiting],
    a_holder_without_a_runtime_is_succeeded [Servers],
}

/// The key of a holder that was killed can be taken within 2 s of the end of its lease.
pub async fn a_killed_holder_is_succeeded(fx: &impl Fixture) {
    let (key, successor) = (fresh_key(), client(fx).await);
    let mut holder = Agent::start(fx, TTL).await;
    let token = holder.take(&key).await;
    assert_held(&successor, &key).await;
    holder.signal(Signal::KILL);
    let guard =
        within("the wait for the key of a killed holder", TTL + GRACE, acquire(&successor, &key)).await;
    assert!(guard.fencing_token() > token, "tokens must grow: {token}, then {guard:?}");
    release(guard).await;
}

/// A process that was stopped past the end of its lease, while another took the key, does not believe in it again.
pub async fn a_stopped_holder_sees_its_loss_at_its_first_question(fx: &impl Fixture) {
    let (key, rival) = (fresh_key(), client(fx).await);
    let mut holder = Agent::start(fx, TTL).await;
    let token = holder.take(&key).await;
    assert!(holder.is_held().await, "a fresh hold is held");
    holder.signal(Signal::STOP);
    let guard = take_within(TTL + GRACE, &rival, &key).await;
    assert!(guard.fencing_token() > token, "tokens must grow: {token}, then {guard:?}");
    holder.signal(Signal::CONT);
    assert!(
        !holder.is_held().await,
        "a rival holds {key:?}, so the stopped holder must see its loss at once"
    );
    assert_eq!(holder.release().await, Err("Lost".to_owned()), "a release after loss must fail as Lost");
    guard.verify().await.expect("the rival's hold stands after the stale release");
    release(guard).await;
}

/// A waiter that was killed while it waited does not keep the key from the next for longer than a lease.
pub async fn a_killed_waiter_does_not_block_the_next(fx: &impl Fixture) {
    let (key, holder, next) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = take(&holder, &key).await;
    let mut waiter = Agent::start(fx, TTL).await;
    waiter.begin_to_wait(&key).await;
    time::sleep(Duration::from_millis(200)).await;
    waiter.signal(Signal::KILL);
    release(guard).await;
    release(within("the wait behind a killed waiter", TTL + GRACE, acquire(&next, &key)).await).await;
}

/// The key of a holder whose runtime has ended, so that nothing renews it, can be taken within 2 s of its lease.
pub async fn a_holder_without_a_runtime_is_succeeded(fx: &impl Fixture) {
    let (key, successor) = (fresh_key(), client(fx).await);
    let orphan = orphan(fx, &brief(), &key);
    assert_held(&successor, &key).await;
    let guard = within("the wait for the key of a dead holder", TTL + GRACE, acquire(&successor, &key)).await;
    assert!(!orphan.is_held(), "{key:?} is another's, so the dead holder must not believe in it");
    within("the drop of a guard without a runtime", SOON, async { drop(orphan) }).await;
    guard.verify().await.expect("the successor's hold stands");
    release(guard).await;
}
