//! What locks cost that are held or waited for, and how that grows.

use maud::{Markup, html};

use super::section;
use crate::{
    growth::{self, Unit},
    plot::{self, Axis, Line},
    results::{Growth, Report},
    setup::Setup,
    table::time,
};

pub(super) fn burdens(report: &Report) -> Markup {
    let share = |part: f64| format!("{:.1} %", part * 100.0);
    let rate = |requests: Option<f64>| requests.map_or_else(String::new, |requests| format!("{requests:.1}"));
    let held = report.held.iter().map(|held| {
        // That of one lock is lost among what the client takes anyway.
        let memory = if held.locks < 1000 { String::new() } else { format!("{:.0} B", held.bytes) };
        let (requests, cpu) = (rate(held.requests), share(held.cpu));
        let (p50, p99) = (time(held.acquire.p50), time(held.acquire.p99));
        [
            held.setup.to_string(),
            held.locks.to_string(),
            memory,
            held.tasks.to_string(),
            requests,
            cpu,
            p50,
            p99,
            held.lost.to_string(),
        ]
    });
    let idle = report.idle.iter().map(|idle| {
        let memory = format!("{:.0} B", idle.bytes);
        let (setup, waiters, tasks) = (&idle.setup, idle.waiters.to_string(), idle.tasks.to_string());
        [setup.to_string(), waiters, memory, tasks, rate(idle.requests), share(idle.cpu)]
    });
    let recoveries = report.recoveries.iter().map(|recovery| {
        let ms = |ms: f64| format!("{ms:.0} ms");
        let lease = ms(recovery.ttl_ms as f64);
        [recovery.setup.to_string(), lease, ms(recovery.ms.median), ms(recovery.slowest_ms)]
    });
    html! {
        (section(
            "Locks that are held",
            "By one client in a process of its own, with leases of 10 s. It acquires and releases one more, always.",
            ["servers", "held", "memory each", "tasks", "requests/s for them", "CPU", "acquire p50", "p99", "lost"],
            held,
        ))
        (section(
            "Callers that wait",
            "In one client in a process of its own, each for a key that another holds for good.",
            ["servers", "waiters", "memory each", "tasks", "requests/s", "CPU"],
            idle,
        ))
        (section(
            "After the death of a holder",
            "The process that holds is killed; so long until the next in the queue has the key.",
            ["servers", "lease", "median", "slowest"],
            recoveries,
        ))
    }
}

/// Which class colours a line that stands for servers.
fn class_of(setup: Setup) -> &'static str {
    match setup {
        Setup::Local | Setup::Setnx => "ours",
        Setup::Redlock => "raw",
        Setup::Etcd | Setup::Etcd3 => "peer",
        Setup::Zk | Setup::Zk3 => "peer other",
    }
}

pub(super) fn grown(report: &Report) -> Markup {
    let plot = |(what, unit): &(&str, Unit)| {
        let grown: Vec<_> = report.growth.iter().filter(|growth| growth.what == *what).collect();
        let sizes = grown.first()?.sizes.clone();
        let line = |growth: &&Growth| Line {
            name: format!("{}: power {:.2}", growth.setup, growth.exponent),
            class: class_of(growth.setup),
            dashed: matches!(growth.setup, Setup::Etcd3 | Setup::Zk3),
            points: growth.points.clone(),
        };
        let lines: Vec<_> = grown.iter().map(line).collect();
        let points = || lines.iter().flat_map(|line| line.points.iter());
        let mut places: Vec<_> = points().map(|point| point.0).collect();
        places.sort_unstable_by(f64::total_cmp);
        places.dedup();
        let ticks = places.into_iter().map(|place| (place, Unit::Count.write(place))).collect();
        let up = plot::decades(points().map(|point| point.1), |value| unit.write(value));
        Some(plot::lines(what, &Axis { label: &sizes, ticks }, &Axis { label: "", ticks: up }, &lines))
    };
    html! {
        @if !report.growth.is_empty() {
            h2 { "Growth with size" }
            p {
                "Both axes are logarithmic, so that a power law is a straight line. Its power is fitted: 0 is flat, 1 \
                 is in proportion, 2 is with the square. Dashes are clusters of three."
            }
            div.plots { @for what in &growth::WHAT { @if let Some(plot) = plot(what) { (plot) } } }
        }
    }
}
