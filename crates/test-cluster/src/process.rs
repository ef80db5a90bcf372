//! Server processes: watched ones that never outlive the test, detached ones that do, and their signals.

pub(crate) mod detached;
mod watched;

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

pub use detached::{Detached, is_detached_running, stop_detached};
pub(crate) use watched::Watched;

/// The log of a server, inside the directory it was given.
pub(crate) const LOG: &str = "server.log";

/// What a server writes goes here; all else in its directory survives `restart_without_data`.
pub(crate) const DATA: &str = "data";

const SHOWN_LOG_LINES: usize = 30;

/// Returns whether a process with this id exists and has not ended; one that is merely not reaped yet has ended.
pub fn is_running(pid: u32) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

pub(crate) fn is_stopped(pid: u32) -> bool {
    state(pid) == Some('T')
}

pub(crate) fn signal(pid: u32, signal: Signal) -> Result<()> {
    let id =
        i32::try_from(pid).ok().and_then(Pid::from_raw).with_context(|| format!("{pid} is no process id"))?;
    kill_process(id, signal).with_context(|| format!("cannot send a signal to process {pid}"))
}

/// The end of the log in `dir`, indented, for the error of a server that did not start.
pub(crate) fn log_tail(dir: &Path) -> String {
    let log = read_log(dir);
    let lines: Vec<&str> = log.lines().collect();
    let shown = &lines[lines.len().saturating_sub(SHOWN_LOG_LINES)..];
    if shown.is_empty() { "  (it is empty)".to_owned() } else { format!("  {}", shown.join("\n  ")) }
}

pub(crate) fn read_log(dir: &Path) -> String {
    fs::read(dir.join(LOG)).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
}

/// The letter for what the process does: R, S, D, T (stopped), Z (ended, not reaped).
fn state(pid: u32) -> Option<char> {
    if cfg!(target_os = "linux") {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The state follows the name, which is in parentheses and may contain some itself.
        stat.rsplit_once(") ")?.1.chars().next()
    } else {
        ps(pid, "state=")?.chars().next()
    }
}

/// The command line of the process as it is now: a server may rewrite its own.
fn command_line(pid: u32) -> Option<String> {
    let line = if cfg!(target_os = "linux") {
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&words).replace('\0', " ").trim().to_owned()
    } else {
        ps(pid, "command=")?
    };
    (!line.is_empty()).then_some(line)
}

fn ps(pid: u32, column: &str) -> Option<String> {
    let output = Command::new("ps").args(["-o", column, "-p", &pid.to_string()]).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
