//! Release: a key given back is free at once, and nobody else's hold ever is.

use lock_core::backend::Effect;
use std::{panic, thread};

use lock_core::ErrorKind;

use crate::{
    Fixture,
    steps::{
        GRACE, SOON, TTL, assert_fails, assert_held, assert_no_traces, brief, client, fresh_key, orphan,
        patient, release, take, take_within, traces, within,
    },
};

properties! {
    release_frees_at_once,
    a_dropped_guard_frees,
    a_guard_dropped_on_a_plain_thread_frees,
    a_panicking_holder_frees,
    a_guard_may_outlive_its_runtime,
    a_release_after_the_end_of_its_runtime_says_so [Servers],
    a_background_release_leaves_the_next_hold,
    a_release_after_loss_says_so [Servers],
    a_stale_release_frees_nothing [Servers],
    a_stale_guard_dropped_frees_nothing [Servers],
    a_release_without_an_answer_is_repeated [Servers, StoppedServers],
    close_waits_for_background_releases,
    close_leaves_live_guards_alone,
    a_closed_locker_refuses,
}

/// As soon as a release has returned, the key can be taken, and nothing is left of the hold.
pub async fn release_frees_at_once(fx: &impl Fixture) {
    let (key, one, other) = (fresh_key(), client(fx).await, client(fx).await);
    for _ in 0..20 {
        release(take(&one, &key).await).await;
        release(take(&other, &key).await).await;
    }
    assert_no_traces(fx, &key, SOON).await;
}

/// Dropping a guard gives its key back in the background.
pub async fn a_dropped_guard_frees(fx: &impl Fixture) {
    let (key, one, other) = (fresh_key(), client(fx).await, client(fx).await);
    drop(take(&one, &key).await);
    release(take_within(SOON, &other, &key).await).await;
    assert_no_traces(fx, &key, SOON).await;
}

/// A guard may be dropped on a thread that knows nothing of the runtime.
pub async fn a_guard_dropped_on_a_plain_thread_frees(fx: &impl Fixture) {
    let (key, one, other) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = take(&one, &key).await;
    thread::spawn(move || drop(guard)).join().expect("the drop of a guard never panics");
    release(take_within(SOON, &other, &key).await).await;
}

/// A holder that panics gives its key back.
pub async fn a_panicking_holder_frees(fx: &impl Fixture) {
    let (key, one, other) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = take(&one, &key).await;
    let holder = tokio::spawn(async move {
        let _guard = guard;
        // Unlike a panic, this prints nothing.
        panic::resume_unwind(Box::new("a bug in the critical section"));
    });
    assert!(holder.await.is_err(), "the holder panics");
    release(take_within(SOON, &other, &key).await).await;
}

/// A guard dropped after its runtime has ended does not panic; at the latest the end of the lease frees the key.
pub async fn a_guard_may_outlive_its_runtime(fx: &impl Fixture) {
    let (key, other) = (fresh_key(), client(fx).await);
    drop(orphan(fx, &brief(), &key));
    release(take_within(TTL + GRACE, &other, &key).await).await;
}

/// What fails because the guard's runtime has ended says that this is why. Where no runtime is needed, nothing fails.
pub async fn a_release_after_the_end_of_its_runtime_says_so(fx: &impl Fixture) {
    let keys = [fresh_key(), fresh_key()];
    let [released, verified] = keys.each_ref().map(|key| orphan(fx, &patient(), key));
    let looked = within("a look", SOON, verified.verify()).await;
    let released = within("a release", SOON, released.release()).await;
    for (what, outcome) in [("a look", looked), ("a release", released)] {
        if outcome.is_err() {
            assert_fails(&format!("{what} after the end of its runtime"), outcome, ErrorKind::Closed);
        }
    }
}

/// The release of a dropped guard, which may be late, does not touch the hold that the same client has next.
pub async fn a_background_release_leaves_the_next_hold(fx: &impl Fixture) {
    let (key, locker) = (fresh_key(), client(fx).await);
    for round in 0..50 {
        drop(take_within(SOON, &locker, &key).await);
        let next = take_within(SOON, &locker, &key).await;
        // Whatever was under way when the key was taken has arrived by the time of the second answer.
        for _ in 0..2 {
            let verified = next.verify().await;
            assert!(
                verified.is_ok(),
                "round {round}: the next hold was freed by the release of the one before: {verified:?}"
            );
        }
        release(next).await;
    }
}

