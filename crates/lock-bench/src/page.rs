//! The report as one self-contained page.

mod burdens;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{
    lock::Role,
    plot::{self, Axis, Bar, Line},
    reading,
    results::{Case, Clients, Latency, Load, Report, Row},
    setup::Setup,
    stats::Quartiles,
    table::{self, time},
    targets,
};

const STYLE: &str = include_str!("page.css");

/// How the quantiles of a latency curve are written.
const QUANTILES: [(f64, &str); 5] =
    [(2.0, "50 %"), (10.0, "90 %"), (100.0, "99 %"), (1000.0, "99.9 %"), (10_000.0, "99.99 %")];

/// What is told of each subject, and more where they contend.
const FIGURES: [&str; 6] = ["pairs/s", "of floor", "ours to it", "pair p50", "p99", "p99.9"];
const CONTENDED: [&str; 4] = ["hand-over p50", "p99", "to alone", "spread"];

/// How the words of the page are meant.
const WORDS: [(&str, &str); 7] = [
    (
        "floor",
        "The fewest requests that the protocol needs, sent by hand through the same client library. It renews nothing, \
         waits for nobody and gives no token: it is no lock, and shows what the servers and the client take.",
    ),
    ("pair", "An acquire and its release, without the hold between them."),
    (
        "round",
        "All subjects have one turn after the other in each round. A ratio is that of two turns of one round; the \
         median of the rounds is shown, and the quartiles around it. Ratios of one run can be compared; absolute \
         figures of two machines, or of two days, cannot.",
    ),
    ("hand-over", "From the call of release to the next holder's guard, where that one waited already."),
    (
        "to alone",
        "The median hand-over by the median pair of our lock where nobody contends, of the same round.",
    ),
    ("spread", "How many times the turns of the contender with fewest fit into those of the one with most."),
    (
        "requests, CPU",
        "What all servers together received for each pair, and what the client's process computed. Clients and servers \
         share this machine.",
    ),
];

/// Returns the page.
#[must_use]
pub fn render(report: &Report) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Locks, measured" }
                style { (PreEscaped(STYLE)) }
            }
            body { main {
                h1 { "Locks, measured" }
                (facts(report))
                h2 { "In plain words" }
                ul.reading { @for line in reading::of(report) { li { (line) } } }
                (ratios(report))
                (curves(report))
                (handovers(report))
                (burdens::burdens(report))
                (burdens::grown(report))
                (aims(report))
                h2 { "All figures" }
                p { "Medians of the rounds, with the quartiles of the ratios in small type." }
                @for load in &report.loads { (figures(load)) }
                @if !report.absent.is_empty() {
                    h2 { "Not measured" }
                    ul { @for absent in &report.absent { li { b { (absent.name) } ": " (absent.reason) } } }
                }
                (how_to_read())
            } }
        }
    };
    page.into_string()
}

fn facts(report: &Report) -> Markup {
    let versions = report.versions.iter().map(|(name, version)| format!("{name} {version}"));
    html! {
        dl {
            dt { "command" } dd { code { (report.command) } }
            dt { "when" } dd { (report.started) ", in " (format!("{:.0} s", report.seconds)) }
            dt { "machine" } dd { (report.machine) }
            dt { "versions" } dd { (versions.collect::<Vec<_>>().join(", ")) }
        }
    }
}

fn class(role: Role, number: usize) -> &'static str {
    match (role, number) {
        (Role::Floor, _) => "floor",
        (Role::Raw, _) => "raw",
        (Role::Ours, _) => "ours",
        (Role::Peer, 0) => "peer",
        (Role::Peer, 1) => "peer other",
        (Role::Peer, _) => "peer third",
    }
}

/// Rows with their classes: peers are told apart by their order.
fn classed(load: &Load) -> impl Iterator<Item = (&Row, &'static str)> {
    let mut peers = 0;
    load.rows.iter().map(move |row| {
        let class = class(row.role, peers);
        peers += usize::from(row.role == Role::Peer);
        (row, class)
    })
}

fn of_case(report: &Report, case: Case) -> impl Iterator<Item = &Load> {
    report.loads.iter().filter(move |load| load.case == case)
}

fn ratios(report: &Report) -> Markup {
    let bars = |load: &Load| {
        let bar = |(row, class): (&Row, &'static str)| {
            let Quartiles { low, median, high } = row.to_floor?;
            (row.role != Role::Floor).then(|| Bar { name: row.name.clone(), class, low, median, high })
        };
        let bars: Vec<_> = classed(load).filter_map(bar).collect();
        (!bars.is_empty()).then(|| plot::bars(&table::title(load), &bars))
    };
    let headings = [
        (Case::Uncontended, "One task, beside the floor"),
        (Case::Keys, "64 tasks with a key each, beside the floor"),
    ];
    html! {
        @for (case, heading) in headings {
            @if of_case(report, case).next().is_some() {
                h2 { (heading) }
                p {
                    "Pairs of acquire and release a second, by those of the fewest requests that the protocol needs. \
                     At 1 the lock costs nothing beside its requests. The thin line is the middle half of the rounds."
                }
                div.plots { @for load in of_case(report, case) { @if let Some(bars) = bars(load) { (bars) } } }
            }
        }
    }
}

fn curves(report: &Report) -> Markup {
    let plot = |load: &Load| {
        let line = |(row, class): (&Row, &'static str)| Line {
            name: row.name.clone(),
            class,
            dashed: false,
            points: row.curve.iter().map(|(quantile, us)| (1.0 / (1.0 - quantile), *us)).collect(),
        };
        let lines: Vec<_> = classed(load).map(line).collect();
        let ticks = QUANTILES.map(|(place, text)| (place, text.to_owned())).into();
        let across = Axis { label: "so many pairs were faster", ticks };
        plot::lines(&table::title(load), &across, &latencies("acquire and release", &lines), &lines)
    };
    html! {
        @if of_case(report, Case::Uncontended).next().is_some() {
            h2 { "Latency" }
            p { "An acquire and its release by one task, from the median to the slowest of ten thousand." }
            div.plots { @for load in of_case(report, Case::Uncontended) { (plot(load)) } }
        }
    }
}

