//! Notices of releases, heard over one connection for all waiters of a locker.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use futures_util::StreamExt;
use lock_core::{Error, ErrorKind, Result, backend::ReleaseListener};
use redis::{RedisResult, aio::PubSub};
use tokio::{
    sync::{Mutex, Notify, mpsc, oneshot},
    time,
};

use crate::{failure, target::Target};

/// Hands out listeners. The connection is opened for the first waiter and closed with the locker.
pub struct Notices {
    target: Arc<Target>,
    request_timeout: Duration,
    listener: Mutex<Option<Listener>>,
}

type Listener = mpsc::UnboundedSender<Request>;

enum Request {
    Subscribe {
        channel: String,
        rope: Arc<Notify>,
        done: oneshot::Sender<RedisResult<()>>,
    },
    Unsubscribe {
        channel: String,
    },
    /// Asks whether notices can still arrive.
    Ping {
        done: oneshot::Sender<RedisResult<()>>,
    },
}

/// Rings when the lock of one channel is released. There is one at a time for each channel.
pub struct ChannelListener<'a> {
    notices: &'a Notices,
    channel: String,
    subscription: Option<Subscription>,
}

struct Subscription {
    listener: Listener,
    channel: String,
    /// Pulled by the listener.
    rope: Arc<Notify>,
    /// Whether the connection is known to work, because it just did.
    proven: bool,
}

impl Notices {
    /// Notices of `target`, to which no connection is opened yet.
    #[must_use]
    pub fn new(target: Arc<Target>, request_timeout: Duration) -> Self {
        Self { target, request_timeout, listener: Mutex::default() }
    }

    /// A listener that does not listen yet.
    #[must_use]
    pub fn listener(&self, channel: String) -> ChannelListener<'_> {
        ChannelListener { notices: self, channel, subscription: None }
    }

    async fn connected(&self) -> Result<Listener> {
        let mut listener = self.listener.lock().await;
        if let Some(alive) = listener.as_ref().filter(|listener| !listener.is_closed()) {
            return Ok(alive.clone());
        }
        let server = self.target.server();
        let connection =
            self.target.listen().await.map_err(|error| failure::of_connecting(error, &server))?;
        let (requests, receiver) = mpsc::unbounded_channel();
        tokio::spawn(listen(connection, receiver, self.request_timeout));
        *listener = Some(requests.clone());
        Ok(requests)
    }

    async fn ask(
        &self,
        listener: &Listener,
        request: impl FnOnce(oneshot::Sender<RedisResult<()>>) -> Request,
    ) -> Result<()> {
        let broken = || Error::new(ErrorKind::Unavailable, "the connection that hears of releases broke");
        let (done, answer) = oneshot::channel();
        listener.send(request(done)).map_err(|_| broken())?;
        let answer = answer.await.map_err(|_| broken())?;
        answer.map_err(|error| failure::of_request(error, &self.target.server()))
    }
}

impl ReleaseListener for ChannelListener<'_> {
    async fn listen(&mut self) -> Result<()> {
        if let Some(subscription) = self.subscription.as_mut().filter(|old| !old.listener.is_closed()) {
            if !subscription.proven {
                self.notices.ask(&subscription.listener, |done| Request::Ping { done }).await?;
                subscription.proven = true;
            }
            return Ok(());
        }
        // One that broke would seem to ring for ever.
        self.subscription = None;
        let listener = self.notices.connected().await?;
        // Made before the request is sent, so that a waiter who gives up meanwhile still unsubscribes.
        let (channel, rope) = (self.channel.clone(), Arc::new(Notify::new()));
        let subscription =
            Subscription { listener, channel: channel.clone(), rope: Arc::clone(&rope), proven: true };
        let request = |done| Request::Subscribe { channel, rope, done };
        self.notices.ask(&subscription.listener, request).await?;
        self.subscription = Some(subscription);
        Ok(())
    }

    async fn released(&mut self) {
        match &mut self.subscription {
            None => std::future::pending().await,
            Some(subscription) => {
                // Stays so if the waiter's patience ends first: then a notice may have been lost.
                subscription.proven = false;
                tokio::select! {
                    () = subscription.rope.notified() => subscription.proven = true,
                    () = subscription.listener.closed() => {}
                }
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let channel = std::mem::take(&mut self.channel);
        // If the listener has ended, so has the subscription.
        let _ = self.listener.send(Request::Unsubscribe { channel });
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

/// The task behind the listeners. It ends when the locker and all waiters are gone, or the connection breaks; whoever
/// waits is woken by that.
async fn listen(connection: PubSub, mut requests: mpsc::UnboundedReceiver<Request>, patience: Duration) {
    let (mut sink, mut messages) = connection.split();
    let mut ropes = HashMap::<String, Arc<Notify>>::new();
    loop {
        tokio::select! {
            request = requests.recv() => {
                let Some(request) = request else { return };
                let answered = time::timeout(patience, async {
                    match request {
                        Request::Subscribe { channel, rope, done } => {
                            let subscribed = sink.subscribe(&channel).await;
                            ropes.insert(channel, rope);
                            let _ = done.send(subscribed);
                        }
                        Request::Unsubscribe { channel } => {
                            ropes.remove(&channel);
                            // A broken connection ends the stream of messages, and so this task.
                            let _ = sink.unsubscribe(&channel).await;
                        }
                        Request::Ping { done } => {
                            let _ = done.send(sink.ping().await);
                        }
                    }
                });
                if answered.await.is_err() {
                    return;
                }
            }
            message = messages.next() => {
                let Some(message) = message else { return };
                if let Some(rope) = ropes.get(message.get_channel_name()) {
                    rope.notify_one();
                }
            }
        }
    }
}
