//! Capabilities: what a backend says of itself is what is seen.

use std::time::Duration;

use lock_core::{Capabilities, ErrorKind, Scope, Waiting, backend::Effect};
use tokio::time;

use crate::{
    Fixture,
    steps::{SOON, assert_fails, client, fresh_key, patient, release, take, traces, within},
};

properties! {
    all_clients_say_the_same,
    it_waits_as_declared,
    it_can_be_lost_as_declared,
    traces_are_seen,
}

/// Every client of a backend, and every clone, declares the same.
pub async fn all_clients_say_the_same(fx: &impl Fixture) {
    let locker = client(fx).await;
    let declared = locker.capabilities();
    assert_eq!(locker.clone().capabilities(), declared, "a clone must declare the same");
    assert_eq!(client(fx).await.capabilities(), declared, "another client must declare the same");
}

/// A backend that waits has `lock` and `try_lock_for`; one that does not refuses both as unsupported.
pub async fn it_waits_as_declared(fx: &impl Fixture) {
    let (key, locker) = (fresh_key(), client(fx).await);
    let locked = within("lock", SOON, locker.lock(key.as_str())).await;
    if locker.capabilities().waiting == Waiting::Never {
        let error = assert_fails("lock", locked, ErrorKind::Unsupported);
        assert_eq!(error.effect(), Effect::None, "a refusal has no effect, and must say so: {error:?}");
        let waited = within("try_lock_for", SOON, locker.try_lock_for(key.as_str(), SOON)).await;
        assert_fails("try_lock_for", waited, ErrorKind::Unsupported);
    } else {
        release(locked.expect("a declared wait for a free key")).await;
        let waited = within("try_lock_for", SOON, locker.try_lock_for(key.as_str(), SOON)).await;
        release(waited.expect("a declared wait").expect("the key is free")).await;
    }
    assert_eq!(traces(fx, &key).await, 0, "nothing is left");
}

/// A lock in one process is held for ever; one on servers for its lease, counted down.
pub async fn it_can_be_lost_as_declared(fx: &impl Fixture) {
    let locker = client(fx).await;
    let guard = take(&locker, &fresh_key()).await;
    let (ttl, remaining) = (patient().check().expect("valid options").ttl(), guard.remaining());
    match locker.capabilities() {
        Capabilities { scope: Scope::Process, .. } => {
            assert_eq!(remaining, Duration::MAX, "a lock that cannot be lost remains for ever");
            let lost = time::timeout(Duration::from_millis(50), guard.lost()).await;
            assert!(lost.is_err(), "a lock that cannot be lost must not report a loss");
        }
        _ => assert!(
            Duration::ZERO < remaining && remaining <= ttl,
            "of a lease of {ttl:?} at most all can be left, not {remaining:?}"
        ),
    }
    assert!(guard.is_held(), "a fresh hold is held");
    release(guard).await;
}

/// The fixture sees a hold and its end: without this, no property that counts traces says anything.
pub async fn traces_are_seen(fx: &impl Fixture) {
    let (key, locker) = (fresh_key(), client(fx).await);
    assert_eq!(traces(fx, &key).await, 0, "a fresh key has no traces");
    let guard = take(&locker, &key).await;
    assert!(traces(fx, &key).await > 0, "a held key must have traces");
    release(guard).await;
    assert_eq!(traces(fx, &key).await, 0, "a released key has no traces");
}
