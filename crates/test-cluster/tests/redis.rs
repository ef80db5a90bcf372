//! What a Redis server of one's own promises.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Result, ensure};
use test_cluster::{
    Persistence, Redis, Sentinel, eventually,
    resp::{Connection, Value},
};

const BOUND: Duration = Duration::from_secs(20);

#[track_caller]
fn check_keeps_a_key_over_kill_and_restart(persistence: Persistence) {
    let redis = Redis::builder().persistence(persistence).start().unwrap();
    redis.command(&["SET", "key", "value"]).unwrap();
    redis.kill().unwrap();
    redis.restart().unwrap();
    assert_eq!(redis.command(&["GET", "key"]).unwrap().text(), "value");
}

#[test]
fn a_started_server_answers() -> Result<()> {
    let redis = Redis::start()?;
    assert_eq!(redis.command(&["PING"])?, Value::Status("PONG".into()));
    assert_eq!(redis.url(), format!("redis://127.0.0.1:{}/", redis.port()));
    assert!(
        redis.command(&["INFO", "server"])?.text().contains(&format!("redis_version:{}", redis.version()))
    );
    assert!(redis.log().contains("Ready to accept connections"), "{}", redis.log());
    Ok(())
}

#[test]
fn two_servers_share_nothing() -> Result<()> {
    let (one, other) = (Redis::start()?, Redis::start()?);
    one.command(&["SET", "key", "value"])?;
    assert_eq!(other.command(&["GET", "key"])?, Value::Nil);
    Ok(())
}

#[test]
fn a_refused_command_is_an_error_with_the_reason() -> Result<()> {
    let error = Redis::start()?.command(&["SET", "key"]).unwrap_err();
    assert!(error.to_string().starts_with("Redis refused SET: ERR wrong number of arguments"), "{error:#}");
    Ok(())
}

#[test]
fn a_killed_server_with_an_append_only_file_keeps_a_key() {
    check_keeps_a_key_over_kill_and_restart(Persistence::Aof);
}

#[test]
fn a_killed_server_that_syncs_always_keeps_a_key() {
    check_keeps_a_key_over_kill_and_restart(Persistence::AofAlways);
}

#[test]
fn a_restart_without_data_forgets_a_key() -> Result<()> {
    let redis = Redis::builder().persistence(Persistence::AofAlways).start()?;
    redis.command(&["SET", "key", "value"])?;
    redis.restart_without_data()?;
    assert_eq!(redis.command(&["GET", "key"])?, Value::Nil);
    Ok(())
}

#[test]
fn a_restart_keeps_the_port_and_changes_the_process() -> Result<()> {
    let redis = Redis::start()?;
    let (port, pid) = (redis.port(), redis.pid());
    redis.restart()?;
    assert_eq!(redis.port(), port);
    assert_ne!(redis.pid(), pid);
    Ok(())
}

#[test]
fn nobody_listens_after_a_kill() -> Result<()> {
    let redis = Redis::start()?;
    redis.kill()?;
    assert_eq!(redis.pid(), None);
    assert!(TcpStream::connect(redis.address()).is_err());
    Ok(())
}

#[test]
fn a_paused_server_lets_a_command_time_out_and_answers_when_resumed() -> Result<()> {
    let redis = Redis::start()?;
    let mut connection = Connection::open(redis.address(), Duration::from_millis(300))?;
    redis.pause()?;
    let error = connection.call(&["PING"]).unwrap_err();
    assert!(error.to_string().starts_with("no answer from the server"), "{error:#}");
    redis.resume()?;
    assert_eq!(redis.command(&["PING"])?.text(), "PONG");
    Ok(())
}

#[test]
fn a_paused_server_can_be_restarted() -> Result<()> {
    let redis = Redis::start()?;
    redis.pause()?;
    redis.restart()?;
    assert_eq!(redis.command(&["PING"])?.text(), "PONG");
    Ok(())
}

