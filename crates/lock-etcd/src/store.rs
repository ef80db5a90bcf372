//! The protocol of the lock: a queue by create revision, each waiter behind its predecessor.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use etcd_client::{LeaseKeepAliveResponse, Txn, TxnResponse};
use lock_core::{
    Error, ErrorKind, FencingToken, Key, Options, Result,
    backend::{
        Claim, Effect, Entered, LeaseTiming, Position, Predecessor, QueueStore, Released, Renewal,
        present_runtime,
    },
};
use tokio::{runtime::Handle, time};

use crate::{
    failure::Failure,
    gate::{Gate, Slots},
    names::{self, Prefix},
    requests::{self, EnterReply},
    reuse::Names,
    servers::{Reply, Server, Servers},
    target::Target,
    watches::{self, Watches},
};

/// Locks as queues of keys in one etcd cluster. Users see the [`EtcdLocker`](crate::EtcdLocker) around it.
pub struct EtcdStore {
    pub(crate) servers: Arc<Servers>,
    pub(crate) prefix: Prefix,
    timing: LeaseTiming,
    runtime: Handle,
    pub(crate) slots: Slots,
}

/// Behind so many, a slow watch has caught up before the turn comes.
const FAR: i64 = 20;

/// The create revision of no key.
const NEVER_CREATED: i64 = -1;

/// One lease of etcd. When it is over, all entries that depend on it are gone.
pub struct Session {
    pub(crate) lease: i64,
    /// The name and the present modification of the key that fences off late requests.
    fence: String,
    fence_revision: AtomicI64,
    watches: Watches,
    names: Names,
}

/// A key in a queue, and the revision at which it was made.
#[derive(Debug)]
pub struct Entry {
    pub(crate) name: String,
    pub(crate) created: i64,
    /// That of copies of the request for it, which may still arrive.
    pub(crate) copies: Effect,
    /// Whether its turn may come before a watch that the server serves slowly would be heard of.
    is_near: bool,
    /// Whether it was asked to be deleted, or is never to be without a condition.
    is_left: AtomicBool,
    gate: Gate,
}

/// One entry in the queue of a key. The first is the holder's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueEntry {
    /// The random id of the attempt that made it, or of an earlier one of its session whose name it uses again.
    pub owner: String,
    /// The token of its hold, or of the hold that it will have.
    pub fencing_token: FencingToken,
    /// The etcd lease of its session, which all locks of one locker share.
    pub lease: i64,
}

#[cfg(feature = "movable")]
impl Entry {
    /// Makes the entry of a hold that was taken over.
    pub(crate) fn adopted(name: String, created: i64) -> Self {
        let is_left = AtomicBool::new(true);
        Self { name, created, copies: Effect::None, is_near: false, is_left, gate: Gate::open() }
    }
}

impl EtcdStore {
    pub(crate) fn new(target: Target, options: &Options) -> Result<Self> {
        let timing = options.check()?;
        let (prefix, runtime) = (Prefix::new(options.prefix())?, present_runtime()?);
        let servers = Servers::new(target, &timing, &runtime);
        Ok(Self { servers: Arc::new(servers), prefix, timing, runtime, slots: Slots::default() })
    }

    /// Refuses endpoints that lead to different clusters, as far as they answer within a part of the request timeout.
    pub(crate) async fn check_endpoints(&self) -> Result<()> {
        self.servers.check_all(self.timing.request_timeout() / 2).await
    }

    pub(crate) async fn queue(&self, key: &Key) -> Result<Vec<QueueEntry>> {
        let queue = self.prefix.queue(key);
        let asking = self.servers.ask(|server| {
            let queue = queue.clone();
            async move { server.kv.clone().get(queue, Some(requests::eldest_first())).await }
        });
        let limit = self.timing.request_timeout();
        let reply = time::timeout(limit, asking).await.map_err(|_| Error::no_answer(limit))?;
        let entry = |entry: &etcd_client::KeyValue| QueueEntry {
            owner: requests::text(entry)[queue.len()..].to_owned(),
            fencing_token: token(entry.create_revision()),
            lease: entry.lease(),
        };
        Ok(reply.into_result()?.kvs().iter().map(entry).collect())
    }

