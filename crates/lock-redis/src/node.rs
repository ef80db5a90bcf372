//! A Redis that is always reconnected to, and never sent an undo out of order.

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use lock_core::{
    Error, ErrorKind, Result,
    backend::{BootInstant, BoxFuture, SharedAttempt},
};
use parking_lot::Mutex;
use redis::{FromRedisValue, RedisError, RedisResult};
use tokio::{runtime::Handle, time};

use crate::{
    connection::{Connection, INSPECT, RENEW, Script},
    failure,
    target::Target,
};

/// One Redis, or one cluster, behind one connection at a time.
pub struct Node {
    shared: Arc<Shared>,
    dialing: SharedAttempt<Live>,
}

/// What the task that dials needs too.
struct Shared {
    target: Arc<Target>,
    server: String,
    request_timeout: Duration,
    dialing_time: Duration,
    /// How long a connection that was given up may still carry an acquire.
    ttl: Duration,
    scripts: Vec<&'static LazyLock<Script>>,
    handshake: Option<Box<dyn Handshake>>,
    /// One of those on which waiters are told that they are next.
    channel: Option<String>,
    /// Whether a request may have keys of many locks: not in a cluster, nor on a server that could be part of one.
    takes_many: AtomicBool,
    connections: Mutex<Connections>,
}

/// What happens over each new connection before anything else does. If it fails, the connection is not used.
pub trait Handshake: Send + Sync {
    /// Settles what there is to settle; `told` is what the server said of itself, if it may.
    fn run<'a>(&'a self, connection: &'a Connection, told: Option<&'a str>) -> BoxFuture<'a, Result<()>>;
}

#[derive(Default)]
struct Connections {
    live: Option<Live>,
    /// Connections that went silent. What was sent over them may still be executed, so what undoes it has to follow
    /// over the same connection.
    retired: Vec<Retired>,
    dialed: u64,
}

#[derive(Clone)]
struct Live {
    number: u64,
    connection: Connection,
    /// When something was heard over it last, in nanoseconds of a [`BootInstant`].
    heard: Arc<AtomicU64>,
}

struct Retired {
    at: BootInstant,
    connection: Connection,
}

impl Node {
    /// Makes a node that is not connected yet. Its connections will live in `runtime`.
    #[must_use]
    pub fn new(target: Arc<Target>, request_timeout: Duration, ttl: Duration, runtime: &Handle) -> Self {
        let (server, connections) = (target.server(), Mutex::default());
        let shared = Shared {
            target,
            server,
            request_timeout,
            dialing_time: request_timeout,
            ttl,
            scripts: vec![&RENEW, &INSPECT],
            handshake: None,
            channel: None,
            takes_many: AtomicBool::new(true),
            connections,
        };
        Self { shared: Arc::new(shared), dialing: SharedAttempt::new(runtime.clone()) }
    }

