//! The suite on sessions and queues in memory: what lock-core makes of a `QueueStore` keeps every promise.

mod server;
mod store;

use std::process::ExitCode;

use anyhow::Result;
use lock_conformance::{Data, Fixture};
use lock_core::{AnyLocker, Key, Locker, Options, backend::Queued};

use crate::{server::QueueServer, store::MemoryQueues};

#[derive(Default)]
struct QueueFixture(QueueServer);

impl Fixture for QueueFixture {
    const NAME: &'static str = "queued";

    async fn start() -> Result<Self> {
        Ok(Self::default())
    }

    async fn locker(&self, options: &Options) -> lock_core::Result<AnyLocker> {
        let ttl = options.check()?.ttl();
        Ok(AnyLocker::new(Locker::new(Queued::connect(MemoryQueues::new(&self.0, ttl), options).await?)))
    }

    async fn traces(&self, key: &Key) -> Result<usize> {
        Ok(self.0.look(|table| table.queue(key).len()))
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        self.0.look(|table| table.forget_first(key));
        Ok(())
    }

    async fn connections(&self) -> Result<usize> {
        Ok(self.0.look(|table| table.sessions()))
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

fn main() -> ExitCode {
    lock_conformance::run::<QueueFixture>()
}
