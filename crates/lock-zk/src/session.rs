//! One ZooKeeper session: how long it is certain, and the watches in it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use lock_core::{
    Error, ErrorKind, LossReason, Result,
    backend::{BootInstant, BoxFuture, LeaseTiming, Validity},
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time,
};
use zookeeper_client::{Client, Error as ZkError, EventType, MultiWriteError};

use crate::{ensemble::Ensemble, failure};

/// The client library cannot send more than 128 KiB of watched paths again after a reconnection, and then lets the session
/// expire. A session with this much is full.
const WATCHED_BYTES: usize = 96 * 1024;

/// What a check of any version is written as.
const ANY_VERSION: i32 = -1;

/// How old a hold is when its node begins to be watched: most are given back before, and so pay no request for it.
const UNWATCHED: Duration = Duration::from_millis(100);

/// A session, from its opening until it is over. Dropping it closes it, and with it go its nodes.
pub(crate) struct Session {
    client: Arc<Mutex<Option<Arc<Client>>>>,
    validity: Arc<Validity>,
    timeout: Duration,
    watched: AtomicUsize,
    jobs: mpsc::UnboundedSender<Job>,
}

type Job = BoxFuture<'static, ()>;

/// A share of a session, with space for some watches.
pub(crate) struct Room {
    session: Arc<Session>,
    bytes: AtomicUsize,
}

impl Session {
    /// Opens a session and supervises it in a task of the present runtime.
    pub(crate) async fn open(ensemble: &Ensemble, timing: &LeaseTiming) -> Result<Arc<Self>> {
        let sent = BootInstant::now();
        let client = Arc::new(ensemble.connect(timing).await?);
        let timeout = client.session_timeout();
        let period = timing.renew_every().min(timeout / 3) / 2;
        let deadline = timing.session_deadline(sent, timeout);
        let certain = deadline.since(sent);
        if certain < period * 2 {
            let message = format!(
                "a session of {timeout:?}, which is what the servers grant, is certain for {certain:?} after drift and margin; \
                 with renewals every {period:?} that is too little: use a longer TTL or smaller margins"
            );
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .with_server(ensemble.servers())
                .without_effect());
        }
        let validity = Arc::new(Validity::until(deadline));
        let (jobs, new_jobs) = mpsc::unbounded_channel();
        let supervisor = Supervisor {
            client: Arc::clone(&client),
            validity: Arc::clone(&validity),
            timing: *timing,
            timeout,
            period,
        };
        let client = Arc::new(Mutex::new(Some(client)));
        tokio::spawn({
            let client = Arc::clone(&client);
            async move {
                supervisor.run(new_jobs).await;
                // What nobody can trust any more is closed, so that its nodes are gone as soon as the servers hear of it.
                client.lock().take();
            }
        });
        Ok(Arc::new(Self { client, validity, timeout, watched: AtomicUsize::new(0), jobs }))
    }

    /// The client, as long as the session is certain.
    pub(crate) fn client(&self) -> Option<Arc<Client>> {
        self.client.lock().clone().filter(|_| self.validity.is_valid())
    }

    /// How long the holders in it may believe.
    pub(crate) fn validity(&self) -> &Arc<Validity> {
        &self.validity
    }

    /// What the servers granted.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.watched.load(Ordering::Relaxed) == 0
    }

    /// Takes space for watches on paths of so many `bytes`, if the session is certain and not full.
    pub(crate) fn room(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        let fits =
            |watched: usize| (watched == 0 || watched + bytes <= WATCHED_BYTES).then_some(watched + bytes);
        if !self.validity.is_valid()
            || self.watched.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err()
        {
            return None;
        }
        Some(Room { session: Arc::clone(self), bytes: AtomicUsize::new(bytes) })
    }

    /// Ends `validity` when the node at `path` is gone.
    pub(crate) fn watch_own(
        &self,
        client: &Arc<Client>,
        path: &str,
        validity: &Arc<Validity>,
        at_once: bool,
    ) {
        let (client, path, validity) = (Arc::clone(client), path.to_owned(), Arc::downgrade(validity));
        self.run(async move {
            if !at_once {
                time::sleep(UNWATCHED).await;
            }
            if validity.strong_count() == 0 || !deleted(&client, &path).await {
                return;
            }
            if let Some(validity) = validity.upgrade() {
                validity.end(LossReason::NotOwner);
            }
        });
    }

    /// Resolves when the node at `path` is gone, or with an error when the session is over.
    pub(crate) fn watch_other(&self, client: &Arc<Client>, path: String) -> oneshot::Receiver<()> {
        let (mut gone, told) = oneshot::channel();
        let client = Arc::clone(client);
        self.run(async move {
            let is_gone = tokio::select! {
                is_gone = deleted(&client, &path) => is_gone,
                () = gone.closed() => false,
            };
            if is_gone {
                let _ = gone.send(());
            }
        });
        told
    }

    fn run(&self, job: impl Future<Output = ()> + Send + 'static) {
        // After the supervisor's end nobody runs it, and whoever waits for it sees that.
        let _ = self.jobs.send(Box::pin(job));
    }
}

