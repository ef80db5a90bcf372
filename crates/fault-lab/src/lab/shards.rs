//! A lock space over two clusters, and what its operator does.

use std::{cell::Cell, path::PathBuf};

use anyhow::{Result, bail, ensure};
use lock_sharded::{Key, MapSource, Mover, Options, ShardMap, Slot};
use tokio::runtime::Builder;

use super::{Agent, Boot, Kind, LOCK, Lab, Load, PACE, Servers, Special};
use crate::{backend::Backend, event::Invariant};

/// Two clusters. All slots are on the first at the beginning, and the map is a file.
pub(crate) struct Shards {
    pub(crate) clusters: [Servers; 2],
    files: tempfile::TempDir,
    options: Options,
    /// That of [`LOCK`].
    pub(crate) slot: Slot,
    has_lost_data: Cell<bool>,
}

impl Shards {
    pub(crate) const NAMES: [&str; 2] = ["a", "b"];

    /// A lock in the slot of [`LOCK`].
    pub(crate) const KEPT: &str = "{orders/42}/kept";

    pub(crate) fn start(lab: &Lab<'_>, kinds: [Backend; 2]) -> Result<Self> {
        let [a, b] = kinds.map(|kind| Servers::start(kind, Boot::Durable));
        let clusters = [a?, b?];
        let map = ShardMap::even([(Self::NAMES[0], address(&clusters[0])?)])?;
        let map = map.with_cluster(Self::NAMES[1], address(&clusters[1])?)?;
        let options = Options::default().with_prefix(&lab.prefix).with_ttl(lab.ttl);
        let slot = Slot::of(&Key::new(LOCK)?);
        ensure!(slot == Slot::of(&Key::new(Self::KEPT)?), "both locks of the cells are in one slot");
        let files = tempfile::Builder::new().prefix("fault-lab-").tempdir()?;
        let shards = Self { clusters, files, options, slot, has_lost_data: Cell::default() };
        std::fs::write(shards.map(), serde_json::to_string(&map)?)?;
        shards.operate(async |mover| mover.init().await)?;
        Ok(shards)
    }

    /// Where the map is.
    pub(crate) fn map(&self) -> PathBuf {
        self.files.path().join("map")
    }

    /// A client that reads the map.
    pub(crate) fn client(&self) -> Special {
        Self::client_with(self.map())
    }

    /// A client with a copy of the map of now, which nobody keeps up to date.
    pub(crate) fn client_with_copied_map(&self) -> Result<Special> {
        let copy = self.files.path().join("copy");
        std::fs::copy(self.map(), &copy)?;
        Ok(Self::client_with(copy))
    }

    fn client_with(map: PathBuf) -> Special {
        Special { urls: Some(map.display().to_string()), ..Special::default() }
    }

    /// Lets clients contend for [`LOCK`] that have been connected to both clusters.
    pub(crate) fn load(&self, lab: &Lab<'_>, client: impl Fn() -> Result<Special>) -> Result<Load> {
        let agents = (0..3).map(|_| lab.special_agent(client()?)).collect::<Result<Vec<Agent>>>()?;
        self.move_to(lab, 1)?;
        for agent in &agents {
            agent.hold(LOCK)?;
            agent.release(LOCK)?.ok();
        }
        self.move_to(lab, 0)?;
        lab.start_load(agents, PACE)
    }

