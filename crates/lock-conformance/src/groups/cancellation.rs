//! Cancellation: an acquire that is given up, at any moment, leaves nothing behind.

use std::time::Duration;

use lock_core::{AnyLocker, ErrorKind, Key};
use rand::RngExt;
use tokio::time;

use crate::{
    Fixture,
    steps::{
        SOON, TTL, UNDONE_WITHIN, assert_fails, assert_no_traces, client, client_with, dropped_after,
        fresh_key, patient, release, take, take_within, within,
    },
};

/// More polls than any acquire of a free key takes.
const MANY_POLLS: usize = 64;

/// A future that is not polled again for so long is waiting for the release.
const PARKED: Duration = Duration::from_millis(250);

properties! {
    a_try_dropped_at_any_poll_leaves_nothing,
    a_lock_dropped_at_any_poll_leaves_nothing [Waiting],
    a_try_dropped_at_any_time_leaves_nothing,
    a_waiter_dropped_at_any_poll_leaves_nothing [Waiting],
    a_dropped_waiter_does_not_block_the_next [Waiting],
    a_waiter_dropped_as_the_key_is_freed_leaves_it_free [Waiting],
    a_release_dropped_at_any_poll_still_frees,
    the_undo_of_a_dropped_try_leaves_the_next_hold,
    a_late_grant_to_a_dropped_try_is_undone [Servers, StoppedServers],
    a_late_grant_to_a_try_out_of_time_is_undone [Servers, StoppedServers],
}

/// A try dropped after its first, second, … last poll leaves no trace after 1 s, and the key can be taken.
pub async fn a_try_dropped_at_any_poll_leaves_nothing(fx: &impl Fixture) {
    let (locker, other) = (client(fx).await, client(fx).await);
    for polls in 1..=MANY_POLLS {
        let key = fresh_key();
        let acquired = dropped_after(polls, locker.try_lock(key.as_str())).await;
        let done = acquired.is_some();
        drop(acquired);
        assert_nothing_left(fx, &other, &key).await;
        if done {
            return;
        }
    }
    panic!("a try for a free key must be done after {MANY_POLLS} polls");
}

/// A `lock` of a free key dropped after its first, second, … last poll leaves no trace after 1 s.
pub async fn a_lock_dropped_at_any_poll_leaves_nothing(fx: &impl Fixture) {
    let (locker, other) = (client(fx).await, client(fx).await);
    for polls in 1..=MANY_POLLS {
        let key = fresh_key();
        let acquired = dropped_after(polls, locker.lock(key.as_str())).await;
        let done = acquired.is_some();
        drop(acquired);
        assert_nothing_left(fx, &other, &key).await;
        if done {
            return;
        }
    }
    panic!("a wait for a free key must be done after {MANY_POLLS} polls");
}

/// A try dropped after a random time, with its request or its answer on the way, leaves no trace after 1 s.
pub async fn a_try_dropped_at_any_time_leaves_nothing(fx: &impl Fixture) {
    let (locker, other) = (client(fx).await, client(fx).await);
    for _ in 0..40 {
        let key = fresh_key();
        let moment = Duration::from_micros(rand::rng().random_range(0..2_000));
        drop(time::timeout(moment, locker.try_lock(key.as_str())).await);
        assert_nothing_left(fx, &other, &key).await;
    }
}

/// A waiter dropped after its first, second, … poll, or while it is parked, leaves no trace beside the holder's.
pub async fn a_waiter_dropped_at_any_poll_leaves_nothing(fx: &impl Fixture) {
    let (locker, other) = (client(fx).await, client(fx).await);
    for polls in 1..=MANY_POLLS {
        let key = fresh_key();
        let guard = take(&other, &key).await;
        let waited = time::timeout(PARKED, dropped_after(polls, locker.lock(key.as_str()))).await;
        let parked = waited.is_err();
        assert!(
            !matches!(waited, Ok(Some(_))),
            "{key:?} is held, so a wait must not end; it gave {waited:?}"
        );
        release(guard).await;
        assert_nothing_left(fx, &other, &key).await;
        if parked {
            return;
        }
    }
    panic!("a wait for a held key must park before its poll {MANY_POLLS}");
}

