//! One node in which a program keeps a text beside its locks.

use std::{fmt, future::Future};

use lock_core::{Error, ErrorKind, Options, Result};
use tokio::time;
use zookeeper_client::{Client, CreateMode, Error as ZkError};

use crate::{
    Target,
    connection::Connection,
    ensemble::{self, Ensemble},
    failure,
};

/// A node that keeps a text, such as the map of `lock-sharded`. Each call opens a session of its own.
pub struct Node {
    ensemble: Ensemble,
    path: String,
}

impl Node {
    /// Names the node at `path`, an absolute one below the chroot of `target`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: the target or the path cannot be.
    pub fn new(target: Target, path: impl Into<String>) -> Result<Self> {
        let path = path.into();
        if path.len() < 2 || !path.starts_with('/') || path.ends_with('/') {
            let message = format!("{path:?} cannot be the path of a node; write one such as /shop/map");
            return Err(Error::new(ErrorKind::InvalidInput, message).without_effect());
        }
        Ok(Self { ensemble: Ensemble::new(target, Options::default().check()?)?, path })
    }

    /// Returns its path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reads it as the servers have it; `None` if it is not there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]: the servers do not answer. [`ErrorKind::Auth`]: it may not be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn read(&self) -> Result<Option<Vec<u8>>> {
        let connection = self.ensemble.open().await?;
        let reading = async {
            connection.vote().await?;
            match connection.client()?.get_data(&self.path).await {
                Ok((text, _)) => Ok(Some(text)),
                Err(ZkError::NoNode) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let read = self.bounded(&connection, reading).await;
        ensemble::close(connection);
        read
    }

    /// Writes it, and makes it and those above it if they are not there.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: it may be written or not.
    pub async fn write(&self, text: &[u8]) -> Result<()> {
        let connection = self.ensemble.open().await?;
        let writing = async { self.put(&*connection.client()?, text).await };
        let written = self.bounded(&connection, writing).await;
        ensemble::close(connection);
        written
    }

    async fn put(&self, client: &Client, text: &[u8]) -> Result<(), ZkError> {
        let persistent = CreateMode::Persistent.with_acls(self.ensemble.acls());
        loop {
            match client.set_data(&self.path, text, None).await {
                Err(ZkError::NoNode) => {}
                put => return put.map(drop),
            }
            match client.create(&self.path, text, &persistent).await {
                Ok(_) => return Ok(()),
                Err(ZkError::NodeExists) => {}
                Err(ZkError::NoNode) => match self.path.rsplit_once('/') {
                    Some((above, _)) if !above.is_empty() => client.mkdir(above, &persistent).await?,
                    _ => return Err(ZkError::NoNode),
                },
                Err(error) => return Err(error),
            }
        }
    }

    async fn bounded<T>(
        &self,
        connection: &Connection,
        work: impl Future<Output = Result<T, ZkError>> + Send,
    ) -> Result<T> {
        let limit = self.ensemble.timing().request_timeout();
        let done = time::timeout(limit, connection.driving(work)).await;
        let done = done.map_err(|_| Error::no_answer(limit))?;
        done.map_err(|error| failure::of_request(error, self.ensemble.addresses()))
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("path", &self.path).finish_non_exhaustive()
    }
}
