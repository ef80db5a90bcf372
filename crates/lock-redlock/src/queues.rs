//! The places of waiters in the queues of the servers; what the queues are is told in `queue.lua`.

use std::collections::HashMap;

use lock_core::backend::OwnerId;
use lock_redis::{HandOn, Names};
use parking_lot::Mutex;

use crate::{
    names::of_queue,
    requests::{HAND_ON, Request},
    servers::Servers,
};

/// The tickets of the claims that wait here, and whether they are told when they are next.
#[derive(Default)]
pub(crate) struct Tickets(Mutex<HashMap<OwnerId, (u64, bool)>>);

impl Tickets {
    /// Returns the ticket of a claim, none if it never stood in a queue.
    pub(crate) fn of(&self, claim: OwnerId) -> Option<(u64, bool)> {
        self.0.lock().get(&claim).copied()
    }

    /// Gives a claim this ticket, unless it has one; returns which it has.
    pub(crate) fn keep(&self, claim: OwnerId, ticket: u64, is_told: bool) -> u64 {
        self.0.lock().entry(claim).or_insert((ticket, is_told)).0
    }

    /// The claim waits no more.
    pub(crate) fn drop(&self, claim: OwnerId) {
        self.0.lock().remove(&claim);
    }
}

impl HandOn for Servers {
    async fn hand_on(&self, names: &Names) -> bool {
        let request = Request { script: &HAND_ON, keys: of_queue(names), arguments: Vec::new() };
        self.majority_of(self.ask(request), |answer| Some(answer.value), drop).await.unwrap_or(false)
    }
}
