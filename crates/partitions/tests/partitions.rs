//! Leaders of etcd and of ZooKeeper that are cut off from both their peers, and two of five Redis.

use std::time::Duration;

use anyhow::{Context, Result};
use lock_core::AnyLocker;
use lock_etcd::EtcdLocker;
use lock_redlock::RedlockLocker;
use lock_zk::ZkLocker;
use partitions::{Divided, Side, check};
use test_cluster::{
    docker::{Containers, Topology},
    etcd, eventually,
    resp::Connection,
    zookeeper,
};
use tokio::task::block_in_place;

const BOUND: Duration = Duration::from_secs(30);

/// A cluster whose leader is cut off from its peers by a network that clients do not use.
struct Led {
    containers: Containers,
    topology: Topology,
    leader: usize,
}

impl Led {
    fn start(topology: Topology, leads: impl Fn(u16) -> Result<bool>) -> Result<Self> {
        let containers = Containers::start(&[topology])?;
        let nodes = containers.published(topology);
        let leader = eventually("a leader", BOUND, || {
            let leads = nodes.iter().position(|node| leads(node.port()).unwrap_or(false));
            leads.context("nobody leads")
        })?;
        Ok(Self { containers, topology, leader })
    }

    /// The addresses of the servers on a side, separated by commas.
    fn servers(&self, side: Side) -> Result<String> {
        let network = format!("{}-clients", self.topology);
        let nodes = (0..3).filter(|node| (*node == self.leader) == (side == Side::Minority));
        let addresses =
            nodes.map(|node| Ok(self.containers.address(self.topology, node, &network)?.to_string()));
        Ok(addresses.collect::<Result<Vec<_>>>()?.join(","))
    }

    fn peers(&self) -> String {
        format!("{}-peers", self.topology)
    }

    fn cut(&self) -> Result<()> {
        self.containers.disconnect(self.topology, self.leader, &self.peers())
    }

    fn heal(&self) -> Result<()> {
        self.containers.connect(self.topology, self.leader, &self.peers())
    }
}

struct EtcdServers(Led);

impl EtcdServers {
    async fn locker(&self, side: Side, ttl: Duration) -> Result<EtcdLocker> {
        let options = lock_etcd::Options::default().with_ttl(ttl);
        Ok(EtcdLocker::connect(self.0.servers(side)?, options).await?)
    }
}

impl Divided for EtcdServers {
    async fn client(&self, side: Side, ttl: Duration) -> Result<AnyLocker> {
        Ok(self.locker(side, ttl).await?.into())
    }

    async fn contenders(&self, key: &str) -> Result<usize> {
        Ok(self.locker(Side::Majority, Duration::from_secs(10)).await?.queue(key).await?.len())
    }

    fn cut(&self) -> Result<()> {
        self.0.cut()
    }

    fn heal(&self) -> Result<()> {
        self.0.heal()
    }
}

struct ZooKeepers(Led);

impl Divided for ZooKeepers {
    async fn client(&self, side: Side, ttl: Duration) -> Result<AnyLocker> {
        let options = lock_zk::Options::default().with_ttl(ttl);
        Ok(ZkLocker::connect(&self.0.servers(side)?, options).await?.into())
    }

    async fn contenders(&self, key: &str) -> Result<usize> {
        let client = zookeeper_client::Client::connect(&self.0.servers(Side::Majority)?).await?;
        Ok(client.list_children(&format!("/lock/{key}")).await?.len())
    }

    fn cut(&self) -> Result<()> {
        self.0.cut()
    }

    fn heal(&self) -> Result<()> {
        self.0.heal()
    }
}

/// Five servers in two networks, one for the clients of each side.
struct Redises(Containers);

const MINORITY: [usize; 2] = [0, 1];
const MAJORITY: [usize; 3] = [2, 3, 4];

impl Redises {
    fn network(side: Side) -> &'static str {
        if side == Side::Minority { "redlock-west" } else { "redlock-east" }
    }

    fn urls(&self, side: Side) -> Result<Vec<String>> {
        let url =
            |node| Ok(format!("redis://{}", self.0.address(Topology::Redlock, node, Self::network(side))?));
        (0..5).map(url).collect()
    }

    async fn locker(&self, side: Side, ttl: Duration) -> Result<RedlockLocker> {
        Ok(RedlockLocker::connect(self.urls(side)?, lock_redlock::Options::default().with_ttl(ttl)).await?)
    }

    /// What each side shall not reach.
    fn each(&self, act: impl Fn(&Containers, Topology, usize, &str) -> Result<()>) -> Result<()> {
        for (nodes, side) in [(&MINORITY[..], Side::Majority), (&MAJORITY[..], Side::Minority)] {
            nodes.iter().try_for_each(|node| act(&self.0, Topology::Redlock, *node, Self::network(side)))?;
        }
        Ok(())
    }
}

impl Divided for Redises {
    async fn client(&self, side: Side, ttl: Duration) -> Result<AnyLocker> {
        Ok(self.locker(side, ttl).await?.into())
    }

    /// A waiter has a place at a majority of the servers at least.
    async fn contenders(&self, key: &str) -> Result<usize> {
        let name = self.locker(Side::Majority, Duration::from_secs(10)).await?.name_in_redis(key)?;
        let mut at_each = Vec::new();
        for node in 0..5 {
            let address = self.0.address(Topology::Redlock, node, Self::network(Side::Majority))?;
            let mut server = Connection::open(address, BOUND)?;
            let queue = name.replacen("}:", "}#queue:", 1);
            let waiters = server.call(&["ZCARD", &queue])?.as_int().context("a count")?;
            let holders = server.call(&["EXISTS", &name])?.as_int().context("a count")?;
            at_each.push(usize::try_from(waiters + holders)?);
        }
        at_each.sort_unstable();
        Ok(at_each[2])
    }

    fn cut(&self) -> Result<()> {
        self.each(Containers::disconnect)
    }

    fn heal(&self) -> Result<()> {
        self.each(Containers::connect)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_etcd_leader_cut_off_from_its_peers_lets_nobody_believe_who_should_not() -> Result<()> {
    let led = block_in_place(|| Led::start(Topology::Etcd3, etcd::leads))?;
    check(&EtcdServers(led)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_zookeeper_leader_cut_off_from_its_peers_lets_nobody_believe_who_should_not() -> Result<()> {
    let leads = |port| Ok(zookeeper::mode(([127, 0, 0, 1], port).into())? == "leader");
    let led = block_in_place(|| Led::start(Topology::Zk3, leads))?;
    check(&ZooKeepers(led)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_of_five_redis_cut_off_let_nobody_believe_who_should_not() -> Result<()> {
    let containers = block_in_place(|| Containers::start(&[Topology::Redlock]))?;
    check(&Redises(containers)).await
}
