//! Servers and networks that fail while locks are taken, held, awaited and given back.

use std::time::Duration;

use anyhow::{Result, ensure};
use lock_setnx::{ErrorKind, LockGuard, Options, SetnxLocker};
use test_cluster::{Direction, Persistence, Proxy, Redis, eventually, proxy::Behaviour, resp::Value};

const KEY: &str = "orders/42";
const NAME: &str = "lock:{df}:orders/42";
const QUEUE: &str = "lock:{df}#queue:orders/42";
const PATIENCE: Duration = Duration::from_secs(10);

fn options() -> Options {
    Options::default().with_ttl(Duration::from_secs(3))
}

/// A Redis, a proxy before it, and a locker behind the proxy.
async fn proxied() -> Result<(Redis, Proxy, SetnxLocker)> {
    let redis = Redis::start()?;
    let proxy = Proxy::start(redis.address())?;
    let locks = SetnxLocker::connect(format!("redis://{}", proxy.address()), options()).await?;
    Ok((redis, proxy, locks))
}

fn is_locked(redis: &Redis) -> Result<bool> {
    Ok(redis.command(&["EXISTS", NAME])?.as_int() == Some(1))
}

/// Waits until the key is gone, for less time than the end of its lease would need.
fn soon_free(redis: &Redis) -> Result<()> {
    eventually("the key to be undone", Duration::from_secs(1), || {
        ensure!(!is_locked(redis)?, "it is there");
        Ok(())
    })
}

