//! Clusters of one Redis.

use anyhow::Result;
use test_cluster::Redis;

use crate::common::Servers;

impl Servers for Redis {
    fn start() -> Result<Self> {
        Self::builder().persistence(test_cluster::Persistence::AofAlways).start()
    }

    fn address(&self) -> String {
        self.url()
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
