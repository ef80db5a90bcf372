//! A set of servers, each behind a proxy of its own.

use std::{ops::Range, time::Duration};

use anyhow::{Result, ensure};
use lock_redlock::{Options, RedlockLocker};
use test_cluster::{Direction, Persistence, Proxy, Redis, eventually, proxy::Behaviour};

pub(crate) const KEY: &str = "orders/42";
pub(crate) const NAME: &str = "lock:{redlock:df}:orders/42";
pub(crate) const MEMORY: &str = "lock:{redlock}#memory";

/// The bound of what takes a few round trips.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) struct Set {
    pub(crate) servers: Vec<Redis>,
    pub(crate) proxies: Vec<Proxy>,
}

impl Set {
    pub(crate) fn start(servers: usize) -> Result<Self> {
        Self::with(servers, Persistence::Aof)
    }

    pub(crate) fn with(servers: usize, persistence: Persistence) -> Result<Self> {
        Self::of(&vec![persistence; servers])
    }

    pub(crate) fn of(servers: &[Persistence]) -> Result<Self> {
        // What was written survives a kill, and no test waits for the disk.
        let start =
            |kept: &Persistence| Redis::builder().persistence(*kept).config("appendfsync", "no").start();
        let servers = servers.iter().map(start).collect::<Result<Vec<_>>>()?;
        let proxies = servers.iter().map(|redis| Proxy::start(redis.address())).collect::<Result<_>>()?;
        Ok(Self { servers, proxies })
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.proxies.iter().map(|proxy| format!("redis://{}", proxy.address())).collect()
    }

    pub(crate) async fn locker(&self, options: Options) -> lock_redlock::Result<RedlockLocker> {
        RedlockLocker::connect(self.urls(), options).await
    }

    /// How many servers have [`KEY`].
    pub(crate) fn votes(&self) -> Result<usize> {
        let mut votes = 0;
        for redis in &self.servers {
            votes += usize::from(redis.command(&["EXISTS", NAME])?.as_int() == Some(1));
        }
        Ok(votes)
    }

    pub(crate) fn eventually_votes(&self, expected: usize) -> Result<()> {
        eventually(&format!("{expected} servers to have the key"), SOON, || {
            let votes = self.votes()?;
            ensure!(votes == expected, "{votes} have it");
            Ok(())
        })
    }

    pub(crate) fn delay(&self, servers: Range<usize>, direction: Direction, behaviour: Behaviour) {
        for proxy in &self.proxies[servers] {
            proxy.set(direction, behaviour);
        }
    }
}

/// Whether a server has its vote.
pub(crate) fn remembers(redis: &Redis) -> Result<bool> {
    let has = |field| Ok::<_, anyhow::Error>(redis.command(&["HEXISTS", MEMORY, field])?.as_int() == Some(1));
    Ok(has("floor")? && !has("forgot")?)
}

/// A lease so long that it never ends in a test, with requests that time out soon.
pub(crate) fn patient() -> Options {
    Options::default().with_ttl(Duration::from_secs(60)).with_request_timeout(Duration::from_millis(800))
}

/// A lease that ends in a test.
pub(crate) fn brief() -> Options {
    let ttl = Duration::from_secs(2);
    let lease = Options::default().with_ttl(ttl).with_renew_every(ttl / 4).with_request_timeout(ttl / 3);
    lease.with_min_validity(ttl / 5)
}
