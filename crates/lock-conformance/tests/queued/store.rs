//! A client of the server, as lock-core wants it.

use std::time::Duration;

use lock_core::{
    FencingToken, Key, Result,
    backend::{Claim, Effect, Entered, Position, Predecessor, QueueStore, Released, Renewal},
};

use crate::server::{QueueServer, Table};

pub(crate) struct MemoryQueues {
    server: QueueServer,
    ttl: Duration,
}

pub(crate) struct Entry {
    key: Key,
    number: u64,
}

impl MemoryQueues {
    pub(crate) fn new(server: &QueueServer, ttl: Duration) -> Self {
        Self { server: server.clone(), ttl }
    }
}

impl QueueStore for MemoryQueues {
    type Session = u64;
    type Entry = Entry;

    async fn open(&self) -> Result<(u64, Duration)> {
        let ttl = self.ttl;
        Ok((self.server.call(move |table| table.open(ttl)).await?, ttl))
    }

    async fn keep_alive(&self, session: &u64) -> Result<Renewal> {
        let (session, ttl) = (*session, self.ttl);
        let lives = self.server.call(move |table| table.keep_alive(session, ttl)).await?;
        Ok(if lives { Renewal::Extended(ttl) } else { Renewal::NotOwner })
    }

    async fn close(&self, session: &u64) {
        let session = *session;
        let _ = self.server.call(move |table| table.close(session)).await;
    }

    async fn enter(&self, session: &u64, claim: &Claim) -> Result<Entered<Entry>> {
        let (key, owner, session, waits) = (claim.key().clone(), claim.owner(), *session, claim.waits());
        let entered = self.server.call(move |table| {
            if !table.lives(session) {
                return Entered::SessionOver;
            }
            if !waits && !table.queue(&key).is_empty() {
                return Entered::Busy(Effect::None);
            }
            let number = table.enter(&key, owner, session);
            let position = position(table, &key, number);
            Entered::Queued { entry: Entry { key, number }, token: FencingToken::new(number), position }
        });
        entered.await
    }

    async fn advance(&self, _: &u64, entry: &Entry, predecessor: &Predecessor) -> Result<Position> {
        let before = predecessor.name.parse().expect("a predecessor is named by its number");
        self.server.gone(&entry.key, before).await;
        let (key, number) = (entry.key.clone(), entry.number);
        self.server.call(move |table| position(table, &key, number)).await
    }

    async fn gone(&self, _: &u64, entry: &Entry) {
        self.server.gone(&entry.key, entry.number).await;
    }

    async fn leave(&self, _: &u64, claim: &Claim, _: Option<&Entry>) -> Result<Released> {
        // The server takes the requests of one client in the order in which they were sent.
        let (key, owner) = (claim.key().clone(), claim.owner());
        let left = self.server.call(move |table| table.leave(&key, owner)).await?;
        Ok(if left { Released::Freed } else { Released::NotOwner })
    }

    async fn verify(&self, _: &u64, entry: &Entry) -> Result<bool> {
        let (key, number) = (entry.key.clone(), entry.number);
        self.server.call(move |table| table.queue(&key).contains(&number)).await
    }
}

fn position(table: &Table, key: &Key, number: u64) -> Position {
    let queue = table.queue(key);
    match queue.iter().position(|other| *other == number) {
        None => Position::Gone,
        Some(0) => Position::First,
        Some(place) => {
            Position::Behind(Predecessor { name: queue[place - 1].to_string(), is_first: place == 1 })
        }
    }
}