    fn change(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::get_mut(&mut self.shared).expect("it is shared with nobody before it is used"));
        self
    }

    /// Leaves this script with the server too, over each new connection.
    #[must_use]
    pub fn with_script(self, script: &'static LazyLock<Script>) -> Self {
        self.change(|shared| shared.scripts.push(script))
    }

    /// Has the handshake done over each new connection.
    #[must_use]
    pub fn with_handshake(self, handshake: impl Handshake + 'static) -> Self {
        self.change(|shared| shared.handshake = Some(Box::new(handshake)))
    }

    /// Warns, over each new connection, if the user may not tell of releases on such a `channel`.
    #[must_use]
    pub fn with_channel(self, channel: String) -> Self {
        self.change(|shared| shared.channel = Some(channel))
    }

    /// Sets how long it may take to connect, which takes several round trips; the request timeout by default.
    #[must_use]
    pub fn with_dialing_time(self, time: Duration) -> Self {
        self.change(|shared| shared.dialing_time = time)
    }

    /// Returns the server's address, without user and password.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.shared.server
    }

    /// Returns how many leases are renewed with one request.
    ///
    /// The server does nothing else meanwhile, which takes about a tenth of a millisecond.
    #[must_use]
    pub fn renews_at_once(&self) -> usize {
        if self.shared.takes_many.load(Ordering::Relaxed) { 32 } else { 1 }
    }

    /// Returns whether there is a live connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.connections.lock().live.is_some()
    }

    /// Returns the live connection, or a new one. One is dialed at a time, by a task.
    async fn live(&self) -> Result<Live> {
        let present = || self.shared.connections.lock().live.clone();
        if let Some(live) = present() {
            return Ok(live);
        }
        let shared = Arc::clone(&self.shared);
        // Boxed, as all that is rare: it would be part of every request's future.
        Box::pin(self.dialing.run(present, || async move { shared.dial_in_time().await })).await
    }

    /// Connects, and checks that the server is one that keeps locks.
    ///
    /// # Errors
    ///
    /// It cannot be reached, or is none.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn connect(&self) -> Result<()> {
        self.live().await.map(|_| ())
    }

    /// Runs a script. If the connection turns out to be broken, runs it once more over a new one and says so: the
    /// first may have been executed as well.
    ///
    /// # Errors
    ///
    /// No connection, no answer, or an answer that is an error.
    ///
    /// # Cancel safety
    ///
    /// The script may be executed or not; [`run_everywhere`](Self::run_everywhere) comes after it.
    pub async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[&str],
    ) -> Result<Answer<T>> {
        let mut live = self.live().await?;
        match self.watched(&mut live, script, keys, arguments).await {
            Ok(value) => Ok(Answer { value, repeated: false }),
            Err(error) => Box::pin(self.run_again(&live, error, script, keys, arguments)).await,
        }
    }

    /// Runs a script once more if the connection over which it failed turned out to be broken.
    async fn run_again<T: FromRedisValue>(
        &self,
        first: &Live,
        error: RedisError,
        script: &Script,
        keys: &[&str],
        arguments: &[&str],
    ) -> Result<Answer<T>> {
        if !error.is_io_error() || error.is_timeout() {
            let repeated = first.connection.repeats_requests();
            let meaning = if repeated { failure::of_repeated_request } else { failure::of_request };
            return Err(meaning(error, self.server()));
        }
        tracing::debug!(%error, server = self.server(), "the connection broke; the request is repeated over a new one");
        // The first request may have been executed, so a failure from here on must not claim to be without effect.
        let broken = |cause: Error| {
            Error::new(ErrorKind::Unavailable, "the connection broke and cannot be opened again")
                .with_server(self.server())
                .with_source(cause)
        };
        let mut second = self.live().await.map_err(broken)?;
        let value = self.watched(&mut second, script, keys, arguments).await;
        let value = value.map_err(|error| broken(failure::of_request(error, self.server())))?;
        Ok(Answer { value, repeated: true })
    }

    /// Runs a script over the live connection and all that went silent since `since`, and succeeds once each has
    /// answered or broken, with what came over the live one.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), over the live connection.
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Self::run).
    pub async fn run_everywhere<T: FromRedisValue>(
        &self,
        since: BootInstant,
        script: &Script,
        keys: &[&str],
        arguments: &[&str],
    ) -> Result<Answer<T>> {
        let now = BootInstant::now();
        let silent: Vec<Connection> = {
            let mut connections = self.shared.connections.lock();
            connections.retired.retain(|retired| now.since(retired.at) < self.shared.ttl);
            let may_carry_it = connections.retired.iter().filter(|retired| retired.at >= since);
            may_carry_it.map(|retired| retired.connection.clone()).collect()
        };
        let repeated = !silent.is_empty();
        let over_silent = silent.into_iter().map(|mut connection| async move {
            connection.run::<redis::Value>(script, keys, arguments).await
        });
        let over_silent = futures_util::future::join_all(over_silent);
        let (over_live, _) = tokio::join!(self.run(script, keys, arguments), over_silent);
        over_live.map(|live| Answer { repeated: live.repeated || repeated, ..live })
    }

    /// Awaits a request and learns from it about the connection: a broken one is dropped, and one that left a request
    /// without an answer until the caller gave up is retired.
    async fn watched<T: FromRedisValue>(
        &self,
        live: &mut Live,
        script: &Script,
        keys: &[&str],
        arguments: &[&str],
    ) -> RedisResult<T> {
        let (number, heard) = (live.number, Arc::clone(&live.heard));
        let sent = BootInstant::now().as_nanos();
        let mut in_flight = InFlightGuard { shared: &self.shared, number, heard, sent, answered: false };
        let result = live.connection.run(script, keys, arguments).await;
        in_flight.answered = true;
        live.heard.fetch_max(BootInstant::now().as_nanos(), Ordering::Relaxed);
        if let Err(error) = &result {
            if error.is_timeout() {
                self.shared.retire(number);
            } else if must_reconnect(error) {
                self.shared.connections.lock().live.take_if(|live| live.number == number);
            }
        }
        result
    }
}

