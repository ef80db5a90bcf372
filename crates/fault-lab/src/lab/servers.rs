//! The servers of a lane, whatever they are: what can be done to them, and what an operator sees on them.

use std::{net::SocketAddr, path::Path, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use lock_core::Key;
use lock_redis::Prefix;
use test_cluster::{
    Behaviour, Direction, Etcd, EtcdCluster, Persistence, Redis, ZooKeeper, ZooKeeperCluster, eventually,
    resp::Value, tools::Version,
};

use crate::{backend::Backend, cells::Expected, shim::Shim};

/// How servers are started; cells of one kind share them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Boot {
    /// They keep what they acknowledged.
    Durable,
    /// They forget everything at a restart.
    Forgetful,
    /// Their clocks can be set, and run faster or slower.
    Shimmed,
    /// They keep what they acknowledged on a disk that can be made slow, and one can be cut off from the others.
    Isolable,
    /// The cell starts what it needs by itself.
    Own,
}

/// The servers themselves.
#[derive(Debug)]
pub(crate) enum Kind {
    None,
    Redis(Vec<Redis>),
    Etcd(EtcdCluster),
    Zk(ZooKeeperCluster),
}

#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) kind: Kind,
    /// One per server, if it was started so.
    pub(crate) shims: Vec<Shim>,
}

const REDLOCK_SERVERS: usize = 5;

impl Servers {
    /// Starts what the locks of `backend` need.
    pub(crate) fn start(backend: Backend, boot: Boot) -> Result<Self> {
        let mut shims = Vec::new();
        let kind = match (backend.soil(), boot) {
            (Backend::Local | Backend::Sharded, _) | (_, Boot::Own) => Kind::None,
            (Backend::Setnx, _) => Kind::Redis(redis(1, boot, &mut shims)?),
            (Backend::Redlock, _) => Kind::Redis(redis(REDLOCK_SERVERS, boot, &mut shims)?),
            (Backend::Etcd, Boot::Isolable) => Kind::Etcd(Etcd::builder().proxied_peers().start_cluster(3)?),
            (Backend::Etcd, _) => Kind::Etcd(EtcdCluster::start(3)?),
            (Backend::Zk, Boot::Isolable) => {
                Kind::Zk(ZooKeeperCluster::builder(3).proxied().config("forceSync", "yes").start()?)
            }
            (Backend::Zk, _) => Kind::Zk(ZooKeeperCluster::start(3)?),
            (Backend::Planted { .. }, _) => bail!("a planted lock uses the servers of a real one"),
        };
        Ok(Self { kind, shims })
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        match &self.kind {
            Kind::None => Vec::new(),
            Kind::Redis(servers) => servers.iter().map(Redis::address).collect(),
            Kind::Etcd(cluster) => cluster.addresses(),
            Kind::Zk(ensemble) => ensemble.nodes().iter().map(|node| node.address()).collect(),
        }
    }