    pub(crate) async fn ask(&self, transaction: impl Fn() -> Txn) -> Reply<TxnResponse> {
        self.servers
            .ask(|server| {
                let transaction = transaction();
                async move { server.kv.clone().txn(transaction).await }
            })
            .await
    }

    /// Looks at one server, whose answer will do if it is not older than `since`: what was deleted stays deleted.
    async fn look(&self, since: i64, transaction: impl Fn(bool) -> Txn) -> Result<TxnResponse> {
        let answer = self.ask(|| transaction(true)).await.into_result()?;
        // After a move to another endpoint, it may be older than what was heard at the one before.
        if requests::revision(&answer) >= since {
            return Ok(answer);
        }
        self.ask(|| transaction(false)).await.into_result()
    }

    /// Returns what is believed of a TTL that some server told. Members may be set up with different limits, below
    /// which they keep no lease, so that the next leader may keep it for less; but none for less than was asked for.
    fn believed(&self, told: Duration) -> Duration {
        told.min(self.asked())
    }

    /// Returns the TTL to ask for: etcd counts in seconds.
    fn asked(&self) -> Duration {
        Duration::from_secs(self.timing.ttl().as_secs() + u64::from(self.timing.ttl().subsec_nanos() > 0))
    }

    async fn enter_as(&self, name: &str, session: &Session, claim: &Claim) -> Result<Entered<Entry>> {
        let queued = |created, copies, gate: Gate, position, is_near| {
            let token = gate.token(token(created))?;
            let is_left = AtomicBool::new(gate.is_there());
            let entry = Entry { name: name.to_owned(), created, copies, is_near, is_left, gate };
            Ok(Entered::Queued { entry, token, position })
        };
        let mut copies = Effect::None;
        loop {
            let gate = self.slots.gate(&self.prefix, claim.key());
            let fence = session.fence_revision.load(Ordering::Acquire);
            let fenced = (&*session.fence, fence);
            let reply = self.ask(|| requests::enter(name, fenced, session.lease, claim.waits(), &gate)).await;
            if reply.result.as_ref().is_err_and(Failure::is_end_of_lease) {
                return Ok(Entered::SessionOver);
            }
            copies = copies.and(reply.effect);
            match requests::entered(&reply.into_result()?, fence, &gate) {
                EnterReply::Fenced(present) => {
                    session.fence_revision.store(present, Ordering::Release);
                    // Nor can copies of this request with the old fence be executed any more.
                    copies = Effect::None;
                }
                EnterReply::New { created, position, before } => {
                    return queued(created, copies, gate, position, before < FAR);
                }
                // One that does not wait got the first entry, or none.
                EnterReply::Before { created } if !claim.waits() => {
                    return queued(created, copies, gate, Position::First, true);
                }
                EnterReply::Before { created } => {
                    let look = |local| requests::look_ahead(name, created, &gate, local);
                    let found = self.look(created, look).await.map_err(entered)?;
                    let position = requests::position(&found, created, &gate);
                    let position = position.map_err(|found| gate.void(&found))?;
                    return queued(created, copies, gate, position, true);
                }
                EnterReply::Busy => return Ok(Entered::Busy(copies)),
                EnterReply::NotOpen(found) => self.slots.learn(&found, &gate, copies)?,
            }
        }
    }

    /// Deletes an entry for the first time. That needs no condition: nobody else has the name until it is known that no
    /// copy of this request is under way.
    async fn leave_first(&self, name: &str, session: &Session) -> Result<Released> {
        let deleting = self.servers.ask(|server| {
            let name = name.to_owned();
            async move { server.kv.clone().delete(name, None).await }
        });
        let reply = deleting.await;
        let effect = reply.effect;
        match (reply.into_result()?.deleted() > 0, effect) {
            (true, Effect::None) => {
                session.names.give_back(name.to_owned());
                Ok(Released::Freed)
            }
            (true, Effect::Possible) => Ok(Released::Freed),
            (false, Effect::None) => Ok(Released::NotOwner),
            (false, Effect::Possible) => Err(unknown_release()),
        }
    }

