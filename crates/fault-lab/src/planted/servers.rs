//! Connections to one or several Redis, as simple as they can be, and scripts over them.

use std::time::Duration;

use lock_core::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use redis::{Client, FromRedisValue, Script, aio::MultiplexedConnection};
use tokio::time;

/// One server. A connection that broke is replaced, one that is silent is kept, so that requests stay in order.
pub(super) struct Server {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Server {
    pub(super) fn new(url: &str) -> Result<Self> {
        let client = Client::open(url).map_err(unavailable)?;
        Ok(Self { client, connection: Mutex::new(None) })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    async fn connection(&self) -> Result<MultiplexedConnection> {
        if let Some(open) = self.connection.lock().clone() {
            return Ok(open);
        }
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let opened = self.client.get_multiplexed_async_connection_with_config(&config);
        let opened = opened.await.map_err(unavailable)?;
        Ok(self.connection.lock().get_or_insert(opened).clone())
    }

    /// Runs `script`, and waits at most `limit` for the answer.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[&str],
        limit: Option<Duration>,
    ) -> Result<T> {
        let answer = async {
            let mut connection = self.connection().await?;
            let mut call = script.prepare_invoke();
            for key in keys {
                call.key(*key);
            }
            for argument in arguments {
                call.arg(*argument);
            }
            call.invoke_async(&mut connection).await.map_err(|error| {
                self.connection.lock().take_if(|_| error.is_unrecoverable_error());
                unavailable(error)
            })
        };
        match limit {
            None => answer.await,
            Some(limit) => time::timeout(limit, answer).await.map_err(|_| Error::no_answer(limit))?,
        }
    }
}

pub(super) fn unavailable(error: redis::RedisError) -> Error {
    Error::new(ErrorKind::Unavailable, "a request to Redis failed").with_source(error)
}
