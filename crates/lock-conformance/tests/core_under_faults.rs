//! What lock-core promises of every store of leases, while requests fail in every way.

use std::time::Duration;

use lock_conformance::{Fault, Faults, FaultyStore, MemoryServer, MemoryStore, Operation};
use lock_core::{
    ErrorKind, Key, LockGuard, Locker, Options,
    backend::{BootInstant, Leased},
};
use tokio::time;

const TTL: Duration = Duration::from_secs(30);
const REQUEST: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_secs(5);

type Faulty = Locker<Leased<FaultyStore<MemoryStore>>>;

/// A server, and one client to which things happen.
struct Scene {
    server: MemoryServer,
    faults: Faults,
    locker: Faulty,
    key: Key,
}

impl Scene {
    fn new(options: &Options) -> Self {
        let (server, faults) = (MemoryServer::default(), Faults::seeded(1));
        let locker = locker(&server, &faults, options);
        Self { server, faults, locker, key: Key::new("orders/42").unwrap() }
    }

    async fn try_lock(&self) -> lock_core::Result<Option<LockGuard>> {
        self.locker.try_lock(self.key.as_str()).await
    }

    async fn take(&self) -> LockGuard {
        self.try_lock().await.expect("a try without faults").expect("the key is free")
    }

    /// Waits until the server knows nothing of the key.
    async fn cleared(&self) {
        let start = BootInstant::now();
        while self.server.traces(&self.key) > 0 {
            assert!(BootInstant::now().since(start) < SOON, "the key must be free soon, and is held");
            // why: a bounded poll of a condition
            time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn locker(server: &MemoryServer, faults: &Faults, options: &Options) -> Faulty {
    let store = FaultyStore::new(MemoryStore::new(server), faults.clone());
    Locker::new(Leased::new(store, options).expect("valid options within a runtime"))
}

fn patient() -> Options {
    Options::default().with_ttl(TTL).with_request_timeout(REQUEST)
}

/// Options under which renewals come often and the deadline soon.
fn brief() -> Options {
    Options::default()
        .with_ttl(Duration::from_secs(1))
        .with_renew_every(Duration::from_millis(100))
        .with_request_timeout(Duration::from_millis(100))
        .with_min_validity(Duration::from_millis(200))
}

/// An acquire that was granted, but whose reply was lost, fails and is undone.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_whose_reply_was_lost_is_undone() {
    let scene = Scene::new(&patient());
    scene.faults.next(Operation::Acquire, Fault::LoseReply, 1);
    assert_eq!(scene.try_lock().await.unwrap_err().kind(), ErrorKind::Unavailable);
    scene.cleared().await;
    scene.take().await.release().await.unwrap();
}

/// An undo that fails, or whose reply is lost, is repeated until the server has confirmed it.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_is_repeated_until_it_is_confirmed() {
    let scene = Scene::new(&patient());
    scene.faults.next(Operation::Acquire, Fault::LoseReply, 1);
    for fault in [Fault::Error, Fault::Hang, Fault::Error, Fault::LoseReply, Fault::LoseReply] {
        scene.faults.next(Operation::Undo, fault, 1);
    }
    scene.try_lock().await.unwrap_err();
    time::timeout(SOON, scene.locker.close()).await.expect("close waits for the undo, and that ends");
    assert_eq!(scene.server.traces(&scene.key), 0, "after close nothing is left");
}

/// An acquire that hangs fails at the request timeout, and is undone when it lands after all.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_acquire_is_given_up_and_undone_when_it_lands() {
    let scene = Scene::new(&patient());
    scene.faults.next(Operation::Acquire, Fault::Delay(3 * REQUEST), 1);
    let start = BootInstant::now();
    assert_eq!(scene.try_lock().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let took = BootInstant::now().since(start);
    assert!(took < 3 * REQUEST, "it must fail at the request timeout of {REQUEST:?}, not after {took:?}");
    time::timeout(SOON, scene.locker.close()).await.expect("close waits for the undo, and that ends");
    assert!(
        BootInstant::now().since(start) >= 3 * REQUEST,
        "the undo must come after the acquire has landed"
    );
    assert_eq!(scene.server.traces(&scene.key), 0, "after close nothing is left");
}

/// A grant that comes so late that little of its lease is left is given back.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_comes_too_late_is_given_back() {
    let scene = Scene::new(&patient().with_min_validity(Duration::from_millis(29_300)));
    scene.faults.next(Operation::Acquire, Fault::Delay(REQUEST * 2 / 3), 1);
    let error = scene.try_lock().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    scene.cleared().await;
}

/// A renewal that hangs does not delay the release of its lock, nor the renewal of others.
#[tokio::test(flavor = "multi_thread")]
async fn a_hung_renewal_delays_nothing() {
    let options = patient().with_renew_every(Duration::from_millis(20)).with_request_timeout(TTL / 3);
    let scene = Scene::new(&options);
    scene.faults.next(Operation::Renew, Fault::Hang, 1);
    let guard = scene.take().await;
    // why: gives the renewal the time to be hanging
    time::sleep(Duration::from_millis(100)).await;
    time::timeout(SOON, guard.release()).await.expect("a release does not wait for a renewal").unwrap();
    assert_eq!(scene.server.traces(&scene.key), 0, "after the release nothing is left");
}

/// A few renewals that fail are made up for in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_few_failed_renewals_lose_nothing() {
    let scene = Scene::new(&brief());
    for fault in [Fault::Error, Fault::LoseReply, Fault::Hang] {
        scene.faults.next(Operation::Renew, fault, 1);
    }
    let guard = scene.take().await;
    // why: several renewals must have failed by then
    time::sleep(Duration::from_millis(1_500)).await;
    assert!(guard.is_held(), "three failed renewals of many leave the lock held");
    guard.release().await.unwrap();
}

/// When no renewal arrives the lock is lost by its deadline, and one that lands later does not revive it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_without_renewal_is_lost_and_not_revived() {
    let scene = Scene::new(&brief().with_margin(Duration::from_millis(500)));
    scene.faults.by_chance(Operation::Renew, Fault::Delay(Duration::from_millis(600)), 1.0);
    let guard = scene.take().await;
    time::timeout(SOON, guard.lost()).await.expect("the loss of a lock that is not renewed");
    // The renewals sent before land at the server while it still knows the holder.
    for _ in 0..50 {
        assert!(!guard.is_held(), "a late renewal must not revive a lost lock");
        // why: the late reply may come at any time; the bound is the loop's
        time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
    scene.cleared().await;
}

/// A release whose reply was lost fails as unavailable; the key is free and nothing else is freed.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_whose_reply_was_lost_frees_once() {
    let scene = Scene::new(&patient());
    let guard = scene.take().await;
    scene.faults.next(Operation::Release, Fault::LoseReply, 1);
    scene.faults.next(Operation::Undo, Fault::Delay(REQUEST / 3), 1);
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let next = scene.take().await;
    time::timeout(SOON, scene.locker.close()).await.expect("close waits for the repeated release");
    next.verify().await.expect("the repeated release leaves the next hold");
    next.release().await.unwrap();
}