impl Shared {
    async fn dial_in_time(&self) -> Result<Live> {
        let limit = self.dialing_time;
        let dialed = time::timeout(limit, self.dial()).await.unwrap_or_else(|_| {
            let protocol = self.target.protocol();
            let message = format!(
                "no connection within {limit:?}; is the server reachable, and does it speak {protocol}?"
            );
            Err(Error::new(ErrorKind::Unavailable, message).with_server(&self.server).without_effect())
        });
        let connection = dialed?;
        let mut connections = self.connections.lock();
        connections.dialed += 1;
        let live = Live { number: connections.dialed, connection, heard: Arc::default() };
        connections.live = Some(live.clone());
        Ok(live)
    }

    async fn dial(&self) -> Result<Connection> {
        let failed = |error| failure::of_connecting(error, &self.server);
        let connection = self.target.connect().await.map_err(failed)?;
        let scripts: Vec<&Script> = self.scripts.iter().map(|script| &***script).collect();
        // Sent together, since each round trip counts where leases are short and servers far.
        let may_publish = async {
            match &self.channel {
                Some(channel) => connection.may_publish(channel).await,
                None => Ok(true),
            }
        };
        let (told, loaded, may_publish, time) = if self.target.is_one_server() {
            tokio::join!(connection.info(), connection.load(&scripts), may_publish, connection.time())
        } else {
            // The library's connection to a cluster may hang if several of these are sent together.
            (
                connection.info().await,
                connection.load(&scripts).await,
                may_publish.await,
                connection.time().await,
            )
        };
        loaded.map_err(failed)?;
        let connection = connection.dialed_at(time.map_err(failed)?);
        if !may_publish.unwrap_or(true) {
            let server = &self.server;
            tracing::warn!(
                server,
                channel = self.channel,
                "the user has no right to channels: waiters are not told of releases and look once per TTL; grant \
                 PUBLISH, SUBSCRIBE and the channels that begin with the prefix (ACL SETUSER … &<prefix>:*)"
            );
        }
        let told = match told {
            Err(error) if error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoPerm) => None,
            told => Some(told.map_err(failed)?),
        };
        let in_cluster = fields(told.as_deref(), "cluster_enabled").any(|enabled| enabled == "1");
        self.takes_many.store(connection.to_one_server().is_some() && !in_cluster, Ordering::Relaxed);
        let named = |error: Error| error.with_server(&self.server);
        check(told.as_deref(), self.target.accepts_eviction())
            .map_err(named)
            .map_err(Error::without_effect)?;
        if let Some(handshake) = &self.handshake {
            handshake.run(&connection, told.as_deref()).await.map_err(named)?;
        }
        Ok(connection)
    }

    fn retire(&self, number: u64) {
        let mut connections = self.connections.lock();
        if let Some(live) = connections.live.take_if(|live| live.number == number) {
            let now = BootInstant::now();
            connections.retired.retain(|retired| now.since(retired.at) < self.ttl);
            connections.retired.push(Retired { at: now, connection: live.connection });
        }
    }
}

