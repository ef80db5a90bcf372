//! The suite over clusters of one Redis each.

mod suite;

use std::process::ExitCode;

use anyhow::{Context, Result};
use lock_sharded::{Key, Slot};
use test_cluster::{Persistence, Redis, given};

use crate::suite::Kind;

impl Kind for Redis {
    const NAMES: [&'static str; 2] = ["sharded over 2 Redis", "sharded over 3 Redis"];
    const SCHEME: &'static str = "";
    const GIVEN: &'static [&'static str] = &[];

    fn start() -> Result<Self> {
        Self::builder().persistence(Persistence::AofAlways).start()
    }

    fn addresses(&self) -> Vec<String> {
        vec![self.url()]
    }

    fn pause(&self) -> Result<()> {
        Self::pause(self)
    }

    fn resume(&self) -> Result<()> {
        Self::resume(self)
    }

    fn restart(&self) -> Result<()> {
        self.kill()?;
        Self::restart(self)
    }

    fn restart_without_data(&self) -> Result<()> {
        self.kill()?;
        Self::restart_without_data(self)
    }

    /// The lock, and those who wait for it.
    async fn places(servers: &[String], prefix: &str, key: &Key) -> Result<Vec<String>> {
        let encoded =
            key.percent_encoded(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'%'));
        let slot = format!("{prefix}:{{slot:{:02x}}}", Slot::of(key).index());
        let (lock, queue) = (format!("{slot}:{encoded}"), format!("{slot}#queue:{encoded}"));
        let mut places = Vec::new();
        if given::redis(&servers[0], &["EXISTS", &lock])?.as_int() == Some(1) {
            places.push(lock);
        }
        let waiters = given::redis(&servers[0], &["ZCARD", &queue])?.as_int().context("a count")?;
        places.extend((0..waiters).map(|_| queue.clone()));
        Ok(places)
    }

    async fn delete(servers: &[String], places: &[String]) -> Result<()> {
        for place in places {
            given::redis(&servers[0], &["DEL", place])?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    suite::run::<Redis>()
}
