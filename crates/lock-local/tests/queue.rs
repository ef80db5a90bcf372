//! The queue, one poll at a time: no runtime and no clock decides what happens next.

use std::{
    future::Future,
    pin::pin,
    sync::mpsc,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use cooked_waker::{IntoWaker, WakeRef};
use lock_core::backend::Effect;
use lock_local::{ErrorKind, LocalLocker, LockGuard, Result};
use tokio_test::{
    assert_pending, assert_ready_ok,
    task::{self, Spawn},
};

const KEY: &str = "orders/42";

/// A request that was polled once and found the key held.
fn waiter(locks: &LocalLocker) -> Spawn<impl Future<Output = Result<LockGuard>> + use<>> {
    let locks = locks.clone();
    let mut waiter = task::spawn(async move { locks.lock(KEY).await });
    assert_pending!(waiter.poll());
    waiter
}

fn holder(locks: &LocalLocker) -> LockGuard {
    locks.try_lock_now(KEY).unwrap().expect("the key is free")
}

fn is_free(locks: &LocalLocker) -> bool {
    locks.try_lock_now(KEY).unwrap().is_some()
}

#[test]
fn waiters_are_served_in_order_of_arrival() {
    let locks = LocalLocker::new();
    let mut guard = holder(&locks);
    let mut waiters: Vec<_> = (0..10).map(|_| waiter(&locks)).collect();
    while !waiters.is_empty() {
        let before = guard.fencing_token();
        drop(guard);
        let woken: Vec<_> = waiters.iter().map(Spawn::is_woken).collect();
        assert!(woken[0] && !woken[1..].contains(&true), "only the first is woken: {woken:?}");
        guard = assert_ready_ok!(waiters.remove(0).poll());
        assert!(before < guard.fencing_token());
        waiters.iter_mut().for_each(|waiter| assert_pending!(waiter.poll()));
    }
    drop(guard);
    assert_eq!(locks.keys_in_use(), 0);
}

#[test]
fn a_cancelled_waiter_leaves_the_order_of_the_others() {
    let locks = LocalLocker::new();
    let guard = holder(&locks);
    let mut waiters: Vec<_> = (0..6).map(|_| Some(waiter(&locks))).collect();
    for cancelled in [4, 0, 2] {
        waiters[cancelled] = None;
    }
    drop(guard);
    for mut waiter in waiters.into_iter().flatten() {
        assert!(waiter.is_woken());
        drop(assert_ready_ok!(waiter.poll()));
    }
    assert_eq!(locks.keys_in_use(), 0);
}

#[test]
fn a_waiter_cancelled_after_its_grant_passes_the_key_on() {
    let locks = LocalLocker::new();
    let guard = holder(&locks);
    let granted = waiter(&locks);
    let mut next = waiter(&locks);
    drop(guard);
    assert!(granted.is_woken() && !next.is_woken());

    drop(granted);
    assert!(next.is_woken());
    drop(assert_ready_ok!(next.poll()));
}

#[test]
fn the_last_waiter_cancelled_after_its_grant_frees_the_key() {
    let locks = LocalLocker::new();
    let guard = holder(&locks);
    let granted = waiter(&locks);
    drop(guard);
    drop(granted);
    assert_eq!(locks.keys_in_use(), 0);
    assert!(is_free(&locks));
}

#[test]
fn nobody_overtakes_a_waiter_that_was_granted_and_not_polled_yet() {
    let locks = LocalLocker::new();
    let guard = holder(&locks);
    let mut granted = waiter(&locks);
    drop(guard);
    assert!(!is_free(&locks), "a newcomer came first");
    let mut newcomer = waiter(&locks);
    let guard = assert_ready_ok!(granted.poll());
    assert_pending!(newcomer.poll());
    drop(guard);
    drop(assert_ready_ok!(newcomer.poll()));
}

#[test]
fn a_future_that_was_never_polled_has_no_place() {
    let locks = LocalLocker::new();
    let guard = holder(&locks);
    let _never_polled = task::spawn(locks.lock(KEY));
    let mut waiter = waiter(&locks);
    drop(guard);
    drop(assert_ready_ok!(waiter.poll()));
}

#[test]
fn a_waiter_that_moves_to_another_task_is_woken_there() {
    let locks = LocalLocker::new();
    let guard = holder(&locks);
    let mut waiter = Box::pin(async { locks.lock(KEY).await });
    let mut first_task = task::spawn(std::future::poll_fn(|context| waiter.as_mut().poll(context)));
    assert_pending!(first_task.poll());
    drop(first_task);
    let mut second_task = task::spawn(waiter);
    assert_pending!(second_task.poll());

    drop(guard);
    assert!(second_task.is_woken());
    drop(assert_ready_ok!(second_task.poll()));
}

#[test]
fn a_key_is_not_reentrant() {
    let locks = LocalLocker::new();
    let _guard = holder(&locks);
    assert!(!is_free(&locks));
}

#[test]
fn after_close_newcomers_are_refused_and_waiters_are_served() {
    let locks = LocalLocker::new();
    let guard = holder(&locks);
    let mut waiter = waiter(&locks);
    tokio_test::block_on(locks.close());

    let refused = locks.try_lock_now("orders/43").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    assert_eq!(refused.effect(), Effect::None);
    assert_eq!(locks.blocking_lock(KEY).unwrap_err().kind(), ErrorKind::Closed);

    drop(guard);
    let guard = assert_ready_ok!(waiter.poll());
    tokio_test::block_on(guard.release()).unwrap();
    assert_eq!(locks.keys_in_use(), 0);
}

#[test]
fn tokens_grow_over_every_way_to_acquire() {
    let locks = LocalLocker::new();
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let guard = holder(&locks);
        tokens.push(guard.fencing_token());
        let mut granted = waiter(&locks);
        drop(waiter(&locks));
        drop(guard);
        tokens.push(assert_ready_ok!(granted.poll()).fencing_token());
        tokens.push(locks.blocking_lock(KEY).unwrap().fencing_token());
    }
    assert!(tokens.is_sorted_by(|earlier, later| earlier < later), "{tokens:?}");
}

/// A waker that may do anything when it is cloned: this one uses the locker.
struct UsesTheLocker(LocalLocker);

impl Clone for UsesTheLocker {
    fn clone(&self) -> Self {
        assert!(!is_free(&self.0));
        Self(self.0.clone())
    }
}

impl WakeRef for UsesTheLocker {
    fn wake_by_ref(&self) {}
}

impl cooked_waker::Wake for UsesTheLocker {}

#[test]
fn a_waker_may_use_the_locker_while_it_is_cloned() {
    let (sender, polled) = mpsc::channel();
    thread::spawn(move || {
        let locks = LocalLocker::new();
        let guard = holder(&locks);
        let waker = Box::new(UsesTheLocker(locks.clone())).into_waker();
        let mut waiter = pin!(locks.lock(KEY));
        assert!(waiter.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(guard);
        let acquired = waiter.poll(&mut Context::from_waker(&waker));
        sender.send(matches!(acquired, Poll::Ready(Ok(_)))).unwrap();
    });
    assert!(polled.recv_timeout(Duration::from_secs(30)).expect("no poll blocks its thread"));
}
