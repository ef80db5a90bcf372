//! The servers that examples and people can be given.

use std::{any::Any, env, fmt, net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use test_cluster::{
    Etcd, EtcdCluster, Persistence, Redis, RedisBuilder, ZooKeeper, ZooKeeperCluster,
    docker::{Containers, Topology},
    etcd,
    process::{self, Detached},
    resp::Connection,
    zookeeper,
};

use crate::{
    docker,
    setup::{self, Need},
};

/// Several servers go by one name if a client uses them as one.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Server {
    /// One Redis
    Redis,
    /// Three etcd servers, or one
    Etcd,
    /// One more etcd, for locks over two clusters
    SecondEtcd,
    /// Three ZooKeeper servers, or one
    Zk,
    /// Five Redis servers that know nothing of each other
    Redlock,
}

/// Where the servers of a command come from.
#[derive(clap::Args)]
pub(crate) struct Source {
    /// Run the servers in containers; needs Docker or the like, and no servers on this machine
    #[arg(long)]
    docker: bool,
}

/// Servers for programs to use. Those that are ours stop when this goes away.
pub(crate) struct Provided {
    /// What tells a program where they are, and whose.
    pub(crate) variables: Vec<(&'static str, String)>,
    _servers: Vec<Box<dyn Any>>,
}

impl Source {
    /// What this machine must have for `servers`: nothing for those in containers, or named by a variable.
    pub(crate) fn needs(&self, servers: &[Server]) -> Vec<&'static Need> {
        let own = servers.iter().filter(|server| !self.docker && server.given().is_none());
        own.flat_map(|server| server.needs()).copied().collect()
    }

    /// Fails where servers certainly cannot be had, so that nothing is built in vain.
    pub(crate) fn check(&self) -> Result<()> {
        if self.docker { docker::engine().map(drop) } else { Ok(()) }
    }

    /// Starts `servers`, but for those that a variable names.
    pub(crate) fn provide(&self, servers: &[Server]) -> Result<Provided> {
        if self.docker { in_containers(servers) } else { provide(servers) }
    }

    /// The same for programs that start what they need themselves.
    pub(crate) fn provide_to_starters(&self, servers: &[Server]) -> Result<Provided> {
        if self.docker { in_containers(servers) } else { Ok(Provided::none()) }
    }
}

impl Provided {
    fn none() -> Self {
        Self { variables: Vec::new(), _servers: Vec::new() }
    }
}

fn in_containers(servers: &[Server]) -> Result<Provided> {
    if servers.is_empty() {
        return Ok(Provided::none());
    }
    docker::images(&docker::engine()?)?;
    let topologies: Vec<_> = servers.iter().map(|server| server.topology()).collect();
    println!("Starting containers");
    let containers = Containers::start(&topologies)?;
    let url = |server: &Server| {
        let ports = containers.published(server.topology()).into_iter().map(|address| address.port());
        (server.variable(), server.urls(ports))
    };
    let mut variables: Vec<_> = servers.iter().map(url).collect();
    variables.push(may_kill());
    Ok(Provided { variables, _servers: vec![Box::new(containers)] })
}

fn provide(servers: &[Server]) -> Result<Provided> {
    let mut provided = Provided::none();
    for server in servers {
        let urls = if let Some(urls) = server.given() {
            println!("{server}: {} names it", server.variable());
            urls
        } else {
            let (urls, running) = server.start()?;
            provided._servers.push(running);
            provided.variables.extend((*server == Server::Redlock).then(may_kill));
            urls
        };
        provided.variables.push((server.variable(), urls));
    }
    Ok(provided)
}

/// Tells the program that uses Redlock's servers that it may shut them down.
fn may_kill() -> (&'static str, String) {
    ("LOCK_TEST_MAY_KILL", "1".to_owned())
}

impl Server {
    pub(crate) const ALL: &[Self] = &[Self::Redis, Self::Etcd, Self::SecondEtcd, Self::Zk, Self::Redlock];

