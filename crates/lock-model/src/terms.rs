//! Sessions and leases that servers come to keep for less than they told (T).
//!
//! `A` holds by virtue of a session, and `B` has the key as soon as the servers end that session.

mod etcd;
mod zookeeper;

use crate::catalogue::Entry;

pub(crate) fn entries() -> Vec<Entry> {
    [etcd::entries(), zookeeper::entries()].into_iter().flatten().collect()
}

/// What the servers know of a session.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Session {
    /// For how long it is kept without a word of its client, and for how long still.
    term: u8,
    left: u8,
}

impl Session {
    fn of(term: u8) -> Self {
        Self { term, left: term }
    }

    /// None when it has ended.
    fn after_a_tick(self) -> Option<Self> {
        Some(Self { left: self.left - 1, ..self }).filter(|session| session.left > 0)
    }
}

/// How a tick is told.
fn tick(before: Option<Session>) -> String {
    let ends = before.is_some_and(|session| session.left == 1);
    if ends { "time passes: the servers end A's session, and B has the key" } else { "time passes" }
        .to_owned()
}
