//! The command line of `choose`.

use std::time::Duration;

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::Runtime;

use super::{Finding, Given, advice::Needs, check, drive::Drive, login::Login, measure, render};
use crate::setup::Backend;

/// Servers, a load, its bounds, and what only a person can know.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// One Redis; a user and password stand in the address, here and below: redis://user:password@host:port
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Redis servers that share nothing, separated by commas: an odd number, at least three
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    redlock: Vec<String>,
    /// The members of an etcd cluster, separated by commas
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    etcd: Vec<String>,
    /// The members of a ZooKeeper ensemble, separated by commas
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    zk: Vec<String>,
    /// How many locks a second your program takes
    #[arg(long, value_name = "LOCKS/S", default_value_t = 100.0)]
    rate: f64,
    /// How long it holds each, such as 5ms
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = humantime::parse_duration)]
    hold: Duration,
    /// How many different keys there are
    #[arg(long, value_name = "N", default_value_t = 1000)]
    keys: usize,
    /// How many percent of all acquires want one and the same key; the others want any
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    contention: f64,
    /// Go on so long on each kind of servers, at most
    #[arg(long, value_name = "S", default_value_t = 10)]
    max_seconds: u64,
    /// Never take more locks a second than these, whatever the rate
    #[arg(long, value_name = "LOCKS/S", default_value_t = 2000.0)]
    max_rate: f64,
    /// Stop when more than so many percent fail
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    max_errors: f64,
    /// All who must exclude each other live in one process
    #[arg(long)]
    one_process: bool,
    /// The lock must hold under any single fault, failover and power loss included
    #[arg(long)]
    any_fault: bool,
    /// It is a contest for one thing, whose losers go away, and you can repair a rare double win
    #[arg(long)]
    contest: bool,
}

impl Args {
    fn given(&self) -> Result<Vec<Given>> {
        let redis: Vec<_> = self.redis.iter().cloned().collect();
        let all = [
            (Backend::Setnx, &redis),
            (Backend::Redlock, &self.redlock),
            (Backend::Etcd, &self.etcd),
            (Backend::Zk, &self.zk),
        ];
        let given = all.into_iter().filter(|(_, urls)| !urls.is_empty());
        let given = given.map(|(backend, urls)| {
            if matches!(backend, Backend::Setnx | Backend::Redlock) {
                return Ok(Given { backend, urls: urls.clone(), login: None });
            }
            let apart = urls.iter().map(|url| Login::take_out(url)).collect::<Result<Vec<_>>>()?;
            let (urls, logins): (_, Vec<_>) = apart.into_iter().unzip();
            Ok(Given { backend, urls, login: logins.into_iter().flatten().next() })
        });
        given.collect()
    }

    /// Drives, and prints what was found and what to take.
    ///
    /// # Errors
    ///
    /// The load cannot be, or servers failed under it.
    pub fn run(&self) -> Result<()> {
        let given = self.given()?;
        ensure!(
            self.one_process || !given.is_empty(),
            "name your servers: --redis, --redlock, --etcd, --zk; `cargo xtask cluster up` starts some to play with"
        );
        let load = Drive {
            rate: self.rate.min(self.max_rate),
            hold: self.hold,
            keys: self.keys,
            hot: self.contention / 100.0,
            time: Duration::from_secs(self.max_seconds),
            most_errors: self.max_errors / 100.0,
        };
        check(&load)?;
        if load.rate < self.rate {
            println!("{} locks/s are more than --max-rate allows: {} are driven", self.rate, load.rate);
        }
        let bar = ProgressBar::new(given.len() as u64);
        let style = ProgressStyle::with_template("{spinner} {pos}/{len} {elapsed} {wide_msg}");
        bar.set_style(style.expect("the template is a constant"));
        bar.enable_steady_tick(Duration::from_millis(200));
        let runtime = Runtime::new()?;
        let found = runtime.block_on(measure(&given, &load, &bar));
        bar.finish_and_clear();
        let (one_process, any_fault, contest) = (self.one_process, self.any_fault, self.contest);
        println!("{}", render(&found, &Needs { one_process, any_fault, contest, rate: self.rate }));
        let failed: Vec<_> =
            found.iter().filter(|found| found.has_failed()).map(|found| found.backend.package()).collect();
        ensure!(failed.is_empty(), "the servers of {} failed under the load, see above", failed.join(", "));
        Ok(())
    }
}

impl Finding {
    /// Whether the servers failed, which is more than to be too slow.
    pub(super) fn has_failed(&self) -> bool {
        self.driven.as_ref().map_or(true, |driven| driven.stopped.is_some() && driven.failed > 0)
    }
}