fn latencies<'a>(label: &'a str, lines: &[Line]) -> Axis<'a> {
    let values = lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    Axis { label, ticks: plot::decades(values, time) }
}

fn handovers(report: &Report) -> Markup {
    let mut places: Vec<(Setup, Clients, u64)> =
        of_case(report, Case::Handover).map(|load| (load.setup, load.clients, load.hold_ms)).collect();
    places.sort_unstable();
    places.dedup();
    let plot = |(setup, clients, hold): &(Setup, Clients, u64)| {
        let loads: Vec<_> = of_case(report, Case::Handover)
            .filter(|load| (load.setup, load.clients, load.hold_ms) == (*setup, *clients, *hold))
            .filter(|load| load.tasks > 1)
            .collect();
        let mut lines: Vec<Line> = Vec::new();
        for load in &loads {
            for (row, class) in classed(load) {
                let Some(Latency { p50, p99, .. }) = row.handover else { continue };
                for (name, us, dashed) in
                    [(format!("{}, p50", row.name), p50, false), (format!("{}, p99", row.name), p99, true)]
                {
                    let point = (load.tasks as f64, us);
                    match lines.iter_mut().find(|line| line.name == name) {
                        Some(line) => line.points.push(point),
                        None => lines.push(Line { name, class, dashed, points: vec![point] }),
                    }
                }
            }
        }
        let ticks = loads.iter().map(|load| (load.tasks as f64, load.tasks.to_string())).collect();
        let across = Axis { label: "contenders", ticks };
        let place = match clients {
            Clients::Shared => "one client",
            Clients::Each => "a client each",
            Clients::Processes => "a process each",
        };
        let title = format!("{setup}, {place}, hold {hold} ms");
        (!loads.is_empty() && !lines.is_empty())
            .then(|| plot::lines(&title, &across, &latencies("hand-over", &lines), &lines))
    };
    html! {
        @if !places.is_empty() {
            h2 { "Hand-over" }
            p {
                "From the call of release to the guard of who waited next, against the number of contenders for the \
                 key."
            }
            div.plots { @for place in &places { @if let Some(plot) = plot(place) { (plot) } } }
        }
    }
}

fn aims(report: &Report) -> Markup {
    let targets = targets::of(report);
    html! {
        @if !targets.is_empty() {
            h2 { "What is aimed at, and what was reached" }
            p {
                "Ratios are medians of the ratios within rounds; of several numbers of contenders the worst is shown."
            }
            div.paper { table {
                thead { tr { th { "servers" } th.what { "what" } th { "aim" } th { "reached" } th {} } }
                tbody { @for target in &targets { tr.missed[!target.is_met()] {
                    td { (target.setup) } td.what { (target.what) } td { (target.aim()) } td { (target.figure()) }
                    td { @if target.is_met() { "✓" } @else { "not reached" } }
                } } }
            } }
        }
    }
}

/// A table under a heading, if there is anything in it.
fn section<const N: usize>(
    heading: &str,
    about: &str,
    columns: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> Markup {
    let mut rows = rows.peekable();
    html! {
        @if rows.peek().is_some() {
            h2 { (heading) }
            p { (about) }
            div.paper { table {
                thead { tr { @for column in columns { th { (column) } } } }
                tbody { @for row in rows { tr { @for cell in row { td { (cell) } } } } }
            } }
        }
    }
}

fn figures(load: &Load) -> Markup {
    let contended = load.case == Case::Handover;
    let ratio = |ratio: Option<Quartiles>| {
        html! { @if let Some(Quartiles { low, median, high }) = ratio {
            (format!("{median:.2} ")) small { (format!("{low:.2}–{high:.2}")) }
        } }
    };
    html! {
        h3 { (table::title(load)) }
        div.paper { table {
            thead { tr {
                th {}
                @for column in FIGURES { th { (column) } }
                @if contended { @for column in CONTENDED { th { (column) } } }
                th { "requests" } th { "CPU" }
            } }
            tbody { @for (row, class) in classed(load) { tr {
                th class=(class) { (row.name) }
                td { (format!("{:.0}", row.rate.median)) } td { (ratio(row.to_floor)) } td { (ratio(row.ours_to_this)) }
                td { (time(row.pair.p50)) } td { (time(row.pair.p99)) } td { (time(row.pair.p999)) }
                @if contended {
                    td { @if let Some(all) = row.handover { (time(all.p50)) } }
                    td { @if let Some(all) = row.handover { (time(all.p99)) } }
                    td { (ratio(row.to_alone)) }
                    td { @if let Some(spread) = row.spread { (table::spread(spread)) } }
                }
                td { @if let Some(requests) = row.requests { (format!("{requests:.2}")) } }
                td { (time(row.cpu_us)) }
            } } }
        } }
    }
}

fn how_to_read() -> Markup {
    html! {
        h2 { "How to read this" }
        dl { @for (word, meaning) in WORDS { dt { (word) } dd { (meaning) } } }
    }
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::results::tests::sample;

    #[test]
    fn the_page_has_every_figure_and_loads_nothing() {
        let page = render(&sample());
        for part in
            ["lock-setnx", "0.90", "<svg", "In plain words", "cargo xtask bench --quick", "etcd 3.4.23"]
        {
            assert!(page.contains(part), "{part} is missing");
        }
        assert!(!page.contains("http"), "it refers to something outside");
    }
}
