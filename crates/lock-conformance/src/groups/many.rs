//! Many: one locker holds a thousand keys like one.

use std::{sync::Arc, time::Duration};

use lock_core::{LockGuard, Scope};
use tokio::{sync::Semaphore, task::JoinSet, time};

use crate::{
    Fixture,
    steps::{SOON, assert_no_traces, client_with, fresh_key, leases_of, release, take},
};

const KEYS: usize = 1_000;

/// How many requests are under way at once.
const AT_ONCE: usize = 12;

properties! {
    one_locker_holds_a_thousand_keys,
}

/// A thousand keys are held by one locker for longer than a lease, and all are released.
pub async fn one_locker_holds_a_thousand_keys(fx: &impl Fixture) {
    let ttl = Duration::from_secs(4);
    let (locker, turns) = (client_with(fx, &leases_of(ttl)).await, Arc::new(Semaphore::new(AT_ONCE)));
    let mut takes = JoinSet::new();
    for _ in 0..KEYS {
        let (locker, turns) = (locker.clone(), Arc::clone(&turns));
        takes.spawn(async move {
            let _turn = turns.acquire().await;
            take(&locker, &fresh_key()).await
        });
    }
    let guards = takes.join_all().await;
    if locker.capabilities().scope == Scope::Servers {
        time::sleep(ttl + ttl / 4).await;
    }
    let lost = guards.iter().filter(|guard| !guard.is_held()).count();
    assert_eq!(lost, 0, "a thousand locks must be held for longer than a lease");
    let keys: Vec<_> = guards.iter().map(LockGuard::key).cloned().collect();
    let mut releases = JoinSet::new();
    for guard in guards {
        let turns = Arc::clone(&turns);
        releases.spawn(async move {
            let _turn = turns.acquire().await;
            release(guard).await;
        });
    }
    releases.join_all().await;
    for key in &keys {
        assert_no_traces(fx, key, SOON).await;
    }
}
