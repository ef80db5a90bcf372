//! The one task behind a locker: it renews every lease, and undoes what was abandoned.

mod renewals;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt;
use tokio::{runtime, sync::Notify, task::JoinSet, time};

use crate::{
    Error, ErrorKind, Key, LossReason, Result,
    backend::{BootInstant, Claim, LeaseTiming, Released, Renewal, Validity},
};

use renewals::Due;
pub(crate) use renewals::Lease;

/// What guards and the background task need of servers, whether each claim has a lease or a session carries many.
pub(crate) trait HoldStore: Send + Sync + 'static {
    /// What is renewed: a claim, or a session.
    type Renewed: fmt::Debug + Send + Sync + 'static;

    /// What is held: the lease of a claim, or its entry in a queue.
    type Held: Clone + Send + Sync + 'static;

    /// Why a hold is lost when the servers no longer know what is renewed.
    const LOSS: LossReason;

    fn claim(held: &Self::Held) -> &Claim;

    fn validity(held: &Self::Held) -> &Validity;

    /// Returns the lease that is the hold's own, if it has one.
    fn own_lease(held: &Self::Held) -> Option<&Lease<Self::Renewed>>;

    /// Returns how many are renewed with one request.
    fn renews_at_once(&self) -> usize;

    /// Returns an answer for each, in their order.
    fn renew(&self, renewed: &[&Self::Renewed]) -> impl Future<Output = Vec<Result<Renewal>>> + Send;

    fn release(&self, held: &Self::Held) -> impl Future<Output = Result<Released>> + Send;

    fn undo(&self, held: &Self::Held) -> impl Future<Output = Result<()>> + Send;

    /// Returns how long an undo that nobody confirms is repeated.
    fn undo_limit(held: &Self::Held) -> Duration;

    fn verify(&self, held: &Self::Held) -> impl Future<Output = Result<bool>> + Send;
}

/// What lockers, guards and the task share.
pub(crate) struct Background<S: HoldStore> {
    store: S,
    timing: LeaseTiming,
    runtime: runtime::Handle,
    state: Mutex<State<S>>,
    /// Something in the state changed that the task must see before its next alarm.
    changed: Notify,
    /// Nothing is left to undo.
    quiet: Notify,
    /// The locker was closed, or the task has ended.
    closed: Notify,
}

struct State<S: HoldStore> {
    schedule: BTreeMap<Due, Arc<Lease<S::Renewed>>>,
    /// When the task wakes by itself: for what is due later it need not be woken.
    alarm: BootInstant,
    next_number: u64,
    abandoned: Vec<S::Held>,
    undoing: usize,
    /// The locker and the guards that live.
    users: usize,
    closed: bool,
    /// The task has ended, so nothing will be renewed or undone any more.
    ended: bool,
}

/// Returns the runtime in which a locker is made, and everything runs that goes on in its background.
///
/// # Errors
///
/// [`ErrorKind::Closed`]: not called within a tokio runtime.
pub fn present_runtime() -> Result<runtime::Handle> {
    runtime::Handle::try_current().map_err(|error| {
        let message = "a locker must be made within a tokio runtime";
        Error::new(ErrorKind::Closed, message).with_source(error).without_effect()
    })
}

const RUNTIME_ENDED: &str = "the runtime in which the locker was made has ended; make one in this runtime";

/// Returns the error of whoever needs a runtime that has ended.
#[must_use]
pub fn runtime_ended() -> Error {
    Error::new(ErrorKind::Closed, RUNTIME_ENDED).without_effect()
}

impl<S: HoldStore> Background<S> {
    /// Starts the task; the caller is its first user.
    pub(crate) fn start(store: S, timing: LeaseTiming) -> Result<Arc<Self>> {
        let runtime = present_runtime()?;
        let state = State {
            schedule: BTreeMap::new(),
            alarm: BootInstant::NEVER,
            next_number: 0,
            abandoned: Vec::new(),
            undoing: 0,
            users: 1,
            closed: false,
            ended: false,
        };
        let (changed, quiet, closed) = Default::default();
        let background =
            Arc::new(Self { store, timing, runtime, state: Mutex::new(state), changed, quiet, closed });
        background.runtime.spawn(Arc::clone(&background).work());
        Ok(background)
    }

    pub(crate) fn store(&self) -> &S {
        &self.store
    }

    pub(crate) fn timing(&self) -> &LeaseTiming {
        &self.timing
    }

