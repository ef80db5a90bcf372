//! The suite that every backend passes, on five real Redis.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lock_conformance::{Data, Fixture};
use lock_core::{AnyLocker, Key};
use lock_redlock::{Options, RedlockLocker};
use test_cluster::{Persistence, Redis, eventually, resp::Value};

const SERVERS: usize = 5;

struct RedlockFixture {
    servers: Vec<Redis>,
    /// Knows the names; it is never used to lock.
    operator: RedlockLocker,
}

async fn connect(urls: &str, lease: &Options) -> lock_core::Result<RedlockLocker> {
    RedlockLocker::connect(urls.split(','), lease.clone()).await
}

fn urls(servers: &[Redis]) -> String {
    servers.iter().map(Redis::url).collect::<Vec<_>>().join(",")
}

fn number(value: Option<&Value>) -> Result<usize> {
    let number = value.and_then(Value::as_int).context("a number")?;
    Ok(usize::try_from(number)?)
}

impl RedlockFixture {
    fn locks(&self, name: &str) -> Result<usize> {
        let locks = |redis: &Redis| number(Some(&redis.command(&["EXISTS", name])?));
        self.servers.iter().map(locks).sum()
    }

    fn listeners(&self, name: &str) -> Result<usize> {
        let listeners = |redis: &Redis| {
            let Value::Array(heard) = redis.command(&["PUBSUB", "NUMSUB", name])? else {
                bail!("PUBSUB NUMSUB gives a list");
            };
            number(heard.get(1))
        };
        self.servers.iter().map(listeners).sum()
    }
}

impl Fixture for RedlockFixture {
    const NAME: &'static str = "redlock";

    async fn start() -> Result<Self> {
        // What was written survives a kill, and no property waits for the disk.
        let start = || Redis::builder().persistence(Persistence::Aof).config("appendfsync", "no").start();
        let servers = (0..SERVERS).map(|_| start()).collect::<Result<Vec<_>>>()?;
        let operator = connect(&urls(&servers), &Options::default()).await?;
        Ok(Self { servers, operator })
    }

    async fn locker(&self, options: &Options) -> lock_core::Result<AnyLocker> {
        connect(&urls(&self.servers), options).await.map(AnyLocker::from)
    }

    /// The record of a majority is one. Anything less is looked at once more: an acquire or a release is done when a
    /// majority has answered, and what goes to the others, or ends a subscription, may still be on its way.
    async fn traces(&self, key: &Key) -> Result<usize> {
        let name = self.operator.name_in_redis(key.as_str())?;
        let look = Instant::now();
        loop {
            let (locks, listeners) = (self.locks(&name)?, self.listeners(&name)?);
            if locks > SERVERS / 2 {
                return Ok(1 + listeners);
            }
            if locks + listeners == 0 || look.elapsed() > Duration::from_millis(200) {
                return Ok(locks + listeners);
            }
            // why: a bounded poll of a condition
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn address(&self) -> Option<String> {
        Some(urls(&self.servers))
    }

    async fn connect(address: &str, options: &Options) -> lock_core::Result<AnyLocker> {
        connect(address, options).await.map(AnyLocker::from)
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        let name = self.operator.name_in_redis(key.as_str())?;
        // What is still on its way to the last servers would come after the loss.
        eventually("all servers to have the key", Duration::from_secs(5), || {
            let locks = self.locks(&name)?;
            anyhow::ensure!(locks == SERVERS, "{locks} have it");
            Ok(())
        })?;
        for redis in &self.servers {
            redis.command(&["DEL", &name])?;
        }
        Ok(())
    }

    async fn connections(&self) -> Result<usize> {
        let mut clients = 0;
        for redis in &self.servers {
            // Not counted: the operator, and the one that asks.
            clients += redis.command(&["CLIENT", "LIST"])?.text().lines().count().saturating_sub(2);
        }
        Ok(clients)
    }

    async fn pause(&self) -> Result<()> {
        self.servers.iter().try_for_each(Redis::pause)
    }

    async fn resume(&self) -> Result<()> {
        self.servers.iter().try_for_each(Redis::resume)
    }

    async fn restart(&self, data: Data) -> Result<()> {
        self.servers.iter().try_for_each(Redis::kill)?;
        self.servers.iter().try_for_each(|redis| match data {
            Data::Kept => redis.restart(),
            Data::Erased => redis.restart_without_data(),
        })
    }
}

fn main() -> ExitCode {
    lock_conformance::run::<RedlockFixture>()
}
