//! The queues of all keys of one shard.

use std::{
    collections::BTreeMap,
    mem,
    task::{Poll, Waker},
};

use hashbrown::HashTable;
use lock_core::{Error, ErrorKind, FencingToken, Key, Result};

/// Who holds and who awaits each key. A key that nobody holds or awaits has no queue.
///
/// No method clones, wakes or drops a waker. All three run foreign code, which may well drop a guard of this very
/// shard, so they are left to the caller, who does them while the shard is unlocked.
#[derive(Default)]
pub(crate) struct Queues {
    // Most shards have one queue at most, which is several times faster to make and to remove outside the table.
    single: Option<Queue>,
    others: HashTable<Queue>,
    last_token: u64,
    closed: bool,
}

/// A holder, who is not written down, and those who wait behind it.
struct Queue {
    hash: u64,
    founder: FencingToken,
    key: Key,
    // Most queues never have any, and none is quicker to drop than an empty map.
    waiters: Option<BTreeMap<FencingToken, Waker>>,
}

/// A place in a queue. It holds the key or waits for it.
///
/// Tokens are given out on arrival, and the key is granted in their order. So one number is enough for the place and
/// for the fencing token of the hold that it leads to.
pub(crate) struct Ticket {
    hash: u64,
    /// The token of whoever found the key free and made the queue. It tells the queue from all others of the shard,
    /// and is quicker to compare than the key.
    founder: FencingToken,
    token: FencingToken,
}

/// What became of a key when someone left its queue.
pub(crate) enum Left {
    /// The holder left; the key is free.
    Free,
    /// The holder left; the key went to the waiter that this waker wakes.
    PassedTo(Waker),
    /// A waiter left. This was its waker.
    Waiter(Waker),
}

impl Ticket {
    /// The ticket of one that found the key free.
    pub(crate) fn of_founder(hash: u64, token: FencingToken) -> Self {
        Self { hash, founder: token, token }
    }

    pub(crate) fn token(&self) -> FencingToken {
        self.token
    }

    fn is_for(&self, queue: &Queue) -> bool {
        self.founder == queue.founder
    }
}

impl Queues {
    /// A table up to this size is kept when it is empty.
    const KEPT_BUCKETS: usize = 16;

    /// How many keys are held or awaited.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.single.is_some()) + self.others.len()
    }

    /// Refuses newcomers from now on; those who are in a queue stay.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Takes `key` if it is free.
    pub(crate) fn try_acquire(&mut self, hash: u64, key: &Key) -> Result<Option<FencingToken>> {
        if self.closed {
            return Err(closed());
        }
        if self.find(hash, |queue| queue.key == *key).is_some() {
            return Ok(None);
        }
        let token = self.next_token();
        let queue = Queue { hash, founder: token, key: key.clone(), waiters: None };
        if self.single.is_none() {
            self.single = Some(queue);
        } else {
            self.others.insert_unique(hash, queue, |queue| queue.hash);
        }
        Ok(Some(token))
    }

    /// Takes the last place in the queue for `key`, which another holds.
    pub(crate) fn enqueue(&mut self, hash: u64, key: &Key, waker: Waker) -> Ticket {
        let token = self.next_token();
        let queue = self.find(hash, |queue| queue.key == *key).expect("a key that is held has a queue");
        queue.waiters.get_or_insert_default().insert(token, waker);
        Ticket { hash, founder: queue.founder, token }
    }

    /// Whether `ticket` holds the key by now. If not, `waker` will be woken once it does; the waker that was to be
    /// woken until now is swapped out.
    pub(crate) fn poll_turn(&mut self, ticket: &Ticket, waker: &mut Waker) -> Poll<()> {
        let waiters = self.queue(ticket).waiters.as_mut();
        match waiters.and_then(|waiters| waiters.get_mut(&ticket.token)) {
            None => Poll::Ready(()),
            Some(current) => {
                mem::swap(current, waker);
                Poll::Pending
            }
        }
    }

    /// Leaves the queue. After a holder the first waiter holds the key at once, so that no newcomer comes before it.
    pub(crate) fn leave(&mut self, ticket: &Ticket) -> Left {
        if let Some(waiters) = &mut self.queue(ticket).waiters {
            if let Some(waker) = waiters.remove(&ticket.token) {
                return Left::Waiter(waker);
            }
            if let Some((_, waker)) = waiters.pop_first() {
                return Left::PassedTo(waker);
            }
        }
        self.remove(ticket);
        Left::Free
    }

    fn next_token(&mut self) -> FencingToken {
        self.last_token += 1;
        FencingToken::new(self.last_token)
    }

    fn find(&mut self, hash: u64, mut is_it: impl FnMut(&Queue) -> bool) -> Option<&mut Queue> {
        match &mut self.single {
            Some(queue) if queue.hash == hash && is_it(queue) => Some(queue),
            _ if self.others.is_empty() => None,
            _ => self.others.find_mut(hash, is_it),
        }
    }

    fn queue(&mut self, ticket: &Ticket) -> &mut Queue {
        self.find(ticket.hash, |queue| ticket.is_for(queue))
            .expect("a queue is there as long as someone is in it")
    }

    fn remove(&mut self, ticket: &Ticket) {
        if self.single.as_ref().is_some_and(|queue| ticket.is_for(queue)) {
            self.single = None;
        } else if let Ok(entry) = self.others.find_entry(ticket.hash, |queue| ticket.is_for(queue)) {
            entry.remove();
            self.give_memory_back();
        }
    }

    /// Shrinks the table if it is nearly empty. It shrinks to twice what is needed, and not before seven eighths are
    /// unused, so that the moves are paid for by the removals before them.
    fn give_memory_back(&mut self) {
        let buckets = self.others.num_buckets();
        if buckets > Self::KEPT_BUCKETS && self.others.len() < buckets / 8 {
            self.others.shrink_to(2 * self.others.len(), |queue| queue.hash);
        }
    }
}

#[cold]
fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the locker was closed").without_effect()
}

#[cfg(all(test, not(lock_local_loom)))]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back() {
        let mut queues = Queues::default();
        let tickets: Vec<_> = (0..100_000_u64)
            .map(|n| {
                let key = Key::new(&n.to_string()).unwrap();
                let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                Ticket::of_founder(hash, queues.try_acquire(hash, &key).unwrap().unwrap())
            })
            .collect();
        assert!(queues.others.num_buckets() >= 99_999);

        for ticket in tickets {
            assert!(matches!(queues.leave(&ticket), Left::Free));
            let buckets = queues.others.num_buckets();
            let allowed = Queues::KEPT_BUCKETS.max(16 * queues.len());
            assert!(buckets <= allowed, "{buckets} buckets for {} queues", queues.len());
        }
        assert_eq!(queues.len(), 0);
    }

    #[test]
    fn equal_hashes_do_not_mix_keys_up() {
        const HASH: u64 = 42;
        let keys: Vec<_> = (0..100).map(|n| Key::new(&format!("orders/{n}")).unwrap()).collect();
        let mut queues = Queues::default();
        let acquire = |key| Ticket::of_founder(HASH, queues.try_acquire(HASH, key).unwrap().unwrap());
        let tickets: Vec<_> = keys.iter().map(acquire).collect();
        for (n, ticket) in tickets.into_iter().enumerate() {
            queues.leave(&ticket);
            for (other, key) in keys.iter().enumerate() {
                let busy = queues.find(HASH, |queue| queue.key == *key).is_some();
                assert_eq!(busy, other > n);
            }
        }
    }
}
