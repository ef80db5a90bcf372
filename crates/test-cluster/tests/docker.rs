//! What clusters in containers promise. They take a container engine.

use std::{net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use test_cluster::{
    docker::{Containers, Topology},
    etcd, resp, zookeeper,
};

const BOUND: Duration = Duration::from_secs(20);

fn redis(address: SocketAddr, command: &[&str]) -> Result<String> {
    Ok(resp::Connection::open(address, BOUND)?.call(command)?.text())
}

fn leaders(nodes: &[SocketAddr], leads: impl Fn(SocketAddr) -> Result<bool>) -> Result<usize> {
    let leads = nodes.iter().map(|node| leads(*node)).collect::<Result<Vec<_>>>()?;
    Ok(leads.into_iter().filter(|leads| *leads).count())
}

fn running(project: &str) -> Result<usize> {
    let label = format!("label=com.docker.compose.project={project}");
    let listed = Command::new("docker").args(["ps", "--all", "--quiet", "--filter", &label]).output()?;
    ensure!(listed.status.success(), "docker ps fails");
    Ok(String::from_utf8(listed.stdout)?.lines().count())
}

#[test]
fn every_topology_serves_and_is_gone_with_its_handle() -> Result<()> {
    let containers = Containers::start(Topology::ALL)?;
    for topology in Topology::ALL {
        let nodes = containers.published(*topology);
        match topology {
            Topology::Redis | Topology::Redlock => {
                for node in nodes {
                    assert_eq!(redis(node, &["PING"])?, "PONG", "{topology}");
                }
            }
            Topology::Sentinel => {
                let [master, _, sentinel] = nodes[..] else { panic!("{nodes:?}") };
                let mut sentinel = resp::Connection::open(sentinel, BOUND)?;
                let answer = sentinel.call(&["SENTINEL", "get-master-addr-by-name", "mymaster"])?;
                let resp::Value::Array(address) = answer else { panic!("{answer:?}") };
                let address: Vec<_> = address.iter().map(resp::Value::text).collect();
                assert_eq!(
                    address,
                    ["127.0.0.1".to_owned(), master.port().to_string()],
                    "clients reach it there"
                );
            }
            Topology::Cluster => {
                let info =
                    redis(nodes[0], &["CLUSTER", "SLOTS"]).and(redis(nodes[0], &["SET", "key", "value"]))?;
                assert_eq!(info, "OK");
            }
            Topology::Etcd1 | Topology::Etcd3 => {
                assert_eq!(leaders(&nodes, |node| etcd::leads(node.port()))?, 1, "{topology}");
            }
            Topology::Zk1 => assert_eq!(zookeeper::mode(nodes[0])?, "standalone"),
            Topology::Zk3 => {
                assert_eq!(leaders(&nodes, |node| Ok(zookeeper::mode(node)? == "leader"))?, 1);
            }
        }
    }
    let project = containers.project().to_owned();
    ensure!(running(&project)? > Topology::ALL.len());
    drop(containers);
    assert_eq!(running(&project)?, 0);
    Ok(())
}

#[test]
fn a_server_is_frozen_killed_and_cut_off() -> Result<()> {
    const ONE: Topology = Topology::Redlock;
    let containers = Containers::start(&[ONE])?;
    let ping = |index| -> Result<String> {
        let address = containers.address(ONE, index, "redlock-west")?;
        resp::Connection::open(address, Duration::from_secs(1))?.call(&["PING"]).map(|pong| pong.text())
    };
    containers.pause(ONE, 0)?;
    ping(0).unwrap_err();
    containers.resume(ONE, 0)?;
    assert_eq!(ping(0)?, "PONG");

    containers.disconnect(ONE, 1, "redlock-west")?;
    containers.address(ONE, 1, "redlock-west").unwrap_err();
    assert_eq!(ping(0)?, "PONG", "the others are where they were");
    let other = containers.address(ONE, 1, "redlock-east")?;
    assert_eq!(redis(other, &["PING"])?, "PONG", "it is cut off from one network alone");
    containers.connect(ONE, 1, "redlock-west")?;
    assert_eq!(ping(1)?, "PONG");

    let address = containers.published(ONE)[2];
    containers.kill(ONE, 2)?;
    redis(address, &["PING"]).err().context("a dead server does not answer")?;
    Ok(())
}
