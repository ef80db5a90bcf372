//! `cargo xtask faults` and `cargo xtask soak`: break everything under the locks. What is broken, and what is checked,
//! the program `fault-lab` knows; here it is built and run.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use duct::cmd;

use crate::{
    programs,
    setup::{self, Consent},
    workspace,
};

const PROGRAM: &str = "fault-lab";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// This lock alone, such as `setnx`; may be given more than once
    #[arg(long, value_name = "NAME")]
    backend: Vec<String>,
    /// This row of the catalogue alone, by number; may be given more than once
    #[arg(long, value_name = "NUMBER")]
    fault: Vec<u32>,
    /// Repeats what was random in an earlier run
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Some cells of each kind, in at most three minutes
    #[arg(long)]
    quick: bool,
    /// Check the checker instead: locks with planted bugs, each in the cell that must catch it
    #[arg(long, conflicts_with_all = ["backend", "fault", "quick"])]
    planted: bool,
    /// Cells at once
    #[arg(long, value_name = "COUNT")]
    lanes: Option<usize>,
    /// Name the cells, and run none
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    build: Build,
}

#[derive(clap::Args)]
struct Build {
    /// Build it with all else in the workspace, as `test-all` does, which then has it already
    #[arg(long)]
    workspace: bool,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut words = vec![if args.planted { "planted" } else { "faults" }.to_owned()];
    for backend in &args.backend {
        words.extend(["--backend".to_owned(), backend.clone()]);
    }
    for fault in &args.fault {
        words.extend(["--fault".to_owned(), fault.to_string()]);
    }
    for (flag, is_set) in [("--quick", args.quick), ("--list", args.list)] {
        words.extend(is_set.then(|| flag.to_owned()));
    }
    if let Some(seed) = args.seed {
        words.extend(["--seed".to_owned(), seed.to_string()]);
    }
    if let Some(lanes) = args.lanes {
        words.extend(["--lanes".to_owned(), lanes.to_string()]);
    }
    if !args.planted {
        words.extend(["--out".to_owned(), workspace::target().join("faults").display().to_string()]);
    }
    args.build.run(&words)
}

#[derive(clap::Args)]
pub(crate) struct Soak {
    /// This lock alone, such as `setnx`; all that have servers, one after another, if none is named
    #[arg(long, value_name = "NAME")]
    backend: Vec<String>,
    /// Minutes for each lock
    #[arg(long, value_name = "MINUTES", default_value_t = 1.0)]
    minutes: f64,
    /// Repeats the faults of an earlier run
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    #[command(flatten)]
    build: Build,
}

pub(crate) fn soak(args: &Soak) -> Result<()> {
    let mut words = vec!["soak".to_owned(), "--minutes".to_owned(), args.minutes.to_string()];
    for backend in &args.backend {
        words.extend(["--backend".to_owned(), backend.clone()]);
    }
    if let Some(seed) = args.seed {
        words.extend(["--seed".to_owned(), seed.to_string()]);
    }
    words.extend(["--out".to_owned(), workspace::target().join("soak").display().to_string()]);
    args.build.run(&words)
}

impl Build {
    /// Builds the lab, and runs it by `words`.
    fn run(&self, words: &[String]) -> Result<()> {
        ensure!(cfg!(target_os = "linux"), "the lab needs Linux: it stops, traces and preloads processes");
        let needs: Vec<_> = setup::ALL.iter().copied().chain([&setup::STRACE]).collect();
        setup::ensure(&needs, &self.consent)?;
        let program = self.program()?;
        let ended =
            cmd(program, words).dir(workspace::root()).unchecked().run().context("cannot run the lab")?;
        if !ended.status.success() {
            bail!("{}: see above", words[0]);
        }
        Ok(())
    }

    fn program(&self) -> Result<PathBuf> {
        let packages = if self.workspace { programs::ALL } else { ["--package", PROGRAM] };
        let built = programs::build(["build", "--bin", PROGRAM].into_iter().chain(packages))?;
        let program = built.into_iter().find(|program| program.name == PROGRAM);
        program.map(|program| program.path).with_context(|| format!("cargo built no {PROGRAM}"))
    }
}
