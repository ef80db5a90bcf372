//! `cargo xtask test-all`: every check there is, step by step, up to the first failure.

mod steps;
mod tally;

use std::time::Instant;

use anyhow::{Result, bail};

use self::tally::Tally;
use crate::{
    conformance::{self, Report},
    progress::{Progress, human, read, tail},
    setup::{self, Consent},
    workspace,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    // Not one of the steps below, since it may have a question for the person at the terminal.
    setup::ensure(setup::ALL, &args.consent)?;

    let logs = workspace::target().join("test-all");
    workspace::empty(&logs)?;
    let steps = steps::all(&workspace::packages()?);
    let mut times = Vec::new();
    let mut tally = Tally::default();
    for (index, step) in steps.iter().enumerate() {
        let progress = Progress::start(format!("[{}/{}] {}", index + 1, steps.len(), step.name));
        let log = logs.join(format!("{}.log", step.name));
        let succeeded = progress.run(&step.command(), &log)?;
        times.push((step.name, progress.finish(succeeded)));
        if !succeeded {
            println!("\n$ {step}\n{}\n\nAll of its output: {}", tail(&log), log.display());
            bail!(
                "test-all: step {} of {}, {}, failed; to repeat it alone: {step}",
                index + 1,
                steps.len(),
                step.name
            );
        }
        tally.add(&read(&log));
    }

    println!("\n{}\n", Report::read(&conformance::directory())?);
    for (name, time) in times {
        println!("{name:12} {:>12}", human(time));
    }
    println!("\n{tally}");
    println!("test-all: {} steps passed, 0 failed in {}", steps.len(), human(started.elapsed()));
    Ok(())
}
