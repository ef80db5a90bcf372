//! A backend made of sessions and queues: whoever is first in the queue of a key holds it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time;

use crate::{
    Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, LossReason, Options, Result, Scope,
    TokenOrder, Waiting,
    backend::{
        Backend, BootInstant, Claim, Effect, Entered, Position, QueueStore, Released, Renewal, SharedAttempt,
        Validity, WaitingBackend,
    },
    background::{Background, HoldStore, Lease},
    hold::PendingClaim,
    session::{Entry, Session},
};

/// Makes a [`Backend`] of a [`QueueStore`].
///
/// All locks of a locker rest on one session. One background task renews it and undoes what was abandoned; it runs in
/// the runtime in which this value was made, and ends with the last locker and guard. A session that is lost is kept
/// alive no longer, and is closed when nothing of it is held any more.
///
/// A waiter whose future is stored and not polled for two TTLs loses its entry, so that it holds up nobody.
///
/// A waiter that loses its entry, with its session or by somebody's hand, queues again at the end. If that fails, it
/// tries again until one TTL has passed since it last had an entry.
pub struct Queued<Q: QueueStore> {
    pub(crate) background: Arc<Background<Queues<Q>>>,
    session: Arc<PresentSession<Q>>,
    opening: SharedAttempt<Weak<Lease<Session<Q>>>>,
}

/// How many sessions may turn out to be over before an attempt fails.
const MOST_SESSIONS: usize = 3;

/// The session in which entries are made now. It is kept by what renews it, and by the entries in it.
type PresentSession<Q> = Mutex<Weak<Lease<Session<Q>>>>;

/// The store, as guards and the background task use it.
pub(crate) struct Queues<Q>(Arc<Q>);

/// A claim that has an entry.
struct Standing<Q: QueueStore> {
    pending: PendingClaim<Queues<Q>>,
    token: FencingToken,
    position: Position,
}

impl<Q: QueueStore> Queued<Q> {
    /// Opens a first session, and starts the background task of `store`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: the options contradict each other. [`ErrorKind::Closed`]: not called within a
    /// tokio runtime. Else what [`QueueStore::open`] returns.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn connect(store: Q, options: &Options) -> Result<Self> {
        let background = Background::start(Queues(Arc::new(store)), options.check()?)?;
        let opening = SharedAttempt::new(background.runtime().clone());
        let queued = Self { background, session: Arc::default(), opening };
        queued.session().await?;
        Ok(queued)
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &Q {
        &self.background.store().0
    }

    /// Finds a session that is certain, or opens one.
    pub(crate) async fn session(&self) -> Result<Arc<Lease<Session<Q>>>> {
        let present = || {
            let session = locked(&self.session).upgrade()?;
            session.validity().is_valid().then_some(session)
        };
        if let Some(session) = present() {
            return Ok(session);
        }
        // An outcome that is kept must not keep a session.
        let opened = self.opening.run(
            || present().as_ref().map(Arc::downgrade),
            || {
                let (background, present) = (Arc::clone(&self.background), Arc::clone(&self.session));
                async move {
                    let (store, runtime) = (Arc::clone(&background.store().0), background.runtime().clone());
                    let session = Session::open(store, *background.timing(), runtime).await?;
                    background.renew_from_now_on(&session);
                    *locked(&present) = Arc::downgrade(&session);
                    Ok(Arc::downgrade(&session))
                }
            },
        );
        let session = opened.await.map_err(Error::without_effect)?.upgrade();
        session.ok_or_else(|| {
            let message = "the session was over as soon as it was opened; is the machine overloaded?";
            Error::new(ErrorKind::Unavailable, message).without_effect()
        })
    }

    /// Takes an entry for a claim of `key`; `None` if it does not wait and the key is busy.
    async fn enter(&self, key: &Key, waits: bool) -> Result<Option<Standing<Q>>> {
        let claim = self.background.claim(key, waits)?;
        for _ in 0..MOST_SESSIONS {
            let entry = Entry::new(self.session().await?, &claim);
            // From here on an undo has something to do.
            let pending = PendingClaim::new(&self.background, Arc::clone(&entry));
            let entering = entry.store().enter(entry.session.subject().inner(), &claim);
            let (effect, busy) = match self.background.bounded(entering).await {
                Ok(Entered::Queued { entry: made, token, position }) => {
                    entry.set_made(made);
                    return Ok(Some(Standing { pending, token, position }));
                }
                Ok(Entered::SessionOver) => {
                    entry.session.validity().end(LossReason::SessionEnded);
                    pending.settled().set_left();
                    continue;
                }
                Ok(Entered::Busy(effect)) => (effect, Ok(None)),
                Err(error) => (error.effect(), Err(error)),
            };
            if effect == Effect::None {
                pending.settled().set_left();
            }
            return busy;
        }
        let message = "each new session was over at once; do the servers agree with each other?";
        Err(Error::new(ErrorKind::Unavailable, message).without_effect())
    }

