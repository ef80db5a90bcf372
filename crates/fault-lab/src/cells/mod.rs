//! The catalogue of faults: which row applies to which lock, and what must come of it.

mod access;
mod client;
mod clocks;
mod crowds;
mod kills;
mod members;
mod moves;
mod names;
mod network;
mod operators;
mod pauses;
mod queues;
mod restarts;

use anyhow::Result;

use crate::{
    backend::Backend,
    event::Invariant,
    lab::{Boot, Lab},
    soak::SOAK,
};

/// What a scenario is: it breaks something under load, and leaves all whole.
pub(crate) type Scenario = fn(&mut Lab<'_>) -> Result<()>;

/// What must come of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Expected {
    /// Every promise is kept.
    Holds,
    /// These promises cannot be kept, and the cell must show that they are broken. All others are kept; the fencing of
    /// effects is never among the broken ones.
    Limit(&'static [Invariant], &'static str),
    /// As a limit, but of servers that were repaired later: it shows in some runs, and with the later version in none.
    UntilRepaired(&'static [Invariant], &'static str),
}

impl Expected {
    /// Returns the promises that may be broken, and why.
    pub(crate) fn limit(self) -> Option<(&'static [Invariant], &'static str)> {
        match self {
            Self::Holds => None,
            Self::Limit(broken, why) | Self::UntilRepaired(broken, why) => Some((broken, why)),
        }
    }
}

/// How etcd before 3.4.42 and 3.5.28 treats leases at a change of leaders: etcd#15247.
pub(crate) const OLD_ETCD: Expected = Expected::UntilRepaired(
    &[Invariant::Belief],
    "before 3.4.42 and 3.5.28, a leader that stood still may renew leases that the next one ended, and end leases that \
     the next one renewed",
);

/// One row of the catalogue on one lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) row: u32,
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    pub(crate) backend: Backend,
    pub(crate) boot: Boot,
    /// How many times as long as usual a lease lasts.
    pub(crate) leases: u32,
    pub(crate) expected: Expected,
    /// Pauses, clocks and lost memory may make work overlap, whatever the lock does.
    pub(crate) is_calm: bool,
    /// Part of the quick run.
    pub(crate) quick: bool,
    pub(crate) scenario: Scenario,
}

impl Cell {
    /// Returns the command that repeats it.
    pub(crate) fn command(&self, seed: u64) -> String {
        let Self { row, backend, group, .. } = self;
        if *group == SOAK {
            return format!("cargo xtask soak --backend {backend} --seed {seed}");
        }
        format!("cargo xtask faults --backend {backend} --fault {row} --seed {seed}")
    }
}

/// One row of the catalogue.
pub(crate) struct Row {
    row: u32,
    name: &'static str,
    on: &'static [Backend],
    scenario: Scenario,
    boot: Boot,
    leases: u32,
    is_calm: bool,
    quick: &'static [Backend],
    /// What is not expected to hold, and of which lock.
    limits: &'static [(Backend, Expected)],
}

use Backend::{Etcd, Local, Redlock, Setnx, Sharded, Zk};

const R: &[Backend] = &[Setnx];
const Q: &[Backend] = &[Redlock];
const RQ: &[Backend] = &[Setnx, Redlock];
const E: &[Backend] = &[Etcd];
const Z: &[Backend] = &[Zk];
const S: &[Backend] = &[Sharded];
const EZ: &[Backend] = &[Etcd, Zk];
const REMOTE: &[Backend] = &[Setnx, Redlock, Etcd, Zk];
const ALL: &[Backend] = &[Local, Setnx, Redlock, Etcd, Zk];

impl Row {
    const fn new(row: u32, name: &'static str, on: &'static [Backend], scenario: Scenario) -> Self {
        Self {
            row,
            name,
            on,
            scenario,
            boot: Boot::Durable,
            leases: 1,
            is_calm: true,
            quick: &[],
            limits: &[],
        }
    }

    const fn boot(mut self, boot: Boot) -> Self {
        self.boot = boot;
        self
    }

    /// Leases are so much longer that what a server does for some seconds ends none.
    const fn long_leases(mut self) -> Self {
        self.leases = 3;
        self
    }

    /// Work may overlap under this fault, whatever a lock does; the checking store sorts it out.
    const fn overlapping(mut self) -> Self {
        self.is_calm = false;
        self
    }

    const fn quick(mut self, on: &'static [Backend]) -> Self {
        self.quick = on;
        self
    }

    const fn limits(mut self, limits: &'static [(Backend, Expected)]) -> Self {
        self.limits = limits;
        self
    }
}

/// All cells, by row.
pub(crate) fn all() -> Vec<Cell> {
    let groups: [(&str, &[Row]); 13] = [
        ("kills", kills::ROWS),
        ("pauses", pauses::ROWS),
        ("restarts", restarts::ROWS),
        ("network", network::ROWS),
        ("clocks", clocks::ROWS),
        ("client", client::ROWS),
        ("crowds", crowds::ROWS),
        ("names", names::ROWS),
        ("operators", operators::ROWS),
        ("access", access::ROWS),
        ("members", members::ROWS),
        ("queues", queues::ROWS),
        ("moves", moves::ROWS),
    ];
    let mut cells: Vec<_> =
        groups.iter().flat_map(|(group, rows)| rows.iter().flat_map(|row| of_row(group, row))).collect();
    cells.sort_by_key(|cell| (cell.row, Backend::REAL.iter().position(|backend| *backend == cell.backend)));
    cells
}

fn of_row(group: &'static str, row: &'static Row) -> impl Iterator<Item = Cell> {
    row.on.iter().map(move |backend| {
        let limit = row.limits.iter().find(|(limited, _)| limited == backend);
        Cell {
            row: row.row,
            group,
            name: row.name,
            backend: *backend,
            boot: row.boot,
            leases: row.leases,
            expected: limit.map_or(Expected::Holds, |(_, expected)| *expected),
            is_calm: row.is_calm,
            quick: row.quick.contains(backend),
            scenario: row.scenario,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::all;
    use crate::event::Invariant;

    #[test]
    fn no_cell_is_there_twice_and_none_gives_up_fencing() {
        let mut seen = HashSet::new();
        for cell in all() {
            assert!(seen.insert((cell.row, cell.backend)), "row {} on {}", cell.row, cell.backend);
            if let Some((broken, why)) = cell.expected.limit() {
                assert!(!broken.contains(&Invariant::Fencing) && !why.is_empty(), "row {}", cell.row);
            }
        }
    }
}
