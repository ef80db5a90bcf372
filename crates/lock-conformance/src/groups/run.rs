//! Run: work under a lock stops when the lock is lost.

use std::{
    future,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use lock_core::ErrorKind;
use tokio::{task, time};

use crate::{
    Fixture,
    steps::{
        GRACE, TTL, assert_fails, assert_held, client, client_with, fresh_key, patient, release, take, within,
    },
};

properties! {
    run_returns_what_the_work_returns,
    run_stops_the_work_on_loss [Servers],
    run_starts_nothing_after_a_loss [Servers],
    a_dropped_run_leaves_the_lock_held,
}

/// As long as the lock is held, `run` gives the output of the work.
pub async fn run_returns_what_the_work_returns(fx: &impl Fixture) {
    let guard = take(&client(fx).await, &fresh_key()).await;
    let work = async {
        task::yield_now().await;
        42
    };
    assert_eq!(guard.run(work).await.expect("the lock is held"), 42, "run must hand on the output");
    release(guard).await;
}

/// Work that is under way when the lock is lost is dropped, and `run` fails as `Lost`.
pub async fn run_stops_the_work_on_loss(fx: &impl Fixture) {
    let locker = client_with(fx, &patient().with_renew_every(TTL / 5)).await;
    let guard = take(&locker, &fresh_key()).await;
    let dropped = AtomicBool::new(false);
    let work = async {
        let _set = SetOnDrop(&dropped);
        fx.lose(guard.key()).await.expect("the fixture loses a key");
        future::pending::<()>().await;
    };
    let outcome = within("run of work whose lock is lost", GRACE, guard.run(work)).await;
    assert_fails("run", outcome, ErrorKind::Lost);
    assert!(dropped.load(Ordering::SeqCst), "the work must be dropped when its lock is lost");
}

/// `run` on a lost lock fails as `Lost`, without a single step of the work.
pub async fn run_starts_nothing_after_a_loss(fx: &impl Fixture) {
    let locker = client_with(fx, &patient().with_renew_every(TTL / 5)).await;
    let guard = take(&locker, &fresh_key()).await;
    fx.lose(guard.key()).await.expect("the fixture loses a key");
    within("the loss of a forgotten lock", GRACE, guard.lost()).await;
    let outcome = guard.run(async { panic!("the work must not begin after the loss") }).await;
    assert_fails::<()>("run after the loss", outcome, ErrorKind::Lost);
}

/// Dropping `run` drops the work and leaves the lock held.
pub async fn a_dropped_run_leaves_the_lock_held(fx: &impl Fixture) {
    let (key, holder, other) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = take(&holder, &key).await;
    let ended = time::timeout(Duration::from_millis(20), guard.run(future::pending::<()>())).await;
    assert!(ended.is_err(), "endless work under a held lock must not end; run gave {ended:?}");
    assert!(guard.is_held(), "the lock must be held after run was dropped");
    assert_held(&other, &key).await;
    release(guard).await;
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
