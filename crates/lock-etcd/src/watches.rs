//! All watches of a session, over one stream.
//!
//! No watch names a start revision: the server would put it with those that it serves every 100 ms only. Instead, a
//! watch that was created, for the first time or again after the stream broke, is followed by a look at its key.

use std::{
    collections::HashMap,
    future,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use etcd_client::{
    EventType, WatchFilterType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream,
};
use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, oneshot},
    time::{self, Instant},
};

use crate::{
    failure::{Failure, Outcome},
    requests,
    servers::{Server, Servers},
};

/// As many as one transaction may contain.
const MOST_LOOKS: usize = 100;

/// The side of those who want keys watched.
pub(crate) struct Watches {
    orders: mpsc::UnboundedSender<Order>,
    last_number: AtomicI64,
}

/// The side of the task that serves them.
pub(crate) type Orders = mpsc::UnboundedReceiver<Order>;

pub(crate) enum Order {
    Begin(i64, Watched),
    End(i64),
}

/// A key, and who is told the revision at which it was seen to be gone.
pub(crate) struct Watched {
    key: String,
    gone: oneshot::Sender<i64>,
}

/// A watch of one key. It ends when this is dropped.
pub(crate) struct Watch<'a> {
    gone: oneshot::Receiver<i64>,
    watches: &'a Watches,
    number: i64,
}

impl Watches {
    pub(crate) fn new() -> (Self, Orders) {
        let (sender, orders) = mpsc::unbounded_channel();
        (Self { orders: sender, last_number: AtomicI64::new(0) }, orders)
    }

    pub(crate) fn watch(&self, key: &str) -> Watch<'_> {
        let (sender, gone) = oneshot::channel();
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        self.order(Order::Begin(number, Watched { key: key.to_owned(), gone: sender }));
        Watch { gone, watches: self, number }
    }

    fn order(&self, order: Order) {
        // Nobody takes orders once the runtime has ended; then nothing is worth watching.
        let _ = self.orders.send(order);
    }
}

impl Watch<'_> {
    /// Waits until the key is gone, and returns the revision at which that was seen.
    pub(crate) async fn gone(mut self) -> i64 {
        match (&mut self.gone).await {
            Ok(revision) => revision,
            Err(_) => future::pending().await,
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.watches.order(Order::End(self.number));
    }
}

/// Serves the watches until the session goes, over one stream after the other.
pub(crate) async fn serve(orders: Orders, servers: Arc<Servers>) {
    let mut stream = Stream { orders, watched: HashMap::new(), unproven: Vec::new() };
    let mut delay = servers.retry_delay();
    // A stream is opened by its first watch.
    while stream.wait_for_watches().await {
        let begun = Instant::now();
        let failure = match servers.current().await {
            Ok(server) => match stream.serve_at(&server, &servers).await {
                Ok(SessionGone) => return,
                Err(failure) => {
                    if failure.outcome() != Outcome::Refused {
                        servers.give_up(&server);
                    }
                    failure
                }
            },
            Err(failure) => failure,
        };
        // What is refused will be refused again: the right may come back, but not within milliseconds.
        let lasted = begun.elapsed();
        delay = if lasted > servers.longest_delay() { servers.retry_delay() } else { delay * 2 };
        delay = delay.min(servers.longest_delay());
        tracing::debug!(?failure, ?delay, "the watches of a session are set anew");
        time::sleep(delay.saturating_sub(lasted)).await;
    }
}

struct SessionGone;

struct Stream {
    orders: Orders,
    watched: HashMap<i64, Watched>,
    /// Watches that were created, at whose keys nobody has looked since.
    unproven: Vec<i64>,
}

impl Stream {
    /// Returns whether there are any; if not, the session has gone.
    async fn wait_for_watches(&mut self) -> bool {
        while self.watched.is_empty() {
            match self.orders.recv().await {
                Some(order) => drop(self.take(order)),
                None => return false,
            }
        }
        true
    }

    /// Writes an order down; returns what the server must be told.
    fn take(&mut self, order: Order) -> Option<Request> {
        match order {
            Order::Begin(number, watched) => {
                let key = watched.key.clone();
                self.watched.insert(number, watched);
                Some(Request::Begin(number, key))
            }
            Order::End(number) => self.watched.remove(&number).map(|_| Request::End(number)),
        }
    }

