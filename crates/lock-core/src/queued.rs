//! A backend made of sessions and queues: whoever is first in the queue of a key holds it.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{runtime::Handle, time};

use crate::{
    Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, LossReason, Options, Result, Scope,
    TokenOrder, Waiting,
    backend::{
        Backend, BootInstant, Claim, Effect, Entered, OwnerId, Position, QueueStore, Released, Renewal,
        SharedAttempt, WaitingBackend, present_runtime,
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
    background: Arc<Background<Queues<Q>>>,
    session: Arc<PresentSession<Q>>,
    opening: SharedAttempt<Weak<Lease<Session<Q>>>>,
    runtime: Handle,
}

/// How many sessions may turn out to be over before an attempt fails.
const MOST_SESSIONS: usize = 3;

/// The session in which entries are made now. It is kept by what renews it, and by the entries in it.
type PresentSession<Q> = Mutex<Weak<Lease<Session<Q>>>>;

/// The claims that may have an entry.
struct Queues<Q: QueueStore> {
    store: Arc<Q>,
    entries: Mutex<HashMap<OwnerId, Arc<Entry<Q>>>>,
}

/// A claim that has an entry.
struct Standing<Q: QueueStore> {
    entry: Arc<Entry<Q>>,
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
        let (timing, runtime) = (options.check()?, present_runtime()?);
        let queues = Queues { store: Arc::new(store), entries: Mutex::default() };
        let queued = Self {
            background: Background::start(queues, timing)?,
            session: Arc::default(),
            opening: SharedAttempt::new(runtime.clone()),
            runtime,
        };
        queued.open().await?;
        Ok(queued)
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &Q {
        &self.background.store().store
    }

    /// Finds a session that is certain, or opens one.
    async fn session(&self) -> Result<Arc<Lease<Session<Q>>>> {
        let present = locked(&self.session).upgrade();
        match present.filter(|session| session.validity().is_valid()) {
            Some(session) => Ok(session),
            None => self.open().await,
        }
    }

    async fn open(&self) -> Result<Arc<Lease<Session<Q>>>> {
        let opened = self.opening.run(|| {
            let (background, present) = (Arc::clone(&self.background), Arc::clone(&self.session));
            let runtime = self.runtime.clone();
            async move {
                let store = Arc::clone(&background.store().store);
                let session = Session::open(store, *background.timing(), runtime).await?;
                background.renew_from_now_on(&session);
                *locked(&present) = Arc::downgrade(&session);
                Ok(Arc::downgrade(&session))
            }
        });
        let session = opened.await.map_err(Error::without_effect)?.upgrade();
        session.ok_or_else(|| {
            let message = "the session was over as soon as it was opened; is the machine overloaded?";
            Error::new(ErrorKind::Unavailable, message).without_effect()
        })
    }

    /// Takes an entry for `claim`; `None` if it does not wait and the key is busy.
    async fn enter(&self, pending: PendingClaim<Queues<Q>>) -> Result<Attempt<Q>> {
        let queues = self.background.store();
        let mut sessions_over = 0;
        loop {
            let claim = pending.claim();
            let session = match self.session().await {
                Ok(session) => session,
                Err(error) => {
                    // Nothing was sent for the claim yet, or the session of what was sent is over.
                    pending.settled();
                    return Err(error);
                }
            };
            let entry = Entry::new(session, claim);
            // From here on an undo has something to do.
            queues.entries().insert(claim.owner(), Arc::clone(&entry));
            let entering = queues.store.enter(entry.session.subject().inner(), claim);
            let effect = match self.background.bounded(entering).await {
                Ok(Entered::Queued { entry: made, token, position }) => {
                    entry.set_made(made, position != Position::First);
                    return Ok(Attempt::Entered(pending, Standing { entry, token, position }));
                }
                Ok(Entered::SessionOver) => {
                    entry.session.validity().end(LossReason::SessionEnded);
                    queues.forget(claim);
                    sessions_over += 1;
                    if sessions_over < MOST_SESSIONS {
                        continue;
                    }
                    let message = "each new session was over at once; do the servers agree with each other?";
                    Err(Error::new(ErrorKind::Unavailable, message).without_effect())
                }
                Ok(Entered::Busy(effect)) => Ok(effect),
                Err(error) => Err(error),
            };
            if effect.as_ref().map_or_else(Error::effect, |effect| *effect) == Effect::None {
                queues.forget(claim);
                pending.settled();
            }
            return effect.map(|_| Attempt::Busy);
        }
    }

    /// Waits until nobody is before the entry.
    async fn wait_for_turn(&self, standing: &mut Standing<Q>) -> Result<()> {
        let Standing { entry, position, .. } = standing;
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

    fn held(&self, pending: PendingClaim<Queues<Q>>, standing: Standing<Q>) -> Result<LockGuard> {
        let Standing { entry, token, position } = standing;
        if position != Position::First || !entry.validity.is_valid() || !entry.set_held() {
            let reason = entry.session.validity().reason().map_or_else(
                || "somebody deleted the entry, or its waiter was not polled for long".to_owned(),
                |reason| format!("of its session, {reason}"),
            );
            let message = format!("the entry in the queue was lost before the key was held: {reason}");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let validity = Arc::clone(&entry.validity);
        Ok(pending.held(token, |claim| Lease::new(claim, Duration::MAX, validity)).0)
    }

    async fn queue_up(&self, key: &Key) -> Result<LockGuard> {
        let mut had_entry = None;
        loop {
            let pending = PendingClaim::new(&self.background, key, true)?;
            let error = match self.enter(pending).await {
                Ok(Attempt::Entered(pending, mut standing)) => {
                    let held = match self.wait_for_turn(&mut standing).await {
                        Ok(()) => self.held(pending, standing),
                        Err(error) => Err(error),
                    };
                    had_entry = Some(BootInstant::now());
                    match held {
                        Ok(guard) => return Ok(guard),
                        Err(error) => error,
                    }
                }
                Ok(Attempt::Busy) => {
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

/// How a claim that entered a queue fared.
enum Attempt<Q: QueueStore> {
    Entered(PendingClaim<Queues<Q>>, Standing<Q>),
    Busy,
}

impl<Q: QueueStore> Backend for Queued<Q> {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Servers, Waiting::Fifo, TokenOrder::Cluster)
    }

    async fn try_lock(&self, key: Key) -> Result<Option<LockGuard>> {
        let pending = PendingClaim::new(&self.background, &key, false)?;
        let attempt = self.enter(pending).await.map_err(|error| error.with_key(&key))?;
        match attempt {
            Attempt::Entered(pending, standing) => self.held(pending, standing).map(Some),
            Attempt::Busy => Ok(None),
        }
        .map_err(|error| error.with_key(&key))
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
    fn entries(&self) -> MutexGuard<'_, HashMap<OwnerId, Arc<Entry<Q>>>> {
        locked(&self.entries)
    }

    fn entry(&self, claim: &Claim) -> Option<Arc<Entry<Q>>> {
        self.entries().get(&claim.owner()).cloned()
    }

    fn forget(&self, claim: &Claim) {
        let entry = self.entries().remove(&claim.owner());
        if let Some(entry) = entry {
            entry.set_left();
        }
    }

    async fn leave(&self, claim: &Claim, entry: &Entry<Q>) -> Result<Released> {
        let released = self.store.leave(entry.session.subject().inner(), claim, entry.made()).await?;
        self.forget(claim);
        Ok(released)
    }
}

impl<Q: QueueStore> HoldStore for Queues<Q> {
    type Renewed = Session<Q>;

    const LOSS: LossReason = LossReason::SessionEnded;

    async fn renew(&self, session: &Session<Q>) -> Result<Renewal> {
        self.store.keep_alive(session.inner()).await
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        match self.entry(claim) {
            Some(entry) => self.leave(claim, &entry).await,
            None => Ok(Released::NotOwner),
        }
    }

    async fn undo(&self, claim: &Claim) -> Result<()> {
        let Some(entry) = self.entry(claim) else { return Ok(()) };
        if entry.session.validity().is_valid() {
            return self.leave(claim, &entry).await.map(drop);
        }
        // The servers end the session by themselves, and with it the entry: once it is over, one try is enough.
        let limit = entry.session.subject().request_timeout() / 2;
        if !matches!(time::timeout(limit, self.leave(claim, &entry)).await, Ok(Ok(_))) {
            self.forget(claim);
        }
        Ok(())
    }

    /// Repeats an undo for as long as the session lives.
    fn undo_limit(&self, _: &Claim) -> Duration {
        Duration::MAX
    }

    async fn verify(&self, claim: &Claim) -> Result<bool> {
        match self.entry(claim) {
            Some(entry) => match entry.made() {
                Some(made) => self.store.verify(entry.session.subject().inner(), made).await,
                None => Ok(false),
            },
            None => Ok(false),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
