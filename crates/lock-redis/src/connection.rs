//! One open connection, of either kind, and the scripts that go over it.

use std::{fmt, sync::LazyLock};

use futures_util::{StreamExt, stream};
use redis::{Cmd, FromRedisValue, RedisResult, ServerErrorKind, Value, aio::MultiplexedConnection};

/// A connection that many tasks share. Requests are executed in the order in which they were sent.
#[derive(Clone)]
pub struct Connection {
    kind: Kind,
    /// The server's time in microseconds since when it was dialed; none if that may change without a word.
    dialed_at: Option<u64>,
}

#[derive(Clone)]
enum Kind {
    /// To one server.
    Node(MultiplexedConnection),
    /// To a cluster.
    #[cfg(feature = "cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

/// A script, which is known by its digest to a server that has seen it.
pub struct Script {
    text: String,
    digest: redis::Script,
    knows_dialing: bool,
}

/// Sets leases back to their full TTL.
pub static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../scripts/renew.lua")));
/// Tells who holds a key.
pub static INSPECT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../scripts/inspect.lua")));

impl Script {
    /// Makes a script of its text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { digest: redis::Script::new(&text), text, knows_dialing: false }
    }

    /// Has one more argument given to it: the server's time in microseconds when the connection was dialed, of which
    /// the server was not restarted since; empty where a server may be replaced without the connection breaking.
    #[must_use]
    pub fn knowing_dialing(self) -> Self {
        Self { knows_dialing: true, ..self }
    }
}

impl Connection {
    pub(crate) fn to_node(connection: MultiplexedConnection) -> Self {
        Self { kind: Kind::Node(connection), dialed_at: None }
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn to_cluster(connection: redis::cluster_async::ClusterConnection) -> Self {
        Self { kind: Kind::Cluster(connection), dialed_at: None }
    }

    /// Returns the client's own connection to one server; none to a cluster.
    #[must_use]
    pub fn to_one_server(&self) -> Option<MultiplexedConnection> {
        match &self.kind {
            Kind::Node(connection) => Some(connection.clone()),
            #[cfg(feature = "cluster")]
            Kind::Cluster(_) => None,
        }
    }

    /// Asks for the server's time in microseconds; none of a cluster, whose nodes are replaced without a word, or where
    /// the user may not ask.
    pub(crate) async fn time(&self) -> RedisResult<Option<u64>> {
        if self.to_one_server().is_none() {
            return Ok(None);
        }
        match self.query::<(u64, u64)>(&redis::cmd("TIME")).await {
            Err(error) if error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(None),
            told => told.map(|(seconds, micros)| Some(seconds * 1_000_000 + micros)),
        }
    }

    pub(crate) fn dialed_at(self, dialed_at: Option<u64>) -> Self {
        Self { dialed_at, ..self }
    }

    fn evaluation(&self, script: &Script, name: &str, named: &str, keys: &[&str], arguments: &[&str]) -> Cmd {
        let texts = keys.iter().chain(arguments);
        let size = name.len() + named.len() + 17 + texts.clone().map(|text| text.len()).sum::<usize>();
        let mut command = Cmd::with_capacity(4 + keys.len() + arguments.len(), size);
        command.arg(name).arg(named).arg(keys.len());
        texts.for_each(|text| {
            command.arg(*text);
        });
        match self.dialed_at.filter(|_| script.knows_dialing) {
            Some(time) => command.arg(time),
            None if script.knows_dialing => command.arg(""),
            None => &mut command,
        };
        command
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        self.clone().send(command).await
    }

    async fn send<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match &mut self.kind {
            // As the library's `query_async`, less its box.
            Kind::Node(connection) => {
                let value = connection.send_packed_command(command).await?;
                Ok(redis::from_redis_value(value.extract_error()?)?)
            }
            #[cfg(feature = "cluster")]
            Kind::Cluster(connection) => command.query_async(connection).await,
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
        &mut self,
        script: &Script,
        keys: &[&str],
        arguments: &[&str],
    ) -> RedisResult<T> {
        match self.send(&self.evaluation(script, "EVALSHA", script.digest.get_hash(), keys, arguments)).await
        {
            Err(error) if error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript) => {
                let command = self.evaluation(script, "EVAL", &script.text, keys, arguments);
                Box::pin(async move { self.send(&command).await }).await
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
            let mut command = redis::cmd("SCRIPT");
            command.arg("LOAD").arg(&script.text);
            async move { self.query::<Value>(&command).await }
        };
        // The library's connection to a cluster may hang if several of these are sent together.
        let at_once = if self.to_one_server().is_some() { scripts.len().max(1) } else { 1 };
        let loaded: Vec<_> = stream::iter(scripts).map(load).buffered(at_once).collect().await;
        match loaded.into_iter().filter_map(Result::err).find(redis::RedisError::is_io_error) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Returns whether the client library sends a request again by itself, so that the last answer says nothing of the
    /// first copy.
    pub(crate) fn repeats_requests(&self) -> bool {
        match self.kind {
            Kind::Node(_) => false,
            #[cfg(feature = "cluster")]
            Kind::Cluster(_) => true,
        }
    }

    /// Returns what the server says of itself, the texts of all nodes one after another.
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
