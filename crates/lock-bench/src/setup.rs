//! The servers that a bench starts, and how it counts what they receive.

use std::fmt;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use test_cluster::{Etcd, EtcdCluster, Persistence, Redis, ZooKeeper, ZooKeeperCluster};

/// MiB for the objects of a ZooKeeper: 100,000 locks of one client take more than a test's server has.
const HEAP: u32 = 1024;

/// A kind of server, and how many there are.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Setup {
    /// No server: locks in one process.
    Local,
    /// One Redis.
    Setnx,
    /// Five Redis servers.
    Redlock,
    /// One etcd.
    Etcd,
    /// Three etcd servers.
    Etcd3,
    /// One ZooKeeper.
    Zk,
    /// Three ZooKeeper servers.
    Zk3,
}

/// What a person chooses by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// lock-local
    Local,
    /// lock-setnx, on one Redis
    Setnx,
    /// lock-redlock, on five Redis servers
    Redlock,
    /// lock-etcd, on one server and on three
    Etcd,
    /// lock-zk, on one server and on three
    Zk,
}

impl Backend {
    /// Returns the setups on which it is measured.
    #[must_use]
    pub fn setups(self) -> &'static [Setup] {
        match self {
            Self::Local => &[Setup::Local],
            Self::Setnx => &[Setup::Setnx],
            Self::Redlock => &[Setup::Redlock],
            Self::Etcd => &[Setup::Etcd, Setup::Etcd3],
            Self::Zk => &[Setup::Zk, Setup::Zk3],
        }
    }
}

impl Backend {
    /// Returns the name of its crate.
    #[must_use]
    pub fn package(self) -> &'static str {
        match self {
            Self::Local => "lock-local",
            Self::Setnx => "lock-setnx",
            Self::Redlock => "lock-redlock",
            Self::Etcd => "lock-etcd",
            Self::Zk => "lock-zk",
        }
    }

    /// Says in a few words when no two holders believe at one instant that they hold one key.
    #[must_use]
    pub fn promise(self) -> &'static str {
        match self {
            Self::Local => "always, in one process",
            Self::Setnx => "without failover, eviction, clock steps or loss of data",
            Self::Redlock => "while a majority keeps its data and its clocks",
            Self::Etcd | Self::Zk => "whichever minority of the servers fails",
        }
    }
}

impl Setup {
    /// Returns the lock that is measured on it.
    #[must_use]
    pub fn backend(self) -> Backend {
        match self {
            Self::Local => Backend::Local,
            Self::Setnx => Backend::Setnx,
            Self::Redlock => Backend::Redlock,
            Self::Etcd | Self::Etcd3 => Backend::Etcd,
            Self::Zk | Self::Zk3 => Backend::Zk,
        }
    }

    /// Returns how many requests our lock sends for a pair that nobody contends for.
    #[must_use]
    pub fn requests_of_a_pair(self) -> u64 {
        match self {
            Self::Local => 0,
            Self::Setnx | Self::Etcd | Self::Etcd3 => 2,
            Self::Redlock => 10,
            Self::Zk | Self::Zk3 => 3,
        }
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "in process",
            Self::Setnx => "Redis",
            Self::Redlock => "Redis ×5",
            Self::Etcd => "etcd",
            Self::Etcd3 => "etcd ×3",
            Self::Zk => "ZooKeeper",
            Self::Zk3 => "ZooKeeper ×3",
        })
    }
}

/// Servers that run until this is dropped.
#[derive(Debug)]
pub enum Servers {
    /// None is needed.
    None,
    /// Each for itself.
    Redis(Vec<Redis>),
    /// One, or a cluster.
    Etcd(EtcdCluster),
    /// One.
    ZooKeeper(Box<ZooKeeper>),
    /// A cluster.
    ZooKeepers(Box<ZooKeeperCluster>),
}

impl Servers {
    /// Starts those of `setup`. It blocks.
    ///
    /// # Errors
    ///
    /// A server is missing on this machine, or does not start.
    pub fn start(setup: Setup) -> Result<Self> {
        let started = match setup {
            Setup::Local => Ok(Self::None),
            Setup::Setnx => Redis::start().map(|redis| Self::Redis(vec![redis])),
            // A vote counts only if its server does not forget it.
            Setup::Redlock => (0..5)
                .map(|_| Redis::builder().persistence(Persistence::AofAlways).start())
                .collect::<Result<_>>()
                .map(Self::Redis),
            Setup::Etcd => EtcdCluster::start(1).map(Self::Etcd),
            Setup::Etcd3 => EtcdCluster::start(3).map(Self::Etcd),
            Setup::Zk => {
                ZooKeeper::builder().heap(HEAP).start().map(|server| Self::ZooKeeper(Box::new(server)))
            }
            Setup::Zk3 => ZooKeeperCluster::builder(3)
                .heap(HEAP)
                .start()
                .map(|cluster| Self::ZooKeepers(Box::new(cluster))),
        };
        started.with_context(|| format!("cannot start the servers for {setup}"))
    }

