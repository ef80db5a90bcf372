//! Clusters of etcd.

use anyhow::Result;
use test_cluster::Etcd;

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

    fn pause(&self) -> Result<()> {
        Self::pause(self)
    }

    fn resume(&self) -> Result<()> {
        Self::resume(self)
    }
}
