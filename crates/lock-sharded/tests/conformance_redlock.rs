//! The suite over clusters of three independent Redis servers each.

mod suite;

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lock_sharded::{Key, Slot};
use test_cluster::{Persistence, Redis, given};

use crate::suite::Kind;

struct Redlock(Vec<Redis>);

impl Kind for Redlock {
    const NAMES: [&'static str; 2] = ["sharded over 2 Redlocks", "sharded over 3 Redlocks"];
    const SCHEME: &'static str = "redlock:";
    const GIVEN: &'static [&'static str] = &[];

    fn start() -> Result<Self> {
        // What was written survives a kill, and no property waits for the disk.
        let redis = || Redis::builder().persistence(Persistence::Aof).config("appendfsync", "no");
        Ok(Self((0..3).map(|_| redis().start()).collect::<Result<_>>()?))
    }

    fn addresses(&self) -> Vec<String> {
        self.0.iter().map(Redis::url).collect()
    }

    fn pause(&self) -> Result<()> {
        self.0.iter().try_for_each(Redis::pause)
    }

    fn resume(&self) -> Result<()> {
        self.0.iter().try_for_each(Redis::resume)
    }

    fn restart(&self) -> Result<()> {
        self.0.iter().try_for_each(Redis::kill)?;
        self.0.iter().try_for_each(Redis::restart)
    }

    fn restart_without_data(&self) -> Result<()> {
        self.0.iter().try_for_each(Redis::kill)?;
        self.0.iter().try_for_each(Redis::restart_without_data)
    }

    /// The record of a majority is one. Anything less is looked at once more: what goes to the others may still be on
    /// its way.
    async fn places(servers: &[String], prefix: &str, key: &Key) -> Result<Vec<String>> {
        let encoded =
            key.percent_encoded(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'%'));
        let name = format!("{prefix}:{{redslot:{:02x}}}:{encoded}", Slot::of(key).index());
        let count = |url: &String| given::redis(url, &["EXISTS", &name])?.as_int().context("a count");
        let look = Instant::now();
        loop {
            let counts = servers.iter().map(count).collect::<Result<Vec<_>>>()?;
            let there = usize::try_from(counts.iter().sum::<i64>())?;
            if there > servers.len() / 2 {
                return Ok(vec![name]);
            }
            if there == 0 || look.elapsed() > Duration::from_millis(200) {
                return Ok(vec![name; there]);
            }
            // why: a bounded poll of a condition
            thread::sleep(Duration::from_millis(1));
        }
    }

    async fn delete(servers: &[String], places: &[String]) -> Result<()> {
        for (url, place) in servers.iter().flat_map(|url| places.iter().map(move |place| (url, place))) {
            given::redis(url, &["DEL", place])?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    suite::run::<Redlock>()
}