    /// Returns where they are. The leader of a cluster comes first, and clients that use one server use it, lest the
    /// way over a follower be taken for a cost of the lock.
    ///
    /// # Errors
    ///
    /// A cluster has no leader.
    pub fn urls(&self) -> Result<Vec<String>> {
        Ok(match self {
            Self::None => Vec::new(),
            Self::Redis(servers) => servers.iter().map(Redis::url).collect(),
            Self::Etcd(cluster) => led(cluster.iter().map(Etcd::url).collect(), cluster.leader()?),
            Self::ZooKeeper(server) => vec![server.address().to_string()],
            Self::ZooKeepers(cluster) => {
                let addresses = cluster.nodes().iter().map(|node| node.address().to_string());
                led(addresses.collect(), cluster.leader()?)
            }
        })
    }

    /// Returns the name and the version of the software, if there is any.
    ///
    /// # Errors
    ///
    /// A server does not answer.
    pub fn version(&self) -> Result<Option<(&'static str, String)>> {
        Ok(match self {
            Self::None => None,
            Self::Redis(servers) => Some(("Redis", servers[0].version().to_string())),
            Self::Etcd(cluster) => Some(("etcd", cluster[0].version().to_string())),
            Self::ZooKeeper(server) => Some(("ZooKeeper", server.version()?.to_string())),
            Self::ZooKeepers(cluster) => Some(("ZooKeeper", cluster.node(0).version()?.to_string())),
        })
    }

    /// Returns how many requests they have received so far. A message within a stream is one, a command within a script
    /// of Redis is none; `sets` says whether a client sends SET by itself.
    ///
    /// # Errors
    ///
    /// A server does not answer.
    pub fn requests(&self, sets: bool) -> Result<Option<u64>> {
        let sum = |counts: Result<Vec<u64>>| counts.map(|counts| Some(counts.iter().sum()));
        match self {
            Self::None => Ok(None),
            Self::Redis(servers) => sum(servers
                .iter()
                .map(|server| commands(&server.command(&["INFO", "commandstats"])?.text(), sets))
                .collect()),
            Self::Etcd(cluster) => sum(cluster.iter().map(Etcd::messages).collect()),
            Self::ZooKeeper(server) => packets(server).map(Some),
            Self::ZooKeepers(cluster) => sum(cluster.nodes().iter().map(packets).collect()),
        }
    }
}

/// A server that answers nobody until this is dropped.
#[derive(Debug)]
pub struct Frozen<'a>(&'a Redis);

impl Servers {
    /// Freezes the last of several Redis servers.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn freeze_one(&self) -> Result<Frozen<'_>> {
        let Self::Redis(servers) = self else { anyhow::bail!("only a Redis is ever frozen") };
        let last = servers.last().context("there is at least one")?;
        last.pause()?;
        Ok(Frozen(last))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // It fails if the server has ended, and then there is nothing to do.
        let _ = self.0.resume();
    }
}

fn led(mut urls: Vec<String>, leader: usize) -> Vec<String> {
    urls.swap(0, leader);
    urls
}

/// Redis counts what scripts call like what clients send. The locks call nothing in their scripts that they also send,
/// but for SET.
fn commands(statistics: &str, sets: bool) -> Result<u64> {
    const SENT: [&str; 7] =
        ["eval", "evalsha", "fcall", "subscribe", "ssubscribe", "unsubscribe", "sunsubscribe"];
    let mut sum = 0;
    for line in statistics.lines() {
        let Some((name, rest)) = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(":calls="))
        else {
            continue;
        };
        if SENT.contains(&name) || sets && name == "set" {
            let calls = rest.split(',').next().unwrap_or_default();
            sum += calls.parse::<u64>().with_context(|| format!("Redis counts in another way: {line}"))?;
        }
    }
    Ok(sum)
}

fn packets(server: &ZooKeeper) -> Result<u64> {
    let answer = server.ask("mntr")?;
    let received = answer.lines().find_map(|line| line.strip_prefix("zk_packets_received"));
    let received = received.with_context(|| format!("ZooKeeper counts no packets: {}", answer.trim()))?;
    Ok(received.trim().parse::<f64>()? as u64)
}

#[cfg(test)]
mod tests {
    use super::{commands, led};

    #[test]
    fn what_scripts_call_is_no_request() {
        let statistics = "# Commandstats\r\ncmdstat_evalsha:calls=20,usec=1\r\ncmdstat_set:calls=12,usec=3\r\n\
                          cmdstat_get:calls=40,usec=3\r\n";
        assert_eq!(commands(statistics, false).unwrap(), 20);
        assert_eq!(commands(statistics, true).unwrap(), 32);
    }

    #[test]
    fn the_leader_comes_first() {
        assert_eq!(led(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], 2), ["c", "b", "a"]);
    }
}
