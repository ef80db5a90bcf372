//! What etcd servers of one's own promise.

use std::time::Duration;

use anyhow::{Result, ensure};
use test_cluster::{Behaviour, Direction, Etcd, EtcdCluster, eventually, process};

const BOUND: Duration = Duration::from_secs(20);

// "key" and "value" in base64.
const PUT: &str = r#"{"key": "a2V5", "value": "dmFsdWU="}"#;
const GET: &str = r#"{"key": "a2V5"}"#;

fn has_the_key(etcd: &Etcd) -> Result<bool> {
    Ok(etcd.call("/v3/kv/range", GET)?.contains("dmFsdWU="))
}

#[test]
fn a_server_keeps_its_data_over_kill_and_restart() -> Result<()> {
    let etcd = Etcd::start()?;
    etcd.call("/v3/kv/put", PUT)?;
    etcd.kill()?;
    assert!(etcd.call("/v3/kv/range", GET).is_err(), "a dead server does not answer");
    etcd.restart()?;
    assert!(has_the_key(&etcd)?);
    etcd.restart_without_data()?;
    assert!(!has_the_key(&etcd)?);
    Ok(())
}

#[test]
fn a_paused_server_answers_when_it_goes_on() -> Result<()> {
    let etcd = Etcd::start()?;
    etcd.pause()?;
    assert!(etcd.call("/v3/kv/range", GET).is_err());
    etcd.resume()?;
    eventually("an answer", BOUND, || has_the_key(&etcd).map(|_| ()))
}

#[test]
fn a_cluster_survives_its_leader() -> Result<()> {
    let cluster = EtcdCluster::start(3)?;
    let old = cluster.leader()?;
    cluster[old].kill()?;
    let new = cluster.leader()?;
    assert_ne!(new, old);
    cluster[new].call("/v3/kv/put", PUT)?;
    cluster[old].restart()?;
    assert!(has_the_key(&cluster[old])?, "it catches up");
    assert_ne!(cluster.follower()?, cluster.leader()?);

    cluster.restart()?;
    assert!(has_the_key(&cluster[0])?);
    cluster.restart_without_data()?;
    assert!(!has_the_key(&cluster[0])?);
    Ok(())
}

#[test]
fn a_leader_that_nobody_hears_is_replaced() -> Result<()> {
    let cluster = Etcd::builder().proxied_peers().start_cluster(3)?;
    let mute = cluster.leader()?;
    let proxy = cluster.peer_proxy(mute).expect("it was asked for");
    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.set(direction, Behaviour::Stall);
    }
    eventually("another leader", BOUND, || {
        ensure!(cluster.leader()? != mute, "it leads still");
        Ok(())
    })?;
    cluster[cluster.leader()?].call("/v3/kv/put", PUT)?;
    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.set(direction, Behaviour::Pass);
    }
    eventually("what was written meanwhile", BOUND, || {
        ensure!(has_the_key(&cluster[mute])?, "it is not there");
        Ok(())
    })
}

#[test]
fn a_password_is_demanded_of_others_and_used_by_us() -> Result<()> {
    let etcd = Etcd::builder().password("se\"cret").start()?;
    etcd.call("/v3/kv/put", PUT)?;
    assert!(has_the_key(&etcd)?);
    assert!(!format!("{etcd:?}").contains("cret"));
    Ok(())
}

#[test]
fn a_detached_server_is_stopped_by_its_directory() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let left = Etcd::builder().detached(directory.path())?;
    assert!(process::is_detached_running(left.pid, directory.path()));
    assert!(process::stop_detached(left.pid, directory.path())?);
    ensure!(!process::is_detached_running(left.pid, directory.path()));
    Ok(())
}
