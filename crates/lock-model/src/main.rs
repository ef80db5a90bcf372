//! Runs models by hand: all of them, or those that are named; shows progress and ends with a table.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use lock_model::{Entry, Tier, Trace, catalogue, table};

/// Check the models of the protocols
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Threads of the checker; two by default
    #[arg(long, global = true, default_value_t = 2)]
    threads: usize,
}

#[derive(Subcommand)]
enum Command {
    /// Check all models, the long ones too
    All,
    /// Check those that every `cargo test` checks
    Quick,
    /// Check models by name: A1, or A for all whose name begins so
    Only {
        /// The names, or how they begin
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Find the shortest counterexamples of models, and keep them as their traces
    Keep {
        /// The names, or how they begin; all if there are none
        names: Vec<String>,
    },
    /// Find a shortest counterexample to a property of a model, and show it
    Trace {
        /// The name of the model
        name: String,
        /// The property
        property: String,
    },
    /// List the models
    List,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let entries = catalogue();
    let named = |names: &[String]| -> Vec<&Entry> {
        let is_named = |entry: &&Entry| names.iter().any(|name| entry.id.starts_with(name.as_str()));
        entries.iter().filter(is_named).collect()
    };
    match cli.command {
        Command::All => check(&entries.iter().collect::<Vec<_>>(), cli.threads),
        Command::Quick => {
            check(&entries.iter().filter(|e| e.tier == Tier::Quick).collect::<Vec<_>>(), cli.threads)
        }
        Command::Only { names } => check(&named(&names), cli.threads),
        Command::Keep { names } if names.is_empty() => keep(&entries.iter().collect::<Vec<_>>()),
        Command::Keep { names } => keep(&named(&names)),
        Command::Trace { name, property } => {
            let entry = entries.iter().find(|entry| entry.id == name).context("no model has that name")?;
            print!("{}", Trace { lines: entry.shortest(property.leak())? });
            Ok(())
        }
        Command::List => {
            entries.iter().for_each(|entry| println!("{:4} {:?}  {}", entry.id, entry.tier, entry.title));
            Ok(())
        }
    }
}

fn check(entries: &[&Entry], threads: usize) -> Result<()> {
    ensure!(!entries.is_empty(), "no model has such a name: `list` shows them");
    let mut results = Vec::new();
    for (entry, number) in entries.iter().zip(1..) {
        let bar = bar(format!("[{number}/{}] {} {}", entries.len(), entry.id, entry.title));
        let result = entry.check(threads, &|states| bar.set_position(states as u64));
        bar.finish_and_clear();
        match &result {
            Ok(report) => {
                println!("{:4} as expected, {} states in {:.1?}", entry.id, report.states, report.time)
            }
            Err(error) => println!("{:4} NOT as expected: {error:#}", entry.id),
        }
        results.push((*entry, result));
    }
    println!("\n{}", table(&results));
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    ensure!(failed == 0, "{failed} of {} models are not as expected", results.len());
    Ok(())
}

fn keep(entries: &[&Entry]) -> Result<()> {
    for entry in entries {
        for property in entry.broken {
            let trace = Trace { lines: entry.shortest(property)? };
            println!("{}\n{trace}", trace.keep(entry.id, property)?.display());
        }
    }
    Ok(())
}

fn bar(message: String) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}: {human_pos} states, {elapsed}");
    let bar =
        ProgressBar::new_spinner().with_style(style.expect("the template is valid")).with_message(message);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
