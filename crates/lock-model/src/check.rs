//! Runs the checker over one model, and says what it found.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use stateright::{Checker, CheckerBuilder, Expectation, HasDiscoveries};

use crate::protocol::{Protocol, names, steps};

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
    fn explore(&self, ends: HasDiscoveries, threads: Threads, progress: Progress<'_>) -> Report;
    fn shortest(&self, property: &'static str) -> Result<Vec<String>>;
    fn replay(&self, lines: &[String], property: &str) -> Result<()>;
}

impl<P: Protocol> Explore for P {
    fn properties(&self) -> Vec<&'static str> {
        names(self, &Expectation::Always)
    }

    fn explore(&self, ends: HasDiscoveries, threads: Threads, progress: Progress<'_>) -> Report {
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
        let time = started.elapsed();
        let found: BTreeSet<_> = checker.discoveries().into_keys().collect();
        let of = |expectation| names(self, &expectation).into_iter();
        Report {
            states: checker.unique_state_count(),
            depth: checker.max_depth(),
            time,
            refuted: of(Expectation::Always).filter(|name| found.contains(name)).collect(),
            unseen: of(Expectation::Sometimes).filter(|name| !found.contains(name)).collect(),
        }
    }

    /// Looks for ever shorter ways, since the checker goes on for a while after it found the first.
    fn shortest(&self, property: &'static str) -> Result<Vec<String>> {
        let find = |limit: Option<usize>| {
            let until = HasDiscoveries::AnyOf([property].into());
            let checker = self.clone().checker().finish_when(until);
            let checker = limit.into_iter().fold(checker, CheckerBuilder::target_max_depth);
            Some(checker.spawn_bfs().join().discovery(property)?.into_vec())
        };
        let mut path = find(None).with_context(|| format!("nothing refutes {property:?}"))?;
        while let Some(shorter) = find(Some(path.len())) {
            path = shorter;
        }
        Ok(path.iter().filter_map(|(state, action)| Some(self.tell(state, action.as_ref()?))).collect())
    }

    fn replay(&self, lines: &[String], property: &str) -> Result<()> {
        let [mut state] = <[_; 1]>::try_from(self.init_states()).ok().context("one state is the first")?;
        let property =
            self.properties().into_iter().find(|p| p.name == property).context("no such property")?;
        for (index, line) in lines.iter().enumerate() {
            ensure!((property.condition)(self, &state), "the property is false before line {}", index + 1);
            let possible = steps(self, &state);
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
        ensure!(!(property.condition)(self, &state), "the property is true at the end of the trace");
        Ok(())
    }
}
