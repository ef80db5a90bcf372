//! A Sentinel that watches one master.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Result, bail, ensure};

use super::{
    COMMAND_TIMEOUT, Redis, accepted,
    config::{Settings, quoted},
    startup,
};
use crate::{
    eventually,
    ports::{self, loopback},
    process::Watched,
    resp::Value,
};

/// A Sentinel asks a master for its replicas every 10 s.
const REPLICAS_BOUND: Duration = Duration::from_secs(30);

/// A `redis-server --sentinel` with quick settings: a master that is silent for 300 ms is replaced.
///
/// Dropping it kills it, as does the end of this process.
#[derive(Debug)]
pub struct Sentinel {
    server: Watched,
    settings: Settings,
}

impl Sentinel {
    /// Watches `master` under the name `name`, alone: its own vote is enough to replace the master.
    ///
    /// When this returns, it knows the replicas that `master` has now.
    ///
    /// # Errors
    ///
    /// As for [`RedisBuilder::start`](super::RedisBuilder::start).
    pub fn start(master: &Redis, name: &str) -> Result<Sentinel> {
        let (executable, _) = startup::executable()?;
        ports::retry_if_taken(|| {
            let port = ports::free()?;
            let settings = Settings { port, plain_port: port, ..Settings::default() };
            let directory = tempfile::Builder::new().prefix("test-sentinel-").tempdir()?;
            let file = directory.path().join("sentinel.conf");
            fs::write(&file, config(port, master, name, &quoted(directory.path())?)?)?;
            let command_line = executable.command_line(&[file.into_os_string(), "--sentinel".into()]);
            let sentinel = Sentinel { server: Watched::new(directory, &command_line)?, settings };
            let pid = sentinel.server.start()?;
            startup::wait_until_ready(&sentinel.settings, pid, sentinel.server.directory())?;
            sentinel.wait_for_replicas(master, name)?;
            Ok(sentinel)
        })
    }

    /// Returns the URL for a client.
    pub fn url(&self) -> String {
        self.settings.url()
    }

    /// Returns the address for a client.
    pub fn address(&self) -> SocketAddr {
        loopback(self.port())
    }

    /// Returns the port for a client.
    pub fn port(&self) -> u16 {
        self.settings.port
    }

    /// Returns all that it has logged.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Sends one command on a connection of its own and returns the answer, waiting for it up to 5 s.
    ///
    /// # Errors
    ///
    /// It does not answer, or refuses the command.
    pub fn command<A: AsRef<[u8]>>(&self, arguments: &[A]) -> Result<Value> {
        accepted(arguments, self.settings.connect(COMMAND_TIMEOUT)?.call(arguments)?)
    }

    /// Returns the port of the server that it holds to be the master `name`.
    ///
    /// # Errors
    ///
    /// It does not answer, or watches no master of that name.
    pub fn master_port(&self, name: &str) -> Result<u16> {
        let answer = self.command(&["SENTINEL", "get-master-addr-by-name", name])?;
        let Value::Array(address) = &answer else { bail!("it knows no master {name}") };
        Ok(address.last().map(Value::text).unwrap_or_default().parse()?)
    }

    fn wait_for_replicas(&self, master: &Redis, name: &str) -> Result<()> {
        let info = master.command(&["INFO", "replication"])?.text();
        let expected: usize = startup::field(&info, "connected_slaves").unwrap_or("0").parse()?;
        eventually("the sentinel to know the replicas of its master", REPLICAS_BOUND, || {
            let answer = self.command(&["SENTINEL", "replicas", name])?;
            let known = if let Value::Array(replicas) = answer { replicas.len() } else { 0 };
            ensure!(known >= expected, "it knows {known} of {expected}");
            Ok(())
        })
    }
}

fn config(port: u16, master: &Redis, name: &str, data: &str) -> Result<String> {
    let mut lines = vec!["bind 127.0.0.1".to_owned(), format!("port {port}"), format!("dir {data}")];
    lines.extend(watch(name, &master.port().to_string()));
    if let Some(password) = &master.settings.password {
        lines.push(format!("sentinel auth-pass {name} {}", quoted(password)?));
    }
    Ok(lines.join("\n") + "\n")
}

/// What it is told about a master on the port `master` of its own machine.
pub(crate) fn watch(name: &str, master: &str) -> [String; 3] {
    [
        format!("sentinel monitor {name} 127.0.0.1 {master} 1"),
        format!("sentinel down-after-milliseconds {name} 300"),
        format!("sentinel failover-timeout {name} 2000"),
    ]
}
