//! From events to attempts with their beliefs, and the sweep that finds beliefs that overlap.

use std::collections::{BTreeMap, HashMap};

use crate::event::{Event, How, Invariant, MS, Nanos, What};

use super::Finding;

/// All that was written down of one attempt to acquire a lock.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) number: u64,
    pub(crate) agent: u32,
    pub(crate) lock: String,
    pub(crate) how: How,
    pub(crate) invoked: Nanos,
    /// When it returned a guard, and the token.
    pub(crate) acquired: Option<(Nanos, u64)>,
    /// When it ended without one, and the kind of error.
    pub(crate) refused: Option<(Nanos, String)>,
    /// Each deadline, and when it was first seen.
    pub(crate) deadlines: Vec<(Nanos, Nanos)>,
    pub(crate) not_held: Option<Nanos>,
    pub(crate) lost: Option<Nanos>,
    pub(crate) revived: Option<Nanos>,
    /// When a release began, or the guard was dropped.
    pub(crate) let_go: Option<Nanos>,
    pub(crate) released: Option<(Nanos, Option<String>)>,
    pub(crate) killed: Option<Nanos>,
    pub(crate) worked: Option<(Nanos, Nanos)>,
    /// Requests to the store: when the guard was asked, and when the request was sent.
    pub(crate) asked: Vec<(u64, Nanos, Nanos, Option<bool>)>,
    /// Times in which its process was stopped, or late.
    pub(crate) held_up: Vec<(Nanos, Nanos)>,
}

impl Attempt {
    /// The belief: from the return of the acquire to the first of release, loss, death and deadline.
    pub(crate) fn belief(&self) -> Option<(Nanos, Nanos)> {
        let (start, _) = self.acquired?;
        let ends = [self.let_go, self.not_held, self.lost, self.killed, self.deadline()];
        Some((start, ends.into_iter().flatten().min().unwrap_or(Nanos::MAX).max(start)))
    }

    /// The last deadline that was seen.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        self.deadlines.last().map(|(_, until)| *until)
    }

    /// When it was over, whatever came of it.
    pub(crate) fn ended(&self) -> Nanos {
        let refused = self.refused.as_ref().map(|(at, _)| *at);
        refused.or(self.belief().map(|(_, end)| end)).or(self.killed).unwrap_or(Nanos::MAX)
    }

    /// When a whole round of acquire and release ended.
    pub(crate) fn cycle_ended(&self) -> Option<Nanos> {
        let (_, _) = self.acquired?;
        self.released.as_ref().filter(|(_, error)| error.is_none()).map(|(at, _)| *at)
    }
}

