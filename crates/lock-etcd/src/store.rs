//! The lock itself: a queue of places by create revision, each waiter behind its predecessor.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use etcd_client::TxnResponse;
use lock_core::{
    Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, LossReason, Options, Result, Scope,
    TokenOrder, Waiting,
    backend::{AcquireReply, Acquirer, Claim, Effect, LeaseStore, Outcome, Released, Renewal, WaitingStore},
};
use tokio::time;

use crate::{
    Place,
    names::Prefix,
    requests::{self, Ahead, Entered},
    servers::{Reply, Servers},
    session::{self, Sessions},
    stake::{Flight, Stake, Stakes},
    target::Target,
    watches::Sight,
};

/// Locks as keys of one etcd cluster. Users see the [`EtcdLocker`](crate::EtcdLocker) around it.
pub struct Etcd {
    servers: Arc<Servers>,
    stakes: Arc<Stakes>,
    pub(crate) sessions: Sessions,
    prefix: Prefix,
}

/// Where a claim stands after its transaction.
enum Standing {
    First(i64),
    Behind(i64, Option<Ahead>),
    Busy { unsure: bool },
}

/// What a waiter sees when it looks.
enum Turn {
    Come,
    Behind(Ahead),
    /// Its own place is gone.
    Gone,
}

impl Etcd {
    pub(crate) async fn connect(target: Target, options: &Options) -> Result<Self> {
        let timing = options.check()?;
        let prefix = Prefix::new(options.prefix())?;
        let servers = Arc::new(Servers::new(target, &timing));
        let stakes = Arc::<Stakes>::default();
        let sessions = Sessions::new(&servers, prefix.clone(), timing)?;
        let limit = timing.request_timeout();
        let connecting = async {
            sessions.live().await?;
            // A lease is granted to anybody; a look below the prefix is not.
            let reply = servers.ask(|mut server| {
                let all = prefix.all();
                async move { server.kv.get(all, Some(requests::any_one())).await }
            });
            reply.await.into_result()
        };
        let connected = time::timeout(limit, connecting).await.unwrap_or_else(|_| {
            let message =
                format!("no session within {limit:?}; are the servers reachable, and do they speak etcd?");
            Err(Error::new(ErrorKind::Unavailable, message))
        });
        connected.map_err(Error::without_effect)?;
        Ok(Self { servers, stakes, sessions, prefix })
    }

    pub(crate) async fn queue(&self, key: &Key) -> Result<Vec<Place>> {
        let queue = self.prefix.queue(key);
        let reply = self.servers.ask(|mut server| {
            let queue = queue.clone();
            async move { server.kv.get(queue, Some(requests::eldest_first())).await }
        });
        let answer = reply.await.into_result()?;
        let place = |entry: &etcd_client::KeyValue| Place {
            owner: requests::text(entry)[queue.len()..].to_owned(),
            fencing_token: token(entry.create_revision()),
            lease: entry.lease(),
        };
        Ok(answer.kvs().iter().map(place).collect())
    }

    /// Takes a place in the queue, or the first one or none.
    async fn enter(&self, claim: &Claim) -> Result<(Arc<Stake>, Standing)> {
        loop {
            let session = self.sessions.live().await?;
            let place = self.prefix.place(claim.key(), claim.owner());
            let stake = Arc::new(Stake::new(place, session));
            self.stakes.insert(claim.owner(), &stake);
            let flight = send(Arc::clone(&self.servers), Arc::clone(&stake), claim.waits());
            match Flight::new(flight, self.sessions.runtime()).await {
                // No copy of the request can be executed any more, and the next session may.
                Err(Refusal::SessionOver) => {
                    stake.session.validity.end(LossReason::SessionEnded);
                    self.stakes.remove(claim.owner());
                }
                Err(Refusal::Error(error)) => {
                    if error.effect() == Effect::None {
                        self.stakes.remove(claim.owner());
                    }
                    return Err(error);
                }
                Ok(standing) => {
                    if let Standing::Busy { unsure: false } = standing {
                        self.stakes.remove(claim.owner());
                    } else {
                        stake.session.watches.guard(&stake);
                    }
                    return Ok((stake, standing));
                }
            }
        }
    }

    /// Waits until the claim is the first; `Busy` if it lost its place meanwhile.
    async fn queue_up(&self, acquirer: &Acquirer<'_, Self>, claim: &Claim) -> Result<AcquireReply> {
        let (stake, standing) = acquirer.bounded(self.enter(claim)).await?;
        let (created, mut ahead) = match standing {
            Standing::First(created) => return Ok(joined(&stake, created)),
            Standing::Busy { .. } => return Ok(lost_its_place()),
            Standing::Behind(created, Some(ahead)) => (created, ahead),
            Standing::Behind(created, None) => match self.look_for_ahead(acquirer, &stake, created).await? {
                Turn::Come => return Ok(joined(&stake, created)),
                Turn::Behind(ahead) => (created, ahead),
                Turn::Gone => return Ok(lost_its_place()),
            },
        };
        loop {
            let turn = tokio::select! {
                biased;
                () = stake.validity.ended() => Turn::Gone,
                turn = self.watch_ahead(acquirer, &stake, created, &ahead) => turn,
            };
            match turn {
                Turn::Come => return Ok(joined(&stake, created)),
                Turn::Behind(next) => ahead = next,
                Turn::Gone => return Ok(lost_its_place()),
            }
        }
    }

