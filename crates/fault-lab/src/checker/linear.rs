//! A second opinion: windows of the history must be linearizable as a mutex with tokens, by stateright's tester.

use std::{collections::HashMap, thread};

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use crate::event::{Invariant, Nanos};

use super::{Attempt, Finding};

/// The tester recurses once per operation, and its cost grows faster than the window.
const WINDOW: usize = 60;
const STACK: usize = 256 * 1024 * 1024;
/// So many windows, evenly spread, are looked at; the sweep has looked at all.
const WINDOWS: usize = 12;

/// A mutex whose grants carry growing tokens.
#[derive(Clone, Default)]
struct FencedMutex {
    owner: Option<u64>,
    last: u64,
    /// Whether tokens follow the grants.
    follows: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Acquire(u64),
    Release(u64),
}

#[derive(Clone, Debug, PartialEq)]
enum Ret {
    Token(u64),
    Done(bool),
}

impl SequentialSpec for FencedMutex {
    type Op = Op;
    type Ret = Ret;

    fn invoke(&mut self, op: &Op) -> Ret {
        match op {
            Op::Acquire(attempt) => {
                self.owner = Some(*attempt);
                Ret::Token(self.last + 1)
            }
            Op::Release(attempt) => Ret::Done(self.owner.take_if(|owner| owner == attempt).is_some()),
        }
    }

    fn is_valid_step(&mut self, op: &Op, ret: &Ret) -> bool {
        match (op, ret) {
            (Op::Acquire(attempt), Ret::Token(token)) => {
                let is_valid = self.owner.is_none() && (!self.follows || *token > self.last);
                (self.owner, self.last) = (Some(*attempt), *token);
                is_valid
            }
            (op, ret) => self.invoke(op) == *ret,
        }
    }
}

/// Checks windows of the rounds that ended well; what was lost or ran out is the sweep's alone.
pub(super) fn check(attempts: &[Attempt], follows: bool) -> Vec<Finding> {
    let mut locks: HashMap<&str, Vec<&Attempt>> = HashMap::new();
    for attempt in attempts.iter().filter(|attempt| attempt.cycle_ended().is_some()) {
        locks.entry(&attempt.lock).or_default().push(attempt);
    }
    let windows: Vec<Vec<&Attempt>> = locks.into_values().flat_map(windows).collect();
    let step = windows.len().div_ceil(WINDOWS).max(1);
    let chosen: Vec<_> = windows.into_iter().step_by(step).collect();
    thread::scope(|scope| {
        let tester = thread::Builder::new().stack_size(STACK);
        let checked = tester.spawn_scoped(scope, || {
            chosen.iter().filter(|window| !is_linearizable(window, follows)).map(finding).collect()
        });
        checked.expect("a thread for the tester").join().expect("the tester does not panic")
    })
}

fn finding(window: &Vec<&Attempt>) -> Finding {
    let numbers: Vec<_> = window.iter().map(|attempt| attempt.number).collect();
    let text = format!("{} rounds are not linearizable as those of a mutex", window.len());
    Finding::new(Invariant::Belief, window[0].invoked, text, &numbers[..2.min(numbers.len())])
}

/// Cuts the rounds of one lock into windows, by the order of their grants.
fn windows(mut rounds: Vec<&Attempt>) -> Vec<Vec<&Attempt>> {
    rounds.sort_by_key(|round| round.acquired);
    rounds.chunks(WINDOW).map(<[_]>::to_vec).collect()
}

fn is_linearizable(window: &[&Attempt], follows: bool) -> bool {
    let mut tester = LinearizabilityTester::new(FencedMutex { follows, ..FencedMutex::default() });
    let mut steps: Vec<(Nanos, usize, bool, Result<Op, Ret>)> = Vec::new();
    // Attempts that overlap are of different threads.
    let mut threads: Vec<Nanos> = Vec::new();
    let mut by_call = window.to_vec();
    by_call.sort_by_key(|round| round.invoked);
    for round in by_call {
        let ((acquired, token), (released, _)) =
            (round.acquired.expect("a round"), round.released.as_ref().expect("a round"));
        let free = threads.iter().position(|end| *end < round.invoked);
        let thread = free.unwrap_or(threads.len());
        if free.is_none() {
            threads.push(0);
        }
        threads[thread] = *released;
        let let_go = round.let_go.unwrap_or(*released);
        steps.push((round.invoked, thread, false, Ok(Op::Acquire(round.number))));
        steps.push((acquired, thread, true, Err(Ret::Token(token))));
        steps.push((let_go, thread, false, Ok(Op::Release(round.number))));
        steps.push((*released, thread, true, Err(Ret::Done(true))));
    }
    // At one instant calls come before returns, so that they count as concurrent.
    steps.sort_by_key(|(at, thread, returns, _)| (*at, *returns, *thread));
    for (_, thread, _, step) in steps {
        let taken = match step {
            Ok(op) => tester.on_invoke(thread, op).is_ok(),
            Err(ret) => tester.on_return(thread, ret).is_ok(),
        };
        if !taken {
            return false;
        }
    }
    tester.is_consistent()
}
