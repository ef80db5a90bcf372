//! `cargo xtask setup`: gets the servers and tools that are missing, as a polite guest.

mod apt;

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use anyhow::{Context, Result, bail};
use duct::cmd;
use test_cluster::tools::{self, Tool};

use crate::{
    progress::{Progress, tail},
    workspace,
};

/// Something that must be on this machine, and the names it goes by.
pub(crate) struct Need {
    what: &'static str,
    tool: &'static Tool,
    debian: &'static [&'static str],
    brew: &'static str,
    /// The packages whose tests need it.
    used_by: &'static [&'static str],
}

pub(crate) const REDIS: Need = Need {
    what: "Redis",
    tool: &tools::REDIS_SERVER,
    debian: &["redis-server", "redis-tools"],
    brew: "redis",
    used_by: &["lock-setnx"],
};

pub(crate) const ALL: &[&Need] = &[&REDIS];

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    consent: Consent,
}

#[derive(clap::Args)]
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

pub(crate) fn needs_of(packages: &[String]) -> Vec<&'static Need> {
    let is_used = |need: &&Need| packages.iter().any(|package| need.used_by.contains(&package.as_str()));
    ALL.iter().copied().filter(is_used).collect()
}

/// Gets what is missing of `needs`.
pub(crate) fn ensure(needs: &[&Need], consent: &Consent) -> Result<()> {
    let mut missing = Vec::new();
    for need in needs {
        if need.is_missing() {
            missing.push(*need);
        } else {
            println!("{}", need.found()?);
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
        println!("{}", need.found().with_context(|| by_hand(&[need]))?);
    }
    Ok(())
}

impl Need {
    /// Whether fetching it would help. It would not if a variable or the PATH leads to something that does not run, since
    /// they come first.
    fn is_missing(&self) -> bool {
        let chosen = env::var_os(self.tool.env).is_some_and(|path| !path.is_empty());
        match tools::find(self.tool) {
            // Unpacked, but not all of it, if an earlier attempt was interrupted.
            Ok(found) => found.path.starts_with(tools::tools_root()) && found.version().is_err(),
            Err(_) => !chosen,
        }
    }

    fn found(&self) -> Result<String> {
        let executable = tools::find(self.tool)?;
        Ok(format!("{} {}: {}", self.what, executable.version()?, executable.path.display()))
    }
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
    let ways = missing
        .iter()
        .map(|need| format!("install {} or set {} to the path of its program", need.what, need.tool.env));
    format!("{}, then try again", ways.collect::<Vec<_>>().join("; "))
}
