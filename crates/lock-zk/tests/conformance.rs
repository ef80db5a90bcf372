//! The suite that every backend must pass, on a ZooKeeper of its own.

use std::process::ExitCode;

use anyhow::{Context, Result};
use lock_conformance::{Data, Fixture};
use lock_core::{AnyLocker, Key, Options};
use lock_zk::ZkLocker;
use test_cluster::ZooKeeper;
use tokio::task::block_in_place;
use zookeeper_client::Client;

struct ZkFixture(ZooKeeper);

impl Fixture for ZkFixture {
    const NAME: &'static str = "zk";

    async fn start() -> Result<Self> {
        block_in_place(ZooKeeper::start).map(Self)
    }

    async fn locker(&self, options: &Options) -> lock_core::Result<AnyLocker> {
        Self::connect(&self.0.address().to_string(), options).await
    }

    async fn traces(&self, key: &Key) -> Result<usize> {
        let queue = format!("\t{}/", queue(key));
        Ok(self.ask("dump")?.lines().filter(|line| line.starts_with(&queue)).count())
    }

    fn address(&self) -> Option<String> {
        Some(self.0.address().to_string())
    }

    async fn connect(address: &str, options: &Options) -> lock_core::Result<AnyLocker> {
        Ok(ZkLocker::connect(address, options.clone()).await?.into())
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        let operator = Client::connect(&self.0.address().to_string()).await?;
        let queue = queue(key);
        let nodes = operator.list_children(&queue).await?;
        let first = nodes.iter().min_by_key(|node| node[33..].to_owned()).context("nobody holds it")?;
        Ok(operator.delete(&format!("{queue}/{first}"), None).await?)
    }

    async fn connections(&self) -> Result<usize> {
        // Those that ask by a four-letter word have no session.
        Ok(self.ask("cons")?.lines().filter(|line| line.contains("sid=")).count())
    }

    async fn pause(&self) -> Result<()> {
        block_in_place(|| self.0.pause())
    }

    async fn resume(&self) -> Result<()> {
        block_in_place(|| self.0.resume())
    }

    async fn restart(&self, data: Data) -> Result<()> {
        block_in_place(|| match data {
            Data::Kept => self.0.restart(),
            Data::Erased => self.0.restart_without_data(),
        })
    }
}

impl ZkFixture {
    fn ask(&self, word: &str) -> Result<String> {
        block_in_place(|| self.0.ask(word))
    }
}

/// Where those who want `key` queue; the crate's own tests say the same of it.
fn queue(key: &Key) -> String {
    format!("/lock/{}", key.percent_encoded(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b'.'))
}

fn main() -> ExitCode {
    lock_conformance::run::<ZkFixture>()
}