    /// Waits until nobody is before the entry.
    async fn wait_for_turn(&self, standing: &mut Standing<Q>) -> Result<()> {
        let (entry, position) = (standing.pending.held(), &mut standing.position);
        let made = entry.made().expect("who stands in a queue has an entry");
        let session = entry.session.subject().inner();
        while let Position::Behind(predecessor) = &*position {
            // Silence ends in a look: a notice may have been lost in spite of all.
            entry.set_waiting();
            let advanced = time::timeout(
                self.background.timing().ttl(),
                entry.store().advance(session, made, predecessor),
            );
            let advanced = tokio::select! {
                biased;
                () = entry.validity.ended() => break,
                advanced = advanced => advanced,
            };
            match advanced {
                Ok(Ok(now)) => *position = now,
                Ok(Err(error)) if error.is_transient() => {
                    tracing::debug!(%error, "a waiter could not look at its queue, and looks again");
                    time::sleep(self.retry_delay()).await;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn held(&self, standing: Standing<Q>) -> Result<LockGuard> {
        let entry = standing.pending.held();
        if standing.position != Position::First || !entry.validity.is_valid() || !entry.set_held() {
            let reason = entry.session.validity().reason().map_or_else(
                || "somebody deleted the entry, or its waiter was not polled for long".to_owned(),
                |reason| format!("of its session, {reason}"),
            );
            let message = format!("the entry in the queue was lost before the key was held: {reason}");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(standing.pending.into_guard(standing.token))
    }

    async fn queue_up(&self, key: &Key) -> Result<LockGuard> {
        let mut had_entry = None;
        loop {
            let error = match self.enter(key, true).await {
                Ok(Some(mut standing)) => {
                    let waited = self.wait_for_turn(&mut standing).await;
                    had_entry = Some(BootInstant::now());
                    match waited.and_then(|()| self.held(standing)) {
                        Ok(guard) => return Ok(guard),
                        Err(error) => error,
                    }
                }
                Ok(None) => {
                    let message = "the servers refused a claim that waits";
                    return Err(Error::new(ErrorKind::Unexpected, message));
                }
                Err(error) => error,
            };
            let in_vain = had_entry.map(|last| BootInstant::now().since(last));
            if !error.is_transient() || in_vain.is_none_or(|time| time > self.background.timing().ttl()) {
                return Err(error);
            }
            tracing::debug!(?key, %error, "a waiter lost its entry and queues again");
            time::sleep(self.retry_delay()).await;
        }
    }

    /// Returns how far apart attempts after a failure are.
    fn retry_delay(&self) -> Duration {
        (self.background.timing().request_timeout() / 8).min(Duration::from_millis(100))
    }
}

impl<Q: QueueStore> Backend for Queued<Q> {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Servers, Waiting::Fifo, TokenOrder::Cluster)
    }

    async fn try_lock(&self, key: Key) -> Result<Option<LockGuard>> {
        let entered = self.enter(&key, false).await;
        let held = entered.and_then(|standing| standing.map(|standing| self.held(standing)).transpose());
        held.map_err(|error| error.with_key(&key))
    }

    async fn close(&self) {
        self.background.close().await;
    }
}

impl<Q: QueueStore> WaitingBackend for Queued<Q> {
    async fn lock(&self, key: Key) -> Result<LockGuard> {
        let locked = tokio::select! {
            biased;
            locked = self.queue_up(&key) => locked,
            error = self.background.closed() => Err(error),
        };
        locked.map_err(|error| error.with_key(&key))
    }
}

impl<Q: QueueStore> Drop for Queued<Q> {
    fn drop(&mut self) {
        self.background.leave();
    }
}

impl<Q: QueueStore> fmt::Debug for Queued<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queued").field("timing", self.background.timing()).finish_non_exhaustive()
    }
}

impl<Q: QueueStore> Queues<Q> {
    async fn leave(&self, entry: &Entry<Q>) -> Result<Released> {
        let session = entry.session.subject().inner();
        let released = self.0.leave(session, &entry.claim, entry.made()).await?;
        entry.set_left();
        Ok(released)
    }
}

impl<Q: QueueStore> HoldStore for Queues<Q> {
    type Renewed = Session<Q>;
    type Held = Arc<Entry<Q>>;

    const LOSS: LossReason = LossReason::SessionEnded;

    fn claim(entry: &Arc<Entry<Q>>) -> &Claim {
        &entry.claim
    }

    fn validity(entry: &Arc<Entry<Q>>) -> &Validity {
        &entry.validity
    }

    fn own_lease(_: &Arc<Entry<Q>>) -> Option<&Lease<Session<Q>>> {
        None
    }

    fn renews_at_once(&self) -> usize {
        1
    }

    async fn renew(&self, sessions: &[&Session<Q>]) -> Vec<Result<Renewal>> {
        join_all(sessions.iter().map(|session| self.0.keep_alive(session.inner()))).await
    }

    async fn release(&self, entry: &Arc<Entry<Q>>) -> Result<Released> {
        self.leave(entry).await
    }

    async fn undo(&self, entry: &Arc<Entry<Q>>) -> Result<()> {
        if entry.session.validity().is_valid() {
            return self.leave(entry).await.map(drop);
        }
        // The servers end the session by themselves, and with it the entry: once it is over, one try is enough.
        let limit = entry.session.subject().request_timeout() / 2;
        let _ = time::timeout(limit, self.leave(entry)).await;
        entry.set_left();
        Ok(())
    }

    /// Repeats an undo for as long as the session lives.
    fn undo_limit(_: &Arc<Entry<Q>>) -> Duration {
        Duration::MAX
    }

    async fn verify(&self, entry: &Arc<Entry<Q>>) -> Result<bool> {
        let made = entry.made().expect("a hold has an entry");
        self.0.verify(entry.session.subject().inner(), made).await
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
