//! Waiters on whom others depend: unpolled, leaked, of another runtime, on servers and notices that fall silent.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use lock_setnx::{ErrorKind, Options, SetnxLocker};
use test_cluster::{Direction, Proxy, Redis, eventually, proxy::Behaviour};
use tokio::{runtime, task::JoinSet};
use tokio_test::task;

const KEY: &str = "orders/42";
const QUEUE: &str = "lock:{df}#queue:orders/42";
const PATIENCE: Duration = Duration::from_secs(10);

/// A lease so long that only a notice can end a wait in time.
fn long() -> Options {
    Options::default().with_ttl(Duration::from_secs(3600))
}

async fn in_time<T>(what: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::time::timeout(PATIENCE, what).await?)
}

async fn proxied(options: Options) -> Result<(Redis, Proxy, SetnxLocker)> {
    let redis = Redis::start()?;
    let proxy = Proxy::start(redis.address())?;
    let locks = SetnxLocker::connect(format!("redis://{}", proxy.address()), options).await?;
    Ok((redis, proxy, locks))
}

fn stands_in_queue(redis: &Redis) -> Result<()> {
    eventually("a place in the queue", PATIENCE, || {
        let waiters = redis.command(&["ZCARD", QUEUE])?.as_int();
        ensure!(waiters == Some(1), "{waiters:?} waiters");
        Ok(())
    })
}

