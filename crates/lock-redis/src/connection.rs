//! One open connection, of either kind, and the scripts that go over it.

use std::{fmt, sync::LazyLock};

use redis::{Cmd, FromRedisValue, RedisResult, ServerErrorKind, Value, aio::MultiplexedConnection};

/// A connection that many tasks share. Requests are executed in the order in which they were sent.
#[derive(Clone)]
pub enum Connection {
    /// To one server.
    Node(MultiplexedConnection),
    /// To a cluster.
    #[cfg(feature = "cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

/// A script, which is known by its digest to a server that has seen it.
pub struct Script {
    text: &'static str,
    digest: redis::Script,
}

/// Sets a lease back to its full TTL.
pub static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../scripts/renew.lua")));
/// Frees a key, and tells those who wait.
pub static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../scripts/release.lua")));
/// Tells who holds a key.
pub static INSPECT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../scripts/inspect.lua")));

impl Script {
    /// Makes a script of its text.
    #[must_use]
    pub fn new(text: &'static str) -> Self {
        Self { text, digest: redis::Script::new(text) }
    }
}

impl Connection {
    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Node(connection) => command.query_async(&mut connection.clone()).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(connection) => command.query_async(&mut connection.clone()).await,
        }
    }

    /// Runs a script by its digest, or by its text where the server does not know it (any more).
    ///
    /// # Errors
    ///
    /// As the client library tells them.
    ///
    /// # Cancel safety
    ///
    /// The script may be executed or not.
    pub async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[&str],
    ) -> RedisResult<T> {
        let command = |name: &str, named: &str| {
            let mut command = redis::cmd(name);
            command.arg(named).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        match self.query(&command("EVALSHA", script.digest.get_hash())).await {
            Err(error) if error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.query(&command("EVAL", script.text)).await
            }
            result => result,
        }
    }

    /// Returns whether the user may tell of something on `channel`.
    ///
    /// # Errors
    ///
    /// As the client library tells them.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn may_publish(&self, channel: &str) -> RedisResult<bool> {
        match self.query::<Value>(redis::cmd("PUBLISH").arg(channel).arg("")).await {
            Err(error) if error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(false),
            published => published.map(|_| true),
        }
    }

    /// Leaves the scripts with the server, so that the first acquire needs no second round trip.
    ///
    /// A user who may not do that pays the round trip, so a refusal is no failure.
    ///
    /// # Errors
    ///
    /// The connection broke.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn load(&self, scripts: &[&Script]) -> RedisResult<()> {
        let load = |script: &&Script| {
            let text = script.text;
            async move { self.query::<Value>(redis::cmd("SCRIPT").arg("LOAD").arg(text)).await }
        };
        let loaded = futures_util::future::join_all(scripts.iter().map(load)).await;
        match loaded.into_iter().filter_map(Result::err).find(redis::RedisError::is_io_error) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Whether the client library sends a request again by itself, so that the last answer says nothing of the first
    /// copy.
    pub(crate) fn repeats_requests(&self) -> bool {
        match self {
            Self::Node(_) => false,
            #[cfg(feature = "cluster")]
            Self::Cluster(_) => true,
        }
    }

    /// What the server says of itself, the texts of all nodes one after another.
    pub(crate) async fn info(&self) -> RedisResult<String> {
        fn collect(value: Value, text: &mut String) {
            match value {
                Value::BulkString(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
                Value::SimpleString(line) | Value::VerbatimString { text: line, .. } => text.push_str(&line),
                Value::Array(values) => values.into_iter().for_each(|value| collect(value, text)),
                Value::Map(entries) => entries.into_iter().for_each(|(_, value)| collect(value, text)),
                _ => {}
            }
        }
        let mut text = String::new();
        collect(self.query(&redis::cmd("INFO")).await?, &mut text);
        Ok(text)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.digest.get_hash()).finish()
    }
}
