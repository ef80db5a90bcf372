//! `cargo xtask docker`: the compose file and the images of the servers in containers.

mod base;

use std::fs;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use test_cluster::docker::{self, Engine, Image};

use crate::progress::Progress;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Write docker/compose.yaml anew, after a change of the clusters in test-cluster
    Write,
    /// Build the images, and the base that they are made of where no registry has it for us
    Images,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match args.action {
        Action::Write => {
            let file = docker::directory().join("compose.yaml");
            fs::write(&file, docker::compose_file())
                .with_context(|| format!("cannot write {}", file.display()))?;
            println!("docker: docker/compose.yaml is written");
        }
        Action::Images => {
            images(&Engine::find()?)?;
            println!("docker: {} images are built", Image::ALL.len());
        }
    }
    Ok(())
}

/// Builds what the containers need.
pub(crate) fn images(engine: &Engine) -> Result<()> {
    base::ensure(engine)?;
    for image in Image::ALL {
        let progress = Progress::start(format!("the image of {}", image.stage()));
        let built = engine.build(*image);
        progress.finish(built.is_ok());
        built?;
    }
    Ok(())
}

/// Looks for an engine that can give us servers in containers.
pub(crate) fn engine() -> Result<Engine> {
    let engine = Engine::find()?;
    base::check(&engine)?;
    Ok(engine)
}

/// The same, where programs of this machine reach the networks of the containers.
pub(crate) fn engine_with_networks() -> Result<Engine> {
    let engine = engine()?;
    match engine.hides_addresses() {
        Some(reason) => bail!("tests use the containers' own addresses, and {reason}"),
        None => Ok(engine),
    }
}
