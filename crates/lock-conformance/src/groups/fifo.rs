//! Order: where it is declared, waiters are served as they came.

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

use lock_core::{Key, LockGuard, Scope};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    Fixture,
    steps::{SOON, client, eventually, fresh_key, release, take, traces, within},
};

properties! {
    waiters_are_served_in_order_of_arrival [Fifo],
    a_waiter_that_leaves_does_not_change_the_order [Fifo],
    a_try_does_not_overtake_waiters [Fifo],
}

/// Ten waiters get the key in the order in which they came.
pub async fn waiters_are_served_in_order_of_arrival(fx: &impl Fixture) {
    let (key, holder) = (fresh_key(), client(fx).await);
    let guard = take(&holder, &key).await;
    let mut queue = Queue::form(fx, &key, 10).await;
    release(guard).await;
    queue.assert_served(0..10).await;
}

/// When waiters in the queue are dropped, the others keep their order.
pub async fn a_waiter_that_leaves_does_not_change_the_order(fx: &impl Fixture) {
    let (key, holder) = (fresh_key(), client(fx).await);
    let guard = take(&holder, &key).await;
    let mut queue = Queue::form(fx, &key, 10).await;
    for place in [0, 8, 5, 4] {
        queue.leave(place).await;
    }
    release(guard).await;
    queue.assert_served([1, 2, 3, 6, 7, 9]).await;
}

/// A try after the release does not get the key before those who wait.
pub async fn a_try_does_not_overtake_waiters(fx: &impl Fixture) {
    let (key, holder, other) = (fresh_key(), client(fx).await, client(fx).await);
    let guard = take(&holder, &key).await;
    let mut queue = Queue::form(fx, &key, 1).await;
    release(guard).await;
    let tried = other.try_lock(key.as_str()).await;
    assert!(matches!(tried, Ok(None)), "a waiter is next, so a try must be refused; it gave {tried:?}");
    queue.assert_served([0]).await;
}

/// Waiters for one key, numbered in the order in which they came.
struct Queue {
    waiters: Vec<JoinHandle<()>>,
    served: mpsc::UnboundedReceiver<(usize, LockGuard)>,
}

impl Queue {
    /// Lets `len` waiters queue for `key`, which must be held. Each comes when the one before has its place.
    async fn form(fx: &impl Fixture, key: &Key, len: usize) -> Self {
        let (sender, served) = mpsc::unbounded_channel();
        let mut waiters = Vec::new();
        let before = traces(fx, key).await;
        for place in 0..len {
            let (sender, locker) = (sender.clone(), client(fx).await);
            let wanted = key.clone();
            let scope = locker.capabilities().scope;
            let mut wait = Box::pin(async move {
                let guard = locker.lock(wanted.as_str()).await.expect("a wait in a queue");
                let _ = sender.send((place, guard));
            });
            // In one process the first poll takes the place; on servers there is something to see.
            let first = poll_fn(|context| Poll::Ready(wait.as_mut().poll(context))).await;
            assert!(first.is_pending(), "the key is held, so a waiter must wait");
            waiters.push(tokio::spawn(wait));
            if scope == Scope::Servers {
                eventually(&format!("waiter {place} to have its place"), SOON, || async {
                    let traces = traces(fx, key).await;
                    if traces == before + place + 1 { Ok(()) } else { Err(format!("{traces} traces")) }
                })
                .await;
            }
        }
        Self { waiters, served }
    }

    async fn leave(&mut self, place: usize) {
        let waiter = &mut self.waiters[place];
        waiter.abort();
        let _ = waiter.await;
    }

    async fn assert_served(&mut self, places: impl IntoIterator<Item = usize>) {
        for expected in places {
            let served = within("the wait for the next to be served", SOON, self.served.recv()).await;
            let (place, guard) = served.expect("waiters are left");
            assert_eq!(place, expected, "waiters must be served in order of arrival");
            release(guard).await;
        }
    }
}
