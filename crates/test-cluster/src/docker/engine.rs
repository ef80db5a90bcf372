//! The engine that runs containers, by the commands that people type.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    process::{Command, Output},
};

use anyhow::{Context, Result, bail};

use super::{BUILD_VARIABLES, Image, directory};

/// An engine that answers, and its compose.
#[derive(Clone, Debug)]
pub struct Engine {
    /// `docker compose`, or `docker-compose` where it is a program of its own.
    compose: &'static [&'static str],
}

impl Engine {
    /// Looks for an engine that answers, and for compose.
    ///
    /// # Errors
    ///
    /// One of them is not there; the error says what to install or to start.
    pub fn find() -> Result<Engine> {
        run("docker", ["version", "--format", "{{.Server.Version}}"])
            .context("no container engine answers: install Docker, or start it")?;
        let is_there = |words: &&&[&str]| run(words[0], words[1..].iter().chain(&["version"])).is_ok();
        const SPELLINGS: &[&[&str]] = &[&["docker", "compose"], &["docker-compose"]];
        let compose = SPELLINGS.iter().find(is_there).context(
            "the engine answers, but neither `docker compose` nor `docker-compose` runs: install Docker Compose",
        )?;
        Ok(Self { compose })
    }

    /// Returns why programs of this machine do not reach the containers' own addresses; `None` if they do.
    #[must_use]
    pub fn hides_addresses(&self) -> Option<&'static str> {
        let info = || self.docker(["info", "--format", "{{.OperatingSystem}} {{.SecurityOptions}}"]);
        if !cfg!(target_os = "linux") {
            return Some("the engine has a virtual machine of its own here");
        }
        match info() {
            Ok(info) if info.contains("Docker Desktop") => {
                Some("Docker Desktop has a virtual machine of its own")
            }
            Ok(info) if info.contains("rootless") => Some("a rootless engine has networks of its own"),
            _ => None,
        }
    }

    /// Returns the Debian image that the servers are installed into.
    ///
    /// # Errors
    ///
    /// `docker/Dockerfile` cannot be read.
    pub fn base() -> Result<String> {
        let file = directory().join("Dockerfile");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let base = text.lines().find_map(|line| line.strip_prefix("FROM ")?.strip_suffix(" AS servers"));
        Ok(base.context("docker/Dockerfile has no stage `servers`")?.to_owned())
    }

    /// Returns whether the engine has `image`.
    #[must_use]
    pub fn has(&self, image: &str) -> bool {
        self.docker(["image", "inspect", image]).is_ok()
    }

    /// Builds `image` as `docker/Dockerfile` says; what has not changed since is taken from the engine's cache.
    ///
    /// # Errors
    ///
    /// It cannot be built; the error has what the engine said.
    pub fn build(&self, image: Image) -> Result<()> {
        let stage = image.stage();
        let mut words = ["build", "--target", stage, "--tag", &image.name()].map(OsString::from).to_vec();
        let variables = BUILD_VARIABLES.map(str::to_owned).into_iter().chain([image.variable()]);
        for variable in variables.filter(|name| env::var_os(name).is_some_and(|value| !value.is_empty())) {
            // Without a value, it is the environment's.
            words.extend(["--build-arg".into(), variable.into()]);
        }
        words.push(directory().into());
        self.docker(words).map(|_| ()).with_context(|| {
            format!(
                "cannot build the image of {stage}; `cargo xtask docker images` makes a base if there is none"
            )
        })
    }

    /// Runs `docker` and returns what it wrote.
    ///
    /// # Errors
    ///
    /// It fails; the error has what it said.
    pub fn docker<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Result<String> {
        run("docker", words)
    }

    /// A call of compose on our file.
    pub(super) fn compose(&self) -> Command {
        let mut command = Command::new(self.compose[0]);
        command.args(&self.compose[1..]).arg("--file").arg(directory().join("compose.yaml"));
        command
    }
}

fn run<W: AsRef<OsStr>>(program: &str, words: impl IntoIterator<Item = W>) -> Result<String> {
    output(Command::new(program).args(words))
}

/// Runs `command` to its end and returns what it wrote.
pub(super) fn output(command: &mut Command) -> Result<String> {
    const SHOWN_LINES: usize = 30;
    let program = command.get_program().display().to_string();
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        let said = said.join("\n");
        let lines: Vec<_> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n").trim().to_owned();
        bail!("{program} says: {last}");
    }
    Ok(String::from_utf8_lossy(&stdout).trim().to_owned())
}
