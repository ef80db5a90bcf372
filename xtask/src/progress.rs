//! Long work that shows that it is alive: a spinner in a terminal, plain lines elsewhere.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use duct::{Expression, Handle, cmd};
use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(100);

/// A command that says nothing for so long hangs. No honest step is half as quiet.
const SILENCE: Duration = Duration::from_secs(10 * 60);

/// One piece of work under way.
pub(crate) struct Progress {
    bar: ProgressBar,
    label: String,
    started: Instant,
}

impl Progress {
    pub(crate) fn start(label: impl Into<String>) -> Self {
        let label = label.into();
        let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}")
            .expect("the template is a constant");
        let bar = ProgressBar::new_spinner().with_style(style).with_prefix(label.clone());
        if bar.is_hidden() {
            println!("  {label} ...");
        }
        bar.enable_steady_tick(TICK);
        Self { bar, label, started: Instant::now() }
    }

    /// Ends the work with one line that stays, and tells how long it took.
    pub(crate) fn finish(self, succeeded: bool) -> Duration {
        self.bar.finish_and_clear();
        let took = self.started.elapsed();
        println!("{} {} ({})", if succeeded { "✓" } else { "✗" }, self.label, human(took));
        took
    }

    /// Runs `command` with its output in the file `log`, the newest line beside the spinner, and tells whether it
    /// succeeded. One that hangs is ended, with all that it started, and named.
    pub(crate) fn run(&self, command: &Expression, log: &Path) -> Result<bool> {
        self.wait(&start(command, log)?, log)
    }

    /// Waits for what was [started](start) earlier, in the same way.
    pub(crate) fn wait(&self, running: &Handle, log: &Path) -> Result<bool> {
        self.wait_within(SILENCE, running, log)
    }

    fn wait_within(&self, silence: Duration, running: &Handle, log: &Path) -> Result<bool> {
        let (mut written, mut heard) = (0, Instant::now());
        loop {
            if let Some(ended) = running.wait_timeout(TICK)? {
                return Ok(ended.status.success());
            }
            let length = fs::metadata(log)?.len();
            if length != written {
                (written, heard) = (length, Instant::now());
            }
            let newest = newest_line(log)?;
            if heard.elapsed() > silence {
                running.pids().into_iter().for_each(end_all);
                running.wait()?;
                bail!(
                    "{}: nothing was heard for {}, so it was ended; its last line: {newest}",
                    self.label,
                    human(silence)
                );
            }
            self.bar.set_message(newest);
        }
    }
}

/// Ends process `pid` and all that it started, the eldest first, lest they start more.
fn end_all(pid: u32) {
    let children = cmd!("ps", "-A", "-o", "pid=,ppid=").stderr_null().unchecked().read().unwrap_or_default();
    // A failure means that it has ended by itself.
    let _ = cmd!("kill", "-KILL", pid.to_string()).stderr_null().unchecked().run();
    for line in children.lines() {
        let mut numbers = line.split_whitespace().filter_map(|number| number.parse::<u32>().ok());
        if let (Some(child), Some(parent)) = (numbers.next(), numbers.next())
            && parent == pid
        {
            end_all(child);
        }
    }
}

/// Starts `command` with its output in the file `log`.
pub(crate) fn start(command: &Expression, log: &Path) -> Result<Handle> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    // A file and not a pipe, whose end would not come while a process that was left behind holds it.
    let running = command.stderr_to_stdout().stdout_file(file).unchecked().start();
    running.with_context(|| format!("cannot run {command:?}"))
}

fn newest_line(log: &Path) -> io::Result<String> {
    const ENOUGH: u64 = 1024;
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(ENOUGH)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).trim_end().lines().last().unwrap_or_default().to_owned())
}

/// A log, also if it is not all text or cannot be read.
pub(crate) fn read(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
}

/// The last lines of a log, for a person to see what went wrong.
pub(crate) fn tail(log: &Path) -> String {
    const LINES: usize = 40;
    let text = read(log);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// A duration as people say it: `12.3 s`, `4 min 12 s`.
pub(crate) fn human(took: Duration) -> String {
    let seconds = took.as_secs();
    if seconds < 60 {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use duct::cmd;

    use super::{Progress, human, newest_line, start, tail};

    #[test]
    fn durations_read_like_speech() {
        assert_eq!(human(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(human(Duration::from_secs(252)), "4 min 12 s");
    }

    #[test]
    fn a_failing_command_leaves_both_its_streams_in_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("logs/step.log");
        let progress = Progress::start("a test");
        let ok = progress.run(&cmd!("sh", "-c", "echo out; echo err >&2; exit 3"), &log).unwrap();
        progress.finish(ok);
        assert!(!ok);
        assert_eq!(tail(&log), "out\nerr");
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_its_children_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("step.log");
        let progress = Progress::start("a test");
        let hangs = cmd!("sh", "-c", "sh -c 'echo $$; sleep 600; true'; true");
        let error = progress
            .wait_within(Duration::from_millis(500), &start(&hangs, &log).unwrap(), &log)
            .unwrap_err()
            .to_string();
        progress.finish(false);
        let child = tail(&log);
        assert!(error.contains("a test: nothing was heard") && error.contains(&child), "{error}");
        let state = cmd!("ps", "-o", "stat=", "-p", &child).unchecked().read().unwrap();
        assert!(state.is_empty() || state.starts_with('Z'), "{child} was left: {state}");
    }

    #[test]
    fn a_process_that_a_command_leaves_behind_holds_nothing_up() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("step.log");
        let progress = Progress::start("a test");
        let ok = progress.run(&cmd!("sh", "-c", "sleep 3 & echo left"), &log).unwrap();
        let took = progress.finish(ok);
        assert!(took < Duration::from_secs(3), "it took {took:?}");
        assert_eq!(newest_line(&log).unwrap(), "left");
    }
}
