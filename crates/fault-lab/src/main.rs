//! `fault-lab`: breaks everything under the locks, and checks what they promised meanwhile.

mod agent;
mod backend;
mod cells;
mod checker;
mod event;
mod history;
mod lab;
mod nursery;
mod page;
mod planted;
mod report;
mod run;
mod shim;
mod slow_disk;
mod soak;
mod store;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use backend::Backend;

#[derive(Parser)]
#[command(name = "fault-lab", about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the cells: each row of the catalogue of faults on each lock to which it applies
    Faults(Faults),
    /// Break several things at once, over many clients and locks, for some time
    Soak(Soak),
    /// Check the checker: run locks with planted bugs, each in the cell that must catch it
    Planted {
        /// This bug alone; may be given more than once
        #[arg(long, value_name = "NAME")]
        bug: Vec<String>,
        /// Repeats what was random
        #[arg(long, value_name = "NUMBER")]
        seed: Option<u64>,
    },
    /// A client that obeys the lab; started by it
    #[command(hide = true)]
    Agent,
    /// The resource that the locks guard; started by the lab
    #[command(hide = true)]
    Store {
        /// Whether it checks the tokens of reads
        #[arg(action = clap::ArgAction::Set)]
        checks_reads: bool,
    },
    /// A program of others that ends with the lab; started by it
    #[command(hide = true)]
    Bound {
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

#[derive(clap::Args)]
struct Faults {
    /// This lock alone, such as `setnx`; may be given more than once
    #[arg(long, value_name = "NAME")]
    backend: Vec<Backend>,
    /// This row of the catalogue alone; may be given more than once
    #[arg(long, value_name = "NUMBER")]
    fault: Vec<u32>,
    /// Some cells of each kind, in at most three minutes
    #[arg(long)]
    quick: bool,
    /// Repeats what was random
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Cells at once
    #[arg(long, default_value_t = 2)]
    lanes: usize,
    /// Where the page goes
    #[arg(long, default_value = "target/faults")]
    out: PathBuf,
    /// Name the cells, and run none
    #[arg(long)]
    list: bool,
}

#[derive(clap::Args)]
struct Soak {
    /// This lock alone, such as `setnx`; all that have servers, one after another, if none is named
    #[arg(long, value_name = "NAME")]
    backend: Vec<Backend>,
    /// Minutes for each lock
    #[arg(long, value_name = "MINUTES", default_value_t = 1.0)]
    minutes: f64,
    /// Repeats the faults of an earlier run
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Where the page goes
    #[arg(long, default_value = "target/soak")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Faults(args) => faults(&args),
        Command::Soak(args) => soak(&args),
        Command::Planted { bug, seed } => planted(&bug, seed),
        Command::Agent => return agent::serve().unwrap_or_else(fail),
        Command::Store { checks_reads } => store::serve(checks_reads).map(|()| true),
        Command::Bound { words } => nursery::become_bound(&words),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(error),
    }
}

fn fail(error: anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Runs planted bugs, and says whether all were caught.
fn planted(named: &[String], seed: Option<u64>) -> Result<bool> {
    let known = || planted::PLANTS.iter().map(|plant| plant.bug);
    let find = |name: &String| {
        known().find(|bug| format!("{bug:?}") == *name).with_context(|| {
            let known: Vec<_> = known().map(|bug| format!("{bug:?}")).collect();
            format!("there is no bug {name}; the bugs are {}", known.join(", "))
        })
    };
    let bugs = named.iter().map(find).collect::<Result<Vec<_>>>()?;
    let work = prepare()?;
    let all_caught = run::planted(seed.unwrap_or_else(rand::random), &bugs, report::planted)?;
    drop(work);
    let count = if bugs.is_empty() { known().count() } else { bugs.len() };
    println!("planted: {count} bugs, {}", if all_caught { "all caught" } else { "NOT all caught" });
    Ok(all_caught)
}

/// Soaks locks, and says whether all of I1 to I6 held.
fn soak(args: &Soak) -> Result<bool> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let remote = || Backend::REAL.into_iter().filter(|backend| backend.can_be_soaked());
    let backends: Vec<_> = if args.backend.is_empty() { remote().collect() } else { args.backend.clone() };
    let time = std::time::Duration::try_from_secs_f64(args.minutes * 60.0)?;
    let work = prepare()?;
    let (mut all_held, mut lines, mut kept) = (true, Vec::new(), Vec::new());
    let began = std::time::Instant::now();
    for backend in backends {
        println!("soak {backend}: {} minutes, seed {seed}", args.minutes);
        let started = std::time::Instant::now();
        let tally = soak::run(backend, time, seed)?;
        all_held &= tally.violations == 0 && tally.acquisitions > 0;
        lines.push(soak::summary(backend, &tally, seed, started.elapsed()));
        println!("{}", lines.last().expect("it was pushed"));
        kept.extend(tally.kept);
    }
    drop(work);
    report::soaked(&kept, &lines, seed, began.elapsed(), &args.out)?;
    Ok(all_held)
}

/// Makes what servers and agents need: data in memory where that is possible, and the clock shim.
fn prepare() -> Result<tempfile::TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() {
        // A second call would say that it was set before.
        tempfile::env::override_temp_dir(memory).ok();
    }
    let work = tempfile::Builder::new().prefix("fault-lab-").tempdir()?;
    shim::prepare(work.path())?;
    Ok(work)
}

/// Runs cells, and says whether all did as they must.
fn faults(args: &Faults) -> Result<bool> {
    let mut cells = cells::all();
    cells.retain(|cell| {
        (args.backend.is_empty() || args.backend.contains(&cell.backend))
            && (args.fault.is_empty() || args.fault.contains(&cell.row))
            && (!args.quick || cell.quick)
    });
    if cells.is_empty() {
        bail!("no such cell; `--list` without anything else names all");
    }
    if args.list {
        print!("{}", report::list(&cells));
        return Ok(true);
    }
    let seed = args.seed.unwrap_or_else(rand::random);
    let work = prepare()?;
    println!("{} cells, seed {seed}", cells.len());
    let started = std::time::Instant::now();
    let outcomes = run::all(&cells, args.lanes, seed, report::line)?;
    drop(work);
    report::end(&outcomes, seed, started.elapsed(), &args.out)
}
