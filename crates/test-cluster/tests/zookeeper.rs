//! Real ZooKeepers start, stop, freeze, forget, elect and are found out about.

use std::time::Duration;

use anyhow::{Result, ensure};
use test_cluster::{
    ZooKeeper, ZooKeeperCluster, eventually,
    process::{is_detached_running, is_running, stop_detached},
};

const BOUND: Duration = Duration::from_secs(20);

#[test]
fn a_server_alone_is_killed_restarted_and_paused() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    assert_eq!(zookeeper.mode()?, "standalone");
    assert!(zookeeper.version()?.major >= 3);

    let first = zookeeper.pid();
    zookeeper.kill()?;
    assert!(zookeeper.ask("ruok").is_err());
    zookeeper.restart()?;
    assert_ne!(zookeeper.pid(), first);
    assert_eq!(zookeeper.ask("ruok")?, "imok");

    zookeeper.pause()?;
    zookeeper.resume()?;
    assert_eq!(zookeeper.mode()?, "standalone");
    zookeeper.restart_without_data()?;
    assert_eq!(zookeeper.mode()?, "standalone");
    Ok(())
}

#[test]
fn an_ensemble_elects_a_leader_in_place_of_a_killed_one() -> Result<()> {
    let ensemble = ZooKeeperCluster::start(3)?;
    let first = ensemble.leader()?;
    ensemble.node(first).kill()?;
    let second = ensemble.leader()?;
    assert_ne!(first, second);
    ensemble.node(first).restart_without_data()?;
    assert_eq!(ensemble.node(first).mode()?, "follower");
    Ok(())
}

#[test]
fn an_isolated_follower_serves_no_longer_until_it_rejoins() -> Result<()> {
    let ensemble = ZooKeeperCluster::builder(3).proxied().start()?;
    let follower = (ensemble.leader()? + 1) % 3;
    ensemble.isolate(follower);
    eventually("the follower to notice", BOUND, || {
        let mode = ensemble.node(follower).mode();
        ensure!(mode.is_err(), "it says it is {mode:?}");
        Ok(())
    })?;
    ensemble.rejoin(follower);
    eventually("it to follow again", BOUND, || {
        let mode = ensemble.node(follower).mode()?;
        ensure!(mode == "follower", "it is {mode}");
        Ok(())
    })
}

#[test]
fn a_port_that_is_taken_is_named() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let error = ZooKeeper::builder().port(zookeeper.port()).start().unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains(&format!("did not start on port {}", zookeeper.port())), "{text}");
    assert!(text.contains("Address already in use"), "{text}");
    Ok(())
}

#[test]
fn a_detached_server_runs_until_it_is_stopped() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = ZooKeeper::builder().detached(directory.path())?;
    assert!(is_detached_running(server.pid, directory.path()));
    assert!(stop_detached(server.pid, directory.path())?);
    assert!(!is_running(server.pid));
    Ok(())
}
