//! Drives a person's own servers with a person's own load, within bounds, and says which lock to take.

pub mod advice;
pub mod command;
pub mod drive;
pub mod login;
pub mod remains;

use std::{fmt::Write as _, time::Duration};

use anyhow::{Result, ensure};
use comfy_table::{Table, presets};
use indicatif::ProgressBar;
use lock_setnx::Options;
use tokio::time::timeout;

use self::{
    advice::{Advice, Measured, Needs},
    drive::{Drive, Driven},
    login::Login,
    remains::Remains,
};
use crate::{locks, setup::Backend, table::time};

/// How long the end of a client is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// Servers of one kind, as a person named them.
#[derive(Clone, Debug)]
pub struct Given {
    /// The lock that runs on them.
    pub backend: Backend,
    /// Their addresses.
    pub urls: Vec<String>,
    /// Who logs in there, if that does not stand in the addresses.
    pub login: Option<Login>,
}

/// What `choose` found of one kind of servers.
#[derive(Debug)]
pub struct Finding {
    /// The lock that ran on them.
    pub backend: Backend,
    /// What the load came to, or why it could not begin.
    pub driven: Result<Driven>,
    /// Whether anything was left behind.
    pub remains: Remains,
}

/// Checks the load before anything is sent.
///
/// # Errors
///
/// No lock on earth carries it, or it is none.
pub fn check(load: &Drive) -> Result<()> {
    ensure!(load.rate > 0.0, "--rate is how many locks a second you take: above zero");
    ensure!(load.keys > 0, "--keys is how many keys there are: at least one");
    ensure!((0.0..=1.0).contains(&load.hot), "--contention is a part of all acquires, in percent: 0 to 100");
    ensure!(!load.time.is_zero(), "--max-seconds is at least 1");
    let holders = load.busiest() * load.hold.as_secs_f64();
    ensure!(
        holders < 1.0,
        "no lock carries this: the busiest key is wanted {:.0} times a second and held {:?} each, which takes \
        {holders:.1} holders at a time; hold shorter, or use more keys",
        load.busiest(),
        load.hold
    );
    Ok(())
}

/// Drives each of the servers in turn.
pub async fn measure(given: &[Given], load: &Drive, bar: &ProgressBar) -> Vec<Finding> {
    let mut found = Vec::new();
    for Given { backend, urls, login } in given {
        let login = login.as_ref();
        let prefix = format!("choose-{:016x}", rand::random::<u64>());
        bar.set_message(format!("{}: connecting", backend.package()));
        let options = Options::default().with_prefix(&prefix);
        let driven = match locks::connect(*backend, urls, login, options).await {
            Ok(locker) => {
                let driven = drive::drive(&locker, load, |sofar| {
                    bar.set_message(format!("{}: {sofar}", backend.package()));
                });
                let driven = driven.await;
                // A server that has died cannot be told good-bye.
                let _ = timeout(PATIENCE, locker.close()).await;
                Ok(driven)
            }
            Err(error) => Err(error),
        };
        bar.set_message(format!("{}: looking for what is left", backend.package()));
        let remains = remains::remove(*backend, urls, login, &prefix).await;
        found.push(Finding { backend: *backend, driven, remains });
        bar.inc(1);
    }
    found
}

/// Returns a table of what was found, and the advice with its reasons.
#[must_use]
pub fn render(found: &[Finding], needs: &Needs) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "carries it", "locks/s", "p50", "p99", "failed", "a lock is safe"]);
    let mut notes = String::new();
    for Finding { backend, driven, remains } in found {
        let name = backend.package();
        match driven {
            Ok(driven) => {
                let at = |quantile| time(driven.latency.value_at_quantile(quantile) as f64 / 1e3);
                table.add_row([
                    name.to_owned(),
                    if driven.carries() { "yes" } else { "no" }.to_owned(),
                    format!("{:.0}", driven.rate()),
                    at(0.5),
                    at(0.99),
                    driven.failed.to_string(),
                    backend.promise().to_owned(),
                ]);
                if let Some(reason) = &driven.stopped {
                    let _ = writeln!(notes, "{name}: stopped: {reason}");
                }
            }
            Err(error) => {
                let unknown = ["no", "", "", "", ""].map(str::to_owned);
                table.add_row(
                    [name.to_owned()].into_iter().chain(unknown).chain([backend.promise().to_owned()]),
                );
                let _ = writeln!(notes, "{name}: not driven: {error:#}");
            }
        }
        let _ = writeln!(notes, "{name}: {remains}");
    }
    let measured: Vec<_> = found.iter().map(Measured::of).collect();
    format!("{table}\n{notes}\n{}", Advice::on(needs, &measured))
}
