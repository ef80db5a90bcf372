//! The suite that every backend passes, on a real Redis.

use std::process::ExitCode;

use anyhow::{Context, Result};
use lock_conformance::{Data, Fixture};
use lock_core::{AnyLocker, Key};
use lock_setnx::{Options, SetnxLocker};
use test_cluster::{Persistence, Redis, resp::Value};

struct SetnxFixture {
    redis: Redis,
    /// Knows the names; it is never used to lock.
    operator: SetnxLocker,
}

async fn connect(url: &str, lease: &Options) -> lock_core::Result<SetnxLocker> {
    SetnxLocker::connect(url, lease.clone()).await
}

impl Fixture for SetnxFixture {
    const NAME: &'static str = "setnx";

    async fn start() -> Result<Self> {
        let redis = Redis::builder().persistence(Persistence::AofAlways).start()?;
        let operator = connect(&redis.url(), &Options::default()).await?;
        Ok(Self { redis, operator })
    }

    async fn locker(&self, options: &Options) -> lock_core::Result<AnyLocker> {
        connect(&self.redis.url(), options).await.map(AnyLocker::from)
    }

    async fn traces(&self, key: &Key) -> Result<usize> {
        let name = self.operator.name_in_redis(key.as_str())?;
        let locks = self.redis.command(&["EXISTS", &name])?.as_int().context("a count")?;
        let Value::Array(heard) = self.redis.command(&["PUBSUB", "NUMSUB", &name])? else {
            anyhow::bail!("PUBSUB NUMSUB gives a list");
        };
        let listeners = heard.get(1).and_then(Value::as_int).context("a count")?;
        Ok(usize::try_from(locks + listeners)?)
    }

    fn address(&self) -> Option<String> {
        Some(self.redis.url())
    }

    async fn connect(address: &str, options: &Options) -> lock_core::Result<AnyLocker> {
        connect(address, options).await.map(AnyLocker::from)
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        self.redis.command(&["DEL", &self.operator.name_in_redis(key.as_str())?])?;
        Ok(())
    }

    async fn connections(&self) -> Result<usize> {
        let clients = self.redis.command(&["CLIENT", "LIST"])?.text();
        // Not counted: the operator, and the one that asks.
        Ok(clients.lines().count().saturating_sub(2))
    }

    async fn pause(&self) -> Result<()> {
        self.redis.pause()
    }

    async fn resume(&self) -> Result<()> {
        self.redis.resume()
    }

    async fn restart(&self, data: Data) -> Result<()> {
        self.redis.kill()?;
        match data {
            Data::Kept => self.redis.restart(),
            Data::Erased => self.redis.restart_without_data(),
        }
    }
}

fn main() -> ExitCode {
    lock_conformance::run::<SetnxFixture>()
}
