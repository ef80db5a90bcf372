//! `cargo xtask models`: lets a checker try every order of events in the models of the protocols. The program
//! `lock-model` does that; here it is built, with optimization, and run.

use anyhow::{Context, Result, bail};
use duct::cmd;

use crate::workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Models by name: A1, or A for all whose name begins so; the quick ones if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Those that take minutes, too
    #[arg(long, conflicts_with = "names")]
    all: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let which = match args.names.as_slice() {
        [] if args.all => "all",
        [] => "quick",
        _ => "only",
    };
    let mut words: Vec<_> =
        ["run", "--release", "--package", "lock-model", "--", which].map(str::to_owned).into();
    words.extend(args.names.iter().cloned());
    let ended = cmd(workspace::cargo(), words).dir(workspace::root()).unchecked().run();
    if !ended.context("cannot run cargo")?.status.success() {
        bail!("models: see above");
    }
    Ok(())
}
