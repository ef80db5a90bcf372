//! A waker is its caller's own code, and may use the locker when it is woken: nothing of the locker is locked then.

use std::{
    future::{Future, ready},
    pin::pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use lock_conformance::{MemoryServer, MemoryStore, eventually};
use lock_core::{ErrorKind, Key, Locker, Options, backend::Leased};
use tokio::runtime::Builder;

/// Far above what anything takes; reached only when something hangs.
const BOUND: Duration = Duration::from_secs(20);

type Locks = Locker<Leased<MemoryStore>>;

/// Begins to wait for the same key, and gives up.
struct UsesTheLocker(Locks);

impl Wake for UsesTheLocker {
    fn wake(self: Arc<Self>) {
        let _ = pin!(self.0.lock("a")).poll(&mut Context::from_waker(Waker::noop()));
    }
}

/// Runs `test` in a thread of its own, with a waker that uses the locker, and waits for its end.
fn ends<F: Future<Output = ()>>(test: impl FnOnce(MemoryServer, Locks, Waker) -> F + Send + 'static) {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (server, options) = (MemoryServer::default(), Options::default());
            let options = options.with_ttl(Duration::from_millis(500));
            let locks =
                Leased::new(MemoryStore::new(&server), &options).map(Locker::new).expect("it is open");
            let waker = Waker::from(Arc::new(UsesTheLocker(locks.clone())));
            test(server, locks, waker).await;
        });
        sender.send(()).expect("somebody waits for the end");
    });
    ended.recv_timeout(BOUND).expect("no waker blocks a thread");
}

#[test]
fn a_waiter_may_use_the_locker_when_it_is_woken() {
    ends(async |server, locks, waker| {
        let (guard, key) = (locks.lock("a").await.expect("it is free"), Key::new("a").expect("a key"));
        let mut waiter = pin!(locks.lock("a"));
        eventually("a waiter", BOUND, || {
            assert!(waiter.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            ready(if server.traces(&key) == 2 { Ok(()) } else { Err("nobody waits for it") })
        })
        .await;
        guard.release().await.expect("it is held");
        eventually("the hand-over", BOUND, || {
            let handed_over = waiter.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            ready(if handed_over { Ok(()) } else { Err("it waits") })
        })
        .await;
    });
}

#[test]
fn whoever_is_told_of_a_loss_may_use_the_locker() {
    ends(async |server, locks, waker| {
        let guard = locks.lock("a").await.expect("it is free");
        let mut lost = Box::pin(guard.lost());
        assert!(lost.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        server.forget(guard.key());
        eventually("the loss", BOUND, || ready(if guard.is_held() { Err("it is held") } else { Ok(()) }))
            .await;
        assert_eq!(lost.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(()));
        drop(lost);
        assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
    });
}
