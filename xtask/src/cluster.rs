//! `cargo xtask cluster`: servers that go on after the command, for a person's own experiments.

use std::{fs, io, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
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
        #[command(flatten)]
        consent: Consent,
    },
    /// Stop them and remove their data
    Down(Which),
    /// Ask them whether they are up
    Status(Which),
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
        Action::Up { which, consent } => up(cluster, which.servers(), consent),
        Action::Down(which) => down(cluster, which.servers()),
        Action::Status(which) => status(&cluster, which.servers()),
    }
}

fn up(mut cluster: Cluster, servers: &[Server], consent: &Consent) -> Result<()> {
    let needs: Vec<_> = servers.iter().map(|server| server.need()).collect();
    setup::ensure(&needs, consent)?;
    for server in servers {
        if cluster.ask(*server).is_err() {
            cluster.stop(*server)?;
            cluster.start(*server)?;
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
            Ok(left) => {
                up += 1;
                println!("{server}: up, process {}", left.pid);
                println!("export {}={}", server.variable(), server.url(left.port));
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

    fn find(&self, server: Server) -> Option<&Left> {
        self.left.iter().find(|left| left.server == server)
    }

    /// The server, if it is up. Another program that took its port since is not it.
    fn ask(&self, server: Server) -> Result<Left> {
        let Some(left) = self.find(server) else { bail!("cargo xtask cluster up starts it") };
        if !process::is_detached_running(left.pid, &self.data(server)) {
            bail!("process {} has ended", left.pid);
        }
        server.ask(left.port)?;
        Ok(*left)
    }

    fn start(&mut self, server: Server) -> Result<()> {
        let data = self.data(server);
        workspace::empty(&data)?;
        let process::Detached { pid, port } = server.start_detached(&data)?;
        self.left.push(Left { server, pid, port });
        self.save()
    }

    /// Stops the server, removes its data, and tells whether it ran.
    fn stop(&mut self, server: Server) -> Result<bool> {
        let Some(left) = self.find(server) else { return Ok(false) };
        let data = self.data(server);
        let stopped = process::stop_detached(left.pid, &data)?;
        if data.exists() {
            fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
        }
        self.left.retain(|left| left.server != server);
        self.save()?;
        Ok(stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cluster, Left};
    use crate::servers::Server;

    #[test]
    fn what_was_left_running_is_remembered() {
        let home = tempfile::tempdir().unwrap();
        let left = Left { server: Server::Redis, pid: 4711, port: 15_000 };
        Cluster { home: home.path().to_owned(), left: vec![left] }.save().unwrap();
        assert_eq!(Cluster::load(home.path().to_owned()).unwrap().find(Server::Redis), Some(&left));
    }

    #[test]
    fn a_server_whose_process_has_ended_is_down() {
        let home = tempfile::tempdir().unwrap();
        let left = Left { server: Server::Redis, pid: u32::MAX, port: 15_000 };
        let cluster = Cluster { home: home.path().to_owned(), left: vec![left] };
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
