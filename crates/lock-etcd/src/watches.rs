//! All watches of a session, over one stream.
//!
//! No watch names a start revision: the server would put it with those that it serves every 100 ms only. Instead, a
//! watch that was created, for the first time or again after the stream broke, is followed by a look at its key.
//!
//! It may be put there all the same, if something is committed just when it is created. Whoever cannot wait for so long
//! has the key watched twice: seldom are both slow.

use std::{
    collections::{HashMap, VecDeque},
    future, mem,
    ops::RangeInclusive,
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
use lock_core::{Result, backend::Effect};
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

/// The end of a watch is told together with others, or with the next begin of one.
const MOST_ENDED: usize = 64;
const LONGEST_ENDED: Duration = Duration::from_millis(50);

/// The side of those who want keys watched.
pub(crate) struct Watches {
    orders: mpsc::UnboundedSender<Order>,
    last_number: AtomicI64,
}

/// The side of the task that serves them.
pub(crate) type Orders = mpsc::UnboundedReceiver<Order>;

pub(crate) enum Order {
    Begin(i64, Watched),
    End(i64, bool),
}

/// A key, and who is told the revision at which it was seen to be gone, or why it cannot be watched.
pub(crate) struct Watched {
    key: String,
    /// What was made at this revision or later is another, by the same name.
    before: i64,
    twice: bool,
    gone: oneshot::Sender<Result<i64>>,
}

/// Returns the numbers by which the server knows the watches of one key: an even one, and the odd one after it if there
/// are two.
fn numbers(number: i64, twice: bool) -> RangeInclusive<i64> {
    number..=number + i64::from(twice)
}

/// A watch of one key. It ends when this is dropped.
pub(crate) struct Watch<'a> {
    gone: oneshot::Receiver<Result<i64>>,
    watches: &'a Watches,
    number: i64,
    twice: bool,
}

impl Watches {
    pub(crate) fn new() -> (Self, Orders) {
        let (sender, orders) = mpsc::unbounded_channel();
        (Self { orders: sender, last_number: AtomicI64::new(0) }, orders)
    }

    /// Has `key` watched, which was made before the revision `before`; `twice` if its end must be heard at once.
    pub(crate) fn watch(&self, key: &str, before: i64, twice: bool) -> Watch<'_> {
        let (sender, gone) = oneshot::channel();
        let number = self.last_number.fetch_add(2, Ordering::Relaxed) + 2;
        self.order(Order::Begin(number, Watched { key: key.to_owned(), before, twice, gone: sender }));
        Watch { gone, watches: self, number, twice }
    }

    fn order(&self, order: Order) {
        // Nobody takes orders once the runtime has ended; then nothing is worth watching.
        let _ = self.orders.send(order);
    }
}

impl Watch<'_> {
    /// Waits until the key is gone, and returns the revision at which that was seen; fails if it may not be watched.
    pub(crate) async fn gone(mut self) -> Result<i64> {
        match (&mut self.gone).await {
            Ok(gone) => gone,
            Err(_) => future::pending().await,
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.watches.order(Order::End(self.number, self.twice));
    }
}

/// Serves the watches until the session goes, over one stream after the other.
pub(crate) async fn serve(orders: Orders, servers: Arc<Servers>) {
    let (watched, asked, unproven, ended) = Default::default();
    let mut stream = Stream { orders, watched, asked, unproven, ended };
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
    /// What was asked for and not answered yet, in this order: the refusal of a watch has no number.
    asked: VecDeque<i64>,
    /// Watches that were created, at whose keys nobody has looked since.
    unproven: Vec<i64>,
    /// Watches that nobody needs any more, which the server is yet to be told.
    ended: Vec<i64>,
}

