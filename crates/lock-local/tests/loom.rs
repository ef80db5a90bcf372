//! Every interleaving of a few threads, up to three preemptions.
#![cfg(lock_local_loom)]

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use lock_local::{FencingToken, LocalLocker, LockGuard};
use loom::{
    future::block_on,
    model::Builder,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

const KEY: &str = "orders/42";

fn explore(model: impl Fn(&LocalLocker) + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let locks = LocalLocker::new();
        model(&locks);
        assert_eq!(locks.keys_in_use(), 0, "a queue was left behind");
    });
}

/// What only one thread may use at a time.
#[derive(Clone, Default)]
struct Resource(Arc<Inner>);

#[derive(Default)]
struct Inner {
    in_use: AtomicBool,
    tokens: Mutex<Vec<FencingToken>>,
}

impl Resource {
    fn use_with(&self, guard: &LockGuard) {
        assert!(!self.0.in_use.swap(true, SeqCst), "two hold the key");
        self.0.tokens.lock().unwrap().push(guard.fencing_token());
        self.0.in_use.store(false, SeqCst);
    }

    fn assert_used(&self, times: usize) {
        let tokens = self.0.tokens.lock().unwrap();
        assert_eq!(tokens.len(), times);
        assert!(tokens.is_sorted_by(|earlier, later| earlier < later), "{tokens:?}");
    }
}

fn threads_take_turns(threads: usize, turns: usize) {
    explore(move |locks| {
        let resource = Resource::default();
        let take_turns = {
            let (locks, resource) = (locks.clone(), resource.clone());
            move || {
                for _ in 0..turns {
                    resource.use_with(&locks.blocking_lock(KEY).unwrap());
                }
            }
        };
        let others: Vec<_> = (1..threads).map(|_| thread::spawn(take_turns.clone())).collect();
        take_turns();
        others.into_iter().for_each(|other| other.join().unwrap());
        resource.assert_used(threads * turns);
    });
}

#[test]
fn two_threads_exclude_each_other() {
    threads_take_turns(2, 2);
}

#[test]
fn three_threads_exclude_each_other() {
    threads_take_turns(3, 2);
}

#[test]
fn tasks_and_threads_exclude_each_other() {
    explore(|locks| {
        let resource = Resource::default();
        let thread = thread::spawn({
            let (locks, resource) = (locks.clone(), resource.clone());
            move || resource.use_with(&locks.blocking_lock(KEY).unwrap())
        });
        block_on(async { resource.use_with(&locks.lock(KEY).await.unwrap()) });
        thread.join().unwrap();
        resource.assert_used(2);
    });
}

#[test]
fn a_waiter_cancelled_as_it_is_granted_wakes_the_next() {
    explore(|locks| {
        let guard = locks.blocking_lock(KEY).unwrap();
        let mut cancelled = Box::pin({
            let locks = locks.clone();
            async move { locks.lock(KEY).await }
        });
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(cancelled.as_mut().poll(&mut context), Poll::Pending));

        let next = thread::spawn({
            let locks = locks.clone();
            move || locks.blocking_lock(KEY).map(drop).unwrap()
        });
        let holder = thread::spawn(move || drop(guard));
        drop(cancelled);
        holder.join().unwrap();
        next.join().unwrap();
    });
}

#[test]
fn a_timeout_as_the_key_is_granted_loses_no_lock() {
    explore(|locks| {
        let guard = locks.blocking_lock(KEY).unwrap();
        let impatient = thread::spawn({
            let locks = locks.clone();
            move || locks.blocking_try_lock_for(KEY, Duration::ZERO).map(drop).unwrap()
        });
        let patient = thread::spawn({
            let locks = locks.clone();
            move || locks.blocking_lock(KEY).map(drop).unwrap()
        });
        drop(guard);
        impatient.join().unwrap();
        patient.join().unwrap();
    });
}

#[test]
fn a_guard_dropped_on_another_thread_wakes_the_waiter() {
    explore(|locks| {
        let guard = locks.blocking_lock(KEY).unwrap();
        let first = guard.fencing_token();
        let other = thread::spawn(move || drop(guard));
        let second = block_on(locks.lock(KEY)).unwrap();
        assert!(first < second.fencing_token());
        drop(second);
        other.join().unwrap();
    });
}

#[test]
fn after_close_all_are_refused_but_those_who_wait() {
    explore(|locks| {
        let guard = locks.blocking_lock(KEY).unwrap();
        let waiter = thread::spawn({
            let locks = locks.clone();
            move || locks.blocking_lock(KEY).map(drop)
        });
        block_on(locks.close());
        assert!(locks.blocking_lock(KEY).is_err());
        drop(guard);
        // It came before the close or after it; either way it does not wait for ever.
        let _ = waiter.join().unwrap();
    });
}
