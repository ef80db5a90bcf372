//! A server of sessions and queues, which takes requests in their order and tells who asks when an entry is gone.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::Arc,
    time::Duration,
};

use lock_conformance::Data;
use lock_core::{
    Error, ErrorKind, Key, Result,
    backend::{BootInstant, OwnerId},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    task, time,
};

#[derive(Clone, Default)]
pub(crate) struct QueueServer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Rings after every request.
    changed: Notify,
}

#[derive(Default)]
struct State {
    table: Table,
    frozen: bool,
    inbox: Vec<Request>,
}

type Request = Box<dyn FnOnce(&mut Table) + Send>;

#[derive(Default)]
pub(crate) struct Table {
    sessions: HashMap<u64, BootInstant>,
    queues: HashMap<Key, BTreeMap<u64, Entry>>,
    last_number: u64,
}

struct Entry {
    owner: OwnerId,
    session: u64,
}

impl QueueServer {
    /// Sends a request and awaits the answer. Dropped after its first await, the request is executed all the same.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut Table) -> T + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        task::yield_now().await;
        let request: Request = Box::new(move |table: &mut Table| drop(reply.send(request(table))));
        {
            let mut state = self.0.state.lock();
            if state.frozen {
                state.inbox.push(request);
            } else {
                request(&mut state.table);
            }
        }
        self.0.changed.notify_waiters();
        task::yield_now().await;
        answer.await.map_err(|_| Error::new(ErrorKind::Unavailable, "the server was restarted"))
    }

    /// Looks past the network, as only a test can.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&mut Table) -> T) -> T {
        let seen = at(&mut self.0.state.lock().table);
        self.0.changed.notify_waiters();
        seen
    }

    /// Waits until entry `number` of `key` is gone.
    pub(crate) async fn gone(&self, key: &Key, number: u64) {
        loop {
            let changed = self.0.changed.notified();
            let ends = {
                let state = self.0.state.lock();
                if state.frozen { Some(BootInstant::NEVER) } else { state.table.end_of(key, number) }
            };
            let Some(ends) = ends else { return };
            let left = ends.since(BootInstant::now()).min(Duration::from_secs(3600));
            tokio::select! {
                () = changed => {}
                // why: the session of the entry may end
                () = time::sleep(left) => {}
            }
        }
    }

    pub(crate) fn pause(&self) {
        self.0.state.lock().frozen = true;
    }

    pub(crate) fn resume(&self) {
        let mut state = self.0.state.lock();
        state.frozen = false;
        for request in mem::take(&mut state.inbox) {
            request(&mut state.table);
        }
        drop(state);
        self.0.changed.notify_waiters();
    }

    pub(crate) fn restart(&self, data: Data) {
        let mut state = self.0.state.lock();
        state.frozen = false;
        state.inbox.clear();
        if data == Data::Erased {
            state.table.sessions.clear();
            state.table.queues.clear();
        }
        drop(state);
        self.0.changed.notify_waiters();
    }
}

impl Table {
    pub(crate) fn open(&mut self, ttl: Duration) -> u64 {
        self.last_number += 1;
        self.sessions.insert(self.last_number, BootInstant::now().after(ttl));
        self.last_number
    }

    pub(crate) fn keep_alive(&mut self, session: u64, ttl: Duration) -> bool {
        let lives = self.lives(session);
        if lives {
            self.sessions.insert(session, BootInstant::now().after(ttl));
        }
        lives
    }

    pub(crate) fn close(&mut self, session: u64) {
        self.sessions.remove(&session);
    }

    pub(crate) fn sessions(&self) -> usize {
        self.sessions.keys().filter(|session| self.lives(**session)).count()
    }

    pub(crate) fn lives(&self, session: u64) -> bool {
        self.sessions.get(&session).is_some_and(|ends| *ends > BootInstant::now())
    }

    /// Makes an entry at the end, or finds the one that an earlier copy of the request made.
    pub(crate) fn enter(&mut self, key: &Key, owner: OwnerId, session: u64) -> u64 {
        if let Some(number) = self.find(key, owner) {
            return number;
        }
        self.last_number += 1;
        self.queues.entry(key.clone()).or_default().insert(self.last_number, Entry { owner, session });
        self.last_number
    }

    /// Deletes the entry of `owner`, and tells whether there was one.
    pub(crate) fn leave(&mut self, key: &Key, owner: OwnerId) -> bool {
        let found = self.find(key, owner);
        found.is_some_and(|number| self.delete(key, number))
    }

    /// The numbers of the entries whose sessions live, first come first.
    pub(crate) fn queue(&self, key: &Key) -> Vec<u64> {
        let entries = self.queues.get(key).into_iter().flatten();
        entries.filter(|(_, entry)| self.lives(entry.session)).map(|(number, _)| *number).collect()
    }

    pub(crate) fn forget_first(&mut self, key: &Key) {
        if let Some(first) = self.queue(key).first() {
            self.delete(key, *first);
        }
    }

    fn delete(&mut self, key: &Key, number: u64) -> bool {
        let lived = self.end_of(key, number).is_some();
        if let Some(queue) = self.queues.get_mut(key) {
            queue.remove(&number);
        }
        lived
    }

    fn find(&self, key: &Key, owner: OwnerId) -> Option<u64> {
        let queue = self.queues.get(key)?;
        queue.iter().find(|(_, entry)| entry.owner == owner).map(|(number, _)| *number)
    }

    /// When an entry goes with its session unless that is renewed; `None` if it is gone.
    fn end_of(&self, key: &Key, number: u64) -> Option<BootInstant> {
        let entry = self.queues.get(key)?.get(&number)?;
        self.sessions.get(&entry.session).copied().filter(|ends| *ends > BootInstant::now())
    }
}
