//! One open connection, of either kind, and the scripts that go over it.

use std::sync::LazyLock;

use redis::{Cmd, FromRedisValue, RedisResult, Script, ServerErrorKind, Value, aio::MultiplexedConnection};

/// A connection that many tasks share. Requests are executed in the order in which they were sent.
#[derive(Clone)]
pub(crate) enum Connection {
    Node(MultiplexedConnection),
    #[cfg(feature = "cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

/// A script and its digest.
pub(crate) struct Source {
    text: &'static str,
    script: Script,
}

macro_rules! script {
    ($name:ident, $file:literal) => {
        pub(crate) static $name: LazyLock<Source> = LazyLock::new(|| {
            let text = include_str!(concat!("../scripts/", $file));
            Source { text, script: Script::new(text) }
        });
    };
}

script!(ACQUIRE, "acquire.lua");
script!(RENEW, "renew.lua");
script!(RELEASE, "release.lua");
script!(INSPECT, "inspect.lua");

impl Connection {
    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Node(connection) => command.query_async(&mut connection.clone()).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(connection) => command.query_async(&mut connection.clone()).await,
        }
    }

    /// Runs a script by its digest, or by its text where the server does not know it (any more).
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        source: &Source,
        keys: &[&str],
        arguments: &[&str],
    ) -> RedisResult<T> {
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        match self.query(&command("EVALSHA", source.script.get_hash())).await {
            Err(error) if error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.query(&command("EVAL", source.text)).await
            }
            result => result,
        }
    }

    /// Leaves the scripts with the server, so that the first acquire needs no second round trip.
    ///
    /// A user who may not do that pays the round trip, so a refusal is no failure.
    pub(crate) async fn load_scripts(&self) -> RedisResult<()> {
        for source in [&ACQUIRE, &RENEW, &RELEASE, &INSPECT] {
            let loaded = self.query::<Value>(redis::cmd("SCRIPT").arg("LOAD").arg(source.text)).await;
            match loaded {
                Err(error) if error.is_io_error() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
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
