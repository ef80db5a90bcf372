//! One client for one endpoint at a time, moved on when that endpoint fails.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use etcd_client::{Client, ConnectOptions, KvClient, LeaseClient, ResponseHeader, WatchClient};
use futures_util::{StreamExt, stream::FuturesUnordered};
use lock_core::{
    Error, ErrorKind, Result,
    backend::{Effect, LeaseTiming, SharedAttempt},
};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch, time};

use crate::{
    failure::{Failure, Outcome},
    target::Target,
};

const LONGEST_RETRY_DELAY: Duration = Duration::from_millis(100);

/// More than the five seconds that etcd wants between pings of a client to whom it sends nothing else. It hangs up at
/// the third that comes sooner.
const LEAST_PING_INTERVAL: Duration = Duration::from_secs(6);

/// The endpoints of the cluster. One client over all of them would go on choosing dead ones (its balancer does).
pub(crate) struct Servers {
    endpoints: Vec<Arc<str>>,
    options: ConnectOptions,
    request_timeout: Duration,
    /// Counts the endpoints that were given up; the present one follows from it.
    visit: watch::Sender<u64>,
    server: Mutex<Option<Arc<Server>>>,
    dialing: SharedAttempt<Result<Arc<Server>, Failure>>,
    /// The cluster that the first endpoint belongs to, and all others must.
    cluster: OnceLock<u64>,
}

/// The clients of one endpoint. To clone one of them costs some allocations.
pub(crate) struct Server {
    pub(crate) name: Arc<str>,
    pub(crate) kv: KvClient,
    pub(crate) lease: LeaseClient,
    pub(crate) watch: WatchClient,
    visit: u64,
}

/// What a server answers, with a header that says who it is.
pub(crate) trait Answer {
    fn header(&self) -> Option<&ResponseHeader>;
}

macro_rules! answers {
    ($($answer:ident),*) => {$(
        impl Answer for etcd_client::$answer {
            fn header(&self) -> Option<&ResponseHeader> {
                self.header()
            }
        }
    )*};
}

answers!(
    DeleteResponse,
    GetResponse,
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseRevokeResponse,
    TxnResponse
);

/// How a request ended.
pub(crate) struct Reply<T> {
    pub(crate) result: Result<T, Failure>,
    /// That of the request on servers that did not answer, which may still execute it.
    pub(crate) effect: Effect,
    server: Arc<str>,
}

impl<T> Reply<T> {
    /// The answer, or the error for a caller.
    pub(crate) fn into_result(self) -> Result<T> {
        self.result.map_err(|failure| failure.into_error(&self.server, self.effect))
    }
}

impl Servers {
    pub(crate) fn new(target: Target, timing: &LeaseTiming, runtime: &Handle) -> Self {
        let request_timeout = timing.request_timeout();
        // The beats of a session keep a live connection busy; a ping is sent only where they stopped coming back.
        let options = target
            .client
            .with_keep_alive(timing.renew_every().max(LEAST_PING_INTERVAL), request_timeout)
            .with_keep_alive_while_idle(false)
            .with_connect_timeout(request_timeout / 2)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        let endpoints = target.endpoints.into_iter().map(Arc::from).collect();
        let dialing = SharedAttempt::new(runtime.clone());
        let (visit, server, cluster) = Default::default();
        Self { endpoints, options, request_timeout, visit, server, dialing, cluster }
    }

    /// Returns how far apart the first attempts to go on after a failure are.
    pub(crate) fn retry_delay(&self) -> Duration {
        (self.request_timeout / 8).min(LONGEST_RETRY_DELAY)
    }

