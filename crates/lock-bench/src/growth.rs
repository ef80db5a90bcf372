//! How figures grow with size.

use crate::{
    lock::Role,
    results::{Case, Clients, Growth, Report, Row},
    setup::Setup,
    stats,
};

/// What grows, in the order in which it is shown, and in what it is counted.
pub const WHAT: [(&str, Unit); 8] = [
    (HANDOVER, Unit::Microseconds),
    (HANDOVER_REQUESTS, Unit::Count),
    (HELD_ACQUIRE, Unit::Microseconds),
    (HELD_REQUESTS, Unit::Count),
    (HELD_CPU, Unit::Percent),
    (HELD_BYTES, Unit::Bytes),
    (IDLE_BYTES, Unit::Bytes),
    (IDLE_REQUESTS, Unit::Count),
];

const HANDOVER: &str = "the median hand-over";
const HANDOVER_REQUESTS: &str = "requests of a contended pair";
const HELD_ACQUIRE: &str = "the median acquire beside held locks";
const HELD_REQUESTS: &str = "requests a second to keep held locks";
const HELD_CPU: &str = "CPU of who holds";
const HELD_BYTES: &str = "memory of held locks";
const IDLE_BYTES: &str = "memory of waiters";
const IDLE_REQUESTS: &str = "requests a second of waiters";

/// In what a figure is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A time.
    Microseconds,
    /// A number.
    Count,
    /// Memory.
    Bytes,
    /// A part of a processor.
    Percent,
}

impl Unit {
    /// Writes a figure as people say it.
    #[must_use]
    pub fn write(self, value: f64) -> String {
        match self {
            Self::Microseconds => crate::table::time(value),
            Self::Percent => format!("{value} %"),
            Self::Count | Self::Bytes => {
                let (part, prefix) = match value {
                    value if value >= 1e9 => (1e9, "G"),
                    value if value >= 1e6 => (1e6, "M"),
                    value if value >= 1e3 => (1e3, "k"),
                    _ => (1.0, ""),
                };
                let unit = if self == Self::Bytes { "B" } else { "" };
                format!("{} {prefix}{unit}", value / part).trim_end().to_owned()
            }
        }
    }
}

/// Fits all that was measured on `setup` at two sizes at least.
#[must_use]
pub fn of(setup: Setup, report: &Report) -> Vec<Growth> {
    let clients = if setup == Setup::Local { Clients::Shared } else { Clients::Each };
    let handovers = report
        .loads
        .iter()
        .filter(|load| load.setup == setup && load.case == Case::Handover && load.tasks > 1)
        .filter(|load| load.clients == clients && load.hold_ms == 0)
        .filter_map(|load| Some((load.tasks as f64, load.rows.iter().find(|row| row.role == Role::Ours)?)));
    let handovers: Vec<_> = handovers.collect();
    let contended = |figure: fn(&Row) -> Option<f64>| -> Vec<_> {
        handovers.iter().filter_map(|(tasks, row)| Some((*tasks, figure(row)?))).collect()
    };
    let held = report.held.iter().filter(|held| held.setup == setup);
    let held: Vec<_> = held.map(|held| (held.locks as f64, held)).collect();
    let idle = report.idle.iter().filter(|idle| idle.setup == setup);
    let idle: Vec<_> = idle.map(|idle| (idle.waiters as f64, idle)).collect();
    let all = [
        (HANDOVER, "contenders", contended(|row| row.handover.map(|all| all.p50))),
        (HANDOVER_REQUESTS, "contenders", contended(|row| row.requests)),
        (HELD_ACQUIRE, "held locks", held.iter().map(|(size, held)| (*size, held.acquire.p50)).collect()),
        (
            HELD_REQUESTS,
            "held locks",
            held.iter().filter_map(|(size, held)| Some((*size, held.requests?))).collect(),
        ),
        (HELD_CPU, "held locks", held.iter().map(|(size, held)| (*size, held.cpu * 100.0)).collect()),
        (HELD_BYTES, "held locks", held.iter().map(|(size, held)| (*size, held.bytes * size)).collect()),
        (IDLE_BYTES, "waiters", idle.iter().map(|(size, idle)| (*size, idle.bytes * size)).collect()),
        (
            IDLE_REQUESTS,
            "waiters",
            idle.iter().filter_map(|(size, idle)| Some((*size, idle.requests?))).collect(),
        ),
    ];
    let fit = |(what, sizes, points): (&str, &str, Vec<(f64, f64)>)| {
        let points: Vec<_> = points.into_iter().filter(|(_, figure)| *figure > 0.0).collect();
        let exponent = stats::growth(&points)?;
        Some(Growth { setup, what: what.to_owned(), sizes: sizes.to_owned(), points, exponent })
    };
    all.into_iter().filter_map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::{HANDOVER, Unit, of};
    use crate::{results::tests::sample, setup::Setup};

    #[test]
    fn what_was_measured_at_several_sizes_is_fitted() {
        let grown = of(Setup::Setnx, &sample());
        let handover = grown.iter().find(|growth| growth.what == HANDOVER).unwrap();
        assert_eq!(handover.points.len(), 2);
        assert!(handover.exponent.abs() < 1e-9, "{handover:?}");
        assert!(of(Setup::Zk, &sample()).is_empty());
    }

    #[test]
    fn large_figures_are_written_short() {
        assert_eq!(Unit::Bytes.write(10_000.0), "10 kB");
        assert_eq!(Unit::Count.write(100.0), "100");
    }
}
