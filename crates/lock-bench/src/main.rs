//! `lock-bench`: measures locks. `cargo xtask bench` builds and runs it.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum as _};
use lock_bench::{
    agent,
    bench::{self, Plan},
    choose, page,
    results::{Case, Clients},
    setup::Backend,
    table,
};

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the locks beside the floor of their protocols and beside peers
    Run(Run),
    /// Put your load on your servers, within bounds, and learn which lock to take
    Choose(Box<choose::command::Args>),
    /// Be a client in a process of its own
    #[command(hide = true)]
    Agent {
        /// What to do
        orders: String,
    },
}

#[derive(clap::Args)]
struct Run {
    /// Measure this one; may be given more than once
    #[arg(long)]
    backend: Vec<Backend>,
    /// Measure this case; may be given more than once
    #[arg(long)]
    case: Vec<Case>,
    /// Take about five minutes
    #[arg(long)]
    quick: bool,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the page to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// How often each subject has its turn
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// How long a turn is
    #[arg(long, value_name = "MS")]
    slice: Option<u64>,
    /// Have these numbers of contenders for one key; may be given more than once
    #[arg(long, value_name = "N")]
    contenders: Vec<usize>,
    /// What to say in the report of how it was called
    #[arg(long, value_name = "TEXT")]
    called: Option<String>,
}

impl Run {
    fn plan(&self) -> Plan {
        const BACKENDS: [Backend; 5] =
            [Backend::Local, Backend::Setnx, Backend::Redlock, Backend::Etcd, Backend::Zk];
        let backends = if self.backend.is_empty() { &BACKENDS[..] } else { &self.backend };
        let cases = if self.case.is_empty() { Case::value_variants().to_vec() } else { self.case.clone() };
        let ms = Duration::from_millis;
        let quick = self.quick;
        let contenders = if self.contenders.is_empty() {
            if quick { vec![1, 2, 16, 64] } else { vec![1, 2, 16, 64, 1024] }
        } else {
            self.contenders.clone()
        };
        let rounds = self.rounds.unwrap_or(if quick { 2 } else { 3 });
        let slice = self.slice.map(ms);
        Plan {
            setups: backends.iter().flat_map(|backend| backend.setups()).copied().collect(),
            cases,
            rounds,
            slow_rounds: if quick { 1 } else { 2 },
            slice: slice.unwrap_or(ms(if quick { 300 } else { 1000 })),
            contended_slice: slice.unwrap_or(ms(if quick { 300 } else { 400 })),
            contenders,
            clients: if quick {
                vec![Clients::Each]
            } else {
                vec![Clients::Each, Clients::Shared, Clients::Processes]
            },
            holds: if quick { vec![Duration::ZERO] } else { vec![Duration::ZERO, ms(5)] },
            held: if quick { vec![1000] } else { vec![1, 1000, 100_000] },
            idle: if quick { vec![200] } else { vec![100, 1000, 10_000] },
            kills: if quick { 1 } else { 3 },
        }
    }

    fn run(&self) -> Result<()> {
        let called = self.called.clone().unwrap_or_else(|| std::env::args().collect::<Vec<_>>().join(" "));
        let report = bench::run(&self.plan(), called)?;
        println!("{}", table::render(&report));
        if let Some(file) = &self.json {
            let json = serde_json::to_vec_pretty(&report)?;
            fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))?;
        }
        if let Some(file) = &self.html {
            fs::write(file, page::render(&report))
                .with_context(|| format!("cannot write {}", file.display()))?;
            println!("The same with plots: {}", file.display());
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Choose(choose) => choose.run(),
        Command::Agent { orders } => agent::serve(&orders),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
