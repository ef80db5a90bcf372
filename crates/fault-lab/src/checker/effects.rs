//! What became of the resource: no stale token was accepted, and no update is lost.

use std::collections::{HashMap, HashSet};

use crate::{
    event::Invariant,
    store::{Action, Entry},
};

use super::{Attempt, Finding};

#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) findings: Vec<Finding>,
    pub(super) refused: usize,
    pub(super) lost_in_plain: usize,
}

#[derive(Default)]
struct Object {
    largest: Option<u64>,
    register: u64,
    elements: HashSet<u64>,
}

/// Replays `log`. Without a fault that may make work overlap, the plain store must not lose updates either.
pub(super) fn check(attempts: &[Attempt], log: &[Entry], is_calm: bool) -> Effects {
    let mut effects = Effects::default();
    let mut objects: HashMap<(bool, &str), Object> = HashMap::new();
    let mut executed = HashMap::new();
    for Entry { at, request, accepted, .. } in log {
        executed.insert(request.number, *accepted);
        let object = objects.entry((request.checking, request.object.as_str())).or_default();
        let is_stale = object.largest.is_some_and(|largest| request.token < largest);
        let found = |invariant, text| Finding::new(invariant, *at, text, &[request.attempt]);
        if !accepted {
            effects.refused += 1;
            if !is_stale {
                effects
                    .findings
                    .push(found(Invariant::Fencing, "a token was refused that was not stale".to_owned()));
            }
            continue;
        }
        if request.checking {
            if is_stale {
                let largest = object.largest.unwrap_or_default();
                let text = format!("token {} was accepted after {largest}", request.token);
                effects.findings.push(found(Invariant::Fencing, text));
            }
            object.largest = object.largest.max(Some(request.token));
        }
        match request.action {
            Action::Read => {}
            Action::Write(value) => {
                if value != object.register + 1 {
                    let text = format!("{value} was written over {}: an update is lost", object.register);
                    if request.checking || is_calm {
                        effects.findings.push(found(Invariant::Updates, text));
                    } else {
                        effects.lost_in_plain += 1;
                    }
                }
                object.register = value;
            }
            Action::Append(element) => {
                if !object.elements.insert(element) {
                    let text = format!("element {element} was appended twice");
                    effects.findings.push(found(Invariant::Updates, text));
                }
            }
        }
    }
    for attempt in attempts {
        for (request, _, sent, accepted) in &attempt.asked {
            if *accepted == Some(true) && executed.get(request) != Some(&true) {
                let text = "a request was acknowledged that the store does not know".to_owned();
                effects.findings.push(Finding::new(Invariant::Updates, *sent, text, &[attempt.number]));
            }
        }
    }
    effects
}