/// What a script returned, and whether it was sent more than once.
#[derive(Debug)]
pub struct Answer<T> {
    /// What it returned.
    pub value: T,
    /// Whether it was sent more than once.
    pub repeated: bool,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("server", &self.shared.server).finish_non_exhaustive()
    }
}

/// A request under way. If its caller gives up on it late, and nothing was heard over the connection for long, that is
/// suspected of being dead: a half-open one never breaks by itself. One that is slow is not left: to dial, and to undo
/// over both, would make it slower still.
struct InFlightGuard<'a> {
    shared: &'a Shared,
    number: u64,
    heard: Arc<AtomicU64>,
    /// In nanoseconds of a [`BootInstant`].
    sent: u64,
    answered: bool,
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let last = self.sent.max(self.heard.load(Ordering::Relaxed));
        let silent = Duration::from_nanos(BootInstant::now().as_nanos().saturating_sub(last));
        // Half of the time is enough to suspect it, since part of the caller's time may have gone into dialing.
        if silent >= self.shared.request_timeout / 2 {
            self.shared.retire(self.number);
        }
    }
}

/// Returns whether the connection is of no use any more. A server that has become a replica is left too, so that its
/// primary is asked for again.
fn must_reconnect(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::ReadOnly)
}

/// Checks that a server that says this of itself keeps locks.
fn check(told: Option<&str>, accept_eviction: bool) -> Result<()> {
    let replica = fields(told, "role").any(|role| role == "slave")
        && !fields(told, "role").any(|role| role == "master");
    if replica {
        return Err(Error::new(ErrorKind::Unavailable, "the server is a replica; connect to the primary"));
    }
    if accept_eviction {
        return Ok(());
    }
    let mut policies = fields(told, "maxmemory_policy").peekable();
    let reason = if policies.peek().is_none() {
        "the server does not tell its maxmemory-policy; allow INFO to the user".to_owned()
    } else if let Some(policy) = policies.find(|policy| *policy != "noeviction") {
        format!(
            "the server's maxmemory-policy is {policy}, which may delete locks that are held; set it to noeviction"
        )
    } else {
        return Ok(());
    };
    let message = format!("{reason}, or accept the danger with Target::accepting_eviction");
    Err(Error::new(ErrorKind::UnsafeConfig, message))
}

/// Returns all values of `name` in what servers tell of themselves.
pub fn fields<'a>(told: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = told.unwrap_or_default().lines().filter_map(|line| line.split_once(':'));
    lines.filter(move |(field, _)| *field == name).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_primary_that_never_evicts_is_trusted() {
        let info =
            |role: &str, policy: &str| format!("# Server\r\nrole:{role}\r\nmaxmemory_policy:{policy}\r\n");
        assert!(check(Some(&info("master", "noeviction")), false).is_ok());
        for (told, kind) in [
            (Some(info("master", "allkeys-lru")), ErrorKind::UnsafeConfig),
            (Some(info("master", "noeviction") + &info("master", "volatile-ttl")), ErrorKind::UnsafeConfig),
            (Some("nothing".to_owned()), ErrorKind::UnsafeConfig),
            (None, ErrorKind::UnsafeConfig),
            (Some(info("slave", "noeviction")), ErrorKind::Unavailable),
        ] {
            assert_eq!(check(told.as_deref(), false).unwrap_err().kind(), kind, "{told:?}");
        }
        assert!(check(None, true).is_ok());
        assert!(check(Some(&info("master", "allkeys-lru")), true).is_ok());
    }
}
