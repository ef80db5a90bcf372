//! A disk that takes its time: system calls of a process that are delayed by strace.

use std::{
    ffi::OsString,
    fs,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use test_cluster::{
    eventually,
    tools::{self, STRACE},
};

use crate::nursery;

const BOUND: Duration = Duration::from_secs(10);

/// A process whose `fsync` and `fdatasync` take longer.
#[derive(Debug)]
pub(crate) struct SlowDisk {
    strace: Child,
    pid: u32,
}

impl SlowDisk {
    /// Delays each sync of process `pid`, and of all its threads, by `delay`.
    ///
    /// # Errors
    ///
    /// There is no strace, or it may not trace: the error says so.
    pub(crate) fn begin(pid: u32, delay: Duration) -> Result<Self> {
        let words = tools::find(&STRACE)?.command_line(&[
            "-f".into(),
            "-q".into(),
            "-e".into(),
            "trace=fsync,fdatasync".into(),
            "-e".into(),
            format!("inject=fsync,fdatasync:delay_enter={}", delay.as_micros()).into(),
            "-o".into(),
            "/dev/null".into(),
            "-p".into(),
            OsString::from(pid.to_string()),
        ]);
        let mut command = nursery::bound(&words)?;
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let strace = nursery::spawn(command).context("cannot run strace")?;
        let mut disk = Self { strace, pid };
        eventually("strace to be attached", BOUND, || {
            ensure!(disk.strace.try_wait()?.is_none(), "strace ended: may it trace other processes here?");
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let traced = status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"));
            ensure!(traced, "nobody traces process {pid}");
            Ok(())
        })?;
        Ok(disk)
    }

    /// Waits until a thread whose name begins so stands still in a sync, and says which.
    pub(crate) fn wait_until_stuck(&self, thread: &str) -> Result<String> {
        const LOOKS: u32 = 8;
        let stopped = || -> Result<String> {
            for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
                let stat = fs::read_to_string(task?.path().join("stat"))?;
                let (id, rest) = stat.split_once(" (").unwrap_or_default();
                let (name, state) = rest.split_once(") ").unwrap_or_default();
                if name.starts_with(thread) && state.starts_with('t') {
                    return Ok(format!("thread {id}, {name}, stands still in a sync"));
                }
            }
            bail!("no thread {thread:?} of process {} stands still", self.pid)
        };
        eventually("a sync that is delayed", BOUND, || {
            let first = stopped()?;
            for _ in 0..LOOKS {
                // why: a thread also stands still for an instant at each call that strace looks at
                std::thread::sleep(Duration::from_millis(20));
                ensure!(stopped()? == first, "none stays so");
            }
            Ok(first)
        })
    }

    /// Kills the process while its disk is stuck: what it has not written by now is never written.
    pub(crate) fn kill_the_process(mut self) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a process has a number")?;
        kill_process(pid, Signal::KILL).context("cannot kill a process with a stuck disk")?;
        // What is left of a thread stays until its tracer has gone, so that nobody else could wait for the process.
        self.strace.kill()?;
        self.strace.wait()?;
        Ok(())
    }

    /// Lets the disk be as it was.
    pub(crate) fn end(mut self) -> Result<()> {
        self.stop();
        Ok(())
    }

    fn stop(&mut self) {
        // Asked to end, it lets go of the process first; killed, it would leave the delay in force.
        if let Some(pid) = Pid::from_raw(self.strace.id() as i32) {
            kill_process(pid, Signal::TERM).ok();
        }
        let ended = eventually("strace to end", BOUND, || {
            ensure!(self.strace.try_wait()?.is_some(), "it runs");
            Ok(())
        });
        if ended.is_err() {
            self.strace.kill().ok();
            self.strace.wait().ok();
        }
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        if matches!(self.strace.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}
