//! Timeouts: a bounded wait ends in its time, however often it is woken.

use std::time::Duration;

use lock_core::backend::BootInstant;
use tokio::{sync::oneshot, task::JoinSet, time};

use crate::{
    Fixture,
    steps::{SOON, acquire, assert_no_traces, client, fresh_key, release, take, within},
};

const SHORT: Duration = Duration::from_millis(200);

properties! {
    a_timeout_of_zero_is_one_try [Waiting],
    a_short_timeout_is_kept [Waiting],
    a_key_freed_in_time_is_acquired [Waiting],
    an_endless_timeout_is_no_overflow [Waiting],
    a_waiter_woken_in_vain_gives_up_in_its_time [Told],
    a_waiter_behind_others_that_leave_gives_up_in_its_time [Waiting],
}

/// With a timeout of zero a free key is acquired and a held one refused.
pub async fn a_timeout_of_zero_is_one_try(fx: &impl Fixture) {
    let (key, holder, other) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = holder.try_lock_for(key.as_str(), Duration::ZERO).await.expect("a try for a free key");
    let guard = guard.unwrap_or_else(|| panic!("{key:?} is free, so one try must acquire it"));
    let refused = within("a wait of zero", SOON, other.try_lock_for(key.as_str(), Duration::ZERO)).await;
    assert!(matches!(refused, Ok(None)), "{key:?} is held, so one try must be refused; it gave {refused:?}");
    release(guard).await;
}

/// A wait for a key that stays held ends with `None`, not before its timeout and not long after.
pub async fn a_short_timeout_is_kept(fx: &impl Fixture) {
    let (key, holder, other) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = take(&holder, &key).await;
    let start = BootInstant::now();
    let refused = within("a wait of 200 ms", SOON, other.try_lock_for(key.as_str(), SHORT)).await;
    let waited = BootInstant::now().since(start);
    assert!(matches!(refused, Ok(None)), "a wait for a held key must give None; it gave {refused:?}");
    assert!(waited >= SHORT, "a wait of {SHORT:?} must not end after {waited:?}");
    release(guard).await;
    assert_no_traces(fx, &key, SOON).await;
}

/// A wait ends with a guard if the key is released before the timeout.
pub async fn a_key_freed_in_time_is_acquired(fx: &impl Fixture) {
    let (key, holder, other) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = take(&holder, &key).await;
    let wait = async { other.try_lock_for(key.as_str(), 2 * SOON).await.expect("the wait") };
    let hold = async {
        time::sleep(SHORT / 2).await;
        release(guard).await;
    };
    let (acquired, ()) =
        within("a wait for a key that is released", SOON, async { tokio::join!(wait, hold) }).await;
    release(acquired.unwrap_or_else(|| panic!("{key:?} was freed long before the timeout"))).await;
}

/// `Duration::MAX` is a timeout like any other.
pub async fn an_endless_timeout_is_no_overflow(fx: &impl Fixture) {
    let (key, holder, other) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = holder.try_lock_for(key.as_str(), Duration::MAX).await.expect("a try for a free key");
    let guard = guard.unwrap_or_else(|| panic!("{key:?} is free, so the wait must acquire it"));
    let wait = async { other.try_lock_for(key.as_str(), Duration::MAX).await.expect("the wait") };
    let (acquired, ()) =
        within("a wait for a key that is released", SOON, async { tokio::join!(wait, release(guard)) }).await;
    release(acquired.unwrap_or_else(|| panic!("an endless wait for {key:?} must not give up"))).await;
}

/// A waiter that is told of release after release, and comes too late each time, gives up in about its time.
pub async fn a_waiter_woken_in_vain_gives_up_in_its_time(fx: &impl Fixture) {
    let (key, holder, other) = (fresh_key(), client(fx).await, client(fx).await);
    let (stop, mut stopped) = oneshot::channel();
    let guard = take(&holder, &key).await;
    let churned = key.clone();
    let churn = tokio::spawn(async move {
        let mut guard = guard;
        while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
            time::sleep(Duration::from_millis(20)).await;
            // The next try follows the release so closely that a waiter, told of the release, finds the key held.
            let (released, next) = tokio::join!(guard.release(), holder.try_lock(churned.as_str()));
            released.expect("the key was held until now");
            guard = match next.expect("a try") {
                Some(guard) => guard,
                None => acquire(&holder, &churned).await,
            };
        }
        release(guard).await;
    });
    let wait = other.try_lock_for(key.as_str(), 5 * SHORT);
    let waited = within("a wait of 1 s among many wake-ups", SOON, wait).await.expect("the wait");
    drop(waited);
    stop.send(()).expect("the churn goes on until it is told to stop");
    within("the churn", SOON, churn).await.expect("the churn");
    assert_no_traces(fx, &key, SOON).await;
}

/// A waiter behind others that give up one by one gives up in about its own time.
pub async fn a_waiter_behind_others_that_leave_gives_up_in_its_time(fx: &impl Fixture) {
    let (key, holder, other) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = take(&holder, &key).await;
    let mut leavers = JoinSet::new();
    for leaver in 1..=20 {
        let (other, key) = (other.clone(), key.clone());
        leavers.spawn(async move { other.try_lock_for(key.as_str(), leaver * SHORT / 5).await });
    }
    let wait = other.try_lock_for(key.as_str(), 5 * SHORT);
    let waited = within("a wait of 1 s behind others", SOON, wait).await;
    assert!(matches!(waited, Ok(None)), "{key:?} was held all the time; the wait gave {waited:?}");
    for left in leavers.join_all().await {
        assert!(matches!(left, Ok(None)), "{key:?} was held all the time; a wait gave {left:?}");
    }
    release(guard).await;
    assert_no_traces(fx, &key, SOON).await;
}
