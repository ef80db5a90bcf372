//! One client for one endpoint at a time, moved on when that endpoint fails.

use std::{future::Future, sync::Arc, time::Duration};

use etcd_client::{Client, ConnectOptions, KvClient, LeaseClient, WatchClient};
use lock_core::{Result, backend::LeaseTiming};
use parking_lot::Mutex;
use tokio::{sync::watch, time};

use crate::{
    failure::{Failure, Outcome},
    target::Target,
};

const LONGEST_BREATH: Duration = Duration::from_millis(100);

/// The endpoints of the cluster. One client over all of them would go on choosing dead ones (its balancer does).
pub(crate) struct Servers {
    endpoints: Vec<Arc<str>>,
    options: ConnectOptions,
    request_timeout: Duration,
    /// Counts the endpoints that were given up; the present one follows from it.
    visit: watch::Sender<u64>,
    server: Mutex<Option<Server>>,
    dialing: tokio::sync::Mutex<()>,
}

/// The clients of one endpoint.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) name: Arc<str>,
    pub(crate) kv: KvClient,
    pub(crate) lease: LeaseClient,
    pub(crate) watch: WatchClient,
    visit: u64,
}

/// How a request ended.
pub(crate) struct Reply<T> {
    pub(crate) result: Result<T, Failure>,
    /// Whether it was also sent to a server that did not answer, and may still execute it.
    pub(crate) unsure: bool,
    server: Arc<str>,
}

impl<T> Reply<T> {
    /// The answer, or the error for a caller.
    pub(crate) fn into_result(self) -> Result<T> {
        self.result.map_err(|failure| failure.into_error(&self.server, self.unsure))
    }
}

impl Servers {
    pub(crate) fn new(target: Target, timing: &LeaseTiming) -> Self {
        let request_timeout = timing.request_timeout();
        // The beats of a session keep a live connection busy; a ping is sent only where they stopped coming back, since
        // etcd hangs up on those who ping much.
        let options = target
            .client
            .with_keep_alive(timing.renew_every(), request_timeout)
            .with_keep_alive_while_idle(false)
            .with_connect_timeout(request_timeout / 2)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        let endpoints = target.endpoints.into_iter().map(Arc::from).collect();
        let (server, dialing) = Default::default();
        Self { endpoints, options, request_timeout, visit: watch::Sender::new(0), server, dialing }
    }

    /// How far apart attempts to go on after a failure are.
    pub(crate) fn breath(&self) -> Duration {
        (self.request_timeout / 8).min(LONGEST_BREATH)
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

    /// The present server. If it cannot be logged in to, it is given up.
    pub(crate) async fn current(&self) -> Result<Server, Failure> {
        if let Some(server) = self.server.lock().clone() {
            return Ok(server);
        }
        let _turn = self.dialing.lock().await;
        if let Some(server) = self.server.lock().clone() {
            return Ok(server);
        }
        let visit = *self.visit.borrow();
        let name = Arc::clone(self.endpoint(visit));
        // This connects only if there is a user to log in; otherwise the first request does.
        let connecting = Client::connect([name.as_ref()], Some(self.options.clone()));
        let client = match self.limited(connecting).await {
            Ok(client) => client,
            Err(failure) => {
                self.leave(visit);
                return Err(failure);
            }
        };
        let (kv, lease, watch) = (client.kv_client(), client.lease_client(), client.watch_client());
        let server = Server { name, kv, lease, watch, visit };
        let mut present = self.server.lock();
        // One that was given up meanwhile must not become the present one: nobody could give it up again.
        if *self.visit.borrow() == visit {
            *present = Some(server.clone());
        }
        Ok(server)
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
    pub(crate) async fn ask<T, F>(&self, request: impl Fn(Server) -> F) -> Reply<T>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut unsure = false;
        let mut tries = self.endpoints.len().max(2);
        loop {
            tries -= 1;
            let name = Arc::clone(self.endpoint(*self.visit.borrow()));
            let (result, name) = match self.current().await {
                Ok(server) => {
                    let result = self.limited(request(server.clone())).await;
                    if result.as_ref().is_err_and(|failure| failure.outcome() != Outcome::Refused) {
                        self.give_up(&server);
                    }
                    unsure |= result.as_ref().is_err_and(|failure| failure.outcome() == Outcome::Unknown);
                    (result, server.name)
                }
                // A login has no effect on any lock.
                Err(failure) => (Err(failure), name),
            };
            match result {
                Err(failure) if tries > 0 && failure.outcome() != Outcome::Refused => {
                    tracing::debug!(server = &*name, ?failure, "a request goes to the next endpoint");
                }
                result => return Reply { result, unsure, server: name },
            }
        }
    }
}
