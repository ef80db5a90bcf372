//! A client in a process of its own: obeys commands, and writes down all that it sees.

mod connect;
mod contend;
mod holding;
mod moves;
mod protocol;
mod tricks;

use std::{
    collections::HashMap,
    env,
    io::{self, BufRead, Write},
    process::{self, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lock_core::{AnyLocker, LockGuard};
use parking_lot::{Mutex, RwLock};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};

use crate::event::{Answer, Event, How, What, now};

pub(crate) use connect::TRUSTING;
pub(crate) use protocol::{Command, Gap, Halt, Order, Pace, SETUP, Setup};

use holding::{Holding, Task};

/// What every task of an agent has at hand.
pub(crate) struct Agent {
    pub(crate) setup: Setup,
    locker: RwLock<AnyLocker>,
    attempts: AtomicU64,
    ceased: AtomicBool,
    holdings: Mutex<HashMap<(u32, String), mpsc::UnboundedSender<Task>>>,
    contenders: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    /// Futures that nobody polls any more.
    stalled: Mutex<Vec<tricks::Stalled>>,
}

/// Writes an event of agent `agent`. The lab reads all the time, so that this does not block.
pub(crate) fn say(agent: u32, what: What) {
    say_at(now(), agent, what);
}

pub(crate) fn say_at(at: u64, agent: u32, what: What) {
    let line = serde_json::to_string(&Event { at, agent, what }).expect("an event is JSON") + "\n";
    // Without a lab nobody needs the agent.
    if io::stdout().lock().write_all(line.as_bytes()).is_err() {
        process::exit(1);
    }
}

/// The kind and the words of an error, with what is below it.
pub(crate) fn told(error: &lock_core::Error) -> (String, String) {
    let below = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    (format!("{:?}", error.kind()), format!("{error}{below}"))
}

/// Runs an agent until its input ends.
pub(crate) fn serve() -> Result<ExitCode> {
    die_with_parent()?;
    let setup: Setup = serde_json::from_str(&env::var(SETUP).context("an agent is started by the lab")?)?;
    let orders = orders();
    let runtime = runtime(setup.threads)?;
    runtime.block_on(async {
        let agent = setup.agent;
        let connected = connect::connect(&setup, &setup.urls).await;
        let locker = match connected {
            Ok(locker) => locker,
            Err(error) => {
                say(agent, What::Reply { command: 0, answer: Err(told(&error)) });
                return;
            }
        };
        say(agent, What::Reply { command: 0, answer: Ok(Answer::Done) });
        tokio::spawn(tick(agent));
        let agent = Arc::new(Agent {
            setup,
            locker: RwLock::new(locker),
            attempts: AtomicU64::new(0),
            ceased: AtomicBool::new(false),
            holdings: Mutex::default(),
            contenders: Mutex::default(),
            stalled: Mutex::default(),
        });
        agent.obey(orders).await;
    });
    // Guards are alive, and the runtime ends under them.
    drop(runtime);
    Ok(ExitCode::SUCCESS)
}

fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    Ok(builder.worker_threads(threads).enable_all().build()?)
}

/// Ends with the lab even while it is stopped, when it cannot see its input end.
fn die_with_parent() -> Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}

/// Reads commands on a thread of its own, which ends the process when the input does, whatever it is busy with.
fn orders() -> mpsc::UnboundedReceiver<Order> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let order = serde_json::from_str(&line).expect("the lab sends commands");
            let _ = sender.send(order);
        }
        process::exit(0);
    });
    receiver
}

/// Writes down when this process did not get to run.
async fn tick(agent: u32) {
    const PERIOD: Duration = Duration::from_millis(10);
    let mut last = now();
    loop {
        tokio::time::sleep(PERIOD).await;
        let (before, after) = (last, now());
        last = after;
        let nanos = after - before;
        if nanos > 50 * crate::event::MS {
            say_at(after, agent, What::Gap { nanos });
        }
    }
}

impl Agent {
    fn locker(&self) -> AnyLocker {
        self.locker.read().clone()
    }

    /// A number that no other attempt of the lab has.
    fn next_attempt(&self) -> u64 {
        u64::from(self.setup.agent) << 32 | self.attempts.fetch_add(1, Ordering::Relaxed)
    }

    async fn obey(self: &Arc<Self>, mut orders: mpsc::UnboundedReceiver<Order>) {
        while let Some(Order { number, agent, command }) = orders.recv().await {
            if command == Command::Exit {
                return;
            }
            let this = Arc::clone(self);
            // Each on a task of its own, since some take long.
            tokio::spawn(async move {
                let answer = this.carry_out(agent, command).await;
                say(agent, What::Reply { command: number, answer });
            });
        }
    }

