//! Locks on one Redis, and on several.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use lock_redlock::RedlockLocker;
use lock_setnx::{Options, SetnxLocker};
use redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo as _, Script, aio::MultiplexedConnection, cmd,
};
use rslock::LockManager;

use super::{Ours, TTL, raw};
use crate::lock::{Lock, Role, Subject};

/// Deletes a key if it has this value: what every lock on Redis releases by.
const COMPARE_AND_DELETE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

pub(super) fn on_one(url: &str) -> Vec<Subject> {
    let all = vec![url.to_owned()];
    let url = url.to_owned();
    let ours = move || {
        let url = url.clone();
        async move {
            let options = Options::default().with_ttl(TTL);
            Ok(Ours((*SetnxLocker::connect(&*url, options).await?).clone()))
        }
    };
    vec![
        floor("SET NX, compare and delete", &all),
        Subject::new("lock-setnx", Role::Ours, ours),
        raw::on_one(&all[0]),
        peer("rslock", all),
    ]
}

pub(super) fn on_several(urls: &[String]) -> Vec<Subject> {
    let all = urls.to_vec();
    let ours = move || {
        let all = all.clone();
        async move {
            let options = Options::default().with_ttl(TTL);
            Ok(Ours((*RedlockLocker::connect(all.iter().map(String::as_str), options).await?).clone()))
        }
    };
    vec![
        floor("SET NX, compare and delete on all", urls),
        Subject::new("lock-redlock", Role::Ours, ours),
        raw::on_several(urls),
        peer("rslock", urls.to_vec()),
    ]
}

fn floor(name: &'static str, urls: &[String]) -> Subject {
    let urls = urls.to_vec();
    Subject::new(name, Role::Floor, move || {
        let urls = urls.clone();
        async move { Floor::connect(&urls).await }
    })
}

fn peer(name: &'static str, urls: Vec<String>) -> Subject {
    Subject::new(name, Role::Peer, move || {
        let urls = urls.clone();
        async move { Ok(LockManager::new(urls)) }
    })
}

/// Opens connections like those of our locks: requests are not held back to be sent together, and tasks need not wait
/// for each other.
pub(super) async fn connect(urls: &[String]) -> Result<Vec<MultiplexedConnection>> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(1024);
    let mut connections = Vec::with_capacity(urls.len());
    for url in urls {
        let info = url.as_str().into_connection_info()?;
        let settings = info.tcp_settings().clone().set_nodelay(true);
        let client = Client::open(info.set_tcp_settings(settings))?;
        connections.push(client.get_multiplexed_async_connection_with_config(&config).await?);
    }
    Ok(connections)
}

/// What a lock on Redis sends at least: one request to acquire, and one to release.
struct Floor {
    connections: Vec<MultiplexedConnection>,
    delete: String,
    owners: AtomicU64,
}

impl Floor {
    async fn connect(urls: &[String]) -> Result<Self> {
        let (connections, mut delete) = (connect(urls).await?, String::new());
        for mut connection in connections.iter().cloned() {
            delete = Script::new(COMPARE_AND_DELETE).prepare_invoke().load_async(&mut connection).await?;
        }
        Ok(Self { connections, delete, owners: AtomicU64::new(rand::random()) })
    }
}

impl Lock for Floor {
    type Held<'a> = (&'static str, String);

    async fn acquire(&self, key: &'static str) -> Result<Self::Held<'_>> {
        let mut owner = String::with_capacity(32);
        write!(owner, "{:032x}", self.owners.fetch_add(1, Ordering::Relaxed))?;
        let mut set = cmd("SET");
        set.arg(key).arg(&owner).arg("NX").arg("PX").arg(TTL.as_millis() as u64);
        let granted = match &*self.connections {
            [one] => usize::from(set.query_async::<Option<String>>(&mut one.clone()).await?.is_some()),
            several => {
                let votes = several.iter().map(async |connection| {
                    let vote: Option<String> = set.query_async(&mut connection.clone()).await?;
                    redis::RedisResult::Ok(vote.is_some())
                });
                join_all(votes).await.into_iter().filter(|vote| matches!(vote, Ok(true))).count()
            }
        };
        ensure!(granted > self.connections.len() / 2, "the floor does not wait, and {key} was taken");
        Ok((key, owner))
    }

    async fn release(&self, (key, owner): Self::Held<'_>) -> Result<()> {
        let mut delete = cmd("EVALSHA");
        delete.arg(&self.delete).arg(1).arg(key).arg(&owner);
        match &*self.connections {
            [one] => delete.query_async::<i64>(&mut one.clone()).await.map(drop)?,
            several => {
                let deleted = several
                    .iter()
                    .map(async |connection| delete.query_async::<i64>(&mut connection.clone()).await);
                join_all(deleted).await.into_iter().collect::<Result<Vec<_>, _>>().map(drop)?;
            }
        }
        Ok(())
    }
}

impl Lock for LockManager {
    type Held<'a> = rslock::Lock;

    async fn acquire(&self, key: &'static str) -> Result<rslock::Lock> {
        self.acquire_no_guard(key, TTL).await.context("rslock could not acquire")
    }

    async fn release(&self, held: Self::Held<'_>) -> Result<()> {
        self.unlock(&held).await;
        Ok(())
    }
}
