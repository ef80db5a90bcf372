//! Agents, seen from the lab.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command as Program, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use test_cluster::{Behaviour, Direction, Proxy, eventually};

use crate::{
    agent::{Command, Gap, Order, SETUP, Setup},
    event::{Answer, Event, How, What},
    history::History,
    nursery,
};

/// No answer takes longer, unless a cell says so.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What an agent answered: something, or the kind and the words of an error.
pub(crate) type Outcome = Result<Answer, (String, String)>;

/// One client: a process, or for the in-process lock a name within one. Clones are the same client.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) number: u32,
    pub(crate) process: Arc<Process>,
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) number: u32,
    child: Mutex<Child>,
    input: Mutex<Option<ChildStdin>>,
    orders: AtomicU64,
    history: Arc<History>,
    /// Between it and each server.
    pub(crate) proxies: Vec<Proxy>,
}

/// An answer that is still to come.
#[must_use = "an agent's answer says whether it worked"]
#[derive(Debug)]
pub(crate) struct Pending {
    agent: u32,
    number: u64,
    from: usize,
    history: Arc<History>,
}

impl Pending {
    pub(crate) fn wait_for(&self, bound: Duration) -> Result<Outcome> {
        let what = format!("agent {}'s answer to command {}", self.agent, self.number);
        self.history.wait(&what, self.from, bound, |event| match &event.what {
            What::Reply { command, answer } if *command == self.number && event.agent == self.agent => {
                Some(answer.clone())
            }
            _ => None,
        })
    }

    pub(crate) fn wait(&self) -> Result<Outcome> {
        self.wait_for(PATIENCE)
    }
}

impl Process {
    pub(crate) fn start(
        setup: &Setup,
        proxies: Vec<Proxy>,
        environment: &[(&str, PathBuf)],
        history: &Arc<History>,
    ) -> Result<Arc<Self>> {
        let mut program = Program::new(std::env::current_exe()?);
        program
            .arg("agent")
            .env(SETUP, serde_json::to_string(setup)?)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = nursery::spawn(program).context("cannot start an agent")?;
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let heard = Arc::clone(history);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                match serde_json::from_str::<Event>(&line) {
                    Ok(event) => heard.add(event),
                    Err(error) => eprintln!("an agent said {line:?}: {error}"),
                }
            }
        });
        let input = Mutex::new(child.stdin.take());
        let (orders, history) = (AtomicU64::new(1), Arc::clone(history));
        Ok(Arc::new(Self { number: setup.agent, child: Mutex::new(child), input, orders, history, proxies }))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.lock().id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?).context("a process has a number")?;
        kill_process(pid, signal).context("cannot send a signal to an agent")
    }

    pub(crate) fn has_ended(&self) -> bool {
        !matches!(self.child.lock().try_wait(), Ok(None))
    }

    /// How it ended, if it has.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        self.child.lock().try_wait().ok().flatten()
    }

    /// Lets it end by itself, as its input does.
    pub(crate) fn close_input(&self) {
        *self.input.lock() = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        // It may have ended by itself.
        child.kill().ok();
        child.wait().ok();
    }
}

impl Agent {
    pub(crate) fn order(&self, command: Command) -> Result<Pending> {
        let process = &self.process;
        let number = process.orders.fetch_add(1, Ordering::Relaxed);
        let line = serde_json::to_string(&Order { number, agent: self.number, command })? + "\n";
        let from = process.history.len();
        let mut input = process.input.lock();
        let input = input.as_mut().context("the agent was told to end")?;
        input.write_all(line.as_bytes()).context("an agent does not read its commands")?;
        Ok(Pending { agent: self.number, number, from, history: Arc::clone(&process.history) })
    }

    pub(crate) fn ask(&self, command: Command) -> Result<Outcome> {
        self.order(command)?.wait()
    }

    /// Waits until it is connected.
    pub(crate) fn wait_until_connected(&self) -> Result<Outcome> {
        let (agent, history) = (self.number, Arc::clone(&self.process.history));
        Pending { agent, number: 0, from: 0, history }.wait()
    }

    pub(crate) fn acquire(&self, lock: &str, how: How) -> Result<Outcome> {
        self.ask(Command::Acquire { lock: lock.to_owned(), how })
    }

    /// Acquires `lock`, waiting for it, and returns the attempt and the token.
    pub(crate) fn hold(&self, lock: &str) -> Result<(u64, u64)> {
        match self.acquire(lock, How::Wait)? {
            Ok(Answer::Acquired { attempt, token }) => Ok((attempt, token)),
            other => bail!("agent {} was to hold {lock:?}, but it answered {other:?}", self.number),
        }
    }

    /// Begins to wait for `lock`.
    pub(crate) fn wait_for(&self, lock: &str) -> Result<Pending> {
        self.order(Command::Acquire { lock: lock.to_owned(), how: How::Wait })
    }

    pub(crate) fn is_held(&self, lock: &str) -> Result<bool> {
        match self.ask(Command::IsHeld { lock: lock.to_owned() })? {
            Ok(Answer::Held(held)) => Ok(held),
            other => bail!("agent {} was asked for its belief, and answered {other:?}", self.number),
        }
    }

    /// Works under the guard; `false` if it was lost, or the store refused.
    pub(crate) fn work(&self, lock: &str, gap: Gap) -> Result<bool> {
        match self.ask(Command::Work { lock: lock.to_owned(), gap })? {
            Ok(Answer::Accepted(done)) => Ok(done),
            other => bail!("agent {} was to work, and answered {other:?}", self.number),
        }
    }

    pub(crate) fn release(&self, lock: &str) -> Result<Outcome> {
        self.ask(Command::Release { lock: lock.to_owned() })
    }

    /// Sets what happens to the bytes between it and all servers.
    pub(crate) fn network(&self, direction: Direction, behaviour: Behaviour) {
        self.process.proxies.iter().for_each(|proxy| proxy.set(direction, behaviour));
    }

    /// What has arrived at its proxies in this direction.
    pub(crate) fn bytes(&self, direction: Direction) -> u64 {
        self.process.proxies.iter().map(|proxy| proxy.bytes(direction)).sum()
    }

    /// Kills it.
    pub(crate) fn kill(&self) -> Result<()> {
        self.process.history.note(What::Killed { agent: self.process.number });
        self.process.signal(Signal::KILL)?;
        self.wait_until_ended()
    }

    /// Waits until it has ended, by whomever it was killed.
    pub(crate) fn wait_until_ended(&self) -> Result<()> {
        eventually("a killed agent to end", PATIENCE, || {
            ensure!(self.process.has_ended(), "it runs");
            Ok(())
        })
    }

    /// Stops it by SIGSTOP.
    pub(crate) fn stop(&self) -> Result<()> {
        self.process.signal(Signal::STOP)?;
        self.wait_until_stopped()
    }

    /// Waits until it stands still, by whomever it was stopped.
    pub(crate) fn wait_until_stopped(&self) -> Result<()> {
        let agent = self.process.number;
        eventually("an agent to stop", PATIENCE, || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.pid()))?;
            ensure!(stat.contains(") T "), "it runs");
            Ok(())
        })?;
        self.process.history.note(What::Stopped { agent, stopped: true });
        Ok(())
    }

    pub(crate) fn go_on(&self) -> Result<()> {
        self.process.history.note(What::Stopped { agent: self.process.number, stopped: false });
        self.process.signal(Signal::CONT)
    }
}
