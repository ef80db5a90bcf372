//! The conformance table as one self-contained HTML page, with every property and its time.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::report::{Counts, Report};

const STYLE: &str = include_str!("page.css");

pub(super) fn render(report: &Report) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { "Conformance" }
            style { (PreEscaped(STYLE)) }
            main {
                h1 { "Conformance" }
                p { (report.totals()) }
                div.paper { (matrix(report)) }
                @for backend in report.backends() {
                    h2 { (backend) }
                    div.paper { (properties(report, backend)) }
                }
            }
        }
    };
    page.into_string()
}

fn matrix(report: &Report) -> Markup {
    html! {
        table.matrix {
            thead { tr { th { "group" } @for backend in report.backends() { th { (backend) } } } }
            tbody {
                @for group in report.groups() {
                    tr {
                        th { (group) }
                        @for backend in report.backends() {
                            @let counts = report.count(group, backend);
                            td class=(style(counts)) { (counts) }
                        }
                    }
                }
            }
        }
    }
}

fn properties(report: &Report, backend: &str) -> Markup {
    html! {
        table {
            thead { tr { th { "property" } th { "group" } th { "outcome" } th.time { "time" } } }
            tbody {
                @for entry in report.entries.iter().filter(|entry| entry.backend == backend) {
                    tr {
                        td { code { (entry.property) } @if let Some(reason) = &entry.reason { small { (reason) } } }
                        td { (entry.group) }
                        td class=(entry.outcome) { (entry.outcome) }
                        td.time { (entry.millis) " ms" }
                    }
                }
            }
        }
    }
}

fn style(counts: Counts) -> &'static str {
    match counts {
        Counts { failed: 1.., .. } => "failed",
        Counts { passed: 1.., .. } => "passed",
        Counts { skipped: 1.., .. } => "skipped",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::sample, render};

    #[test]
    fn the_page_holds_the_table_and_escapes_what_backends_say() {
        let page = render(&sample());
        assert!(page.contains(r#"<td class="failed">1 ✗ 1 ✓</td>"#), "{page}");
        assert!(page.contains("saw 2 &lt;holders&gt;"), "{page}");
        assert!(page.contains("250 ms"), "{page}");
    }
}
