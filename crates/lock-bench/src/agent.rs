//! A client in a process of its own: what it costs can be told from the rest, and it can be killed.

use std::{
    io::{self, BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lock_local::{AnyLocker, LockGuard};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{
    clock, load,
    load::{Keys, Shape},
    locks::{self, Any},
    sample::Record,
    setup::Setup,
};

/// The word by which this program is an agent.
pub const WORD: &str = "agent";

/// Locks that are acquired at the same time.
const AT_ONCE: usize = 64;

/// A key that no other part of a case uses.
pub const SPARE: usize = 10_000_000;

/// The keys of agents that hold come after this one.
const HELD: usize = 100_000;

/// What an agent is for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Orders {
    /// On which servers.
    pub setup: Setup,
    /// Where they are.
    pub urls: Vec<String>,
    /// How long its leases last.
    pub ttl: Duration,
    /// What it does.
    pub task: Task,
}

/// What an agent does.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Task {
    /// Locks and releases one key, as often as told.
    Contend {
        /// How long it holds.
        hold: Duration,
    },
    /// Holds so many keys, others than an agent that holds another number: the leases of one that was killed go on.
    Hold(usize),
    /// Waits for so many keys.
    Wait(usize),
}

/// What it says when it is ready.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Ready {
    /// How long that took.
    pub seconds: f64,
    /// The memory that it had when it was connected.
    pub base: u64,
    /// The memory that it has now.
    pub memory: u64,
    /// How many tasks it has now.
    pub tasks: usize,
}

/// What it says after it was told to go on for a time.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Went {
    /// One key after the other, or the contended one.
    pub record: Record,
    /// How many of the locks that it held were lost.
    pub lost: usize,
}

/// An agent, seen from the bench. Dropped, it is killed.
#[derive(Debug)]
pub struct Agent {
    process: Child,
    commands: ChildStdin,
    replies: Lines<BufReader<ChildStdout>>,
}

impl Agent {
    /// Starts one, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// It ends before that.
    pub fn start(orders: &Orders) -> Result<(Self, Ready)> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut process = Command::new(program)
            .args([WORD, &serde_json::to_string(orders)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run this program again")?;
        let commands = process.stdin.take().context("it is piped")?;
        let replies = BufReader::new(process.stdout.take().context("it is piped")?).lines();
        let mut agent = Self { process, commands, replies };
        let ready = agent.reply()?;
        Ok((agent, ready))
    }

    /// Tells it to go on for `time`.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn begin(&mut self, time: Duration) -> Result<()> {
        writeln!(self.commands, "{}", time.as_millis()).context("the agent has ended")
    }

    /// Waits for what came of it.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn went(&mut self) -> Result<Went> {
        self.reply()
    }

    /// Returns the memory that it has now, in bytes.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn memory(&self) -> Result<u64> {
        memory(&self.process.id().to_string())
    }

    /// Ends it without a word.
    ///
    /// # Errors
    ///
    /// It cannot be ended.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().context("cannot kill the agent")?;
        self.process.wait().context("cannot wait for the agent").map(drop)
    }

    fn reply<T: DeserializeOwned>(&mut self) -> Result<T> {
        match self.replies.next() {
            Some(line) => Ok(serde_json::from_str(&line?)?),
            None => bail!("the agent has ended: {}", self.process.wait()?),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It fails if it has ended.
        let _ = self.kill();
    }
}

/// Is an agent, until nobody tells it to go on any more.
///
/// # Errors
///
/// The orders cannot be read, or a lock fails.
pub fn serve(orders: &str) -> Result<()> {
    let Orders { setup, urls, ttl, task } = serde_json::from_str(orders)?;
    let runtime = Runtime::new()?;
    let locker = runtime.block_on(locks::ours(setup, &urls, ttl))?;
    let (base, started) = (memory("self")?, Instant::now());
    let mut guards = Vec::new();
    let mut waiting = JoinSet::new();
    match task {
        Task::Contend { .. } => {}
        Task::Hold(count) => guards = runtime.block_on(hold(&locker, first_of(count), count))?,
        Task::Wait(count) => {
            for number in 0..count {
                let locker = locker.clone();
                waiting.spawn_on(async move { locker.lock(load::name(number)).await }, runtime.handle());
            }
        }
    }
    let tasks = runtime.metrics().num_alive_tasks();
    say(&Ready { seconds: started.elapsed().as_secs_f64(), base, memory: memory("self")?, tasks })?;
    let client = [Arc::new(Any(locker))];
    for line in io::stdin().lines() {
        let time = Duration::from_millis(line?.trim().parse()?);
        let (hold, first) = match task {
            Task::Contend { hold } => (hold, 0),
            Task::Hold(_) | Task::Wait(_) => (Duration::ZERO, SPARE),
        };
        let shape = Shape { tasks: 1, keys: Keys::One, hold, batch: 1, first };
        let record = if matches!(task, Task::Wait(_)) {
            let (start, cpu) = (clock::now(), clock::cpu());
            std::thread::sleep(time);
            let cpu = clock::cpu() - cpu;
            Record { turns: Vec::new(), start, end: clock::now(), cpu, batch: 1, contended: false }
        } else {
            runtime.block_on(load::drive(&client, &shape, time))?
        };
        let lost = guards.iter().filter(|guard| !guard.is_held()).count();
        say(&Went { record, lost })?;
    }
    Ok(())
}

fn say(what: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(what)?);
    Ok(())
}

/// Returns the number of the first key of an agent that holds `count` of them.
#[must_use]
pub fn first_of(count: usize) -> usize {
    HELD + 10 * count
}

/// Acquires the keys of `count` numbers from `first` on.
///
/// # Errors
///
/// One of them cannot be acquired.
pub async fn hold(locker: &AnyLocker, first: usize, count: usize) -> Result<Vec<LockGuard>> {
    let mut tasks = JoinSet::new();
    for start in first..first + AT_ONCE.min(count) {
        let locker = locker.clone();
        tasks.spawn(async move {
            let mut guards = Vec::new();
            for number in (start..first + count).step_by(AT_ONCE) {
                guards.push(locker.lock(load::name(number)).await?);
            }
            anyhow::Ok(guards)
        });
    }
    let mut all = Vec::with_capacity(count);
    while let Some(guards) = tasks.join_next().await {
        all.append(&mut guards??);
    }
    Ok(all)
}

/// The memory of a process that is on no disk, in bytes.
fn memory(process: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.context("this system does not tell what memory a process has")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).context("this system tells no RssAnon")
}
