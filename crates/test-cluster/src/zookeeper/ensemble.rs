//! Several ZooKeepers that elect a leader.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{
    Installation, ZooKeeper,
    config::{Member, Settings},
};
use crate::{
    Behaviour, Direction, Proxy, eventually,
    ports::{self, loopback},
    process::is_stopped,
};

const ELECTION_BOUND: Duration = Duration::from_secs(60);

/// An ensemble of real ZooKeepers on one machine.
///
/// # Examples
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// let ensemble = test_cluster::ZooKeeperCluster::start(3)?;
/// let leader = ensemble.leader()?;
/// ensemble.node(leader).kill()?;
/// assert_ne!(ensemble.leader()?, leader);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ZooKeeperCluster {
    nodes: Vec<ZooKeeper>,
    /// What stands between two members: from, to, and the proxy.
    links: Vec<(usize, usize, Proxy)>,
}

/// Chooses how an ensemble runs; see [`ZooKeeperCluster::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `start`"]
pub struct ZooKeeperClusterBuilder {
    size: usize,
    proxied: bool,
    extra: Vec<(String, String)>,
    heap: Option<u32>,
}

impl ZooKeeperClusterBuilder {
    /// Leads the traffic from each member to each other one through a proxy, so that members can be
    /// [isolated](ZooKeeperCluster::isolate).
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Adds a line to the configuration file of each member; `value` is written as it would stand there.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    /// Lets each server have so many MiB for its objects; 64 if it is not said, enough for tests.
    pub fn heap(mut self, mib: u32) -> Self {
        self.heap = Some(mib);
        self
    }

    /// Starts the servers and waits until all serve.
    ///
    /// # Errors
    ///
    /// As for [`ZooKeeper::start`].
    pub fn start(self) -> Result<ZooKeeperCluster> {
        let installation = Installation::find()?;
        ports::retry_if_taken(|| self.start_with(&installation))
    }

    fn start_with(&self, installation: &Installation) -> Result<ZooKeeperCluster> {
        let members = (0..self.size).map(|_| Member::on_free_ports()).collect::<Result<Vec<_>>>()?;
        let (mut nodes, mut links) = (Vec::new(), Vec::new());
        for from in 0..self.size {
            let mut seen = members.clone();
            for to in (0..self.size).filter(|to| self.proxied && *to != from) {
                // Only the port of a leader: the election protocol tells members each other's real ports anyway.
                let proxy = Proxy::start(loopback(members[to].peer_port))?;
                seen[to].peer_port = proxy.port();
                links.push((from, to, proxy));
            }
            let settings = Settings {
                port: ports::free()?,
                id: from + 1,
                members: seen,
                extra: self.extra.clone(),
                heap: self.heap,
            };
            nodes.push(ZooKeeper::prepare(installation, settings)?);
        }
        for node in &nodes {
            node.launch()?;
        }
        for node in &nodes {
            node.wait_until_it_serves()?;
        }
        Ok(ZooKeeperCluster { nodes, links })
    }
}

impl ZooKeeperCluster {
    /// Starts an ensemble of `size` members.
    ///
    /// # Errors
    ///
    /// As for [`ZooKeeper::start`].
    pub fn start(size: usize) -> Result<ZooKeeperCluster> {
        ZooKeeperCluster::builder(size).start()
    }

    /// Makes a builder, for everything that can be chosen before the start.
    pub fn builder(size: usize) -> ZooKeeperClusterBuilder {
        ZooKeeperClusterBuilder { size, proxied: false, extra: Vec::new(), heap: None }
    }

    /// Returns what a client connects to: all members, separated by commas.
    pub fn connect_string(&self) -> String {
        self.nodes.iter().map(|node| node.address().to_string()).collect::<Vec<_>>().join(",")
    }

    /// Returns the members, in the order of their numbers.
    pub fn nodes(&self) -> &[ZooKeeper] {
        &self.nodes
    }

    /// One member; the first is 0.
    ///
    /// # Panics
    ///
    /// There is no such member.
    pub fn node(&self, index: usize) -> &ZooKeeper {
        &self.nodes[index]
    }

    /// Returns the member that leads, once one does and another follows it. Members that are killed or paused are not
    /// asked.
    ///
    /// # Errors
    ///
    /// There is none within 60 s.
    pub fn leader(&self) -> Result<usize> {
        let asked = |node: &ZooKeeper| node.pid().is_some_and(|pid| !is_stopped(pid));
        eventually("a leader with a follower", ELECTION_BOUND, || {
            let modes: Vec<_> = self.nodes.iter().map(|node| asked(node).then(|| node.mode())).collect();
            let find =
                |wanted| modes.iter().position(|mode| matches!(mode, Some(Ok(mode)) if mode == wanted));
            match (find("leader"), find("follower")) {
                (Some(leader), Some(_)) => Ok(leader),
                _ => bail!("{modes:?}"),
            }
        })
    }

    /// Cuts a follower of a [proxied](ZooKeeperClusterBuilder::proxied) ensemble off from its leader: nothing passes,
    /// and nobody is told. Clients still reach it.
    ///
    /// What members say to each other in an election passes all the same, since they tell each other where to connect.
    /// A leader that is cut off so may therefore be elected again, in vain, until it [rejoins](Self::rejoin).
    pub fn isolate(&self, index: usize) {
        self.set_links_of(index, Behaviour::Stall);
    }

    /// Ends the [isolation](Self::isolate) of a member.
    pub fn rejoin(&self, index: usize) {
        self.set_links_of(index, Behaviour::Pass);
    }

    fn set_links_of(&self, index: usize, behaviour: Behaviour) {
        for (_, _, proxy) in self.links.iter().filter(|(from, to, _)| *from == index || *to == index) {
            proxy.set(Direction::ToServer, behaviour);
            proxy.set(Direction::ToClient, behaviour);
        }
    }
}
