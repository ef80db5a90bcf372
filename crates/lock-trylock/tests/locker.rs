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

use lock_trylock::{AnyLocker, Backoff, ErrorKind, TryLocker};
use tokio::{runtime::Runtime, task::JoinSet};

const KEY: &str = "orders/42";

fn backoff() -> Backoff {
    Backoff::new(Duration::from_micros(100), Duration::from_millis(2)).unwrap()
}

#[test]
fn busy_is_a_value_and_a_dropped_guard_frees() {
    let locks = TryLocker::new();
    let guard = locks.try_lock_now(KEY).unwrap().expect("the key is free");
    assert!(locks.try_lock_now(KEY).unwrap().is_none(), "not reentrant");
    assert!(locks.try_lock_now("orders/43").unwrap().is_some(), "another key is another lock");
    drop(guard);
    assert_eq!(locks.keys_in_use(), 0);
    assert!(locks.try_lock_now(KEY).unwrap().is_some());
}

#[test]
fn of_many_threads_one_wins() {
    let locks = TryLocker::new();
    let won = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| locks.try_lock_now(KEY).unwrap())).collect();
        // All guards live until the last thread has tried.
        let guards: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        guards.iter().flatten().count()
    });
    assert_eq!(won, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn retrying_tasks_lose_no_count() {
    let locks = TryLocker::new().retrying(backoff());
    let counter = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let (locks, counter) = (locks.clone(), Arc::clone(&counter));
        tasks.spawn(async move {
            for _ in 0..10 {
                let _guard = locks.lock(KEY).await.unwrap();
                let before = counter.load(Relaxed);
                thread::yield_now();
                counter.store(before + 1, Relaxed);
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(counter.load(Relaxed), 200);
}

#[tokio::test]
async fn retrying_and_trying_exclude_each_other() {
    let tries = TryLocker::new();
    let retries = tries.retrying(backoff());
    let guard = tries.try_lock(KEY).await.unwrap().expect("the key is free");
    assert!(retries.try_lock_for(KEY, Duration::from_millis(1)).await.unwrap().is_none());
    drop(guard);
    let _guard = retries.lock(KEY).await.unwrap();
    assert!(tries.try_lock(KEY).await.unwrap().is_none());
}

#[tokio::test]
async fn any_locker_cannot_wait_either() {
    let any = AnyLocker::from(TryLocker::new());
    let guard = any.try_lock(KEY).await.unwrap().expect("the key is free");
    let refused = any.lock("orders/43").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let refused = any.try_lock_for("orders/43", Duration::MAX).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    guard.release().await.unwrap();
}

#[test]
fn tokens_grow() {
    let locks = TryLocker::new();
    let token = || locks.try_lock_now(KEY).unwrap().expect("the key is free").fencing_token();
    let tokens = [token(), token(), token()];
    assert!(tokens.is_sorted_by(|earlier, later| earlier < later), "{tokens:?}");
}

#[test]
fn a_guard_outlives_its_runtime_and_is_dropped_on_any_thread() {
    let locks = TryLocker::new();
    let guard = Runtime::new().unwrap().block_on(locks.try_lock(KEY)).unwrap();
    thread::spawn(move || drop(guard)).join().unwrap();
    assert_eq!(locks.keys_in_use(), 0);
}

#[test]
fn a_panic_frees_the_key_and_poisons_nothing() {
    let locks = TryLocker::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = locks.try_lock_now(KEY).unwrap().expect("the key is free");
        panic!("in the critical section");
    }));
    assert!(panicked.is_err());
    assert!(locks.try_lock_now(KEY).unwrap().is_some());
}

#[test]
fn clones_exclude_each_other_and_two_lockers_do_not() {
    let locks = TryLocker::new();
    let _guard = locks.try_lock_now(KEY).unwrap().expect("the key is free");
    assert!(locks.clone().try_lock_now(KEY).unwrap().is_none());
    assert!(TryLocker::new().try_lock_now(KEY).unwrap().is_some());
}

#[tokio::test]
async fn after_close_all_are_refused_and_holders_hold() {
    let locks = TryLocker::new();
    let guard = locks.try_lock(KEY).await.unwrap().expect("the key is free");
    locks.close().await;
    assert_eq!(locks.try_lock("orders/43").await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(guard.is_held());
    guard.release().await.unwrap();
}
