//! Servers live exactly as long as they should.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use test_cluster::{
    Etcd, Redis, ZooKeeper, etcd, eventually,
    process::{Detached, is_detached_running, is_running, stop_detached},
    resp::Connection,
    zookeeper,
};

const BOUND: Duration = Duration::from_secs(20);

/// Set in a copy of this test binary, which starts a server, says so, and waits to be killed.
const VICTIM: &str = "TEST_CLUSTER_VICTIM";

fn data_directory(redis: &Redis) -> Result<PathBuf> {
    let answer = redis.command(&["CONFIG", "GET", "dir"])?;
    let test_cluster::resp::Value::Array(pair) = answer else { anyhow::bail!("no directory: {answer:?}") };
    Ok(pair[1].text().into())
}

fn gone(pid: u32, directory: &Path) -> Result<()> {
    eventually("the server and its data to be gone", BOUND, || {
        ensure!(!is_running(pid), "process {pid} still runs");
        ensure!(!directory.exists(), "{} is still there", directory.display());
        Ok(())
    })
}

fn be_the_victim(pause: bool) -> Result<()> {
    let redis = Redis::start()?;
    let directory = data_directory(&redis)?;
    if pause {
        redis.pause()?;
    }
    println!("\nserver {} {}", redis.pid().context("it runs")?, directory.display());
    loop {
        thread::park();
    }
}

/// Runs the test `name` in a process of its own as a victim, kills it, and looks for its server.
fn check_a_killed_process_leaves_no_server(name: &str, pause: bool) -> Result<()> {
    if env::var_os(VICTIM).is_some() {
        return be_the_victim(pause);
    }
    let mut victim: Child = Command::new(env::current_exe()?)
        .args(["--exact", name, "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(victim.stdout.take().context("stdout is piped")?).lines();
    let server = lines.map_while(Result::ok).find_map(|line| {
        let (pid, directory) = line.strip_prefix("server ")?.split_once(' ')?;
        Some((pid.parse().ok()?, PathBuf::from(directory)))
    });
    let running = server.as_ref().is_some_and(|(pid, _)| is_running(*pid));
    victim.kill()?;
    victim.wait()?;

    let (pid, directory) = server.context("the victim started no server")?;
    assert!(running, "process {pid} did not run before its owner was killed");
    gone(pid, &directory)
}

#[test]
fn a_killed_test_process_leaves_no_server_behind() -> Result<()> {
    check_a_killed_process_leaves_no_server("a_killed_test_process_leaves_no_server_behind", false)
}

#[test]
fn a_killed_test_process_leaves_no_paused_server_behind() -> Result<()> {
    check_a_killed_process_leaves_no_server("a_killed_test_process_leaves_no_paused_server_behind", true)
}

#[test]
fn a_dropped_server_is_gone_with_its_data() -> Result<()> {
    let redis = Redis::start()?;
    let (pid, directory) = (redis.pid().context("it runs")?, data_directory(&redis)?);
    drop(redis);
    assert!(!is_running(pid));
    assert!(!directory.exists());
    Ok(())
}

#[test]
fn a_detached_server_runs_until_it_is_stopped() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Redis::builder().detached(directory.path())?;
    let answer = Connection::open(([127, 0, 0, 1], server.port).into(), BOUND)?.call(&["PING"])?;
    assert_eq!(answer.text(), "PONG");
    assert!(is_detached_running(server.pid, directory.path()));

    assert!(stop_detached(server.pid, directory.path())?);
    assert!(!is_running(server.pid));
    assert!(!stop_detached(server.pid, directory.path())?, "it was stopped twice");
    Ok(())
}

#[test]
fn members_of_a_detached_cluster_follow_one_leader() -> Result<()> {
    let home = tempfile::tempdir()?;
    let directories = |name: &str| [1, 2, 3].map(|number| home.path().join(format!("{name}{number}")));
    let mut left = Vec::new();
    let mut start = |directories: [PathBuf; 3], started: Vec<Detached>| {
        let ports: Vec<_> = started.iter().map(|server| server.port).collect();
        left.extend(started.into_iter().zip(directories));
        ports
    };
    let etcd = start(directories("etcd"), Etcd::builder().detached_cluster(&directories("etcd"))?);
    let zk = start(directories("zk"), ZooKeeper::builder().detached_cluster(&directories("zk"))?);
    let leads: Vec<_> = etcd.iter().map(|port| etcd::leads(*port)).collect();
    let modes: Vec<_> = zk.iter().map(|port| zookeeper::mode(([127, 0, 0, 1], *port).into())).collect();
    for (server, directory) in left {
        assert!(stop_detached(server.pid, &directory)?, "{} ran no more", directory.display());
    }
    assert_eq!(leads.iter().filter(|leads| matches!(leads, Ok(true))).count(), 1, "{leads:?}");
    assert_eq!(modes.iter().filter(|mode| matches!(mode.as_deref(), Ok("leader"))).count(), 1, "{modes:?}");
    Ok(())
}

#[test]
fn stopping_a_detached_server_spares_a_process_that_got_its_id() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Redis::builder().detached(directory.path())?;
    let mut innocent = Command::new("sleep").arg("600").spawn()?;
    let stopped = stop_detached(innocent.id(), directory.path());
    let spared = innocent.try_wait()?.is_none();
    innocent.kill()?;
    innocent.wait()?;
    stop_detached(server.pid, directory.path())?;
    assert!(!stopped?);
    assert!(spared, "an innocent process was killed");
    Ok(())
}

#[test]
fn a_detached_server_that_does_not_start_is_not_left_behind() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let error = Redis::builder().config("no-such-setting", "1").detached(directory.path()).unwrap_err();
    assert!(format!("{error:#}").contains("Bad directive"), "{error:#}");
    assert!(fs::read_to_string(directory.path().join("server.log"))?.contains("Bad directive"));
    Ok(())
}
