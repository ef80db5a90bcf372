//! What the tests share.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use anyhow::{Result, ensure};
use lock_conformance::{eventually, within};
use lock_etcd::{EtcdLocker, LockGuard, Options};
use test_cluster::Etcd;
use tokio::task::JoinHandle;

/// Far above what anything takes; reached only when something hangs.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// As short as etcd keeps a lease by default.
pub(crate) const TTL: Duration = Duration::from_secs(2);

/// A lease so long that neither a renewal nor its end falls into the test.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// Long leases, and requests that give up soon.
pub(crate) fn impatient() -> Options {
    Options::default().with_ttl(LONG).with_request_timeout(Duration::from_millis(600))
}

pub(crate) async fn locker(endpoints: impl AsRef<str>) -> Result<EtcdLocker> {
    locker_with(endpoints, TTL).await
}

pub(crate) async fn locker_with(endpoints: impl AsRef<str>, ttl: Duration) -> Result<EtcdLocker> {
    Ok(EtcdLocker::connect(endpoints.as_ref(), Options::default().with_ttl(ttl)).await?)
}

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(what, BOUND, future).await
}

/// Asks until the answer is yes.
pub(crate) async fn until<F: Future<Output = Result<()>>>(what: &str, probe: impl FnMut() -> F) {
    eventually(what, BOUND, probe).await;
}

/// Starts to wait for `key`, and returns once there are `before` entries before its own.
pub(crate) async fn waiter(
    locks: &EtcdLocker,
    key: &'static str,
    before: usize,
) -> JoinHandle<lock_etcd::Result<LockGuard>> {
    let waiting = locks.clone();
    let waiter = tokio::spawn(async move { waiting.lock(key).await });
    queue_is(locks, key, before + 1).await;
    waiter
}

pub(crate) async fn queue_is(locks: &EtcdLocker, key: &str, length: usize) {
    until("the queue", || async {
        let queue = locks.queue(key).await?;
        ensure!(queue.len() == length, "the queue of {key} is {queue:?}, not of length {length}");
        Ok(())
    })
    .await;
}

pub(crate) fn revoke(etcd: &Etcd, lease: i64) -> Result<()> {
    etcd.call("/v3/lease/revoke", &format!(r#"{{"ID": "{lease}"}}"#)).map(|_| ())
}

/// Polls `future` once, without a waker that would have it polled again.
pub(crate) fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
