//! `cargo xtask bench` and `cargo xtask choose`: build the crate that knows the locks, and run it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use duct::cmd;

use crate::{
    programs,
    progress::{Progress, tail},
    servers::Server,
    setup::{self, Consent, Need},
    workspace,
};

/// The crate that measures. It is built as users build, with optimisation.
const PROGRAM: &str = "lock-bench";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure this one alone; may be given more than once
    #[arg(long, value_name = "NAME")]
    backend: Vec<Backend>,
    /// Measure this case alone; may be given more than once
    #[arg(long, value_name = "NAME")]
    case: Vec<Case>,
    /// Take about five minutes, where all takes several times as long
    #[arg(long)]
    quick: bool,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fetch the peers that PyPI has, and build the one in Go, into target/bench, before
    #[arg(long)]
    peers: bool,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// lock-local, beside other locks in one process
    Local,
    /// lock-setnx, on one Redis
    Setnx,
    /// lock-redlock, on five Redis servers
    Redlock,
    /// lock-etcd, on one server and on three
    Etcd,
    /// lock-zk, on one server and on three
    Zk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// One task, a key that nobody else wants
    Uncontended,
    /// 64 tasks with a key each
    Keys,
    /// One task, while one of several Redis servers is frozen
    Frozen,
    /// Tasks that all want one key
    Handover,
    /// Locks that one client holds
    Held,
    /// Callers that wait
    Idle,
    /// A holder that is killed
    Recovery,
}

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct ChooseArgs {
    /// Your servers, your load and its bounds; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    words: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let backends = if args.backend.is_empty() { Backend::value_variants() } else { &args.backend };
    setup::ensure(&needs(backends), &args.consent)?;
    if args.peers {
        fetch_peers()?;
    }
    let mut words = vec!["run".to_owned()];
    words.extend(args.backend.iter().flat_map(|backend| ["--backend".to_owned(), name(*backend)]));
    words.extend(args.case.iter().flat_map(|case| ["--case".to_owned(), name(*case)]));
    words.extend(args.quick.then(|| "--quick".to_owned()));
    let mut called = words.clone();
    called[0] = "cargo xtask bench".to_owned();
    if let Some(json) = &args.json {
        words.extend(["--json".to_owned(), json.display().to_string()]);
    }
    let dir = workspace::target().join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    words.extend(["--html".to_owned(), dir.join("report.html").display().to_string()]);
    words.extend(["--called".to_owned(), called.join(" ")]);
    run_program(&words)
}

/// The libraries for Go that Debian's packages bring.
const GO_LIBRARIES: &str = "/usr/share/gocode";

/// Locks in other languages that the bench runs where it finds them.
fn fetch_peers() -> Result<()> {
    let dir = workspace::target().join("bench");
    let venv = dir.join("venv");
    let make = cmd!("python3", "-m", "venv", &venv);
    let install = cmd!(venv.join("bin/pip"), "install", "--disable-pip-version-check", "redis", "kazoo");
    let source = workspace::root().join("crates/lock-bench/peers/etcd_mutex.go");
    let go = cmd!("go", "build", "-o", dir.join("etcd_mutex"), source)
        .env("GO111MODULE", "off")
        .env("GOPATH", GO_LIBRARIES)
        .env("GOCACHE", dir.join("go"));
    let mut steps = vec![("a Python of its own", make), ("redis-py and kazoo", install)];
    if Path::new(GO_LIBRARIES).join("src/go.etcd.io/etcd/clientv3/concurrency").exists() {
        steps.push(("etcd's Go Mutex", go));
    } else {
        println!("etcd's Go Mutex: its library is not here; Debian has it as golang-etcd-server-dev");
    }
    for (label, command) in steps {
        let (progress, log) = (Progress::start(label), dir.join("peers.log"));
        let succeeded = progress.run(&command, &log)?;
        progress.finish(succeeded);
        if !succeeded {
            bail!("{label}: this failed:\n{}", tail(&log));
        }
    }
    Ok(())
}

/// The servers are a person's own; all that is needed is what builds the program.
pub(crate) fn choose(args: &ChooseArgs) -> Result<()> {
    setup::ensure(&[&setup::PROTOC], &Consent::default())?;
    let words: Vec<_> = ["choose".to_owned()].into_iter().chain(args.words.iter().cloned()).collect();
    run_program(&words)
}

/// What the servers of `backends` take; all of it is in one program, so that of etcd is needed to build it.
fn needs(backends: &[Backend]) -> Vec<&'static Need> {
    let servers = backends.iter().filter_map(|backend| match backend {
        Backend::Local => None,
        Backend::Setnx => Some(Server::Redis),
        Backend::Redlock => Some(Server::Redlock),
        Backend::Etcd => Some(Server::Etcd),
        Backend::Zk => Some(Server::Zk),
    });
    servers.flat_map(Server::needs).copied().chain([&setup::PROTOC]).collect()
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().expect("none is hidden").get_name().to_owned()
}

fn run_program(words: &[String]) -> Result<()> {
    println!("Building {PROGRAM}, optimised; the first time takes some minutes");
    let built = programs::build(["build", "--release", "--package", PROGRAM])?;
    let program = built.iter().find(|program| program.name == PROGRAM);
    let program = program.with_context(|| format!("cargo built no {PROGRAM}"))?;
    let ended = cmd(&program.path, words).unchecked().run()?;
    if !ended.status.success() {
        bail!("{PROGRAM} failed, see above");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Backend, needs};

    #[test]
    fn only_the_servers_of_what_is_measured_are_needed() {
        assert_eq!(needs(&[Backend::Local]).len(), 1);
        assert_eq!(needs(&[Backend::Setnx, Backend::Redlock]).len(), 3);
    }
}
