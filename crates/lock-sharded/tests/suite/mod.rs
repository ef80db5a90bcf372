//! The suite that every backend must pass, over several clusters while slots move all the time.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use lock_conformance::{Data, Fixture};
use lock_sharded::{AnyLocker, Key, Mover, Options, ShardMap, ShardedLocker, Slot};
use test_cluster::given::{self, Front};
use tokio::{runtime, task::block_in_place, time};

/// One cluster, started for the suite; or some that were given.
pub(crate) trait Kind: Send + Sync + Sized + 'static {
    const NAMES: [&'static str; 2];

    /// What addresses of this kind begin with in a map.
    const SCHEME: &'static str;

    /// The variables that name clusters which were given.
    const GIVEN: &'static [&'static str];

    fn start() -> Result<Self>;
    fn addresses(&self) -> Vec<String>;
    fn pause(&self) -> Result<()>;
    fn resume(&self) -> Result<()>;
    fn restart(&self) -> Result<()>;
    fn restart_without_data(&self) -> Result<()>;

    /// Returns the entries for `key` in their order, as all servers agree.
    async fn places(servers: &[String], prefix: &str, key: &Key) -> Result<Vec<String>>;

    /// Deletes some of them.
    async fn delete(servers: &[String], places: &[String]) -> Result<()>;
}

/// Clusters, and a mover that never rests. It is dropped first, while it still has servers to ask.
struct Sharded<K, const CLUSTERS: usize> {
    moves: Moves,
    fronts: Vec<Front>,
    urls: Vec<Vec<String>>,
    /// Empty, if they were given.
    own: Vec<K>,
}

/// Moves slots from cluster to cluster until it is dropped.
struct Moves {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Moves {
    fn start(map: ShardMap, prefix: &str) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        // Servers that have just started, beside others that do, take their time.
        let (ttl, patience) = (Duration::from_secs(6), Duration::from_millis(1800));
        let options = Options::default().with_prefix(prefix).with_ttl(ttl).with_request_timeout(patience);
        let (stopped, runtime) = (Arc::clone(&stop), new_runtime()?);
        let mover = runtime.block_on(async {
            let mover = Mover::connect(map, options).await?;
            mover.init().await?;
            anyhow::Ok(mover)
        })?;
        let work = move || runtime.block_on(move_for_ever(&mover, &stopped));
        Ok(Self { stop, thread: Some(thread::spawn(work)) })
    }
}

async fn move_for_ever(mover: &Mover, stop: &AtomicBool) {
    let names: Vec<_> =
        mover.map().await.iter().flat_map(|map| map.clusters().cloned().collect::<Vec<_>>()).collect();
    for round in 1_usize.. {
        for slot in Slot::all() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let to = &names[(slot.index() + round) % names.len()];
            // While a property stops the servers, nothing moves, and a drain lasts. What was begun is gone on with in
            // the next round.
            let limit = Duration::from_secs(10);
            if !matches!(time::timeout(limit, mover.move_slot(slot, to, &())).await, Ok(Ok(_))) {
                let _ = time::timeout(limit, mover.resume(slot, &())).await;
                time::sleep(Duration::from_millis(20)).await; // why: servers that were stopped need a moment
            }
        }
    }
}

