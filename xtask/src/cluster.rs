//! `cargo xtask cluster`: servers that go on after the command, for a person's own experiments.

use std::{fs, io, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::{
    Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde::{Deserialize, Serialize};
use test_cluster::process;

use crate::{
    servers::Server,
    setup::{self, Consent},
    workspace,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start servers that keep running, and print their URLs
    Up {
        #[command(flatten)]
        which: Which,
        /// How many nodes etcd and ZooKeeper have, if they are not up yet; 3 if you do not choose
        #[arg(long, value_parser = one_or_three())]
        nodes: Option<usize>,
        #[command(flatten)]
        consent: Consent,
    },
    /// Stop them and remove their data
    Down(Which),
    /// Ask them whether they are up, and who leads
    Status(Which),
}

fn one_or_three() -> impl TypedValueParser<Value = usize> {
    PossibleValuesParser::new(["1", "3"]).map(|text| if text == "1" { 1 } else { 3 })
}

#[derive(clap::Args)]
struct Which {
    /// The servers; all if none is named
    #[arg(value_name = "SERVER")]
    servers: Vec<Server>,
}

impl Which {
    fn servers(&self) -> &[Server] {
        if self.servers.is_empty() { Server::ALL } else { &self.servers }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let cluster = Cluster::load(workspace::target().join("cluster"))?;
    match &args.action {
        Action::Up { which, nodes, consent } => up(cluster, which.servers(), *nodes, consent),
        Action::Down(which) => down(cluster, which.servers()),
        Action::Status(which) => status(&cluster, which.servers()),
    }
}

fn up(mut cluster: Cluster, servers: &[Server], wanted: Option<usize>, consent: &Consent) -> Result<()> {
    let needs: Vec<_> = servers.iter().flat_map(|server| server.needs()).copied().collect();
    setup::ensure(&needs, consent)?;
    for server in servers {
        match cluster.ask(*server) {
            Ok(nodes) if wanted.is_some_and(|wanted| server.nodes(Some(wanted)) != nodes.len()) => bail!(
                "{server} is up with another number of nodes, {}; to begin anew: cargo xtask cluster down {server}",
                nodes.len()
            ),
            Ok(_) => {}
            Err(_) => {
                cluster.stop(*server)?;
                cluster.start(*server, server.nodes(wanted))?;
            }
        }
    }
    status(&cluster, servers)
}

fn down(mut cluster: Cluster, servers: &[Server]) -> Result<()> {
    for server in servers {
        let stopped = cluster.stop(*server)?;
        println!("{server}: {}", if stopped { "stopped" } else { "was not up" });
    }
    println!("cluster: down");
    Ok(())
}

fn status(cluster: &Cluster, servers: &[Server]) -> Result<()> {
    let mut up = 0;
    for server in servers {
        match cluster.ask(*server) {
            Ok(nodes) => {
                up += 1;
                println!("{server}: up");
                for Node { left, leads } in &nodes {
                    let leads = if *leads { ", leads" } else { "" };
                    println!("  {}, process {}{leads}", server.urls([left.port]), left.pid);
                }
                let ports = nodes.iter().map(|node| node.left.port);
                println!("  export {}={}", server.variable(), server.urls(ports));
            }
            Err(reason) => println!("{server}: down, {reason:#}"),
        }
    }
    println!("cluster: {up} of {} up", servers.len());
    Ok(())
}

/// What `up` left running, as remembered in a file.
struct Cluster {
    home: PathBuf,
    left: Vec<Left>,
}

/// One node. Those of one server are remembered in their order.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Left {
    server: Server,
    pid: u32,
    port: u16,
}

impl Cluster {
    fn load(home: PathBuf) -> Result<Self> {
        let file = home.join("state.json");
        let left = match fs::read(&file) {
            Ok(json) => serde_json::from_slice(&json).with_context(|| {
                format!("{} is damaged; stop what it names by hand and remove it", file.display())
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        Ok(Self { home, left })
    }

    fn save(&self) -> Result<()> {
        let file = self.home.join("state.json");
        fs::write(&file, serde_json::to_vec_pretty(&self.left)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }

    fn data(&self, server: Server) -> PathBuf {
        self.home.join(server.to_string())
    }

    /// Where the nodes of a server have their data; one that is alone has no directories below.
    fn directories(&self, server: Server, nodes: usize) -> Vec<PathBuf> {
        let home = self.data(server);
        if nodes == 1 {
            vec![home]
        } else {
            (1..=nodes).map(|number| home.join(number.to_string())).collect()
        }
    }

    /// The nodes of a server, each with its directory.
    fn find(&self, server: Server) -> Vec<(Left, PathBuf)> {
        let left: Vec<_> = self.left.iter().filter(|left| left.server == server).copied().collect();
        let directories = self.directories(server, left.len());
        left.into_iter().zip(directories).collect()
    }

    /// The nodes of a server, if all are up. Another program that took the port of one since is not it.
    fn ask(&self, server: Server) -> Result<Vec<Node>> {
        let found = self.find(server);
        if found.is_empty() {
            bail!("cargo xtask cluster up {server} starts it");
        }
        let ask = |(left, directory): &(Left, PathBuf)| {
            if !process::is_detached_running(left.pid, directory) {
                bail!("process {} has ended", left.pid);
            }
            let leads =
                server.ask(left.port).with_context(|| format!("process {} does not serve", left.pid))?;
            Ok(Node { left: *left, leads })
        };
        found.iter().map(ask).collect()
    }

    fn start(&mut self, server: Server, nodes: usize) -> Result<()> {
        workspace::empty(&self.data(server))?;
        let started = server.start_detached(&self.directories(server, nodes))?;
        self.left.extend(started.into_iter().map(|process::Detached { pid, port }| Left {
            server,
            pid,
            port,
        }));
        self.save()
    }

    /// Stops the server, removes its data, and tells whether any node of it ran.
    fn stop(&mut self, server: Server) -> Result<bool> {
        let found = self.find(server);
        if found.is_empty() {
            return Ok(false);
        }
        let mut stopped = false;
        for (left, directory) in found {
            stopped |= process::stop_detached(left.pid, &directory)?;
        }
        let data = self.data(server);
        if data.exists() {
            fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
        }
        self.left.retain(|left| left.server != server);
        self.save()?;
        Ok(stopped)
    }
}

/// A node that answered.
#[derive(Debug)]
struct Node {
    left: Left,
    leads: bool,
}

#[cfg(test)]
mod tests {
    use super::{Cluster, Left};
    use crate::servers::Server;

    fn left(server: Server, port: u16) -> Left {
        Left { server, pid: u32::MAX, port }
    }

    #[test]
    fn what_was_left_running_is_remembered() {
        let home = tempfile::tempdir().unwrap();
        let nodes = [left(Server::Etcd, 15_000), left(Server::Redis, 15_001), left(Server::Etcd, 15_002)];
        Cluster { home: home.path().to_owned(), left: nodes.into() }.save().unwrap();
        let cluster = Cluster::load(home.path().to_owned()).unwrap();
        assert_eq!(cluster.find(Server::Redis), [(nodes[1], home.path().join("redis"))]);
        assert_eq!(
            cluster.find(Server::Etcd),
            [(nodes[0], home.path().join("etcd/1")), (nodes[2], home.path().join("etcd/2"))]
        );
    }

    #[test]
    fn a_server_whose_process_has_ended_is_down() {
        let home = tempfile::tempdir().unwrap();
        let cluster = Cluster { home: home.path().to_owned(), left: vec![left(Server::Redis, 15_000)] };
        assert_eq!(
            cluster.ask(Server::Redis).unwrap_err().to_string(),
            format!("process {} has ended", u32::MAX)
        );
    }

    #[test]
    fn a_damaged_memory_is_reported_by_its_path() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("state.json"), "{").unwrap();
        let error = Cluster::load(home.path().to_owned()).err().unwrap().to_string();
        assert!(error.contains("state.json is damaged"), "{error}");
    }
}
