//! The table of results, as the terminal and the documentation show it.

use anyhow::Result;

use crate::{Entry, Report};

/// Returns the table in Markdown: one row for each model that was run.
pub fn table(results: &[(&Entry, Result<Report>)]) -> String {
    let head = "| model | what is modelled | expected | found | states | depth | time |\n\
                |---|---|---|---|--:|--:|--:|\n";
    head.to_owned() + &results.iter().map(|(entry, result)| row(entry, result)).collect::<String>()
}

fn row(entry: &Entry, result: &Result<Report>) -> String {
    let expected = match entry.broken {
        [] => "holds".to_owned(),
        broken => broken.iter().map(|name| format!("refutes *{name}*")).collect::<Vec<_>>().join(", "),
    };
    let expected = match (entry.broken, entry.kept) {
        ([], _) | (_, []) => expected,
        (_, kept) => format!("{expected}; the other {} hold", kept.len()),
    };
    let found = match result {
        Err(error) => format!("**{error:#}** | | |"),
        Ok(report) => {
            let time = format!("{:.1} s", report.time.as_secs_f64());
            format!("as expected | {} | {} | {time}", thousands(report.states), report.depth)
        }
    };
    format!("| {} | {} | {expected} | {found} |\n", entry.id, entry.title)
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> =
        digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(",")
}
