//! What the proxy does to the connections that go through it.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use test_cluster::{
    Behaviour::{Delay, Pass, Stall, Swallow},
    Direction::{ToClient, ToServer},
    Proxy, Redis, eventually,
    resp::Connection,
};

const BOUND: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

fn redis_behind_proxy() -> Result<(Redis, Proxy)> {
    let redis = Redis::start()?;
    let proxy = Proxy::start(redis.address())?;
    Ok((redis, proxy))
}

fn visits(redis: &Redis) -> Result<String> {
    Ok(redis.command(&["GET", "visits"])?.text())
}

fn eventually_visited(redis: &Redis) -> Result<()> {
    eventually("the server to get the request", BOUND, || {
        let visits = visits(redis)?;
        ensure!(visits == "1", "there were {visits:?} visits");
        Ok(())
    })
}

#[test]
fn bytes_pass_and_are_counted() -> Result<()> {
    let (_redis, proxy) = redis_behind_proxy()?;
    let mut client = Connection::open(proxy.address(), BOUND)?;
    assert_eq!(client.call(&["PING"])?.text(), "PONG");
    assert_eq!(client.call(&["ECHO", "hello"])?.text(), "hello");

    assert_eq!((proxy.connections(), proxy.open_connections(), proxy.requests()), (1, 1, 2));
    assert_eq!(proxy.bytes(ToServer), "*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n".len() as u64);
    assert_eq!(proxy.bytes(ToClient), "+PONG\r\n$5\r\nhello\r\n".len() as u64);
    assert_eq!((proxy.chunks(ToServer), proxy.chunks(ToClient)), (2, 2));
    Ok(())
}

#[test]
fn a_megabyte_passes_unchanged() -> Result<()> {
    let (_redis, proxy) = redis_behind_proxy()?;
    let text = "0123456789abcdef".repeat(1 << 16);
    assert_eq!(Connection::open(proxy.address(), BOUND)?.call(&["ECHO", &text])?.text(), text);
    Ok(())
}

#[test]
fn a_stalled_request_is_delivered_later() -> Result<()> {
    let (redis, proxy) = redis_behind_proxy()?;
    let mut client = Connection::open(proxy.address(), SHORT)?;
    proxy.set(ToServer, Stall);
    client.call(&["INCR", "visits"]).unwrap_err();
    assert_eq!(visits(&redis)?, "", "the server saw the request");

    proxy.set(ToServer, Pass);
    eventually_visited(&redis)
}

#[test]
fn a_stalled_reply_is_delivered_later() -> Result<()> {
    let (redis, proxy) = redis_behind_proxy()?;
    let mut client = Connection::open(proxy.address(), SHORT)?;
    proxy.set(ToClient, Stall);
    client.call(&["INCR", "visits"]).unwrap_err();
    eventually_visited(&redis)?;

    proxy.set(ToClient, Pass);
    let reply = eventually("the reply", BOUND, || client.read())?;
    assert_eq!(reply.as_int(), Some(1));
    Ok(())
}

