//! The suite that every backend passes, on a real Redis: its own, or that at `LOCK_TEST_REDIS`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use lock_conformance::{Data, Fixture};
use lock_core::{AnyLocker, Key};
use lock_setnx::{Options, SetnxLocker};
use test_cluster::{
    Persistence, Redis,
    given::{self, Front},
    resp::Value,
};

struct SetnxFixture {
    /// None, if it was given.
    own: Option<Redis>,
    url: String,
    /// Through which the suite's clients reach it, so that they can be counted.
    front: Front,
    /// Knows the names; it is never used to lock.
    operator: SetnxLocker,
}

async fn connect(url: &str, prefix: &str, lease: &Options) -> lock_core::Result<SetnxLocker> {
    SetnxLocker::connect(url, lease.clone().with_prefix(prefix)).await
}

impl SetnxFixture {
    fn command(&self, words: &[&str]) -> Result<Value> {
        given::redis(&self.url, words)
    }

    fn own(&self) -> Result<&Redis> {
        self.own.as_ref().context("the server was given")
    }
}

impl Fixture for SetnxFixture {
    const NAME: &'static str = "setnx";

    async fn start() -> Result<Self> {
        let (own, url) = match given::urls("LOCK_TEST_REDIS") {
            Some(urls) => (None, urls[0].clone()),
            None => {
                let redis = Redis::builder().persistence(Persistence::AofAlways).start()?;
                let url = redis.url();
                (Some(redis), url)
            }
        };
        let front = Front::of([&url])?;
        let operator = connect(&url, front.prefix(), &Options::default()).await?;
        Ok(Self { own, url, front, operator })
    }

    async fn locker(&self, options: &Options) -> lock_core::Result<AnyLocker> {
        Self::connect(&self.front.address(), options).await
    }

    async fn traces(&self, key: &Key) -> Result<usize> {
        let name = self.operator.name_in_redis(key.as_str())?;
        let locks = self.command(&["EXISTS", &name])?.as_int().context("a count")?;
        let queue = name.replacen("}:", "}#queue:", 1);
        let waiters = self.command(&["ZCARD", &queue])?.as_int().context("a count")?;
        Ok(usize::try_from(locks + waiters)?)
    }

    fn address(&self) -> Option<String> {
        Some(self.front.address())
    }

    async fn connect(address: &str, options: &Options) -> lock_core::Result<AnyLocker> {
        let (prefix, url) = Front::parts(address);
        connect(url, prefix, options).await.map(AnyLocker::from)
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        self.command(&["DEL", &self.operator.name_in_redis(key.as_str())?])?;
        Ok(())
    }

    async fn connections(&self) -> Result<usize> {
        Ok(self.front.open_connections())
    }

    fn may_stop(&self) -> bool {
        self.own.is_some()
    }

    async fn pause(&self) -> Result<()> {
        self.own()?.pause()
    }

    async fn resume(&self) -> Result<()> {
        self.own()?.resume()
    }

    async fn restart(&self, data: Data) -> Result<()> {
        let redis = self.own()?;
        redis.kill()?;
        match data {
            Data::Kept => redis.restart(),
            Data::Erased => redis.restart_without_data(),
        }
    }
}

fn main() -> ExitCode {
    lock_conformance::run::<SetnxFixture>()
}
