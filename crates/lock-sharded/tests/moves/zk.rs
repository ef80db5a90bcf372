//! Ensembles of ZooKeeper.

use anyhow::Result;
use test_cluster::{ZooKeeper, ZooKeeperCluster};

use crate::common::Servers;

impl Servers for ZooKeeper {
    fn start() -> Result<Self> {
        Self::start()
    }

    fn address(&self) -> String {
        format!("zk://{}", Self::address(self))
    }

    fn stop(&self) -> Result<()> {
        self.kill()
    }

    fn wipe(&self) -> Result<()> {
        self.restart_without_data()
    }

    fn pause(&self) -> Result<()> {
        Self::pause(self)
    }

    fn resume(&self) -> Result<()> {
        Self::resume(self)
    }
}

impl Servers for ZooKeeperCluster {
    fn start() -> Result<Self> {
        Self::start(3)
    }

    fn address(&self) -> String {
        format!("zk://{}", self.connect_string())
    }

    fn stop(&self) -> Result<()> {
        self.nodes().iter().try_for_each(ZooKeeper::kill)
    }

    fn wipe(&self) -> Result<()> {
        self.nodes().iter().try_for_each(ZooKeeper::restart_without_data)
    }

    fn pause(&self) -> Result<()> {
        self.nodes().iter().try_for_each(ZooKeeper::pause)
    }

    fn resume(&self) -> Result<()> {
        self.nodes().iter().try_for_each(ZooKeeper::resume)
    }
}
