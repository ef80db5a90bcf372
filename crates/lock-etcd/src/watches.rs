//! All watches of a session, over one stream.
//!
//! No watch names a start revision: the server would put it with those that it serves every 100 ms only. Instead, a
//! watch that was created, for the first time or again after the stream broke, is followed by a look at its key.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use etcd_client::{EventType, WatchOptions, WatchRequestSender, WatchResponse};
use lock_core::LossReason;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{self, Instant},
};

use crate::{
    failure::Failure,
    requests,
    servers::{Server, Servers},
    stake::Stake,
};

/// A hold or wait that ends within this time is not watched: that would cost as much as the lock itself.
const SHORT_HOLD: Duration = Duration::from_millis(250);

/// As many as one transaction may contain.
const MOST_LOOKS: usize = 100;

/// The side of those who want something watched.
pub(crate) struct Watches {
    orders: mpsc::UnboundedSender<Order>,
    guarded: Arc<Guarded>,
    last_number: AtomicI64,
}

/// The side of the task that serves them.
pub(crate) struct Orders {
    orders: mpsc::UnboundedReceiver<Order>,
    guarded: Arc<Guarded>,
}

/// Places that shall be watched if they are still there in a while.
///
/// They are not kept alive from here: each would keep its session, which keeps this.
#[derive(Default)]
struct Guarded {
    places: Mutex<VecDeque<(Instant, i64, Weak<Stake>)>>,
    first: Notify,
}

enum Order {
    Begin(i64, Subject),
    End(i64),
}

enum Subject {
    /// The predecessor of a waiter.
    Ahead(String, watch::Sender<Sight>),
    /// The place of a holder or waiter.
    Own(Arc<Stake>),
}

/// What a watch of a predecessor has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sight {
    /// The revision after which nothing is missed, or that of the deletion. 0: the watch was not created yet.
    pub(crate) revision: i64,
    pub(crate) deleted: bool,
}

/// A watch of a predecessor. It ends when this is dropped.
pub(crate) struct Lookout<'a> {
    pub(crate) sight: watch::Receiver<Sight>,
    watches: &'a Watches,
    number: i64,
}

impl Drop for Lookout<'_> {
    fn drop(&mut self) {
        self.watches.order(Order::End(self.number));
    }
}

impl Watches {
    pub(crate) fn new() -> (Self, Orders) {
        let (sender, orders) = mpsc::unbounded_channel();
        let guarded = Arc::<Guarded>::default();
        let served = Orders { orders, guarded: Arc::clone(&guarded) };
        (Self { orders: sender, guarded, last_number: AtomicI64::new(0) }, served)
    }

    /// Watches the place ahead.
    pub(crate) fn look_out(&self, ahead: &str) -> Lookout<'_> {
        let (sender, sight) = watch::channel(Sight::default());
        let number = self.next_number();
        self.order(Order::Begin(number, Subject::Ahead(ahead.to_owned(), sender)));
        Lookout { sight, watches: self, number }
    }

    /// Ends the stake's validity when its place is gone.
    pub(crate) fn guard(&self, stake: &Arc<Stake>) {
        let due = Instant::now() + SHORT_HOLD;
        let mut places = self.guarded.places.lock();
        if places.is_empty() {
            self.guarded.first.notify_one();
        }
        places.push_back((due, self.next_number(), Arc::downgrade(stake)));
    }

    /// The place is given up.
    pub(crate) fn dismiss(&self, stake: &Stake) {
        if let Some(number) = stake.dismiss_sentry() {
            self.order(Order::End(number));
        }
    }

    fn next_number(&self) -> i64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn order(&self, order: Order) {
        // Nobody serves orders once the session is over; then nothing is worth watching.
        let _ = self.orders.send(order);
    }
}

/// Serves the watches for ever, over one stream after the other.
pub(crate) async fn serve(orders: Orders, servers: &Servers) {
    let mut hub = Hub { orders, subjects: HashMap::new(), unproven: Vec::new() };
    loop {
        hub.wait_for_subjects().await;
        let begun = Instant::now();
        let failure = match servers.current().await {
            Ok(server) => {
                let Err(failure) = hub.serve_at(&server, servers).await;
                servers.give_up(&server);
                failure
            }
            Err(failure) => failure,
        };
        tracing::debug!(?failure, "the watches of a session go to the next endpoint");
        time::sleep_until(begun + servers.breath()).await;
    }
}

struct Hub {
    orders: Orders,
    subjects: HashMap<i64, Subject>,
    /// Places whose watch was created, but at which nobody has looked since.
    unproven: Vec<Arc<Stake>>,
}

impl Hub {
    /// A stream is opened by its first watch.
    async fn wait_for_subjects(&mut self) {
        while self.subjects.is_empty() {
            tokio::select! {
                order = self.orders.orders.recv() => match order {
                    Some(order) => { self.take(order); }
                    // The session's own handle is gone, and the task with it.
                    None => std::future::pending().await,
                },
                () = self.orders.guarded.due() => { self.take_guarded(); }
            }
        }
    }

