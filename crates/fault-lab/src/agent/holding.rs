//! A guard in the hands of one task, which watches it all the time.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use lock_core::LockGuard;
use rustix::process::{Signal, getpid, kill_process};
use tokio::{
    sync::{mpsc, oneshot},
    time,
};

use crate::{
    event::{Answer, MS, Nanos, What, now},
    store::{Action, Client, Request},
};

use super::{Agent, Command, Gap, say, say_at, told, tricks};

type Told = Result<Answer, (String, String)>;

/// Something to be done with the guard.
pub(crate) struct Task {
    pub(crate) command: Command,
    pub(crate) reply: oneshot::Sender<Told>,
}

/// A hold and what is known of it.
pub(crate) struct Holding {
    pub(crate) agent: Arc<Agent>,
    /// In whose name.
    pub(crate) name: u32,
    pub(crate) lock: String,
    pub(crate) attempt: u64,
    pub(crate) token: u64,
    /// None once the guard is gone another way than by a drop.
    pub(crate) guard: Option<LockGuard>,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    until: AtomicU64,
    not_held: AtomicBool,
    lost: AtomicBool,
}

/// The end of what a guard is sure of: never later than it believes itself.
fn deadline(guard: &LockGuard) -> Nanos {
    let before = now();
    let remaining = guard.remaining();
    if remaining.is_zero() {
        0
    } else {
        before.saturating_add(u64::try_from(remaining.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Holding {
    pub(crate) fn begin(
        agent: &Arc<Agent>,
        name: u32,
        lock: &str,
        attempt: u64,
        at: Nanos,
        guard: LockGuard,
    ) -> Self {
        let (token, until) = (guard.fencing_token().get(), deadline(&guard));
        say_at(at, name, What::Acquired { attempt, token, until });
        let seen = Seen { until: AtomicU64::new(until), ..Seen::default() };
        let (agent, lock) = (Arc::clone(agent), lock.to_owned());
        Self { agent, name, lock, attempt, token, guard: Some(guard), seen }
    }

    fn guard(&self) -> &LockGuard {
        self.guard.as_ref().expect("only the last order takes it")
    }

    /// Looks at the guard, and writes down what has changed. Returns whether it is held.
    fn look(&self) -> bool {
        let attempt = self.attempt;
        let until = deadline(self.guard());
        if until == 0 {
            if !self.seen.not_held.swap(true, Ordering::Relaxed) {
                let reason = self.guard().loss_reason().map(|reason| reason.to_string()).unwrap_or_default();
                say(self.name, What::NotHeld { attempt, reason });
            }
            return false;
        }
        if self.seen.not_held.load(Ordering::Relaxed) {
            say(self.name, What::Revived { attempt });
        }
        if until.abs_diff(self.seen.until.load(Ordering::Relaxed)) > MS / 2 {
            self.seen.until.store(until, Ordering::Relaxed);
            say(self.name, What::Deadline { attempt, until });
        }
        true
    }

    /// Watches the guard and never ends.
    pub(crate) async fn watch(&self) {
        let period = Duration::from_millis((self.agent.setup.ttl_ms / 60).max(5));
        let mut lost = pin!(self.guard().lost());
        loop {
            let is_told = self.seen.lost.load(Ordering::Relaxed);
            tokio::select! {
                () = &mut lost, if !is_told => {
                    say(self.name, What::Lost { attempt: self.attempt });
                    self.seen.lost.store(true, Ordering::Relaxed);
                }
                () = time::sleep(period) => {}
            }
            self.look();
        }
    }

    /// Keeps the guard, and does with it what it is told, until it is gone.
    pub(crate) async fn keep(self, mut tasks: mpsc::UnboundedReceiver<Task>) {
        loop {
            let task = tokio::select! {
                task = tasks.recv() => task,
                () = self.watch() => unreachable!("it never ends"),
            };
            let Some(Task { command, reply }) = task else { return };
            let answer = match command {
                Command::Work { gap, .. } => self.work(gap).await.map(Answer::Accepted),
                Command::IsHeld { .. } => Ok(Answer::Held(self.look())),
                Command::Verify { .. } => {
                    self.guard().verify().await.map(|()| Answer::Done).map_err(|error| told(&error))
                }
                Command::Starve { ms, .. } => Ok(Answer::Held(self.starve(Duration::from_millis(ms)).await)),
                last => return self.end(last, reply).await,
            };
            let _ = reply.send(answer);
        }
    }

    /// Does what leaves no guard.
    async fn end(mut self, command: Command, reply: oneshot::Sender<Told>) {
        let attempt = self.attempt;
        let answer = match command {
            Command::Release { .. } => {
                self.release().await.map(|()| Answer::Done).map_err(|error| told(&error))
            }
            Command::CancelRelease { polls, .. } => {
                let guard = self.guard.take().expect("it is there until now");
                say(self.name, What::Releasing { attempt });
                let (count, outcome) = tricks::poll_and_drop(guard.release(), polls).await;
                let error = outcome.and_then(Result::err).map(|error| told(&error));
                say(self.name, What::Released { attempt, error });
                Ok(Answer::Count(count as u64))
            }
            Command::Leak { .. } => {
                std::mem::forget(self.guard.take());
                Ok(Answer::Done)
            }
            Command::Panic { .. } => {
                say(self.name, What::Dropped { attempt });
                let guard = self.guard.take();
                let task = tokio::spawn(async move {
                    let _guard = guard;
                    // A panic that nobody reports: a cell wants it.
                    std::panic::resume_unwind(Box::new("a panic under the lock"));
                });
                let panicked = task.await.is_err_and(|error| error.is_panic());
                Ok(Answer::Held(!panicked))
            }
            _ => {
                say(self.name, What::Dropped { attempt });
                drop(self.guard.take());
                Ok(Answer::Done)
            }
        };
        let _ = reply.send(answer);
    }

    pub(crate) async fn release(mut self) -> lock_core::Result<()> {
        let (name, attempt) = (self.name, self.attempt);
        self.look();
        let guard = self.guard.take().expect("it is there until now");
        say(name, What::Releasing { attempt });
        let released = guard.release().await;
        say(name, What::Released { attempt, error: released.as_ref().err().map(told) });
        released
    }

    /// Holds every thread of the runtime up, and then looks at the guard before anything else is done.
    async fn starve(&self, time: Duration) -> bool {
        let threads = self.agent.setup.threads as u64;
        let busy = Arc::new(AtomicU64::new(0));
        // Each keeps its thread until all threads are kept, so that no two are kept one after another.
        let keep = move |busy: &AtomicU64| {
            busy.fetch_add(1, Ordering::Relaxed);
            while busy.load(Ordering::Relaxed) < threads {
                // why: a bounded poll of a condition, on a thread that has to be busy
                thread::sleep(Duration::from_millis(1));
            }
        };
        for _ in 1..threads {
            let busy = Arc::clone(&busy);
            tokio::spawn(async move {
                keep(&busy);
                // why: a busy thread is the fault
                thread::sleep(time + Duration::from_millis(50));
            });
        }
        // why: only a timer hands this task to a thread that is not kept yet
        time::sleep(Duration::from_millis(1)).await;
        keep(&busy);
        // why: a busy thread is the fault
        thread::sleep(time);
        self.look()
    }

    /// Adds one to a register and an element to a list, in the checking store and in the plain one, and asks the guard
    /// before each step. Returns whether all of it was done; `false`: the lock is lost, or a token was refused.
    pub(crate) async fn work(&self, gap: Gap) -> Result<bool, (String, String)> {
        let failed = |error: anyhow::Error| ("Store".to_owned(), format!("{error:#}"));
        let mut store = Client::connect(self.agent.setup.store).map_err(failed)?;
        say(self.name, What::Entered { attempt: self.attempt });
        let done = self.steps(&mut store, gap).await.map_err(failed);
        say(self.name, What::Left { attempt: self.attempt });
        done
    }

    async fn steps(&self, store: &mut Client, gap: Gap) -> anyhow::Result<bool> {
        let mut values = [0, 0];
        for (checking, value) in [true, false].into_iter().zip(&mut values) {
            let Some(read) = self.step(store, checking, Action::Read, Gap::None)? else { return Ok(false) };
            *value = read;
        }
        // Others come in between, if they can.
        tokio::task::yield_now().await;
        for (checking, value) in [true, false].into_iter().zip(values) {
            let gap = if checking { gap } else { Gap::None };
            let written = self.step(store, checking, Action::Write(value + 1), gap)?;
            if written.is_none() {
                return Ok(false);
            }
        }
        Ok(self.step(store, true, Action::Append(self.attempt), Gap::None)?.is_some())
    }

    /// Asks the guard, and then the store. `None`: the lock is lost, or the store refused the token.
    fn step(
        &self,
        store: &mut Client,
        checking: bool,
        action: Action,
        gap: Gap,
    ) -> anyhow::Result<Option<u64>> {
        let checked = now();
        if !self.look() {
            return Ok(None);
        }
        match gap {
            Gap::None => {}
            Gap::Stop => {
                kill_process(getpid(), Signal::STOP)?;
                // why: the signal may reach another thread first; this one must not act before it stands still
                thread::sleep(Duration::from_millis(20));
            }
            // why: a pause at this very point is the fault
            Gap::Sleep(ms) => thread::sleep(Duration::from_millis(ms)),
        }
        let (attempt, token, number) = (self.attempt, self.token, self.agent.next_attempt());
        let object = format!("{}/{}", self.agent.setup.prefix, self.lock);
        let sent = now();
        let reply = store.ask(Request { number, attempt, object, checking, token, action })?;
        let accepted = Some(reply.accepted);
        say(self.name, What::Asked { attempt, request: number, checking, checked, sent, accepted });
        Ok(reply.accepted.then_some(reply.value))
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            say(self.name, What::Dropped { attempt: self.attempt });
            drop(guard);
        }
    }
}
