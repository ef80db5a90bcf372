//! Runs the checker over one model, and says what it found.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use stateright::{Checker, Expectation, HasDiscoveries};

use crate::{
    graph,
    protocol::{Goal, Protocol, names, steps},
};

/// How many threads the checker uses; with one, it finds the same things in the same order each time.
pub type Threads = usize;

/// Is told from time to time how many states were seen.
pub type Progress<'a> = &'a dyn Fn(usize);

/// Says what the checker found in one model.
#[derive(Debug)]
pub struct Report {
    /// How many different states were visited.
    pub states: usize,
    /// How many steps the longest of the shortest ways to a state has, the first state included.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// Properties that must always hold, and do not.
    pub refuted: BTreeSet<&'static str>,
    /// What should be possible, and was not seen.
    pub unseen: BTreeSet<&'static str>,
}

/// What is asked of a model, whatever its types are.
pub(crate) trait Explore: Send + Sync {
    fn properties(&self) -> Vec<&'static str>;
    /// Checks the properties until `ends`, and those of the `goals` that the model has.
    fn explore(
        &self,
        ends: HasDiscoveries,
        goals: &[&str],
        threads: Threads,
        progress: Progress<'_>,
    ) -> Report;
    fn shortest(&self, property: &'static str) -> Result<Vec<String>>;
    fn replay(&self, lines: &[String], property: &'static str) -> Result<()>;
}

impl<P: Protocol> Explore for P {
    fn properties(&self) -> Vec<&'static str> {
        let goals = self.goals().into_iter().map(|(name, _)| name);
        names(self, &Expectation::Always).into_iter().chain(goals).collect()
    }

    fn explore(
        &self,
        ends: HasDiscoveries,
        goals: &[&str],
        threads: Threads,
        progress: Progress<'_>,
    ) -> Report {
        let started = Instant::now();
        let mut checker = self.clone().checker().threads(threads).finish_when(ends).spawn_bfs();
        let running = checker.handles();
        while !running.iter().all(thread::JoinHandle::is_finished) {
            progress(checker.unique_state_count());
            thread::sleep(Duration::from_millis(20));
        }
        for thread in running {
            thread.join().expect("the model panicked");
        }
        let goals = self.goals().into_iter().filter(|(name, _)| goals.contains(name));
        let stuck = goals.filter(|goal| graph::stuck(self, *goal).is_some()).map(|(name, _)| name);
        let stuck: Vec<_> = stuck.collect();
        let time = started.elapsed();
        let found: BTreeSet<_> = checker.discoveries().into_keys().collect();
        let of = |expectation| names(self, &expectation).into_iter();
        Report {
            states: checker.unique_state_count(),
            depth: checker.max_depth(),
            time,
            refuted: of(Expectation::Always).filter(|name| found.contains(name)).chain(stuck).collect(),
            unseen: of(Expectation::Sometimes).filter(|name| !found.contains(name)).collect(),
        }
    }

    fn shortest(&self, property: &'static str) -> Result<Vec<String>> {
        let model = &self.without_symmetry();
        let found = match goal(model, property) {
            Some(goal) => graph::stuck(model, goal),
            None => {
                let condition = model.property(property).condition;
                graph::shortest(model, |state| !condition(model, state))
            }
        };
        found.with_context(|| format!("nothing refutes {property:?}"))
    }

    fn replay(&self, lines: &[String], property: &'static str) -> Result<()> {
        let model = &self.without_symmetry();
        let [mut state] = <[_; 1]>::try_from(model.init_states()).ok().context("one state is the first")?;
        let is_kept = |state: &P::State| match goal(model, property) {
            Some(goal) => graph::can_reach(model, state, goal),
            None => (model.property(property).condition)(model, state),
        };
        for (index, line) in lines.iter().enumerate() {
            ensure!(is_kept(&state), "the property is false before line {}", index + 1);
            let possible = steps(model, &state);
            let mut chosen = possible.iter().filter(|(told, _)| told == line);
            state = match (chosen.next(), chosen.next()) {
                (Some((_, after)), None) => after.clone(),
                (Some(_), Some(_)) => bail!("line {}, {line:?}, may mean several things", index + 1),
                (None, _) => {
                    let told: Vec<_> = possible.iter().map(|(told, _)| told.as_str()).collect();
                    bail!("line {}, {line:?}, is not possible; these are:\n{}", index + 1, told.join("\n"));
                }
            };
        }
        ensure!(!is_kept(&state), "the property is true at the end of the trace");
        Ok(())
    }
}

fn goal<P: Protocol>(model: &P, name: &str) -> Option<Goal<P::State>> {
    model.goals().into_iter().find(|(goal, _)| *goal == name)
}
