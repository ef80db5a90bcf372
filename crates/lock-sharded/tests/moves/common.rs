//! What the tests share.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use lock_sharded::{ClusterName, Key, MapSource, Mover, Options, ShardMap, ShardedLocker, Slot};
use tokio::task::block_in_place;

/// Far above what anything takes; reached only when something hangs.
pub(crate) const BOUND: Duration = Duration::from_secs(120);

/// Of which a holder on ZooKeeper believes two thirds.
pub(crate) const TTL: Duration = Duration::from_secs(6);

/// Some servers that keep locks, started for a test.
pub(crate) trait Servers: Send + Sync + Sized + 'static {
    /// Starts a cluster.
    fn start() -> Result<Self>;

    /// Its address in a map.
    fn address(&self) -> String;

    /// Ends it for good.
    fn stop(&self) -> Result<()>;

    /// Lets it come back with nothing.
    fn wipe(&self) -> Result<()>;

    /// Lets it answer nothing any more, and go on.
    fn pause(&self) -> Result<()>;
    fn resume(&self) -> Result<()>;
}

/// A lock space whose slots are all on cluster `a`, and a cluster `b` without any.
pub(crate) struct Space<A, B> {
    pub(crate) a: A,
    pub(crate) b: B,
    pub(crate) source: MapSource,
}

pub(crate) fn options() -> Options {
    // As long as it can be, for machines that do much else.
    Options::default().with_ttl(TTL).with_request_timeout(TTL * 3 / 10)
}

impl<A: Servers, B: Servers> Space<A, B> {
    pub(crate) async fn start() -> Result<Self> {
        let (a, b) = block_in_place(|| anyhow::Ok((A::start()?, B::start()?)))?;
        let map = ShardMap::even([("a", a.address())])?.with_cluster("b", b.address())?;
        let space = Self { a, b, source: map.into() };
        space.mover().await?.init().await?;
        Ok(space)
    }

    pub(crate) async fn mover(&self) -> Result<Mover> {
        Ok(Mover::connect(self.source.clone(), options()).await?)
    }

    pub(crate) async fn locker(&self) -> Result<ShardedLocker> {
        Ok(ShardedLocker::connect(self.source.clone(), options()).await?)
    }

    /// A locker with a map of its own, which nobody keeps up to date.
    pub(crate) async fn locker_with_old_map(&self) -> Result<ShardedLocker> {
        let map = self.source.load().await?;
        Ok(ShardedLocker::connect(map, options()).await?)
    }

    pub(crate) async fn name(&self, cluster: &str) -> Result<ClusterName> {
        Ok(self.source.load().await?.named(cluster)?)
    }
}

pub(crate) fn slot(key: &str) -> Result<Slot> {
    Ok(Slot::of(&Key::new(key)?))
}

/// Runs a test that must end.
pub(crate) async fn bounded<T>(what: &str, test: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(BOUND, test).await.with_context(|| format!("{what}: no end within {BOUND:?}"))?
}

/// Tells nobody, for movers of which only the end counts.
pub(crate) fn quiet() -> Arc<()> {
    Arc::new(())
}
