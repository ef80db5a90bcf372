//! The one task behind a [`Leased`](crate::backend::Leased): it renews every lease and undoes what was abandoned.

use std::{
    collections::BTreeMap,
    future::Future,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt;
use tokio::{runtime, sync::Notify, task::JoinSet, time};

use crate::{
    Error, ErrorKind, LossReason, Result,
    backend::{BootInstant, Claim, LeaseStore, LeaseTiming, Renewal, Validity},
};

/// A granted claim and how long it is certain.
pub(crate) struct Lease {
    claim: Claim,
    validity: Arc<Validity>,
    // Where the lease stands in the schedule. Written only under the lock of the books.
    slot: Mutex<Slot>,
}

#[derive(Clone, Copy)]
enum Slot {
    Due(Due),
    /// Its renewal is under way.
    Renewing,
    /// The holder gave it back.
    Withdrawn,
}

/// When a renewal is due, and a number that sets apart those that are due at once.
type Due = (BootInstant, u64);

impl Lease {
    pub(crate) fn new(claim: Claim, validity: Arc<Validity>) -> Self {
        Self { claim, validity, slot: Mutex::new(Slot::Renewing) }
    }

    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }

    pub(crate) fn validity(&self) -> &Validity {
        &self.validity
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lockers, guards and the task share.
pub(crate) struct Keeper<S> {
    store: S,
    timing: LeaseTiming,
    books: Mutex<Books>,
    /// Something in the books changed that the task must see before its next alarm.
    changed: Notify,
    /// Nothing is left to undo.
    quiet: Notify,
}

#[derive(Default)]
struct Books {
    schedule: BTreeMap<Due, Arc<Lease>>,
    next_number: u64,
    abandoned: Vec<Claim>,
    undoing: usize,
    /// The locker and the guards that live.
    users: usize,
    closed: bool,
    /// The task has ended, so nothing will be renewed or undone any more.
    ended: bool,
}

impl<S: LeaseStore> Keeper<S> {
    /// Starts the task; the caller is its first user.
    pub(crate) fn start(store: S, timing: LeaseTiming) -> Result<Arc<Self>> {
        let runtime = runtime::Handle::try_current().map_err(|error| {
            Error::new(ErrorKind::Closed, "a locker must be made within a tokio runtime").with_source(error)
        })?;
        let books = Mutex::new(Books { users: 1, ..Books::default() });
        let keeper = Arc::new(Self { store, timing, books, changed: Notify::new(), quiet: Notify::new() });
        runtime.spawn(Arc::clone(&keeper).keep());
        Ok(keeper)
    }

    pub(crate) fn store(&self) -> &S {
        &self.store
    }

    pub(crate) fn timing(&self) -> &LeaseTiming {
        &self.timing
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn bounded<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.timing.request_timeout();
        time::timeout(limit, request).await.unwrap_or_else(|_| Err(Error::no_answer(limit)))
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        let books = self.books();
        let reason = match (books.closed, books.ended) {
            (false, false) => return Ok(()),
            (true, _) => "the locker was closed",
            (false, true) => "the runtime in which the locker was made has ended; make one in this runtime",
        };
        Err(Error::new(ErrorKind::Closed, reason).without_effect())
    }

    /// Takes on a new hold.
    pub(crate) fn enter(&self) {
        self.books().users += 1;
    }

    /// Renews the lease from now on, until it is withdrawn or lost.
    pub(crate) fn renew_from_now_on(&self, lease: &Arc<Lease>) {
        self.schedule(&mut self.books(), Arc::clone(lease), self.timing.renew_every());
    }

    /// One user less; the task ends after the last.
    pub(crate) fn leave(&self) {
        let mut books = self.books();
        books.users -= 1;
        if books.users == 0 {
            self.changed.notify_one();
        }
    }

    fn schedule(&self, books: &mut Books, lease: Arc<Lease>, pause: Duration) {
        // Leases taken at one instant should not be renewed at one instant for ever.
        let pause = pause.mul_f64(rand::rng().random_range(0.9..=1.0));
        let due = (BootInstant::now().after(pause), books.next_number);
        books.next_number += 1;
        *lease.slot() = Slot::Due(due);
        let alarm = books.schedule.first_key_value().map(|(first, _)| *first);
        books.schedule.insert(due, lease);
        if alarm.is_none_or(|first| due < first) {
            self.changed.notify_one();
        }
    }

    /// The lease is not renewed from now on. A renewal already sent can only prolong what a release then ends.
    pub(crate) fn withdraw(&self, lease: &Lease) {
        let mut books = self.books();
        if let Slot::Due(due) = mem::replace(&mut *lease.slot(), Slot::Withdrawn) {
            books.schedule.remove(&due);
        }
    }

    /// Undoes `claim` in the background.
    pub(crate) fn undo(&self, claim: Claim) {
        let mut books = self.books();
        if !books.ended {
            books.abandoned.push(claim);
            self.changed.notify_one();
        }
    }

    /// Refuses new attempts and waits until nothing is left to undo.
    pub(crate) async fn close(&self) {
        self.books().closed = true;
        loop {
            let quiet = self.quiet.notified();
            if self.books().is_quiet() {
                return;
            }
            quiet.await;
        }
    }

    async fn keep(self: Arc<Self>) {
        let _end = EndOfTask(&self);
        let mut jobs = JoinSet::new();
        loop {
            let alarm = self.begin_due_jobs(&mut jobs);
            if jobs.is_empty() && self.books().is_deserted() {
                return;
            }
            let sleep = alarm.map_or(Duration::MAX, |alarm| alarm.since(BootInstant::now()));
            tokio::select! {
                () = self.changed.notified() => {}
                Some(done) = jobs.join_next() => {
                    if let Err(error) = done {
                        tracing::error!(%error, "a background job of the lock keeper panicked");
                    }
                }
                () = time::sleep(sleep) => {}
            }
        }
    }

    /// Starts what is due, and returns when the next renewal will be.
    fn begin_due_jobs(self: &Arc<Self>, jobs: &mut JoinSet<()>) -> Option<BootInstant> {
        let mut books = self.books();
        let claims = mem::take(&mut books.abandoned);
        books.undoing += claims.len();
        for claim in claims {
            jobs.spawn(Arc::clone(self).undo_until_done(claim));
        }
        let now = BootInstant::now();
        while let Some(first) = books.schedule.first_entry() {
            let alarm = first.key().0;
            if alarm > now {
                return Some(alarm);
            }
            let lease = first.remove();
            *lease.slot() = Slot::Renewing;
            jobs.spawn(Arc::clone(self).renew(lease));
        }
        None
    }

    async fn renew(self: Arc<Self>, lease: Arc<Lease>) {
        let sent = BootInstant::now();
        let answer = self.bounded(self.store.renew(lease.claim())).await;
        let mut books = self.books();
        if matches!(*lease.slot(), Slot::Withdrawn) {
            return;
        }
        let key = lease.claim().key();
        let next = match answer {
            Ok(Renewal::Extended(ttl)) => {
                lease.validity.extend(self.timing.deadline(sent, ttl));
                self.timing.renew_every().saturating_sub(BootInstant::now().since(sent))
            }
            Ok(Renewal::NotOwner) => {
                lease.validity.end(LossReason::NotOwner);
                Duration::ZERO
            }
            Err(error) => {
                tracing::warn!(?key, %error, remaining = ?lease.validity.remaining(), "a lease was not renewed");
                // A try that used up its time is repeated at once, one that failed at once after a breath.
                (self.timing.request_timeout() / 4).saturating_sub(BootInstant::now().since(sent))
            }
        };
        match lease.validity.reason() {
            None => self.schedule(&mut books, lease, next),
            // The key is not freed before the holder gives it up: its work may still go on.
            Some(reason) => tracing::warn!(?key, %reason, "a lock was lost"),
        }
    }

    /// Repeats the undo until the servers have confirmed it, or would have ended the lease by themselves.
    async fn undo_until_done(self: Arc<Self>, claim: Claim) {
        let _count = Undoing(&self);
        let give_up = BootInstant::now().after(self.store.longest_trace(&claim));
        let mut pause = Duration::from_millis(10);
        while let Err(error) = self.bounded(self.store.undo(&claim)).await {
            let key = claim.key();
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

impl Books {
    fn is_quiet(&self) -> bool {
        self.ended || (self.abandoned.is_empty() && self.undoing == 0)
    }

    fn is_deserted(&self) -> bool {
        self.users == 0 && self.is_quiet()
    }
}

/// Counts an undo as done, also when it panics.
struct Undoing<'a, S: LeaseStore>(&'a Keeper<S>);

impl<S: LeaseStore> Drop for Undoing<'_, S> {
    fn drop(&mut self) {
        let mut books = self.0.books();
        books.undoing -= 1;
        if books.is_quiet() {
            self.0.quiet.notify_waiters();
        }
    }
}

/// Writes down that the task is gone, whether it returned or its runtime was shut down.
struct EndOfTask<'a, S: LeaseStore>(&'a Keeper<S>);

impl<S: LeaseStore> Drop for EndOfTask<'_, S> {
    fn drop(&mut self) {
        let mut books = self.0.books();
        books.ended = true;
        books.schedule.clear();
        books.abandoned.clear();
        self.0.quiet.notify_waiters();
    }
}
