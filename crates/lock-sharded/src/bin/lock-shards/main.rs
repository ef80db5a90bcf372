//! `lock-shards`: shows where the slots of a lock space are, and moves them.

mod commands;
mod screen;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use lock_sharded::{MapSource, Options, Slots, Step};

/// Shows where the slots of a lock space are, and moves them while their locks are held.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// Where the map is: a file, `etcd:<endpoints>#<key>`, or `zk://<servers>#<path>`
    #[arg(long, default_value = "shards.json", global = true)]
    map: MapSource,
    /// The prefix of the locks, the same as in all programs
    #[arg(long, default_value = "lock", global = true)]
    prefix: String,
    /// For how long a mover that was killed keeps others out, in seconds
    #[arg(long, default_value = "10", value_parser = seconds, global = true)]
    ttl: Duration,
    /// Print one line of JSON per event or slot
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Open the slots of a new lock space where the map has them
    Init,
    /// Show where slots are, as the clusters say
    Status,
    /// Show the slot of a key, and the cluster that has it by the map
    Find {
        /// The key
        key: String,
    },
    /// Print what a move would do
    Plan(Move),
    /// Move slots to a cluster; or go on with such moves
    Move(Move),
    /// Let no mover begin with another slot
    Pause,
    /// Let movers go on, and finish what was begun
    Resume {
        /// These slots only
        #[arg(long)]
        slots: Option<Slots>,
    },
    /// Give moves up that are not open on the new cluster yet
    Abort {
        /// These slots; all that are moving if none is named
        #[arg(long)]
        slots: Option<Slots>,
    },
    /// Move slots back to where they came from
    Reverse {
        /// Which
        #[arg(long)]
        slots: Slots,
    },
    /// Look for what must not be; fails if there is any
    Verify,
    /// Make the map say what the clusters say
    RebuildMap,
    /// Open slots without the cluster that has them, after every lease there has ended
    Force {
        /// Which
        #[arg(long)]
        slots: Slots,
        /// On this cluster
        #[arg(long, required_unless_present = "retire")]
        to: Option<String>,
        /// The longest TTL of any program, in seconds
        #[arg(long, default_value = "10", value_parser = seconds)]
        longest_ttl: Duration,
        /// Say that the old cluster is off and stays off: who still reaches it goes on believing
        #[arg(long, required_unless_present = "retire")]
        the_old_cluster_is_off: bool,
        /// Close the slots on this cluster, which was given up and has come back
        #[arg(long, value_name = "CLUSTER", conflicts_with = "to")]
        retire: Option<String>,
    },
}

#[derive(clap::Args)]
struct Move {
    /// Which slots, such as `0-99,200`; `all` for all
    #[arg(long, value_parser = some_slots)]
    slots: Slots,
    /// To which cluster of the map
    #[arg(long)]
    to: String,
    /// Print what it would do, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How many slots move at once
    #[arg(long, default_value = "4")]
    parallel: usize,
    /// Stop before this step, to rehearse: `abort` or `resume` then
    #[arg(long, value_parser = step)]
    stop_before: Option<Step>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds =
        text.trim_end_matches('s').parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| format!("{text:?} is no number of seconds"))
}

fn some_slots(text: &str) -> Result<Slots, lock_sharded::Error> {
    if text == "all" { Ok(Slots::all()) } else { text.parse() }
}

fn step(text: &str) -> Result<Step, String> {
    Step::ALL.into_iter().find(|step| step.to_string() == text).ok_or_else(|| {
        let steps: Vec<_> = Step::ALL.iter().map(Step::to_string).collect();
        format!("the steps are {}", steps.join(", "))
    })
}

impl Cli {
    fn options(&self) -> Options {
        Options::default().with_prefix(&self.prefix).with_ttl(self.ttl)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match commands::run(cli).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lock-shards: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
