//! Lease: it is renewed as long as it can be, and a loss is seen in time and for ever.

use std::{thread, time::Duration};

use lock_core::{AnyLocker, ErrorKind, LockGuard, Options, backend::BootInstant};
use rand::RngExt;
use tokio::{sync::oneshot, time};

use crate::{
    Data, Fixture,
    steps::{
        GRACE, SOON, TTL, UNDONE_WITHIN, assert_fails, assert_held, assert_no_traces, brief, client,
        client_with, eventually, fresh_key, in_own_runtime, leases_of, patient, release, take, take_within,
        traces, within,
    },
};

/// How often a hold is looked at.
const LOOK: Duration = Duration::from_millis(10);

properties! {
    renewal_outlives_ten_leases [Servers],
    a_hold_outlives_its_locker [Servers],
    a_hold_outlives_a_restart_with_data [Servers, StoppedServers],
    a_forgotten_holder_learns_it_by_its_next_renewal [Servers],
    the_loss_of_one_leaves_the_others [Servers],
    a_renewal_creates_no_key [Servers],
    nothing_is_renewed_after_a_release [Servers],
    a_loss_is_seen_by_the_deadline_when_servers_freeze [Servers, StoppedServers],
    a_loss_is_final [Servers, StoppedServers],
    a_starved_holder_sees_its_loss_at_its_first_question [Servers],
    a_lease_counts_from_the_sending [Servers, StoppedServers],
}

/// A lock is held, and refused to others, for ten times its lease.
pub async fn renewal_outlives_ten_leases(fx: &impl Fixture) {
    let ttl = TTL / 2;
    let (key, holder, rival) = (fresh_key(), client_with(fx, &leases_of(ttl)).await, client(fx).await);
    let guard = take(&holder, &key).await;
    assert_held_for(10 * ttl, &guard, &rival).await;
    release(guard).await;
}

/// A guard is renewed also after every handle of its locker was dropped.
pub async fn a_hold_outlives_its_locker(fx: &impl Fixture) {
    let (key, rival) = (fresh_key(), client(fx).await);
    let holder = client_with(fx, &brief()).await;
    let guard = take(&holder, &key).await;
    drop(holder);
    assert_held_for(2 * TTL, &guard, &rival).await;
    release(guard).await;
    release(take(&rival, &key).await).await;
}

/// Servers killed and started again with their data still know the holder.
pub async fn a_hold_outlives_a_restart_with_data(fx: &impl Fixture) {
    let (key, holder, rival) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = take(&holder, &key).await;
    fx.restart(Data::Kept).await.expect("the fixture restarts its servers");
    eventually("the hold to be verified after the restart", 2 * SOON, || guard.verify()).await;
    assert!(guard.is_held(), "a hold that the servers confirm is held");
    eventually("a refusal after the restart", 2 * SOON, || async {
        let tried = rival.try_lock(key.as_str()).await;
        tried.map(|guard| assert!(guard.is_none(), "{key:?} is held, so a try must be refused"))
    })
    .await;
    release(guard).await;
}

/// A holder whom the servers forgot learns it by its next renewal, long before its deadline.
pub async fn a_forgotten_holder_learns_it_by_its_next_renewal(fx: &impl Fixture) {
    let (key, locker) = (fresh_key(), client_with(fx, &often_renewed()).await);
    let guard = take(&locker, &key).await;
    fx.lose(&key).await.expect("the fixture loses a key");
    within("the loss of a forgotten lock", GRACE, guard.lost()).await;
    assert!(!guard.is_held(), "once lost() has resolved, the lock is not held");
    assert_eq!(guard.remaining(), Duration::ZERO, "nothing remains of a lost lock");
    assert_fails("a release after the loss", guard.release().await, ErrorKind::Lost);
}

/// When one lock is lost, the other locks of the same client stay held.
pub async fn the_loss_of_one_leaves_the_others(fx: &impl Fixture) {
    let (holder, rival) = (client_with(fx, &often_renewed()).await, client(fx).await);
    let mut guards = Vec::new();
    for _ in 0..5 {
        guards.push(take(&holder, &fresh_key()).await);
    }
    let lost = guards.swap_remove(2);
    fx.lose(lost.key()).await.expect("the fixture loses a key");
    within("the loss of a forgotten lock", GRACE, lost.lost()).await;
    drop(lost);
    for guard in guards {
        let verified = guard.verify().await;
        assert!(
            verified.is_ok() && guard.is_held(),
            "the loss of one lock must leave {guard:?}: {verified:?}"
        );
        assert_held(&rival, guard.key()).await;
        release(guard).await;
    }
}

/// A renewal of a lock that the servers forgot does not bring it back.
pub async fn a_renewal_creates_no_key(fx: &impl Fixture) {
    let (key, locker) = (fresh_key(), client_with(fx, &often_renewed()).await);
    let guard = take(&locker, &key).await;
    fx.lose(&key).await.expect("the fixture loses a key");
    let start = BootInstant::now();
    while BootInstant::now().since(start) < TTL {
        assert_eq!(traces(fx, &key).await, 0, "a renewal must not create {key:?} again");
        time::sleep(LOOK).await;
    }
    drop(guard);
}

/// Once a release has returned, at whatever moment between two renewals, no renewal comes after it.
pub async fn nothing_is_renewed_after_a_release(fx: &impl Fixture) {
    let options = leases_of(Duration::from_secs(9)).with_renew_every(2 * LOOK);
    let (locker, mut keys) = (client_with(fx, &options).await, Vec::new());
    for _ in 0..20 {
        keys.push(fresh_key());
        let guard = take(&locker, &keys[keys.len() - 1]).await;
        let moment = LOOK.mul_f64(rand::rng().random_range(0.0..5.0));
        time::sleep(moment).await;
        release(guard).await;
    }
    time::sleep(10 * LOOK).await;
    for key in &keys {
        assert_eq!(traces(fx, key).await, 0, "a renewal must not follow the release of {key:?}");
    }
}

