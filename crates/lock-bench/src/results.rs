//! The figures of a run, as they are written to JSON and shown.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{lock::Role, sample::Sample, setup::Setup, stats, stats::Quartiles};

/// All that a run found.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Report {
    /// How it was called.
    pub command: String,
    /// When it began, in UTC.
    pub started: String,
    /// How long it took.
    pub seconds: f64,
    /// What it ran on.
    pub machine: String,
    /// The servers and libraries, with their versions.
    pub versions: BTreeMap<String, String>,
    /// What was not measured, and why.
    pub absent: Vec<Absent>,
    /// Loads, each on all subjects of a setup.
    pub loads: Vec<Load>,
    /// What locks cost that are held.
    pub held: Vec<Held>,
    /// What callers cost that wait.
    pub idle: Vec<Idle>,
    /// How soon a dead holder is succeeded.
    pub recoveries: Vec<Recovery>,
    /// How figures grow with size.
    pub growth: Vec<Growth>,
}

/// A client that holds locks.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Held {
    /// On which servers.
    pub setup: Setup,
    /// How many it holds.
    pub locks: usize,
    /// How long it took to acquire them, 64 at a time.
    pub seconds: f64,
    /// The memory of the client for each.
    pub bytes: f64,
    /// The tasks of the client.
    pub tasks: usize,
    /// What the servers receive each second to keep them.
    pub requests: Option<f64>,
    /// Which part of a processor the client takes, one acquire after the other beside.
    pub cpu: f64,
    /// One more, acquired and released again and again.
    pub acquire: Latency,
    /// How many were lost.
    pub lost: usize,
}

/// A client whose callers wait.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Idle {
    /// On which servers.
    pub setup: Setup,
    /// How many wait, each for a key of its own.
    pub waiters: usize,
    /// The memory of the client for each.
    pub bytes: f64,
    /// The tasks of the client; callers are some of them.
    pub tasks: usize,
    /// What the servers receive each second, from the holder too.
    pub requests: Option<f64>,
    /// Which part of a processor the client takes.
    pub cpu: f64,
}

/// How soon a holder that was killed is succeeded.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Recovery {
    /// On which servers.
    pub setup: Setup,
    /// The lease of the holder.
    pub ttl_ms: u64,
    /// From its death to the next guard.
    pub ms: Quartiles,
    /// The slowest.
    pub slowest_ms: f64,
}

/// How a figure grows with size.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Growth {
    /// On which servers.
    pub setup: Setup,
    /// What grows.
    pub what: String,
    /// With what it grows.
    pub sizes: String,
    /// What was measured at each size.
    pub points: Vec<(f64, f64)>,
    /// The exponent of the power law that fits best.
    pub exponent: f64,
}

/// What a person might look for and not find.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Absent {
    /// The peer, or the case.
    pub name: String,
    /// Why, and what would bring it.
    pub reason: String,
}

/// What a load is called.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    /// One task, a key that nobody else wants
    Uncontended,
    /// 64 tasks with a key each
    Keys,
    /// One task, while one of several Redis servers is frozen
    Frozen,
    /// Tasks that all want one key
    Handover,
    /// Locks that one client holds
    Held,
    /// Callers that wait
    Idle,
    /// A holder that is killed
    Recovery,
}

/// Where contenders live.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Clients {
    /// All share one client.
    Shared,
    /// Each has a client with connections of its own, in one process.
    Each,
    /// Each is a process of its own.
    Processes,
}

/// One load on the subjects of a setup.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Load {
    /// On which servers.
    pub setup: Setup,
    /// What it is called.
    pub case: Case,
    /// How many tasks.
    pub tasks: usize,
    /// Who has a client.
    pub clients: Clients,
    /// How long each holds, in milliseconds.
    pub hold_ms: u64,
    /// What was measured of each subject.
    pub rows: Vec<Row>,
}

