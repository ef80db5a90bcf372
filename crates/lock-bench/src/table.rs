//! The figures as tables in a terminal.

use comfy_table::{Table, presets};

use crate::{
    results::{Case, Clients, Growth, Held, Idle, Latency, Load, Recovery, Report, Row},
    targets::{self, Target},
};

/// Returns all tables of `report`, one for each load.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    for load in &report.loads {
        text.push_str(&format!("\n{}\n{}\n", title(load), table(load)));
    }
    for Held { setup, locks, bytes, tasks, requests, cpu, acquire, lost, .. } in &report.held {
        let requests = requests.unwrap_or_default();
        text.push_str(&format!(
            "\n{setup}: {locks} held: {bytes:.0} B each, {tasks} tasks, {requests:.1} requests/s, {:.1} % CPU, one \
            more acquired in {} (p99 {}), {lost} lost",
            cpu * 100.0,
            time(acquire.p50),
            time(acquire.p99)
        ));
    }
    for Idle { setup, waiters, bytes, tasks, requests, cpu } in &report.idle {
        let requests = requests.unwrap_or_default();
        text.push_str(&format!(
            "\n{setup}: {waiters} wait: {bytes:.0} B each, {tasks} tasks, {requests:.1} requests/s, {:.1} % CPU",
            cpu * 100.0
        ));
    }
    for Recovery { setup, ttl_ms, ms, slowest_ms } in &report.recoveries {
        text.push_str(&format!(
            "\n{setup}: after the death of a holder with a lease of {ttl_ms} ms: {:.0} ms, at worst {slowest_ms:.0} \
            ms",
            ms.median
        ));
    }
    for Growth { setup, what, sizes, exponent, .. } in &report.growth {
        text.push_str(&format!("\n{setup}: {what} grows with {sizes} as the power {exponent:.2}"));
    }
    for absent in &report.absent {
        text.push_str(&format!("\nnot measured: {}: {}", absent.name, absent.reason));
    }
    let targets = targets::of(report);
    if !targets.is_empty() {
        text.push_str(&format!("\n\nWhat is aimed at, and what was reached\n{}\n", aims(&targets)));
    }
    text
}

fn aims(targets: &[Target]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "what", "aim", "reached", ""]);
    for target in targets {
        let met = if target.is_met() { "✓" } else { "" };
        let (setup, aim, figure) = (target.setup.to_string(), target.aim(), target.figure());
        table.add_row([&*setup, &target.what, &aim, &figure, met]);
    }
    table
}

/// Says which load it is.
#[must_use]
pub fn title(load: &Load) -> String {
    let Load { setup, tasks, hold_ms, .. } = load;
    let of = match load.clients {
        Clients::Shared => "one client",
        Clients::Each => "a client each",
        Clients::Processes => "a process each",
    };
    match load.case {
        Case::Uncontended => format!("{setup}: one task, a key that nobody else wants"),
        Case::Keys => format!("{setup}: {tasks} tasks with a key each, one client"),
        Case::Frozen => format!("{setup}: one task, one server frozen"),
        _ if *tasks == 1 => format!("{setup}: one task alone, {of}, hold {hold_ms} ms"),
        _ => format!("{setup}: {tasks} contenders for one key, {of}, hold {hold_ms} ms"),
    }
}

fn table(load: &Load) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let contended = load.case == Case::Handover;
    let mut header = vec!["", "pairs/s", "of floor", "ours to it", "pair p50", "p99", "p99.9"];
    if contended {
        header.extend(["hand-over p50", "p99", "to alone", "spread"]);
    }
    header.extend(["requests", "CPU"]);
    table.set_header(header);
    for row in &load.rows {
        table.add_row(cells(row, contended));
    }
    table
}

fn cells(row: &Row, contended: bool) -> Vec<String> {
    let ratio = |ratio: Option<crate::stats::Quartiles>| {
        ratio.map_or_else(String::new, |ratio| {
            format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high)
        })
    };
    let mut cells = vec![
        row.name.clone(),
        format!("{:.0}", row.rate.median),
        ratio(row.to_floor),
        ratio(row.ours_to_this),
    ];
    cells.extend([row.pair.p50, row.pair.p99, row.pair.p999].map(time));
    if contended {
        let at =
            |of: fn(&Latency) -> f64| row.handover.as_ref().map_or_else(String::new, |all| time(of(all)));
        cells.extend([at(|all| all.p50), at(|all| all.p99), ratio(row.to_alone)]);
        cells.push(row.spread.map_or_else(String::new, spread));
    }
    cells.push(row.requests.map_or_else(String::new, |requests| format!("{requests:.2}")));
    cells.push(time(row.cpu_us));
    cells
}

/// How many times one share is another, as people say it.
#[must_use]
pub fn spread(ratio: f64) -> String {
    if ratio.is_finite() { format!("{ratio:.1}") } else { "∞".to_owned() }
}

/// A time in microseconds as people say it.
#[must_use]
pub fn time(us: f64) -> String {
    match us {
        us if us < 1.0 => format!("{:.0} ns", us * 1e3),
        us if us < 10.0 => format!("{us:.1} µs"),
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e4 => format!("{:.1} ms", us / 1e3),
        us if us < 1e6 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.1} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_said_in_a_unit_that_fits() {
        let said: Vec<_> = [0.0651, 6.42, 712.0, 1234.0, 34_000.0, 2_400_000.0].map(time).into();
        assert_eq!(said, ["65 ns", "6.4 µs", "712 µs", "1.2 ms", "34 ms", "2.4 s"]);
    }
}
