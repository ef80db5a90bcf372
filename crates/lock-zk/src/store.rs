//! The requests of the lock: to enter a queue, to wait for the node before one's own, and to leave.

use std::{fmt, future::pending, sync::Arc, time::Duration};

use lock_core::{
    Error, ErrorKind, FencingToken, Options, Result,
    backend::{BoxFuture, Claim, Effect, Entered, Position, Predecessor, QueueStore, Released, Renewal},
};
use parking_lot::Mutex;
use tokio::time;
use zookeeper_client::{Client, CreateMode, CreateOptions, Error as ZkError};

use crate::{
    Target,
    connection::{Connection, Unfired},
    ensemble::Ensemble,
    failure,
    gate::{Gate, Slots},
    names::{self, EntryName, Prefix},
    session::Session,
};

/// Locks as queues of nodes. Users see the [`ZkLocker`](crate::ZkLocker) around it.
pub struct ZkStore {
    pub(crate) ensemble: Arc<Ensemble>,
    pub(crate) prefix: Prefix,
    pub(crate) slots: Slots,
}

/// A node in a queue, known to have been made.
pub struct QueueEntry {
    pub(crate) queue: String,
    pub(crate) name: EntryName,
    gate: Gate,
    /// The watch of a waiter, left to fire when the node is deleted: to take it back would be one more request.
    watch: Mutex<Option<Unfired>>,
}

/// A node that was just made, and what was seen right after.
struct Made {
    entry: QueueEntry,
    token: FencingToken,
    /// All nodes of the queue.
    children: Vec<String>,
    /// Whether the slot of the key was open then.
    is_open: bool,
}

/// The pause before a watch is set again.
const RETRY_DELAY: Duration = Duration::from_millis(10);

impl ZkStore {
    pub(crate) fn new(target: Target, options: &Options) -> Result<Self> {
        let prefix = Prefix::new(options.prefix())?;
        let ensemble = Arc::new(Ensemble::new(target, options.check()?)?);
        Ok(Self { ensemble, prefix, slots: Slots::default() })
    }

    /// Refuses servers of different ensembles.
    pub(crate) async fn check_servers(&self) -> Result<()> {
        self.ensemble.check().await
    }

    pub(crate) fn failed(&self, error: ZkError) -> Error {
        failure::of_request(error, self.ensemble.addresses())
    }

    /// Makes a node at the end of the queue, lists the queue, and looks whether the slot is still open.
    async fn create_and_list(
        &self,
        connection: &Connection,
        claim: &Claim,
        queue: &str,
        gate: Gate,
    ) -> Result<Made> {
        let client = connection.client().map_err(|error| self.failed(error))?;
        let stem = names::stem(queue, claim.owner());
        let ephemeral = CreateMode::EphemeralSequential.with_acls(self.ensemble.acls());
        loop {
            // All requests are sent before any answer is awaited; a connection's requests are executed in order.
            let created = client.create(&stem, &gate.data(), &ephemeral);
            let listed = client.list_children(queue);
            let looked = gate.look(&client);
            let (node, sequence) = match connection.answer(created).await {
                Ok(created) => created,
                Err(ZkError::NoNode) if self.make_queue(connection, &client, queue).await? => continue,
                Err(ZkError::NoNode) => {
                    self.slots.forget(&gate);
                    return Err(self.slots.refusal(&gate, connection, Effect::None).await);
                }
                Err(error) => return Err(self.failed(error)),
            };
            let path = format!("{stem}{sequence}");
            let Some(name) = EntryName::parse(&path[queue.len() + 1..])? else {
                let deleted = connection.answer(client.delete(&path, None)).await;
                let message = "the servers have used up the numbers of this queue; it serves again once it was empty, \
                               since they remove it then";
                let error = Error::new(ErrorKind::Unavailable, message);
                return Err(if deleted.is_ok() { error.without_effect() } else { error });
            };
            let seen = async {
                let children = connection.answer(listed).await?;
                Ok((children, connection.answer(looked).await?))
            };
            let (children, is_open) = match seen.await {
                Ok(seen) => seen,
                Err(error) => {
                    // Who may not list cannot find the node again to undo it.
                    let deleted = connection.answer(client.delete(&path, None)).await;
                    let error = self.failed(error);
                    let message = "an entry was made, and then the queue could not be looked at";
                    let error = Error::new(error.kind(), message).with_source(error);
                    return Err(if deleted.is_ok() { error.without_effect() } else { error });
                }
            };
            let token = u64::try_from(node.czxid).map_err(|error| {
                let message = "the server did not tell the transaction that made the node; locks need ZooKeeper 3.5.3 \
                               or newer";
                Error::new(ErrorKind::Unsupported, message).with_source(error)
            })?;
            let token = gate.token(FencingToken::new(token))?;
            let entry = QueueEntry::new(queue.to_owned(), name, gate);
            return Ok(Made { entry, token, children, is_open });
        }
    }

