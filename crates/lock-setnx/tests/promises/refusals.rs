//! Servers and settings that cannot work are refused at connect, in time and in words.

use std::{
    io::{self, Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use lock_core::backend::Effect;
use lock_setnx::{Error, ErrorKind, Options, SetnxLocker, Target};
use test_cluster::{Direction, Proxy, Redis, proxy::Behaviour};

/// Connects, expects an error, and holds it to its promises: kind, words, no secret, within the deadline.
async fn refused(url: &str, options: Options, kind: ErrorKind, words: &str) -> Error {
    let started = Instant::now();
    let error = SetnxLocker::connect(url, options).await.expect_err("it cannot work");
    // The request timeout is 10 s / 6; the rest is for a busy machine.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?} for: {error}", started.elapsed());
    let shown = format!("{error}");
    assert_eq!(error.kind(), kind, "{shown}: {error:?}");
    assert!(shown.contains(words), "{shown}: {error:?}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    assert_eq!(error.effect(), Effect::None, "nothing can have been locked: {error:?}");
    error
}

fn options() -> Options {
    Options::default()
}

#[tokio::test]
async fn bad_addresses_and_options_are_refused_before_anything_is_sent() {
    for url in ["", "127.0.0.1", "http://user:secret@127.0.0.1/", "redis://user:secret@host:port/"] {
        refused(url, options(), ErrorKind::InvalidInput, "redis://").await;
    }
    let url = "redis://127.0.0.1:1";
    for ttl in [Duration::ZERO, Duration::from_micros(999), Duration::MAX] {
        refused(url, options().with_ttl(ttl), ErrorKind::InvalidInput, "TTL").await;
    }
    refused(url, options().with_prefix("{x}"), ErrorKind::InvalidInput, "prefix").await;
}

#[tokio::test]
async fn a_port_with_no_server_is_unavailable() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    refused(&format!("redis://{free}"), options(), ErrorKind::Unavailable, "nothing listens there").await;
}

#[tokio::test]
async fn a_host_that_does_not_exist_is_unavailable() {
    refused("redis://no-such-host.invalid", options(), ErrorKind::Unavailable, "cannot be resolved").await;
}

#[tokio::test]
async fn a_server_that_never_answers_is_unavailable() -> Result<()> {
    let redis = Redis::start()?;
    let proxy = Proxy::start(redis.address())?;
    proxy.set(Direction::ToClient, Behaviour::Stall);
    refused(
        &format!("redis://{}", proxy.address()),
        options(),
        ErrorKind::Unavailable,
        "no connection within",
    )
    .await;
    Ok(())
}

#[tokio::test]
async fn a_web_server_is_recognised_as_no_redis() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    refused(&format!("redis://{address}"), options(), ErrorKind::Unexpected, "does not speak").await;
    Ok(())
}

#[tokio::test]
async fn wrong_and_missing_passwords_are_auth_errors() -> Result<()> {
    let redis = Redis::builder().password("correct").start()?;
    let at = |login: &str| format!("redis://{login}127.0.0.1:{}", redis.port());
    refused(&at(":secret@"), options(), ErrorKind::Auth, "password is wrong").await;
    refused(&at("nobody:secret@"), options(), ErrorKind::Auth, "password is wrong").await;
    refused(&at(""), options(), ErrorKind::Auth, "or one is needed").await;
    SetnxLocker::connect(redis.url(), options()).await?;
    Ok(())
}

#[tokio::test]
async fn a_user_without_the_rights_is_told_which_are_needed() -> Result<()> {
    let redis = Redis::start()?;
    redis.command(&["ACL", "SETUSER", "clerk", "on", ">secret", "~*", "&*", "+@connection", "+info"])?;
    let locks = SetnxLocker::connect(format!("redis://clerk:secret@{}", redis.address()), options()).await?;
    let error = locks.try_lock("orders/42").await.expect_err("scripts are not allowed");
    assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
    assert!(error.to_string().contains("EVALSHA"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_user_who_may_not_publish_or_append_can_still_lock() -> Result<()> {
    let redis = Redis::start()?;
    redis.command(&[
        "ACL", "SETUSER", "clerk", "on", ">pw", "~lock:*", "+@all", "-publish", "-append", "-script",
    ])?;
    let locks = SetnxLocker::connect(format!("redis://clerk:pw@{}", redis.address()), options()).await?;
    let guard = locks.lock("orders/42").await?;
    assert!(locks.try_lock_for("orders/42", Duration::from_millis(50)).await?.is_none());
    guard.release().await?;
    locks.lock("orders/42").await?.release().await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_evicts_is_refused_unless_told_otherwise() -> Result<()> {
    let redis = Redis::builder().config("maxmemory-policy", "allkeys-lru").start()?;
    refused(&redis.url(), options(), ErrorKind::UnsafeConfig, "allkeys-lru").await;
    let locks = SetnxLocker::connect(Target::url(&redis.url())?.accepting_eviction(), options()).await?;
    locks.lock("orders/42").await?.release().await?;
    Ok(())
}

#[tokio::test]
async fn a_replica_is_refused() -> Result<()> {
    let primary = Redis::start()?;
    let replica = Redis::builder().replica_of(primary.port()).start()?;
    refused(&replica.url(), options(), ErrorKind::Unavailable, "replica").await;
    Ok(())
}

#[tokio::test]
async fn a_full_memory_refuses_acquires_and_still_releases() -> Result<()> {
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), options()).await?;
    let guard = locks.lock("orders/42").await?;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"])?;
    let error = locks.try_lock("orders/43").await.expect_err("no memory is left");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("memory is full"), "{error}");
    // A waiter cannot leave its mark, and is served all the same.
    assert!(locks.try_lock_for("orders/42", Duration::from_millis(50)).await?.is_none());
    guard.verify().await?;
    guard.release().await?;
    redis.command(&["CONFIG", "SET", "maxmemory", "0"])?;
    locks.lock("orders/42").await?.release().await?;
    Ok(())
}

#[tokio::test]
async fn what_another_program_keeps_under_the_name_is_left_alone() -> Result<()> {
    let redis = Redis::start()?;
    let locks = SetnxLocker::connect(redis.url(), options()).await?;
    redis.command(&["HSET", "lock:{df}:orders/42", "field", "value"])?;
    let error = locks.try_lock("orders/42").await.expect_err("it is no lock");
    assert_eq!(error.kind(), ErrorKind::UnsafeConfig, "{error:?}");
    assert_eq!(redis.command(&["HGET", "lock:{df}:orders/42", "field"])?.text(), "value");
    Ok(())
}

#[tokio::test]
async fn contradictory_lease_options_are_refused_with_the_reason() {
    let lease = Options::default().with_renew_every(Duration::from_secs(9));
    refused("redis://127.0.0.1:1", lease, ErrorKind::InvalidInput, "renew earlier").await;
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_user_without_channels_is_warned_of_at_connect() -> Result<()> {
    let redis = Redis::start()?;
    let log = Log::default();
    let writer = log.clone();
    let _logged = tracing::subscriber::set_default(
        tracing_subscriber::fmt().with_writer(move || writer.clone()).finish(),
    );
    let connect = async |rights: &[&str]| -> Result<String> {
        let user = ["ACL", "SETUSER", "clerk", "reset", "on", ">pw", "~lock:*", "+@all"];
        redis.command(&[&user[..], rights].concat())?;
        SetnxLocker::connect(format!("redis://clerk:pw@{}", redis.address()), options()).await?;
        Ok(String::from_utf8(std::mem::take(&mut *log.0.lock().unwrap()))?)
    };
    let warned = connect(&[]).await?;
    assert!(warned.contains("the user has no right to channels"), "{warned}");
    let warned = connect(&["&lock:*"]).await?;
    assert!(!warned.contains("channels"), "{warned}");
    Ok(())
}
