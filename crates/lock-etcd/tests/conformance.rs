//! The suite that every backend must pass, on a cluster of three.

use std::process::ExitCode;

use anyhow::{Context, Result};
use lock_conformance::{Data, Fixture};
use lock_core::{AnyLocker, Key, Options};
use lock_etcd::EtcdLocker;
use test_cluster::{Etcd, EtcdCluster, Proxy};

/// A cluster, and a proxy before each member, through which the suite's clients reach it, so that they can be counted.
struct EtcdFixture {
    cluster: EtcdCluster,
    proxies: Vec<Proxy>,
}

impl EtcdFixture {
    /// The members as the suite's clients see them.
    fn endpoints(&self) -> String {
        self.proxies.iter().map(|proxy| proxy.address().to_string()).collect::<Vec<_>>().join(",")
    }

    /// The places in the queue of `key`, the holder's first.
    fn places(&self, key: &Key) -> Result<Vec<String>> {
        let encoded = key.percent_encoded(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'));
        self.cluster[0].keys(&format!("lock/{encoded}:"))
    }
}

impl Fixture for EtcdFixture {
    const NAME: &'static str = "etcd";

    async fn start() -> Result<Self> {
        let cluster = EtcdCluster::start(3)?;
        let proxies = cluster.addresses().into_iter().map(Proxy::start).collect::<Result<_>>()?;
        Ok(Self { cluster, proxies })
    }

    async fn locker(&self, options: &Options) -> lock_core::Result<AnyLocker> {
        Self::connect(&self.endpoints(), options).await
    }

    async fn traces(&self, key: &Key) -> Result<usize> {
        Ok(self.places(key)?.len())
    }

    fn address(&self) -> Option<String> {
        Some(self.endpoints())
    }

    async fn connect(address: &str, options: &Options) -> lock_core::Result<AnyLocker> {
        Ok(EtcdLocker::connect(address, options.clone()).await?.into())
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        let places = self.places(key)?;
        self.cluster[0].delete(places.first().context("nobody holds the key")?)
    }

    async fn connections(&self) -> Result<usize> {
        Ok(self.proxies.iter().map(Proxy::open_connections).sum())
    }

    async fn pause(&self) -> Result<()> {
        self.cluster.iter().try_for_each(Etcd::pause)
    }

    async fn resume(&self) -> Result<()> {
        self.cluster.iter().try_for_each(Etcd::resume)
    }

    async fn restart(&self, data: Data) -> Result<()> {
        match data {
            Data::Kept => self.cluster.restart(),
            Data::Erased => self.cluster.restart_without_data(),
        }
    }
}

fn main() -> ExitCode {
    lock_conformance::run::<EtcdFixture>()
}
