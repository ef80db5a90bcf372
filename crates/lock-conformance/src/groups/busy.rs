//! Busy: that another holds a key is an answer, not an error, and it comes at once.

use crate::{
    Fixture,
    steps::{SOON, assert_held, client, fresh_key, release, take, traces, within},
};

properties! {
    busy_is_a_value,
    a_try_does_not_wait,
    refused_tries_leave_nothing,
}

/// A try for a held key gives `Ok(None)`.
pub async fn busy_is_a_value(fx: &impl Fixture) {
    let (key, holder, other) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = take(&holder, &key).await;
    let tried = other.try_lock(key.as_str()).await;
    assert!(matches!(tried, Ok(None)), "a try for a held key must give Ok(None); it gave {tried:?}");
    release(guard).await;
}

/// A try for a held key returns long before the holder's lease could end.
pub async fn a_try_does_not_wait(fx: &impl Fixture) {
    let (key, holder, other) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = take(&holder, &key).await;
    within("a try for a held key", SOON, assert_held(&other, &key)).await;
    release(guard).await;
}

/// Refused tries leave nothing beside the hold that refused them.
pub async fn refused_tries_leave_nothing(fx: &impl Fixture) {
    let (key, holder, other) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = take(&holder, &key).await;
    let before = traces(fx, &key).await;
    for _ in 0..20 {
        assert_held(&other, &key).await;
    }
    let after = traces(fx, &key).await;
    assert_eq!(after, before, "twenty refused tries must leave as many traces as there were");
    release(guard).await;
    release(take(&other, &key).await).await;
}
