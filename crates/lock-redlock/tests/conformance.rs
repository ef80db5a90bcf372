//! The suite that every backend passes, on five real Redis: its own, or those at `LOCK_TEST_REDLOCK`.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lock_conformance::{Data, Fixture};
use lock_core::{AnyLocker, Key};
use lock_redlock::{Options, RedlockLocker};
use test_cluster::{
    Persistence, Redis, eventually,
    given::{self, Front},
    resp::Value,
};

const SERVERS: usize = 5;

struct RedlockFixture {
    /// Empty, if they were given.
    own: Vec<Redis>,
    urls: Vec<String>,
    /// Through which the suite's clients reach them, so that they can be counted.
    front: Front,
    /// Knows the names; it is never used to lock.
    operator: RedlockLocker,
}

async fn connect(urls: &str, prefix: &str, lease: &Options) -> lock_core::Result<RedlockLocker> {
    let options = lease.clone().with_prefix(prefix);
    RedlockLocker::connect(urls.split(','), options).await
}

fn number(value: Option<&Value>) -> Result<usize> {
    let number = value.and_then(Value::as_int).context("a number")?;
    Ok(usize::try_from(number)?)
}

impl RedlockFixture {
    fn locks(&self, name: &str) -> Result<usize> {
        let locks = |url: &String| number(Some(&given::redis(url, &["EXISTS", name])?));
        self.urls.iter().map(locks).sum()
    }

    /// How many places in queues there are, and reservations.
    fn places(&self, name: &str) -> Result<usize> {
        let queue = name.replacen("}:", "}#queue:", 1);
        self.urls.iter().map(|url| number(Some(&given::redis(url, &["ZCARD", &queue])?))).sum()
    }
}

impl Fixture for RedlockFixture {
    const NAME: &'static str = "redlock";

    async fn start() -> Result<Self> {
        let (own, urls) = match given::urls("LOCK_TEST_REDLOCK") {
            Some(urls) => (Vec::new(), urls),
            None => {
                // What was written survives a kill, and no property waits for the disk.
                let redis = || Redis::builder().persistence(Persistence::Aof).config("appendfsync", "no");
                let own = (0..SERVERS).map(|_| redis().start()).collect::<Result<Vec<_>>>()?;
                let urls = own.iter().map(Redis::url).collect();
                (own, urls)
            }
        };
        ensure!(urls.len() == SERVERS, "LOCK_TEST_REDLOCK must name {SERVERS} servers, not {}", urls.len());
        let front = Front::of(&urls)?;
        let operator = connect(&urls.join(","), front.prefix(), &Options::default()).await?;
        Ok(Self { own, urls, front, operator })
    }

    async fn locker(&self, options: &Options) -> lock_core::Result<AnyLocker> {
        Self::connect(&self.front.address(), options).await
    }

    /// The record of a majority is one. Anything less is looked at once more: an acquire or a release is done when a
    /// majority has answered, and what goes to the others may still be on its way.
    async fn traces(&self, key: &Key) -> Result<usize> {
        let name = self.operator.name_in_redis(key.as_str())?;
        let look = Instant::now();
        loop {
            let (locks, places) = (self.locks(&name)?, self.places(&name)?);
            if locks > SERVERS / 2 {
                return Ok(1 + places);
            }
            if locks + places == 0 || look.elapsed() > Duration::from_millis(200) {
                return Ok(locks + places);
            }
            // why: a bounded poll of a condition
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn address(&self) -> Option<String> {
        Some(self.front.address())
    }

    async fn connect(address: &str, options: &Options) -> lock_core::Result<AnyLocker> {
        let (prefix, urls) = Front::parts(address);
        connect(urls, prefix, options).await.map(AnyLocker::from)
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        let name = self.operator.name_in_redis(key.as_str())?;
        // What is still on its way to the last servers would come after the loss.
        eventually("all servers to have the key", Duration::from_secs(5), || {
            let locks = self.locks(&name)?;
            ensure!(locks == SERVERS, "{locks} have it");
            Ok(())
        })?;
        for url in &self.urls {
            given::redis(url, &["DEL", &name])?;
        }
        Ok(())
    }

    async fn connections(&self) -> Result<usize> {
        Ok(self.front.open_connections())
    }

    fn may_stop(&self) -> bool {
        !self.own.is_empty()
    }

    async fn pause(&self) -> Result<()> {
        self.own.iter().try_for_each(Redis::pause)
    }

    async fn resume(&self) -> Result<()> {
        self.own.iter().try_for_each(Redis::resume)
    }

    async fn restart(&self, data: Data) -> Result<()> {
        self.own.iter().try_for_each(Redis::kill)?;
        self.own.iter().try_for_each(|redis| match data {
            Data::Kept => redis.restart(),
            Data::Erased => redis.restart_without_data(),
        })
    }
}

fn main() -> ExitCode {
    lock_conformance::run::<RedlockFixture>()
}
