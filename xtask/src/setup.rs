//! `cargo xtask setup`: gets the servers and tools that are missing, as a polite guest.

mod apt;
mod needs;

use std::io::{self, IsTerminal, Write};

use anyhow::{Result, bail};
use duct::cmd;
use test_cluster::tools;

pub(crate) use self::needs::{ALL, ETCD, JAVA, Need, PROTOC, REDIS, STRACE, ZOOKEEPER};
use self::needs::{KNOWN, Look};
use crate::{
    progress::{Progress, tail},
    workspace,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    consent: Consent,
}

#[derive(clap::Args, Default)]
pub(crate) struct Consent {
    /// Get what is missing without a question
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure(ALL, &args.consent)?;
    println!("setup: everything is in place");
    Ok(())
}

/// Gets what is missing of `needs`.
pub(crate) fn ensure(needs: &[&Need], consent: &Consent) -> Result<()> {
    let mut missing = Vec::new();
    for need in KNOWN.iter().filter(|need| needs.iter().any(|wanted| wanted.what == need.what)) {
        match (need.look)() {
            Look::Found(found) => println!("{}: {found}", need.what),
            Look::Broken(error) => return Err(error.context(format!("{} does not run", need.what))),
            Look::Missing(_) => missing.push(*need),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let Some(source) = Source::of_this_machine() else {
        bail!(
            "something is missing, and there is neither apt-get nor Homebrew to get it; {}",
            by_hand(&missing)
        );
    };
    println!("{}", source.plan(&missing));
    if !consent.given()? {
        bail!("nothing was fetched; {}", by_hand(&missing));
    }
    source.fetch(&missing)?;
    for need in missing {
        match (need.look)() {
            Look::Found(found) => println!("{}: {found}", need.what),
            Look::Broken(error) | Look::Missing(error) => return Err(error.context(by_hand(&[need]))),
        }
    }
    Ok(())
}

impl Consent {
    /// A question is put only to a person who can answer it.
    fn given(&self) -> Result<bool> {
        if self.yes || !io::stdin().is_terminal() {
            return Ok(true);
        }
        print!("Go on? [Y/n] ");
        io::stdout().flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))
    }
}

/// Where this machine gets its software from.
#[derive(Clone, Copy)]
enum Source {
    Apt,
    Homebrew,
}

impl Source {
    fn of_this_machine() -> Option<Self> {
        let runs = |program: &str| cmd!(program, "--version").stdout_null().stderr_null().run().is_ok();
        if runs("apt-get") && runs("dpkg") {
            Some(Self::Apt)
        } else if runs("brew") {
            Some(Self::Homebrew)
        } else {
            None
        }
    }

    fn plan(self, missing: &[&Need]) -> String {
        let what = missing.iter().map(|need| need.what).collect::<Vec<_>>().join(", ");
        match self {
            Self::Apt => format!(
                "Not on this machine: {what}. Will download the distribution's own packages and unpack them under {}; \
                 nothing is installed and no service is started.",
                tools::tools_root().display()
            ),
            Self::Homebrew => {
                let formulas = missing.iter().map(|need| need.brew).collect::<Vec<_>>().join(" ");
                format!("Not on this machine: {what}. Will run `brew install {formulas}`.")
            }
        }
    }

    fn fetch(self, missing: &[&Need]) -> Result<()> {
        match self {
            Self::Apt => {
                apt::fetch(&missing.iter().flat_map(|need| need.debian).copied().collect::<Vec<_>>())
            }
            Self::Homebrew => {
                let log = workspace::target().join("tools/brew.log");
                let progress = Progress::start("brew install");
                let formulas = missing.iter().map(|need| need.brew);
                let succeeded = progress.run(&cmd("brew", ["install"].into_iter().chain(formulas)), &log)?;
                progress.finish(succeeded);
                if !succeeded {
                    bail!("Homebrew failed:\n{}", tail(&log));
                }
                Ok(())
            }
        }
    }
}

/// What a person can do where we cannot.
fn by_hand(missing: &[&Need]) -> String {
    let ways = missing.iter().map(|need| format!("install {} or set {}", need.what, need.instead));
    format!("{}, then try again", ways.collect::<Vec<_>>().join("; "))
}
