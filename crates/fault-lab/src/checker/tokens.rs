//! Tokens are unique, grow from each hold to the next that began after it, and follow the queue where there is one.

use std::collections::HashMap;

use crate::event::{Invariant, Nanos};

use super::{Attempt, Finding, Rules};

pub(super) fn check(attempts: &[Attempt], rules: &Rules) -> Vec<Finding> {
    let mut locks: HashMap<&str, Vec<&Attempt>> = HashMap::new();
    for attempt in attempts.iter().filter(|attempt| attempt.acquired.is_some()) {
        locks.entry(&attempt.lock).or_default().push(attempt);
    }
    locks.into_values().flat_map(|holds| of_one_lock(holds, rules)).collect()
}

fn of_one_lock(mut holds: Vec<&Attempt>, rules: &Rules) -> Vec<Finding> {
    let mut findings = Vec::new();
    let granted = |hold: &Attempt| hold.acquired.expect("only holds are here");
    let mut tokens = HashMap::new();
    for hold in &holds {
        let (at, token) = granted(hold);
        if let Some(other) = tokens.insert(token, hold.number) {
            let text = format!("token {token} was given twice");
            findings.push(Finding::new(Invariant::Tokens, at, text, &[other, hold.number]));
        }
    }

    // Those that had returned when another was called, by the largest of their tokens.
    let mut by_return = holds.clone();
    by_return.sort_by_key(|hold| granted(hold).0);
    holds.sort_by_key(|hold| hold.invoked);
    let (mut returned, mut largest): (usize, Option<(u64, u64)>) = (0, None);
    for hold in &holds {
        while let Some(earlier) = by_return.get(returned).filter(|earlier| granted(earlier).0 < hold.invoked)
        {
            largest = largest.max(Some((granted(earlier).1, earlier.number)));
            returned += 1;
        }
        let (at, token) = granted(hold);
        if let Some((before, other)) = largest
            && token < before
        {
            let text = format!("token {token} was given after {before} had been");
            findings.push(Finding::new(Invariant::Tokens, at, text, &[other, hold.number]));
        }
    }

    if rules.is_calm || rules.queues_by_token {
        let invariant = if rules.queues_by_token { Invariant::Order } else { Invariant::Tokens };
        let mut last: Option<(Nanos, u64, u64)> = None;
        for hold in by_return {
            let (at, token) = granted(hold);
            if let Some((_, before, other)) = last
                && token < before
            {
                let text = format!("token {token} was granted after token {before}");
                findings.push(Finding::new(invariant, at, text, &[other, hold.number]));
            }
            last = last.max(Some((at, token, hold.number)));
        }
    }
    findings
}
