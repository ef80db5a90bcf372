//! The backend: shards of queues, and a place in one of them.

use std::{
    array, fmt,
    hash::{BuildHasher, Hasher},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hashbrown::DefaultHashBuilder;
use lock_core::{
    Capabilities, FencingToken, Key, LockGuard, Result, Scope, TokenOrder, Waiting,
    backend::{Backend, InProcessHold, WaitingBackend},
};

use crate::{
    queues::{Left, Queues, Ticket},
    sync::Mutex,
};

// Loom makes every mutex anew for every interleaving that it looks at.
const SHARDS: usize = if cfg!(lock_local_loom) { 1 } else { 64 };

/// The backend of a [`LocalLocker`](crate::LocalLocker).
pub struct LocalBackend {
    hasher: DefaultHashBuilder,
    // Every guard keeps its shard alive, not the whole: all processors would fight for the one reference count.
    shards: [Arc<Shard>; SHARDS],
}

type Shard = Mutex<Queues>;

impl LocalBackend {
    /// How many keys are held or awaited.
    pub(crate) fn keys_in_use(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    pub(crate) fn try_now(&self, key: Key) -> Result<Option<LockGuard>> {
        let (hash, shard) = self.shard(&key);
        let acquired = shard.lock().try_acquire(hash, &key)?;
        let guard = |token| LockGuard::new(Place::new(shard, key, Ticket::of_founder(hash, token)));
        Ok(acquired.map(guard))
    }

    fn shard(&self, key: &Key) -> (u64, &Arc<Shard>) {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key.as_str().as_bytes());
        let hash = hasher.finish();
        // The table takes the lowest bits and the highest seven.
        (hash, &self.shards[(hash >> 40) as usize & (SHARDS - 1)])
    }
}

impl Default for LocalBackend {
    fn default() -> Self {
        let shards = array::from_fn(|_| Arc::new(Mutex::new(Queues::default())));
        Self { hasher: DefaultHashBuilder::default(), shards }
    }
}

impl fmt::Debug for LocalBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBackend").field("keys_in_use", &self.keys_in_use()).finish_non_exhaustive()
    }
}

impl Backend for LocalBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Process, Waiting::Fifo, TokenOrder::Locker)
    }

    async fn try_lock(&self, key: Key) -> Result<Option<LockGuard>> {
        self.try_now(key)
    }

    async fn close(&self) {
        for shard in &self.shards {
            shard.lock().close();
        }
    }
}

impl WaitingBackend for LocalBackend {
    fn lock(&self, key: Key) -> impl Future<Output = Result<LockGuard>> {
        Acquire { local: self, key, waits: None }
    }
}

/// A request for a key.
struct Acquire<'a> {
    local: &'a LocalBackend,
    key: Key,
    waits: Option<Arc<Place>>,
}

impl Future for Acquire<'_> {
    type Output = Result<LockGuard>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(place) = &self.waits {
            ready!(place.poll_turn(context));
        }
        if let Some(place) = self.waits.take() {
            return Poll::Ready(Ok(LockGuard::new(place)));
        }
        let (hash, shard) = self.local.shard(&self.key);
        let mut acquired = shard.lock().try_acquire(hash, &self.key)?;
        if acquired.is_none() {
            // Cloned while the shard is unlocked: see `Queues`. The key may have been freed meanwhile.
            let waker = context.waker().clone();
            let mut queues = shard.lock();
            acquired = queues.try_acquire(hash, &self.key)?;
            if acquired.is_none() {
                let ticket = queues.enqueue(hash, &self.key, waker);
                drop(queues);
                self.waits = Some(Place::new(shard, self.key.clone(), ticket));
                return Poll::Pending;
            }
        }
        let ticket = Ticket::of_founder(hash, acquired.expect("whoever has none waits"));
        Poll::Ready(Ok(LockGuard::new(Place::new(shard, self.key.clone(), ticket))))
    }
}

/// A place in the queue of a key: a wait that becomes a hold, or a hold from the start. It has one owner at a time,
/// the request and then the guard.
///
/// Dropping it leaves the queue, whichever it is by then. So a request that is cancelled just when the key was passed
/// to it passes it on.
struct Place {
    shard: Arc<Shard>,
    key: Key,
    ticket: Ticket,
}

impl Place {
    fn new(shard: &Arc<Shard>, key: Key, ticket: Ticket) -> Arc<Self> {
        Arc::new(Self { shard: Arc::clone(shard), key, ticket })
    }

    fn poll_turn(&self, context: &Context<'_>) -> Poll<()> {
        // Cloned before the shard is locked, and what is swapped for it is dropped after: see `Queues`.
        let mut waker = context.waker().clone();
        self.shard.lock().poll_turn(&self.ticket, &mut waker)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.shard.lock().leave(&self.ticket);
        match left {
            Left::Free => {}
            Left::PassedTo(successor) => successor.wake(),
            Left::Waiter(own) => drop(own),
        }
    }
}

impl InProcessHold for Place {
    fn key(&self) -> &Key {
        &self.key
    }

    fn fencing_token(&self) -> FencingToken {
        self.ticket.token()
    }
}
