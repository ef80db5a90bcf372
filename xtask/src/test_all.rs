//! `cargo xtask test-all`: every check there is, step by step, up to the first failure.

mod steps;
mod tally;

use std::time::Instant;

use anyhow::{Result, bail};

use self::{steps::Step, tally::Tally};
use crate::{
    conformance::{self, Report},
    docker,
    progress::{self, Progress, human, read, tail},
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
    let engine = docker::engine_with_networks();
    let steps = steps::all(&workspace::packages()?, engine.is_ok());
    let log = |step: &Step| logs.join(format!("{}.log", step.name));
    let early =
        |step: &Step| step.starts_early.then(|| progress::start(&step.command(), &log(step))).transpose();
    let early = steps.iter().map(early).collect::<Result<Vec<_>>>()?;
    let mut times = Vec::new();
    let mut tally = Tally::default();
    for (index, (step, early)) in steps.iter().zip(&early).enumerate() {
        let progress = Progress::start(format!("[{}/{}] {}", index + 1, steps.len(), step.name));
        let log = log(step);
        let succeeded = match early {
            Some(running) => progress.wait(running, &log)?,
            None => progress.run(&step.command(), &log)?,
        };
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
    if let Err(reason) = engine {
        println!("\nLeft out, for want of containers: {reason:#}");
        let listed = read(&logs.join(format!("{}.log", steps::LEFT_OUT)));
        listed.lines().filter_map(|line| line.strip_suffix(": test")).for_each(|name| println!("  {name}"));
    }
    println!("\n{tally}");
    println!("test-all: {} steps passed, 0 failed in {}", steps.len(), human(started.elapsed()));
    Ok(())
}