/// Releasing a lock that was lost fails as `Lost`, also if the holder learns of the loss only now.
pub async fn a_release_after_loss_says_so(fx: &impl Fixture) {
    let (key, locker) = (fresh_key(), client(fx).await);
    let guard = take(&locker, &key).await;
    fx.lose(&key).await.expect("the fixture loses a key");
    assert_fails("a release after the loss", guard.release().await, ErrorKind::Lost);
}

/// The release of a lost lock leaves the hold of whoever came after.
pub async fn a_stale_release_frees_nothing(fx: &impl Fixture) {
    let (key, one, other) = (fresh_key(), client(fx).await, client(fx).await);
    let stale = take(&one, &key).await;
    fx.lose(&key).await.expect("the fixture loses a key");
    let successor = take(&other, &key).await;
    let released = stale.release().await;
    let verified = successor.verify().await;
    assert!(
        verified.is_ok(),
        "a stale release must leave the hold of the successor, which found {verified:?}"
    );
    assert_fails("a stale release", released, ErrorKind::Lost);
    assert_held(&one, &key).await;
    release(successor).await;
}

/// The drop of a lost guard leaves the hold of whoever came after.
pub async fn a_stale_guard_dropped_frees_nothing(fx: &impl Fixture) {
    let (key, one, other) = (fresh_key(), client(fx).await, client(fx).await);
    let stale = take(&one, &key).await;
    fx.lose(&key).await.expect("the fixture loses a key");
    let successor = take(&other, &key).await;
    drop(stale);
    within("the release in the background", SOON, one.close()).await;
    let verified = successor.verify().await;
    assert!(verified.is_ok(), "a stale drop must leave the hold of the successor, which found {verified:?}");
    release(successor).await;
}

/// A release that got no answer fails as `Unavailable` and is repeated until the key is free.
pub async fn a_release_without_an_answer_is_repeated(fx: &impl Fixture) {
    let (key, locker) = (fresh_key(), client(fx).await);
    let guard = take(&locker, &key).await;
    fx.pause().await.expect("the fixture pauses its servers");
    let released = within("a release from frozen servers", 2 * SOON, guard.release()).await;
    assert_fails("a release from frozen servers", released, ErrorKind::Unavailable);
    fx.resume().await.expect("the fixture resumes its servers");
    assert_no_traces(fx, &key, SOON).await;
}

/// When `close` returns, the keys of all guards dropped before are free.
pub async fn close_waits_for_background_releases(fx: &impl Fixture) {
    let locker = client(fx).await;
    let mut keys = Vec::new();
    for _ in 0..20 {
        keys.push(fresh_key());
        drop(take(&locker, &keys[keys.len() - 1]).await);
    }
    within("close", SOON, locker.close()).await;
    for key in &keys {
        let left = traces(fx, key).await;
        assert_eq!(left, 0, "after close nothing may be left of {key:?}");
    }
}

/// A guard that lives when its locker is closed stays held, and can be released.
pub async fn close_leaves_live_guards_alone(fx: &impl Fixture) {
    let (key, locker) = (fresh_key(), client(fx).await);
    let guard = take(&locker, &key).await;
    within("close with a live guard", SOON, locker.close()).await;
    assert!(guard.is_held(), "close must leave a live guard held");
    guard.verify().await.expect("close leaves the hold of a live guard");
    release(guard).await;
    assert_eq!(traces(fx, &key).await, 0, "a release after close leaves nothing");
}

/// After `close`, in all clones, an acquire fails as `Closed` and does nothing.
pub async fn a_closed_locker_refuses(fx: &impl Fixture) {
    let (key, locker) = (fresh_key(), client(fx).await);
    let clone = locker.clone();
    within("close", SOON, locker.close()).await;
    let error = assert_fails("a try after close", clone.try_lock(key.as_str()).await, ErrorKind::Closed);
    assert_eq!(error.effect(), Effect::None, "a refusal has no effect, and must say so: {error:?}");
    assert_eq!(traces(fx, &key).await, 0, "a refused try leaves nothing");
}