/// What is heard over a stream, and from which server.
struct Answers<'a> {
    server: &'a Server,
    servers: &'a Servers,
    stream: WatchResponseStream,
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

    /// Writes an order down; returns what the server must be told at once.
    fn take(&mut self, order: Order) -> Vec<Request> {
        match order {
            Order::Begin(number, watched) => {
                let begin = numbers(number, watched.twice);
                let begin = begin.map(|number| Request::Begin(number, watched.key.clone())).collect();
                self.watched.insert(number, watched);
                begin
            }
            Order::End(number, twice) => {
                self.watched.remove(&number);
                self.ended.extend(numbers(number, twice));
                Vec::new()
            }
        }
    }

    async fn serve_at(&mut self, server: &Server, servers: &Servers) -> Result<SessionGone, Failure> {
        let limit = servers.request_timeout();
        let mut left = std::pin::pin!(servers.left(server));
        self.unproven.clear();
        self.ended.clear();
        let watches = self.watched.iter().flat_map(|(number, watched)| {
            numbers(*number, watched.twice).map(|number| (number, watched.key.clone()))
        });
        let mut begin: Vec<_> = watches.collect();
        let (number, key) = begin.pop().expect("a stream is opened for somebody");
        self.asked = VecDeque::from([number]);
        let mut client = server.watch.clone();
        let (mut requests, stream) = within(limit, client.watch(key, Some(options(number)))).await?.split();
        let mut answers = Answers { server, servers, stream };
        for (number, key) in begin {
            self.send(Request::Begin(number, key), &mut requests, &mut answers).await?;
        }
        let mut end_at = Instant::now();
        loop {
            let (none_ended, mut must_end) = (self.ended.is_empty(), false);
            tokio::select! {
                answer = answers.stream.message() => self.hear_all(answer?, &mut answers)?,
                order = self.orders.recv() => {
                    let Some(order) = order else { return Ok(SessionGone) };
                    for request in self.take(order) {
                        self.send(request, &mut requests, &mut answers).await?;
                        must_end = true;
                    }
                }
                () = time::sleep_until(end_at), if !self.ended.is_empty() => must_end = true,
                () = &mut left => return Err(Failure::NoAnswer(limit)),
            }
            if none_ended {
                end_at = Instant::now() + LONGEST_ENDED;
            }
            if must_end || self.ended.len() >= MOST_ENDED {
                for number in mem::take(&mut self.ended) {
                    self.send(Request::End(number), &mut requests, &mut answers).await?;
                }
            }
            while !self.unproven.is_empty() {
                self.prove(&answers).await?;
            }
        }
    }

    /// Sends a request, and hears meanwhile what is said: a server that is not heard does not listen either.
    async fn send(
        &mut self,
        request: Request,
        requests: &mut WatchRequestSender,
        answers: &mut Answers<'_>,
    ) -> Result<(), Failure> {
        if let Request::Begin(number, _) = request {
            self.asked.push_back(number);
        }
        let mut sending = std::pin::pin!(within(answers.servers.request_timeout(), request.send(requests)));
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => return sent,
                answer = answers.stream.message() => self.hear_all(answer?, answers)?,
            }
        }
    }

    /// Hears an answer and all that have arrived behind it, so that many looks become one.
    fn hear_all(&mut self, first: Option<WatchResponse>, answers: &mut Answers<'_>) -> Result<(), Failure> {
        let mut next = Some(first);
        while let Some(answer) = next {
            self.hear(&answer.ok_or_else(closed)?, answers)?;
            next = answers.stream.message().now_or_never().transpose()?;
        }
        Ok(())
    }

    fn hear(&mut self, answer: &WatchResponse, answers: &Answers<'_>) -> Result<(), Failure> {
        answers.servers.check_cluster(answer.header())?;
        let asked = if answer.created() { self.asked.pop_front() } else { None };
        let id = if answer.canceled() { asked.unwrap_or(answer.watch_id()) } else { answer.watch_id() };
        let number = id & !1;
        // The end of a watch that nobody needs any more is passed over.
        let Some(watched) = self.watched.get(&number) else { return Ok(()) };
        if answer.canceled() {
            let failure = canceled(answer);
            if failure.outcome() != Outcome::Refused {
                return Err(failure);
            }
            self.tell(number, Err(failure.into_error(&answers.server.name, Effect::None)));
        } else if answer.events().iter().any(|event| event.event_type() == EventType::Delete) {
            self.tell(number, Ok(answer.header().map_or(0, |header| header.revision())));
        } else if answer.created() && id == *numbers(number, watched.twice).end() {
            self.unproven.push(number);
        }
        Ok(())
    }

    fn tell(&mut self, number: i64, gone: Result<i64>) {
        if let Some(watched) = self.watched.remove(&number) {
            // Whoever waited may have given up just now.
            let _ = watched.gone.send(gone);
        }
    }

    /// Looks at keys whose watches may have missed something. A server that is cut off would not hear of them again,
    /// nor say so; it cannot answer this, and is left.
    async fn prove(&mut self, answers: &Answers<'_>) -> Result<(), Failure> {
        let (server, limit) = (answers.server, answers.servers.request_timeout());
        let mut batch = self.unproven.split_off(self.unproven.len().saturating_sub(MOST_LOOKS));
        batch.retain(|number| self.watched.contains_key(number));
        let look = requests::look_at_all(batch.iter().map(|number| &*self.watched[number].key));
        let answer = match within(limit, server.kv.clone().txn(look)).await {
            Err(failure) if failure.outcome() == Outcome::Refused => {
                let error = failure.into_error(&server.name, Effect::None);
                batch.into_iter().for_each(|number| self.tell(number, Err(error.clone())));
                return Ok(());
            }
            answer => answer?,
        };
        let revision = requests::revision(&answer);
        for (number, found) in batch.into_iter().zip(requests::gets(&answer)) {
            if !requests::is_older(&found, self.watched[&number].before) {
                self.tell(number, Ok(revision));
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
