//! The suite that every backend must pass, on a ZooKeeper: its own, or those at `LOCK_TEST_ZK`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use lock_conformance::{Data, Fixture};
use lock_core::{AnyLocker, Key, Options};
use lock_zk::ZkLocker;
use test_cluster::{
    ZooKeeper,
    given::{self, Front},
};
use tokio::{runtime, task::block_in_place};
use zookeeper_client::{Client, Error};

struct ZkFixture {
    /// None, if it was given.
    own: Option<ZooKeeper>,
    servers: String,
    /// Through which the suite's clients reach the servers, so that they can be counted.
    front: Front,
}

impl Fixture for ZkFixture {
    const NAME: &'static str = "zk";

    async fn start() -> Result<Self> {
        let (own, servers) = match given::urls("LOCK_TEST_ZK") {
            Some(servers) => (None, servers),
            None => {
                let own = block_in_place(ZooKeeper::start)?;
                let servers = vec![own.address().to_string()];
                (Some(own), servers)
            }
        };
        Ok(Self { own, front: Front::of(&servers)?, servers: servers.join(",") })
    }

    async fn locker(&self, options: &Options) -> lock_core::Result<AnyLocker> {
        Self::connect(&self.front.address(), options).await
    }

    async fn traces(&self, key: &Key) -> Result<usize> {
        Ok(self.queue(key)?.len())
    }

    fn address(&self) -> Option<String> {
        Some(self.front.address())
    }

    async fn connect(address: &str, options: &Options) -> lock_core::Result<AnyLocker> {
        let (prefix, servers) = Front::parts(address);
        let options = options.clone().with_prefix(prefix);
        Ok(ZkLocker::connect(servers, options).await?.into())
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        let nodes = self.queue(key)?;
        let first = nodes.iter().min_by_key(|node| node[33..].to_owned()).context("nobody holds it")?;
        let node = format!("{}/{first}", self.path(key));
        self.by_hand(async |operator| Ok(operator.delete(&node, None).await?))
    }

    async fn connections(&self) -> Result<usize> {
        Ok(self.front.open_connections())
    }

    fn may_stop(&self) -> bool {
        self.own.is_some()
    }

    async fn pause(&self) -> Result<()> {
        block_in_place(|| self.own()?.pause())
    }

    async fn resume(&self) -> Result<()> {
        block_in_place(|| self.own()?.resume())
    }

    async fn restart(&self, data: Data) -> Result<()> {
        block_in_place(|| match data {
            Data::Kept => self.own()?.restart(),
            Data::Erased => self.own()?.restart_without_data(),
        })
    }
}

impl ZkFixture {
    /// Where those who want `key` queue; the crate's own tests say the same of it.
    fn path(&self, key: &Key) -> String {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b'.';
        format!("/{}/{}", self.front.prefix(), key.percent_encoded(plain))
    }

    /// Does what an operator does by hand, in a runtime of its own: the suite counts the tasks in that of a property.
    fn by_hand<T>(&self, work: impl AsyncFnOnce(Client) -> Result<T>) -> Result<T> {
        block_in_place(|| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { work(Client::connect(&self.servers).await?).await })
        })
    }

    /// The nodes of those who queue, as all servers agree.
    fn queue(&self, key: &Key) -> Result<Vec<String>> {
        self.by_hand(async |operator| {
            operator.sync("/").await?;
            match operator.list_children(&self.path(key)).await {
                Err(Error::NoNode) => Ok(Vec::new()),
                nodes => Ok(nodes?),
            }
        })
    }

    fn own(&self) -> Result<&ZooKeeper> {
        self.own.as_ref().context("the servers were given")
    }
}

fn main() -> ExitCode {
    lock_conformance::run::<ZkFixture>()
}
