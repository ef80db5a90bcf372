//! What careless programs do to futures, guards and runtimes.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    thread,
    time::Duration,
};

use lock_core::LockGuard;
use tokio::{runtime::Builder, task};

use crate::event::{Answer, How, What};

use super::{Agent, ask, connect, holding::Holding, say, told};

type Asking = Pin<Box<dyn Future<Output = lock_core::Result<Option<LockGuard>>> + Send>>;

/// An acquire that is polled no more, and what it is about.
pub(super) struct Stalled {
    _future: Asking,
}

/// Polls `future` so many times, each time when it was woken or after a moment, and drops it. Returns how often it was
/// polled, and its output if it was ready by then.
pub(super) async fn poll_and_drop<F: Future>(future: F, polls: usize) -> (usize, Option<F::Output>) {
    let mut future = Box::pin(future);
    poll_some(&mut future, polls).await
}

async fn poll_some<F: Future + ?Sized>(future: &mut Pin<Box<F>>, polls: usize) -> (usize, Option<F::Output>) {
    let mut count = 0;
    let output = poll_fn(|context| {
        if count == polls {
            return Poll::Ready(None);
        }
        count += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // The drop comes right after the last poll.
            Poll::Pending if count == polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    // A future that is never woken again is at its last await, as far as this caller can tell.
    let output = tokio::time::timeout(Duration::from_millis(500), output).await.unwrap_or(None);
    (count, output)
}

impl Agent {
    fn begin(&self, agent: u32, lock: &str, how: How) -> (u64, Asking) {
        let attempt = self.next_attempt();
        say(agent, What::Invoked { attempt, lock: lock.to_owned(), how });
        let (locker, lock) = (self.locker(), lock.to_owned());
        (attempt, Box::pin(async move { ask(&locker, &lock, how).await }))
    }

    pub(super) async fn cancel_acquire(
        self: &Arc<Self>,
        agent: u32,
        lock: &str,
        how: How,
        (polls, linger): (usize, Duration),
    ) -> Result<Answer, (String, String)> {
        let (attempt, mut future) = self.begin(agent, lock, how);
        let (count, outcome) = poll_some(&mut future, polls).await;
        // why: what it asked for is executed meanwhile, and nobody looks at the answer
        tokio::time::sleep(linger).await;
        drop(future);
        match outcome {
            Some(outcome) => {
                let held = self.settle(agent, lock, attempt, outcome).map_err(|error| told(&error))?;
                if let Some(holding) = held {
                    holding.release().await.map_err(|error| told(&error))?;
                }
            }
            None => {
                let (kind, message) = ("Dropped".to_owned(), format!("after {count} polls"));
                say(agent, What::Failed { attempt, kind, message });
            }
        }
        Ok(Answer::Count(count as u64))
    }

    /// Leaves an acquire behind that somebody began and nobody goes on with.
    pub(super) async fn stall(
        self: &Arc<Self>,
        agent: u32,
        lock: &str,
        polls: usize,
        leak: bool,
    ) -> Result<Answer, (String, String)> {
        let (attempt, mut future) = self.begin(agent, lock, How::Wait);
        let (count, outcome) = poll_some(&mut future, polls).await;
        if let Some(outcome) = outcome {
            let held = self.settle(agent, lock, attempt, outcome).map_err(|error| told(&error))?;
            drop(held);
            return Ok(Answer::Held(true));
        }
        let (kind, message) = ("Stalled".to_owned(), format!("after {count} polls"));
        say(agent, What::Failed { attempt, kind, message });
        if leak {
            std::mem::forget(future);
        } else {
            self.stalled.lock().push(Stalled { _future: future });
        }
        Ok(Answer::Held(false))
    }

    /// Acquires `lock` by a locker that was made in a runtime of its own, which then is idle, or has ended.
    pub(super) async fn elsewhere(
        self: &Arc<Self>,
        name: u32,
        lock: &str,
        idle: bool,
    ) -> Result<Answer, (String, String)> {
        let (agent, key) = (Arc::clone(self), lock.to_owned());
        let acquired = thread::spawn(move || -> lock_core::Result<Option<Holding>> {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            let holding = runtime.block_on(async {
                let locker = match agent.setup.backend.is_local() {
                    true => agent.locker(),
                    false => connect::connect(&agent.setup, &agent.setup.urls).await?,
                };
                let attempt = agent.next_attempt();
                say(name, What::Invoked { attempt, lock: key.clone(), how: How::Try });
                let outcome = ask(&locker, &key, How::Try).await;
                agent.settle(name, &key, attempt, outcome)
            });
            if idle {
                std::mem::forget(runtime);
            }
            holding
        });
        let acquired = task::spawn_blocking(|| acquired.join()).await;
        let panicked = || ("Panic".to_owned(), "the other runtime panicked".to_owned());
        let held = acquired.map_err(|_| panicked())?.map_err(|_| panicked())?;
        Ok(held.map_err(|error| told(&error))?.map_or(Answer::Busy, |holding| self.keep(holding)))
    }
}