async fn in_time<T>(what: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::time::timeout(PATIENCE, what).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_given_up_on_a_frozen_server_leaves_no_key() -> Result<()> {
    let (redis, _proxy, locks) = proxied().await?;
    redis.pause()?;
    let given_up = tokio::time::timeout(Duration::from_millis(50), locks.lock(KEY)).await;
    assert!(given_up.is_err());
    let error = locks.try_lock(KEY).await.expect_err("the server is frozen");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    redis.resume()?;
    // Both acquires are executed now, and both undone.
    eventually("the acquires to be executed", PATIENCE, || {
        let fence = redis.command(&["EXISTS", "lock:{df}#fence"])?;
        ensure!(fence.as_int() == Some(1), "not yet");
        Ok(())
    })?;
    soon_free(&redis)
}

/// The path over which the first connection goes stalls, and with it an acquire; later connections take another path,
/// so that an undo could overtake the acquire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_that_lands_late_is_undone_after_it() -> Result<()> {
    let redis = Redis::start()?;
    let stalling = Proxy::start(redis.address())?;
    let proxy = Proxy::start(stalling.address())?;
    let locks = SetnxLocker::connect(format!("redis://{}", proxy.address()), options()).await?;
    stalling.set(Direction::ToServer, Behaviour::Stall);
    proxy.retarget(redis.address());
    let error = locks.try_lock(KEY).await.expect_err("nothing arrives");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");

    // The silent connection was given up: other locks go over a new one at once.
    locks.lock("another").await?.release().await?;
    assert_eq!(proxy.connections(), 2);
    eventually("the undo to arrive over the new connection", PATIENCE, || {
        let stats = redis.command(&["INFO", "commandstats"])?.text();
        let scripts = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap_or_default();
        ensure!(scripts.starts_with("cmdstat_evalsha:calls=3,"), "{scripts}");
        Ok(())
    })?;
    stalling.set(Direction::ToServer, Behaviour::Pass);
    eventually("the acquire to arrive", PATIENCE, || {
        let fence = redis.command(&["EXISTS", "lock:{df}#fence"])?;
        ensure!(fence.as_int() == Some(1), "not yet");
        Ok(())
    })?;
    soon_free(&redis)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_whose_reply_is_lost_recognises_itself() -> Result<()> {
    let (redis, proxy, locks) = proxied().await?;
    proxy.drop_next_reply();
    let guard = locks.try_lock(KEY).await?.expect("it is free but for this very attempt");
    let holder = locks.inspect(KEY).await?.expect("it is held");
    assert_eq!(holder.fencing_token, guard.fencing_token());
    guard.verify().await?;
    guard.release().await?;
    assert!(!is_locked(&redis)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_whose_reply_is_lost_frees_and_does_not_claim_to_know() -> Result<()> {
    let (redis, proxy, locks) = proxied().await?;
    let guard = locks.lock(KEY).await?;
    proxy.drop_next_reply();
    let error = guard.release().await.expect_err("the reply is lost");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!is_locked(&redis)?, "the release was executed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_survives_a_restart_that_keeps_the_data() -> Result<()> {
    let redis = Redis::builder().persistence(Persistence::AofAlways).start()?;
    let locks = SetnxLocker::connect(redis.url(), options()).await?;
    let guard = locks.lock(KEY).await?;
    redis.kill()?;
    redis.restart()?;
    guard.verify().await?;
    assert!(locks.try_lock(KEY).await?.is_none(), "it is still held");
    guard.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_loses_the_data_is_noticed_by_the_next_renewal_and_tokens_go_on_growing() -> Result<()>
{
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), options()).await?;
    let guard = locks.lock(KEY).await?;
    redis.kill()?;
    redis.restart_without_data()?;
    in_time(guard.lost()).await?;
    assert!(!guard.is_held());
    let next = locks.lock(KEY).await?;
    assert!(next.fencing_token() > guard.fencing_token());
    let error = guard.release().await.expect_err("it was lost");
    assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
    next.verify().await?;
    Ok(())
}

/// A snapshot, or a log of which the last second is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_go_on_growing_past_a_restart_with_an_older_counter() -> Result<()> {
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), options()).await?;
    let older = locks.lock(KEY).await?.fencing_token();
    let newest = locks.lock("orders/42").await?.fencing_token();
    redis.kill()?;
    redis.restart_without_data()?;
    redis.command(&["SET", "lock:{df}#fence", &older.to_string()])?;
    assert!(locks.lock(KEY).await?.fencing_token() > newest);
    // Without a word: the counter alone is gone.
    let newest = locks.lock(KEY).await?.fencing_token();
    redis.command(&["FLUSHALL"])?;
    assert!(locks.lock(KEY).await?.fencing_token() > newest);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_at_its_end_is_refused_before_tokens_repeat() -> Result<()> {
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), options()).await?;
    redis.command(&["SET", "lock:{df}#fence", "9007199254740990"])?;
    let last = locks.lock(KEY).await?;
    assert_eq!(last.fencing_token().get(), (1 << 53) - 1);
    last.release().await?;
    let error = locks.try_lock(KEY).await.expect_err("there is no larger token");
    assert_eq!(error.kind(), ErrorKind::UnsafeConfig, "{error}");
    assert!(error.to_string().contains("lock:{df}#fence"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_outlasts_a_restart() -> Result<()> {
    let redis = Redis::builder().persistence(Persistence::AofAlways).start()?;
    let locks = SetnxLocker::connect(redis.url(), options()).await?;
    let guard = locks.lock(KEY).await?;
    let waiter = wait_in_another_client(&redis).await?;
    redis.kill()?;
    redis.restart()?;
    guard.verify().await?;
    guard.release().await?;
    in_time(waiter).await???.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_whose_notices_break_is_told_all_the_same() -> Result<()> {
    let redis = Redis::start()?;
    // A lease so long that only a notice can end the wait in time.
    let locks = SetnxLocker::connect(redis.url(), options().with_ttl(Duration::from_secs(3600))).await?;
    let guard = locks.lock(KEY).await?;
    let waiter = wait_in_another_client(&redis).await?;
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"])?;
    eventually("a new subscription", PATIENCE, || {
        let channels = redis.command(&["PUBSUB", "CHANNELS", "lock:#*"])?;
        ensure!(matches!(&channels, Value::Array(found) if found.len() == 1), "{channels:?}");
        Ok(())
    })?;
    guard.release().await?;
    in_time(waiter).await???.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_does_not_spin_while_its_server_is_gone() -> Result<()> {
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), options()).await?;
    let _guard = locks.lock(KEY).await?;
    let waiter = wait_in_another_client(&redis).await?;
    redis.kill()?;
    // What is in its place hangs up on everybody, and counts.
    let stand_in = std::net::TcpListener::bind(redis.address())?;
    stand_in.set_nonblocking(true)?;
    let mut callers = 0;
    let end = std::time::Instant::now() + Duration::from_secs(1);
    while std::time::Instant::now() < end {
        match stand_in.accept() {
            Ok(_) => callers += 1,
            // why: the waiter's restraint can only be shown by letting time pass
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    // A look each tenth of a lease, each with a few connections; a spin would make thousands.
    ensure!((1..100).contains(&callers), "{callers} connections in a second");
    waiter.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_the_server_forgot_are_sent_again() -> Result<()> {
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), options()).await?;
    redis.command(&["SCRIPT", "FLUSH"])?;
    let guard = locks.lock(KEY).await?;
    redis.command(&["SCRIPT", "FLUSH"])?;
    guard.verify().await?;
    redis.command(&["SCRIPT", "FLUSH"])?;
    guard.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_out_of_connections_keeps_its_holders() -> Result<()> {
    let redis = Redis::start()?;
    let mut admin = redis.connect(PATIENCE)?;
    let locks = SetnxLocker::connect(redis.url(), options()).await?;
    let guard = locks.lock(KEY).await?;
    admin.call(&["CONFIG", "SET", "maxclients", "2"])?;
    let error = SetnxLocker::connect(redis.url(), options()).await.expect_err("no connection is left");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("maxclients"), "{error}");
    guard.verify().await?;
    guard.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_taken_away_while_held_end_the_hold_at_its_deadline() -> Result<()> {
    let redis = Redis::start()?;
    redis.command(&["ACL", "SETUSER", "clerk", "on", ">pw", "~*", "&*", "+@all"])?;
    let locks = SetnxLocker::connect(
        format!("redis://clerk:pw@{}", redis.address()),
        options().with_ttl(Duration::from_millis(600)),
    )
    .await?;
    let guard = locks.lock(KEY).await?;
    redis.command(&["ACL", "SETUSER", "clerk", "-@all"])?;
    in_time(guard.lost()).await?;
    let error = locks.try_lock(KEY).await.expect_err("nothing is allowed any more");
    assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
    Ok(())
}

/// A task of another client that waits for the key, once it is told of releases.
async fn wait_in_another_client(
    redis: &Redis,
) -> Result<tokio::task::JoinHandle<lock_setnx::Result<LockGuard>>> {
    let locks = SetnxLocker::connect(redis.url(), options()).await?;
    let waiter = tokio::spawn(async move { locks.lock(KEY).await });
    stands_in_queue(redis)?;
    Ok(waiter)
}

fn stands_in_queue(redis: &Redis) -> Result<()> {
    eventually("a place in the queue", PATIENCE, || {
        let waiters = redis.command(&["ZCARD", QUEUE])?.as_int();
        ensure!(waiters == Some(1), "{waiters:?} waiters");
        Ok(())
    })
}

/// What lies before the server has taken the acquire in, and hands it on when the client believes it lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_an_acquire_that_arrives_after_the_release_takes_nothing() -> Result<()> {
    let redis = Redis::start()?;
    let storing = Proxy::start(redis.address())?;
    let proxy = Proxy::start(storing.address())?;
    let locks = SetnxLocker::connect(format!("redis://{}", proxy.address()), options()).await?;
    let scripts = || -> Result<usize> {
        let stats = redis.command(&["INFO", "commandstats"])?.text();
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        Ok(calls.and_then(|rest| rest.split(',').next()).map_or(Ok(0), str::parse)?)
    };
    storing.set(Direction::ToServer, Behaviour::Stall);
    let before = storing.requests();
    let acquiring = tokio::spawn({
        let locks = locks.clone();
        async move { locks.try_lock(KEY).await }
    });
    eventually("the first copy", PATIENCE, || {
        ensure!(storing.requests() > before);
        Ok(())
    })?;
    proxy.retarget(redis.address());
    proxy.reset_all();
    let guard = in_time(acquiring).await???.expect("it is free");
    guard.release().await?;
    let executed = scripts()?;
    storing.set(Direction::ToServer, Behaviour::Pass);
    eventually("the first copy to be executed", PATIENCE, || {
        ensure!(scripts()? > executed);
        Ok(())
    })?;
    assert!(!is_locked(&redis)?, "nobody holds it");
    locks.try_lock(KEY).await?.expect("it is free").release().await?;
    Ok(())
}
