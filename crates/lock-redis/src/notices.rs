//! Notices of releases, heard over one connection for all waiters of a locker.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::StreamExt;
use lock_core::{
    Error, ErrorKind, Result,
    backend::{ReleaseListener, SharedAttempt},
};
use parking_lot::Mutex;
use redis::{RedisResult, aio::PubSub};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot},
    time::{self, Instant},
};

use crate::{failure, target::Target};

/// Hands out listeners. The connection is opened for the first waiter and closed with the locker.
pub struct Notices {
    shared: Arc<Shared>,
    connecting: SharedAttempt<Subscriber>,
}

struct Shared {
    target: Arc<Target>,
    request_timeout: Duration,
    /// The one channel of this locker, on which each notice names the lock; else each lock has a channel.
    inbox: Option<String>,
    subscriber: Mutex<Option<Subscriber>>,
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

/// The task that has the connection, as those see it who ask it for something.
type Subscriber = mpsc::UnboundedSender<Request>;

enum Request {
    Subscribe { channel: String, done: oneshot::Sender<RedisResult<()>> },
    Unsubscribe { channel: String },
}

/// Hears when one lock is released. There is one at a time for each lock.
pub struct LockListener<'a> {
    notices: &'a Notices,
    lock: String,
    subscription: Option<Subscription>,
}

struct Subscription {
    shared: Arc<Shared>,
    subscriber: Subscriber,
    lock: String,
    /// Tells of a release.
    released: Arc<Notify>,
}

impl Notices {
    /// Makes notices of `target`, to which no connection is opened yet. It will live in `runtime`.
    #[must_use]
    pub fn new(target: Arc<Target>, request_timeout: Duration, runtime: &Handle) -> Self {
        let (inbox, subscriber, failed, heard) = Default::default();
        let shared = Shared { target, request_timeout, inbox, subscriber, failed, heard };
        Self { shared: Arc::new(shared), connecting: SharedAttempt::new(runtime.clone()) }
    }

    /// Hears of all locks on one channel, whose notices name the lock.
    #[must_use]
    pub fn with_inbox(mut self, channel: String) -> Self {
        Arc::get_mut(&mut self.shared).expect("it is shared with nobody before it is used").inbox =
            Some(channel);
        self
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
        LockListener { notices: self, lock, subscription: None }
    }

    async fn connected(&self) -> Result<Subscriber> {
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
    fn present(&self) -> Option<Subscriber> {
        self.subscriber.lock().clone().filter(|subscriber| !subscriber.is_closed())
    }

    async fn connect(self: Arc<Self>) -> Result<Subscriber> {
        let server = self.target.server();
        let opened = async {
            let mut connection =
                self.target.listen().await.map_err(|error| failure::of_connecting(error, &server))?;
            if let Some(inbox) = &self.inbox {
                let subscribed = connection.subscribe(inbox).await;
                subscribed.map_err(|error| failure::of_request(error, &server))?;
            }
            Ok::<_, Error>(connection)
        };
        let limit = self.request_timeout;
        let connection = time::timeout(limit, opened)
            .await
            .map_err(|_| Error::no_answer(limit).with_server(&server))??;
        let (requests, receiver) = mpsc::unbounded_channel();
        // This is a task of the locker's runtime, and so is what it spawns. It must not keep itself alive.
        tokio::spawn(listen(connection, receiver, Arc::downgrade(&self), limit));
        *self.subscriber.lock() = Some(requests.clone());
        Ok(requests)
    }

    fn tell(&self, lock: &str) {
        let mut heard = self.heard.lock();
        let released = heard.listeners.get(lock).cloned();
        let is_early = released.is_none() && self.inbox.is_some() && !lock.is_empty();
        if is_early && heard.early.len() < MOST_EARLY {
            heard.early.insert(lock.to_owned());
        }
        drop(heard);
        released.iter().for_each(|released| released.notify_one());
    }
}

impl ReleaseListener for LockListener<'_> {
    async fn listen(&mut self) -> Result<()> {
        if self.subscription.as_ref().is_some_and(|old| !old.subscriber.is_closed()) {
            return Ok(());
        }
        // One that broke would seem to tell for ever.
        self.subscription = None;
        let (shared, subscriber) = (Arc::clone(&self.notices.shared), self.notices.connected().await?);
        let released = {
            let mut heard = shared.heard.lock();
            let released = Arc::<Notify>::default();
            if heard.early.remove(&self.lock) {
                released.notify_one();
            }
            heard.listeners.insert(self.lock.clone(), Arc::clone(&released));
            released
        };
        // Made before a request is sent, so that a waiter who gives up meanwhile still unsubscribes.
        let subscription = Subscription { shared, subscriber, lock: self.lock.clone(), released };
        if self.notices.shared.inbox.is_none() {
            let (done, subscribed) = oneshot::channel();
            let broken =
                |_| Error::new(ErrorKind::Unavailable, "the connection that hears of releases broke");
            let request = Request::Subscribe { channel: self.lock.clone(), done };
            subscription.subscriber.send(request).map_err(|_| broken(()))?;
            let subscribed = subscribed.await.map_err(|_| broken(()))?;
            subscribed.map_err(|error| failure::of_request(error, &self.notices.shared.target.server()))?;
        }
        self.subscription = Some(subscription);
        Ok(())
    }

    fn has_listened(&self) -> bool {
        self.notices.shared.inbox.is_some() && self.notices.is_connected() == Some(true)
    }

    async fn released(&mut self) {
        match &mut self.subscription {
            None => std::future::pending().await,
            Some(subscription) => {
                tokio::select! {
                    () = subscription.released.notified() => {}
                    () = subscription.subscriber.closed() => {}
                }
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let lock = std::mem::take(&mut self.lock);
        let mut heard = self.shared.heard.lock();
        if heard.listeners.get(&lock).is_some_and(|present| Arc::ptr_eq(present, &self.released)) {
            heard.listeners.remove(&lock);
        }
        drop(heard);
        if self.shared.inbox.is_none() {
            // If the connection's task has ended, so has the subscription.
            let _ = self.subscriber.send(Request::Unsubscribe { channel: lock });
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
    mut requests: mpsc::UnboundedReceiver<Request>,
    shared: Weak<Shared>,
    patience: Duration,
) {
    let (mut sink, mut messages) = connection.split();
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            request = requests.recv() => {
                let Some(request) = request else { return };
                let answered = time::timeout(patience, async {
                    match request {
                        Request::Subscribe { channel, done } => {
                            let _ = done.send(sink.subscribe(&channel).await);
                        }
                        // A broken connection ends the stream of messages, and so this task.
                        Request::Unsubscribe { channel } => drop(sink.unsubscribe(&channel).await),
                    }
                });
                if answered.await.is_err() {
                    return;
                }
                heard = Instant::now();
            }
            message = messages.next() => {
                let (Some(message), Some(shared)) = (message, shared.upgrade()) else { return };
                match &shared.inbox {
                    None => shared.tell(message.get_channel_name()),
                    Some(_) => shared.tell(&String::from_utf8_lossy(message.get_payload_bytes())),
                }
                heard = Instant::now();
            }
            // A connection that died silently would leave all who wait without a word.
            () = time::sleep_until(heard + 2 * patience), if is_awaited(&shared) => {
                if !matches!(time::timeout(patience, sink.ping::<redis::Value>()).await, Ok(Ok(_))) {
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