    async fn grant(&self) -> Result<(Session, Duration)> {
        // A lease is granted to anybody; to read and to write below the prefix is not. This deletes nothing.
        self.ask(|| requests::leave(&self.prefix.fence(0), NEVER_CREATED)).await.into_result()?;
        let asked = i64::try_from(self.asked().as_secs()).expect("a TTL is at most a day");
        let reply =
            self.servers.ask(|server| async move { server.lease.clone().grant(asked, None).await }).await;
        let granted = reply.into_result()?;
        let (lease, ttl) = (granted.id(), seconds(granted.ttl()));
        let kept = self.servers.ask(|server| beat(server, lease)).await.into_result()?;
        let kept = seconds(kept.ttl());
        if lease == 0 || ttl.min(kept).is_zero() {
            let message = "the server granted a lease without a number or a time";
            return Err(Error::new(ErrorKind::Unexpected, message));
        }
        let (watches, orders) = Watches::new();
        self.runtime.spawn(watches::serve(orders, Arc::clone(&self.servers)));
        let (fence, fence_revision) = (self.prefix.fence(lease), AtomicI64::new(0));
        let names = Names::default();
        Ok((Session { lease, fence, fence_revision, watches, names }, self.believed(ttl.min(kept))))
    }
}

/// Renews a lease; the answer tells for how long the leader keeps it from then on.
async fn beat(server: Arc<Server>, lease: i64) -> Result<LeaseKeepAliveResponse, etcd_client::Error> {
    let mut client = server.lease.clone();
    // The client library keeps the TTL of the first answer to itself.
    let (mut beats, mut answers) = client.keep_alive(lease).await?;
    beats.keep_alive().await?;
    let closed = || etcd_client::Error::LeaseKeepAliveError("the stream was closed".to_owned());
    answers.message().await?.ok_or_else(closed)
}

impl QueueStore for EtcdStore {
    type Session = Session;
    type Entry = Entry;

    async fn open(&self) -> Result<(Session, Duration)> {
        let limit = self.timing.request_timeout();
        // A lease that was granted unseen has no keys and ends by itself.
        time::timeout(limit, self.grant()).await.unwrap_or_else(|_| {
            let message =
                format!("no session within {limit:?}; are the servers reachable, and do they speak etcd?");
            Err(Error::new(ErrorKind::Unavailable, message))
        })
    }

    async fn keep_alive(&self, session: &Session) -> Result<Renewal> {
        let reply = self.servers.ask(|server| beat(server, session.lease)).await;
        match reply.result {
            Ok(kept) if kept.ttl() <= 0 => Ok(Renewal::NotOwner),
            Ok(kept) => Ok(Renewal::Extended(self.believed(seconds(kept.ttl())))),
            Err(failure) if failure.is_end_of_lease() => Ok(Renewal::NotOwner),
            Err(_) => reply.into_result().map(|_| Renewal::NotOwner),
        }
    }

    async fn close(&self, session: &Session) {
        let lease = session.lease;
        let revoked =
            self.servers.ask(|server| async move { server.lease.clone().revoke(lease).await }).await;
        if let Err(error) = revoked.into_result() {
            tracing::debug!(lease, %error, "a session was not ended at once; it ends with its TTL");
        }
    }

    async fn enter(&self, session: &Session, claim: &Claim) -> Result<Entered<Entry>> {
        let queue = self.prefix.queue(claim.key());
        if self.slots.are_there() {
            // A hold that moves is known by its owner everywhere.
            return self.enter_as(&names::entry(&queue, claim.owner()), session, claim).await;
        }
        let name = session.names.take(&queue, claim.owner());
        let entered = self.enter_as(&name, session, claim).await;
        match &entered {
            Ok(Entered::Queued { .. } | Entered::SessionOver) => session.names.settled(claim.owner()),
            Ok(Entered::Busy(Effect::None)) => {
                session.names.settled(claim.owner());
                session.names.give_back(name);
            }
            Err(error) if error.effect() == Effect::None => session.names.settled(claim.owner()),
            // The name is needed to undo it.
            _ => {}
        }
        entered
    }