    async fn serve_at(&mut self, server: &Server, servers: &Servers) -> Result<SessionGone, Failure> {
        let limit = servers.request_timeout();
        let mut left = std::pin::pin!(servers.left(server));
        self.unproven.clear();
        let mut begin = self.watched.iter().map(|(number, watched)| (*number, watched.key.clone()));
        let (number, key) = begin.next().expect("a stream is opened for somebody");
        let others: Vec<_> = begin.map(|(number, key)| Request::Begin(number, key)).collect();
        let mut client = server.watch.clone();
        let opening = within(limit, client.watch(key, Some(options(number))));
        let (mut requests, mut answers) = opening.await?.split();
        for other in others {
            within(limit, other.send(&mut requests)).await?;
        }
        loop {
            tokio::select! {
                answer = answers.message() => self.hear_all(answer?, &mut answers)?,
                order = self.orders.recv() => {
                    let Some(order) = order else { return Ok(SessionGone) };
                    if let Some(request) = self.take(order) {
                        within(limit, request.send(&mut requests)).await?;
                    }
                }
                () = &mut left => return Err(Failure::NoAnswer(limit)),
            }
            while !self.unproven.is_empty() {
                self.prove(server, limit).await?;
            }
        }
    }

    /// Hears an answer and all that have arrived behind it, so that many looks become one.
    fn hear_all(
        &mut self,
        first: Option<WatchResponse>,
        answers: &mut WatchResponseStream,
    ) -> Result<(), Failure> {
        let mut next = Some(first);
        while let Some(answer) = next {
            self.hear(&answer.ok_or_else(closed)?)?;
            next = answers.message().now_or_never().transpose()?;
        }
        Ok(())
    }

    fn hear(&mut self, answer: &WatchResponse) -> Result<(), Failure> {
        let number = answer.watch_id();
        let is_known = self.watched.contains_key(&number);
        // The end of a watch that nobody needs any more is no failure.
        if answer.canceled() && (is_known || answer.created()) {
            return Err(canceled(answer));
        }
        if answer.events().iter().any(|event| event.event_type() == EventType::Delete) {
            self.is_gone(number, answer.header().map_or(0, |header| header.revision()));
        } else if answer.created() && is_known {
            self.unproven.push(number);
        }
        Ok(())
    }

    fn is_gone(&mut self, number: i64, revision: i64) {
        if let Some(watched) = self.watched.remove(&number) {
            // Whoever waited may have given up just now.
            let _ = watched.gone.send(revision);
        }
    }

    /// Looks at keys whose watches may have missed something. A server that is cut off would not hear of them again, nor
    /// say so; it cannot answer this, and is left.
    async fn prove(&mut self, server: &Server, limit: Duration) -> Result<(), Failure> {
        let mut batch = self.unproven.split_off(self.unproven.len().saturating_sub(MOST_LOOKS));
        batch.retain(|number| self.watched.contains_key(number));
        let look = requests::look_at_all(batch.iter().map(|number| &*self.watched[number].key));
        let answer = within(limit, server.kv.clone().txn(look)).await?;
        let revision = requests::revision(&answer);
        for (number, found) in batch.into_iter().zip(requests::gets(&answer)) {
            if found.kvs().is_empty() {
                self.is_gone(number, revision);
            }
        }
        Ok(())
    }
}

enum Request {
    Begin(i64, String),
    End(i64),
}

impl Request {
    async fn send(self, requests: &mut WatchRequestSender) -> Result<(), etcd_client::Error> {
        match self {
            Self::Begin(number, key) => requests.watch(key, Some(options(number))).await,
            Self::End(number) => requests.cancel(number).await,
        }
    }
}

async fn within<T>(
    limit: Duration,
    request: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, Failure> {
    Ok(time::timeout(limit, request).await.map_err(|_| Failure::NoAnswer(limit))??)
}

fn options(number: i64) -> WatchOptions {
    WatchOptions::new().with_watch_id(number).with_filters([WatchFilterType::NoPut])
}

fn closed() -> Failure {
    etcd_client::Error::WatchError("the stream was closed".to_owned()).into()
}

fn canceled(answer: &WatchResponse) -> Failure {
    let reason = answer.cancel_reason();
    if reason.contains("permission denied") {
        return Failure::not_permitted(reason);
    }
    etcd_client::Error::WatchError(reason.to_owned()).into()
}