#[test]
fn the_end_of_a_connection_is_stalled_like_its_bytes() -> Result<()> {
    let (redis, proxy) = redis_behind_proxy()?;
    let mut client = TcpStream::connect(proxy.address())?;
    client.write_all(b"PING\r\n")?;
    let mut pong = [0; 7];
    client.read_exact(&mut pong)?;
    assert_eq!(&pong, b"+PONG\r\n");

    proxy.set(ToClient, Stall);
    redis.kill()?;
    client.set_read_timeout(Some(SHORT))?;
    let waited = client.read(&mut [0]).unwrap_err().kind();
    assert!(matches!(waited, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{waited:?}");

    proxy.set(ToClient, Pass);
    client.set_read_timeout(Some(BOUND))?;
    assert_eq!(client.read(&mut [0])?, 0);
    Ok(())
}

#[test]
fn swallowed_bytes_never_arrive() -> Result<()> {
    let (redis, proxy) = redis_behind_proxy()?;
    let mut client = Connection::open(proxy.address(), SHORT)?;
    proxy.set(ToServer, Swallow);
    client.call(&["INCR", "visits"]).unwrap_err();
    proxy.set(ToServer, Pass);
    assert_eq!(Connection::open(proxy.address(), BOUND)?.call(&["INCR", "visits"])?.as_int(), Some(1));
    assert_eq!(visits(&redis)?, "1");
    Ok(())
}

#[test]
fn a_delayed_reply_takes_at_least_the_delay() -> Result<()> {
    let (_redis, proxy) = redis_behind_proxy()?;
    let mut client = Connection::open(proxy.address(), BOUND)?;
    proxy.set(ToClient, Delay(SHORT));
    let start = Instant::now();
    assert_eq!(client.call(&["PING"])?.text(), "PONG");
    assert!(start.elapsed() >= SHORT, "it took only {:?}", start.elapsed());
    Ok(())
}

#[test]
fn setting_another_behaviour_ends_a_long_delay() -> Result<()> {
    let (_redis, proxy) = redis_behind_proxy()?;
    let mut client = Connection::open(proxy.address(), SHORT)?;
    proxy.set(ToClient, Delay(Duration::from_secs(3600)));
    client.call(&["PING"]).unwrap_err();
    proxy.set(ToClient, Pass);
    assert_eq!(eventually("the reply", BOUND, || client.read())?.text(), "PONG");
    Ok(())
}

#[test]
fn a_reset_reaches_every_client_also_a_stalled_one() -> Result<()> {
    let (_redis, proxy) = redis_behind_proxy()?;
    let mut clients = [TcpStream::connect(proxy.address())?, TcpStream::connect(proxy.address())?];
    eventually("both connections to reach the server", BOUND, || {
        ensure!(proxy.open_connections() == 2, "{} are open", proxy.open_connections());
        Ok(())
    })?;
    proxy.set(ToServer, Stall);
    proxy.reset_all();
    assert_eq!(proxy.open_connections(), 0);
    for client in &mut clients {
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    Ok(())
}

#[test]
fn a_reset_ends_a_connection_whose_client_does_not_read() -> Result<()> {
    let (redis, proxy) = redis_behind_proxy()?;
    redis.command(&["SET", "large", &"x".repeat(32 << 20)])?;
    let mut client = TcpStream::connect(proxy.address())?;
    client.write_all(b"GET large\r\n")?;
    eventually("the proxy to have the reply", BOUND, || {
        ensure!(proxy.bytes(ToClient) > 32 << 20, "it has {} bytes", proxy.bytes(ToClient));
        Ok(())
    })?;
    proxy.reset_all();
    assert_eq!(proxy.open_connections(), 0);
    Ok(())
}

#[test]
fn a_dropped_reply_leaves_the_caller_without_answer_after_the_server_acted() -> Result<()> {
    let (redis, proxy) = redis_behind_proxy()?;
    let mut client = Connection::open(proxy.address(), BOUND)?;
    proxy.drop_next_reply();
    let error = client.call(&["INCR", "visits"]).unwrap_err();
    assert!(format!("{error:#}").contains("reset"), "{error:#}");
    assert_eq!(visits(&redis)?, "1");

    let mut next = Connection::open(proxy.address(), BOUND)?;
    assert_eq!(next.call(&["INCR", "visits"])?.as_int(), Some(2), "more than one reply was dropped");
    Ok(())
}

#[test]
fn refusing_resets_new_connections_and_spares_open_ones() -> Result<()> {
    let (_redis, proxy) = redis_behind_proxy()?;
    let mut open = Connection::open(proxy.address(), BOUND)?;
    open.call(&["PING"])?;
    proxy.refuse(true);
    Connection::open(proxy.address(), BOUND).and_then(|mut new| new.call(&["PING"])).unwrap_err();
    assert_eq!(open.call(&["PING"])?.text(), "PONG");

    proxy.refuse(false);
    assert_eq!(Connection::open(proxy.address(), BOUND)?.call(&["PING"])?.text(), "PONG");
    assert_eq!(proxy.connections(), 2);
    Ok(())
}

#[test]
fn the_port_stays_while_the_server_behind_it_is_replaced() -> Result<()> {
    let (first, proxy) = redis_behind_proxy()?;
    let port = proxy.port();
    first.kill()?;
    Connection::open(proxy.address(), BOUND).and_then(|mut client| client.call(&["PING"])).unwrap_err();
    first.restart()?;
    Connection::open(proxy.address(), BOUND)?.call(&["SET", "name", "first"])?;

    let second = Redis::start()?;
    second.command(&["SET", "name", "second"])?;
    proxy.retarget(second.address());
    assert_eq!(Connection::open(proxy.address(), BOUND)?.call(&["GET", "name"])?.text(), "second");
    assert_eq!(proxy.port(), port);
    Ok(())
}

#[test]
fn connections_that_have_ended_are_forgotten() -> Result<()> {
    let (_redis, proxy) = redis_behind_proxy()?;
    for _ in 0..10 {
        Connection::open(proxy.address(), BOUND)?.call(&["PING"])?;
    }
    assert_eq!(proxy.connections(), 10);
    eventually("all connections to end", BOUND, || {
        ensure!(proxy.open_connections() == 0, "{} are open", proxy.open_connections());
        Ok(())
    })
}

#[test]
fn a_silenced_connection_tells_nothing_and_a_new_one_does() -> Result<()> {
    let (redis, proxy) = redis_behind_proxy()?;
    let mut silent = Connection::open(proxy.address(), SHORT)?;
    assert_eq!(silent.call(&["PING"])?.text(), "PONG");
    assert_eq!(proxy.silence(), 1);
    assert!(silent.call(&["INCR", "visits"]).is_err());
    eventually_visited(&redis)?;
    assert_eq!(Connection::open(proxy.address(), BOUND)?.call(&["PING"])?.text(), "PONG");
    Ok(())
}
