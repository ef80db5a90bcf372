//! One of the servers, with one vote: how it is asked, and for how long it is believed to be silent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use lock_core::{Error, ErrorKind, Result, backend::BootInstant};
use lock_redis::{Handshake, Node, Target};
use redis::FromRedisValue;
use tokio::{runtime::Handle, time};

use crate::requests::{ACQUIRE, HAND_ON, RELEASE, Reply, Request, VoteReply};

pub(crate) struct Voter {
    node: Node,
    /// How long it is waited for; a little less than the caller waits, who would not know which server was late.
    patience: Duration,
    /// In nanoseconds of a [`BootInstant`]: until then it need not be asked.
    silent_until: AtomicU64,
    /// When a claim was sent to it last.
    claimed_at: AtomicU64,
    /// When a claim was last left without an answer.
    left_open_at: AtomicU64,
    dialing: AtomicBool,
    runtime: Handle,
}

impl Voter {
    pub(crate) fn new(
        target: Arc<Target>,
        limit: Duration,
        ttl: Duration,
        handshake: impl Handshake + 'static,
        channel: String,
        runtime: Handle,
    ) -> Self {
        let patience = limit - limit / 8;
        let node = Node::new(target, limit, ttl, &runtime).with_handshake(handshake).with_channel(channel);
        let node = [&ACQUIRE, &RELEASE, &HAND_ON].into_iter().fold(node, Node::with_script);
        Self {
            // Connecting takes several round trips, where a request takes one.
            node: node.with_dialing_time(4 * patience),
            patience,
            silent_until: AtomicU64::new(0),
            claimed_at: AtomicU64::new(0),
            left_open_at: AtomicU64::new(0),
            dialing: AtomicBool::new(false),
            runtime,
        }
    }

    pub(crate) fn server(&self) -> &str {
        self.node.server()
    }

    pub(crate) fn renews_at_once(&self) -> usize {
        self.node.renews_at_once()
    }

    pub(crate) async fn connect(self: &Arc<Self>) -> Result<()> {
        self.within(self.dialing_time(), self.watched(self.node.connect())).await
    }

    /// Returns whether it should be asked for a vote: it has not been silent lately, or it is time to try once more.
    /// The one who is told so tries for all.
    pub(crate) fn is_worth_asking(&self) -> bool {
        let silent_until = self.silent_until.load(Ordering::Relaxed);
        let now = BootInstant::now();
        let next_try = now.after(self.pause()).as_nanos();
        silent_until == 0
            || (now.as_nanos() >= silent_until
                && self
                    .silent_until
                    .compare_exchange(silent_until, next_try, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok())
    }

    /// Says why it was not asked.
    pub(crate) fn left_out(&self) -> Error {
        let message = "it did not answer lately and is left out for a moment";
        Error::new(ErrorKind::Unavailable, message).with_server(self.server()).without_effect()
    }

    /// Returns whether a claim that was made at `started` may have been sent here.
    pub(crate) fn may_know(&self, started: BootInstant) -> bool {
        self.claimed_at.load(Ordering::Relaxed) >= started.as_nanos()
    }

    /// Asks for a vote. The caller bounds the time.
    pub(crate) fn claim<T>(
        self: &Arc<Self>,
        request: &Arc<Request>,
    ) -> impl Future<Output = Reply<T>> + Send + use<T>
    where
        T: FromRedisValue + Send + 'static,
    {
        self.claimed_at.fetch_max(BootInstant::now().as_nanos(), Ordering::Relaxed);
        let mut open = OpenClaim(Some(Arc::clone(self)));
        let asked = self.request(request);
        async move { asked.await.inspect(|_| open.0 = None) }
    }

    /// Asks once more, after a while, for a vote that another has, who cannot have a majority and so gives it back.
    pub(crate) async fn claim_again(self: Arc<Self>, request: Arc<Request>) -> Reply<VoteReply> {
        time::sleep(self.patience / 16).await;
        self.in_time(self.claim(&request)).await
    }

    /// Asks to end a claim that was made at `started`. The caller bounds the time.
    pub(crate) async fn end<T>(self: Arc<Self>, started: BootInstant, request: Arc<Request>) -> Reply<T>
    where
        T: FromRedisValue + Send + 'static,
    {
        if self.left_open_at.load(Ordering::Relaxed) < started.as_nanos() {
            return self.request(&request).await;
        }
        let everywhere = async {
            let (keys, arguments) = request.borrowed();
            self.node.run_everywhere(started, request.script, &keys, &arguments).await
        };
        Box::pin(self.watched(everywhere)).await
    }

    /// As [`end`](Self::end), of a claim that goes on: what ends it has to go after this too, wherever it may still
    /// arrive.
    pub(crate) async fn end_for_now<T>(
        self: Arc<Self>,
        started: BootInstant,
        request: Arc<Request>,
    ) -> Reply<T>
    where
        T: FromRedisValue + Send + 'static,
    {
        let mut open = OpenClaim(Some(Arc::clone(&self)));
        self.end(started, request).await.inspect(|_| open.0 = None)
    }

    /// Asks, and waits for no longer than its patience.
    pub(crate) async fn ask<T>(self: Arc<Self>, request: Arc<Request>) -> Reply<T>
    where
        T: FromRedisValue + Send + 'static,
    {
        self.in_time(self.request(&request)).await
    }

    /// Returns how long it is waited for.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) async fn in_time<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        self.within(self.patience, request).await
    }

