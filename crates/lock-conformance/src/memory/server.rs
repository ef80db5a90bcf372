//! The server: records with an end, one counter for tokens, and bells for those who wait.

use std::{
    collections::HashMap,
    fmt, mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lock_core::{
    Error, ErrorKind, FencingToken, Key, Result,
    backend::{AcquireReply, BootInstant, Effect, ReleaseListener, Released, Renewal},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, futures::OwnedNotified, oneshot},
    task,
};

use crate::Data;

/// A server that grants leases. Clones are the same server.
#[derive(Clone, Default)]
pub struct MemoryServer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    clients: AtomicUsize,
}

#[derive(Default)]
struct State {
    table: Table,
    frozen: bool,
    /// Requests that came while the server was frozen.
    inbox: Vec<Request>,
}

type Request = Box<dyn FnOnce(&mut Table) + Send>;

/// What a server knows. A request is a function of it.
#[derive(Default)]
pub struct Table {
    records: HashMap<Key, Record>,
    bells: HashMap<Key, (Arc<Notify>, usize)>,
    last_token: u64,
}

struct Record {
    owner: String,
    token: FencingToken,
    ends: BootInstant,
}

impl MemoryServer {
    /// Sends a request and awaits the answer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]: the server was restarted before it came to the request.
    ///
    /// # Cancel safety
    ///
    /// Dropped at its first await, nothing was sent. Dropped later, the server acts all the same.
    pub async fn call<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut Table) -> T + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        // A network has a moment before the request has left, and one before the reply has come.
        task::yield_now().await;
        self.post(Box::new(move |table| {
            let _ = reply.send(request(table));
        }));
        task::yield_now().await;
        answer.await.map_err(|_| Error::new(ErrorKind::Unavailable, "the server was restarted"))
    }

    fn post(&self, request: Request) {
        let mut state = self.0.state.lock();
        if state.frozen {
            state.inbox.push(request);
        } else {
            request(&mut state.table);
        }
    }

    /// Takes requests from now on, but neither acts on them nor answers.
    pub fn pause(&self) {
        self.0.state.lock().frozen = true;
    }

    /// Goes on, with the requests that have come meanwhile.
    pub fn resume(&self) {
        let mut state = self.0.state.lock();
        state.frozen = false;
        for request in mem::take(&mut state.inbox) {
            request(&mut state.table);
        }
    }

    /// Forgets all requests that it has not come to, and the data if they are to be erased.
    pub fn restart(&self, data: Data) {
        let mut state = self.0.state.lock();
        state.frozen = false;
        state.inbox.clear();
        if data == Data::Erased {
            state.table.records.clear();
            state.table.last_token = 0;
        }
    }

    /// Deletes the record of `key`, whoever holds it.
    pub fn forget(&self, key: &Key) {
        self.0.state.lock().table.forget(key);
    }

    /// Returns the records and the subscriptions for `key`.
    #[must_use]
    pub fn traces(&self, key: &Key) -> usize {
        let table = &self.0.state.lock().table;
        let waiters = table.bells.get(key).map_or(0, |(_, waiters)| *waiters);
        usize::from(table.is_held(key)) + waiters
    }

    /// Returns how many clients there are.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.0.clients.load(Ordering::SeqCst)
    }

    pub(super) fn connect(&self) -> Connection {
        self.0.clients.fetch_add(1, Ordering::SeqCst);
        Connection(self.clone())
    }

    /// Asks to be told of releases of `key`, as long as the value lives.
    #[must_use]
    pub fn subscribe(&self, key: &Key) -> Subscription {
        let mut state = self.0.state.lock();
        let (bell, waiters) = state.table.bells.entry(key.clone()).or_default();
        *waiters += 1;
        Subscription { server: self.clone(), key: key.clone(), bell: Arc::clone(bell), listening: None }
    }
}

impl fmt::Debug for MemoryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryServer").field("clients", &self.clients()).finish_non_exhaustive()
    }
}

impl Table {
    fn holder(&self, key: &Key) -> Option<&Record> {
        self.records.get(key).filter(|record| record.ends > BootInstant::now())
    }

    fn held_by(&mut self, key: &Key, owner: &str) -> Option<&mut Record> {
        self.holder(key)?;
        self.records.get_mut(key).filter(|record| record.owner == owner)
    }

    /// Makes `owner` the holder of `key` if nobody is, or if it is already.
    pub fn acquire(&mut self, key: &Key, owner: &str, ttl: Duration) -> AcquireReply {
        let now = BootInstant::now();
        if let Some(record) = self.held_by(key, owner) {
            record.ends = now.after(ttl);
            return AcquireReply::Granted { token: record.token, ttl };
        }
        if let Some(record) = self.holder(key) {
            return AcquireReply::Busy { free_in: record.ends.since(now), effect: Effect::None };
        }
        // The clock is the floor, so that the order outlives the loss of the counter.
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros());
        self.last_token = (self.last_token + 1).max(u64::try_from(micros).unwrap_or(0));
        let token = FencingToken::new(self.last_token);
        self.records.insert(key.clone(), Record { owner: owner.to_owned(), token, ends: now.after(ttl) });
        AcquireReply::Granted { token, ttl }
    }

    /// Sets the lease back to its full TTL if `owner` holds `key`.
    pub fn renew(&mut self, key: &Key, owner: &str, ttl: Duration) -> Renewal {
        match self.held_by(key, owner) {
            None => Renewal::NotOwner,
            Some(record) => {
                record.ends = BootInstant::now().after(ttl);
                Renewal::Extended(ttl)
            }
        }
    }

    /// Frees `key` if `owner` holds it.
    pub fn release(&mut self, key: &Key, owner: &str) -> Released {
        if !self.holds(key, owner) {
            return Released::NotOwner;
        }
        self.records.remove(key);
        self.ring(key);
        Released::Freed
    }

    /// Returns whether anybody holds `key`.
    #[must_use]
    pub fn is_held(&self, key: &Key) -> bool {
        self.holder(key).is_some()
    }

    /// Returns whether `owner` holds `key`.
    #[must_use]
    pub fn holds(&mut self, key: &Key, owner: &str) -> bool {
        self.held_by(key, owner).is_some()
    }

    /// Deletes the record of `key`, whoever holds it.
    pub fn forget(&mut self, key: &Key) {
        self.records.remove(key);
    }

    fn ring(&self, key: &Key) {
        if let Some((bell, _)) = self.bells.get(key) {
            bell.notify_waiters();
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("records", &self.records.len()).finish_non_exhaustive()
    }
}

/// One client's connection, which counts as long as it lives.
#[derive(Debug)]
pub(super) struct Connection(MemoryServer);

impl Connection {
    pub(super) fn server(&self) -> &MemoryServer {
        &self.0
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.0.clients.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The wish to be told of releases of a key.
#[derive(Debug)]
pub struct Subscription {
    server: MemoryServer,
    key: Key,
    bell: Arc<Notify>,
    listening: Option<Pin<Box<OwnedNotified>>>,
}

impl ReleaseListener for Subscription {
    async fn listen(&mut self) -> Result<()> {
        self.listening.get_or_insert_with(|| Box::pin(Arc::clone(&self.bell).notified_owned()));
        Ok(())
    }

    async fn released(&mut self) {
        if let Some(rung) = &mut self.listening {
            rung.await;
            self.listening = None;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let bells = &mut self.server.0.state.lock().table.bells;
        let (_, waiters) = bells.get_mut(&self.key).expect("each subscription has counted itself");
        *waiters -= 1;
        if *waiters == 0 {
            bells.remove(&self.key);
        }
    }
}
