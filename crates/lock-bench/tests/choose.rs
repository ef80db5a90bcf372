//! `choose` on real servers: what it says, and what it leaves.

use std::{
    process::{Command, Output},
    thread,
    time::Duration,
};

use anyhow::Result;
use test_cluster::{Etcd, Redis, ZooKeeper, eventually};

/// A load that any server carries, for as short as can be.
const SMALL: [&str; 6] = ["--rate", "50", "--hold", "1ms", "--max-seconds", "1"];

fn choose(words: &[&str]) -> Result<(Output, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_lock-bench")).arg("choose").args(words).output()?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output, said))
}

/// The keys that are there, and how many belong to nobody else.
fn keys(redis: &Redis) -> Result<Option<i64>> {
    Ok(redis.command(&["DBSIZE"])?.as_int())
}

fn until_it_runs(redis: &Redis) -> Result<()> {
    eventually("the load to run", Duration::from_secs(20), || {
        let calls = redis.command(&["INFO", "commandstats"])?.text();
        let calls = calls.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        let calls: u64 = calls.and_then(|rest| rest.split(',').next()).unwrap_or("0").parse()?;
        anyhow::ensure!(calls > 10, "{calls} scripts were run");
        Ok(())
    })
}

#[test]
fn a_small_load_stays_on_the_redis_that_is_there_and_nothing_is_left() -> Result<()> {
    let redis = Redis::start()?;
    redis.command(&["SET", "orders/42", "not ours"])?;
    let (output, said) = choose(&[&["--redis", &redis.url()][..], &SMALL].concat())?;
    assert!(output.status.success(), "{said}");
    assert!(said.contains("points to lock-setnx:") && said.contains("nothing is left"), "{said}");
    assert_eq!(keys(&redis)?, Some(1), "{said}");
    Ok(())
}

#[test]
fn what_must_hold_under_any_fault_goes_to_etcd_or_zookeeper_and_nothing_is_left() -> Result<()> {
    let (redis, etcd, zk) = (Redis::start()?, Etcd::start()?, ZooKeeper::start()?);
    let (redis_url, etcd_url, zk_address) = (redis.url(), etcd.url(), zk.address().to_string());
    let servers = ["--redis", &redis_url, "--etcd", &etcd_url, "--zk", &zk_address, "--any-fault"];
    let (output, said) = choose(&[&servers[..], &SMALL].concat())?;
    assert!(output.status.success(), "{said}");
    assert!(said.contains("points to lock-etcd:") || said.contains("points to lock-zk:"), "{said}");
    assert!(said.contains("question 2"), "{said}");
    assert_eq!(keys(&redis)?, Some(0));
    assert!(etcd.keys("choose-")?.is_empty());
    assert!(!zk.ask("dump")?.contains("choose-"));
    Ok(())
}

#[test]
fn a_server_that_dies_midway_ends_it_with_a_clear_word() -> Result<()> {
    let redis = Redis::start()?;
    let url = redis.url();
    let running = thread::spawn(move || {
        choose(&["--redis", &url, "--rate", "200", "--hold", "1ms", "--max-seconds", "60"])
    });
    until_it_runs(&redis)?;
    redis.kill()?;
    let (output, said) = running.join().expect("it does not panic")?;
    assert!(!output.status.success(), "{said}");
    for part in ["failed, the last: ", "what is left cannot be seen", "the servers of lock-setnx failed"] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
    redis.restart()?;
    assert_eq!(keys(&redis)?, Some(0));
    Ok(())
}

#[test]
fn one_of_several_that_is_gone_is_no_reason_to_leave_anything_on_the_others() -> Result<()> {
    let servers = (0..3).map(|_| Redis::start()).collect::<Result<Vec<_>>>()?;
    let urls = servers.iter().map(Redis::url).collect::<Vec<_>>().join(",");
    let running = thread::spawn(move || {
        choose(&["--redlock", &urls, "--rate", "50", "--hold", "1ms", "--max-seconds", "5"])
    });
    until_it_runs(&servers[0])?;
    servers[0].kill()?;
    let (output, said) = running.join().expect("it does not panic")?;
    assert!(output.status.success(), "{said}");
    let gone = format!("cannot be seen: {}: ", servers[0].address());
    assert!(said.contains("points to lock-redlock:") && said.contains(&gone), "{said}");
    for redis in &servers[1..] {
        assert_eq!(keys(redis)?, Some(0), "{said}");
    }
    Ok(())
}

#[test]
fn a_load_that_no_lock_carries_is_refused_before_anything_is_sent() -> Result<()> {
    let redis = Redis::start()?;
    let url = redis.url();
    let words = ["--redis", &url, "--rate", "500", "--hold", "10ms", "--keys", "1"];
    let (output, said) = choose(&words)?;
    assert!(!output.status.success() && said.contains("no lock carries this"), "{said}");
    assert_eq!(keys(&redis)?, Some(0));
    Ok(())
}
