//! Verify: what the servers say of a hold.

use lock_core::ErrorKind;

use crate::{
    Fixture,
    steps::{SOON, assert_fails, client, fresh_key, release, take, within},
};

properties! {
    verify_confirms_a_hold,
    verify_tells_a_loss [Servers],
    verify_without_an_answer_changes_nothing [Servers, StoppedServers],
}

/// As long as the lock is held, `verify` succeeds.
pub async fn verify_confirms_a_hold(fx: &impl Fixture) {
    let guard = take(&client(fx).await, &fresh_key()).await;
    for _ in 0..10 {
        let verified = guard.verify().await;
        assert!(verified.is_ok(), "verify must confirm a hold; it gave {verified:?}");
    }
    release(guard).await;
}

/// After the servers forgot the holder, or have another, `verify` fails as `Lost`, and so does the guard.
pub async fn verify_tells_a_loss(fx: &impl Fixture) {
    for has_successor in [false, true] {
        let (key, one, other) = (fresh_key(), client(fx).await, client(fx).await);
        let guard = take(&one, &key).await;
        fx.lose(&key).await.expect("the fixture loses a key");
        let successor = if has_successor { Some(take(&other, &key).await) } else { None };
        assert_fails("verify after the loss", guard.verify().await, ErrorKind::Lost);
        assert!(!guard.is_held(), "after verify has told the loss, the lock is not held");
        within("lost() after verify has told the loss", SOON, guard.lost()).await;
        drop(successor);
    }
}

/// When the servers do not answer, `verify` fails as `Unavailable`, and the lock is held as before.
pub async fn verify_without_an_answer_changes_nothing(fx: &impl Fixture) {
    let guard = take(&client(fx).await, &fresh_key()).await;
    fx.pause().await.expect("the fixture pauses its servers");
    let verified = within("verify at frozen servers", 2 * SOON, guard.verify()).await;
    assert_fails("verify at frozen servers", verified, ErrorKind::Unavailable);
    assert!(guard.is_held(), "a question without an answer must not end the hold");
    fx.resume().await.expect("the fixture resumes its servers");
    guard.verify().await.expect("the hold stands when the servers go on");
    release(guard).await;
}
