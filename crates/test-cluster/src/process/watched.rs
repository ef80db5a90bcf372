//! A server that dies with the process that started it, however that one ends.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use rustix::process::Signal;
use tempfile::TempDir;

use super::{DATA, LOG, is_running, is_stopped, read_log, signal};
use crate::eventually;

/// Lives as long as the pipe on its stdin, which the system closes when our process ends for any reason.
///
/// It ignores the signals of a terminal and of a process group that lost its leader: it has to survive us.
/// It is the parent of the server, whose id can therefore not be given to another process before it is reaped.
const WATCHDOG: &str = r#"
trap '' HUP INT QUIT TERM PIPE
directory=$1
log=$2
shift 2
server=
stop() {
    [ -n "$server" ] || return
    kill -KILL "$server"
    wait "$server"
    server=
}
while read -r order; do
    stop
    if [ "$order" = start ]; then
        "$@" </dev/null >>"$log" 2>&1 &
        server=$!
    fi
    echo "$server"
done
stop
rm -rf "$directory"
"#;

const SIGNAL_BOUND: Duration = Duration::from_secs(10);

/// A server process, its directory and its watchdog.
#[derive(Debug)]
pub(crate) struct Watched {
    watchdog: Mutex<Watchdog>,
    directory: TempDir,
}

#[derive(Debug)]
struct Watchdog {
    shell: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    server: Option<u32>,
}

impl Watched {
    /// Prepares to run `command_line`; nothing runs before [`start`](Self::start).
    pub(crate) fn new(directory: TempDir, command_line: &[OsString]) -> Result<Watched> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "test-cluster-watchdog"])
            .args([directory.path(), &directory.path().join(LOG)])
            .args(command_line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot run /bin/sh")?;
        let orders = shell.stdin.take();
        let answers = BufReader::new(shell.stdout.take().expect("stdout is piped"));
        let watchdog = Watchdog { shell, orders, answers, server: None };
        Ok(Watched { watchdog: Mutex::new(watchdog), directory })
    }

    /// Starts the server, after killing the one that runs. Returns its process id.
    pub(crate) fn start(&self) -> Result<u32> {
        let mut watchdog = self.watchdog.lock();
        watchdog.order("start")?;
        watchdog.server.context("the watchdog did not say which process it started")
    }

    /// Kills the server and reaps it.
    pub(crate) fn kill(&self) -> Result<()> {
        self.watchdog.lock().order("stop")
    }

    /// Removes what the server wrote. The server must not run.
    pub(crate) fn remove_data(&self) -> Result<()> {
        let data = self.directory().join(DATA);
        fs::remove_dir_all(&data)
            .and_then(|()| fs::create_dir(&data))
            .with_context(|| format!("cannot empty {}", data.display()))
    }

    /// Stops the process where it is; returns when it stands still.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP, |pid| {
            ensure!(is_stopped(pid), "process {pid} has not stopped");
            Ok(())
        })
    }

    /// Lets a paused process go on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT, |pid| {
            ensure!(!is_stopped(pid), "process {pid} is still stopped");
            Ok(())
        })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.watchdog.lock().server
    }

    pub(crate) fn log(&self) -> String {
        read_log(self.directory())
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Locks the process until `seen` succeeds, so that nobody replaces the process meanwhile.
    fn signal(&self, number: Signal, seen: impl Fn(u32) -> Result<()>) -> Result<()> {
        let watchdog = self.watchdog.lock();
        let pid = watchdog.server.context("the server was killed; restart it first")?;
        ensure!(is_running(pid), "the server (process {pid}) has ended by itself; see its log");
        signal(pid, number)?;
        eventually("a signal to take effect", SIGNAL_BOUND, || seen(pid))
    }
}

impl Watchdog {
    fn order(&mut self, order: &str) -> Result<()> {
        let mut answer = String::new();
        let orders = self.orders.as_mut().expect("the pipe is open until drop");
        writeln!(orders, "{order}")
            .and_then(|()| self.answers.read_line(&mut answer))
            .context("the watchdog of the server is gone")?;
        self.server = answer.trim().parse().ok();
        Ok(())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.orders = None;
        if let Err(error) = self.shell.wait() {
            eprintln!("cannot wait for the watchdog of a server: {error}");
        }
    }
}
