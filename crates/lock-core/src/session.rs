//! A session at the servers, the entries in it, and the task that hears of entries that are gone.

use std::{
    collections::VecDeque,
    fmt, future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    runtime::Handle,
    sync::{Notify, SetOnce},
    time::{self, Instant},
};

use crate::{
    LossReason, Result,
    backend::{BootInstant, BoxFuture, Claim, LeaseTiming, QueueStore, Validity},
    background::{Lease, bounded},
};

/// A hold that ends within this time is not watched: that would cost as much as the lock itself.
const SHORT_HOLD: Duration = Duration::from_millis(100);

/// A session that is kept alive, with all that rests on it. Dropped with the last of its users, it is closed.
pub(crate) struct Session<Q: QueueStore> {
    store: Arc<Q>,
    inner: Arc<Q::Session>,
    runtime: Handle,
    request_timeout: Duration,
    unwatched: Arc<Unwatched<Q>>,
}

/// The entry of one claim, from before it is asked for until it is known to be gone.
pub(crate) struct Entry<Q: QueueStore> {
    pub(crate) session: Arc<Lease<Session<Q>>>,
    pub(crate) claim: Claim,
    pub(crate) validity: Validity,
    made: SetOnce<Q::Entry>,
    left: Notify,
    progress: Mutex<Progress>,
}

/// How far the caller has come whose entry it is.
#[derive(Clone, Copy)]
enum Progress {
    /// The future of the caller was polled then.
    Waiting(BootInstant),
    /// The caller has a guard.
    Held,
    /// The caller was not heard of for too long.
    Withdrawn,
}

impl<Q: QueueStore> Session<Q> {
    /// Opens a session, whose entries are watched by a task in `runtime`.
    pub(crate) async fn open(
        store: Arc<Q>,
        timing: LeaseTiming,
        runtime: Handle,
    ) -> Result<Arc<Lease<Self>>> {
        let sent = BootInstant::now();
        let (inner, ttl) = store.open().await?;
        let (unwatched, over) = (Arc::<Unwatched<Q>>::default(), store.over(&inner));
        let session = Self {
            store,
            inner: Arc::new(inner),
            runtime: runtime.clone(),
            request_timeout: timing.request_timeout(),
            unwatched: Arc::clone(&unwatched),
        };
        timing.check_granted(ttl)?;
        let validity = Arc::new(Validity::until(timing.deadline(sent, ttl)));
        runtime.spawn(watch_entries(unwatched, Arc::clone(&validity), over));
        Ok(Lease::new(session, ttl, validity))
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    pub(crate) fn inner(&self) -> &Q::Session {
        &self.inner
    }
}

impl<Q: QueueStore> Drop for Session<Q> {
    fn drop(&mut self) {
        self.unwatched.end();
        let (store, inner, limit) = (Arc::clone(&self.store), Arc::clone(&self.inner), self.request_timeout);
        self.runtime.spawn(async move { time::timeout(limit, store.close(&inner)).await });
    }
}

impl<Q: QueueStore> fmt::Debug for Session<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl<Q: QueueStore> Entry<Q> {
    /// Makes the entry of a claim that is about to be sent, and has it watched if it is there in a while.
    pub(crate) fn new(session: Arc<Lease<Session<Q>>>, claim: &Claim) -> Arc<Self> {
        let validity = Validity::within(Arc::clone(session.validity()));
        let entry = Arc::new(Self {
            session,
            validity,
            claim: claim.clone(),
            made: SetOnce::new(),
            left: Notify::new(),
            progress: Mutex::new(Progress::Waiting(BootInstant::now())),
        });
        entry.session.subject().unwatched.push(&entry);
        entry
    }

    pub(crate) fn store(&self) -> &Q {
        &self.session.subject().store
    }

    pub(crate) fn made(&self) -> Option<&Q::Entry> {
        self.made.get()
    }

    /// Writes down that the entry was made.
    pub(crate) fn set_made(&self, made: Q::Entry) {
        let _ = self.made.set(made);
    }

