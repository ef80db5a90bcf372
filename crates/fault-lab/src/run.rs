//! Runs cells: one after another in each lane, lanes at once, and each cell with its verdict.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use crate::{
    backend::Backend,
    cells::{Cell, Expected},
    checker::{self, Report},
    event::{Event, Invariant},
    lab::{Boot, Lab, Servers, Ticker},
    planted::{Bug, PLANTS, Plant},
    store::{self, Store},
};

/// What came of a cell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// All promises were kept.
    Green,
    /// The documented limit was shown, and all other promises were kept.
    Limit,
    /// A promise was broken.
    Violation,
    /// The run shows nothing: it is never taken for green.
    Invalid,
}

impl Verdict {
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Green => "ok",
            Self::Limit => "limit",
            Self::Violation => "BROKEN",
            Self::Invalid => "INVALID",
        }
    }
}

/// A cell that was run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) cell: Cell,
    pub(crate) verdict: Verdict,
    pub(crate) report: Report,
    pub(crate) events: Vec<Event>,
    pub(crate) log: Vec<store::Entry>,
    /// Why the scenario did not come to its end.
    pub(crate) error: Option<String>,
    pub(crate) took: Duration,
    /// Whether an earlier run was invalid.
    pub(crate) repeated: bool,
}

/// The servers of a lane, by what they are.
#[derive(Default)]
pub(crate) struct Lane(HashMap<(Backend, Boot), Servers>);

impl Lane {
    fn servers(&mut self, backend: Backend, boot: Boot) -> Result<&Servers> {
        let wanted = (backend.soil(), boot);
        // Only those of the present cell live, so that two lanes fit into the memory of a small machine.
        self.0.retain(|running, servers| *running == wanted && servers.mend().is_ok());
        Ok(match self.0.entry(wanted) {
            Entry::Occupied(running) => running.into_mut(),
            // On a machine that does much else a cluster may not come together in time.
            Entry::Vacant(none) => {
                none.insert(Servers::start(backend, boot).or_else(|_| Servers::start(backend, boot))?)
            }
        })
    }
}

/// Runs one cell; again, on new servers, if a run was invalid.
pub(crate) fn cell(lane: &mut Lane, store: &Store, cell: &Cell, seed: u64) -> Result<Outcome> {
    const RUNS: u32 = 3;
    let mut outcome = once(lane, store, cell, seed)?;
    for _ in 1..RUNS {
        if outcome.verdict != Verdict::Invalid {
            break;
        }
        // Whatever kept it from being valid may lie in the servers.
        lane.0.clear();
        let again = once(lane, store, cell, seed)?;
        outcome = Outcome { repeated: true, took: outcome.took + again.took, ..again };
    }
    Ok(outcome)
}

fn once(lane: &mut Lane, store: &Store, cell: &Cell, seed: u64) -> Result<Outcome> {
    let started = Instant::now();
    let servers =
        lane.servers(cell.backend, cell.boot).with_context(|| format!("servers for {}", cell.backend))?;
    let mut lab = Lab::new(cell.backend, servers, store, seed, cell.leases);
    lab.rules.is_calm = cell.is_calm;
    let ticker = Ticker::start(&lab.history);
    let ended = (cell.scenario)(&mut lab);
    drop(ticker);
    let (events, log) = lab.evidence()?;
    let report = checker::check(&lab.rules, &events, &log);
    let error = ended.err().map(|error| format!("{error:#}"));
    let cell = Cell { expected: servers.allow(cell.expected), ..*cell };
    let verdict = judge(cell.expected, &report, error.is_some());
    Ok(Outcome { cell, verdict, report, events, log, error, took: started.elapsed(), repeated: false })
}

/// What a machine that was too busy may spoil: these findings say nothing then.
const TIMED: [Invariant; 4] = [Invariant::Progress, Invariant::Loss, Invariant::Leaks, Invariant::Errors];

pub(crate) fn judge(expected: Expected, report: &Report, has_failed: bool) -> Verdict {
    let found = |invariant| report.findings.iter().any(|finding| finding.invariant == invariant);
    let limits = expected.limit().map_or(&[][..], |(limits, _)| limits);
    let is_invalid = found(Invariant::Valid);
    let broken = Invariant::ALL.into_iter().filter(|invariant| {
        *invariant != Invariant::Valid
            && found(*invariant)
            && !limits.contains(invariant)
            && !(is_invalid && TIMED.contains(invariant))
    });
    if broken.count() > 0 {
        return Verdict::Violation;
    }
    if is_invalid || has_failed {
        return Verdict::Invalid;
    }
    match expected {
        _ if limits.iter().any(|limit| found(*limit)) => Verdict::Limit,
        // The cell must show it.
        Expected::Limit(..) => Verdict::Invalid,
        Expected::Holds | Expected::UntilRepaired(..) => Verdict::Green,
    }
}