/// Collects the attempts, in the order in which they were invoked.
pub(crate) fn attempts(events: &[Event]) -> Vec<Attempt> {
    let mut found: BTreeMap<u64, Attempt> = BTreeMap::new();
    let (mut stops, mut gaps) = (HashMap::new(), Vec::new());
    // An agent's number is in the upper half of the numbers of its process's attempts.
    let process = |attempt: u64| (attempt >> 32) as u32;
    for Event { at, agent, what } in events {
        let at = *at;
        if let What::Invoked { attempt, lock, how } = what {
            let new = Attempt {
                number: *attempt,
                agent: *agent,
                lock: lock.clone(),
                how: *how,
                invoked: at,
                acquired: None,
                refused: None,
                deadlines: Vec::new(),
                not_held: None,
                lost: None,
                revived: None,
                let_go: None,
                released: None,
                killed: None,
                worked: None,
                asked: Vec::new(),
                held_up: Vec::new(),
            };
            found.insert(*attempt, new);
            continue;
        }
        match what {
            What::Killed { agent } => {
                let theirs = found.values_mut().filter(|attempt| process(attempt.number) == *agent);
                theirs.for_each(|attempt| attempt.killed = Some(at));
            }
            What::Stopped { agent, stopped: true } => drop(stops.insert(*agent, at)),
            What::Stopped { agent, stopped: false } => {
                gaps.push((*agent, stops.remove(agent).unwrap_or(at), at + 20 * MS));
            }
            What::Gap { nanos } => gaps.push((*agent, at - nanos, at)),
            _ => {}
        }
        let (What::Acquired { attempt, .. }
        | What::Busy { attempt }
        | What::Failed { attempt, .. }
        | What::Deadline { attempt, .. }
        | What::Lost { attempt }
        | What::NotHeld { attempt, .. }
        | What::Revived { attempt }
        | What::Releasing { attempt }
        | What::Released { attempt, .. }
        | What::Dropped { attempt }
        | What::Entered { attempt }
        | What::Left { attempt }
        | What::Asked { attempt, .. }) = what
        else {
            continue;
        };
        let Some(it) = found.get_mut(attempt) else { continue };
        match what {
            What::Acquired { token, until, .. } => {
                it.acquired = Some((at, *token));
                it.deadlines.push((at, *until));
            }
            What::Busy { .. } => it.refused = Some((at, "Busy".to_owned())),
            What::Failed { kind, .. } => it.refused = Some((at, kind.clone())),
            What::Deadline { until, .. } => it.deadlines.push((at, *until)),
            What::Lost { .. } => it.lost = it.lost.or(Some(at)),
            What::NotHeld { .. } => it.not_held = it.not_held.or(Some(at)),
            What::Revived { .. } => it.revived = it.revived.or(Some(at)),
            What::Releasing { .. } | What::Dropped { .. } => it.let_go = it.let_go.or(Some(at)),
            What::Released { error, .. } => {
                it.released = Some((at, error.as_ref().map(|(kind, _)| kind.clone())));
            }
            What::Entered { .. } => it.worked = Some((at, Nanos::MAX)),
            What::Left { .. } => it.worked = it.worked.map(|(entered, _)| (entered, at)),
            What::Asked { request, checked, sent, accepted, .. } => {
                it.asked.push((*request, *checked, *sent, *accepted));
            }
            _ => {}
        }
    }
    for attempt in found.values_mut() {
        let own = gaps.iter().filter(|(agent, ..)| [attempt.agent, process(attempt.number)].contains(agent));
        attempt.held_up = own.map(|(_, from, to)| (*from, *to)).collect();
        if let (Some((_, end)), Some(killed)) = (&mut attempt.worked, attempt.killed) {
            *end = (*end).min(killed);
        }
    }
    let mut attempts: Vec<_> = found.into_values().collect();
    attempts.sort_by_key(|attempt| attempt.invoked);
    attempts
}

/// Finds intervals of different attempts on one lock that overlap: beliefs, or the work under the lock.
pub(crate) fn overlaps(attempts: &[Attempt], invariant: Invariant) -> Vec<Finding> {
    let mut locks: HashMap<&str, Vec<(Nanos, Nanos, u64)>> = HashMap::new();
    for attempt in attempts {
        let interval = match invariant {
            Invariant::Belief => attempt.belief(),
            _ => attempt.worked,
        };
        if let Some((start, end)) = interval {
            locks.entry(&attempt.lock).or_default().push((start, end, attempt.number));
        }
    }
    let mut findings = Vec::new();
    for (lock, mut intervals) in locks {
        intervals.sort_unstable();
        // The interval that reaches furthest so far: whatever begins before its end overlaps with it.
        let mut furthest: Option<(Nanos, u64)> = None;
        for (start, end, number) in intervals {
            if let Some((until, other)) = furthest
                && start < until
            {
                let what = if invariant == Invariant::Belief { "believed to hold" } else { "worked under" };
                let text = format!("two {what} {lock:?} for {} µs at once", (until.min(end) - start) / 1_000);
                findings.push(Finding::new(invariant, start, text, &[other, number]));
            }
            if furthest.is_none_or(|(until, _)| end > until) {
                furthest = Some((end, number));
            }
        }
    }
    findings
}

