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

struct EtcdFixture {
    /// None, if it was given.
    own: Option<EtcdCluster>,
    urls: Vec<String>,
    /// Through which the suite's clients reach the members, so that they can be counted.
    front: Front,
}

impl EtcdFixture {
    /// A client for what an operator does by hand.
    async fn operator(&self) -> Result<Client> {
        Ok(Client::connect(&self.urls[..1], None).await?)
    }

    /// The places in the queue of `key`, the holder's first.
    async fn places(&self, key: &Key) -> Result<Vec<Vec<u8>>> {
        let encoded = key.percent_encoded(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'));
        let queue = GetOptions::new().with_prefix().with_keys_only();
        let queue = queue.with_sort(SortTarget::Create, SortOrder::Ascend);
        let prefix = format!("{}/{encoded}:", self.front.prefix());
        let found = self.operator().await?.get(prefix, Some(queue)).await?;
        Ok(found.kvs().iter().map(|pair| pair.key().to_vec()).collect())
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
        Ok(self.places(key).await?.len())
    }

    fn address(&self) -> Option<String> {
        Some(self.front.address())
    }

    async fn connect(address: &str, options: &Options) -> lock_core::Result<AnyLocker> {
        let (prefix, endpoints) = Front::parts(address);
        let options = lock_etcd::Options::default().with_lease(options.clone()).with_prefix(prefix);
        Ok(EtcdLocker::connect(endpoints, options).await?.into())
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        let places = self.places(key).await?;
        let first = places.first().context("nobody holds the key")?;
        self.operator().await?.delete(first.clone(), None).await?;
        Ok(())
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