    /// Finds who is ahead of a place that was made by a request whose own answer was lost.
    async fn look_for_ahead(
        &self,
        acquirer: &Acquirer<'_, Self>,
        stake: &Stake,
        created: i64,
    ) -> Result<Turn> {
        let looking = self.look(requests::look_ahead(&stake.place, created, false));
        let answer = acquirer.bounded(looking).await?;
        Ok(turn(&answer))
    }

    /// Returns when the place ahead is gone, and tells who is ahead then.
    ///
    /// Whatever is heard is followed by a look, and so is a long silence; a failed look by another one. The end of the
    /// session ends this, from outside.
    async fn watch_ahead(
        &self,
        acquirer: &Acquirer<'_, Self>,
        stake: &Stake,
        created: i64,
        ahead: &Ahead,
    ) -> Turn {
        let mut lookout = stake.session.watches.look_out(&ahead.place);
        loop {
            if let Ok(Err(_)) = time::timeout(acquirer.ttl(), lookout.sight.changed()).await {
                // The watches are no longer served, so the session is over.
                return std::future::pending().await;
            }
            let sight = *lookout.sight.borrow_and_update();
            match acquirer.bounded(self.look_after(stake, created, ahead, sight)).await {
                Ok(Turn::Behind(same)) if same == *ahead => {}
                Ok(turn) => return turn,
                Err(error) => {
                    tracing::debug!(%error, "a waiter could not look at its queue and tries again");
                    time::sleep(self.servers.breath()).await;
                    lookout.sight.mark_changed();
                }
            }
        }
    }

    /// Looks at the queue after something was heard of the place ahead.
    ///
    /// The answer of a single server will do, as it is not older than what was heard, nor than the own place: who was deleted stays deleted,
    /// and if the own place is there later than all before it, it was the first then. Whether it still is, the session's
    /// deadline says.
    async fn look_after(&self, stake: &Stake, created: i64, ahead: &Ahead, sight: Sight) -> Result<Turn> {
        let place = &stake.place;
        let since = sight.revision.max(created);
        if !sight.deleted {
            let answer = self.look_locally(since, |local| requests::look_at(place, &ahead.place, local));
            let found = requests::gets(&answer.await?);
            let is_there = |index: usize| found.get(index).is_some_and(|get| !get.kvs().is_empty());
            match (is_there(0), is_there(1)) {
                (false, _) => return Ok(Turn::Gone),
                (true, true) => return Ok(Turn::Behind(ahead.clone())),
                (true, false) if ahead.first => return Ok(Turn::Come),
                (true, false) => {}
            }
        } else if ahead.first {
            let answer = self.look_locally(since, |local| requests::look(place, local)).await?;
            return Ok(turn(&answer));
        }
        let answer = self.look_locally(since, |local| requests::look_ahead(place, created, local)).await?;
        Ok(turn(&answer))
    }

    async fn look_locally(
        &self,
        since: i64,
        transaction: impl Fn(bool) -> etcd_client::Txn + Send,
    ) -> Result<TxnResponse> {
        let answer = self.look(transaction(true)).await?;
        // After a move to another endpoint, the answer may be older than what was heard at the one before.
        if requests::revision(&answer) >= since { Ok(answer) } else { self.look(transaction(false)).await }
    }

    async fn look(&self, transaction: etcd_client::Txn) -> Result<TxnResponse> {
        ask(&self.servers, transaction).await.into_result()
    }
}

async fn ask(servers: &Servers, transaction: etcd_client::Txn) -> Reply<TxnResponse> {
    servers
        .ask(|mut server| {
            let transaction = transaction.clone();
            async move { server.kv.txn(transaction).await }
        })
        .await
}

/// Why a claim's transaction was not answered as it should be.
enum Refusal {
    SessionOver,
    Error(Error),
}