    /// Returns where everything runs that no caller's future drives.
    pub(crate) fn runtime(&self) -> &runtime::Handle {
        &self.runtime
    }

    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bounds a request with the request timeout.
    pub(crate) async fn bounded<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        bounded(self.timing.request_timeout(), request).await.map_err(|error| self.explained(error))
    }

    /// Says that the runtime has ended, where it has: nothing drives connections any more, and whatever fails is due to
    /// that.
    fn explained(&self, error: Error) -> Error {
        if !self.state().ended || error.kind() == ErrorKind::Closed {
            return error;
        }
        let effect = error.effect();
        Error::new(ErrorKind::Closed, RUNTIME_ENDED).with_source(error).with_effect(effect)
    }

    /// Makes a claim for `key` with a fresh owner id, unless the locker was closed.
    pub(crate) fn claim(&self, key: &Key, waits: bool) -> Result<Claim> {
        self.check_open().map_err(|error| error.with_key(key))?;
        Ok(Claim::new(key.clone(), self.timing.ttl(), waits))
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        let state = self.state();
        match (state.closed, state.ended) {
            (false, false) => Ok(()),
            (true, _) => Err(Error::new(ErrorKind::Closed, "the locker was closed").without_effect()),
            (false, true) => Err(runtime_ended()),
        }
    }

    /// Resolves with the error of those who still wait once the locker was closed or its runtime has ended.
    pub(crate) async fn closed(&self) -> Error {
        loop {
            let closed = self.closed.notified();
            if let Err(error) = self.check_open() {
                return error;
            }
            closed.await;
        }
    }

    /// Takes on a new user.
    pub(crate) fn enter(&self) {
        self.state().users += 1;
    }

    /// Takes leave of a user; the task ends after the last.
    pub(crate) fn leave(&self) {
        let mut state = self.state();
        state.users -= 1;
        if state.users == 0 {
            self.changed.notify_one();
        }
    }

    /// Undoes in the background what may be held.
    pub(crate) fn undo(&self, held: S::Held) {
        let mut state = self.state();
        if !state.ended {
            state.abandoned.push(held);
            self.changed.notify_one();
        }
    }

    /// Notes that an undo may follow, or need not any more.
    pub(crate) fn expect_undo(&self, may_follow: bool) {
        let mut state = self.state();
        if may_follow {
            state.undoing += 1;
        } else {
            drop(state);
            drop(Undoing(self));
        }
    }

    /// Refuses new attempts, ends those that wait, and waits until nothing is left to undo.
    pub(crate) async fn close(&self) {
        self.state().closed = true;
        self.closed.notify_waiters();
        loop {
            let quiet = self.quiet.notified();
            if self.state().is_quiet() {
                return;
            }
            quiet.await;
        }
    }

    async fn work(self: Arc<Self>) {
        let _end = EndOfTask(&self);
        let mut jobs = JoinSet::new();
        loop {
            let alarm = self.begin_due_jobs(&mut jobs);
            if jobs.is_empty() && self.state().is_deserted() {
                return;
            }
            let sleep = alarm.since(BootInstant::now());
            tokio::select! {
                () = self.changed.notified() => {}
                Some(done) = jobs.join_next() => {
                    if let Err(error) = done {
                        tracing::error!(%error, "a background job of a locker panicked");
                    }
                }
                () = time::sleep(sleep) => {}
            }
        }
    }

    /// Starts what is due, and returns when the next renewal will be.
    fn begin_due_jobs(self: &Arc<Self>, jobs: &mut JoinSet<()>) -> BootInstant {
        let at_once = self.store.renews_at_once();
        let mut state = self.state();
        let abandoned = mem::take(&mut state.abandoned);
        state.undoing += abandoned.len();
        for held in abandoned {
            jobs.spawn(Arc::clone(self).undo_until_done(held));
        }
        let now = BootInstant::now();
        self.begin_due_renewals(&mut state, now, at_once, jobs);
        let first = state.schedule.first_key_value().map_or(BootInstant::NEVER, |(first, _)| first.0);
        // An alarm that nobody needs any more stays: who acquires and releases again and again would wake this task
        // each time.
        state.alarm = if state.alarm > now { first.min(state.alarm) } else { first };
        state.alarm
    }

    /// Repeats the undo until the servers have confirmed it, or would have ended the lease by themselves.
    async fn undo_until_done(self: Arc<Self>, held: S::Held) {
        let _count = Undoing(&self);
        let give_up = BootInstant::now().after(S::undo_limit(&held));
        let mut pause = Duration::from_millis(10);
        while let Err(error) = self.bounded(self.store.undo(&held)).await {
            let key = S::claim(&held).key();
            if BootInstant::now() >= give_up {
                tracing::warn!(?key, %error, "a release was never confirmed; the end of the lease frees the key");
                return;
            }
            tracing::debug!(?key, %error, "a release was not confirmed and is repeated");
            let jitter = rand::rng().random_range(0.5..=1.0);
            time::sleep(pause.mul_f64(jitter)).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

pub(crate) async fn bounded<T>(limit: Duration, request: impl Future<Output = Result<T>>) -> Result<T> {
    time::timeout(limit, request).await.unwrap_or_else(|_| Err(Error::no_answer(limit)))
}

impl<S: HoldStore> State<S> {
    fn is_quiet(&self) -> bool {
        self.ended || (self.abandoned.is_empty() && self.undoing == 0)
    }

    fn is_deserted(&self) -> bool {
        self.users == 0 && self.is_quiet()
    }
}

/// Counts an undo as done, also when it panics.
struct Undoing<'a, S: HoldStore>(&'a Background<S>);

impl<S: HoldStore> Drop for Undoing<'_, S> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.undoing -= 1;
        let is_quiet = state.is_quiet();
        drop(state);
        if is_quiet {
            self.0.quiet.notify_waiters();
        }
    }
}

/// Writes down that the task is gone, whether it returned or its runtime was shut down.
struct EndOfTask<'a, S: HoldStore>(&'a Background<S>);

impl<S: HoldStore> Drop for EndOfTask<'_, S> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ended = true;
        let forgotten = (mem::take(&mut state.schedule), mem::take(&mut state.abandoned));
        drop(state);
        // Dropped outside the lock: a session may do anything when it goes.
        drop(forgotten);
        self.0.quiet.notify_waiters();
        self.0.closed.notify_waiters();
    }
}
