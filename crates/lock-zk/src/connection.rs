//! One connection of a session with one server.
//!
//! A client of the library connects again by itself, wherever it likes, and does not tell for how long the server that
//! it found keeps the session. So here a client is one connection: the task that the library spawns for it is kept
//! here, is driven by us, and is driven no more as soon as the connection is broken.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use lock_core::backend::BootInstant;
use parking_lot::Mutex;
use spawns_core::{Spawn, Task};
use tokio::sync::watch;
use zookeeper_client::{
    Client, Connector, Error as ZkError, EventType, MultiWriteError, MultiWriter, SessionInfo, SessionState,
    StateWatcher, WatchedEvent,
};

/// What a check of any version is written as.
pub(crate) const ANY_VERSION: i32 = -1;

/// A connection, from the server's word that the session stands. Dropping it ends neither the session nor its entries.
pub(crate) struct Connection {
    /// `None` once the session is to be ended.
    client: Mutex<Option<Arc<Client>>>,
    state: StateWatcher,
    session: SessionInfo,
    granted: Duration,
    /// What sends and receives. It is dropped with the connection only, after all who wait for a watch: they would
    /// panic.
    driver: Mutex<Driver>,
    broken: watch::Sender<bool>,
    /// When the first of the votes was asked for that have no answer yet.
    unanswered: Mutex<Option<BootInstant>>,
}

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Connection {
    /// Connects to the one server at `address`.
    pub(crate) async fn open(connector: Connector, address: String, secure: bool) -> Result<Self, ZkError> {
        let spawned = Spawned::default();
        let mut connecting = pin!(connect(connector, &address, secure));
        let client = poll_fn(|context| {
            let _scope = spawns_core::enter(&spawned);
            connecting.as_mut().poll(context)
        });
        let client = client.await?;
        let driver = spawned.0.into_inner().expect("the client library spawns a task for a client");
        Ok(Self {
            state: client.state_watcher(),
            session: client.session().clone(),
            granted: client.session_timeout(),
            client: Mutex::new(Some(Arc::new(client))),
            driver: Mutex::new(Box::into_pin(driver.future)),
            broken: watch::Sender::new(false),
            unanswered: Mutex::default(),
        })
    }

    /// Returns the id and the password of the session.
    pub(crate) fn session(&self) -> &SessionInfo {
        &self.session
    }

    /// Returns for how long the server keeps the session without a word of it.
    pub(crate) fn granted(&self) -> Duration {
        self.granted
    }

    /// Sends and receives until the connection is broken. Of several who drive, the last is woken.
    pub(crate) async fn drive(&self) {
        tokio::select! {
            biased;
            () = self.broken() => {}
            () = poll_fn(|context| self.poll_driver(context)) => self.give_up(),
        }
    }

    /// Is ready when it is over. What the library does next, in the same poll, is to open a socket, and it needs
    /// another poll to send anything over it.
    fn poll_driver(&self, context: &mut Context<'_>) -> Poll<()> {
        let polled = self.driver.lock().as_mut().poll(context);
        if self.state.peek_state() == SessionState::SyncConnected { polled } else { Poll::Ready(()) }
    }

    /// Drives the connection while `request` is under way.
    pub(crate) async fn driving<T>(&self, request: impl Request<T>) -> Result<T, ZkError> {
        unless(self.drive(), request).await
    }

    /// Takes the connection for broken.
    pub(crate) fn give_up(&self) {
        self.broken.send_replace(true);
    }

    async fn broken(&self) {
        let _ = self.broken.subscribe().wait_for(|broken| *broken).await;
    }

    /// Returns the client, of which no clone may be kept for longer than a request or a watch lasts.
    pub(crate) fn client(&self) -> Result<Arc<Client>, ZkError> {
        self.client.lock().clone().ok_or(ZkError::ClientClosed)
    }

    /// Waits for the answer to a request, as long as there is a connection. The request is sent by the call that made
    /// it.
    pub(crate) async fn answer<T>(&self, request: impl Request<T>) -> Result<T, ZkError> {
        unless(self.broken(), request).await
    }

    /// Puts something small to the vote of the servers.
    ///
    /// Any outcome will do, since each has been agreed on. When it is known, all that was agreed on before has taken
    /// place at the server that answers. A read would not do: a follower that was cut off goes on answering reads.
    pub(crate) async fn vote(&self) -> Result<(), ZkError> {
        self.unanswered.lock().get_or_insert_with(BootInstant::now);
        self.check("/", ANY_VERSION).await?;
        *self.unanswered.lock() = None;
        Ok(())
    }

    /// Puts to the vote whether the node at `path` has this version, and returns what was agreed to be wrong with it.
    pub(crate) async fn check(&self, path: &str, version: i32) -> Result<Option<ZkError>, ZkError> {
        let checked = self.multi(|check| check.add_check_version(path, version)).await?;
        Ok(checked.map(|(_, wrong)| wrong))
    }

    /// Puts changes to the vote that are made together or not at all, and returns which of them was agreed to be
    /// impossible, and why.
    pub(crate) async fn multi(
        &self,
        add: impl FnOnce(&mut MultiWriter<'_>) -> Result<(), ZkError>,
    ) -> Result<Option<(usize, ZkError)>, ZkError> {
        let client = self.client()?;
        let mut changes = client.new_multi_writer();
        add(&mut changes)?;
        match self.answer(async { Ok(changes.commit().await) }).await? {
            Ok(_) => Ok(None),
            Err(MultiWriteError::OperationFailed { index, source }) => Ok(Some((index, source))),
            Err(MultiWriteError::RequestFailed { source }) => Err(source),
        }
    }

    /// Returns since when the servers have been asked for a vote in vain, as far as this one tells.
    pub(crate) fn unanswered(&self) -> Option<BootInstant> {
        *self.unanswered.lock()
    }

    /// Waits until there is no node at `path`.
    pub(crate) async fn deleted(&self, path: &str) -> Result<(), ZkError> {
        let client = self.client()?;
        loop {
            // Boxed, as there is a watch for each hold, and a future keeps the place of all that it ever awaits.
            let (node, watch) = Box::pin(self.answer(client.check_and_watch_stat(path))).await?;
            let changed = Box::pin(watch.changed());
            if node.is_none() || self.fired(changed).await? == EventType::NodeDeleted {
                return Ok(());
            }
        }
    }

    /// Waits until the node at `path` is deleted, and returns the watch of the node at `own` if that has been there all
    /// the while; `None` as soon as anything else may have happened to either.
    ///
    /// The server tells of both in the order in which they were deleted, if it is asked in that order too. But whoever
    /// hears of them in two tasks may hear of them in another. If both are deleted at once, the other one first, what
    /// is returned is true, and out of date at once.
    pub(crate) async fn deleted_before(&self, path: &str, own: &str) -> Result<Option<Unfired>, ZkError> {
        let client = self.client()?;
        let asked = (client.check_and_watch_stat(own), client.check_and_watch_stat(path));
        let (own, own_watch) = self.answer(asked.0).await?;
        let (other, other_watch) = self.answer(asked.1).await?;
        if own.is_none() || other.is_none() {
            return Ok(None);
        }
        let mut changed = Box::pin(own_watch.changed());
        let event = tokio::select! {
            biased;
            _ = &mut changed => return Ok(None),
            event = self.fired(Box::pin(other_watch.changed())) => event?,
        };
        let was_there = event == EventType::NodeDeleted && (&mut changed).now_or_never().is_none();
        Ok(was_there.then_some(Unfired { _changed: changed }))
    }

    /// Waits for what a watch has to tell.
    async fn fired(&self, changed: impl Future<Output = WatchedEvent>) -> Result<EventType, ZkError> {
        match self.answer(async { Ok(changed.await.event_type) }).await? {
            EventType::Session => Err(ZkError::ConnectionLoss),
            event => Ok(event),
        }
    }

    /// Ends the session at the servers, if the connection still stands. Nobody else may drive it.
    pub(crate) async fn close(&self) {
        self.client.lock().take();
        if self.state.peek_state() == SessionState::SyncConnected {
            poll_fn(|context| self.poll_driver(context)).await;
        }
    }
}

/// A watch that has told nothing yet. It is kept or dropped, and not awaited: that would panic if the connection ended.
pub(crate) struct Unfired {
    _changed: Pin<Box<dyn Future<Output = WatchedEvent> + Send>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("session", &self.session.id()).finish_non_exhaustive()
    }
}

/// A request under way.
pub(crate) trait Request<T>: Future<Output = Result<T, ZkError>> {}

impl<T, F: Future<Output = Result<T, ZkError>>> Request<T> for F {}

/// Waits for the answer to a request, unless the connection ends before.
async fn unless<T>(end: impl Future<Output = ()>, request: impl Request<T>) -> Result<T, ZkError> {
    tokio::select! {
        biased;
        answer = request => answer,
        () = end => Err(ZkError::ConnectionLoss),
    }
}

async fn connect(connector: Connector, address: &str, secure: bool) -> Result<Client, ZkError> {
    #[cfg(feature = "tls")]
    if secure {
        return connector.secure_connect(address).await;
    }
    debug_assert!(!secure, "TLS needs the feature of that name");
    connector.connect(address).await
}

/// Keeps the task that the client library spawns while it connects.
#[derive(Default)]
struct Spawned(Mutex<Option<Task>>);

impl Spawn for Spawned {
    fn spawn(&self, task: Task) {
        *self.0.lock() = Some(task);
    }
}
