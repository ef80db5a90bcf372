//! Options: what cannot work is refused when the locker is made, and what was asked for is kept.

use std::time::Duration;

use lock_core::{ErrorKind, Options, backend::Effect};

use crate::{
    Fixture,
    steps::{
        GRACE, SOON, assert_fails, client, client_with, fresh_key, leases_of, orphan, release, take,
        take_within,
    },
};

properties! {
    impossible_options_are_refused [Servers],
    a_lease_lasts_as_long_as_asked_for [Servers],
    fractions_of_a_millisecond_are_cut_off [Servers],
}

/// A TTL of zero, below a millisecond or beyond all bounds, and a renewal that comes too late, are refused.
pub async fn impossible_options_are_refused(fx: &impl Fixture) {
    let ok = Options::default;
    for options in [
        ok().with_ttl(Duration::ZERO),
        ok().with_ttl(Duration::from_nanos(1)),
        ok().with_ttl(Duration::from_micros(999)),
        ok().with_ttl(Duration::MAX),
        ok().with_ttl(Duration::from_secs(u64::from(u32::MAX))),
        ok().with_renew_every(Duration::ZERO),
        ok().with_renew_every(Duration::MAX),
        ok().with_request_timeout(Duration::ZERO),
        ok().with_request_timeout(Duration::MAX),
        ok().with_margin(Duration::MAX),
        ok().with_drift(-1.0),
        ok().with_drift(f64::NAN),
    ] {
        let error = assert_fails(
            &format!("a locker with {options:?}"),
            fx.locker(&options).await,
            ErrorKind::InvalidInput,
        );
        assert_eq!(
            error.effect(),
            Effect::None,
            "refused options have no effect, and the error must say so: {error:?}"
        );
    }
}

/// A lease that nobody renews is believed in for most of its TTL, and never when another has the key.
pub async fn a_lease_lasts_as_long_as_asked_for(fx: &impl Fixture) {
    let (key, rival, ttl) = (fresh_key(), client(fx).await, Duration::from_secs(3));
    let orphan = orphan(fx, &leases_of(ttl), &key);
    let left = orphan.remaining();
    assert!(left <= ttl, "a lease of {ttl:?} must not be believed in for {left:?}");
    assert!(left > ttl / 2, "most of a fresh lease of {ttl:?} must be left, not {left:?}");
    // The belief is looked at when the rival has the key, so that an overlap cannot hide between two looks.
    let guard = take_within(ttl + GRACE, &rival, &key).await;
    assert!(!orphan.is_held(), "a rival has {key:?}, so its last holder must not believe in it");
    release(guard).await;
}

/// A TTL with a fraction of a millisecond is as good as one without.
pub async fn fractions_of_a_millisecond_are_cut_off(fx: &impl Fixture) {
    let (key, ttl) = (fresh_key(), Duration::from_nanos(10_000_999_999));
    let locker = client_with(fx, &Options::default().with_ttl(ttl)).await;
    let guard = take(&locker, &key).await;
    assert!(
        guard.remaining() <= ttl,
        "a lease of {ttl:?} must not be believed in for {:?}",
        guard.remaining()
    );
    release(guard).await;
    release(take_within(SOON, &locker, &key).await).await;
}
