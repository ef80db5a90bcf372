//! Notices to a locker that a key is reserved for one of its waiters, heard over one connection for all of them.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::StreamExt;
use lock_core::{
    Error, Result,
    backend::{ReleaseListener, SharedAttempt},
};
use parking_lot::Mutex;
use redis::aio::PubSub;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
    time::{self, Instant},
};

use crate::{failure, target::Target};

/// Hands out listeners. The connection is opened for the first waiter and closed with the locker.
pub struct Notices {
    shared: Arc<Shared>,
    connecting: SharedAttempt<Subscription>,
}

struct Shared {
    target: Arc<Target>,
    request_timeout: Duration,
    /// The channel of this locker, on which each notice names a lock.
    inbox: String,
    subscription: Mutex<Option<Subscription>>,
    /// When and why the last attempt to connect failed, if it did.
    failed: Mutex<Option<(Instant, Error)>>,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    listeners: HashMap<String, Arc<Notify>>,
    /// Locks of which a notice came before anybody listened: a waiter whose turn it is at once.
    early: HashSet<String>,
}

/// For so long an attempt that failed stands for those that would follow it.
const MOMENT: Duration = Duration::from_secs(1);

/// So many early notices are kept.
const MOST_EARLY: usize = 1024;

/// The task that has the connection, as those see it who need it: it is closed with the connection, and the task ends
/// when nobody has this any more.
type Subscription = mpsc::UnboundedSender<Infallible>;

/// Hears when one lock is reserved. There is one at a time for each lock.
pub struct LockListener<'a> {
    notices: &'a Notices,
    lock: String,
    listening: Option<Listening>,
}

struct Listening {
    shared: Arc<Shared>,
    subscription: Subscription,
    lock: String,
    told: Arc<Notify>,
}

impl Notices {
    /// Makes notices of `target` on the channel `inbox`, to which no connection is opened yet. It will live in
    /// `runtime`.
    #[must_use]
    pub fn new(target: Arc<Target>, inbox: String, request_timeout: Duration, runtime: &Handle) -> Self {
        let (subscription, failed, heard) = Default::default();
        let shared = Shared { target, request_timeout, inbox, subscription, failed, heard };
        Self { shared: Arc::new(shared), connecting: SharedAttempt::new(runtime.clone()) }
    }

    /// Returns whether the connection is open; none if it was never asked for.
    #[must_use]
    pub fn is_connected(&self) -> Option<bool> {
        let connected = self.shared.present().is_some();
        (connected || self.shared.failed.lock().is_some()).then_some(connected)
    }

    /// Makes a listener that does not listen yet.
    #[must_use]
    pub fn listener(&self, lock: String) -> LockListener<'_> {
        LockListener { notices: self, lock, listening: None }
    }

    async fn connected(&self) -> Result<Subscription> {
        if let Some(present) = self.shared.present() {
            return Ok(present);
        }
        let shared = Arc::clone(&self.shared);
        // Those who cannot be told look often, and need not dial each time.
        if let Some((at, error)) = &*shared.failed.lock()
            && at.elapsed() < shared.request_timeout.min(MOMENT)
        {
            return Err(error.clone());
        }
        let connect = async move {
            let connected = Arc::clone(&shared).connect().await;
            *shared.failed.lock() = connected.as_ref().err().map(|error| (Instant::now(), error.clone()));
            connected
        };
        self.connecting.run(|| self.shared.present(), || connect).await
    }
}

impl Shared {
    fn present(&self) -> Option<Subscription> {
        self.subscription.lock().clone().filter(|subscription| !subscription.is_closed())
    }

    async fn connect(self: Arc<Self>) -> Result<Subscription> {
        let server = self.target.server();
        let opened = async {
            let mut connection =
                self.target.listen().await.map_err(|error| failure::of_connecting(error, &server))?;
            let subscribed = connection.subscribe(&self.inbox).await;
            subscribed.map_err(|error| failure::of_request(error, &server))?;
            Ok::<_, Error>(connection)
        };
        let limit = self.request_timeout;
        let connection = time::timeout(limit, opened)
            .await
            .map_err(|_| Error::no_answer(limit).with_server(&server))??;
        let (subscription, wanted) = mpsc::unbounded_channel();
        // This is a task of the locker's runtime, and so is what it spawns. It must not keep itself alive.
        tokio::spawn(listen(connection, wanted, Arc::downgrade(&self), limit));
        *self.subscription.lock() = Some(subscription.clone());
        Ok(subscription)
    }

    fn tell(&self, lock: &str) {
        let mut heard = self.heard.lock();
        let listener = heard.listeners.get(lock).cloned();
        if listener.is_none() && !lock.is_empty() && heard.early.len() < MOST_EARLY {
            heard.early.insert(lock.to_owned());
        }
        drop(heard);
        listener.iter().for_each(|told| told.notify_one());
    }
}

impl ReleaseListener for LockListener<'_> {
    async fn listen(&mut self) -> Result<()> {
        if self.listening.as_ref().is_some_and(|old| !old.subscription.is_closed()) {
            return Ok(());
        }
        // One that broke would seem to tell for ever.
        self.listening = None;
        let (shared, subscription) = (Arc::clone(&self.notices.shared), self.notices.connected().await?);
        let told = {
            let mut heard = shared.heard.lock();
            let told = Arc::<Notify>::default();
            if heard.early.remove(&self.lock) {
                told.notify_one();
            }
            heard.listeners.insert(self.lock.clone(), Arc::clone(&told));
            told
        };
        self.listening = Some(Listening { shared, subscription, lock: self.lock.clone(), told });
        Ok(())
    }

    fn has_listened(&self) -> bool {
        self.notices.is_connected() == Some(true)
    }

    async fn released(&mut self) {
        match &mut self.listening {
            None => std::future::pending().await,
            Some(listening) => {
                tokio::select! {
                    () = listening.told.notified() => {}
                    () = listening.subscription.closed() => {}
                }
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut heard = self.shared.heard.lock();
        if heard.listeners.get(&self.lock).is_some_and(|present| Arc::ptr_eq(present, &self.told)) {
            heard.listeners.remove(&self.lock);
        }
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notices").field("target", &self.shared.target).finish_non_exhaustive()
    }
}

impl fmt::Debug for LockListener<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockListener").field("lock", &self.lock).finish_non_exhaustive()
    }
}

/// Tells the listeners what the server publishes. Ends when the locker and all waiters are gone, or the connection
/// breaks or falls silent; whoever waits is woken by that.
async fn listen(
    connection: PubSub,
    mut wanted: mpsc::UnboundedReceiver<Infallible>,
    shared: Weak<Shared>,
    patience: Duration,
) {
    let (mut sink, mut messages) = connection.split();
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            _ = wanted.recv() => return,
            message = messages.next() => {
                let (Some(message), Some(shared)) = (message, shared.upgrade()) else { return };
                shared.tell(&String::from_utf8_lossy(message.get_payload_bytes()));
                heard = Instant::now();
            }
            // A connection that died silently would leave all who wait without a word.
            () = time::sleep_until(heard + 2 * patience) => {
                if is_awaited(&shared)
                    && !matches!(time::timeout(patience, sink.ping::<redis::Value>()).await, Ok(Ok(_)))
                {
                    return;
                }
                heard = Instant::now();
            }
        }
    }
}

fn is_awaited(shared: &Weak<Shared>) -> bool {
    shared.upgrade().is_some_and(|shared| !shared.heard.lock().listeners.is_empty())
}
