//! The suite that every backend must pass, on one etcd.

use std::process::ExitCode;

use anyhow::{Context, Result};
use lock_conformance::{Data, Fixture};
use lock_core::{AnyLocker, Key, Options};
use lock_etcd::EtcdLocker;
use test_cluster::{Etcd, Proxy};

/// An etcd, and a proxy through which the suite's clients reach it, so that they can be counted.
struct EtcdFixture {
    etcd: Etcd,
    proxy: Proxy,
}

impl EtcdFixture {
    /// The places in the queue of `key`, the holder's first.
    fn places(&self, key: &Key) -> Result<Vec<String>> {
        let encoded = key.percent_encoded(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'));
        self.etcd.keys(&format!("lock/{encoded}:"))
    }
}

impl Fixture for EtcdFixture {
    const NAME: &'static str = "etcd";

    async fn start() -> Result<Self> {
        let etcd = Etcd::start()?;
        let proxy = Proxy::start(etcd.address())?;
        Ok(Self { etcd, proxy })
    }

    async fn locker(&self, options: &Options) -> lock_core::Result<AnyLocker> {
        Self::connect(&self.proxy.address().to_string(), options).await
    }

    async fn traces(&self, key: &Key) -> Result<usize> {
        Ok(self.places(key)?.len())
    }

    fn address(&self) -> Option<String> {
        Some(self.proxy.address().to_string())
    }

    async fn connect(address: &str, options: &Options) -> lock_core::Result<AnyLocker> {
        let options = lock_etcd::Options::default().with_lease(options.clone());
        Ok(EtcdLocker::connect(address, options).await?.into())
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        let places = self.places(key)?;
        self.etcd.delete(places.first().context("nobody holds the key")?)
    }

    async fn connections(&self) -> Result<usize> {
        Ok(self.proxy.open_connections())
    }

    async fn pause(&self) -> Result<()> {
        self.etcd.pause()
    }

    async fn resume(&self) -> Result<()> {
        self.etcd.resume()
    }

    async fn restart(&self, data: Data) -> Result<()> {
        match data {
            Data::Kept => self.etcd.restart(),
            Data::Erased => self.etcd.restart_without_data(),
        }
    }
}

fn main() -> ExitCode {
    lock_conformance::run::<EtcdFixture>()
}
