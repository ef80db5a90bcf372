//! The suite that every backend must pass, on a cluster of three: its own, or that at `LOCK_TEST_ETCD`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use lock_conformance::{Data, Fixture};
use lock_core::{AnyLocker, Key, Options};
use lock_etcd::{
    EtcdLocker,
    etcd_client::{Client, GetOptions, SortOrder, SortTarget},
};
use test_cluster::{
    Etcd, EtcdCluster,
    given::{self, Front},
};
use tokio::{runtime, task::block_in_place};

struct EtcdFixture {
    /// None, if it was given.
    own: Option<EtcdCluster>,
    urls: Vec<String>,
    /// Through which the suite's clients reach the members, so that they can be counted.
    front: Front,
}

impl EtcdFixture {
    /// Does what an operator does by hand, in a runtime of its own: the suite counts the tasks in that of a property.
    fn by_hand<T>(&self, work: impl AsyncFnOnce(Client) -> Result<T>) -> Result<T> {
        block_in_place(|| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { work(Client::connect(&self.urls[..1], None).await?).await })
        })
    }

    /// The places in the queue of `key`, the holder's first.
    fn places(&self, key: &Key) -> Result<Vec<Vec<u8>>> {
        let encoded = key.percent_encoded(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'));
        let queue = GetOptions::new().with_prefix().with_keys_only();
        let queue = queue.with_sort(SortTarget::Create, SortOrder::Ascend);
        let prefix = format!("{}/{encoded}:", self.front.prefix());
        self.by_hand(async |mut operator| {
            let found = operator.get(prefix, Some(queue)).await?;
            Ok(found.kvs().iter().map(|pair| pair.key().to_vec()).collect())
        })
    }

    fn own(&self) -> Result<&EtcdCluster> {
        self.own.as_ref().context("the servers were given")
    }
}

impl Fixture for EtcdFixture {
    const NAME: &'static str = "etcd";

    async fn start() -> Result<Self> {
        let (own, urls) = match given::urls("LOCK_TEST_ETCD") {
            Some(urls) => (None, urls),
            None => {
                let cluster = EtcdCluster::start(3)?;
                let urls = cluster.iter().map(Etcd::url).collect();
                (Some(cluster), urls)
            }
        };
        Ok(Self { own, front: Front::of(&urls)?, urls })
    }

    async fn locker(&self, options: &Options) -> lock_core::Result<AnyLocker> {
        Self::connect(&self.front.address(), options).await
    }

    async fn traces(&self, key: &Key) -> Result<usize> {
        Ok(self.places(key)?.len())
    }

    fn address(&self) -> Option<String> {
        Some(self.front.address())
    }

    async fn connect(address: &str, options: &Options) -> lock_core::Result<AnyLocker> {
        let (prefix, endpoints) = Front::parts(address);
        let options = options.clone().with_prefix(prefix);
        Ok(EtcdLocker::connect(endpoints, options).await?.into())
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        let places = self.places(key)?;
        let first = places.first().context("nobody holds the key")?;
        self.by_hand(async |mut operator| {
            operator.delete(first.clone(), None).await?;
            Ok(())
        })
    }

    async fn connections(&self) -> Result<usize> {
        Ok(self.front.open_connections())
    }

    fn may_stop(&self) -> bool {
        self.own.is_some()
    }

    async fn pause(&self) -> Result<()> {
        self.own()?.iter().try_for_each(Etcd::pause)
    }

    async fn resume(&self) -> Result<()> {
        self.own()?.iter().try_for_each(Etcd::resume)
    }

    async fn restart(&self, data: Data) -> Result<()> {
        match data {
            Data::Kept => self.own()?.restart(),
            Data::Erased => self.own()?.restart_without_data(),
        }
    }
}

fn main() -> ExitCode {
    lock_conformance::run::<EtcdFixture>()
}
