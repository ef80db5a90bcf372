//! The requests of our locks on Redis, sent by nothing but the client library.
//!
//! What these take beyond the floor is what the scripts do on the servers: tokens, and a memory of votes. What ours
//! takes beyond these is its own.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use lock_redlock::RedlockLocker;
use redis::{Cmd, FromRedisValue, Script, aio::MultiplexedConnection, cmd};

use super::{TTL, redis::connect};
use crate::lock::{Lock, Role, Subject};

const SETNX_QUEUE: &str = include_str!("../../../lock-setnx/scripts/queue.lua");
const SETNX_ACQUIRE: &str = include_str!("../../../lock-setnx/scripts/acquire.lua");
const SETNX_RELEASE: &str = include_str!("../../../lock-setnx/scripts/release.lua");
const REDLOCK_QUEUE: &str = include_str!("../../../lock-redlock/scripts/queue.lua");
const REDLOCK_ACQUIRE: &str = include_str!("../../../lock-redlock/scripts/acquire.lua");
const REDLOCK_RELEASE: &str = include_str!("../../../lock-redlock/scripts/release.lua");

pub(super) fn on_one(url: &str) -> Subject {
    let url = url.to_owned();
    Subject::new("the same scripts, bare", Role::Raw, move || {
        let url = url.clone();
        async move {
            let scripts = [SETNX_ACQUIRE, SETNX_RELEASE].map(|text| with_queue(text, SETNX_QUEUE));
            Ok(One(Bare::connect(&[url], &scripts).await?))
        }
    })
}

pub(super) fn on_several(urls: &[String]) -> Subject {
    let urls = urls.to_vec();
    Subject::new("the same scripts, bare", Role::Raw, move || {
        let urls = urls.clone();
        async move {
            // A server has no vote before a locker has set it up.
            let options = lock_redlock::Options::default().with_ttl(TTL);
            RedlockLocker::connect(urls.iter().map(String::as_str), options).await?.close().await;
            let scripts = [REDLOCK_ACQUIRE, REDLOCK_RELEASE].map(|text| with_queue(text, REDLOCK_QUEUE));
            Ok(Several(Bare::connect(&urls, &scripts).await?))
        }
    })
}

fn with_queue(script: &str, queue: &str) -> String {
    script.replace("-- include queue.lua\n", queue)
}

/// Connections, and the digests of what their servers have loaded.
struct Bare {
    connections: Vec<MultiplexedConnection>,
    acquire: String,
    release: String,
    owners: AtomicU64,
    ttl: String,
}

impl Bare {
    async fn connect(urls: &[String], [acquire, release]: &[String; 2]) -> Result<Self> {
        let connections = connect(urls).await?;
        for mut connection in connections.iter().cloned() {
            for script in [acquire, release] {
                Script::new(script).prepare_invoke().load_async(&mut connection).await?;
            }
        }
        let digest = |script: &str| Script::new(script).get_hash().to_owned();
        let owners = AtomicU64::new(rand::random());
        let ttl = TTL.as_millis().to_string();
        Ok(Self { connections, acquire: digest(acquire), release: digest(release), owners, ttl })
    }

    fn owner(&self) -> Result<String> {
        let mut owner = String::with_capacity(32);
        write!(owner, "{:032x}", self.owners.fetch_add(1, Ordering::Relaxed))?;
        Ok(owner)
    }

    async fn ask<T: FromRedisValue>(&self, request: &Cmd) -> Result<Vec<T>> {
        let asked = self
            .connections
            .iter()
            .map(async |connection| request.query_async(&mut connection.clone()).await);
        Ok(try_join_all(asked).await?)
    }
}

fn call(digest: &str, keys: &[&str], arguments: &[&str]) -> Cmd {
    let mut call = cmd("EVALSHA");
    call.arg(digest).arg(keys.len()).arg(keys).arg(arguments);
    call
}

/// On one Redis.
struct One(Bare);

impl Lock for One {
    type Held<'a> = (&'static str, String);

    async fn acquire(&self, key: &'static str) -> Result<Self::Held<'_>> {
        let owner = self.0.owner()?;
        let (fence, queue) = (fence(key), queue(key));
        let request = call(&self.0.acquire, &[key, &fence, &queue], &[&owner, &self.0.ttl, "", "!", "1"]);
        let granted: Vec<(u8, i64)> = self.0.ask(&request).await?;
        ensure!(granted[0].0 == 1, "it does not wait, and {key} was taken");
        Ok((key, owner))
    }

    async fn release(&self, (key, owner): Self::Held<'_>) -> Result<()> {
        self.0.ask::<i64>(&call(&self.0.release, &[key, &queue(key)], &[&owner])).await.map(drop)
    }
}

/// On all of several.
struct Several(Bare);

/// Where lockers of the default prefix have a server remember things.
const MEMORY: &str = "lock:{redlock}#memory";

impl Lock for Several {
    type Held<'a> = (&'static str, String);

    async fn acquire(&self, key: &'static str) -> Result<Self::Held<'_>> {
        let (owner, token) = (self.0.owner()?, SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros());
        let arguments = [&*owner, &self.0.ttl, "go", &fence(key), &token.to_string()];
        let keys = [key, MEMORY, &queue(key)];
        let votes: Vec<(String, i64, String)> = self.0.ask(&call(&self.0.acquire, &keys, &arguments)).await?;
        ensure!(
            votes.iter().all(|(word, ..)| word == "granted"),
            "it does not wait, and {key} was taken: {votes:?}"
        );
        Ok((key, owner))
    }

    async fn release(&self, (key, owner): Self::Held<'_>) -> Result<()> {
        self.0.ask::<i64>(&call(&self.0.release, &[key, &queue(key)], &[&owner])).await.map(drop)
    }
}

fn fence(key: &str) -> String {
    format!("{key}#fence")
}

fn queue(key: &str) -> String {
    format!("{key}#queue")
}
