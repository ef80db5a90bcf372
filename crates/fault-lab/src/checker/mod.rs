//! Decides whether a history keeps the promises of the locks: pure functions over what was written down.

mod attempts;
mod effects;
mod linear;
mod progress;
mod tokens;

use std::time::Duration;

use crate::{
    backend::Backend,
    event::{Event, Invariant, LAB, Nanos, What},
    lab::ENOUGH,
    store::Entry,
};

pub(crate) use attempts::{Attempt, Faults, attempts};

/// What holds for the locks of a cell.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) ttl: Nanos,
    /// Grants follow tokens: the queue draws them.
    pub(crate) queues_by_token: bool,
    /// No pause, clock or loss of memory is injected, so that work never overlaps, and tokens follow the grants.
    pub(crate) is_calm: bool,
    /// How late a waiter may be served after all is whole, over the TTL.
    pub(crate) patience: Nanos,
    /// Rounds before and after the fault without which a run shows nothing.
    pub(crate) enough: usize,
}

impl Rules {
    pub(crate) fn of(backend: Backend, ttl: Duration) -> Self {
        Self {
            ttl: ttl.as_nanos() as Nanos,
            queues_by_token: backend.queues_by_token(),
            is_calm: true,
            patience: 2_000 * crate::event::MS,
            enough: ENOUGH,
        }
    }
}

/// One thing that should not be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) invariant: Invariant,
    pub(crate) at: Nanos,
    pub(crate) text: String,
    pub(crate) attempts: Vec<u64>,
}

impl Finding {
    pub(crate) fn new(invariant: Invariant, at: Nanos, text: impl Into<String>, attempts: &[u64]) -> Self {
        Self { invariant, at, text: text.into(), attempts: attempts.to_vec() }
    }
}

/// What was done in a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) cycles: usize,
    pub(crate) before: usize,
    /// Attempts that were under way, or held, while something was broken.
    pub(crate) during: usize,
    pub(crate) after: usize,
    pub(crate) faults: usize,
    /// Requests that the checking store refused.
    pub(crate) refused: usize,
    /// Updates that the plain store lost.
    pub(crate) lost_updates: usize,
    /// The longest time from a lock that is free to its next holder, while somebody waited and all was whole.
    pub(crate) longest_gap: Nanos,
    /// The latest `lost()` after the deadline of a hold whose process was not held up.
    pub(crate) latest_loss: Nanos,
    /// The longest time for which the lab did not get to run.
    pub(crate) starved: Nanos,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
    pub(crate) counts: Counts,
}

/// Checks everything. `events` are in the order of time, `log` in that of the store.
pub(crate) fn check(rules: &Rules, events: &[Event], log: &[Entry]) -> Report {
    let faults = Faults::of(events);
    let attempts = attempts(events);
    let mut findings = Vec::new();
    let mut counts = count(&attempts, &faults, events);

    findings.extend(attempts::overlaps(&attempts, Invariant::Belief));
    if rules.is_calm {
        findings.extend(attempts::overlaps(&attempts, Invariant::Overlap));
    }
    findings.extend(attempts::late(&attempts));
    findings.extend(attempts::owners(&attempts));
    findings.extend(tokens::check(&attempts, rules));
    let effects = effects::check(&attempts, log, rules.is_calm);
    findings.extend(effects.findings);
    (counts.refused, counts.lost_updates) = (effects.refused, effects.lost_in_plain);
    let progress = progress::check(rules, &attempts, &faults, events);
    findings.extend(progress.findings);
    (counts.longest_gap, counts.latest_loss) = (progress.longest_gap, progress.latest_loss);
    findings.extend(linear::check(&attempts, rules.is_calm));
    findings.extend(expectations(events));
    findings.extend(valid(rules, &faults, &counts, events));
    findings.sort_by_key(|finding| (finding.at, finding.invariant));
    Report { findings, counts }
}

fn count(attempts: &[Attempt], faults: &Faults, events: &[Event]) -> Counts {
    let cycles = || attempts.iter().filter_map(|attempt| attempt.cycle_ended());
    let (first, last) = (faults.first(), faults.last());
    Counts {
        cycles: cycles().count(),
        before: cycles().filter(|at| first.is_none_or(|first| *at < first)).count(),
        after: cycles().filter(|at| last.is_some_and(|last| *at > last)).count(),
        during: attempts.iter().filter(|attempt| faults.touch(attempt.invoked, attempt.ended())).count(),
        faults: faults.fired(),
        starved: starved(events),
        ..Counts::default()
    }
}

/// How long the lab did not get to run.
fn starved(events: &[Event]) -> Nanos {
    let gaps = events.iter().filter(|event| event.agent == LAB);
    gaps.filter_map(|event| if let What::Gap { nanos } = event.what { Some(nanos) } else { None })
        .max()
        .unwrap_or(0)
}

/// What scenarios state for themselves.
fn expectations(events: &[Event]) -> impl Iterator<Item = Finding> {
    events.iter().filter_map(|event| match &event.what {
        What::Expected { invariant, holds: false, text } => {
            Some(Finding::new(*invariant, event.at, format!("expected that {text}"), &[]))
        }
        _ => None,
    })
}

/// Whether the run shows anything.
fn valid(rules: &Rules, faults: &Faults, counts: &Counts, events: &[Event]) -> Vec<Finding> {
    let end = events.last().map_or(0, |event| event.at);
    let mut findings = Vec::new();
    let mut invalid = |text: String| findings.push(Finding::new(Invariant::Valid, end, text, &[]));
    if faults.is_empty() {
        invalid("no fault was injected".to_owned());
    }
    for fault in faults.without_proof() {
        invalid(format!("nothing shows that the fault fired: {fault}"));
    }
    for (when, count, least) in [
        ("rounds before the fault", counts.before, rules.enough),
        ("attempts during the fault", counts.during, 1),
        ("rounds after the fault", counts.after, rules.enough),
    ] {
        if count < least {
            invalid(format!("{count} {when}, and {least} would be needed"));
        }
    }
    if counts.starved > rules.ttl / 4 {
        invalid(format!("the lab did not get to run for {} ms", counts.starved / crate::event::MS));
    }
    findings
}

#[cfg(test)]
mod tests;
