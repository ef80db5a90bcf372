//! What a user sees, with real tasks and threads.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use lock_local::{AnyLocker, ErrorKind, LocalLocker, LockGuard};
use tokio::{runtime::Runtime, task::JoinSet};

const KEY: &str = "orders/42";

/// A counter that loses counts unless its users exclude each other.
#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add_one(&self, _held: &LockGuard) {
        let before = self.0.load(Relaxed);
        thread::yield_now();
        self.0.store(before + 1, Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_tasks_lose_no_count() {
    let (locks, counter) = (LocalLocker::new(), Arc::new(Counter::default()));
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let (locks, counter) = (locks.clone(), Arc::clone(&counter));
        tasks.spawn(async move {
            for _ in 0..10 {
                counter.add_one(&locks.lock(KEY).await.unwrap());
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(counter.0.load(Relaxed), 1000);
    assert_eq!(locks.keys_in_use(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_and_threads_share_one_queue() {
    let (locks, counter) = (LocalLocker::new(), Arc::new(Counter::default()));
    let mut tasks = JoinSet::new();
    for n in 0..8 {
        let (locks, counter) = (locks.clone(), Arc::clone(&counter));
        if n % 2 == 0 {
            tasks.spawn(async move {
                for _ in 0..50 {
                    counter.add_one(&locks.lock(KEY).await.unwrap());
                }
            });
        } else {
            tasks.spawn_blocking(move || {
                for _ in 0..50 {
                    counter.add_one(&locks.blocking_lock(KEY).unwrap());
                }
            });
        }
    }
    tasks.join_all().await;
    assert_eq!(counter.0.load(Relaxed), 400);
}

#[test]
fn many_keys_are_held_at_once_and_forgotten_after() {
    let locks = LocalLocker::new();
    let hold = |n| locks.try_lock_now(&format!("orders/{n}")).unwrap();
    let guards: Vec<_> = (0..100_000).map(|n| hold(n).expect("another key is another lock")).collect();
    assert_eq!(locks.keys_in_use(), guards.len());
    assert!((0..100_000).all(|n| hold(n).is_none()));
    drop(guards);
    assert_eq!(locks.keys_in_use(), 0);
}

#[tokio::test]
async fn a_timeout_of_zero_is_a_try() {
    let locks = LocalLocker::new();
    let guard = locks.try_lock_for(KEY, Duration::ZERO).await.unwrap().expect("the key is free");
    assert!(locks.try_lock_for(KEY, Duration::ZERO).await.unwrap().is_none());
    assert!(locks.blocking_try_lock_for(KEY, Duration::ZERO).unwrap().is_none());
    drop(guard);
    assert!(locks.blocking_try_lock_for(KEY, Duration::ZERO).unwrap().is_some());
}

#[tokio::test]
async fn a_wait_that_timed_out_leaves_nothing_behind() {
    let locks = LocalLocker::new();
    let guard = locks.lock(KEY).await.unwrap();
    assert!(locks.try_lock_for(KEY, Duration::from_millis(1)).await.unwrap().is_none());
    assert!(locks.blocking_try_lock_for(KEY, Duration::from_millis(1)).unwrap().is_none());
    drop(guard);
    assert_eq!(locks.keys_in_use(), 0);
}

#[test]
fn a_wait_with_a_timeout_that_never_comes_gets_the_key() {
    let locks = LocalLocker::new();
    let guard = locks.blocking_lock(KEY).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| locks.blocking_try_lock_for(KEY, Duration::MAX).unwrap().is_some());
        drop(guard);
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn a_guard_outlives_its_runtime_and_is_dropped_on_any_thread() {
    let locks = LocalLocker::new();
    let guard = Runtime::new().unwrap().block_on(locks.lock(KEY)).unwrap();
    thread::spawn(move || drop(guard)).join().unwrap();
    assert_eq!(locks.keys_in_use(), 0);
}

#[test]
fn a_guard_outlives_its_locker() {
    let guard = LocalLocker::new().blocking_lock(KEY).unwrap();
    assert!(guard.is_held());
    assert_eq!(guard.remaining(), Duration::MAX);
}

#[test]
fn a_panic_frees_the_key_and_poisons_nothing() {
    let locks = LocalLocker::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = locks.blocking_lock(KEY).unwrap();
        panic!("in the critical section");
    }));
    assert!(panicked.is_err());
    assert!(locks.try_lock_now(KEY).unwrap().is_some());
}

#[test]
fn clones_exclude_each_other_and_two_lockers_do_not() {
    let locks = LocalLocker::new();
    let _guard = locks.blocking_lock(KEY).unwrap();
    assert!(locks.clone().try_lock_now(KEY).unwrap().is_none());
    assert!(LocalLocker::new().try_lock_now(KEY).unwrap().is_some());
}

#[tokio::test]
async fn any_locker_waits_like_the_locker_it_was_made_of() {
    let locks = LocalLocker::new();
    let any = AnyLocker::from(locks.clone());
    assert_eq!(any.capabilities(), locks.capabilities());
    let guard = any.lock(KEY).await.unwrap();
    assert!(locks.try_lock(KEY).await.unwrap().is_none());
    guard.verify().await.unwrap();
    guard.release().await.unwrap();
    assert_eq!(any.lock("").await.unwrap_err().kind(), ErrorKind::InvalidInput);
}
