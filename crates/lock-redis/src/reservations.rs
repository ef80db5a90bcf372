//! What is done about waiters who are next and do not come: a reservation that runs out is handed on.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    time::{self, Instant},
};

use crate::names::Names;

/// How long a key is reserved for the waiter whose turn it is; the scripts of the queues say the same.
pub const RESERVATION: Duration = Duration::from_millis(500);

/// A little more than a reservation, since the server counts from a little later on.
const OVER: Duration = RESERVATION.saturating_add(Duration::from_millis(25));

/// Hands on a key that is free.
pub trait HandOn: Send + Sync + 'static {
    /// Reserves the key for the next waiter, if it is free and reserved for nobody; returns whether there was one.
    /// Without an answer it is left to the waiters, who look once per TTL.
    fn hand_on(&self, names: &Names) -> impl Future<Output = bool> + Send;
}

/// Looks after the keys that were handed on from here, once the last of its reservations must be over. A key that is
/// handed on again and again so costs nothing.
pub struct Reservations<H> {
    servers: Arc<H>,
    /// For each key, when it was handed on last.
    handed_on: Arc<Mutex<HashMap<String, Instant>>>,
    runtime: Handle,
}

impl<H: HandOn> Reservations<H> {
    /// Makes one that looks after no keys yet. Its tasks will live in `runtime`.
    #[must_use]
    pub fn new(servers: Arc<H>, runtime: Handle) -> Self {
        Self { servers, handed_on: Arc::default(), runtime }
    }

    /// Hands the key on once more if the waiter does not come, and again until one comes or none is left.
    pub fn watch(&self, names: &Names) {
        let mut handed_on = self.handed_on.lock();
        if let Some(last) = handed_on.get_mut(names.lock()) {
            *last = Instant::now();
            return;
        }
        handed_on.insert(names.lock().to_owned(), Instant::now());
        self.runtime.spawn(look_after(Arc::clone(&self.servers), Arc::clone(&self.handed_on), names.clone()));
    }
}

async fn look_after<H: HandOn>(
    servers: Arc<H>,
    handed_on: Arc<Mutex<HashMap<String, Instant>>>,
    names: Names,
) {
    let last = || handed_on.lock().get(names.lock()).copied();
    while let Some(seen) = last() {
        time::sleep_until(seen + OVER).await;
        if last() != Some(seen) {
            continue;
        }
        let again = servers.hand_on(&names).await;
        let mut handed_on = handed_on.lock();
        if again {
            handed_on.insert(names.lock().to_owned(), Instant::now());
        } else if handed_on.get(names.lock()) == Some(&seen) {
            handed_on.remove(names.lock());
        }
    }
}

impl<H> fmt::Debug for Reservations<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservations").finish_non_exhaustive()
    }
}