/// The waiter behind one that was dropped gets the key.
pub async fn a_dropped_waiter_does_not_block_the_next(fx: &impl Fixture) {
    let (key, holder, other) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = take(&holder, &key).await;
    let (dropped, next) = (client(fx).await, other.clone());
    let waits = async {
        let given_up = time::timeout(PARKED, dropped.lock(key.as_str()));
        let (given_up, acquired) = tokio::join!(given_up, next.lock(key.as_str()));
        assert!(given_up.is_err(), "{key:?} was held all the time; the wait gave {given_up:?}");
        acquired.expect("the wait of the next")
    };
    let hold = async {
        time::sleep(2 * PARKED).await;
        release(guard).await;
    };
    let (acquired, ()) = within("the wait of the next", SOON, async { tokio::join!(waits, hold) }).await;
    release(acquired).await;
    assert_no_traces(fx, &key, UNDONE_WITHIN).await;
}

/// A waiter dropped at about the moment when the key is freed leaves it free.
pub async fn a_waiter_dropped_as_the_key_is_freed_leaves_it_free(fx: &impl Fixture) {
    let (holder, waiter) = (client(fx).await, client(fx).await);
    for _ in 0..40 {
        let key = fresh_key();
        let guard = take(&holder, &key).await;
        let moment = Duration::from_micros(rand::rng().random_range(0..4_000));
        let wait = time::timeout(Duration::from_millis(5), waiter.lock(key.as_str()));
        let hold = async {
            time::sleep(Duration::from_millis(3) + moment).await;
            release(guard).await;
        };
        let (acquired, ()) = tokio::join!(wait, hold);
        drop(acquired);
        assert_nothing_left(fx, &holder, &key).await;
    }
}

/// A release dropped after its first, second, … last poll goes on in the background.
pub async fn a_release_dropped_at_any_poll_still_frees(fx: &impl Fixture) {
    let (locker, other) = (client(fx).await, client(fx).await);
    for polls in 1..=MANY_POLLS {
        let key = fresh_key();
        let guard = take(&locker, &key).await;
        let released = dropped_after(polls, guard.release()).await;
        assert_nothing_left(fx, &other, &key).await;
        match released {
            Some(Ok(())) => return,
            Some(Err(error)) => panic!("{key:?} was held until now: {error:?}"),
            None => {}
        }
    }
    panic!("a release must be done after {MANY_POLLS} polls");
}

/// The undo of a dropped try, which may be late, does not touch the hold that the same client has next.
pub async fn the_undo_of_a_dropped_try_leaves_the_next_hold(fx: &impl Fixture) {
    let (key, locker) = (fresh_key(), client(fx).await);
    for round in 0..60 {
        drop(dropped_after(1 + round % 4, locker.try_lock(key.as_str())).await);
        let next = take_within(SOON, &locker, &key).await;
        // What was under way when the key was taken has arrived by the time of the second answer.
        for _ in 0..2 {
            let verified = next.verify().await;
            assert!(
                verified.is_ok(),
                "round {round}: the next hold was freed by the undo of a dropped try: {verified:?}"
            );
        }
        release(next).await;
    }
}

/// Servers that grant a key only after the try for it was dropped have it back within 1 s.
pub async fn a_late_grant_to_a_dropped_try_is_undone(fx: &impl Fixture) {
    let locker = client(fx).await;
    late_grant(fx, &locker, async |key| {
        let tried = time::timeout(PARKED, locker.try_lock(key.as_str())).await;
        assert!(tried.is_err(), "frozen servers grant nothing; the try gave {tried:?}");
    })
    .await;
}

/// Servers that grant a key only after the try for it has run out of time have it back within 1 s.
pub async fn a_late_grant_to_a_try_out_of_time_is_undone(fx: &impl Fixture) {
    let locker = client_with(fx, &patient().with_request_timeout(TTL / 2)).await;
    late_grant(fx, &locker, async |key| {
        let tried = within("a try with a request timeout", SOON, locker.try_lock(key.as_str())).await;
        let error = assert_fails("a try at frozen servers", tried, ErrorKind::Unavailable);
        assert!(error.is_transient(), "the same try may succeed later, and the error must say so: {error:?}");
    })
    .await;
}

async fn late_grant(fx: &impl Fixture, locker: &AnyLocker, give_up: impl AsyncFnOnce(&Key)) {
    let (key, other) = (fresh_key(), client(fx).await);
    // With this the connection stands, and the request below goes out on it.
    release(take(locker, &key).await).await;
    fx.pause().await.expect("the fixture pauses its servers");
    give_up(&key).await;
    fx.resume().await.expect("the fixture resumes its servers");
    // Once this is answered, so is what was sent before it, unless the client has more than one connection.
    release(take(locker, &fresh_key()).await).await;
    assert_nothing_left(fx, &other, &key).await;
}

async fn assert_nothing_left(fx: &impl Fixture, other: &AnyLocker, key: &Key) {
    assert_no_traces(fx, key, UNDONE_WITHIN).await;
    release(take_within(UNDONE_WITHIN, other, key).await).await;
}
