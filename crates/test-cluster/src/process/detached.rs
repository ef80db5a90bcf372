//! A server that goes on when the command that started it has ended.

use std::{
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    path::Path,
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

/// Whether process `pid` is the server that was started detached with `directory`.
pub fn is_detached_running(pid: u32, directory: &Path) -> bool {
    let expected = fs::read_to_string(directory.join(COMMAND_LINE)).ok();
    expected.is_some() && expected == command_line(pid)
}

/// Starts `command` with its log in `directory`. Returns its process id.
pub(crate) fn spawn(directory: &Path, command: &[OsString]) -> Result<u32> {
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
pub(crate) fn remember(directory: &Path, pid: u32) -> Result<()> {
    let line = command_line(pid).with_context(|| format!("process {pid} has ended"))?;
    fs::write(directory.join(COMMAND_LINE), line).context("cannot note how the server is recognised")
}