    /// Waits for what is heard over the one stream of the session, and sends nothing meanwhile.
    async fn advance(&self, session: &Session, entry: &Entry, predecessor: &Predecessor) -> Result<Position> {
        let gone = session.watches.watch(&predecessor.name, entry.created, entry.is_near).gone().await?;
        let since = gone.max(entry.created);
        let answer = if predecessor.is_first {
            self.look(since, |local| requests::look(&entry.name, &entry.gate, local)).await?
        } else {
            self.look(since, |local| requests::look_ahead(&entry.name, entry.created, &entry.gate, local))
                .await?
        };
        let position = requests::position(&answer, entry.created, &entry.gate);
        position.map_err(|found| entry.gate.void(&found))
    }

    async fn gone(&self, session: &Session, entry: &Entry) {
        // Whoever may not watch any more holds all the same; the right may come back.
        while session.watches.watch(&entry.name, entry.created + 1, false).gone().await.is_err() {
            time::sleep(self.servers.longest_delay()).await;
        }
    }

    async fn leave(&self, session: &Session, claim: &Claim, entry: Option<&Entry>) -> Result<Released> {
        let owner = claim.owner();
        if let Some(Entry { name, copies: Effect::None, is_left, .. }) = entry
            && !is_left.swap(true, Ordering::Relaxed)
        {
            return self.leave_first(name, session).await;
        }
        let reply = match entry {
            Some(Entry { name, created, copies: Effect::None, .. }) => {
                self.ask(|| requests::leave(name, *created)).await
            }
            _ => {
                let name = entry.map(|entry| entry.name.clone()).or_else(|| session.names.entering(owner));
                let name = name.unwrap_or_else(|| names::entry(&self.prefix.queue(claim.key()), owner));
                let spares_copies = self.slots.are_there();
                let leave = || requests::leave_and_fence(&name, &session.fence, session.lease, spares_copies);
                let fenced = self.ask(leave).await;
                if !spares_copies && fenced.result.as_ref().is_err_and(Failure::is_out_of_space) {
                    // What is there goes at once; the fence is set when there is space for it.
                    self.ask(|| requests::delete(&name)).await.into_result()?;
                }
                fenced
            }
        };
        if reply.result.as_ref().is_err_and(Failure::is_end_of_lease) {
            return Ok(Released::NotOwner);
        }
        let effect = reply.effect;
        let left = requests::left(&reply.into_result()?);
        session.names.settled(owner);
        match (left, effect) {
            (true, _) => Ok(Released::Freed),
            (false, Effect::None) => Ok(Released::NotOwner),
            (false, Effect::Possible) if entry.is_none() => Ok(Released::NotOwner),
            (false, Effect::Possible) => Err(unknown_release()),
        }
    }

    async fn verify(&self, _: &Session, entry: &Entry) -> Result<bool> {
        let reply = self.ask(|| requests::verify(&entry.name, entry.created)).await;
        Ok(reply.into_result()?.succeeded())
    }
}

/// Makes the failure of a look that follows an entry that was made.
fn entered(error: Error) -> Error {
    let message = "an entry was made, and then could not be looked at";
    Error::new(error.kind(), message).with_source(error)
}

fn unknown_release() -> Error {
    let message = "an answer was lost during the release: the key is given back, but whether it was held until then is \
                   not known";
    Error::new(ErrorKind::Unavailable, message)
}

fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}

pub(crate) fn token(create_revision: i64) -> FencingToken {
    FencingToken::new(u64::try_from(create_revision).expect("revisions count up from 1"))
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore").finish_non_exhaustive()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("lease", &self.lease).finish_non_exhaustive()
    }
}
