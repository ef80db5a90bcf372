//! The requests of the lock: to enter a queue, to wait for the node before one's own, and to leave.

use std::{fmt, future::pending, sync::Arc, time::Duration};

use lock_core::{
    Error, ErrorKind, FencingToken, Options, Result,
    backend::{BoxFuture, Claim, Effect, Entered, Position, Predecessor, QueueStore, Released, Renewal},
};
use tokio::time;
use zookeeper_client::{Client, CreateMode, Error as ZkError};

use crate::{
    Target,
    connection::{Connection, Deleted},
    ensemble::Ensemble,
    failure,
    names::{self, EntryName, Prefix},
    session::Session,
};

/// Locks as queues of nodes. Users see the [`ZkLocker`](crate::ZkLocker) around it.
pub struct ZkStore {
    ensemble: Arc<Ensemble>,
    prefix: Prefix,
}

/// A node in a queue, known to have been made.
#[derive(Debug)]
pub struct QueueEntry {
    queue: String,
    name: EntryName,
}

/// The pause before a watch is set again.
const RETRY_DELAY: Duration = Duration::from_millis(10);

impl ZkStore {
    pub(crate) fn new(target: Target, options: &Options) -> Result<Self> {
        let prefix = Prefix::new(options.prefix())?;
        Ok(Self { ensemble: Arc::new(Ensemble::new(target, options.check()?)?), prefix })
    }

    /// Refuses servers of different ensembles.
    pub(crate) async fn check_servers(&self) -> Result<()> {
        self.ensemble.check().await
    }

    fn failed(&self, error: ZkError) -> Error {
        failure::of_request(error, self.ensemble.addresses())
    }

    /// Makes a node at the end of the queue, and lists the queue.
    async fn create_and_list(
        &self,
        connection: &Connection,
        claim: &Claim,
        queue: &str,
    ) -> Result<(QueueEntry, FencingToken, Vec<String>)> {
        let client = connection.client().map_err(|error| self.failed(error))?;
        let stem = names::stem(queue, claim.owner());
        let ephemeral = CreateMode::EphemeralSequential.with_acls(self.ensemble.acls());
        loop {
            // Both requests are sent before either answer is awaited; a connection's requests are executed in order.
            let created = client.create(&stem, &[], &ephemeral);
            let listed = client.list_children(queue);
            let (node, sequence) = match connection.answer(created).await {
                Ok(created) => created,
                Err(ZkError::NoNode) => {
                    self.make_queue(connection, &client, queue).await?;
                    continue;
                }
                Err(error) => return Err(self.failed(error)),
            };
            let path = format!("{stem}{sequence}");
            let children = match connection.answer(listed).await {
                Ok(children) => children,
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
            let name =
                EntryName::parse(&path[queue.len() + 1..])?.expect("a node of ours has a name of ours");
            return Ok((QueueEntry { queue: queue.to_owned(), name }, FencingToken::new(token), children));
        }
    }

    async fn make_queue(&self, connection: &Connection, client: &Client, queue: &str) -> Result<()> {
        let container = CreateMode::Container.with_acls(self.ensemble.acls());
        match connection.answer(client.mkdir(queue, &container)).await {
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
        for child in children.iter().filter(|child| names::is_of(child, claim.owner())) {
            released = self.delete(connection, &format!("{queue}/{child}")).await?;
        }
        Ok(released)
    }
}

impl QueueEntry {
    fn path(&self) -> String {
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
            let (name, is_first) = (nearest.as_str().to_owned(), entries.len() == 1);
            Position::Behind(Predecessor { name, is_first })
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
        let (entry, token, children) = self.create_and_list(&connection, claim, &queue).await?;
        let position = entry.position(&children)?;
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
        match connection.deleted(&path).await.map_err(|error| self.failed(error))? {
            // Nobody can come before it, and the own node is watched too: so there is nothing to ask.
            Deleted::Now if predecessor.is_first => return Ok(Position::First),
            Deleted::Now | Deleted::Before => {}
        }
        let client = connection.client().map_err(|error| self.failed(error))?;
        let limit = self.ensemble.timing().request_timeout();
        let listed = time::timeout(limit, connection.answer(client.list_children(&entry.queue)));
        match listed.await.map_err(|_| Error::no_answer(limit))? {
            Err(ZkError::NoNode) => Ok(Position::Gone),
            children => entry.position(&children.map_err(|error| self.failed(error))?),
        }
    }

    async fn gone(&self, session: &Session, entry: &QueueEntry) {
        let path = entry.path();
        while let Ok(connection) = session.connection().await {
            match connection.deleted(&path).await {
                Ok(_) => return,
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

impl fmt::Debug for ZkStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZkStore").finish_non_exhaustive()
    }
}