    /// Does what an operator does.
    pub(crate) fn operate<T>(&self, work: impl AsyncFnOnce(&Mover) -> lock_core::Result<T>) -> Result<T> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(async {
            let mover = Mover::connect(MapSource::file(self.map()), self.options.clone()).await?;
            Ok(work(&mover).await?)
        })
    }

    /// Moves the slot to a cluster, after whatever move of it was begun.
    pub(crate) fn resume(&self, cluster: usize) -> Result<()> {
        self.operate(async |mover| {
            let to = mover.map().await?.named(Self::NAMES[cluster])?;
            mover.resume(self.slot, &()).await?;
            mover.move_slot(self.slot, &to, &()).await.map(drop)
        })
    }

    /// The same, which must succeed at once.
    pub(crate) fn move_to(&self, lab: &Lab<'_>, cluster: usize) -> Result<()> {
        let (moved, name) = (self.resume(cluster), Self::NAMES[cluster]);
        lab.expect(
            Invariant::Progress,
            moved.is_ok(),
            format!("a mover moves the slot to {name}: {moved:?}"),
        );
        moved
    }

    /// Opens the slot on a cluster, whatever became of the other or of its data, when all leases have ended.
    pub(crate) fn force(&self, lab: &Lab<'_>, cluster: usize) -> Result<()> {
        let name = Self::NAMES[cluster];
        let forced = self.operate(async |mover| {
            let to = mover.map().await?.named(name)?;
            mover.force(self.slot, &to, lab.ttl, &()).await.map(drop)
        });
        let told = format!("an operator opens the slot on {name}: {forced:?}");
        lab.expect(Invariant::Progress, forced.is_ok(), told);
        forced
    }

    /// Restarts a cluster with nothing.
    pub(crate) fn empty(&self, cluster: usize) -> Result<()> {
        self.has_lost_data.set(true);
        self.clusters[cluster].empty()
    }

    /// Ends the cell, and looks for what moves left behind.
    pub(crate) fn finish(&self, lab: &Lab<'_>, load: &Load) -> Result<()> {
        lab.finish_with(Some(load), || self.client())?;
        self.expect_rest(lab)?;
        for (servers, name) in self.clusters.iter().zip(Self::NAMES) {
            lab.expect_clean(&format!("nothing is left on cluster {name}"), || {
                let mut left = servers.leftovers(&lab.prefix)?;
                left.extend(servers.leftovers(&format!("{}.movers", lab.prefix))?);
                ensure!(left.is_empty(), "there is {}", left.join(", "));
                let sessions = servers.sessions()?;
                ensure!(sessions == 0, "there are {sessions} sessions");
                Ok(())
            });
        }
        Ok(())
    }

    /// Expects that each slot is open once, and in no move.
    fn expect_rest(&self, lab: &Lab<'_>) -> Result<()> {
        let (status, unfinished, problems) = self.operate(async |mover| {
            Ok((mover.status().await?, mover.unfinished().await?, mover.verify().await?))
        })?;
        // A cluster that lost its data lost the slots too that no cell uses.
        let counts = |slot: Slot| slot == self.slot || !self.has_lost_data.get();
        for of in status.iter().filter(|of| counts(of.slot)) {
            let open = of.open().count();
            let broken = if open > 1 { Invariant::Belief } else { Invariant::Progress };
            lab.expect(broken, open == 1, format!("slot {} is open once: {:?}", of.slot, of.markers));
        }
        let unfinished: Vec<_> = unfinished.iter().filter(|of| counts(of.slot)).collect();
        lab.expect(Invariant::Leaks, unfinished.is_empty(), format!("no move is left: {unfinished:?}"));
        let problems: Vec<_> = problems.iter().filter(|of| counts(of.slot)).collect();
        lab.expect(Invariant::Leaks, problems.is_empty(), format!("all markers fit: {problems:?}"));
        Ok(())
    }
}

/// What a map says of a cluster.
fn address(servers: &Servers) -> Result<String> {
    let listed = |scheme: &str| {
        let addresses = servers.addresses();
        let all = addresses.iter().map(|address| format!("{scheme}{address}"));
        all.collect::<Vec<_>>().join(",")
    };
    Ok(match &servers.kind {
        Kind::Redis(servers) if servers.len() == 1 => listed("redis://"),
        Kind::Redis(_) => format!("redlock:{}", listed("redis://")),
        Kind::Etcd(_) => format!("etcd:{}", listed("http://")),
        Kind::Zk(_) => format!("zk://{}", listed("")),
        Kind::None => bail!("no servers were started"),
    })
}