/// Runs `cells` in `lanes` lanes at once, and calls `done` with each outcome as it comes.
pub(crate) fn all(
    cells: &[Cell],
    lanes: usize,
    seed: u64,
    done: impl Fn(&Outcome) + Sync,
) -> Result<Vec<Outcome>> {
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}").expect("a constant");
    let bar = ProgressBar::new(cells.len() as u64).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    let order = in_order_of_servers(cells);
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let running: Mutex<Vec<String>> = Mutex::default();
    let failed = thread::scope(|scope| {
        let lane = || -> Result<()> {
            let (mut lane, store) = (Lane::default(), Store::start(true)?);
            while let Some(batch) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                for index in batch {
                    let wanted = &cells[*index];
                    let label = format!("{} on {}", wanted.name, wanted.backend);
                    running.lock().push(label.clone());
                    bar.set_message(running.lock().join(", "));
                    let outcome = cell(&mut lane, &store, wanted, seed)
                        .with_context(|| format!("row {} ({label})", wanted.row))?;
                    running.lock().retain(|other| *other != label);
                    bar.suspend(|| done(&outcome));
                    bar.inc(1);
                    outcomes.lock().push((*index, outcome));
                }
            }
            Ok(())
        };
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().filter_map(|lane| lane.join().expect("a lane does not panic").err()).next()
    });
    bar.finish_and_clear();
    if let Some(error) = failed {
        return Err(error);
    }
    let mut outcomes = outcomes.into_inner();
    outcomes.sort_by_key(|(index, _)| *index);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

/// Runs each planted bug in the cell that must catch it, and the same lock without the bug in the same cell.
pub(crate) fn planted(
    seed: u64,
    wanted: &[Bug],
    done: impl Fn(&Plant, &Outcome, &Outcome, bool),
) -> Result<bool> {
    let cells = crate::cells::all();
    let (mut lane, mut all_caught) = (Lane::default(), true);
    for plant in PLANTS.iter().filter(|plant| wanted.is_empty() || wanted.contains(&plant.bug)) {
        let bug = plant.bug;
        let row = cells.iter().find(|cell| cell.row == plant.row && bug.soil() == cell.backend);
        let row = row.or(cells.iter().find(|cell| cell.row == plant.row));
        let row = row.with_context(|| format!("there is no row {} for {bug:?}", plant.row))?;
        let with = |has| Cell { backend: Backend::Planted { bug, has }, expected: Expected::Holds, ..*row };
        // A store with a bug is a store under a lock without one.
        let store = Store::start(bug != Bug::StoreChecksWritesOnly)?;
        let bad = cell(&mut lane, &store, &with(true), seed)?;
        let good = cell(&mut lane, &Store::start(true)?, &with(false), seed)?;
        let finds = |outcome: &Outcome| {
            let found = |finding: &checker::Finding| plant.finds.contains(&finding.invariant);
            outcome.report.findings.iter().any(found)
        };
        let is_caught = bad.verdict == Verdict::Violation && finds(&bad) && good.verdict == Verdict::Green;
        all_caught &= is_caught;
        done(plant, &bad, &good, is_caught);
    }
    Ok(all_caught)
}

/// The cells in batches that share their servers, the largest first, so that lanes end at about the same time.
fn in_order_of_servers(cells: &[Cell]) -> Vec<Vec<usize>> {
    /// A batch of this size is worth a start of servers of its own.
    const BATCH: usize = 12;
    let mut shared: Vec<((Backend, Boot), Vec<usize>)> = Vec::new();
    for (index, cell) in cells.iter().enumerate() {
        let key = (cell.backend, cell.boot);
        match shared.iter_mut().find(|(other, _)| *other == key) {
            Some((_, batch)) => batch.push(index),
            None => shared.push((key, vec![index])),
        }
    }
    let mut batches: Vec<Vec<usize>> =
        shared.iter().flat_map(|(_, batch)| batch.chunks(BATCH).map(<[usize]>::to_vec)).collect();
    batches.sort_by_key(|batch| std::cmp::Reverse(batch.len()));
    batches
}

#[cfg(test)]
mod tests {
    use super::{Verdict, judge};
    use crate::{
        cells::{Expected, OLD_ETCD},
        checker::{Finding, Report},
        event::Invariant,
    };

    fn verdict(expected: Expected, found: &[Invariant], has_failed: bool) -> Verdict {
        let findings = found.iter().map(|invariant| Finding::new(*invariant, 0, "", &[])).collect();
        judge(expected, &Report { findings, ..Report::default() }, has_failed)
    }

    #[test]
    fn a_violation_is_never_excused_and_an_invalid_run_never_green() {
        const LIMIT: Expected = Expected::Limit(&[Invariant::Belief], "because");
        assert_eq!(verdict(Expected::Holds, &[], false), Verdict::Green);
        assert_eq!(verdict(Expected::Holds, &[Invariant::Valid], false), Verdict::Invalid);
        assert_eq!(verdict(Expected::Holds, &[], true), Verdict::Invalid);
        assert_eq!(
            verdict(Expected::Holds, &[Invariant::Valid, Invariant::Belief], true),
            Verdict::Violation
        );
        assert_eq!(
            verdict(Expected::Holds, &[Invariant::Valid, Invariant::Progress], true),
            Verdict::Invalid
        );
        assert_eq!(verdict(Expected::Holds, &[Invariant::Progress], false), Verdict::Violation);
        assert_eq!(verdict(LIMIT, &[Invariant::Belief], false), Verdict::Limit);
        assert_eq!(verdict(LIMIT, &[Invariant::Belief, Invariant::Fencing], false), Verdict::Violation);
        assert_eq!(verdict(LIMIT, &[], false), Verdict::Invalid, "the limit was not shown");
        assert_eq!(verdict(OLD_ETCD, &[Invariant::Belief], false), Verdict::Limit);
        assert_eq!(verdict(OLD_ETCD, &[Invariant::Fencing], false), Verdict::Violation);
        assert_eq!(verdict(OLD_ETCD, &[], false), Verdict::Green, "it does not show in each run");
    }
}