/// What was measured of one subject.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// The subject.
    pub name: String,
    /// What it stands for.
    pub role: Role,
    /// Pairs of acquire and release a second.
    pub rate: Quartiles,
    /// Its rate by that of the floor.
    pub to_floor: Option<Quartiles>,
    /// The rate of ours by its rate.
    pub ours_to_this: Option<Quartiles>,
    /// From the call to acquire to the guard.
    pub acquire: Latency,
    /// An acquire and its release.
    pub pair: Latency,
    /// The same at more quantiles, each with its time in microseconds.
    pub curve: Vec<(f64, f64)>,
    /// From the call to release to the next guard.
    pub handover: Option<Latency>,
    /// The median of a hand-over by that of an acquire and release of ours that nobody contends for; while a server is
    /// frozen, that of an acquire and release by the same with all servers.
    pub to_alone: Option<Quartiles>,
    /// How many times the turns of the contender that had fewest fit into those of the one that had most.
    pub spread: Option<f64>,
    /// What the servers received for each pair.
    pub requests: Option<f64>,
    /// What the client computed for each pair, in microseconds.
    pub cpu_us: f64,
    /// How often two held a key at once.
    pub overlaps: u64,
}

/// The quantiles of a latency curve.
const CURVE: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 0.9999];

/// A distribution, in microseconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// One of a hundred is slower.
    pub p99: f64,
    /// One of a thousand is slower.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

impl Latency {
    /// Reads it from a histogram of nanoseconds, if anything is in it.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        let max = histogram.max() as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max })
    }
}

/// The samples of one subject, one of each round.
#[derive(Clone, Debug)]
pub struct Series {
    /// The subject.
    pub name: String,
    /// What it stands for.
    pub role: Role,
    /// One of each round.
    pub samples: Vec<Sample>,
}

impl Series {
    fn rates(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.pairs as f64 / sample.seconds).collect()
    }

    fn merged(&self, of: impl Fn(&Sample) -> &Histogram<u64>) -> Histogram<u64> {
        let mut all = crate::sample::durations();
        self.samples.iter().for_each(|sample| all.add(of(sample)).expect("all have the same bounds"));
        all
    }

    /// The medians of an acquire and its release, one of each round, in nanoseconds.
    #[must_use]
    pub fn pair_medians(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.pair.value_at_quantile(0.5) as f64).collect()
    }
}

