//! Notices of releases, heard over one connection for all waiters of a locker.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

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
    target: Arc<Target>,
    request_timeout: Duration,
    subscriber: Arc<Mutex<Option<Subscriber>>>,
    connecting: SharedAttempt<Subscriber>,
}

/// The task that has the connection, as those see it who ask it for something.
type Subscriber = mpsc::UnboundedSender<Request>;

enum Request {
    Subscribe { channel: String, released: Arc<Notify>, done: oneshot::Sender<RedisResult<()>> },
    Unsubscribe { channel: String },
}

/// Hears when the lock of one channel is released. There is one at a time for each channel.
pub struct ChannelListener<'a> {
    notices: &'a Notices,
    channel: String,
    subscription: Option<Subscription>,
}

struct Subscription {
    subscriber: Subscriber,
    channel: String,
    /// Tells of a release.
    released: Arc<Notify>,
}

impl Notices {
    /// Makes notices of `target`, to which no connection is opened yet. It will live in `runtime`.
    #[must_use]
    pub fn new(target: Arc<Target>, request_timeout: Duration, runtime: &Handle) -> Self {
        let connecting = SharedAttempt::new(runtime.clone());
        Self { target, request_timeout, subscriber: Arc::default(), connecting }
    }

    /// Makes a listener that does not listen yet.
    #[must_use]
    pub fn listener(&self, channel: String) -> ChannelListener<'_> {
        ChannelListener { notices: self, channel, subscription: None }
    }

    async fn connected(&self) -> Result<Subscriber> {
        if let Some(present) = present(&self.subscriber) {
            return Ok(present);
        }
        let (target, subscriber) = (Arc::clone(&self.target), Arc::clone(&self.subscriber));
        let limit = self.request_timeout;
        let connecting = self.connecting.run(|| async move {
            if let Some(present) = present(&subscriber) {
                return Ok(present);
            }
            let server = target.server();
            let connected = time::timeout(limit, target.listen()).await;
            let connection = connected
                .map_err(|_| Error::no_answer(limit).with_server(&server))?
                .map_err(|error| failure::of_connecting(error, &server))?;
            let (requests, receiver) = mpsc::unbounded_channel();
            // This is a task of the locker's runtime, and so is what it spawns.
            tokio::spawn(listen(connection, receiver, limit));
            *subscriber.lock() = Some(requests.clone());
            Ok(requests)
        });
        connecting.await
    }
}

impl ReleaseListener for ChannelListener<'_> {
    async fn listen(&mut self) -> Result<()> {
        if self.subscription.as_ref().is_some_and(|old| !old.subscriber.is_closed()) {
            return Ok(());
        }
        // One that broke would seem to tell for ever.
        self.subscription = None;
        let subscriber = self.notices.connected().await?;
        // Made before the request is sent, so that a waiter who gives up meanwhile still unsubscribes.
        let (channel, released) = (self.channel.clone(), Arc::new(Notify::new()));
        let subscription =
            Subscription { subscriber, channel: channel.clone(), released: Arc::clone(&released) };
        let (done, subscribed) = oneshot::channel();
        let broken = |_| Error::new(ErrorKind::Unavailable, "the connection that hears of releases broke");
        subscription
            .subscriber
            .send(Request::Subscribe { channel, released, done })
            .map_err(|_| broken(()))?;
        let subscribed = subscribed.await.map_err(|_| broken(()))?;
        subscribed.map_err(|error| failure::of_request(error, &self.notices.target.server()))?;
        self.subscription = Some(subscription);
        Ok(())
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
        let channel = std::mem::take(&mut self.channel);
        // If the listener has ended, so has the subscription.
        let _ = self.subscriber.send(Request::Unsubscribe { channel });
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notices").field("target", &self.target).finish_non_exhaustive()
    }
}

impl fmt::Debug for ChannelListener<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelListener").field("channel", &self.channel).finish_non_exhaustive()
    }
}

/// The task behind the listeners. It ends when the locker and all waiters are gone, or the connection breaks or falls
/// silent; whoever waits is woken by that.
async fn listen(connection: PubSub, mut requests: mpsc::UnboundedReceiver<Request>, patience: Duration) {
    let (mut sink, mut messages) = connection.split();
    let mut listeners = HashMap::<String, Arc<Notify>>::new();
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            request = requests.recv() => {
                let Some(request) = request else { return };
                let answered = time::timeout(patience, async {
                    match request {
                        Request::Subscribe { channel, released, done } => {
                            let subscribed = sink.subscribe(&channel).await;
                            listeners.insert(channel, released);
                            let _ = done.send(subscribed);
                        }
                        Request::Unsubscribe { channel } => {
                            listeners.remove(&channel);
                            // A broken connection ends the stream of messages, and so this task.
                            let _ = sink.unsubscribe(&channel).await;
                        }
                    }
                });
                if answered.await.is_err() {
                    return;
                }
                heard = Instant::now();
            }
            message = messages.next() => {
                let Some(message) = message else { return };
                if let Some(released) = listeners.get(message.get_channel_name()) {
                    released.notify_one();
                }
                heard = Instant::now();
            }
            // A connection that died silently would leave all who wait without a word.
            () = time::sleep_until(heard + 2 * patience), if !listeners.is_empty() => {
                if !matches!(time::timeout(patience, sink.ping::<redis::Value>()).await, Ok(Ok(_))) {
                    return;
                }
                heard = Instant::now();
            }
        }
    }
}

fn present(subscriber: &Mutex<Option<Subscriber>>) -> Option<Subscriber> {
    subscriber.lock().clone().filter(|subscriber| !subscriber.is_closed())
}
