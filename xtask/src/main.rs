//! `cargo xtask`: the chores of this workspace, one module per command.

mod bench;
mod cluster;
mod conformance;
mod docker;
mod faults;
mod features;
mod models;
mod setup;
mod test_all;
mod tidy;
mod tutorial;

mod programs;
mod progress;
mod servers;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the tutorial's examples, with the servers that they need
    Tutorial(tutorial::Args),
    /// Check and test everything: what a change must pass
    TestAll(test_all::Args),
    /// Hold the backends to their promises and show the result as a table
    Conformance(conformance::Args),
    /// Break servers, networks, clocks and processes under the locks, and check what they promised meanwhile
    Faults(faults::Args),
    /// Break several things at once, over many clients and locks, for some time
    Soak(faults::Soak),
    /// Let a checker try every order of events in the models of the protocols, and show the results as a table
    Models(models::Args),
    /// Measure the locks beside the floor of their protocols and beside other libraries
    Bench(bench::Args),
    /// Put your load on your servers, within bounds, and learn which lock to take
    Choose(bench::ChooseArgs),
    /// Leave servers running for your own experiments, ask about them, stop them
    Cluster(cluster::Args),
    /// The same servers in containers: the compose file, and the images
    Docker(docker::Args),
    /// Check what a person would have to remember; builds nothing
    Tidy,
    /// Check each crate with each of its features alone, and with none
    Features,
    /// Get the servers and tools that are missing
    Setup(setup::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Tutorial(args) => tutorial::run(&args),
        Command::TestAll(args) => test_all::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Faults(args) => faults::run(&args),
        Command::Soak(args) => faults::soak(&args),
        Command::Models(args) => models::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Choose(args) => bench::choose(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Docker(args) => docker::run(&args),
        Command::Tidy => tidy::run(),
        Command::Features => features::run(),
        Command::Setup(args) => setup::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
