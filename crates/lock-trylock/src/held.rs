//! The backend: shards of the keys that are held.

use std::{array, fmt, hash::BuildHasher, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};
use lock_core::{
    Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Result, Scope, TokenOrder, Waiting,
    backend::{Backend, InProcessHold},
};
use parking_lot::Mutex;

const SHARDS: usize = 64;

/// The backend of a [`TryLocker`](crate::TryLocker).
pub struct TryBackend {
    hasher: DefaultHashBuilder,
    // Each shard is counted by itself: guards would fight for a count on the whole.
    shards: [Arc<Mutex<Shard>>; SHARDS],
}

#[derive(Default)]
struct Shard {
    held: HashTable<Held>,
    last_token: u64,
    closed: bool,
}

struct Held {
    hash: u64,
    key: Key,
}

impl TryBackend {
    pub(crate) fn keys_in_use(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().held.len()).sum()
    }

    pub(crate) fn try_now(&self, key: Key) -> Result<Option<LockGuard>> {
        let hash = self.hasher.hash_one(&key);
        // The table takes the lowest bits and the highest seven.
        let shard = &self.shards[(hash >> 40) as usize % SHARDS];
        let acquired = shard.lock().acquire(hash, &key)?;
        let hold = |token| Arc::new(TryHold { shard: Arc::clone(shard), hash, key, token });
        Ok(acquired.map(|token| LockGuard::new(hold(token))))
    }
}

impl Default for TryBackend {
    fn default() -> Self {
        Self { hasher: DefaultHashBuilder::default(), shards: array::from_fn(|_| Arc::default()) }
    }
}

impl fmt::Debug for TryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryBackend").field("keys_in_use", &self.keys_in_use()).finish_non_exhaustive()
    }
}

impl Backend for TryBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Process, Waiting::Never, TokenOrder::Locker)
    }

    async fn try_lock(&self, key: Key) -> Result<Option<LockGuard>> {
        self.try_now(key)
    }

    async fn close(&self) {
        for shard in &self.shards {
            shard.lock().closed = true;
        }
    }
}

impl Shard {
    /// Tables up to this size are kept when they are empty, so that a busy key does not allocate.
    const KEPT_BUCKETS: usize = 16;

    fn acquire(&mut self, hash: u64, key: &Key) -> Result<Option<FencingToken>> {
        if self.closed {
            return Err(Error::new(ErrorKind::Closed, "the locker was closed").without_effect());
        }
        let Entry::Vacant(vacant) = self.held.entry(hash, |held| held.key == *key, |held| held.hash) else {
            return Ok(None);
        };
        vacant.insert(Held { hash, key: key.clone() });
        self.last_token += 1;
        Ok(Some(FencingToken::new(self.last_token)))
    }

    fn release(&mut self, hash: u64, key: &Key) {
        let held = self.held.find_entry(hash, |held| held.key == *key).ok();
        held.expect("only its one hold releases a key").remove();

        let buckets = self.held.num_buckets();
        if buckets > Self::KEPT_BUCKETS && self.held.len() < buckets / 8 {
            self.held.shrink_to(2 * self.held.len(), |held| held.hash);
        }
    }
}

/// Dropping it releases the key.
struct TryHold {
    shard: Arc<Mutex<Shard>>,
    hash: u64,
    key: Key,
    token: FencingToken,
}

impl Drop for TryHold {
    fn drop(&mut self) {
        self.shard.lock().release(self.hash, &self.key);
    }
}

impl InProcessHold for TryHold {
    fn key(&self) -> &Key {
        &self.key
    }

    fn fencing_token(&self) -> FencingToken {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back() {
        let locks = TryBackend::default();
        let acquire = |n| locks.try_now(Key::new(&format!("orders/{n}")).unwrap()).unwrap().unwrap();
        let guards: Vec<_> = (0..100_000).map(acquire).collect();
        assert_eq!(locks.keys_in_use(), guards.len());
        drop(guards);
        for shard in &locks.shards {
            let shard = shard.lock();
            assert!(shard.held.is_empty());
            assert!(shard.held.num_buckets() <= Shard::KEPT_BUCKETS);
        }
    }
}
