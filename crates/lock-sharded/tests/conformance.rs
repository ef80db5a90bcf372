//! The suite that every backend must pass, over two clusters of etcd and over three, while slots move all the time:
//! clusters of its own, or those at `LOCK_TEST_ETCD` and `LOCK_TEST_SECOND_ETCD`.

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
use lock_etcd::etcd_client::{Client, GetOptions, SortOrder, SortTarget};
use lock_sharded::{AnyLocker, Key, Mover, Options, ShardMap, ShardedLocker, Slot};
use test_cluster::{
    Etcd,
    given::{self, Front},
};
use tokio::{runtime, task::block_in_place, time};

/// Clusters, and a mover that never rests.
struct Sharded<const CLUSTERS: usize> {
    /// Empty, if they were given.
    own: Vec<Etcd>,
    urls: Vec<Vec<String>>,
    fronts: Vec<Front>,
    moves: Moves,
}

/// Moves slots from cluster to cluster until it is dropped.
struct Moves {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Moves {
    fn start(map: ShardMap, prefix: &str) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let options = Options::default().with_prefix(prefix).with_ttl(Duration::from_secs(3));
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
            // While a property stops the servers, nothing moves. What was begun is gone on with in the next round.
            let moved = time::timeout(Duration::from_secs(10), mover.move_slot(slot, to, &()));
            if !matches!(moved.await, Ok(Ok(_))) {
                let _ = mover.resume(slot, &()).await;
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

fn map_of(urls: impl IntoIterator<Item = impl AsRef<str>>) -> lock_sharded::Result<ShardMap> {
    let named =
        |(index, urls): (usize, _)| (format!("c{index}"), format!("etcd:{}", AsRef::<str>::as_ref(&urls)));
    ShardMap::even(urls.into_iter().enumerate().map(named))
}

impl<const CLUSTERS: usize> Sharded<CLUSTERS> {
    /// Does what an operator does by hand on each cluster, in a runtime of its own: the suite counts the tasks in that
    /// of a property.
    fn by_hand<T>(&self, work: impl AsyncFn(Client) -> Result<T>) -> Result<Vec<T>> {
        block_in_place(|| {
            new_runtime()?.block_on(async {
                let mut done = Vec::new();
                for urls in &self.urls {
                    done.push(work(Client::connect(&urls[..1], None).await?).await?);
                }
                Ok(done)
            })
        })
    }

    fn prefix(&self) -> &str {
        self.fronts[0].prefix()
    }

    fn queue(&self, key: &Key) -> String {
        let encoded = key.percent_encoded(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'));
        format!("{}/{:02x}/{encoded}:", self.prefix(), Slot::of(key).index())
    }

    /// The entries for `key` on all clusters, those of each in their order.
    fn places(&self, key: &Key) -> Result<Vec<Vec<Vec<u8>>>> {
        self.by_hand(async |mut operator| {
            let queue = GetOptions::new().with_prefix().with_keys_only();
            let queue = queue.with_sort(SortTarget::Create, SortOrder::Ascend);
            let found = operator.get(self.queue(key), Some(queue)).await?;
            Ok(found.kvs().iter().map(|pair| pair.key().to_vec()).collect())
        })
    }
}

impl<const CLUSTERS: usize> Fixture for Sharded<CLUSTERS> {
    const NAME: &'static str = if CLUSTERS == 2 { "sharded over 2" } else { "sharded over 3" };

    async fn start() -> Result<Self> {
        let given = ["LOCK_TEST_ETCD", "LOCK_TEST_SECOND_ETCD"].map(given::urls).into_iter().flatten();
        let mut urls: Vec<Vec<_>> = given.take(CLUSTERS).collect();
        let mut own = Vec::new();
        while urls.len() < CLUSTERS {
            let etcd = Etcd::start()?;
            urls.push(vec![etcd.url()]);
            own.push(etcd);
        }
        let fronts = urls.iter().map(Front::of).collect::<Result<Vec<_>>>()?;
        let map = map_of(urls.iter().map(|urls| urls.join(",")))?;
        let moves = block_in_place(|| Moves::start(map, fronts[0].prefix()))?;
        Ok(Self { own, urls, fronts, moves })
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
        Ok(ShardedLocker::connect(map_of(urls.split(' '))?, options).await?.into())
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        let places = self.places(key)?;
        places.iter().flatten().next().context("nobody holds the key")?;
        self.by_hand(async |mut operator| {
            for place in places.iter().flatten() {
                operator.delete(place.clone(), None).await?;
            }
            Ok(())
        })?;
        Ok(())
    }

    async fn connections(&self) -> Result<usize> {
        Ok(self.fronts.iter().map(Front::open_connections).sum())
    }

    fn may_stop(&self) -> bool {
        self.own.len() == CLUSTERS && self.moves.thread.is_some()
    }

    async fn pause(&self) -> Result<()> {
        self.own.iter().try_for_each(Etcd::pause)
    }

    async fn resume(&self) -> Result<()> {
        self.own.iter().try_for_each(Etcd::resume)
    }

    async fn restart(&self, data: Data) -> Result<()> {
        match data {
            Data::Kept => self.own.iter().try_for_each(Etcd::restart),
            Data::Erased => self.own.iter().try_for_each(Etcd::restart_without_data),
        }
    }
}

/// Over three clusters it runs where `LOCK_TEST_THREE_CLUSTERS` is set: six servers are much for a small machine.
fn main() -> ExitCode {
    let two = lock_conformance::run::<Sharded<2>>();
    if std::env::var_os("LOCK_TEST_THREE_CLUSTERS").is_none() || two != ExitCode::SUCCESS {
        return two;
    }
    lock_conformance::run::<Sharded<3>>()
}
