//! Walks a model breadth first and remembers the way to each state: for shortest traces, and for what must stay
//! possible, which the checker cannot tell where steps go round in circles.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use crate::protocol::{Goal, Protocol};

/// The states of a model, numbered in the order in which they were reached.
#[derive(Default)]
struct Walk {
    /// From which state each was reached first, and by which of its steps.
    ways: Vec<(u32, u16)>,
    /// Steps that are no faults, from and to.
    edges: Vec<(u32, u32)>,
    /// States in which the goal is reached.
    goals: Vec<u32>,
    /// The first state that ended the walk.
    end: Option<u32>,
}

/// Returns the steps of a shortest way to a state of which `is_end` is true, if there is one.
pub(crate) fn shortest<P: Protocol>(model: &P, is_end: impl Fn(&P::State) -> bool) -> Option<Vec<String>> {
    let walk = walk(model, model.init_states(), is_end, None);
    Some(tell(model, &walk, walk.end?))
}

/// Returns the steps of a shortest way to a state from which `goal` can be reached no more without a fault.
pub(crate) fn stuck<P: Protocol>(model: &P, goal: Goal<P::State>) -> Option<Vec<String>> {
    let walk = walk(model, model.init_states(), |_| false, Some(goal));
    let mut is_live = vec![false; walk.ways.len()];
    let mut edges = walk.edges.clone();
    edges.sort_unstable_by_key(|(_, to)| *to);
    let mut found = walk.goals.clone();
    while let Some(state) = found.pop() {
        if std::mem::replace(&mut is_live[state as usize], true) {
            continue;
        }
        let first = edges.partition_point(|(_, to)| *to < state);
        found.extend(edges[first..].iter().take_while(|(_, to)| *to == state).map(|(from, _)| *from));
    }
    let stuck = is_live.iter().position(|is_live| !is_live)?;
    Some(tell(model, &walk, u32::try_from(stuck).ok()?))
}

/// Returns whether `goal` can be reached from `state` without a fault.
pub(crate) fn can_reach<P: Protocol>(model: &P, state: &P::State, goal: Goal<P::State>) -> bool {
    let mut seen = HashMap::new();
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let mut left = vec![state.clone()];
    while let Some(state) = left.pop() {
        if (goal.1)(&state) {
            return true;
        }
        if seen.insert(hasher.hash_one(&state), ()).is_some() {
            continue;
        }
        let steps = model.next_steps(&state).into_iter();
        left.extend(steps.filter(|(action, _)| !model.is_fault(action)).map(|(_, after)| after));
    }
    false
}

fn walk<P: Protocol>(
    model: &P,
    firsts: Vec<P::State>,
    is_end: impl Fn(&P::State) -> bool,
    goal: Option<Goal<P::State>>,
) -> Walk {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let mut numbers: HashMap<u64, u32> = HashMap::new();
    let mut walk = Walk::default();
    let mut left = VecDeque::new();
    let mut reach = |walk: &mut Walk, left: &mut VecDeque<_>, state: P::State, way| {
        let next = u32::try_from(walk.ways.len()).expect("so many states do not fit the memory");
        let number = *numbers.entry(hasher.hash_one(&state)).or_insert(next);
        if number == next {
            walk.ways.push(way);
            walk.goals.extend(goal.filter(|(_, is_reached)| is_reached(&state)).map(|_| number));
            if is_end(&state) {
                walk.end.get_or_insert(number);
            }
            left.push_back((number, state));
        }
        number
    };
    for state in firsts {
        reach(&mut walk, &mut left, state, (0, 0));
    }
    let mut actions = Vec::new();
    while let Some((number, state)) = left.pop_front()
        && walk.end.is_none()
    {
        model.actions(&state, &mut actions);
        for (action, step) in actions.drain(..).zip(0..) {
            let is_fault = model.is_fault(&action);
            let Some(after) = model.next_state(&state, action) else { continue };
            let to = reach(&mut walk, &mut left, after, (number, step));
            if goal.is_some() && !is_fault {
                walk.edges.push((number, to));
            }
        }
    }
    walk
}

/// Tells the steps that lead to a state.
fn tell<P: Protocol>(model: &P, walk: &Walk, mut number: u32) -> Vec<String> {
    let mut steps = Vec::new();
    while number != 0 {
        let (from, step) = walk.ways[number as usize];
        steps.push(step);
        number = from;
    }
    let mut state = model.init_states().swap_remove(0);
    let mut told = Vec::new();
    for step in steps.into_iter().rev() {
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        let action = actions.swap_remove(usize::from(step));
        told.push(model.tell(&state, &action));
        state = model.next_state(&state, action).expect("the step was taken before");
    }
    told
}
