//! What each lock is meant to reach, beside what it reached in a run.

use crate::{
    lock::Role,
    results::{Case, Clients, Held, Load, Report, Row},
    setup::{Backend, Setup},
};

/// One aim, and how near a run came to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// On which servers.
    pub setup: Setup,
    /// Under which load, and beside what.
    pub what: String,
    /// The bound.
    pub bound: Bound,
    /// What was reached: a ratio, but for bytes and numbers of locks.
    pub reached: f64,
}

/// What a figure is meant to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// No less than this.
    AtLeast(f64),
    /// No more than this.
    AtMost(f64),
}

impl Target {
    /// Returns whether it was reached.
    #[must_use]
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtLeast(least) => self.reached >= least,
            Bound::AtMost(most) => self.reached <= most,
        }
    }

    /// Writes the bound as people do.
    #[must_use]
    pub fn aim(&self) -> String {
        match self.bound {
            Bound::AtLeast(least) => format!("≥ {}", number(least)),
            Bound::AtMost(most) => format!("≤ {}", number(most)),
        }
    }

    /// Writes what was reached as people do.
    #[must_use]
    pub fn figure(&self) -> String {
        number(self.reached)
    }
}

fn number(value: f64) -> String {
    match value {
        value if !value.is_finite() => "∞".to_owned(),
        value if value >= 20.0 || value == 0.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

/// Returns the targets that what was measured says something of.
#[must_use]
pub fn of(report: &Report) -> Vec<Target> {
    let mut setups: Vec<_> = report.loads.iter().map(|load| load.setup).collect();
    setups.extend(report.held.iter().map(|held| held.setup));
    setups.sort_unstable();
    setups.dedup();
    setups.into_iter().flat_map(|setup| of_setup(report, setup)).collect()
}

fn of_setup(report: &Report, setup: Setup) -> Vec<Target> {
    let mut targets = Vec::new();
    for load in report.loads.iter().filter(|load| load.setup == setup && load.case != Case::Handover) {
        targets.extend(alone(load));
    }
    if setup == Setup::Local {
        let contended = |load: &&Load| load.case == Case::Handover && load.tasks > 1;
        for load in report.loads.iter().filter(|load| load.setup == setup).filter(contended) {
            targets.extend(peer_of(load, &["lockable", "keyed-lock"]).map(|(name, ratio)| {
                target(load, format!("{}, by {name}", tasks(load)), Bound::AtLeast(2.2), ratio)
            }));
        }
    } else {
        targets.extend(handed_over(report, setup));
    }
    targets.extend(held(report, setup));
    targets
}

fn target(load: &Load, what: String, bound: Bound, reached: f64) -> Target {
    Target { setup: load.setup, what, bound, reached }
}

fn tasks(load: &Load) -> String {
    match load.case {
        Case::Uncontended => "1 task".to_owned(),
        Case::Keys => format!("{} tasks, a key each", load.tasks),
        Case::Frozen => "1 task, one server frozen".to_owned(),
        _ => format!("{} contenders", load.tasks),
    }
}

fn ours(load: &Load) -> Option<&Row> {
    load.rows.iter().find(|row| row.role == Role::Ours)
}

/// The rate of ours by that of the best of the peers of these names.
fn peer_of<'a>(load: &'a Load, names: &[&str]) -> Option<(&'a str, f64)> {
    let peers = load.rows.iter().filter(|row| names.contains(&&*row.name));
    let ratios = peers.filter_map(|row| Some((&*row.name, row.ours_to_this?.median)));
    ratios.min_by(|a, b| a.1.total_cmp(&b.1))
}

/// Loads in which nobody waits for anybody.
fn alone(load: &Load) -> Vec<Target> {
    use Bound::{AtLeast, AtMost};
    let one = load.case == Case::Uncontended;
    let place = tasks(load);
    let floor = |least: f64| {
        let ratio = ours(load)?.to_floor?.median;
        Some(target(load, format!("{place}, by the floor"), AtLeast(least), ratio))
    };
    let raw = |least: f64| {
        let ratio = load.rows.iter().find(|row| row.role == Role::Raw)?.ours_to_this?.median;
        Some(target(load, format!("{place}, by the same scripts, bare"), AtLeast(least), ratio))
    };
    let peer = |names: &[&str], least: f64| {
        let (name, ratio) = peer_of(load, names)?;
        Some(target(load, format!("{place}, by {name}"), AtLeast(least), ratio))
    };
    if load.case == Case::Frozen {
        let slower = ours(load).and_then(|row| row.to_alone);
        let what = format!("{place}: a pair, by one with all servers");
        return slower.map(|slower| target(load, what, AtMost(1.2), slower.median)).into_iter().collect();
    }
    let wanted = match load.setup.backend() {
        Backend::Local => {
            vec![peer(&["lockable", "keyed-lock"], 2.2), floor(0.5).filter(|_| one)]
        }
        Backend::Setnx if one => vec![floor(0.95), peer(&["rslock"], 1.0)],
        Backend::Setnx => vec![raw(0.95), peer(&["rslock"], 0.8)],
        Backend::Redlock if one => vec![floor(0.95)],
        Backend::Redlock => vec![raw(0.9), peer(&["rslock"], 1.0)],
        Backend::Etcd => vec![
            floor(if one { 0.95 } else { 0.9 }),
            peer(&["etcd's lock RPC"], 1.0),
            peer(&["etcd's Go Mutex"], 1.0),
        ],
        Backend::Zk => vec![floor(if one { 0.95 } else { 0.9 }), peer(&["Curator"], 1.3)],
    };
    wanted.into_iter().flatten().collect()
}

/// One key for which several contend, a process each where that was measured.
fn handed_over(report: &Report, setup: Setup) -> Vec<Target> {
    use Bound::{AtLeast, AtMost};
    let all: Vec<_> = report
        .loads
        .iter()
        .filter(|load| load.setup == setup && load.case == Case::Handover && load.hold_ms == 0)
        .filter(|load| (2..=64).contains(&load.tasks))
        .collect();
    let of = |clients| all.iter().copied().filter(move |load: &&Load| load.clients == clients);
    let clients = if of(Clients::Processes).next().is_some() { Clients::Processes } else { Clients::Each };
    let rows: Vec<_> = of(clients).filter_map(|load| Some((load, ours(load)?))).collect();
    let mut targets = Vec::new();
    let mut add = |what: &str, bound, reached: Option<f64>| {
        let place = if clients == Clients::Processes { "processes" } else { "clients" };
        let what = format!("2–64 {place} for a key: {what}");
        targets.extend(reached.map(|reached| Target { setup, what, bound, reached }));
    };
    let worst = |of: &dyn Fn(&Load, &Row) -> Option<f64>| {
        rows.iter().filter_map(|(load, row)| of(load, row)).reduce(f64::max)
    };
    let widest = |of: &dyn Fn(&Load, &Row) -> Option<f64>| {
        let figures = || rows.iter().filter_map(|(load, row)| of(load, row));
        Some(figures().reduce(f64::max)? / figures().reduce(f64::min)?).filter(|_| rows.len() > 1)
    };
    add("a hand-over by a pair alone", AtMost(1.5), worst(&|_, row| Some(row.to_alone?.median)));
    add("most pairs/s by fewest", AtMost(1.3), widest(&|_, row| Some(row.rate.median)));
    let cycle = |load: &Load, row: &Row| load.tasks as f64 / row.rate.median * 1e6;
    add(
        "p99 of an acquire by the fair cycle",
        AtMost(3.0),
        worst(&|load, row| Some(row.acquire.p99 / cycle(load, row))),
    );
    add("most turns by fewest", AtMost(2.0), worst(&|_, row| row.spread));
    add("requests of a pair, most by fewest", AtMost(1.1), widest(&|_, row| row.requests));
    for load in of(Clients::Each).filter(|load| load.tasks >= 4 && setup.backend() == Backend::Etcd) {
        if let Some((name, ratio)) = peer_of(load, &["etcd's lock RPC"]) {
            let least = if load.tasks <= 16 { 4.0 } else { 1.0 };
            targets.push(target(load, format!("{}, by {name}", tasks(load)), AtLeast(least), ratio));
        }
    }
    targets
}

/// Many locks that one client holds.
fn held(report: &Report, setup: Setup) -> Vec<Target> {
    use Bound::AtMost;
    let of_setup = || report.held.iter().filter(|held| held.setup == setup);
    let most = of_setup().max_by_key(|held| held.locks).filter(|held| held.locks >= 1000);
    let (Some(most), Some(fewest)) = (most, of_setup().min_by_key(|held| held.locks)) else {
        return Vec::new();
    };
    let Held { locks, bytes, lost, acquire, .. } = most;
    let one =
        |what: &str, bound, reached| Target { setup, what: format!("{locks} held: {what}"), bound, reached };
    let mut targets = vec![one("bytes each", AtMost(512.0), *bytes), one("lost", AtMost(0.0), *lost as f64)];
    if fewest.locks < 10 {
        let slower = acquire.p99 / fewest.acquire.p99;
        targets.push(one("p99 of an acquire by that with one held", AtMost(2.0), slower));
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::{Bound, of};
    use crate::results::tests::sample;

    #[test]
    fn what_was_measured_is_held_against_its_target() {
        let targets = of(&sample());
        let floor = targets.iter().find(|target| target.what == "1 task, by the floor").unwrap();
        assert_eq!((floor.bound, floor.is_met(), &*floor.figure()), (Bound::AtLeast(0.95), false, "0.90"));
        let peer = targets.iter().find(|target| target.what == "1 task, by rslock").unwrap();
        assert!(peer.is_met() && peer.aim() == "≥ 1.00", "{peer:?}");
        assert!(targets.iter().any(|target| target.what.ends_with("most turns by fewest")));
    }
}