/// Finds requests that were sent though the guard, when it was asked, had ended; acquires that were over when they
/// returned; and beliefs that came back.
pub(crate) fn late(attempts: &[Attempt]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for attempt in attempts {
        let mut late =
            |at, text: String| findings.push(Finding::new(Invariant::ActsLate, at, text, &[attempt.number]));
        if let (Some((at, _)), Some((_, 0))) = (attempt.acquired, attempt.deadlines.first()) {
            late(at, "an acquire returned a lock that was over already".to_owned());
        }
        if let Some(at) = attempt.revived {
            late(at, "a lock that was lost was held again".to_owned());
        }
        for (_, checked, _, _) in &attempt.asked {
            let ended = attempt.not_held.filter(|at| at < checked);
            // What was seen later may be an extension that nobody had seen by then.
            let passed = attempt.deadline().filter(|until| until < checked);
            if let Some(end) = ended.or(passed) {
                late(
                    *checked,
                    format!("a request was sent {} µs after the end of the belief", (checked - end) / 1_000),
                );
            }
        }
    }
    findings
}

/// Finds releases that claim that the lock was held until then, when another had acquired it meanwhile.
pub(crate) fn owners(attempts: &[Attempt]) -> Vec<Finding> {
    let mut acquired: HashMap<&str, Vec<(Nanos, u64)>> = HashMap::new();
    for attempt in attempts {
        if let Some((at, _)) = attempt.acquired {
            acquired.entry(&attempt.lock).or_default().push((at, attempt.number));
        }
    }
    acquired.values_mut().for_each(|those| those.sort_unstable());
    let mut findings = Vec::new();
    for attempt in attempts {
        let (Some((start, _)), Some(end), Some((at, None))) =
            (attempt.acquired, attempt.let_go, &attempt.released)
        else {
            continue;
        };
        let others = &acquired[attempt.lock.as_str()];
        let from = others.partition_point(|other| *other <= (start, attempt.number));
        if let Some((_, other)) = others[from..].iter().take_while(|(other, _)| *other < end).next() {
            let text = "a release succeeded, though another had acquired the lock before".to_owned();
            findings.push(Finding::new(Invariant::Owner, *at, text, &[attempt.number, *other]));
        }
    }
    findings
}

/// The faults of a run, in the order of time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(pub(crate) Vec<FaultTime>);

#[derive(Clone, Debug)]
pub(crate) struct FaultTime {
    pub(crate) name: String,
    pub(crate) began: Nanos,
    pub(crate) ended: Nanos,
    pub(crate) proofs: Vec<String>,
}

impl Faults {
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut faults: Vec<FaultTime> = Vec::new();
        for event in events {
            match &event.what {
                What::FaultBegan { fault } => {
                    let (name, began) = (fault.clone(), event.at);
                    faults.push(FaultTime { name, began, ended: Nanos::MAX, proofs: Vec::new() });
                }
                What::FaultFired { fault, proof } => {
                    if let Some(named) = faults.iter_mut().rev().find(|named| named.name == *fault) {
                        named.proofs.push(proof.clone());
                    }
                }
                What::FaultEnded { fault } => {
                    let ends = |open: &&mut FaultTime| open.name == *fault && open.ended == Nanos::MAX;
                    if let Some(open) = faults.iter_mut().find(ends) {
                        open.ended = event.at;
                    }
                }
                _ => {}
            }
        }
        Self(faults)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn first(&self) -> Option<Nanos> {
        self.0.iter().map(|fault| fault.began).min()
    }

    pub(super) fn last(&self) -> Option<Nanos> {
        self.0.iter().map(|fault| fault.ended).max()
    }

    pub(super) fn fired(&self) -> usize {
        self.0.iter().filter(|fault| !fault.proofs.is_empty()).count()
    }

    pub(super) fn without_proof(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|fault| fault.proofs.is_empty()).map(|fault| fault.name.as_str())
    }

    /// Whether something was broken between two instants.
    pub(super) fn touch(&self, from: Nanos, to: Nanos) -> bool {
        self.0.iter().any(|fault| fault.began <= to && from <= fault.ended)
    }

    /// When all was whole again that was broken at `from` or broke before `to`; none if something is broken at `to`.
    pub(super) fn whole_since(&self, from: Nanos, to: Nanos) -> Option<Nanos> {
        let met = || self.0.iter().filter(|fault| fault.began <= to && from <= fault.ended);
        if met().any(|fault| fault.ended > to) {
            return None;
        }
        Some(met().map(|fault| fault.ended).fold(from, Nanos::max))
    }
}