    /// Carries out an order in the books; returns what the server must be told.
    fn take(&mut self, order: Order) -> Option<Request> {
        match order {
            Order::Begin(number, subject) => {
                let key = subject.key().to_owned();
                self.subjects.insert(number, subject);
                Some(Request::Begin(number, key))
            }
            Order::End(number) => self.subjects.remove(&number).map(|_| Request::End(number)),
        }
    }

    fn take_guarded(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        for (number, stake) in self.orders.guarded.take_due() {
            if stake.post_sentry(number) {
                requests.extend(self.take(Order::Begin(number, Subject::Own(stake))));
            }
        }
        requests
    }

    async fn serve_at(
        &mut self,
        server: &Server,
        servers: &Servers,
    ) -> Result<std::convert::Infallible, Failure> {
        let limit = servers.request_timeout();
        let too_late = |_| Failure::NoAnswer(limit);
        let mut left = std::pin::pin!(servers.left(server));
        self.unproven.clear();
        let mut begin = self.subjects.iter().map(|(number, subject)| (*number, subject.key().to_owned()));
        let (number, key) = begin.next().expect("a stream is opened for somebody");
        let others: Vec<_> = begin.map(|(number, key)| Request::Begin(number, key)).collect();
        let mut client = server.watch.clone();
        let opening = time::timeout(limit, client.watch(key, Some(options(number))));
        let (mut requests, mut answers) = opening.await.map_err(too_late)??.split();
        let send = async |requests: &mut WatchRequestSender, request: Request| {
            time::timeout(limit, request.send(requests)).await.map_err(too_late)?.map_err(Failure::from)
        };
        for other in others {
            send(&mut requests, other).await?;
        }
        loop {
            tokio::select! {
                answer = answers.message() => self.hear(&answer?.ok_or_else(closed)?)?,
                order = self.orders.orders.recv() => {
                    let Some(order) = order else { return Err(closed()) };
                    if let Some(request) = self.take(order) {
                        send(&mut requests, request).await?;
                    }
                }
                () = self.orders.guarded.due() => {
                    for request in self.take_guarded() {
                        send(&mut requests, request).await?;
                    }
                }
                () = &mut left => return Err(Failure::NoAnswer(limit)),
            }
            if !self.unproven.is_empty() {
                time::timeout(limit, self.prove(server)).await.map_err(too_late)??;
            }
        }
    }

    fn hear(&mut self, answer: &WatchResponse) -> Result<(), Failure> {
        let Some(subject) = self.subjects.get(&answer.watch_id()) else {
            // The end of a watch that nobody needs any more; or a watch was refused, which has no number.
            return if answer.canceled() && answer.created() { Err(canceled(answer)) } else { Ok(()) };
        };
        if answer.canceled() {
            return Err(canceled(answer));
        }
        let revision = answer.header().map_or(0, |header| header.revision());
        let deleted = answer.events().iter().any(|event| event.event_type() == EventType::Delete);
        match subject {
            Subject::Ahead(_, sight) if answer.created() || deleted => {
                sight.send_modify(|sight| {
                    sight.revision = sight.revision.max(revision);
                    sight.deleted |= deleted;
                });
            }
            Subject::Own(stake) if deleted => stake.validity.end(LossReason::NotOwner),
            Subject::Own(stake) if answer.created() => self.unproven.push(Arc::clone(stake)),
            Subject::Ahead(..) | Subject::Own(_) => {}
        }
        Ok(())
    }

    /// Looks at the places whose watches may have missed something.
    async fn prove(&mut self, server: &Server) -> Result<(), Failure> {
        while !self.unproven.is_empty() {
            let batch = self.unproven.split_off(self.unproven.len().saturating_sub(MOST_LOOKS));
            let answer =
                server.kv.clone().txn(requests::look_at_all(batch.iter().map(|stake| &*stake.place))).await?;
            for (stake, found) in batch.iter().zip(requests::gets(&answer)) {
                if found.kvs().is_empty() {
                    stake.validity.end(LossReason::NotOwner);
                }
            }
        }
        Ok(())
    }
}

impl Subject {
    fn key(&self) -> &str {
        match self {
            Self::Ahead(place, _) => place,
            Self::Own(stake) => &stake.place,
        }
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

fn options(number: i64) -> WatchOptions {
    WatchOptions::new().with_watch_id(number).with_filters([etcd_client::WatchFilterType::NoPut])
}

impl Guarded {
    /// Resolves when the first place has been there for a while.
    async fn due(&self) {
        loop {
            let first = self.places.lock().front().map(|(due, ..)| *due);
            match first {
                Some(due) => return time::sleep_until(due).await,
                None => self.first.notified().await,
            }
        }
    }

    fn take_due(&self) -> Vec<(i64, Arc<Stake>)> {
        let mut places = self.places.lock();
        let now = Instant::now();
        // Those that are due soon come along, so that short holds do not wake the task one by one.
        let count = places.iter().take_while(|(due, ..)| *due <= now + SHORT_HOLD / 2).count();
        places.drain(..count).filter_map(|(_, number, stake)| Some((number, stake.upgrade()?))).collect()
    }
}

fn closed() -> Failure {
    Failure::Client(etcd_client::Error::WatchError("the stream was closed".to_owned()))
}

fn canceled(answer: &WatchResponse) -> Failure {
    Failure::Client(etcd_client::Error::WatchError(answer.cancel_reason().to_owned()))
}