/// Polls a waiter until it is the one that is told of releases, and then never again.
fn poll_until_queued<F: Future>(waiter: &mut task::Spawn<F>, redis: &Redis) -> Result<()> {
    eventually("a place in the queue", PATIENCE, || {
        assert!(waiter.poll().is_pending(), "the key is held");
        let waiters = redis.command(&["ZCARD", QUEUE])?.as_int();
        ensure!(waiters == Some(1), "{waiters:?} waiters");
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_is_not_polled_does_not_block_those_behind_it() -> Result<()> {
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), long()).await?;
    let guard = locks.lock(KEY).await?;
    let mut unpolled = task::spawn(locks.lock(KEY));
    poll_until_queued(&mut unpolled, &redis)?;
    let leaked = Box::leak(Box::new(task::spawn({
        let locks = locks.clone();
        async move { locks.lock(KEY).await }
    })));
    assert!(leaked.poll().is_pending());
    let behind = tokio::spawn({
        let locks = locks.clone();
        async move { locks.lock(KEY).await }
    });
    guard.release().await?;
    let next = in_time(behind).await???;
    assert!(unpolled.poll().is_pending(), "the key is held");
    next.release().await?;
    // Polled again, it is a waiter like any other.
    in_time(unpolled).await??.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_only_unpolled_waiters_want_is_free_for_other_clients() -> Result<()> {
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), long()).await?;
    let guard = locks.lock(KEY).await?;
    let mut unpolled = task::spawn(locks.lock(KEY));
    poll_until_queued(&mut unpolled, &redis)?;
    guard.release().await?;
    let others = SetnxLocker::connect(redis.url(), long()).await?;
    in_time(others.lock(KEY)).await??.release().await?;
    in_time(unpolled).await??.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_future_left_alone_during_a_reconnection_does_not_stop_renewals() -> Result<()> {
    let ttl = Duration::from_secs(1);
    let (_redis, proxy, locks) = proxied(Options::default().with_ttl(ttl)).await?;
    let guard = locks.lock(KEY).await?;
    let opened = proxy.connections();
    proxy.set(Direction::ToClient, Behaviour::Stall);
    proxy.reset_all();
    let mut left_alone = task::spawn(locks.try_lock("another"));
    eventually("a new connection", PATIENCE, || {
        assert!(left_alone.poll().is_pending());
        ensure!(proxy.connections() > opened);
        Ok(())
    })?;
    proxy.set(Direction::ToClient, Behaviour::Pass);
    // why: that renewals go on can only be shown by letting leases pass
    tokio::time::sleep(3 * ttl).await;
    guard.verify().await?;
    drop(left_alone);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_whose_notices_fall_silent_looks_again_by_itself() -> Result<()> {
    let ttl = Duration::from_secs(2);
    let (redis, proxy, locks) = proxied(Options::default().with_ttl(ttl)).await?;
    let guard = SetnxLocker::connect(redis.url(), long()).await?.lock(KEY).await?;
    // The connection that hears of releases goes another way than the one for requests.
    let to_notices = Proxy::start(redis.address())?;
    proxy.retarget(to_notices.address());
    let waiter = tokio::spawn(async move { locks.lock(KEY).await });
    stands_in_queue(&redis)?;
    to_notices.set(Direction::ToClient, Behaviour::Swallow);
    to_notices.set(Direction::ToServer, Behaviour::Swallow);
    guard.release().await?;
    in_time(waiter).await???.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_depends_on_another_runtime_that_used_the_locker() -> Result<()> {
    let (redis, proxy, locks) = proxied(long()).await?;
    let guard = locks.lock(KEY).await?;
    proxy.reset_all();
    // It opens the connections anew, is told to wait, and then stands still for ever.
    let other_locks = locks.clone();
    let other = thread::spawn(move || -> Result<_> {
        let other = runtime::Builder::new_current_thread().enable_all().build()?;
        let mut waiter = task::spawn(Box::pin(async move { other_locks.lock(KEY).await }));
        let entered = other.enter();
        other.block_on(async {
            eventually("a place in the queue", PATIENCE, || {
                assert!(waiter.poll().is_pending(), "the key is held");
                let waiters = redis.command(&["ZCARD", QUEUE])?.as_int();
                ensure!(waiters == Some(1), "{waiters:?} waiters");
                Ok(())
            })
        })?;
        drop(entered);
        drop(waiter);
        Ok((redis, other))
    });
    let (redis, other) = other.join().expect("the thread must not panic")?;
    let waiter = tokio::spawn({
        let locks = locks.clone();
        async move { locks.lock(KEY).await }
    });
    stands_in_queue(&redis)?;
    guard.release().await?;
    in_time(waiter).await???.release().await?;
    other.shutdown_background();
    Ok(())
}

#[test]
fn a_locker_made_outside_a_runtime_is_refused() {
    let connecting = pin!(SetnxLocker::connect("redis://127.0.0.1:1", Options::default()));
    let Poll::Ready(refused) = connecting.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("there is nothing to wait for");
    };
    assert_eq!(refused.expect_err("there is no runtime").kind(), ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_in_line_fail_together_when_the_server_stops() -> Result<()> {
    let redis = Redis::start()?;
    let options = Options::default().with_ttl(Duration::from_secs(1));
    let locks = SetnxLocker::connect(redis.url(), options).await?;
    let _guard = locks.lock(KEY).await?;
    let mut waiters = JoinSet::new();
    for _ in 0..120 {
        let locks = locks.clone();
        waiters.spawn(async move { locks.lock(KEY).await });
    }
    stands_in_queue(&redis)?;
    redis.pause()?;
    in_time(async {
        while let Some(waited) = waiters.join_next().await {
            let error = waited?.expect_err("the server is frozen");
            ensure!(error.kind() == ErrorKind::Unavailable, "{error:?}");
            ensure!(error.key().is_some_and(|key| key.as_str() == KEY), "{error:?}");
        }
        Ok(())
    })
    .await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_wakes_those_who_wait() -> Result<()> {
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), long()).await?;
    let guard = locks.lock(KEY).await?;
    let waiters = [(); 2].map(|()| {
        let locks = locks.clone();
        tokio::spawn(async move { locks.lock(KEY).await })
    });
    stands_in_queue(&redis)?;
    in_time(locks.close()).await?;
    assert_eq!(redis.command(&["EXISTS", QUEUE])?.as_int(), Some(0), "no place is left");
    for waiter in waiters {
        let error = in_time(waiter).await??.expect_err("the locker was closed");
        assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
    }
    guard.release().await?;
    Ok(())
}
