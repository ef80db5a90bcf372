//! The suite over ensembles of ZooKeeper: its own, and one at `LOCK_TEST_ZK`.

mod suite;

use std::process::ExitCode;

use anyhow::Result;
use lock_sharded::{Key, Slot};
use test_cluster::ZooKeeper;
use zookeeper_client::{Client, Error};

use crate::suite::Kind;

impl Kind for ZooKeeper {
    const NAMES: [&'static str; 2] = ["sharded over 2 ZooKeepers", "sharded over 3 ZooKeepers"];
    const SCHEME: &'static str = "zk://";
    const GIVEN: &'static [&'static str] = &["LOCK_TEST_ZK"];

    fn start() -> Result<Self> {
        Self::start()
    }

    fn addresses(&self) -> Vec<String> {
        vec![Self::address(self).to_string()]
    }

    fn pause(&self) -> Result<()> {
        Self::pause(self)
    }

    fn resume(&self) -> Result<()> {
        Self::resume(self)
    }

    fn restart(&self) -> Result<()> {
        Self::restart(self)
    }

    fn restart_without_data(&self) -> Result<()> {
        Self::restart_without_data(self)
    }

    async fn places(servers: &[String], prefix: &str, key: &Key) -> Result<Vec<String>> {
        let encoded = key.percent_encoded(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'.'));
        let queue = format!("/{prefix}/.slots/{:02x}/{encoded}", Slot::of(key).index());
        let operator = Client::connect(&servers.join(",")).await?;
        operator.sync("/").await?;
        let mut nodes = match operator.list_children(&queue).await {
            Err(Error::NoNode) => return Ok(Vec::new()),
            nodes => nodes?,
        };
        // What came from the other cluster has no number, and is first.
        nodes.sort_by_key(|node| node[32..].strip_prefix('-').map(str::to_owned));
        Ok(nodes.into_iter().map(|node| format!("{queue}/{node}")).collect())
    }

    async fn delete(servers: &[String], places: &[String]) -> Result<()> {
        let operator = Client::connect(&servers.join(",")).await?;
        for place in places {
            match operator.delete(place, None).await {
                Ok(()) | Err(Error::NoNode) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    suite::run::<ZooKeeper>()
}
