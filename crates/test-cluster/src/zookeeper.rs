//! Real ZooKeeper servers: one alone, and an ensemble whose members can be cut off from each other.

mod builder;
mod config;
mod ensemble;
mod installation;
mod numbering;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    eventually,
    process::{DATA, Watched, is_running, log_tail},
    tools::Version,
};

pub use builder::ZooKeeperBuilder;
use config::Settings;
pub use ensemble::{ZooKeeperCluster, ZooKeeperClusterBuilder};
pub use installation::Installation;
pub(crate) use {config::TIMING, installation::FLAGS};

/// A Java machine takes a second of processor time to start, and tests start several at once.
const READY_BOUND: Duration = Duration::from_secs(60);

/// Containers, and a create that returns what it made.
const OLDEST: Version = Version { major: 3, minor: 5, patch: 3 };

/// A real ZooKeeper of one's own: alone, or a member of a [`ZooKeeperCluster`].
///
/// Ticks take 100 ms and sessions may have any timeout from 200 ms on. Dropping it kills the server and removes its
/// data. The same happens when this process is killed.
///
/// # Examples
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// let zookeeper = test_cluster::ZooKeeper::start()?;
/// assert_eq!(zookeeper.ask("ruok")?, "imok");
/// assert_eq!(zookeeper.mode()?, "standalone");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ZooKeeper {
    server: Watched,
    settings: Settings,
}

impl ZooKeeper {
    /// Starts a server alone.
    ///
    /// # Errors
    ///
    /// As for [`ZooKeeperBuilder::start`].
    pub fn start() -> Result<ZooKeeper> {
        ZooKeeper::builder().start()
    }

    /// Makes a builder, for everything that can be chosen before the start.
    pub fn builder() -> ZooKeeperBuilder {
        ZooKeeperBuilder::default()
    }

    /// Returns the address for a client.
    pub fn address(&self) -> SocketAddr {
        self.settings.address()
    }

    /// Returns the port for a client. It stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.settings.port
    }

    /// Returns the process id; `None` after [`kill`](Self::kill).
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Returns all that the server has logged since its first start.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Kills the server by SIGKILL, also a paused one. When this returns the process is gone.
    ///
    /// # Errors
    ///
    /// Somebody killed the watchdog of the server.
    pub fn kill(&self) -> Result<()> {
        self.server.kill()
    }

    /// Stops the process by SIGSTOP: connections stay open and nobody answers.
    ///
    /// # Errors
    ///
    /// The server does not run.
    pub fn pause(&self) -> Result<()> {
        self.server.pause()
    }

    /// Lets a paused process go on.
    ///
    /// # Errors
    ///
    /// The server does not run.
    pub fn resume(&self) -> Result<()> {
        self.server.resume()
    }

    /// Starts the server again on its port and data, and waits until it serves. Kills it first if it runs.
    ///
    /// # Errors
    ///
    /// The server does not start; the error shows its log.
    pub fn restart(&self) -> Result<()> {
        self.launch()?;
        self.wait_until_it_serves()
    }

    /// Starts the server again on its port and data, with a line added to its configuration file, which stays there.
    ///
    /// # Errors
    ///
    /// The server does not start; the error shows its log.
    pub fn restart_with(&self, name: &str, value: &str) -> Result<()> {
        let mut settings = self.settings.clone();
        settings.extra.push((name.to_owned(), value.to_owned()));
        settings.write(self.server.directory())?;
        self.restart()
    }

    /// Starts the server again on its port, having forgotten everything. Kills it first if it runs.
    ///
    /// # Errors
    ///
    /// The server does not start; the error shows its log.
    pub fn restart_without_data(&self) -> Result<()> {
        self.kill()?;
        self.server.remove_data()?;
        self.settings.write(self.server.directory())?;
        self.restart()
    }

    /// Starts the server again on its port and data, with one change in its data: the next child of `path` that is to
    /// be numbered gets the number `next`, as if there had been so many before it. For a server alone, and without
    /// clients: what they do meanwhile is forgotten.
    ///
    /// # Errors
    ///
    /// There is no such node, or the server does not start.
    pub fn restart_numbered(&self, path: &str, next: i32) -> Result<()> {
        // It writes down all that it has when it starts.
        self.restart()?;
        self.kill()?;
        numbering::set(&self.server.directory().join(DATA).join("version-2"), path, next)?;
        self.restart()
    }

    /// Sends one of ZooKeeper's four-letter words, such as `srvr`, `cons` or `wchs`, and returns the whole answer.
    ///
    /// # Errors
    ///
    /// The server does not answer within 5 s.
    pub fn ask(&self, word: &str) -> Result<String> {
        config::ask(self.address(), word)
    }

    /// `leader`, `follower` or `standalone`.
    ///
    /// # Errors
    ///
    /// The server does not answer, or serves nobody since it has no leader.
    pub fn mode(&self) -> Result<String> {
        mode(self.address())
    }

    /// Returns the version of the server.
    ///
    /// # Errors
    ///
    /// The server does not answer.
    pub fn version(&self) -> Result<Version> {
        version(self.address())
    }

    fn launch(&self) -> Result<u32> {
        self.server.start()
    }

    fn wait_until_it_serves(&self) -> Result<()> {
        let pid = self.pid().context("the server was killed while it was starting")?;
        wait_until_it_serves(&self.settings, pid, self.server.directory())
    }
}

/// Returns what [`ZooKeeper::mode`] says, of any ZooKeeper at `address`.
///
/// # Errors
///
/// As for [`ZooKeeper::mode`].
pub fn mode(address: SocketAddr) -> Result<String> {
    let answer = config::ask(address, "srvr")?;
    let mode = config::field(&answer, "Mode").with_context(|| format!("it answers: {}", answer.trim()))?;
    Ok(mode.to_owned())
}

fn version(address: SocketAddr) -> Result<Version> {
    let answer = config::ask(address, "srvr")?;
    let version = config::field(&answer, "Zookeeper version").and_then(Version::find);
    version.with_context(|| format!("it told no version: {}", answer.trim()))
}

/// Waits until process `pid`, and no other server on that port, serves clients.
fn wait_until_it_serves(settings: &Settings, pid: u32, directory: &std::path::Path) -> Result<()> {
    let address = settings.address();
    let probe = || -> Result<()> {
        let answer = config::ask(address, "conf")?;
        let data =
            config::field(&answer, "dataDir").with_context(|| format!("it answers: {}", answer.trim()))?;
        ensure!(
            data.contains(&*directory.to_string_lossy()),
            "a server with its data in {data} is on the port"
        );
        let answer = config::ask(address, "srvr")?;
        config::field(&answer, "Mode").with_context(|| format!("it answers: {}", answer.trim()))?;
        let version = version(address)?;
        ensure!(version >= OLDEST, "it is ZooKeeper {version}, but {OLDEST} or newer is needed");
        Ok(())
    };
    eventually("ZooKeeper to serve", READY_BOUND, || match probe() {
        Err(status) if is_running(pid) => Err(status),
        result => Ok(result),
    })
    .and_then(|outcome| outcome.context("ZooKeeper ended while it was starting"))
    .with_context(|| {
        format!(
            "ZooKeeper did not start on port {}. If the end of its log names a class, run `cargo xtask setup`. The \
             log:\n{}\nwhat happened",
            settings.port,
            log_tail(directory)
        )
    })
}
