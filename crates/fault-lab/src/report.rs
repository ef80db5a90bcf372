//! What came of a run, in the terminal.

use std::{fmt::Write, fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use comfy_table::{Table, presets};

use crate::{
    backend::Backend,
    cells::Cell,
    event::MS,
    page,
    planted::Plant,
    run::{Outcome, Verdict},
};

/// Names cells, one a line.
pub(crate) fn list(cells: &[Cell]) -> String {
    let mut text = String::new();
    for cell in cells {
        let limit = cell.expected.limit().map(|(_, why)| format!("  (limit: {why})")).unwrap_or_default();
        let quick = if cell.quick { "  quick" } else { "" };
        let Cell { row, group, name, backend, .. } = cell;
        writeln!(text, "{row:>3} {backend:<8} {group:<10} {name}{quick}{limit}").expect("a text takes all");
    }
    text + &format!("{} cells\n", cells.len())
}

/// Prints one line for a cell as it ends, and all that is wrong with it.
pub(crate) fn line(outcome: &Outcome) {
    let Outcome { cell, verdict, report, took, .. } = outcome;
    let counts = report.counts;
    println!(
        "{:<7} {:>3} {:<8} {} ({:.1} s; {}+{}+{} rounds, {} faults{}{})",
        verdict.sign(),
        cell.row,
        cell.backend.to_string(),
        cell.name,
        took.as_secs_f64(),
        counts.before,
        counts.cycles - counts.before - counts.after,
        counts.after,
        counts.faults,
        if counts.refused > 0 { format!(", {} refused", counts.refused) } else { String::new() },
        if outcome.repeated { ", repeated" } else { "" },
    );
    if matches!(verdict, Verdict::Green) {
        return;
    }
    let shown = if *verdict == Verdict::Limit { 1 } else { 6 };
    let start = outcome.events.first().map_or(0, |event| event.at);
    for finding in report.findings.iter().take(shown) {
        let at = finding.at.saturating_sub(start) / MS;
        println!("        {} at {at} ms: {}", finding.invariant.name(), finding.text);
    }
    if report.findings.len() > shown {
        println!("        and {} more", report.findings.len() - shown);
    }
    if let Some(error) = &outcome.error {
        println!("        the scenario did not end: {error}");
    }
}

/// Prints the grid, draws the page, and says whether every cell did as it must.
pub(crate) fn end(outcomes: &[Outcome], seed: u64, took: Duration, out: &Path) -> Result<bool> {
    let count = |verdict| outcomes.iter().filter(|outcome| outcome.verdict == verdict).count();
    let (broken, invalid) = (count(Verdict::Violation), count(Verdict::Invalid));
    let totals = format!(
        "{} green, {} limits shown, {broken} broken, {invalid} invalid, of {} cells",
        count(Verdict::Green),
        count(Verdict::Limit),
        outcomes.len(),
    );
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let page = out.join("report.html");
    fs::write(&page, page::render("Faults", outcomes, seed, took, &totals))
        .with_context(|| format!("cannot write {}", page.display()))?;
    println!("\n{}", grid(outcomes));
    println!("Timelines of all cells: {}", page.display());
    for outcome in outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Violation) {
        let Cell { row, backend, .. } = outcome.cell;
        let log = out.join(format!("{row}-{backend}.jsonl"));
        write_events(outcome, &log)?;
        println!("All events: {}; to repeat: {}", log.display(), outcome.cell.command(seed));
    }
    println!("faults: {totals} in {:.0} s, seed {seed}", took.as_secs_f64());
    Ok(broken + invalid == 0)
}

/// Draws the page of a soak.
pub(crate) fn soaked(
    kept: &[Outcome],
    lines: &[String],
    seed: u64,
    took: Duration,
    out: &Path,
) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let page = out.join("report.html");
    fs::write(&page, page::render("Soak", kept, seed, took, &lines.join("; ")))
        .with_context(|| format!("cannot write {}", page.display()))?;
    for (index, outcome) in kept.iter().filter(|outcome| outcome.verdict == Verdict::Violation).enumerate() {
        write_events(outcome, &out.join(format!("{}-{index}.jsonl", outcome.cell.backend)))?;
    }
    println!("Timelines: {}", page.display());
    Ok(())
}

/// Leaves everything that happened in a cell, for a person to look at.
fn write_events(outcome: &Outcome, file: &Path) -> Result<()> {
    let mut text = String::new();
    for event in &outcome.events {
        text += &(serde_json::to_string(event)? + "\n");
    }
    for entry in &outcome.log {
        text += &(serde_json::to_string(entry)? + "\n");
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Faults by backends.
fn grid(outcomes: &[Outcome]) -> Table {
    let backends: Vec<_> = Backend::REAL
        .into_iter()
        .filter(|backend| outcomes.iter().any(|outcome| outcome.cell.backend == *backend))
        .collect();
    let mut rows: Vec<_> = outcomes.iter().map(|outcome| (outcome.cell.row, outcome.cell.name)).collect();
    rows.sort_unstable();
    rows.dedup();
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let header =
        ["".to_owned(), "fault".to_owned()].into_iter().chain(backends.iter().map(Backend::to_string));
    table.set_header(header);
    for (row, name) in rows {
        let signs = backends.iter().map(|backend| {
            let ran = outcomes.iter().find(|outcome| {
                let Cell { row: its_row, name: its_name, backend: its, .. } = outcome.cell;
                (its_row, its_name, its) == (row, name, *backend)
            });
            ran.map_or("·", |outcome| outcome.verdict.sign()).to_owned()
        });
        table.add_row([row.to_string(), name.to_owned()].into_iter().chain(signs));
    }
    table
}

/// Prints what came of a planted bug.
pub(crate) fn planted(plant: &Plant, bad: &Outcome, good: &Outcome, is_caught: bool) {
    let found: Vec<_> = plant.finds.iter().map(|invariant| invariant.name()).collect();
    println!(
        "{:<7} {:?} by row {} ({}): expected {}; without the bug: {}",
        if is_caught { "caught" } else { "MISSED" },
        plant.bug,
        plant.row,
        bad.cell.name,
        found.join(" or "),
        good.verdict.sign(),
    );
    for (outcome, shown) in [(bad, usize::from(is_caught) + 5 * usize::from(!is_caught)), (good, 5)] {
        for finding in outcome.report.findings.iter().take(shown) {
            println!("        {}: {}", finding.invariant.name(), finding.text);
        }
        if let Some(error) = &outcome.error {
            println!("        the scenario did not end: {error}");
        }
    }
}
