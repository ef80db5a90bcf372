//! The table of results, as the terminal and the documentation show it.

use anyhow::Result;

use crate::{Entry, Report, kept};

/// Returns the table in Markdown: one row for each model that was run.
pub fn table(results: &[(&Entry, Result<Report>)]) -> String {
    let head = "| model | what is modelled | expected | result | states | depth | time |\n\
                |---|---|---|---|--:|--:|--:|\n";
    head.to_owned() + &results.iter().map(|(entry, result)| row(entry, result)).collect::<String>()
}

fn row(entry: &Entry, result: &Result<Report>) -> String {
    let result = match result {
        Err(error) => format!("**{error:#}** | | |"),
        Ok(report) => {
            let (states, time) = (thousands(report.states), report.time.as_secs_f64());
            format!("{} | {states} | {} | {time:.1} s |", found(entry), report.depth)
        }
    };
    format!("| {} | {} | {} | {result}\n", entry.id, entry.title, expected(entry))
}

fn expected(entry: &Entry) -> String {
    match (entry.broken, entry.kept) {
        ([], _) => "all holds".to_owned(),
        (broken, []) => format!("refutes *{}*", broken.join("*, *")),
        (broken, kept) => format!("refutes *{}*; keeps *{}*", broken.join("*, *"), kept.join("*, *")),
    }
}

fn found(entry: &Entry) -> String {
    let steps = |property: &&str| match kept(entry.id, property) {
        Ok(trace) => trace.lines.len().to_string(),
        Err(_) => "?".to_owned(),
    };
    match entry.broken {
        [] => "holds".to_owned(),
        broken => {
            format!("so it does, in {} steps", broken.iter().map(steps).collect::<Vec<_>>().join(" and "))
        }
    }
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
