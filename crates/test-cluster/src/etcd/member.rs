//! One etcd server: what can be asked of it and done to it.

use std::{net::SocketAddr, sync::OnceLock, time::Duration};

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};

use super::{EtcdBuilder, gateway};
use crate::{
    eventually,
    ports::loopback,
    process::{Watched, is_running, log_tail},
    tools::Version,
};

/// How long a call of the gateway may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

const READY_BOUND: Duration = Duration::from_secs(20);

/// A real etcd server of one's own: alone, or a member of an [`EtcdCluster`](super::EtcdCluster).
///
/// Dropping it kills the server and removes its data. The same happens when this process is killed.
///
/// # Examples
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// let etcd = test_cluster::Etcd::start()?;
/// // The gateway takes and gives keys and values in base64: this is "greeting" and "hello".
/// etcd.call("/v3/kv/put", r#"{"key": "Z3JlZXRpbmc=", "value": "aGVsbG8="}"#)?;
/// assert_eq!(etcd.keys("greet")?, ["greeting"]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Etcd {
    pub(super) server: Watched,
    pub(super) settings: Settings,
    pub(super) version: Version,
    id: OnceLock<u64>,
}

/// How one server is reached.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) port: u16,
    /// The port that speaks no TLS: the same one, unless there is TLS.
    pub(super) plain_port: u16,
    pub(super) tls: bool,
    pub(super) password: Option<String>,
}

/// What a server says of itself.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) member: u64,
    /// The member that it takes for the leader; 0 if none.
    pub(super) leader: u64,
}

impl Etcd {
    pub(super) fn new(server: Watched, settings: Settings, version: Version) -> Self {
        Self { server, settings, version, id: OnceLock::new() }
    }

    /// Starts one server alone, with no password.
    ///
    /// # Errors
    ///
    /// As for [`EtcdBuilder::start`].
    pub fn start() -> Result<Etcd> {
        Etcd::builder().start()
    }

    /// Makes a builder, for everything that can be chosen before the start.
    pub fn builder() -> EtcdBuilder {
        EtcdBuilder::default()
    }

    /// Returns the URL for a client, without user and password.
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

    /// Starts the server again on its ports and data, and waits until it knows a leader. Kills it first if it runs.
    ///
    /// # Errors
    ///
    /// The server does not start, or it is of a cluster without a majority; the error shows its log.
    pub fn restart(&self) -> Result<()> {
        self.kill()?;
        self.spawn()?;
        self.wait_until_ready()
    }

    /// Starts a server that is alone again on its ports, having forgotten everything. Kills it first if it runs.
    ///
    /// A member of a cluster would not be let in again: see
    /// [`EtcdCluster::restart_without_data`](super::EtcdCluster::restart_without_data).
    ///
    /// # Errors
    ///
    /// The server does not start; the error shows its log.
    pub fn restart_without_data(&self) -> Result<()> {
        self.forget()?;
        self.spawn()?;
        self.wait_until_ready()
    }

    /// Sends a request to the server's JSON gateway, as root if there is a password, and returns the answer.
    ///
    /// `path` and `body` are those of etcd's manual: `/v3/kv/range`, `/v3/lease/leases`.
    ///
    /// # Errors
    ///
    /// The server does not answer within 5 s, or refuses the request.
    pub fn call(&self, path: &str, body: &str) -> Result<String> {
        self.settings.call(path, body, CALL_TIMEOUT)
    }

    /// Returns how many gRPC requests the server has begun to serve, each stream counted as one.
    ///
    /// # Errors
    ///
    /// The server does not answer within 5 s.
    pub fn requests(&self) -> Result<u64> {
        self.metric("grpc_server_started_total{")
    }

    /// Returns how many gRPC messages the server has received, those within streams too.
    ///
    /// # Errors
    ///
    /// The server does not answer within 5 s.
    pub fn messages(&self) -> Result<u64> {
        self.metric("grpc_server_msg_received_total{")
    }

    /// Returns how many watches are open.
    ///
    /// # Errors
    ///
    /// The server does not answer within 5 s.
    pub fn watches(&self) -> Result<u64> {
        self.metric("etcd_debugging_mvcc_watcher_total ")
    }

