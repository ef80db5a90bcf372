//! A session: one etcd lease that carries all locks of a locker, and the task that keeps it alive.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use lock_core::{
    Error, ErrorKind, LossReason, Result,
    backend::{BootInstant, LeaseTiming, Validity},
};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::mpsc, time};

use crate::{
    failure::{Failure, Outcome},
    names::Prefix,
    servers::{Server, Servers},
    stake::Stake,
    watches::{self, Watches},
};

/// One lease of etcd. When it is over, all places that depend on it are gone.
pub(crate) struct Session {
    pub(crate) lease: i64,
    /// Until when the servers certainly keep the lease.
    pub(crate) validity: Arc<Validity>,
    pub(crate) watches: Watches,
    /// The name and the present modification of the key that fences off late requests.
    pub(crate) fence: String,
    pub(crate) fence_revision: AtomicI64,
}

/// The present session of a locker; a new one is opened when it is needed and the old one is over.
pub(crate) struct Sessions {
    servers: Arc<Servers>,
    prefix: Prefix,
    timing: LeaseTiming,
    runtime: Handle,
    present: Mutex<Option<Present>>,
    opening: tokio::sync::Mutex<()>,
}

struct Present {
    session: Arc<Session>,
    /// Closed when nobody needs the session any more, which ends it.
    _needed: mpsc::Sender<Infallible>,
}

impl Sessions {
    pub(crate) fn new(servers: &Arc<Servers>, prefix: Prefix, timing: LeaseTiming) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|error| {
            Error::new(ErrorKind::Closed, "a locker must be made within a tokio runtime").with_source(error)
        })?;
        let servers = Arc::clone(servers);
        let (present, opening) = Default::default();
        Ok(Self { servers, prefix, timing, runtime, present, opening })
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The session that is not over, as far as is known.
    pub(crate) async fn live(&self) -> Result<Arc<Session>> {
        if let Some(session) = self.present() {
            return Ok(session);
        }
        let _turn = self.opening.lock().await;
        if let Some(session) = self.present() {
            return Ok(session);
        }
        self.open().await
    }

    fn present(&self) -> Option<Arc<Session>> {
        let present = self.present.lock();
        let session = &present.as_ref()?.session;
        session.validity.is_valid().then(|| Arc::clone(session))
    }

    async fn open(&self) -> Result<Arc<Session>> {
        // etcd counts in seconds.
        let asked = self.timing.ttl().as_millis().div_ceil(1000);
        let asked = i64::try_from(asked).expect("a TTL is at most a day");
        let sent = BootInstant::now();
        let reply = self.servers.ask(|mut server| async move { server.lease.grant(asked, None).await }).await;
        // A lease that was granted unseen has no keys and ends by itself.
        let granted = reply.into_result().map_err(Error::without_effect)?;
        let (lease, ttl) = (granted.id(), seconds(granted.ttl()));
        if lease == 0 || ttl.is_zero() {
            let message = "the server granted a lease without a number or a time";
            return Err(Error::new(ErrorKind::Unexpected, message).without_effect());
        }
        let (watches, orders) = Watches::new();
        let session = Arc::new(Session {
            lease,
            validity: Arc::new(Validity::until(self.timing.deadline(sent, ttl))),
            watches,
            fence: self.prefix.fence(lease),
            fence_revision: AtomicI64::new(0),
        });
        let keeper = Keeper {
            session: Arc::clone(&session),
            servers: Arc::clone(&self.servers),
            timing: self.timing,
            ttl,
        };
        let (needed, unneeded) = mpsc::channel(1);
        self.runtime.spawn(keeper.keep(orders, unneeded));
        *self.present.lock() = Some(Present { session: Arc::clone(&session), _needed: needed });
        Ok(session)
    }
}

/// What the task of a session works with.
struct Keeper {
    session: Arc<Session>,
    servers: Arc<Servers>,
    timing: LeaseTiming,
    ttl: Duration,
}

impl Keeper {
    /// Keeps the session alive and its watches open until it is over, or nobody needs it.
    async fn keep(self, orders: watches::Orders, mut unneeded: mpsc::Receiver<Infallible>) {
        tokio::select! {
            () = self.beat() => {
                let reason = self.session.validity.reason();
                tracing::warn!(lease = self.session.lease, ?reason, "a session is over, and all its locks are lost");
            }
            () = watches::serve(orders, &self.servers) => {}
            _ = unneeded.recv() => self.end().await,
        }
    }

