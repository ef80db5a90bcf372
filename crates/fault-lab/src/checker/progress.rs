//! Those who wait are served in time, and those who lose are told in time.

use std::collections::HashMap;

use crate::event::{Event, How, Invariant, MS, Nanos, What};

use super::{Attempt, Faults, Finding, Rules};

/// How late `lost()` may be while the process gets to run.
const LATEST_LOSS: Nanos = 50 * MS;

#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) findings: Vec<Finding>,
    pub(super) longest_gap: Nanos,
    pub(super) latest_loss: Nanos,
}

pub(super) fn check(rules: &Rules, attempts: &[Attempt], faults: &Faults, events: &[Event]) -> Progress {
    let mut progress = Progress::default();
    let end = events.iter().find(|event| event.what == What::Ceased).or(events.last());
    let end = end.map_or(0, |event| event.at);
    let mut locks: HashMap<&str, Vec<&Attempt>> = HashMap::new();
    for attempt in attempts {
        locks.entry(&attempt.lock).or_default().push(attempt);
    }
    for on_lock in locks.values() {
        gaps(rules, on_lock, faults, end, &mut progress);
    }
    for attempt in attempts {
        losses(attempt, &mut progress);
    }
    progress
}

/// Looks at the times in which a lock is free while somebody waits.
fn gaps(rules: &Rules, attempts: &[&Attempt], faults: &Faults, end: Nanos, progress: &mut Progress) {
    let mut holds: Vec<_> = attempts.iter().filter_map(|attempt| attempt.belief()).collect();
    holds.sort_unstable();
    let mut free_since = 0;
    // The end stands for a holder who never came.
    for (start, until) in holds.into_iter().chain([(end, end)]) {
        let waits = |attempt: &&&Attempt| attempt.how == How::Wait && attempt.ended().min(end) >= start;
        let waiting = attempts
            .iter()
            .filter(waits)
            .filter(|attempt| attempt.invoked < start && attempt.acquired.is_none_or(|(at, _)| at >= start));
        if let Some(eldest) = waiting.map(|attempt| attempt.invoked).min()
            && let Some(since) = faults.whole_since(free_since.max(eldest), start)
        {
            let gap = start.saturating_sub(since);
            progress.longest_gap = progress.longest_gap.max(gap);
            if gap > rules.ttl + rules.patience {
                let text = format!("nobody was served for {} ms while somebody waited", gap / MS);
                progress.findings.push(Finding::new(Invariant::Progress, start, text, &[]));
            }
        }
        free_since = free_since.max(until.min(end));
    }
}

/// Looks at how late a loss by deadline was told.
fn losses(attempt: &Attempt, progress: &mut Progress) {
    let (Some((_, over)), Some(deadline)) = (attempt.belief(), attempt.deadline()) else { return };
    // The guard was let go before, or the process was gone.
    if over < deadline
        || attempt.let_go.is_some_and(|at| at < deadline + LATEST_LOSS)
        || attempt.killed.is_some()
    {
        return;
    }
    let is_held_up =
        attempt.held_up.iter().any(|(from, to)| *from < deadline + LATEST_LOSS && deadline < *to);
    if is_held_up {
        return;
    }
    let late = |at: Option<Nanos>| at.map(|at| at.saturating_sub(deadline));
    match late(attempt.lost) {
        Some(late) => {
            progress.latest_loss = progress.latest_loss.max(late);
            if late > LATEST_LOSS {
                let text = format!("lost() came {} ms after the deadline", late / MS);
                progress.findings.push(Finding::new(
                    Invariant::Loss,
                    deadline + late,
                    text,
                    &[attempt.number],
                ));
            }
        }
        // Seen by the next question, at least.
        None if attempt.not_held.is_some() => {
            let text = "lost() never came, though the lock was lost".to_owned();
            progress.findings.push(Finding::new(Invariant::Loss, deadline, text, &[attempt.number]));
        }
        None => {}
    }
}
