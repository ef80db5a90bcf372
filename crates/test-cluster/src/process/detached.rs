//! A server that goes on when the command that started it has ended.

use std::{
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{LOG, command_line, is_running, signal};
use crate::eventually;

/// The shell ends at once, so that the server is nobody's child and is reaped by the system.
const LAUNCHER: &str = r#"
trap '' HUP
log=$1
shift
"$@" </dev/null >>"$log" 2>&1 &
echo $!
"#;

/// Holds the command line of the server once it is ready, by which it is recognised later.
const COMMAND_LINE: &str = "command-line";

const STOP_BOUND: Duration = Duration::from_secs(10);

/// A server that was started to outlive this process. Dropping this value does nothing.
///
/// Keep the process id: [`stop_detached`] wants it.
#[derive(Clone, Debug)]
pub struct Detached {
    /// Its process id.
    pub pid: u32,
    /// The port it listens on.
    pub port: u16,
}

/// Stops a server that was started detached with `directory`, and returns when it is gone.
///
/// Returns `false` if it was gone before. A process that is not that server, because the id was given to
/// another one since, is left alone. The directory stays.
///
/// # Errors
///
/// The process belongs to somebody else, or does not end.
pub fn stop_detached(pid: u32, directory: &Path) -> Result<bool> {
    if !is_detached_running(pid, directory) {
        return Ok(false);
    }
    signal(pid, Signal::KILL)?;
    eventually("a killed server to end", STOP_BOUND, || {
        ensure!(!is_running(pid), "process {pid} still runs");
        Ok(true)
    })
}

/// Returns whether process `pid` is the server that was started detached with `directory`.
pub fn is_detached_running(pid: u32, directory: &Path) -> bool {
    let expected = fs::read_to_string(directory.join(COMMAND_LINE)).ok();
    expected.is_some() && expected == command_line(pid)
}

/// Makes the directories of servers. A detached server is recognised by where its files are, so links are resolved.
pub(crate) fn prepare(directories: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let make = |directory: &PathBuf| {
        fs::create_dir_all(directory)
            .and_then(|()| directory.canonicalize())
            .with_context(|| format!("cannot create {}", directory.display()))
    };
    directories.iter().map(make).collect()
}

/// Starts servers, each a directory and a command line, and waits until all are `ready`. Where one fails, none goes on.
pub(crate) fn start(
    servers: &[(PathBuf, Vec<OsString>)],
    ready: impl Fn(usize, u32) -> Result<()>,
) -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    let mut run = || {
        for (directory, command) in servers {
            pids.push(spawn(directory, command)?);
        }
        for (index, ((directory, _), pid)) in servers.iter().zip(&pids).enumerate() {
            ready(index, *pid)?;
            remember(directory, *pid)?;
        }
        Ok(())
    };
    let outcome = run();
    if outcome.is_err() {
        for pid in pids.iter().filter(|pid| is_running(**pid)) {
            signal(*pid, Signal::KILL)?;
        }
    }
    outcome.map(|()| pids)
}

/// Starts `command` with its log in `directory`. Returns its process id.
fn spawn(directory: &Path, command: &[OsString]) -> Result<u32> {
    let output = Command::new("/bin/sh")
        .args(["-c", LAUNCHER, "test-cluster-launcher"])
        .arg(directory.join(LOG))
        .args(command)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .output()
        .context("cannot run /bin/sh")?;
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .context("the shell did not say which process it started")
}

/// Remembers how the process looks now that it is ready.
fn remember(directory: &Path, pid: u32) -> Result<()> {
    let line = command_line(pid).with_context(|| format!("process {pid} has ended"))?;
    fs::write(directory.join(COMMAND_LINE), line).context("cannot note how the server is recognised")
}
