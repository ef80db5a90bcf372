//! The fixture of the server in memory.

use anyhow::Result;
use lock_core::{AnyLocker, Key, Locker, Options, backend::Leased};

use crate::{Data, Fixture, MemoryServer, MemoryStore};

/// Runs the suite on a [`MemoryServer`].
#[derive(Debug, Default)]
pub struct MemoryFixture(MemoryServer);

impl Fixture for MemoryFixture {
    const NAME: &'static str = "memory";

    async fn start() -> Result<Self> {
        Ok(Self::default())
    }

    async fn locker(&self, options: &Options) -> lock_core::Result<AnyLocker> {
        Ok(AnyLocker::new(Locker::new(Leased::new(MemoryStore::new(&self.0), options)?)))
    }

    async fn traces(&self, key: &Key) -> Result<usize> {
        Ok(self.0.traces(key))
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        self.0.forget(key);
        Ok(())
    }

    async fn connections(&self) -> Result<usize> {
        Ok(self.0.clients())
    }

    async fn pause(&self) -> Result<()> {
        self.0.pause();
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        self.0.resume();
        Ok(())
    }

    async fn restart(&self, data: Data) -> Result<()> {
        self.0.restart(data);
        Ok(())
    }
}