    async fn within<T>(&self, time: Duration, request: impl Future<Output = Result<T>>) -> Result<T> {
        time::timeout(time, request).await.unwrap_or_else(|_| Err(self.no_answer(time)))
    }

    /// Says that no answer came within `time`.
    pub(crate) fn no_answer(&self, time: Duration) -> Error {
        Error::new(ErrorKind::Unavailable, format!("no answer within {time:?}")).with_server(self.server())
    }

    fn request<T>(self: &Arc<Self>, request: &Arc<Request>) -> impl Future<Output = Reply<T>> + Send + use<T>
    where
        T: FromRedisValue + Send + 'static,
    {
        let (voter, request) = (Arc::clone(self), Arc::clone(request));
        async move {
            let (keys, arguments) = request.borrowed();
            voter.watched(voter.node.run(request.script, &keys, &arguments)).await
        }
    }

    async fn watched<T>(self: &Arc<Self>, request: impl Future<Output = Result<T>>) -> Result<T> {
        let mut in_flight = InFlight { voter: self, sent: BootInstant::now(), answered: false };
        let result = request.await;
        in_flight.answered = true;
        match &result {
            Err(error) if error.kind() == ErrorKind::Unavailable => self.fell_silent(),
            _ => self.silent_until.store(0, Ordering::Relaxed),
        }
        result
    }

    /// Goes on connecting on behalf of those who did not wait for it.
    fn dial_in_background(self: &Arc<Self>) {
        if !self.node.is_connected() && !self.dialing.swap(true, Ordering::Relaxed) {
            let voter = Arc::clone(self);
            self.runtime.spawn(async move {
                let _ = time::timeout(voter.dialing_time(), voter.node.connect()).await;
                voter.dialing.store(false, Ordering::Relaxed);
            });
        }
    }

    /// Connecting takes several round trips, where a request takes one.
    fn dialing_time(&self) -> Duration {
        4 * self.patience
    }

    fn fell_silent(&self) {
        let until = BootInstant::now().after(self.pause()).as_nanos();
        self.silent_until.store(until, Ordering::Relaxed);
    }

    fn pause(&self) -> Duration {
        self.patience / 4
    }
}

/// A request for a vote or a place. Without an answer, what ends the claim has to go after it wherever it may still
/// arrive.
struct OpenClaim(Option<Arc<Voter>>);

impl Drop for OpenClaim {
    fn drop(&mut self) {
        if let Some(voter) = &self.0 {
            voter.left_open_at.fetch_max(BootInstant::now().as_nanos(), Ordering::Relaxed);
        }
    }
}

/// A request under way, which may be dropped as soon as the other servers have decided.
struct InFlight<'a> {
    voter: &'a Arc<Voter>,
    sent: BootInstant,
    answered: bool,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        if BootInstant::now().since(self.sent) >= self.voter.patience / 2 {
            self.voter.fell_silent();
        }
        self.voter.dial_in_background();
    }
}
