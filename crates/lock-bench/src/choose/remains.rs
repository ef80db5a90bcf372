//! What a load left on the servers: looked for under its own prefix, removed, and looked for again.

use std::{fmt, time::Duration};

use anyhow::{Result, anyhow};
use etcd_client::{ConnectOptions, DeleteOptions};
use futures_util::future::BoxFuture;
use redis::cmd;
use tokio::time::{sleep, timeout};
use zookeeper_client::Error as ZkError;

use super::login::Login;
use crate::setup::Backend;

/// How long a server may take to tell.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is left under the prefix of a run.
#[derive(Debug)]
pub enum Remains {
    /// A list of the prefix was empty, after so many of the lock's own counters were removed.
    Nothing(usize),
    /// Nobody could look.
    Unknown {
        /// What all names begin with.
        prefix: String,
        /// Why not.
        reason: String,
    },
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing(removed) => {
                write!(
                    f,
                    "nothing is left: {removed} entries of its own prefix were removed, and a list of it is empty"
                )
            }
            Self::Unknown { prefix, reason } => write!(
                f,
                "what is left cannot be seen: {reason}; locks end with their leases, and counters, if the server \
                comes back with its data, have names that begin with {prefix}"
            ),
        }
    }
}

/// Removes all that `prefix` names on the servers, and looks whether it is gone.
pub async fn remove(backend: Backend, urls: &[String], login: Option<&Login>, prefix: &str) -> Remains {
    let removed = timeout(PATIENCE, removed(backend, urls, login, prefix)).await;
    match removed.unwrap_or_else(|_| Err(anyhow!("no answer within {PATIENCE:?}"))) {
        Ok(count) => Remains::Nothing(count),
        Err(error) => Remains::Unknown { prefix: prefix.to_owned(), reason: error.root_cause().to_string() },
    }
}

/// Goes on until a list is empty: a request that was under way may still arrive.
async fn removed(backend: Backend, urls: &[String], login: Option<&Login>, prefix: &str) -> Result<usize> {
    let mut sum = 0;
    loop {
        let mut unseen = None;
        let count = match backend {
            Backend::Local => 0,
            Backend::Setnx | Backend::Redlock => {
                let mut count = 0;
                for url in urls {
                    match from_redis(url, prefix).await {
                        Ok(removed) => count += removed,
                        // One that is gone is no reason to leave anything on the others.
                        Err(error) => unseen = Some(error),
                    }
                }
                count
            }
            Backend::Etcd => from_etcd(urls, login, prefix).await?,
            Backend::Zk => from_zookeeper(urls, login, prefix).await?,
        };
        sum += count;
        if count == 0 {
            return unseen.map_or(Ok(sum), Err);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn from_redis(url: &str, prefix: &str) -> Result<usize> {
    let client = redis::Client::open(url)?;
    let address = client.get_connection_info().addr();
    let mut connection =
        client.get_multiplexed_async_connection().await.map_err(|error| anyhow!("{address}: {error}"))?;
    let (mut cursor, mut count) = (0_u64, 0);
    loop {
        let (next, names): (u64, Vec<String>) = cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{prefix}*"))
            .arg("COUNT")
            .arg(1000)
            .query_async(&mut connection)
            .await?;
        for name in names {
            count += cmd("DEL").arg(name).query_async::<usize>(&mut connection).await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(count);
        }
    }
}

async fn from_etcd(urls: &[String], login: Option<&Login>, prefix: &str) -> Result<usize> {
    let user = |login: &Login| ConnectOptions::new().with_user(&*login.user, &*login.password);
    let mut client = etcd_client::Client::connect(urls, login.map(user)).await?;
    let answer = client.delete(prefix, Some(DeleteOptions::new().with_prefix())).await?;
    Ok(usize::try_from(answer.deleted())?)
}

async fn from_zookeeper(urls: &[String], login: Option<&Login>, prefix: &str) -> Result<usize> {
    let mut connector = zookeeper_client::Client::connector();
    if let Some(Login { user, password }) = login {
        connector = connector.with_auth("digest", format!("{user}:{password}").as_bytes());
    }
    let client = connector.connect(&urls.join(",")).await?;
    delete_below(&client, format!("/{prefix}")).await
}

fn delete_below(client: &zookeeper_client::Client, path: String) -> BoxFuture<'_, Result<usize>> {
    Box::pin(async move {
        let children = match client.list_children(&path).await {
            Err(ZkError::NoNode) => return Ok(0),
            children => children?,
        };
        let mut count = 1;
        for child in children {
            count += delete_below(client, format!("{path}/{child}")).await?;
        }
        match client.delete(&path, None).await {
            // Somebody else did, or something came meanwhile: the next look sees it.
            Ok(()) | Err(ZkError::NoNode | ZkError::NotEmpty) => Ok(count),
            Err(error) => Err(error.into()),
        }
    })
}