    /// Ends the watch of an entry that was left.
    pub(crate) fn set_left(&self) {
        self.left.notify_one();
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down that the caller still waits.
    pub(crate) fn set_waiting(&self) {
        let mut progress = self.progress();
        if let Progress::Waiting(last) = &mut *progress {
            *last = BootInstant::now();
        }
    }

    /// Makes the entry a hold. Returns `false` if it was withdrawn.
    pub(crate) fn set_held(&self) -> bool {
        let mut progress = self.progress();
        let waits = matches!(*progress, Progress::Waiting(_));
        if waits {
            *progress = Progress::Held;
        }
        waits
    }

    async fn watch(self: Arc<Self>) {
        let gone = async {
            let made = self.made.wait().await;
            self.store().gone(self.session.subject().inner(), made).await;
        };
        tokio::select! {
            () = gone => self.validity.end(LossReason::NotOwner),
            () = self.left.notified() => {}
            // Boxed, since it is large and seldom needed.
            () = self.forgotten() => Box::pin(self.withdraw()).await,
        }
    }

    /// Resolves when the caller, who waits, was not heard of for twice the time after which it looks again.
    async fn forgotten(&self) {
        loop {
            let left = {
                let mut progress = self.progress();
                let Progress::Waiting(last) = *progress else { break };
                let left = (2 * self.claim.ttl()).saturating_sub(BootInstant::now().since(last));
                if left.is_zero() {
                    *progress = Progress::Withdrawn;
                    return;
                }
                left
            };
            time::sleep(left).await;
        }
        future::pending().await
    }

    /// Leaves the queue in place of a caller whose future is not polled, so that others are served. When it is polled
    /// again or dropped, the claim is undone once more: requests of it may have been sent since.
    async fn withdraw(&self) {
        let key = self.claim.key();
        tracing::warn!(?key, "a waiter was not polled for long and loses its place, lest it hold up others");
        self.validity.end(LossReason::NotOwner);
        let (store, session) = (self.store(), self.session.subject());
        let limit = session.request_timeout;
        while bounded(limit, store.leave(session.inner(), &self.claim, self.made())).await.is_err() {
            time::sleep(limit / 4).await;
        }
    }
}

/// Entries that shall be watched if they are still there in a while, the first due first; none once the session goes.
struct Unwatched<Q: QueueStore> {
    entries: Mutex<Option<Waiting<Q>>>,
    changed: Notify,
}

/// When each is due. None of them is kept from here.
type Waiting<Q> = VecDeque<(Instant, Weak<Entry<Q>>)>;

impl<Q: QueueStore> Default for Unwatched<Q> {
    fn default() -> Self {
        Self { entries: Mutex::new(Some(VecDeque::new())), changed: Notify::new() }
    }
}

impl<Q: QueueStore> Unwatched<Q> {
    fn entries(&self) -> MutexGuard<'_, Option<Waiting<Q>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, entry: &Arc<Entry<Q>>) {
        let mut entries = self.entries();
        let Some(entries) = entries.as_mut() else { return };
        if entries.is_empty() {
            self.changed.notify_one();
        }
        entries.push_back((Instant::now() + SHORT_HOLD, Arc::downgrade(entry)));
    }

    /// Forgets all: the session goes.
    fn end(&self) {
        *self.entries() = None;
        self.changed.notify_one();
    }

    /// Waits until entries are due, and takes them; none once the session goes.
    async fn next(&self) -> Option<Vec<Arc<Entry<Q>>>> {
        loop {
            let now = Instant::now();
            let next = {
                let mut entries = self.entries();
                let entries = entries.as_mut()?;
                // Those that are due soon come along, so that the task is not woken for them one by one.
                let due = entries.iter().take_while(|(due, _)| *due <= now + SHORT_HOLD / 2).count();
                if due > 0 {
                    return Some(entries.drain(..due).filter_map(|(_, entry)| entry.upgrade()).collect());
                }
                entries.front().map(|(due, _)| *due)
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = time::sleep_until(next.unwrap_or(now)), if next.is_some() => {}
            }
        }
    }
}

/// Ends the validity of entries that are gone, until the session is over or goes.
async fn watch_entries<Q: QueueStore>(
    unwatched: Arc<Unwatched<Q>>,
    validity: Arc<Validity>,
    mut over: BoxFuture<'static, ()>,
) {
    let mut ended = pin!(validity.ended());
    let mut watched = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = &mut ended => return,
            () = &mut over => {
                validity.end(LossReason::SessionEnded);
                return;
            }
            due = unwatched.next() => match due {
                Some(due) => watched.extend(due.into_iter().map(Entry::watch)),
                None => return,
            },
            Some(()) = watched.next() => {}
        }
    }
}
