//! The list of all models, with what is expected of each.

use std::fmt::{self, Formatter};

use anyhow::{Result, ensure};
use stateright::HasDiscoveries;

use crate::{
    check::{Explore, Progress, Report, Threads},
    late, lease, places, queue, redlock, reservation, slots, terms, traces, votes,
};

/// When a model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// With every `cargo test`.
    Quick,
    /// By `cargo run --release -p lock-model -- all` only.
    Long,
}

/// A model at stated bounds, and what is expected of it.
pub struct Entry {
    /// A short name, under which its trace is kept.
    pub id: &'static str,
    /// What is modelled, in a line.
    pub title: &'static str,
    /// Properties that must be refuted.
    pub broken: &'static [&'static str],
    /// Properties that must hold in every state. If there are none, the checker may stop at the refutation.
    pub kept: &'static [&'static str],
    /// When it is run.
    pub tier: Tier,
    model: Box<dyn Explore>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("id", &self.id).field("title", &self.title).finish_non_exhaustive()
    }
}

/// Returns all models, in the order in which the documentation tells of them.
pub fn catalogue() -> Vec<Entry> {
    [
        lease::entries(),
        redlock::entries(),
        reservation::entries(),
        places::entries(),
        queue::entries(),
        terms::entries(),
        late::entries(),
        slots::entries(),
        votes::entries(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Entry {
    pub(crate) fn new(id: &'static str, title: &'static str, model: impl Explore + 'static) -> Self {
        Self { id, title, broken: &[], kept: &[], tier: Tier::Quick, model: Box::new(model) }
    }

    /// All properties hold.
    pub(crate) fn holds(mut self) -> Self {
        self.kept = self.model.properties().leak();
        self
    }

    pub(crate) fn breaks(mut self, broken: &'static [&'static str]) -> Self {
        self.broken = broken;
        self
    }

    /// All properties but the broken ones hold.
    pub(crate) fn keeps_the_rest(mut self) -> Self {
        let mut rest = self.model.properties();
        rest.retain(|name| !self.broken.contains(name));
        self.kept = rest.leak();
        self
    }

    pub(crate) fn long(mut self) -> Self {
        self.tier = Tier::Long;
        self
    }

    /// Runs the checker, and compares what it finds with what is expected.
    ///
    /// # Errors
    ///
    /// Fails if a property that must hold is refuted, one that must be refuted is not, or something that should be
    /// possible was not seen, so that the model says too little.
    pub fn check(&self, threads: Threads, progress: Progress<'_>) -> Result<Report> {
        let ends = match (self.broken, self.kept) {
            (broken, []) => HasDiscoveries::AllOf(broken.iter().copied().collect()),
            (_, kept) => HasDiscoveries::AnyOf(kept.iter().copied().collect()),
        };
        let report = self.model.explore(ends, &[self.broken, self.kept].concat(), threads, progress);
        let wrong: Vec<_> = self.kept.iter().filter(|name| report.refuted.contains(*name)).collect();
        ensure!(wrong.is_empty(), "{}: {wrong:?} must hold, and is refuted", self.id);
        let missed: Vec<_> = self.broken.iter().filter(|name| !report.refuted.contains(*name)).collect();
        ensure!(missed.is_empty(), "{}: {missed:?} must be refuted, and holds", self.id);
        ensure!(
            self.kept.is_empty() || report.unseen.is_empty(),
            "{}: never seen: {:?}",
            self.id,
            report.unseen
        );
        Ok(report)
    }

    /// Finds a shortest way to a state in which `property` is false.
    ///
    /// # Errors
    ///
    /// Fails if there is none.
    pub fn shortest(&self, property: &'static str) -> Result<Vec<String>> {
        self.model.shortest(property)
    }

    /// Follows the kept trace of `property`, which must be possible and must end in a state in which it is false.
    ///
    /// # Errors
    ///
    /// Fails if the trace is missing, a line of it is not possible, or the property is false too early or not at all.
    pub fn replay(&self, property: &'static str) -> Result<()> {
        self.model.replay(&traces::kept(self.id, property)?.lines, property)
    }
}
