//! What can be chosen about a Redis server before it starts.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{
    Redis,
    config::{Settings, Tls},
    startup,
};
use crate::{
    ports,
    process::{Detached, Watched, detached},
};

/// What a Redis server keeps over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing.
    #[default]
    None,
    /// What the append-only file has, which is synced every second.
    Aof,
    /// All that was acknowledged: the append-only file is synced before each answer.
    AofAlways,
}

impl Persistence {
    /// The lines of a configuration file that say so, for a server that a replica reaches at once.
    pub(crate) fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::None => &[NO_SNAPSHOTS, AT_ONCE, ("appendonly", "no")],
            Self::Aof => &[NO_SNAPSHOTS, AT_ONCE, ("appendonly", "yes"), ("appendfsync", "everysec")],
            Self::AofAlways => &[NO_SNAPSHOTS, AT_ONCE, ("appendonly", "yes"), ("appendfsync", "always")],
        }
    }
}

const NO_SNAPSHOTS: (&str, &str) = ("save", "");
const AT_ONCE: (&str, &str) = ("repl-diskless-sync-delay", "0");

/// Chooses how a Redis server runs; see [`Redis::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "nothing runs before `start`"]
pub struct RedisBuilder {
    port: Option<u16>,
    environment: Vec<OsString>,
    settings: Settings,
}

impl RedisBuilder {
    /// Listens on `port` instead of any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Requires `password` of the default user.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.settings.password = Some(password.into());
        self
    }

    /// Keeps data over restarts; without this call nothing is kept.
    pub fn persistence(mut self, persistence: Persistence) -> Self {
        self.settings.persistence = persistence;
        self
    }

    /// Speaks TLS on its port, with a certificate and its key, for clients that trust `ca`; all are PEM files.
    ///
    /// Clients need no certificate. [`Redis::command`] uses a second port without TLS.
    pub fn tls(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>, ca: impl Into<PathBuf>) -> Self {
        self.settings.tls = Some(Tls { cert: cert.into(), key: key.into(), ca: ca.into() });
        self
    }

    /// Adds a line to the configuration file; `value` is written as it would stand there.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.extra.push((name.into(), value.into()));
        self
    }

    /// Sets variables of the server's environment.
    pub fn environment<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let assignment = |(name, value): (N, V)| {
            let mut assignment = name.as_ref().to_owned();
            assignment.push("=");
            assignment.push(value.as_ref());
            assignment
        };
        self.environment.extend(variables.into_iter().map(assignment));
        self
    }

    /// Runs a Redis Cluster of one node, which serves all slots. It takes Redis 2 s to declare itself ready.
    pub fn cluster_mode(mut self) -> Self {
        self.settings.cluster = true;
        self
    }

    /// Replicates the server on `port`, which must have the same password if this one has one.
    pub fn replica_of(mut self, port: u16) -> Self {
        self.settings.replica_of = Some(port);
        self
    }

    /// Starts the server and waits until it answers, and until it has the data of its master if it is a replica.
    ///
    /// # Errors
    ///
    /// There is no `redis-server`, it is older than Redis 5, or it does not start; the error shows its log.
    pub fn start(self) -> Result<Redis> {
        let (executable, version) = startup::executable()?;
        let environment = self.environment.clone();
        self.on_a_port(|settings| {
            let directory = tempfile::Builder::new().prefix("test-redis-").tempdir()?;
            let config = settings.write(directory.path())?;
            let env = (!environment.is_empty()).then(|| OsString::from("env"));
            let words = executable.command_line(&[config]);
            let words: Vec<_> = env.into_iter().chain(environment.iter().cloned()).chain(words).collect();
            let server = Watched::new(directory, &words)?;
            let redis = Redis { server, settings, version };
            redis.boot()?;
            startup::wait_until_replicated(&redis)?;
            Ok(redis)
        })
    }

    /// Starts a server that outlives this process, with its data in `directory`, and waits until it answers.
    ///
    /// [`stop_detached`](crate::process::stop_detached) stops it.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub fn detached(self, directory: &Path) -> Result<Detached> {
        let (executable, _) = startup::executable()?;
        let directory = &detached::prepare(&[directory.to_owned()])?[0];
        self.on_a_port(|settings| {
            let command = executable.command_line(&[settings.write(directory)?]);
            let ready = |_, pid| startup::wait_until_ready(&settings, pid, directory);
            let pids = detached::start(&[(directory.clone(), command)], ready)?;
            Ok(Detached { pid: pids[0], port: settings.port })
        })
    }

    /// Calls `start` with a port: the chosen one, or free ones until one is not taken by somebody else.
    fn on_a_port<T>(self, start: impl Fn(Settings) -> Result<T>) -> Result<T> {
        let Self { port, settings, .. } = self;
        let on = |port| {
            let plain_port = if settings.tls.is_some() { ports::free()? } else { port };
            start(Settings { port, plain_port, ..settings.clone() })
        };
        match port {
            Some(port) => on(port),
            None => ports::retry_if_taken(|| on(ports::free()?)),
        }
    }
}