impl Drop for Moves {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn new_runtime() -> Result<runtime::Runtime> {
    Ok(runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

fn map_of<K: Kind>(addresses: impl IntoIterator<Item = impl AsRef<str>>) -> lock_sharded::Result<ShardMap> {
    let named = |(index, address): (usize, _)| {
        (format!("c{index}"), format!("{}{}", K::SCHEME, AsRef::<str>::as_ref(&address)))
    };
    ShardMap::even(addresses.into_iter().enumerate().map(named))
}

impl<K: Kind, const CLUSTERS: usize> Sharded<K, CLUSTERS> {
    /// Does what an operator does by hand on each cluster, in a runtime of its own: the suite counts the tasks in that
    /// of a property.
    fn by_hand<T>(&self, work: impl AsyncFn(&[String]) -> Result<T>) -> Result<Vec<T>> {
        block_in_place(|| {
            new_runtime()?.block_on(async {
                let mut done = Vec::new();
                for urls in &self.urls {
                    done.push(work(urls).await?);
                }
                Ok(done)
            })
        })
    }

    fn prefix(&self) -> &str {
        self.fronts[0].prefix()
    }

    /// The entries for `key` on all clusters, those of each in their order.
    fn places(&self, key: &Key) -> Result<Vec<Vec<String>>> {
        self.by_hand(async |servers| K::places(servers, self.prefix(), key).await)
    }
}

impl<K: Kind, const CLUSTERS: usize> Fixture for Sharded<K, CLUSTERS> {
    const NAME: &'static str = K::NAMES[CLUSTERS - 2];

    async fn start() -> Result<Self> {
        let given = K::GIVEN.iter().filter_map(|variable| given::urls(variable));
        let mut urls: Vec<Vec<_>> = given.take(CLUSTERS).collect();
        let mut own = Vec::new();
        while urls.len() < CLUSTERS {
            let cluster = block_in_place(K::start)?;
            urls.push(cluster.addresses());
            own.push(cluster);
        }
        let fronts = urls.iter().map(Front::of).collect::<Result<Vec<_>>>()?;
        let map = map_of::<K>(urls.iter().map(|urls| urls.join(",")))?;
        let moves = block_in_place(|| Moves::start(map, fronts[0].prefix()))?;
        Ok(Self { moves, fronts, urls, own })
    }

    async fn locker(&self, options: &Options) -> lock_core::Result<AnyLocker> {
        Self::connect(&self.address().unwrap_or_default(), options).await
    }

    async fn traces(&self, key: &Key) -> Result<usize> {
        Ok(self.places(key)?.iter().map(Vec::len).sum())
    }

    fn address(&self) -> Option<String> {
        let urls: Vec<_> = self.fronts.iter().map(Front::urls).collect();
        Some(format!("{} {}", self.prefix(), urls.join(" ")))
    }

    /// Each client has the first map, which is old at once.
    async fn connect(address: &str, options: &Options) -> lock_core::Result<AnyLocker> {
        let (prefix, urls) = address.split_once(' ').unwrap_or_default();
        let options = options.clone().with_prefix(prefix);
        Ok(ShardedLocker::connect(map_of::<K>(urls.split(' '))?, options).await?.into())
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        let places = self.places(key)?;
        places.iter().flatten().next().context("nobody holds the key")?;
        let all: Vec<_> = places.into_iter().flatten().collect();
        self.by_hand(async |servers| K::delete(servers, &all).await)?;
        Ok(())
    }

    async fn connections(&self) -> Result<usize> {
        Ok(self.fronts.iter().map(Front::open_connections).sum())
    }

    fn may_stop(&self) -> bool {
        self.own.len() == CLUSTERS && self.moves.thread.is_some()
    }

    fn grants_without_data(&self) -> bool {
        false
    }

    async fn pause(&self) -> Result<()> {
        block_in_place(|| self.own.iter().try_for_each(K::pause))
    }

    async fn resume(&self) -> Result<()> {
        block_in_place(|| self.own.iter().try_for_each(K::resume))
    }

    async fn restart(&self, data: Data) -> Result<()> {
        block_in_place(|| match data {
            Data::Kept => self.own.iter().try_for_each(K::restart),
            Data::Erased => self.own.iter().try_for_each(K::restart_without_data),
        })
    }
}

/// The whole of `main`, for one kind of clusters: over two of them, or over three where `LOCK_TEST_THREE_CLUSTERS` is
/// set, since so many servers are much for a small machine.
pub(crate) fn run<K: Kind>() -> ExitCode {
    if std::env::var_os("LOCK_TEST_THREE_CLUSTERS").is_some() {
        return lock_conformance::run::<Sharded<K, 3>>();
    }
    lock_conformance::run::<Sharded<K, 2>>()
}