    /// Frees what is left on the servers at once. If that fails, the end of the lease frees it.
    async fn end(&self) {
        let lease = self.session.lease;
        let revoking = self.servers.ask(|mut server| async move { server.lease.revoke(lease).await });
        if let Ok(Err(error)) =
            time::timeout(self.timing.request_timeout(), revoking).await.map(|reply| reply.into_result())
        {
            tracing::debug!(lease, %error, "a session was not ended at once; it ends with its TTL");
        }
        self.session.validity.end(LossReason::SessionEnded);
    }

    /// Sends a beat each third of the TTL, to one endpoint after the other; returns when the session is over.
    async fn beat(&self) {
        let mut due = BootInstant::now().after(self.timing.renew_every());
        while self.session.validity.is_valid() {
            time::sleep(due.since(BootInstant::now())).await;
            let begun = BootInstant::now();
            let failure = match self.servers.current().await {
                Ok(server) => {
                    let Err(failure) = self.beat_at(&server, &mut due).await;
                    if BootInstant::now() < due {
                        continue;
                    }
                    self.servers.give_up(&server);
                    failure
                }
                Err(failure) => failure,
            };
            if failure.is_end_of_lease() {
                self.session.validity.end(LossReason::SessionEnded);
                return;
            }
            let remaining = self.session.validity.remaining();
            tracing::debug!(
                ?failure,
                ?remaining,
                "a session was not kept alive, and the next endpoint is asked"
            );
            if failure.outcome() != Outcome::NotSent {
                // Failures shall not follow too closely.
                time::sleep(self.servers.breath().saturating_sub(BootInstant::now().since(begun))).await;
            }
        }
    }

    /// Sends beats over one stream until one is not answered in time, or the endpoint is given up before the next one
    /// is `due`.
    async fn beat_at(&self, server: &Server, due: &mut BootInstant) -> Result<Infallible, Failure> {
        let limit = self.timing.request_timeout();
        let too_late = |_| Failure::NoAnswer(limit);
        let mut lease = server.lease.clone();
        let mut sent = BootInstant::now();
        // The answer to the first beat says nothing but that the lease lives.
        let opening = time::timeout(limit, lease.keep_alive(self.session.lease));
        let (mut beats, mut answers) = opening.await.map_err(too_late)??;
        let mut granted = self.ttl;
        loop {
            self.session.validity.extend(self.timing.deadline(sent, granted));
            *due = sent.after(self.timing.renew_every());
            tokio::select! {
                () = time::sleep(due.since(BootInstant::now())) => {}
                () = self.servers.left(server) => return Err(Failure::NoAnswer(limit)),
            }
            sent = BootInstant::now();
            // An answer that comes too late is not taken for one to the next beat: the stream ends here.
            let answer = time::timeout(limit, async {
                beats.keep_alive().await?;
                answers.message().await
            });
            granted = seconds(answer.await.map_err(too_late)??.map_or(0, |answer| answer.ttl()));
            if granted.is_zero() {
                let cause = etcd_client::Error::LeaseKeepAliveError("lease not found".to_owned());
                return Err(Failure::Client(cause));
            }
        }
    }
}

/// Gives up whatever `stake` has, or may still get, on the servers; succeeds once that is certain.
pub(crate) async fn give_up(servers: &Servers, stake: &Stake) -> Result<()> {
    let Some(transaction) = stake.leaving().await else { return Ok(()) };
    let reply = servers
        .ask(|mut server| {
            let transaction = transaction.clone();
            async move { server.kv.txn(transaction).await }
        })
        .await;
    if reply.result.as_ref().is_err_and(Failure::is_end_of_lease) {
        return Ok(());
    }
    reply.into_result().map(|_| ())
}

fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use anyhow::{Context, Result};
    use test_cluster::Etcd;
    use tokio::time::{self, Duration};

    use crate::{EtcdLocker, Options};

    /// Far above what anything takes; reached only when something hangs.
    const BOUND: Duration = Duration::from_secs(30);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_session_is_freed_when_its_locker_is_dropped_soon_after_a_hold() -> Result<()> {
        let etcd = Etcd::start()?;
        let locks = EtcdLocker::connect(etcd.url(), Options::default()).await?;
        let present = locks.backend().store().sessions.present();
        let session = Arc::downgrade(&present.context("a session is opened at once")?);
        locks.lock("a").await?.release().await?;
        drop(locks);
        let freed = async {
            while session.strong_count() > 0 {
                // why: a bounded poll of a condition
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(BOUND, freed).await.context("the session was not freed")
    }
}