    /// Returns the sum of the metrics whose lines begin with `prefix`.
    fn metric(&self, prefix: &str) -> Result<u64> {
        let metrics = gateway::get(self.settings.address(), "/metrics", CALL_TIMEOUT)?;
        let lines = metrics.lines().filter(|line| line.starts_with(prefix));
        lines.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()? as u64)).sum()
    }

    /// Returns all keys that begin with `prefix`, the eldest first.
    ///
    /// # Errors
    ///
    /// As for [`call`](Self::call).
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().context("a prefix is not empty")? += 1;
        let range = format!(
            r#"{{"key": "{}", "range_end": "{}", "sort_order": "ASCEND", "sort_target": "CREATE", "keys_only": true}}"#,
            BASE64.encode(prefix),
            BASE64.encode(end)
        );
        let answer = self.call("/v3/kv/range", &range)?;
        let keys = answer.split("\"key\":").skip(1).filter_map(|rest| rest.trim_start().split('"').nth(1));
        keys.map(|key| Ok(String::from_utf8(BASE64.decode(key)?)?)).collect()
    }

    /// Returns the number of the lease that `key` depends on; 0 if it depends on none.
    ///
    /// # Errors
    ///
    /// As for [`call`](Self::call), and if there is no such key.
    pub fn lease_of(&self, key: &str) -> Result<i64> {
        let answer = self.call("/v3/kv/range", &format!(r#"{{"key": "{}"}}"#, BASE64.encode(key)))?;
        ensure!(gateway::field(&answer, "key").is_some(), "there is no key {key}");
        // A number that is zero is left out.
        Ok(gateway::field(&answer, "lease").map_or(Ok(0), str::parse)?)
    }

    /// Ends `lease`, and deletes the keys that depend on it.
    ///
    /// # Errors
    ///
    /// As for [`call`](Self::call), and if there is no such lease.
    pub fn revoke(&self, lease: i64) -> Result<()> {
        self.call("/v3/lease/revoke", &format!(r#"{{"ID": "{lease}"}}"#)).map(|_| ())
    }

    /// Deletes `key`.
    ///
    /// # Errors
    ///
    /// As for [`call`](Self::call).
    pub fn delete(&self, key: &str) -> Result<()> {
        self.call("/v3/kv/deleterange", &format!(r#"{{"key": "{}"}}"#, BASE64.encode(key))).map(|_| ())
    }

    pub(super) fn spawn(&self) -> Result<()> {
        self.server.start().map(|_| ())
    }

    pub(super) fn forget(&self) -> Result<()> {
        self.kill()?;
        self.server.remove_data()
    }

    /// The number by which members know it, once it has been ready.
    pub(super) fn id(&self) -> Option<u64> {
        self.id.get().copied()
    }

    pub(super) fn status(&self) -> Result<Status> {
        self.settings.status()
    }

    pub(super) fn wait_until_ready(&self) -> Result<()> {
        let pid = self.pid().context("the server was killed; restart it first")?;
        let status = self.settings.wait_until_ready(pid, self.server.directory())?;
        self.id.get_or_init(|| status.member);
        Ok(())
    }
}

impl Settings {
    pub(super) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.tls { "https" } else { "http" }, self.port)
    }

    /// Waits until process `pid` answers and knows a leader.
    pub(super) fn wait_until_ready(&self, pid: u32, directory: &std::path::Path) -> Result<Status> {
        let probe = || {
            let status = self.status()?;
            ensure!(status.leader != 0, "it knows no leader");
            Ok(status)
        };
        eventually("etcd to be ready", READY_BOUND, || match probe() {
            Err(status) if is_running(pid) => Err(status),
            result => Ok(result),
        })
        .and_then(|outcome| outcome.context("etcd ended while it was starting"))
        .with_context(|| {
            format!(
                "etcd did not start on port {}. If the end of its log names a flag or a port, choose another one. \
                 The log:\n{}\nwhat happened",
                self.port,
                log_tail(directory)
            )
        })
    }

    pub(super) fn status(&self) -> Result<Status> {
        let answer = gateway::post(self.address(), "/v3/maintenance/status", None, "{}", PROBE_TIMEOUT)?;
        let number = |name| gateway::field(&answer, name).and_then(|number| number.parse().ok());
        let member = number("member_id").with_context(|| format!("this is no status of etcd: {answer}"))?;
        // A number that is zero is left out.
        Ok(Status { member, leader: number("leader").unwrap_or(0) })
    }

    pub(super) fn call(&self, path: &str, body: &str, timeout: Duration) -> Result<String> {
        let token = self.password.as_ref().map(|password| {
            let login = format!(r#"{{"name": "root", "password": {}}}"#, gateway::quoted(password));
            let answer = gateway::post(self.address(), "/v3/auth/authenticate", None, &login, timeout)?;
            gateway::field(&answer, "token").map(str::to_owned).context("etcd gave no token")
        });
        gateway::post(self.address(), path, token.transpose()?.as_deref(), body, timeout)
    }

    fn address(&self) -> SocketAddr {
        loopback(self.plain_port)
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("port", &self.port).field("tls", &self.tls).finish_non_exhaustive()
    }
}