/// Sends the transaction of a claim, until an answer says where it stands.
async fn send(servers: Arc<Servers>, stake: Arc<Stake>, waits: bool) -> Result<Standing, Refusal> {
    let session = &stake.session;
    let limit = servers.request_timeout();
    let deadline = time::Instant::now() + limit;
    loop {
        let fence = session.fence_revision.load(Ordering::Acquire);
        let transaction = requests::enter(&stake.place, (&session.fence, fence), session.lease, waits);
        let Ok(reply) = time::timeout_at(deadline, ask(&servers, transaction)).await else {
            stake.land(None, true);
            let message =
                format!("no answer within {limit:?}; are the servers up, reachable and not overloaded?");
            return Err(Refusal::Error(Error::new(ErrorKind::Unavailable, message)));
        };
        let unsure = reply.unsure;
        let (created, standing) = match &reply.result {
            Err(failure) if failure.is_end_of_lease() => {
                stake.land(None, false);
                return Err(Refusal::SessionOver);
            }
            Err(_) => {
                let error = reply.into_result().expect_err("it failed");
                stake.land(None, error.effect() == Effect::Possible);
                return Err(Refusal::Error(error));
            }
            Ok(answer) => match requests::entered(answer, fence) {
                // Nor can copies of this request with the old fence be executed any more.
                Entered::Fenced(present) => {
                    session.fence_revision.store(present, Ordering::Release);
                    continue;
                }
                Entered::New { created, ahead: None } => (Some(created), Standing::First(created)),
                Entered::New { created, ahead } => (Some(created), Standing::Behind(created, ahead)),
                // One that does not wait got the first place, or none.
                Entered::Before { created } if !waits => (Some(created), Standing::First(created)),
                Entered::Before { created } => (Some(created), Standing::Behind(created, None)),
                Entered::Busy => (None, Standing::Busy { unsure }),
            },
        };
        stake.land(created, unsure);
        return Ok(standing);
    }
}

impl LeaseStore for Etcd {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Servers, Waiting::Fifo, TokenOrder::Cluster)
    }

    async fn acquire(&self, claim: &Claim) -> Result<AcquireReply> {
        let (stake, standing) = self.enter(claim).await?;
        Ok(match standing {
            Standing::First(created) => joined(&stake, created),
            Standing::Busy { unsure } => AcquireReply::Busy {
                free_in: claim.ttl(),
                effect: if unsure { Effect::Possible } else { Effect::None },
            },
            Standing::Behind(..) => unreachable!("only a claim that waits stands behind another"),
        })
    }

    async fn renew(&self, _claim: &Claim) -> Result<Renewal> {
        unreachable!("every grant rests on a session, which keeps itself alive")
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        let Some(stake) = self.stakes.get(claim.owner()) else { return Ok(Released::NotOwner) };
        let transaction = stake.leaving().await;
        let Some(transaction) = transaction else { return Ok(Released::NotOwner) };
        let reply = ask(&self.servers, transaction).await;
        let unsure = reply.unsure;
        if reply.result.as_ref().is_err_and(|failure| failure.is_end_of_lease()) {
            self.stakes.remove(claim.owner());
            return Ok(Released::NotOwner);
        }
        let held = requests::left(&reply.into_result()?);
        self.stakes.remove(claim.owner());
        if !held && unsure {
            let message = "an answer was lost during the release: the key is given back, but whether it was held until \
                           then is not known";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(if held { Released::Freed } else { Released::NotOwner })
    }

    async fn undo(&self, claim: &Claim) -> Result<()> {
        let Some(stake) = self.stakes.get(claim.owner()) else { return Ok(()) };
        let undone = session::give_up(&self.servers, &stake).await;
        // The lease of a session that is over is not kept alive, and takes the place with it.
        if undone.is_ok() || !stake.session.validity.is_valid() {
            self.stakes.remove(claim.owner());
            return Ok(());
        }
        undone
    }

    fn longest_trace(&self, _claim: &Claim) -> Duration {
        Duration::MAX
    }

    async fn verify(&self, claim: &Claim) -> Result<bool> {
        let created = |stake: Arc<Stake>| Some((stake.created()?, stake));
        let Some((created, stake)) = self.stakes.get(claim.owner()).and_then(created) else {
            return Ok(false);
        };
        let reply = ask(&self.servers, requests::verify(&stake.place, created)).await;
        Ok(reply.into_result()?.succeeded())
    }
}

impl WaitingStore for Etcd {
    async fn lock(&self, acquirer: &Acquirer<'_, Self>) -> Result<LockGuard> {
        loop {
            let attempt = acquirer.begin()?;
            let reply = self.queue_up(acquirer, attempt.claim()).await;
            if let Outcome::Acquired(guard) = attempt.conclude(reply)? {
                return Ok(guard);
            }
            tracing::debug!(key = ?acquirer.key(), "a waiter lost its place and queues up again");
        }
    }
}

fn joined(stake: &Stake, created: i64) -> AcquireReply {
    AcquireReply::Joined { token: token(created), validity: Arc::clone(&stake.validity) }
}

fn lost_its_place() -> AcquireReply {
    AcquireReply::Busy { free_in: Duration::ZERO, effect: Effect::Possible }
}

fn turn(answer: &TxnResponse) -> Turn {
    let found = requests::gets(answer);
    match (found.first(), found.get(1).and_then(requests::ahead)) {
        (Some(own), _) if own.kvs().is_empty() => Turn::Gone,
        (Some(_), None) => Turn::Come,
        (Some(_), Some(ahead)) => Turn::Behind(ahead),
        (None, _) => Turn::Gone,
    }
}

fn token(create_revision: i64) -> FencingToken {
    FencingToken::new(u64::try_from(create_revision).expect("revisions count up from 1"))
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").finish_non_exhaustive()
    }
}
