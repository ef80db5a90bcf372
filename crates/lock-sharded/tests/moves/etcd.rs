//! Clusters of etcd.

use anyhow::Result;
use test_cluster::{Etcd, EtcdCluster};

use crate::common::Servers;

impl Servers for Etcd {
    fn start() -> Result<Self> {
        Self::start()
    }

    fn address(&self) -> String {
        format!("etcd:{}", self.url())
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

impl Servers for EtcdCluster {
    fn start() -> Result<Self> {
        Self::start(3)
    }

    fn address(&self) -> String {
        format!("etcd:{}", self.urls())
    }

    fn stop(&self) -> Result<()> {
        self.iter().try_for_each(Etcd::kill)
    }

    fn wipe(&self) -> Result<()> {
        self.restart_without_data()
    }

    fn pause(&self) -> Result<()> {
        self.iter().try_for_each(Etcd::pause)
    }

    fn resume(&self) -> Result<()> {
        self.iter().try_for_each(Etcd::resume)
    }
}
