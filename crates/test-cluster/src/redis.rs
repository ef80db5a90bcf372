//! Real Redis servers: one alone, a replica, a cluster of one node, and a Sentinel.

mod builder;
mod config;
mod sentinel;
mod startup;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    ports::loopback,
    process::{DATA, Watched},
    resp::{Connection, Value},
    tools::Version,
};

pub use builder::{Persistence, RedisBuilder};
use config::Settings;
pub use sentinel::Sentinel;
pub(crate) use sentinel::watch;

/// How long [`Redis::command`] waits for an answer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// A real `redis-server` of one's own.
///
/// Dropping it kills the server and removes its data. The same happens when this process is killed.
///
/// # Examples
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// let redis = test_cluster::Redis::builder().password("secret").start()?;
/// assert_eq!(redis.command(&["INCR", "visits"])?.as_int(), Some(1));
/// assert!(redis.url().starts_with("redis://:secret@127.0.0.1:"));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Redis {
    server: Watched,
    settings: Settings,
    version: Version,
}

impl Redis {
    /// Starts a server with no password and no persistence.
    ///
    /// # Errors
    ///
    /// As for [`RedisBuilder::start`].
    pub fn start() -> Result<Redis> {
        Redis::builder().start()
    }

    /// Makes a builder, for everything that can be chosen before the start.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// Returns the URL for a client, with the password if there is one.
    pub fn url(&self) -> String {
        self.settings.url()
    }

    /// Returns the address for a client.
    pub fn address(&self) -> SocketAddr {
        loopback(self.port())
    }

    /// Returns the port for a client. It stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.settings.port
    }

    /// Returns the process id; `None` after [`kill`](Self::kill).
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Returns the version of the server.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns all that the server has logged since its first start.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Returns the directory in which it keeps its data.
    pub fn data(&self) -> PathBuf {
        self.server.directory().join(DATA)
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

    /// Starts the server again on its port and data, and waits until it answers. Kills it first if it runs.
    ///
    /// # Errors
    ///
    /// The server does not start; the error shows its log.
    pub fn restart(&self) -> Result<()> {
        self.boot()
    }

    /// Starts the server again on its port, having forgotten everything. Kills it first if it runs.
    ///
    /// # Errors
    ///
    /// The server does not start; the error shows its log.
    pub fn restart_without_data(&self) -> Result<()> {
        self.kill()?;
        self.server.remove_data()?;
        self.boot()
    }

    /// Sends one command on a connection of its own and returns the answer, waiting for it up to 5 s.
    ///
    /// # Errors
    ///
    /// The server does not answer, or refuses the command.
    pub fn command<A: AsRef<[u8]>>(&self, arguments: &[A]) -> Result<Value> {
        let answer = self.settings.connect(COMMAND_TIMEOUT)?.call(arguments)?;
        accepted(arguments, answer)
    }

    /// Opens a connection that is logged in, on which each answer may take up to `timeout`.
    ///
    /// # Errors
    ///
    /// The server does not answer.
    pub fn connect(&self, timeout: Duration) -> Result<Connection> {
        self.settings.connect(timeout)
    }

    fn boot(&self) -> Result<()> {
        let pid = self.server.start()?;
        startup::wait_until_ready(&self.settings, pid, self.server.directory())
    }
}

fn accepted<A: AsRef<[u8]>>(arguments: &[A], answer: Value) -> Result<Value> {
    let Value::Error(refusal) = answer else { return Ok(answer) };
    let name = arguments.first().context("a command has a name")?;
    bail!("Redis refused {}: {refusal}", String::from_utf8_lossy(name.as_ref()))
}