    /// Returns how far apart attempts are that fail again and again.
    pub(crate) fn longest_delay(&self) -> Duration {
        self.request_timeout.max(Duration::from_secs(1))
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Resolves when `server` has been given up.
    pub(crate) async fn left(&self, server: &Server) {
        let mut visits = self.visit.subscribe();
        // It cannot fail: the sender is here.
        let _ = visits.wait_for(|present| *present != server.visit).await;
    }

    fn endpoint(&self, visit: u64) -> &Arc<str> {
        let count = u64::try_from(self.endpoints.len()).expect("a few");
        &self.endpoints[usize::try_from(visit % count).expect("less than the count")]
    }

    /// Returns the present server. If it cannot be logged in to, it is given up.
    pub(crate) async fn current(self: &Arc<Self>) -> Result<Arc<Server>, Failure> {
        let servers = Arc::clone(self);
        let present = || self.server.lock().clone().map(Ok);
        self.dialing
            .run(present, || async move { Ok(servers.dial().await) })
            .await
            .unwrap_or_else(|ended| Err(Failure::Own(ended)))
    }

    async fn dial(&self) -> Result<Arc<Server>, Failure> {
        let visit = *self.visit.borrow();
        let name = Arc::clone(self.endpoint(visit));
        let dialing = self.connect(&name);
        let client = match dialing.await {
            Ok(client) => client,
            Err(failure) => {
                self.leave(visit);
                return Err(failure);
            }
        };
        let (kv, lease, watch) = (client.kv_client(), client.lease_client(), client.watch_client());
        let server = Arc::new(Server { name, kv, lease, watch, visit });
        let mut present = self.server.lock();
        // One that was given up meanwhile must not become the present one: nobody could give it up again.
        if *self.visit.borrow() == visit {
            *present = Some(Arc::clone(&server));
        }
        Ok(server)
    }

    /// Connects to an endpoint, and makes sure that it belongs to the same cluster as the others.
    async fn connect(&self, name: &str) -> Result<Client, Failure> {
        // This connects only if there is a user to log in; otherwise the first request does.
        let mut client = self.limited(Client::connect([name], Some(self.options.clone()))).await?;
        match self.limited(client.status()).await {
            // Every answer is looked at all the same.
            Err(failure) if failure.outcome() == Outcome::Refused => {}
            status => self.check_cluster(status?.header())?,
        }
        Ok(client)
    }

    /// Makes sure that an answer is from the cluster that the first one was from: a connection may be renewed unseen,
    /// and lead elsewhere then.
    pub(crate) fn check_cluster(&self, header: Option<&ResponseHeader>) -> Result<(), Failure> {
        let Some(told) = header.map(ResponseHeader::cluster_id) else { return Ok(()) };
        let known = *self.cluster.get_or_init(|| told);
        if known == told {
            return Ok(());
        }
        let message = format!(
            "the endpoints belong to different clusters, {told:x} and {known:x}, which would both grant one lock; name \
             those of one"
        );
        Err(Failure::Own(Error::new(ErrorKind::UnsafeConfig, message)))
    }

    /// Connects to all endpoints at once, and fails if they belong to different clusters. Those that do not answer
    /// within `limit` are looked at when they are first used.
    pub(crate) async fn check_all(&self, limit: Duration) -> Result<()> {
        let connect = async |name: Arc<str>| (self.connect(&name).await, name);
        let mut connecting: FuturesUnordered<_> = self.endpoints.iter().cloned().map(connect).collect();
        let unsafe_one = async {
            while let Some((connected, name)) = connecting.next().await {
                match connected {
                    Err(Failure::Own(error)) if error.kind() == ErrorKind::UnsafeConfig => {
                        return Err(error.with_server(&name).without_effect());
                    }
                    _ => {}
                }
            }
            Ok(())
        };
        time::timeout(limit, unsafe_one).await.unwrap_or(Ok(()))
    }

    /// Gives up `server`, unless that was done before. All streams and requests then use the next endpoint.
    pub(crate) fn give_up(&self, server: &Server) {
        self.leave(server.visit);
    }

    fn leave(&self, visit: u64) {
        let mut server = self.server.lock();
        let left = self.visit.send_if_modified(|present| {
            let left = *present == visit;
            *present += u64::from(left);
            left
        });
        if left {
            *server = None;
        }
    }

    /// Leaves time for another endpoint within the request timeout.
    async fn limited<T>(
        &self,
        request: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Failure> {
        let limit = self.request_timeout.mul_f64(0.6);
        match time::timeout(limit, request).await {
            Ok(result) => result.map_err(Failure::from),
            Err(_) => Err(Failure::NoAnswer(limit)),
        }
    }

    /// Sends a request that may be sent twice, to one endpoint after the other until one answers.
    pub(crate) async fn ask<T, F>(self: &Arc<Self>, request: impl Fn(Arc<Server>) -> F) -> Reply<T>
    where
        T: Answer,
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut effect = Effect::None;
        let mut tries = self.endpoints.len().max(2);
        loop {
            tries -= 1;
            let name = Arc::clone(self.endpoint(*self.visit.borrow()));
            let (result, name) = match self.current().await {
                Ok(server) => {
                    let result = self.limited(request(Arc::clone(&server))).await;
                    let result =
                        result.and_then(|answer| self.check_cluster(answer.header()).map(|()| answer));
                    if let Err(failure) = &result {
                        if failure.outcome() != Outcome::Refused {
                            self.give_up(&server);
                        }
                        if failure.outcome() == Outcome::Unknown {
                            effect = Effect::Possible;
                        }
                    }
                    (result, Arc::clone(&server.name))
                }
                // A login has no effect on any lock.
                Err(failure) => (Err(failure), name),
            };
            match result {
                Err(failure) if tries > 0 && failure.outcome() != Outcome::Refused => {
                    tracing::debug!(server = &*name, ?failure, "a request goes to the next endpoint");
                }
                result => return Reply { result, effect, server: name },
            }
        }
    }
}
