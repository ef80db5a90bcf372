//! What is done about waiters who are next and do not come: a reservation that runs out is handed on.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use lock_redis::{Names, Node};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    time::{self, Instant},
};

use crate::scripts::HAND_ON;

/// How long a key is reserved for the waiter whose turn it is; see `queue.lua`.
pub(crate) const RESERVATION: Duration = Duration::from_millis(500);

/// What a script returns that freed a key and reserved it for a waiter.
pub(crate) const HANDED_ON: i64 = 2;

/// A little more than a reservation, since the server counts from a little later on.
const OVER: Duration = RESERVATION.saturating_add(Duration::from_millis(25));

/// Looks after the keys that were handed on from here, once the last of its reservations must be over. A key that is
/// handed on again and again so costs nothing.
pub(crate) struct Reservations {
    node: Arc<Node>,
    /// For each key, when it was handed on last.
    handed_on: Arc<Mutex<HashMap<String, Instant>>>,
    runtime: Handle,
}

impl Reservations {
    pub(crate) fn new(node: Arc<Node>, runtime: Handle) -> Self {
        Self { node, handed_on: Arc::default(), runtime }
    }

    /// Hands the key on once more if the waiter does not come, and again until one comes or none is left.
    pub(crate) fn watch(&self, names: &Names) {
        let mut handed_on = self.handed_on.lock();
        if let Some(last) = handed_on.get_mut(names.lock()) {
            *last = Instant::now();
            return;
        }
        handed_on.insert(names.lock().to_owned(), Instant::now());
        self.runtime.spawn(look_after(Arc::clone(&self.node), Arc::clone(&self.handed_on), names.clone()));
    }
}

async fn look_after(node: Arc<Node>, handed_on: Arc<Mutex<HashMap<String, Instant>>>, names: Names) {
    let last = || handed_on.lock().get(names.lock()).copied();
    while let Some(seen) = last() {
        time::sleep_until(seen + OVER).await;
        if last() != Some(seen) {
            continue;
        }
        let again = node.run::<bool>(&HAND_ON, &[names.lock(), names.queue()], &[]).await;
        let mut handed_on = handed_on.lock();
        if again.is_ok_and(|again| again.value) {
            handed_on.insert(names.lock().to_owned(), Instant::now());
        } else if handed_on.get(names.lock()) == Some(&seen) {
            // Without an answer it is left to the waiters, who look once per TTL.
            handed_on.remove(names.lock());
        }
    }
}

impl fmt::Debug for Reservations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservations").finish_non_exhaustive()
    }
}