    /// Makes the node of a queue. Returns `false` if the queue is in a slot that was never open here: nobody but a
    /// mover makes the node of a slot.
    pub(crate) async fn make_queue(
        &self,
        connection: &Connection,
        client: &Client,
        queue: &str,
    ) -> Result<bool> {
        let container = CreateMode::Container.with_acls(self.ensemble.acls());
        if !self.slots.are_there() {
            return self.make(connection, client, queue, &container).await.map(|()| true);
        }
        match connection.answer(client.create(queue, &[], &container)).await {
            Ok(_) | Err(ZkError::NodeExists) => Ok(true),
            Err(ZkError::NoNode) => Ok(false),
            Err(error) => Err(self.failed(error).without_effect()),
        }
    }

    /// Makes a node, and those above it.
    pub(crate) async fn make(
        &self,
        connection: &Connection,
        client: &Client,
        path: &str,
        options: &CreateOptions<'_>,
    ) -> Result<()> {
        match connection.answer(client.mkdir(path, options)).await {
            Ok(()) => Ok(()),
            Err(ZkError::NoNode) => {
                let message = "the chroot in the address does not exist; create it first";
                let error =
                    Error::new(ErrorKind::UnsafeConfig, message).with_server(self.ensemble.addresses());
                Err(error.without_effect())
            }
            Err(error) => Err(self.failed(error).without_effect()),
        }
    }

    async fn delete(&self, connection: &Connection, path: &str) -> Result<Released> {
        let client = connection.client().map_err(|error| self.failed(error))?;
        match connection.answer(client.delete(path, None)).await {
            Ok(()) => Ok(Released::Freed),
            Err(ZkError::NoNode) => Ok(Released::NotOwner),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Deletes whatever node of `claim` there is.
    ///
    /// A create may have been executed or not, by a server that is no longer the one that answers: only after a vote is
    /// all seen that came of it. (A `sync` would not do: a leader answers it before what is still being voted on.) It
    /// cannot be executed later: servers refuse what comes over a connection that its session has left, and what was
    /// not sent over it is never sent.
    async fn find_and_delete(&self, connection: &Connection, claim: &Claim) -> Result<Released> {
        let queue = self.prefix.queue(claim.key());
        connection.vote().await.map_err(|error| self.failed(error))?;
        let client = connection.client().map_err(|error| self.failed(error))?;
        let children = match connection.answer(client.list_children(&queue)).await {
            Err(ZkError::NoNode) => return Ok(Released::NotOwner),
            children => children.map_err(|error| self.failed(error))?,
        };
        let mut released = Released::NotOwner;
        for child in children.iter().filter(|child| names::is_left_by(child, claim.owner())) {
            released = self.delete(connection, &format!("{queue}/{child}")).await?;
        }
        Ok(released)
    }
}

impl QueueEntry {
    pub(crate) fn new(queue: String, name: EntryName, gate: Gate) -> Self {
        Self { queue, name, gate, watch: Mutex::default() }
    }

    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.queue, self.name.as_str())
    }

    /// Returns where it stands among the nodes of its queue.
    fn position(&self, children: &[String]) -> Result<Position> {
        let mut entries = Vec::with_capacity(children.len());
        for child in children {
            entries.extend(EntryName::parse(child)?);
        }
        if !entries.contains(&self.name) {
            return Ok(Position::Gone);
        }
        entries.retain(|entry| entry.lead_over(&self.name) > 0);
        let nearest = entries.iter().min_by_key(|entry| entry.lead_over(&self.name));
        Ok(nearest.map_or(Position::First, |nearest| {
            let is_first = entries.len() == 1 && nearest.keeps_its_name();
            Position::Behind(Predecessor { name: nearest.as_str().to_owned(), is_first })
        }))
    }
}

impl QueueStore for ZkStore {
    type Session = Session;
    type Entry = QueueEntry;

    async fn open(&self) -> Result<(Session, Duration)> {
        let session = Session::open(&self.ensemble).await?;
        let certain = session.certain();
        Ok((session, certain))
    }

