//! One of the servers: how it is asked, and for how long it is believed to be silent.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use lock_core::{
    Error, ErrorKind, Result,
    backend::{BootInstant, BoxFuture},
};
use lock_redis::{Answer, Node, Script, Target};
use redis::FromRedisValue;
use tokio::{runtime::Handle, time};

use crate::identity::Introduction;

/// A server with one vote.
pub(crate) struct Member {
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

/// A script with what it is given, for all servers.
pub(crate) struct Request {
    pub(crate) script: &'static LazyLock<Script>,
    pub(crate) keys: Vec<String>,
    pub(crate) arguments: Vec<String>,
}

/// What one server answered.
pub(crate) type Reply<T> = Result<Answer<T>>;

impl Member {
    pub(crate) fn new(
        target: Arc<Target>,
        limit: Duration,
        ttl: Duration,
        introduction: Introduction,
        runtime: Handle,
    ) -> Self {
        Self {
            node: Node::new(target, limit, ttl).with_handshake(introduction),
            patience: limit - limit / 8,
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

    pub(crate) async fn connect(self: &Arc<Self>) -> Result<()> {
        self.watched(self.dialing_time(), self.node.connect()).await
    }

    /// Whether it should be asked for a vote: it has not been silent lately, or it is time to try once more. The
    /// one who is told so tries for all.
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

    /// Why it was not asked.
    pub(crate) fn left_out(&self) -> Error {
        let message = "it did not answer lately and is left out for a moment";
        Error::new(ErrorKind::Unavailable, message).with_server(self.server()).without_effect()
    }

    /// Whether a claim that was made at `started` may have been sent here.
    pub(crate) fn may_know(&self, started: BootInstant) -> bool {
        self.claimed_at.load(Ordering::Relaxed) >= started.as_nanos()
    }

    /// Asks for a vote.
    pub(crate) fn claim<T>(self: &Arc<Self>, request: &Arc<Request>) -> BoxFuture<'static, Reply<T>>
    where
        T: FromRedisValue + Send + 'static,
    {
        self.claimed_at.fetch_max(BootInstant::now().as_nanos(), Ordering::Relaxed);
        let mut open = OpenClaim(Some(Arc::clone(self)));
        let asked = self.ask(request);
        Box::pin(async move {
            let reply = asked.await;
            if reply.is_ok() {
                open.close();
            }
            reply
        })
    }

    /// Asks to end a claim that was made at `started`.
    pub(crate) fn end<T>(
        self: &Arc<Self>,
        started: BootInstant,
        request: &Arc<Request>,
    ) -> BoxFuture<'static, Reply<T>>
    where
        T: FromRedisValue + Send + 'static,
    {
        if self.left_open_at.load(Ordering::Relaxed) < started.as_nanos() {
            return self.ask(request);
        }
        let (member, request) = (Arc::clone(self), Arc::clone(request));
        Box::pin(async move {
            let (keys, arguments) = request.borrowed();
            let asked = member.node.run_everywhere(started, request.script, &keys, &arguments);
            member.watched(member.patience, asked).await
        })
    }

    pub(crate) fn ask<T>(self: &Arc<Self>, request: &Arc<Request>) -> BoxFuture<'static, Reply<T>>
    where
        T: FromRedisValue + Send + 'static,
    {
        let (member, request) = (Arc::clone(self), Arc::clone(request));
        Box::pin(async move {
            let (keys, arguments) = request.borrowed();
            member.watched(member.patience, member.node.run(request.script, &keys, &arguments)).await
        })
    }

    async fn watched<T>(
        self: &Arc<Self>,
        patience: Duration,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut flight = Flight { member: self, sent: BootInstant::now(), answered: false };
        let Ok(result) = time::timeout(patience, request).await else {
            let message = format!("no answer within {patience:?}");
            return Err(Error::new(ErrorKind::Unavailable, message).with_server(self.server()));
        };
        flight.answered = true;
        match &result {
            Err(error) if error.kind() == ErrorKind::Unavailable => self.fell_silent(),
            _ => self.silent_until.store(0, Ordering::Relaxed),
        }
        result
    }

    /// Goes on connecting on behalf of those who did not wait for it.
    fn dial_in_background(self: &Arc<Self>) {
        if !self.node.is_connected() && !self.dialing.swap(true, Ordering::Relaxed) {
            let member = Arc::clone(self);
            self.runtime.spawn(async move {
                let _ = time::timeout(member.dialing_time(), member.node.connect()).await;
                member.dialing.store(false, Ordering::Relaxed);
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

impl Request {
    fn borrowed(&self) -> (Vec<&str>, Vec<&str>) {
        (self.keys.iter().map(String::as_str).collect(), self.arguments.iter().map(String::as_str).collect())
    }
}

/// A request for a vote. Without an answer, what ends the claim has to go after it wherever it may still arrive.
struct OpenClaim(Option<Arc<Member>>);

impl OpenClaim {
    fn close(&mut self) {
        self.0 = None;
    }
}

impl Drop for OpenClaim {
    fn drop(&mut self) {
        if let Some(member) = &self.0 {
            member.left_open_at.fetch_max(BootInstant::now().as_nanos(), Ordering::Relaxed);
        }
    }
}

/// A request under way, which may be dropped as soon as the other servers have decided.
struct Flight<'a> {
    member: &'a Arc<Member>,
    sent: BootInstant,
    answered: bool,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        if BootInstant::now().since(self.sent) >= self.member.patience / 2 {
            self.member.fell_silent();
        }
        self.member.dial_in_background();
    }
}