    async fn carry_out(self: &Arc<Self>, agent: u32, command: Command) -> Result<Answer, (String, String)> {
        match command {
            Command::Contend { lock, tasks, pace } => {
                self.ceased.store(false, Ordering::Relaxed);
                for _ in 0..tasks {
                    let task = tokio::spawn(contend::contend(Arc::clone(self), agent, lock.clone(), pace));
                    self.contenders.lock().push(task);
                }
                Ok(Answer::Done)
            }
            Command::Cease => {
                self.ceased.store(true, Ordering::Relaxed);
                let tasks = std::mem::take(&mut *self.contenders.lock());
                let count = tasks.len() as u64;
                for task in tasks {
                    task.await.map_err(|error| ("Panic".to_owned(), error.to_string()))?;
                }
                Ok(Answer::Count(count))
            }
            Command::Acquire { lock, how } => match self.acquire(agent, &lock, how).await {
                Ok(Some(holding)) => Ok(self.keep(holding)),
                Ok(None) => Ok(Answer::Busy),
                Err(error) => Err(told(&error)),
            },
            Command::CancelAcquire { lock, how, polls, linger } => {
                self.cancel_acquire(agent, &lock, how, (polls, Duration::from_millis(linger))).await
            }
            Command::Stall { lock, polls, leak } => self.stall(agent, &lock, polls, leak).await,
            Command::Elsewhere { lock, idle } => self.elsewhere(agent, &lock, idle).await,
            Command::Connect { urls, keep } => {
                let urls = urls.unwrap_or_else(|| self.setup.urls.clone());
                let locker = connect::connect(&self.setup, &urls).await.map_err(|error| told(&error))?;
                if keep {
                    *self.locker.write() = locker;
                }
                Ok(Answer::Done)
            }
            Command::Move { lock, to, halt } => {
                let moved = moves::move_slot(&self.setup, &lock, &to, halt).await;
                moved.map(|()| Answer::Done).map_err(|error| told(&error))
            }
            Command::Spawn => {
                let mut child = process::Command::new("sleep");
                child.arg("20").stdin(Stdio::null()).stdout(Stdio::null());
                let child = child.spawn().map_err(|error| ("Spawn".to_owned(), error.to_string()))?;
                Ok(Answer::Count(u64::from(child.id())))
            }
            Command::Tasks => {
                let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
                Ok(Answer::Count(tasks as u64))
            }
            Command::Close => {
                self.locker().close().await;
                Ok(Answer::Done)
            }
            Command::Exit => unreachable!("it ends the loop"),
            Command::Work { ref lock, .. }
            | Command::IsHeld { ref lock }
            | Command::Verify { ref lock }
            | Command::Release { ref lock }
            | Command::Drop { ref lock }
            | Command::Leak { ref lock }
            | Command::CancelRelease { ref lock, .. }
            | Command::Starve { ref lock, .. }
            | Command::Panic { ref lock } => {
                let holding = self.holdings.lock().get(&(agent, lock.clone())).cloned();
                let none = || ("NoGuard".to_owned(), "the agent has no guard of this lock".to_owned());
                let (reply, answer) = tokio::sync::oneshot::channel();
                holding.ok_or_else(none)?.send(Task { command, reply }).map_err(|_| none())?;
                answer.await.map_err(|_| none())?
            }
        }
    }

    /// Gives a hold a task of its own.
    fn keep(&self, holding: Holding) -> Answer {
        let answer = Answer::Acquired { attempt: holding.attempt, token: holding.token };
        let (sender, tasks) = mpsc::unbounded_channel();
        self.holdings.lock().insert((holding.name, holding.lock.clone()), sender);
        tokio::spawn(holding.keep(tasks));
        answer
    }

    /// Acquires `lock`, and writes down what comes of it.
    async fn acquire(
        self: &Arc<Self>,
        agent: u32,
        lock: &str,
        how: How,
    ) -> lock_core::Result<Option<Holding>> {
        let attempt = self.next_attempt();
        say(agent, What::Invoked { attempt, lock: lock.to_owned(), how });
        let outcome = ask(&self.locker(), lock, how).await;
        self.settle(agent, lock, attempt, outcome)
    }

    /// Writes down what came of an attempt.
    fn settle(
        self: &Arc<Self>,
        agent: u32,
        lock: &str,
        attempt: u64,
        outcome: lock_core::Result<Option<LockGuard>>,
    ) -> lock_core::Result<Option<Holding>> {
        let at = now();
        match outcome {
            Ok(Some(guard)) => Ok(Some(Holding::begin(self, agent, lock, attempt, at, guard))),
            Ok(None) => {
                say_at(at, agent, What::Busy { attempt });
                Ok(None)
            }
            Err(error) => {
                let (kind, message) = told(&error);
                say_at(at, agent, What::Failed { attempt, kind, message });
                Err(error)
            }
        }
    }
}

async fn ask(locker: &AnyLocker, lock: &str, how: How) -> lock_core::Result<Option<LockGuard>> {
    match how {
        How::Try => locker.try_lock(lock).await,
        How::Wait => locker.lock(lock).await.map(Some),
        How::For(ms) => locker.try_lock_for(lock, Duration::from_millis(ms)).await,
    }
}