/// Compares the subjects of one load with each other, and hand-overs, or pairs where there are none, with `alone`, what
/// each round found for a key that nobody contends for. A subject that never got the lock has no row.
#[must_use]
pub fn compare(series: &[Series], alone: Option<&[f64]>) -> Vec<Row> {
    let rates_of = |role| series.iter().find(|one| one.role == role).map(Series::rates);
    let (floor, ours) = (rates_of(Role::Floor), rates_of(Role::Ours));
    let row = |one: &Series| {
        let rates = one.rates();
        let pairs: u64 = one.samples.iter().map(|sample| sample.pairs).sum();
        let each = |total: f64| total / pairs as f64;
        let anybody_waited = one.samples.iter().any(|sample| !sample.handover.is_empty());
        let median = |sample: &Sample| match (anybody_waited, &sample.handover) {
            (true, handover) if handover.is_empty() => f64::NAN,
            (true, handover) => handover.value_at_quantile(0.5) as f64,
            (false, _) => sample.pair.value_at_quantile(0.5) as f64,
        };
        let compared: Vec<_> = one.samples.iter().map(median).collect();
        let mut shares = vec![0; one.samples.first()?.shares.len()];
        for sample in &one.samples {
            shares.iter_mut().zip(&sample.shares).for_each(|(sum, share)| *sum += share);
        }
        let requests: Option<u64> = one.samples.iter().map(|sample| sample.requests).sum();
        let all = one.merged(|sample| &sample.pair);
        let is_compared = !matches!(one.role, Role::Ours);
        Some(Row {
            name: one.name.clone(),
            role: one.role,
            rate: Quartiles::of(&rates)?,
            to_floor: floor.as_ref().and_then(|floor| Quartiles::of_ratios(&rates, floor)),
            ours_to_this: ours
                .as_ref()
                .filter(|_| is_compared)
                .and_then(|ours| Quartiles::of_ratios(ours, &rates)),
            acquire: Latency::of(&one.merged(|sample| &sample.acquire))?,
            pair: Latency::of(&all)?,
            curve: CURVE.map(|quantile| (quantile, all.value_at_quantile(quantile) as f64 / 1e3)).into(),
            handover: Latency::of(&one.merged(|sample| &sample.handover)),
            to_alone: alone.and_then(|alone| Quartiles::of_ratios(&compared, alone)),
            spread: stats::spread(&shares).filter(|_| shares.len() > 1),
            requests: requests.map(|requests| each(requests as f64)),
            cpu_us: each(one.samples.iter().map(|sample| sample.cpu).sum::<f64>() * 1e6),
            overlaps: one.samples.iter().map(|sample| sample.overlaps).sum(),
        })
    };
    series.iter().filter_map(row).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Case, Clients, Load, Report, Series, compare};
    use crate::{
        lock::Role,
        sample::{Sample, durations},
        setup::Setup,
    };

    pub(crate) fn sample() -> Report {
        let all = [
            series("SET NX", Role::Floor, &[1000, 1000]),
            series("lock-setnx", Role::Ours, &[900, 900]),
            series("rslock", Role::Peer, &[450, 450]),
        ];
        let load = |case, tasks| Load {
            setup: Setup::Setnx,
            case,
            tasks,
            clients: Clients::Each,
            hold_ms: 0,
            rows: compare(&all, None),
        };
        Report {
            command: "cargo xtask bench --quick".to_owned(),
            versions: [("etcd".to_owned(), "3.4.23".to_owned())].into(),
            loads: vec![load(Case::Uncontended, 1), load(Case::Handover, 2), load(Case::Handover, 16)],
            ..Report::default()
        }
    }

    fn one(pairs: u64, nanoseconds: u64) -> Sample {
        let mut pair = durations();
        pair.record_n(nanoseconds, pairs).unwrap();
        Sample {
            seconds: 1.0,
            pairs,
            acquire: pair.clone(),
            handover: pair.clone(),
            pair,
            shares: vec![pairs / 3, pairs - pairs / 3],
            overlaps: 0,
            cpu: 0.5,
            requests: Some(2 * pairs),
        }
    }

    fn series(name: &str, role: Role, pairs: &[u64]) -> Series {
        let samples = pairs.iter().map(|pairs| one(*pairs, 1_000_000_000 / pairs)).collect();
        Series { name: name.to_owned(), role, samples }
    }

    #[test]
    fn ratios_are_those_within_rounds() {
        let all = [
            series("least", Role::Floor, &[1000, 100, 1000]),
            series("ours", Role::Ours, &[900, 90, 900]),
            series("other", Role::Peer, &[450, 45, 450]),
        ];
        let rows = compare(&all, Some(&[1e6, 1e7, 1e6]));
        let near =
            |found: Option<super::Quartiles>, wanted: f64| (found.unwrap().median - wanted).abs() < 0.02;
        assert!(near(rows[1].to_floor, 0.9) && near(rows[2].to_floor, 0.45));
        assert!(near(rows[2].ours_to_this, 2.0) && rows[1].ours_to_this.is_none());
        assert!(near(rows[1].to_alone, 1.11));
        assert_eq!((rows[1].requests, rows[1].spread.map(f64::round)), (Some(2.0), Some(2.0)));
    }

    #[test]
    fn who_never_got_the_lock_has_no_row() {
        let starved = Series { samples: vec![one(0, 1)], ..series("starved", Role::Peer, &[]) };
        assert!(compare(&[starved], None).is_empty());
    }
}
