//! The server in memory, with clients that have a bug.

use std::{collections::HashMap, sync::Arc};

use anyhow::Result;
use lock_conformance::{Data, Fixture, MemoryServer, MemoryStore};
use lock_core::{
    AnyLocker, Key, Locker, Options,
    backend::{BootInstant, Leased},
};
use parking_lot::Mutex;

use crate::{
    bug::{Bug, Soil},
    naive::Naive,
    store::{BuggyStore, Queue},
};

/// Counters of tokens as some server would keep them, each with the end of its lease.
pub(crate) type Counters = Arc<Mutex<HashMap<Key, (u64, BootInstant)>>>;

pub(crate) struct Planted {
    server: MemoryServer,
    counters: Counters,
    bug: Option<Bug>,
    queue: Option<Queue>,
    soil: Soil,
}

impl Planted {
    pub(crate) fn new(bug: Option<Bug>, soil: Soil) -> Self {
        let queue = (soil == Soil::Queue).then(Queue::default);
        Self { server: MemoryServer::default(), counters: Counters::default(), queue, bug, soil }
    }
}

impl Fixture for Planted {
    const NAME: &'static str = "planted";

    async fn start() -> Result<Self> {
        Ok(Self::new(None, Soil::Store))
    }

    async fn locker(&self, options: &Options) -> lock_core::Result<AnyLocker> {
        if self.soil == Soil::Backend {
            return Ok(AnyLocker::new(Locker::new(Naive::new(&self.server, options, self.bug)?)));
        }
        let store =
            BuggyStore::new(MemoryStore::new(&self.server), &self.counters, self.queue.clone(), self.bug);
        Ok(AnyLocker::new(Locker::new(Leased::new(store, options)?)))
    }

    async fn traces(&self, key: &Key) -> Result<usize> {
        Ok(self.server.traces(key))
    }

    async fn lose(&self, key: &Key) -> Result<()> {
        self.server.forget(key);
        Ok(())
    }

    async fn connections(&self) -> Result<usize> {
        Ok(self.server.clients())
    }

    async fn pause(&self) -> Result<()> {
        self.server.pause();
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        self.server.resume();
        Ok(())
    }

    async fn restart(&self, data: Data) -> Result<()> {
        self.server.restart(data);
        if data == Data::Erased {
            self.counters.lock().clear();
        }
        Ok(())
    }
}
