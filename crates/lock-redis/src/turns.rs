//! One waiter per key and process contends at the server; the others stand in line behind it.

use std::{collections::HashMap, fmt, sync::Arc};

use lock_core::Key;
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turnstile, OwnedMutexGuard};

/// The lines of waiters. A thousand waiters so cost the server no more than one, and a release wakes one of them.
#[derive(Default)]
pub struct Turns {
    lines: Mutex<HashMap<Key, Arc<Turnstile<()>>>>,
}

/// The right to contend for a key, until it is dropped.
pub struct Turn<'a> {
    _pass: OwnedMutexGuard<()>,
    _place: Place<'a>,
}

struct Place<'a> {
    turns: &'a Turns,
    key: Key,
    turnstile: Option<Arc<Turnstile<()>>>,
}

impl Turns {
    /// Waits until all who came before have had their turn, or given up.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the place in the line is given up.
    pub async fn wait(&self, key: &Key) -> Turn<'_> {
        let turnstile = Arc::clone(self.lines.lock().entry(key.clone()).or_default());
        let place = Place { turns: self, key: key.clone(), turnstile: Some(Arc::clone(&turnstile)) };
        Turn { _pass: turnstile.lock_owned().await, _place: place }
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

impl fmt::Debug for Turn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").finish_non_exhaustive()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut lines = self.turns.lines.lock();
        drop(self.turnstile.take());
        if lines.get(&self.key).is_some_and(|turnstile| Arc::strong_count(turnstile) == 1) {
            lines.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::task;

    use super::*;

    #[tokio::test]
    async fn turns_come_in_order_and_leave_nothing_behind() {
        let turns = Turns::default();
        let key = Key::new("a").unwrap();
        let first = turns.wait(&key).await;
        let mut second = task::spawn(turns.wait(&key));
        let mut given_up = task::spawn(turns.wait(&key));
        assert!(second.poll().is_pending());
        assert!(given_up.poll().is_pending());
        drop(given_up);
        drop(first);
        drop(second.await);
        assert!(turns.lines.lock().is_empty());
    }
}
