//! What the tests of this crate share.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{future::Future, time::Duration};

use anyhow::{Context, Result, ensure};
use lock_etcd::{EtcdLocker, LockGuard, Options};
use tokio::{task::JoinHandle, time};

/// Far above what anything takes; reached only when something hangs.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// The shortest lease that etcd grants.
pub(crate) const TTL: Duration = Duration::from_secs(1);

/// A lease so long that neither a beat nor its end falls into the test.
pub(crate) const LONG: Duration = Duration::from_secs(600);

pub(crate) async fn locker(endpoints: impl AsRef<str>) -> Result<EtcdLocker> {
    locker_with(endpoints, TTL).await
}

pub(crate) async fn locker_with(endpoints: impl AsRef<str>, ttl: Duration) -> Result<EtcdLocker> {
    Ok(EtcdLocker::connect(endpoints.as_ref(), Options::default().with_ttl(ttl)).await?)
}

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    time::timeout(BOUND, future).await.with_context(|| format!("waited {BOUND:?} for {what}"))
}

/// Starts to wait for `key`, and returns once there is a queue of `place` ahead.
pub(crate) async fn waiter(
    locks: &EtcdLocker,
    key: &'static str,
    place: usize,
) -> Result<JoinHandle<lock_etcd::Result<LockGuard>>> {
    let waiting = locks.clone();
    let waiter = tokio::spawn(async move { waiting.lock(key).await });
    queue_is(locks, key, place + 1).await?;
    Ok(waiter)
}

pub(crate) async fn queue_is(locks: &EtcdLocker, key: &str, length: usize) -> Result<()> {
    until("the queue", async || {
        let queue = locks.queue(key).await?;
        ensure!(queue.len() == length, "the queue of {key} is {queue:?}, not of length {length}");
        Ok(())
    })
    .await
}

/// Asks until the answer is yes.
pub(crate) async fn until(what: &str, mut probe: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let start = time::Instant::now();
    loop {
        match probe().await {
            Ok(()) => return Ok(()),
            Err(status) if start.elapsed() > BOUND => {
                return Err(status.context(format!("waited for {what}")));
            }
            // why: a bounded poll of a condition
            Err(_) => time::sleep(Duration::from_millis(5)).await,
        }
    }
}