    async fn keep_alive(&self, session: &Session) -> Result<Renewal> {
        session.keep_alive().await
    }

    async fn close(&self, session: &Session) {
        session.close().await;
    }

    fn over(&self, session: &Session) -> BoxFuture<'static, ()> {
        session.over()
    }

    async fn enter(&self, session: &Session, claim: &Claim) -> Result<Entered<QueueEntry>> {
        let connection = match session.connection().await {
            Ok(connection) => connection,
            Err(error) if error.kind() == ErrorKind::Closed => return Err(error),
            Err(_) => return Ok(Entered::SessionOver),
        };
        let queue = self.prefix.queue(claim.key());
        let (entry, token, position) = loop {
            let gate = self.slots.gate(&connection, claim.key()).await?;
            let Made { entry, token, children, is_open } =
                self.create_and_list(&connection, claim, &queue, gate).await?;
            if is_open {
                let position = entry.position(&children)?;
                break (entry, token, position);
            }
            self.slots.forget(&entry.gate);
            self.delete(&connection, &entry.path()).await.map_err(|error| {
                let message =
                    "an entry was made in a slot that has moved, and could not be taken away at once";
                Error::new(error.kind(), message).with_source(error)
            })?;
        };
        if claim.waits() || position == Position::First {
            return Ok(Entered::Queued { entry, token, position });
        }
        // A try that was refused should leave nothing, also nothing that waiters would be told of late.
        let left = self.delete(&connection, &entry.path()).await;
        Ok(Entered::Busy(if left.is_ok() { Effect::None } else { Effect::Possible }))
    }

    async fn advance(
        &self,
        session: &Session,
        entry: &QueueEntry,
        predecessor: &Predecessor,
    ) -> Result<Position> {
        let connection = session.connection().await?;
        let path = format!("{}/{}", entry.queue, predecessor.name);
        let deleted = connection.deleted_before(&path, &entry.path()).await;
        let unfired = deleted.map_err(|error| self.failed(error))?;
        let looking = async {
            let client = connection.client().map_err(|error| self.failed(error))?;
            // If nobody can come before it, there is nothing to ask.
            let position = if unfired.is_some() && predecessor.is_first {
                Position::First
            } else {
                match connection.answer(client.list_children(&entry.queue)).await {
                    Err(ZkError::NoNode) => Position::Gone,
                    children => entry.position(&children.map_err(|error| self.failed(error))?)?,
                }
            };
            // What is open after it became the first was open then: it does not open twice in one epoch.
            let is_first = position == Position::First;
            if is_first
                && !connection.answer(entry.gate.look(&client)).await.map_err(|error| self.failed(error))?
            {
                self.slots.forget(&entry.gate);
                return Err(self.slots.refusal(&entry.gate, &connection, Effect::Possible).await);
            }
            *entry.watch.lock() = unfired;
            Ok(position)
        };
        let limit = self.ensemble.timing().request_timeout();
        time::timeout(limit, looking).await.map_err(|_| Error::no_answer(limit))?
    }

    async fn gone(&self, session: &Session, entry: &QueueEntry) {
        let path = entry.path();
        // Boxed, as it is large and soon over, and there is a watch for each hold.
        while let Ok(connection) = Box::pin(session.connection()).await {
            match connection.deleted(&path).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(%error, path, "an own node is watched no more, and is watched again")
                }
            }
            time::sleep(RETRY_DELAY).await;
        }
        pending().await
    }

    async fn leave(&self, session: &Session, claim: &Claim, entry: Option<&QueueEntry>) -> Result<Released> {
        let connection = session.connection().await?;
        match entry {
            Some(entry) => self.delete(&connection, &entry.path()).await,
            None => self.find_and_delete(&connection, claim).await,
        }
    }

    async fn verify(&self, session: &Session, entry: &QueueEntry) -> Result<bool> {
        let connection = session.connection().await?;
        // Unlike a read, it is put to the vote of the servers, and unlike a write it wakes nobody who watches.
        match connection.check(&entry.path(), 0).await {
            Ok(None) => Ok(true),
            Ok(Some(ZkError::NoNode)) => Ok(false),
            Ok(Some(error)) | Err(error) => Err(self.failed(error)),
        }
    }
}

impl fmt::Debug for QueueEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueEntry").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ZkStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZkStore").finish_non_exhaustive()
    }
}
