//! `cargo xtask tutorial`: the examples one after the other, with the servers that they need.

use std::{
    fmt,
    io::{BufRead, BufReader},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use duct::cmd;

use crate::{
    programs::{self, Program},
    progress::human,
    servers::{Server, Source},
    setup::{self, Consent},
    workspace,
};

/// A line of this kind is what an example found out; the summary repeats it.
const FINDING: &str = "=> ";

#[derive(Debug)]
struct Example {
    name: &'static str,
    servers: &'static [Server],
}

const EXAMPLES: &[Example] = &[
    Example { name: "01_local", servers: &[] },
    Example { name: "02_trylock", servers: &[] },
    Example { name: "03_setnx", servers: &[Server::Redis] },
    Example { name: "04_zk", servers: &[Server::Zk] },
    Example { name: "05_etcd", servers: &[Server::Etcd] },
    Example { name: "06_redlock", servers: &[Server::Redlock] },
    Example { name: "07_shards", servers: &[Server::Etcd, Server::SecondEtcd] },
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The examples to run, such as `01 03`; all of them if none is named
    #[arg(value_name = "EXAMPLE", value_parser = named)]
    examples: Vec<&'static Example>,
    /// Build them with all else in the workspace, as `test-all` does, which then has it already
    #[arg(long)]
    workspace: bool,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    args.source.check()?;
    let chosen = if args.examples.is_empty() { EXAMPLES.iter().collect() } else { args.examples.clone() };
    let is_used = |server: &&Server| chosen.iter().any(|example| example.servers.contains(server));
    let servers: Vec<_> = Server::ALL.iter().filter(is_used).copied().collect();
    // All examples are one package, so that each is built with what any needs to be built.
    let needs: Vec<_> = args.source.needs(&servers).into_iter().chain([&setup::PROTOC]).collect();
    setup::ensure(&needs, &args.consent)?;
    println!("Building the examples");
    let alone = ["--package", "examples"];
    let programs = programs::build(["build", "--examples"].into_iter().chain(if args.workspace {
        programs::ALL
    } else {
        alone
    }))?;

    let provided = args.source.provide(&servers)?;
    let shows = chosen
        .iter()
        .map(|example| Show::of(example, &programs, &provided.variables))
        .collect::<Result<Vec<_>>>()?;
    drop(provided);

    heading("What they showed");
    for show in &shows {
        println!("{show}");
    }
    let failed: Vec<_> = shows.iter().filter(|show| !show.succeeded).map(|show| show.name).collect();
    if !failed.is_empty() {
        bail!("{} of {} examples failed: {}", failed.len(), shows.len(), failed.join(", "));
    }
    println!("\ntutorial: {} of {} examples ran", shows.len(), shows.len());
    Ok(())
}

/// One example that ran, for the summary.
struct Show {
    name: &'static str,
    succeeded: bool,
    took: Duration,
    findings: Vec<String>,
}

impl Show {
    /// Runs `example` and passes its output on as it comes.
    fn of(example: &Example, programs: &[Program], variables: &[(&str, String)]) -> Result<Self> {
        heading(example.name);
        let program = programs.iter().find(|program| program.name == example.name);
        let program = program.with_context(|| format!("cargo built no example {}", example.name))?;
        let mut command = cmd!(&program.path).dir(workspace::root()).unchecked();
        for (variable, url) in variables {
            command = command.env(variable, url);
        }

        let started = Instant::now();
        let output = command.reader().with_context(|| format!("cannot run example {}", example.name))?;
        let mut findings = Vec::new();
        for line in BufReader::new(&output).lines() {
            let line = line.with_context(|| format!("cannot read the output of example {}", example.name))?;
            println!("{line}");
            findings.extend(line.strip_prefix(FINDING).map(str::to_owned));
        }
        let ended = output.try_wait()?.expect("a reader at its end has waited for the process");
        Ok(Self { name: example.name, succeeded: ended.status.success(), took: started.elapsed(), findings })
    }
}

impl fmt::Display for Show {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.succeeded { "✓" } else { "✗" };
        write!(f, "{mark} {} ({})", self.name, human(self.took))?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n    {finding}"))
    }
}

fn heading(text: &str) {
    println!("\n── {text} {}", "─".repeat(70_usize.saturating_sub(text.len())));
}

/// Finds an example by its number or its name.
fn named(text: &str) -> Result<&'static Example, String> {
    let is_meant = |example: &&Example| {
        let number = example.name.split('_').next().unwrap_or_default();
        text == example.name || text == number || text == number.trim_start_matches('0')
    };
    EXAMPLES.iter().find(is_meant).ok_or_else(|| {
        let known = EXAMPLES.iter().map(|example| example.name).collect::<Vec<_>>();
        format!("the examples are {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn an_example_is_known_by_number_and_by_name() {
        for text in ["03", "3", "03_setnx"] {
            assert_eq!(named(text).unwrap().name, "03_setnx");
        }
    }

    #[test]
    fn an_unknown_example_is_refused_with_the_known_ones() {
        assert_eq!(
            named("08").unwrap_err(),
            "the examples are 01_local, 02_trylock, 03_setnx, 04_zk, 05_etcd, 06_redlock, 07_shards"
        );
    }
}
