//! What can be chosen about a ZooKeeper alone before it starts.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::{
    Installation, ZooKeeper,
    config::{Member, Settings},
    wait_until_it_serves,
};
use crate::{
    ports,
    process::{Detached, Watched, detached},
};

/// Chooses how a ZooKeeper runs; see [`ZooKeeper::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "nothing runs before `start`"]
pub struct ZooKeeperBuilder {
    port: Option<u16>,
    extra: Vec<(String, String)>,
    heap: Option<u32>,
}

impl ZooKeeperBuilder {
    /// Listens on `port` instead of any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Adds a line to the configuration file; `value` is written as it would stand there.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    /// Lets the server have so many MiB for its objects; 64 if it is not said, enough for tests.
    pub fn heap(mut self, mib: u32) -> Self {
        self.heap = Some(mib);
        self
    }

    /// Starts the server and waits until it serves.
    ///
    /// # Errors
    ///
    /// There is no ZooKeeper or no Java, it is older than 3.5.3, or it does not start; the error shows its log.
    pub fn start(self) -> Result<ZooKeeper> {
        let installation = Installation::find()?;
        self.on_a_port(|settings| {
            let zookeeper = ZooKeeper::prepare(&installation, settings)?;
            zookeeper.restart()?;
            Ok(zookeeper)
        })
    }

    /// Starts a server that outlives this process, with its data in `directory`, and waits until it serves.
    ///
    /// [`stop_detached`](crate::process::stop_detached) stops it.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub fn detached(self, directory: &Path) -> Result<Detached> {
        let mut members = self.detached_cluster(&[directory.to_owned()])?;
        Ok(members.pop().expect("one was asked for"))
    }

    /// Starts an ensemble that outlives this process, one member with its data in each of `directories`.
    ///
    /// Each is stopped as one that is alone.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub fn detached_cluster(self, directories: &[PathBuf]) -> Result<Vec<Detached>> {
        let installation = Installation::find()?;
        let directories = detached::prepare(directories)?;
        ensure!(self.port.is_none() || directories.len() == 1, "a port can be chosen for a server alone");
        ports::retry_if_taken(|| {
            let all = self.plan(directories.len())?;
            let command = |(directory, settings): (&PathBuf, &Settings)| {
                Ok((directory.clone(), installation.command_line(&settings.write(directory)?, settings.heap)))
            };
            let servers = directories.iter().zip(&all).map(command).collect::<Result<Vec<_>>>()?;
            let ready = |index: usize, pid| wait_until_it_serves(&all[index], pid, &directories[index]);
            let pids = detached::start(&servers, ready)?;
            Ok(pids
                .into_iter()
                .zip(&all)
                .map(|(pid, settings)| Detached { pid, port: settings.port })
                .collect())
        })
    }

    /// Chooses the ports of all members, which each must know of the others. One alone has no others.
    fn plan(&self, size: usize) -> Result<Vec<Settings>> {
        let members = (0..size).filter(|_| size > 1).map(|_| Member::on_free_ports());
        let members = members.collect::<Result<Vec<_>>>()?;
        let settings = |id| {
            let port = self.port.map_or_else(ports::free, Ok)?;
            Ok(Settings { port, id, members: members.clone(), extra: self.extra.clone(), heap: self.heap })
        };
        (1..=size).map(settings).collect()
    }

    /// Calls `start` with a port: the chosen one, or free ones until one is not taken by somebody else.
    fn on_a_port<T>(self, start: impl Fn(Settings) -> Result<T>) -> Result<T> {
        let Self { port, extra, heap } = self;
        let on = |port| start(Settings { port, extra: extra.clone(), heap, ..Settings::default() });
        match port {
            Some(port) => on(port),
            None => ports::retry_if_taken(|| on(ports::free()?)),
        }
    }
}

impl ZooKeeper {
    /// A server with its directory and its configuration, which does not run yet.
    pub(super) fn prepare(installation: &Installation, settings: Settings) -> Result<ZooKeeper> {
        let directory = tempfile::Builder::new().prefix("test-zookeeper-").tempdir()?;
        let config = settings.write(directory.path())?;
        let server = Watched::new(directory, &installation.command_line(&config, settings.heap))?;
        Ok(ZooKeeper { server, settings })
    }
}