impl Room {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Gives all but `bytes` back.
    pub(crate) fn shrink_to(&self, bytes: usize) {
        let before = self.bytes.fetch_min(bytes, Ordering::Relaxed);
        self.session.watched.fetch_sub(before.saturating_sub(bytes), Ordering::Relaxed);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// Waits until there is no node at `path`. False if the session is over before.
async fn deleted(client: &Client, path: &str) -> bool {
    loop {
        match client.check_and_watch_stat(path).await {
            Ok((None, _)) => return true,
            Ok((Some(_), watcher)) => match watcher.changed().await.event_type {
                EventType::NodeDeleted => return true,
                EventType::Session => return false,
                _ => {}
            },
            Err(error) if failure::is_of_session(&error) => return false,
            // A request sent in vain is sent again when there is a connection again.
            Err(error) => {
                tracing::debug!(%error, path, "a watch was not set and is set again");
                time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// The task behind a session: it asks the servers now and then, and knows from their answers how long they cannot have ended
/// the session.
struct Supervisor {
    client: Arc<Client>,
    validity: Arc<Validity>,
    timing: LeaseTiming,
    timeout: Duration,
    period: Duration,
}

impl Supervisor {
    /// Runs until the session is over, or everybody has left it.
    async fn run(self, mut new_jobs: mpsc::UnboundedReceiver<Job>) {
        let mut states = self.client.state_watcher();
        // The watcher tells changes only, and the first may have come before it.
        if self.client.state().is_terminated() {
            self.validity.end(LossReason::SessionEnded);
        }
        let (mut jobs, mut beats) = (FuturesUnordered::new(), FuturesUnordered::new());
        let mut clock = time::interval(self.period);
        clock.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut over = std::pin::pin!(self.validity.ended());
        loop {
            tokio::select! {
                job = new_jobs.recv() => match job {
                    Some(job) => jobs.push(job),
                    None => return,
                },
                Some(()) = jobs.next() => {}
                // The client's own pings cannot be seen, so there are requests besides, each with its time of sending.
                _ = clock.tick() => beats.push(self.beat()),
                Some(sent) = beats.next() => {
                    if let Some(sent) = sent {
                        self.validity.extend(self.timing.session_deadline(sent, self.timeout));
                    }
                }
                state = states.changed() => {
                    tracing::debug!(%state, session = %self.client.session_id(), "the session changed its state");
                    if state.is_terminated() {
                        self.validity.end(LossReason::SessionEnded);
                        return;
                    }
                }
                () = &mut over => {
                    tracing::warn!(session = %self.client.session_id(), "a session could not be kept and is given up");
                    return;
                }
            }
        }
    }

    /// Asks for a vote. Returns when it was asked for, if it was held.
    ///
    /// A read would not do: a follower that has lost its leader goes on answering reads, and a leader that has lost its
    /// majority does so too, while the others have ended the session. There may be several such questions at once, but none
    /// outlasts the session.
    async fn beat(&self) -> Option<BootInstant> {
        let sent = BootInstant::now();
        vote(&self.client).await.is_ok().then_some(sent)
    }
}

/// Puts something small to the vote of the servers. It is sent at the call, not at the first poll.
///
/// Any outcome will do, since each has been agreed on. When it is known, all that was agreed on before has taken place at the
/// server that answers.
pub(crate) fn vote(client: &Client) -> impl Future<Output = Result<(), ZkError>> + Send {
    let mut check = client.new_multi_writer();
    let written = check.add_check_version("/", ANY_VERSION);
    let voted = check.commit();
    async move {
        written?;
        match voted.await {
            Ok(_) | Err(MultiWriteError::OperationFailed { .. }) => Ok(()),
            Err(MultiWriteError::RequestFailed { source }) => Err(source),
        }
    }
}
