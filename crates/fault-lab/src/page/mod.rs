//! A run as one self-contained HTML page: the grid, and a timeline of each cell.

mod timeline;

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{
    backend::Backend,
    cells::Cell,
    event::MS,
    run::{Outcome, Verdict},
};

const STYLE: &str = include_str!("page.css");

/// Draws the page; `title` is also the command's name.
pub(crate) fn render(title: &str, outcomes: &[Outcome], seed: u64, took: Duration, totals: &str) -> String {
    let command = format!("cargo xtask {} --seed {seed}", title.to_lowercase());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) }
            style { (PreEscaped(STYLE)) }
            main {
                h1 { (title) }
                p { (totals) ", in " (took.as_secs()) " s. " code { (command) } }
                p.soft {
                    "Each cell breaks something under locks that are in use, and a checker looks at all that happened. "
                    b.green { "ok" } ": every promise was kept. "
                    b.limit { "limit" } ": what the documents say cannot be promised was shown, and all else was kept. "
                    b.broken { "BROKEN" } ": a promise was broken. "
                    b.invalid { "INVALID" } ": the run shows nothing."
                }
                div.paper { (grid(outcomes)) }
                @for outcome in outcomes { (section(outcome, seed)) }
            }
        }
    };
    page.into_string()
}

fn style(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Green => "green",
        Verdict::Limit => "limit",
        Verdict::Violation => "broken",
        Verdict::Invalid => "invalid",
    }
}

fn anchor(cell: &Cell) -> String {
    format!("{}-{}", cell.row, cell.backend)
}

fn grid(outcomes: &[Outcome]) -> Markup {
    let ran = |backend: &Backend| outcomes.iter().any(|outcome| outcome.cell.backend == *backend);
    let backends: Vec<_> = Backend::REAL.into_iter().filter(ran).collect();
    let mut rows: Vec<_> =
        outcomes.iter().map(|outcome| (outcome.cell.row, outcome.cell.name, outcome.cell.group)).collect();
    rows.sort_unstable();
    rows.dedup();
    let find = |row, backend| {
        outcomes.iter().find(move |outcome| outcome.cell.row == row && outcome.cell.backend == backend)
    };
    html! {
        table.matrix {
            thead { tr { th {} th { "fault" } th { "kind" } @for backend in &backends { th { (backend) } } } }
            tbody {
                @for (row, name, group) in rows {
                    tr {
                        td.number { (row) }
                        th { (name) }
                        td.soft { (group) }
                        @for backend in &backends {
                            @match find(row, *backend) {
                                Some(outcome) => td class=(style(outcome.verdict)) {
                                    a href=(format!("#{}", anchor(&outcome.cell))) { (outcome.verdict.sign()) }
                                },
                                None => td.soft { "·" },
                            }
                        }
                    }
                }
            }
        }
    }
}

fn section(outcome: &Outcome, seed: u64) -> Markup {
    let Outcome { cell, verdict, report, took, .. } = outcome;
    let counts = report.counts;
    let start = outcome.events.first().map_or(0, |event| event.at);
    html! {
        details id=(anchor(cell)) open[*verdict == Verdict::Violation] {
            summary {
                span class={ "badge " (style(*verdict)) } { (verdict.sign()) } " "
                b { (cell.backend) } " · " (cell.row) " · " (cell.name)
            }
            div.paper.inside {
                p.soft {
                    (counts.before) " rounds before, " (counts.during) " attempts during, " (counts.after)
                    " rounds after; " (counts.faults) " faults, " (counts.refused) " stale requests refused, "
                    (counts.lost_updates) " updates lost by the store that checks no tokens; longest hand-over "
                    (counts.longest_gap / MS) " ms, latest " code { "lost()" } " " (counts.latest_loss / MS) " ms; "
                    (took.as_millis()) " ms in all"
                    @if outcome.repeated { "; an earlier run was invalid" }
                    ". "
                    code { (cell.command(seed)) }
                }
                @if let Some((_, why)) = cell.expected.limit() {
                    p { b { "Documented limit: " } (why) "." }
                }
                (timeline::draw(outcome))
                @if let Some(error) = &outcome.error { p.broken { "The scenario did not end: " (error) } }
                @if !report.findings.is_empty() {
                    ul {
                        @for finding in report.findings.iter().take(12) {
                            li { code { (finding.invariant.name()) } " at "
                                (finding.at.saturating_sub(start) / MS) " ms: " (finding.text) }
                        }
                        @if report.findings.len() > 12 { li.soft { (report.findings.len() - 12) " more" } }
                    }
                }
            }
        }
    }
}