/// When the servers freeze, the loss is seen before anybody else could have the key.
pub async fn a_loss_is_seen_by_the_deadline_when_servers_freeze(fx: &impl Fixture) {
    let (key, locker) = (fresh_key(), client_with(fx, &brief()).await);
    let guard = take(&locker, &key).await;
    fx.pause().await.expect("the fixture pauses its servers");
    // No renewal that the servers have seen was sent later than this.
    let frozen = BootInstant::now();
    let look = async {
        loop {
            let asked = BootInstant::now();
            if !guard.is_held() {
                break;
            }
            let since = asked.since(frozen);
            assert!(since < TTL, "the lock was still believed in {since:?} after the last possible renewal");
            time::sleep(LOOK).await;
        }
    };
    within("belief in a lock of frozen servers", TTL + GRACE, look).await;
    within("lost() after the deadline", GRACE, guard.lost()).await;
    let outcome = within("run after the loss", GRACE, guard.run(std::future::pending::<()>())).await;
    assert_fails("run after the loss", outcome, ErrorKind::Lost);
    fx.resume().await.expect("the fixture resumes its servers");
}

/// A lock that was lost is not held again when the servers, who still know it, go on.
pub async fn a_loss_is_final(fx: &impl Fixture) {
    let ttl = Duration::from_secs(3);
    // So wide a margin that the servers know the holder long after it has given up.
    let options =
        leases_of(ttl).with_renew_every(ttl / 12).with_request_timeout(ttl / 6).with_margin(ttl / 2);
    let (key, locker) = (fresh_key(), client_with(fx, &options).await);
    let guard = take(&locker, &key).await;
    fx.pause().await.expect("the fixture pauses its servers");
    within("the loss of a lock of frozen servers", ttl + GRACE, guard.lost()).await;
    fx.resume().await.expect("the fixture resumes its servers");
    let start = BootInstant::now();
    while BootInstant::now().since(start) < ttl / 3 {
        assert!(!guard.is_held(), "a lost lock must not be held again: {guard:?}");
        time::sleep(LOOK).await;
    }
    assert_fails("a release after the loss", guard.release().await, ErrorKind::Lost);
    assert_no_traces(fx, &key, UNDONE_WITHIN).await;
}

/// A holder whose runtime was blocked past its lease sees the loss at once, and no rival had the key before it.
pub async fn a_starved_holder_sees_its_loss_at_its_first_question(fx: &impl Fixture) {
    let (key, rival) = (fresh_key(), client(fx).await);
    let (held, taken) = oneshot::channel();
    let rival = tokio::spawn({
        let key = key.clone();
        async move {
            taken.await.expect("the holder tells when it holds");
            let guard = take_within(TTL + GRACE, &rival, &key).await;
            (BootInstant::now(), guard)
        }
    });
    let (believed_until, holds, released) = in_own_runtime(async {
        let guard = take(&client_with(fx, &brief()).await, &key).await;
        let believed_until = BootInstant::now().after(guard.remaining());
        held.send(()).expect("the rival waits to be told");
        // No task of this runtime can renew the lease, or note that it is over.
        thread::sleep(2 * TTL);
        (believed_until, guard.is_held(), guard.release().await)
    });
    assert!(!holds, "a holder that was blocked for twice its lease must see the loss at its first question");
    assert_fails("a release after the loss", released, ErrorKind::Lost);
    let (acquired, guard) = rival.await.expect("the rival");
    assert!(
        believed_until <= acquired,
        "the holder believed for {:?} more when the rival had the key",
        believed_until.since(acquired)
    );
    guard.verify().await.expect("the rival's hold stands after the stale release");
    release(guard).await;
}

/// A hold is believed in for one lease from the sending of its request, however late the answer came.
pub async fn a_lease_counts_from_the_sending(fx: &impl Fixture) {
    // No renewal of a session is due while the servers are stopped: it would count from its own sending.
    let (ttl, late) = (Duration::from_secs(20), Duration::from_secs(1));
    let locker = client_with(fx, &leases_of(ttl)).await;
    // With this the connection stands.
    release(take(&locker, &fresh_key()).await).await;
    fx.pause().await.expect("the fixture pauses its servers");
    let sent = BootInstant::now();
    let answer = async {
        time::sleep(late).await;
        fx.resume().await.expect("the fixture resumes its servers");
    };
    let key = fresh_key();
    let (guard, ()) = tokio::join!(take(&locker, &key), answer);
    let believed = BootInstant::now().after(guard.remaining()).since(sent);
    assert!(
        believed < ttl + late / 2,
        "the answer came {late:?} late, and the hold is believed in for {believed:?} from its sending; its lease \
         is {ttl:?}"
    );
    release(guard).await;
}

async fn assert_held_for(length: Duration, guard: &LockGuard, rival: &AnyLocker) {
    let start = BootInstant::now();
    while BootInstant::now().since(start) < length {
        let after = BootInstant::now().since(start);
        assert!(guard.is_held(), "a renewed lock must be held for ever; it was lost after {after:?}");
        assert_held(rival, guard.key()).await;
        time::sleep(10 * LOOK).await;
    }
}

/// The deadline is far away, and the next renewal is near.
fn often_renewed() -> Options {
    patient().with_renew_every(TTL / 5)
}