#[test]
fn a_password_is_required_and_stands_encoded_in_the_url() -> Result<()> {
    let redis = Redis::builder().password(r#"p@ss "1\"#).start()?;
    assert_eq!(redis.url(), format!("redis://:p%40ss%20%221%5C@127.0.0.1:{}/", redis.port()));
    assert_eq!(redis.command(&["PING"])?.text(), "PONG");

    let refusal = Connection::open(redis.address(), BOUND)?.call(&["PING"])?;
    assert!(refusal.text().starts_with("NOAUTH"), "{refusal:?}");
    assert!(!format!("{redis:?}").contains("p@ss"), "a password is in {redis:?}");
    Ok(())
}

#[test]
fn a_line_of_configuration_takes_effect() -> Result<()> {
    let redis = Redis::builder().config("maxmemory-policy", "allkeys-lru").start()?;
    let policy = redis.command(&["CONFIG", "GET", "maxmemory-policy"])?;
    assert_eq!(
        policy,
        Value::Array(vec![Value::Bulk(b"maxmemory-policy".into()), Value::Bulk(b"allkeys-lru".into())])
    );
    Ok(())
}

#[test]
fn a_server_that_does_not_start_shows_the_end_of_its_log() {
    let error = Redis::builder().config("no-such-setting", "1").start().unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("redis-server did not start on port"), "{text}");
    assert!(text.contains("Bad directive"), "{text}");
}

#[test]
fn a_port_that_is_taken_is_named() -> Result<()> {
    let redis = Redis::start()?;
    let text = format!("{:#}", Redis::builder().port(redis.port()).start().unwrap_err());
    assert!(text.contains(&format!("did not start on port {}", redis.port())), "{text}");
    assert!(text.contains("Address already in use"), "{text}");
    Ok(())
}

#[test]
fn a_tls_server_serves_tls_on_its_port_and_commands_beside_it() -> Result<()> {
    let files = tempfile::tempdir()?;
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem())?;
    std::fs::write(&key, certified.signing_key.serialize_pem())?;

    let redis = Redis::builder().tls(&cert, &key, &cert).start()?;
    assert_eq!(redis.url(), format!("rediss://127.0.0.1:{}/", redis.port()));
    assert_eq!(redis.command(&["PING"])?.text(), "PONG");

    // A TLS server answers nonsense with an alert record, whose type is 21, or hangs up; never in plain text.
    let mut plain = TcpStream::connect(redis.address())?;
    plain.set_read_timeout(Some(BOUND))?;
    plain.write_all(b"PING\r\n")?;
    let mut first = [0];
    assert!(matches!(plain.read(&mut first), Ok(0) | Err(_)) || first == [21], "it answered {first:?}");
    Ok(())
}

#[test]
fn a_cluster_of_one_node_serves_every_slot() -> Result<()> {
    let redis = Redis::builder().cluster_mode().start()?;
    for key in ["a", "b", "orders/42"] {
        redis.command(&["SET", key, "value"])?;
    }
    redis.restart_without_data()?;
    redis.command(&["SET", "a", "value"])?;
    Ok(())
}

#[test]
fn a_replica_gets_what_its_master_has() -> Result<()> {
    let master = Redis::builder().password("secret").start()?;
    master.command(&["SET", "key", "value"])?;
    let replica = Redis::builder().password("secret").replica_of(master.port()).start()?;
    assert_eq!(replica.command(&["GET", "key"])?.text(), "value");
    Ok(())
}

#[test]
fn a_sentinel_replaces_a_killed_master_by_its_replica() -> Result<()> {
    let master = Redis::start()?;
    let replica = Redis::builder().replica_of(master.port()).start()?;
    let sentinel = Sentinel::start(&master, "mymaster")?;
    assert_eq!(sentinel.master_port("mymaster")?, master.port());

    master.kill()?;
    eventually("a new master", BOUND, || {
        let port = sentinel.master_port("mymaster")?;
        ensure!(port == replica.port(), "the master is still on port {port}");
        Ok(())
    })
}

#[test]
fn a_server_has_the_variables_it_was_given() -> Result<()> {
    // The loader says what it loads, in what becomes the log.
    let redis = Redis::builder().environment([("LD_DEBUG", "files")]).start()?;
    ensure!(redis.log().contains("calling init"), "the log is {}", redis.log());
    assert!(redis.data().is_dir());
    Ok(())
}