    /// Returns what is expected of these servers, whose version may have been repaired.
    pub(crate) fn allow(&self, expected: Expected) -> Expected {
        let is_repaired = match &self.kind {
            Kind::Etcd(cluster) => {
                let Version { major, minor, patch } = cluster[0].version();
                (3, 5, 28) <= (major, minor, patch) || (major, minor) == (3, 4) && patch >= 42
            }
            _ => true,
        };
        match expected {
            Expected::UntilRepaired(..) if is_repaired => Expected::Holds,
            expected => expected,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.addresses().len()
    }

    /// So many are more than half.
    pub(crate) fn majority(&self) -> usize {
        self.count() / 2 + 1
    }

    pub(crate) fn redis(&self, index: usize) -> &Redis {
        match &self.kind {
            Kind::Redis(servers) => &servers[index],
            other => panic!("a cell for Redis runs on {other:?}"),
        }
    }

    pub(crate) fn pid(&self, index: usize) -> Option<u32> {
        match &self.kind {
            Kind::None => None,
            Kind::Redis(servers) => servers[index].pid(),
            Kind::Etcd(cluster) => cluster[index].pid(),
            Kind::Zk(ensemble) => ensemble.node(index).pid(),
        }
    }

    pub(crate) fn pause(&self, index: usize) -> Result<()> {
        match &self.kind {
            Kind::None => Ok(()),
            Kind::Redis(servers) => servers[index].pause(),
            Kind::Etcd(cluster) => cluster[index].pause(),
            Kind::Zk(ensemble) => ensemble.node(index).pause(),
        }
    }

    pub(crate) fn resume(&self, index: usize) -> Result<()> {
        match &self.kind {
            Kind::None => Ok(()),
            Kind::Redis(servers) => servers[index].resume(),
            Kind::Etcd(cluster) => cluster[index].resume(),
            Kind::Zk(ensemble) => ensemble.node(index).resume(),
        }
    }

    pub(crate) fn kill(&self, index: usize) -> Result<()> {
        match &self.kind {
            Kind::None => Ok(()),
            Kind::Redis(servers) => servers[index].kill(),
            Kind::Etcd(cluster) => cluster[index].kill(),
            Kind::Zk(ensemble) => ensemble.node(index).kill(),
        }
    }

    /// Starts a server again, on its port and data.
    pub(crate) fn restart(&self, index: usize) -> Result<()> {
        match &self.kind {
            Kind::None => Ok(()),
            Kind::Redis(servers) => servers[index].restart(),
            Kind::Etcd(cluster) => cluster[index].restart(),
            Kind::Zk(ensemble) => ensemble.node(index).restart(),
        }
    }

    /// The member that leads.
    pub(crate) fn leader(&self) -> Result<usize> {
        match &self.kind {
            Kind::Etcd(cluster) => cluster.leader(),
            Kind::Zk(ensemble) => ensemble.leader(),
            other => bail!("{other:?} have no leader"),
        }
    }

    /// Cuts the leader off from the other servers, but not from clients; that of etcd hears the others all the same.
    pub(crate) fn isolate(&self, leader: usize) -> Result<()> {
        match &self.kind {
            Kind::Etcd(cluster) => set_peer(cluster, leader, Behaviour::Stall),
            Kind::Zk(ensemble) => ensemble.isolate(leader),
            other => bail!("{other:?} do not talk to each other"),
        }
        Ok(())
    }

    /// Ends it.
    pub(crate) fn rejoin(&self, server: usize) -> Result<()> {
        match &self.kind {
            Kind::Etcd(cluster) => set_peer(cluster, server, Behaviour::Pass),
            Kind::Zk(ensemble) => ensemble.rejoin(server),
            other => bail!("{other:?} do not talk to each other"),
        }
        Ok(())
    }

    /// Restarts all servers at once, with empty disks.
    pub(crate) fn empty(&self) -> Result<()> {
        match &self.kind {
            Kind::None => bail!("there is no server that could forget"),
            Kind::Redis(servers) => servers.iter().try_for_each(Redis::restart_without_data),
            Kind::Etcd(cluster) => cluster.restart_without_data(),
            Kind::Zk(ensemble) => {
                ensemble.nodes().iter().try_for_each(ZooKeeper::kill)?;
                // One alone would wait for a majority.
                thread::scope(|scope| {
                    let nodes = ensemble.nodes().iter();
                    let restarts: Vec<_> =
                        nodes.map(|node| scope.spawn(|| node.restart_without_data())).collect();
                    let joined = restarts.into_iter().map(|restart| restart.join().expect("no panic"));
                    joined.collect::<Result<Vec<_>>>().map(drop)
                })
            }
        }
    }

    /// Deletes what holds `lock`, as an operator would.
    pub(crate) fn delete(&self, prefix: &str, lock: &str) -> Result<()> {
        match &self.kind {
            Kind::None => bail!("there is no server on which something could be deleted"),
            Kind::Redis(servers) => {
                let name = redis_name(prefix, lock, servers.len())?;
                let mut deleted = 0;
                for server in servers {
                    deleted += server.command(&["DEL", &name])?.as_int().unwrap_or(0);
                }
                ensure!(deleted > 0, "no server has {name}");
                Ok(())
            }
            Kind::Etcd(cluster) => super::trees::delete_etcd(cluster, prefix, lock),
            Kind::Zk(ensemble) => super::trees::delete_zk(ensemble, prefix, lock),
        }
    }

    /// The entries in the queue of `lock`, first come first.
    pub(crate) fn entries(&self, prefix: &str, lock: &str) -> Result<Vec<String>> {
        match &self.kind {
            Kind::Etcd(cluster) => super::trees::etcd_entries(cluster, prefix, lock),
            Kind::Zk(ensemble) => super::trees::zk_entries(ensemble, prefix, lock),
            other => bail!("{other:?} have no queues"),
        }
    }

    /// What is left of locks with this prefix: their keys, and those who wait for them.
    pub(crate) fn leftovers(&self, prefix: &str) -> Result<Vec<String>> {
        match &self.kind {
            Kind::None => Ok(Vec::new()),
            Kind::Redis(servers) => {
                let mut left = Vec::new();
                for server in servers.iter().filter(|server| server.pid().is_some()) {
                    // The locks and their queues; a locker's own channel stays as long as it does.
                    for kind in [":", "#queue:"] {
                        let keys = strings(server.command(&["KEYS", &format!("{prefix}:{{*}}{kind}*")])?);
                        left.extend(keys.into_iter().map(|key| format!("{key} on port {}", server.port())));
                    }
                }
                Ok(left)
            }
            Kind::Etcd(cluster) => super::trees::etcd_leftovers(cluster, prefix),
            Kind::Zk(ensemble) => super::trees::zk_leftovers(ensemble, prefix),
        }
    }

    /// Counts the leases or sessions that the servers keep for clients.
    pub(crate) fn sessions(&self) -> Result<usize> {
        match &self.kind {
            Kind::None | Kind::Redis(_) => Ok(0),
            Kind::Etcd(cluster) => super::trees::etcd_leases(cluster),
            Kind::Zk(ensemble) => super::trees::zk_sessions(ensemble),
        }
    }

    /// Brings all servers back that a cell left stopped or killed, and fails if they do not serve.
    pub(crate) fn mend(&self) -> Result<()> {
        for shim in &self.shims {
            shim.set(Duration::ZERO, false, 1.0)?;
        }
        for index in 0..self.count() {
            match self.pid(index) {
                Some(pid) if test_cluster::process::is_running(pid) => self.resume(index)?,
                _ => self.restart(index)?,
            }
        }
        match &self.kind {
            Kind::Etcd(_) | Kind::Zk(_) => {
                (0..self.count()).try_for_each(|server| self.rejoin(server))?;
                self.leader().map(drop)
            }
            Kind::Redis(servers) => servers.iter().try_for_each(|server| {
                eventually("Redis to answer", Duration::from_secs(5), || server.command(&["PING"]).map(drop))
            }),
            Kind::None => Ok(()),
        }
    }
}

fn set_peer(cluster: &EtcdCluster, server: usize, behaviour: Behaviour) {
    for direction in [Direction::ToServer, Direction::ToClient] {
        if let Some(proxy) = cluster.peer_proxy(server) {
            proxy.set(direction, behaviour);
        }
    }
}

fn redis(count: usize, boot: Boot, shims: &mut Vec<Shim>) -> Result<Vec<Redis>> {
    (0..count)
        .map(|_| {
            let persistence =
                if boot == Boot::Forgetful { Persistence::None } else { Persistence::AofAlways };
            let builder = Redis::builder().persistence(persistence);
            if boot != Boot::Shimmed {
                return builder.start();
            }
            let shim = Shim::new()?;
            let redis = builder.environment(shim.environment()).start()?;
            shims.push(shim);
            Ok(redis)
        })
        .collect()
}

/// The key that holds `lock` on each of `count` Redis: one on a majority has a mark of its own.
pub(crate) fn redis_name(prefix: &str, lock: &str, count: usize) -> Result<String> {
    let prefix = Prefix::new(prefix)?.marked(if count == 1 { "" } else { "redlock:" });
    Ok(prefix.names(&Key::new(lock)?).lock().to_owned())
}

fn strings(value: Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().map(Value::text).collect(),
        _ => Vec::new(),
    }
}

/// Data as it is now, to be put back later: what a machine has on its disk when the power fails.
#[derive(Debug)]
pub(crate) struct Snapshot(tempfile::TempDir);

impl Snapshot {
    /// Copies the data of a server.
    pub(crate) fn take(data: &Path) -> Result<Self> {
        let copy = tempfile::Builder::new().prefix("fault-lab-").tempdir()?;
        copy_all(data, copy.path())?;
        Ok(Self(copy))
    }

    /// Puts it back in the place of what is there now. The server must not run.
    pub(crate) fn put_back(&self, data: &Path) -> Result<()> {
        std::fs::remove_dir_all(data)?;
        copy_all(self.0.path(), data)
    }
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