    pub(crate) fn needs(self) -> &'static [&'static Need] {
        match self {
            Self::Redis | Self::Redlock => &[&setup::REDIS],
            Self::Etcd | Self::SecondEtcd => &[&setup::ETCD],
            Self::Zk => &[&setup::JAVA, &setup::ZOOKEEPER],
        }
    }

    /// The environment variable by which programs learn the URLs.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Redis => "LOCK_TEST_REDIS",
            Self::Etcd => "LOCK_TEST_ETCD",
            Self::SecondEtcd => "LOCK_TEST_SECOND_ETCD",
            Self::Zk => "LOCK_TEST_ZK",
            Self::Redlock => "LOCK_TEST_REDLOCK",
        }
    }

    /// The servers that a person wants to be used, by their URLs.
    fn given(self) -> Option<String> {
        env::var(self.variable()).ok().filter(|urls| !urls.is_empty())
    }

    /// The packages that are tested on it.
    pub(crate) fn backends(self) -> &'static [&'static str] {
        match self {
            Self::Redis => &["lock-setnx"],
            Self::Etcd => &["lock-etcd", "lock-sharded"],
            Self::SecondEtcd => &["lock-sharded"],
            Self::Zk => &["lock-zk"],
            Self::Redlock => &["lock-redlock"],
        }
    }

    /// The same in containers.
    fn topology(self) -> Topology {
        match self {
            Self::Redis => Topology::Redis,
            Self::Etcd => Topology::Etcd3,
            Self::SecondEtcd => Topology::Etcd1,
            Self::Zk => Topology::Zk3,
            Self::Redlock => Topology::Redlock,
        }
    }

    pub(crate) fn urls(self, ports: impl IntoIterator<Item = u16>) -> String {
        let url = |port| match self {
            Self::Redis | Self::Redlock => format!("redis://127.0.0.1:{port}/"),
            Self::Etcd | Self::SecondEtcd => format!("http://127.0.0.1:{port}"),
            Self::Zk => format!("127.0.0.1:{port}"),
        };
        ports.into_iter().map(url).collect::<Vec<_>>().join(",")
    }

    /// How many nodes it has, if `wanted` is what a person chose for those that can be chosen.
    pub(crate) fn nodes(self, wanted: Option<usize>) -> usize {
        match self {
            Self::Redis | Self::SecondEtcd => 1,
            Self::Etcd | Self::Zk => wanted.unwrap_or(3),
            Self::Redlock => 5,
        }
    }

    /// Starts servers that stop when the handle goes away. Returns their URLs with it.
    fn start(self) -> Result<(String, Box<dyn Any>)> {
        self.start_watched().with_context(|| format!("cannot start {self}"))
    }

    fn start_watched(self) -> Result<(String, Box<dyn Any>)> {
        let nodes = self.nodes(None);
        Ok(match self {
            Self::Redis | Self::Redlock => {
                let servers = (0..nodes).map(|_| self.redis().start()).collect::<Result<Vec<_>>>()?;
                (self.urls(servers.iter().map(Redis::port)), Box::new(servers))
            }
            Self::Etcd | Self::SecondEtcd => {
                let cluster = EtcdCluster::start(nodes)?;
                (self.urls(cluster.iter().map(Etcd::port)), Box::new(cluster))
            }
            Self::Zk => {
                let cluster = ZooKeeperCluster::start(nodes)?;
                (self.urls(cluster.nodes().iter().map(ZooKeeper::port)), Box::new(cluster))
            }
        })
    }

    /// Starts nodes that outlive this process, one with its data in each of `dirs`.
    pub(crate) fn start_detached(self, dirs: &[PathBuf]) -> Result<Vec<Detached>> {
        let started = match self {
            Self::Redis | Self::Redlock => self.start_each(dirs),
            Self::Etcd | Self::SecondEtcd => Etcd::builder().detached_cluster(dirs),
            Self::Zk => ZooKeeper::builder().detached_cluster(dirs),
        };
        started.with_context(|| format!("cannot start {self}"))
    }

    /// Where one does not start, none goes on.
    fn start_each(self, dirs: &[PathBuf]) -> Result<Vec<Detached>> {
        let mut started = Vec::new();
        for dir in dirs {
            match self.redis().detached(dir) {
                Ok(server) => started.push(server),
                Err(error) => {
                    for (Detached { pid, .. }, dir) in started.iter().zip(dirs) {
                        process::stop_detached(*pid, dir)?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(started)
    }

    /// A vote of Redlock counts only if its server does not forget it.
    fn redis(self) -> RedisBuilder {
        let keeps = if self == Self::Redlock { Persistence::AofAlways } else { Persistence::None };
        Redis::builder().persistence(keeps)
    }

    /// Asks the node on `port` whether it serves, and returns whether it leads others.
    pub(crate) fn ask(self, port: u16) -> Result<bool> {
        const TIMEOUT: Duration = Duration::from_secs(2);
        let address = (Ipv4Addr::LOCALHOST, port).into();
        match self {
            Self::Redis | Self::Redlock => {
                let answer = Connection::open(address, TIMEOUT)?.call(&["PING"])?;
                ensure!(answer.text() == "PONG", "it answers {:?} to PING", answer.text());
                Ok(false)
            }
            Self::Etcd | Self::SecondEtcd => etcd::leads(port),
            Self::Zk => Ok(zookeeper::mode(address)? == "leader"),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().expect("no server is hidden").get_name())
    }
}

#[cfg(test)]
mod tests {
    use super::Server;

    #[test]
    fn programs_learn_all_nodes_from_one_variable() {
        assert_eq!(Server::Etcd.urls([1, 2]), "http://127.0.0.1:1,http://127.0.0.1:2");
        assert_eq!(Server::Zk.urls([1, 2]), "127.0.0.1:1,127.0.0.1:2");
        assert_eq!(Server::Redlock.urls([1]), "redis://127.0.0.1:1/");
    }

    #[test]
    fn only_what_can_be_one_node_or_three_is_chosen() {
        let nodes = |wanted| Server::ALL.iter().map(|server| server.nodes(wanted)).collect::<Vec<_>>();
        assert_eq!(nodes(None), [1, 3, 1, 3, 5]);
        assert_eq!(nodes(Some(1)), [1, 1, 1, 1, 5]);
    }
}
