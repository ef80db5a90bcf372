//! Which names of entries may be used again.
//!
//! etcd keeps each name that ever was until its history is compacted, and whoever looks at a queue passes over all
//! that were in it. So a session uses names again: those of entries that the first request to delete them certainly
//! took away, so that no request that names them is under way.

use std::collections::HashMap;

use lock_core::backend::OwnerId;
use parking_lot::Mutex;

use crate::names::{self, queue_of};

/// The names of the entries of one session.
#[derive(Default)]
pub(crate) struct Names(Mutex<State>);

#[derive(Default)]
struct State {
    /// Those to be used again.
    free: Vec<String>,
    /// Those of claims of which it is not known whether they have an entry.
    entering: HashMap<OwnerId, String>,
}

impl Names {
    /// How many are looked through for one of the same queue.
    const MOST_LOOKED_AT: usize = 128;

    /// Returns a name for the entry of the claim `owner` in `queue`.
    pub(crate) fn take(&self, queue: &str, owner: OwnerId) -> String {
        let State { free, entering } = &mut *self.0.lock();
        let recent = free.len().saturating_sub(Self::MOST_LOOKED_AT);
        let name = match free[recent..].iter().rposition(|name| queue_of(name) == queue) {
            Some(found) => free.swap_remove(recent + found),
            None => free.pop().map_or_else(
                || names::entry(queue, owner),
                |other| format!("{queue}{}", &other[queue_of(&other).len()..]),
            ),
        };
        entering.insert(owner, name.clone());
        name
    }

    /// Returns the name that was taken for the claim `owner`, unless that was settled.
    pub(crate) fn entering(&self, owner: OwnerId) -> Option<String> {
        self.0.lock().entering.get(&owner).cloned()
    }

    /// Forgets the claim `owner`: its entry is known, or it has none and never will.
    pub(crate) fn settled(&self, owner: OwnerId) {
        self.0.lock().entering.remove(&owner);
    }

    /// Has `name` used again.
    pub(crate) fn give_back(&self, name: String) {
        self.0.lock().free.push(name);
    }
}
