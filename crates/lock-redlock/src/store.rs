//! The requests of the lock, each put to all servers at once.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, future::join_all};
use lock_core::{
    Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Options, Result, Scope, TokenOrder,
    Waiting,
    backend::{
        AcquireReply, Acquirer, BootInstant, Claim, Effect, LeaseStore, OwnerId, Released, Renewal,
        WaitingStore,
    },
};
use lock_redis::{Answer, INSPECT, Names, Notices, Prefix, RELEASE, RENEW, Script, Target, Turns};
use parking_lot::Mutex;
use redis::{FromRedisValue, Value};
use tokio::{task::JoinHandle, time};

use crate::{
    backoff::SplitVoteBackoff,
    bell::MajorityBell,
    member::{Reply, Request},
    servers::{self, Asked, Majority, Servers, indexed},
    votes::{Decision, Tally, Vote},
};

pub(crate) static ACQUIRE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/acquire.lua")));

/// What a server says of a claim: a word, a number and a name; see `acquire.lua`.
type Ballot = (String, i64, String);

/// The largest token that a script can compare exactly: microseconds until the year 2255.
const MAX_TOKEN: u64 = (1 << 53) - 1;

/// The least time for which one whose votes were split keeps out of the way.
const SHORTEST_ROUND: Duration = Duration::from_millis(1);

/// The least time for which votes are waited for that may decide.
const MOMENT: Duration = Duration::from_millis(10);

/// Locks as keys of most of several Redis servers. Users see the [`RedlockLocker`](crate::RedlockLocker) around it.
pub struct Redlock {
    servers: Arc<Servers>,
    prefix: Prefix,
    /// The largest token that was seen or proposed here.
    newest: AtomicU64,
    /// What still asks the last servers for their votes for a claim that is held already.
    canvassers: Arc<Mutex<HashMap<OwnerId, JoinHandle<()>>>>,
    backoff: SplitVoteBackoff,
    turns: Turns,
    notices: Vec<Notices>,
}

impl Redlock {
    pub(crate) async fn connect(targets: Vec<Target>, options: &Options) -> Result<Self> {
        if !targets.iter().all(Target::is_one_server) {
            let message = "each target must be one server: what Sentinel or a cluster calls by one name may change, and \
                           a change of servers forgets votes";
            return Err(Error::new(ErrorKind::InvalidInput, message).without_effect());
        }
        let targets: Vec<_> = targets.into_iter().map(Arc::new).collect();
        let prefix = Prefix::new(&servers::prefix(options))?;
        let servers = Arc::new(Servers::connect(targets.clone(), options).await?);
        let limit = servers.limit;
        let (newest, canvassers, turns) = Default::default();
        Ok(Self {
            prefix,
            newest,
            canvassers,
            backoff: SplitVoteBackoff::new(servers.ttl),
            turns,
            notices: targets.into_iter().map(|target| Notices::new(target, limit)).collect(),
            servers,
        })
    }

    pub(crate) fn names(&self, key: &Key) -> Names {
        self.prefix.names(key)
    }

    /// A token larger than any that was seen here, and the more likely larger than all others the better the clock.
    fn propose(&self) -> Result<u64> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        let mut last = self.newest.load(Ordering::Relaxed);
        loop {
            let token = clock.max(last + 1);
            if token > MAX_TOKEN {
                let message =
                    "a fence counter on the servers or this machine's clock is beyond the year 2255";
                return Err(Error::new(ErrorKind::UnsafeConfig, message));
            }
            match self.newest.compare_exchange_weak(last, token, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(token),
                Err(newer) => last = newer,
            }
        }
    }

    /// One round: all servers are asked to vote for this claim and token.
    async fn poll(&self, claim: &Claim, names: &Names, token: u64) -> (Decision, Tally) {
        let started = time::Instant::now();
        let mut tally = Tally::of(self.servers.members.len());
        let mut pending = Asked::<Ballot>::new();
        let request = Arc::new(self.ballot(claim, names, token));
        for ((index, member), worth) in self.servers.enumerated().zip(self.servers.worth_asking()) {
            if worth {
                pending.push(indexed(index, member.claim(&request)));
            } else {
                tally.count(Vote::Failed(member.left_out()));
            }
        }
        let mut patience = None;
        let decision = loop {
            if let Some(decision) = tally.decided() {
                break decision;
            }
            // The rest of the votes is waited for a few times as long as a majority took, lest one slow server slow all.
            if patience.is_none() && tally.has_quorum() {
                patience =
                    Some(time::Instant::now() + (8 * started.elapsed() + MOMENT).min(self.servers.limit / 4));
            }
            let late = async {
                match patience {
                    Some(end) => time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some((index, reply)) = pending.next() => tally.count(self.read(index, reply, claim, token)),
                () = late => break tally.without_the_rest(),
            }
        };
        if decision == Decision::Held {
            self.canvass(claim, pending);
        }
        (decision, tally)
    }

    fn ballot(&self, claim: &Claim, names: &Names, token: u64) -> Request {
        Request {
            script: &ACQUIRE,
            keys: vec![names.lock.clone(), self.servers.memory.clone()],
            arguments: vec![
                claim.owner().to_string(),
                claim.ttl().as_millis().to_string(),
                if claim.waits() { "1" } else { "0" }.to_owned(),
                names.fence.clone(),
                token.to_string(),
            ],
        }
    }

    fn read(&self, index: usize, reply: Reply<Ballot>, claim: &Claim, proposed: u64) -> Vote {
        let (word, number, name) = match reply {
            Ok(Answer { value, .. }) => value,
            Err(error) => return Vote::Failed(error),
        };
        let natural = u64::try_from(number).unwrap_or(0);
        match word.as_str() {
            "granted" if natural == proposed => Vote::Granted,
            "granted" | "stale" => Vote::Stale(natural),
            "busy" => {
                // A key without an end, of which somebody took it, has a negative time left: it is not free at once.
                let free_in = if number < 0 { claim.ttl() } else { Duration::from_millis(natural) };
                Vote::Busy { free_in, owner: name }
            }
            "foreign" => {
                let message =
                    "another program keeps something else under the lock's name; choose another prefix";
                let server = self.servers.members[index].server();
                Vote::Failed(
                    Error::new(ErrorKind::UnsafeConfig, message).with_server(server).without_effect(),
                )
            }
            _ => {
                if self.servers.recall.notice(index, &name) {
                    let servers = Arc::clone(&self.servers);
                    self.servers.runtime.spawn(async move {
                        if let Err(error) = servers.recall().await {
                            tracing::warn!(%error, "servers without their data stay without their votes");
                        }
                    });
                }
                Vote::Forgot
            }
        }
    }

    /// Goes on asking for the votes that were not needed: a renewal may need them.
    fn canvass(&self, claim: &Claim, mut pending: Asked<Ballot>) {
        if pending.is_empty() {
            return;
        }
        let (owner, canvassers) = (claim.owner(), Arc::clone(&self.canvassers));
        // Under the lock, so that the task does not end before it is entered.
        let mut entered = self.canvassers.lock();
        let task = self.servers.runtime.spawn(async move {
            while pending.next().await.is_some() {}
            canvassers.lock().remove(&owner);
        });
        entered.insert(owner, task);
    }

    /// Makes sure that no request for a vote is sent any more, so that what frees the vote is the last.
    async fn stop_canvassing(&self, claim: &Claim) {
        let canvasser = self.canvassers.lock().remove(&claim.owner());
        if let Some(task) = canvasser {
            task.abort();
            let _ = task.await;
        }
    }

    fn freeing(&self, claim: &Claim) -> Arc<Request> {
        let keys = vec![self.names(claim.key()).lock];
        Arc::new(Request { script: &RELEASE, keys, arguments: vec![claim.owner().to_string()] })
    }

    /// Puts a question about a hold to the servers that are worth asking.
    fn ask<T>(&self, request: Request) -> Asked<T>
    where
        T: FromRedisValue + Send + 'static,
    {
        let request = Arc::new(request);
        let asked = self.servers.enumerated().zip(self.servers.worth_asking());
        asked
            .filter(|(_, worth)| *worth)
            .map(|((index, member), _)| indexed(index, member.ask(&request)))
            .collect()
    }
}

impl LeaseStore for Redlock {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Servers, Waiting::Notified, TokenOrder::ServerData)
    }

    async fn acquire(&self, claim: &Claim) -> Result<AcquireReply> {
        let names = self.names(claim.key());
        let (started, owner) = (BootInstant::now(), claim.owner().to_string());
        let mut undo = false;
        let mut round = None;
        loop {
            let token = self.propose()?;
            let (decision, tally) = self.poll(claim, &names, token).await;
            self.newest.fetch_max(tally.newest(), Ordering::Relaxed);
            undo |= tally.may_leave_something();
            match decision {
                Decision::Held => {
                    return Ok(AcquireReply::Granted { token: FencingToken::new(token), ttl: claim.ttl() });
                }
                // The same owner id may go on, since no undo was sent for it: a server that voted for the smaller token
                // votes for the larger one.
                Decision::Again => {}
                Decision::Busy => {
                    let took = BootInstant::now().since(started);
                    let round = *round.get_or_insert(took.max(SHORTEST_ROUND));
                    if tally.stays(&owner) && took + round < self.servers.limit / 2 {
                        // The others yield meanwhile.
                        time::sleep(round).await;
                        continue;
                    }
                    let free_in = tally.free_in().unwrap_or_else(|| {
                        self.backoff.split(claim.key(), took);
                        self.backoff.pause(claim.key())
                    });
                    return Ok(AcquireReply::Busy {
                        free_in,
                        effect: if undo { Effect::Possible } else { Effect::None },
                    });
                }
                Decision::Unavailable => {
                    let forgot = tally.forgot();
                    let error = self.servers.unavailable(forgot, tally.into_failures());
                    return Err(if undo { error } else { error.without_effect() });
                }
            }
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal> {
        let keys = vec![self.names(claim.key()).lock];
        let arguments = vec![claim.owner().to_string(), claim.ttl().as_millis().to_string()];
        let asked = self.ask(Request { script: &RENEW, keys, arguments });
        let Majority { answer, pending } =
            self.servers.majority_of(asked, |renewed| Some(renewed.value)).await;
        self.servers.carry_on(pending);
        Ok(if answer? { Renewal::Extended(claim.ttl()) } else { Renewal::NotOwner })
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        self.stop_canvassing(claim).await;
        let freeing = self.freeing(claim);
        let asked = self.servers.enumerated().filter(|(_, member)| member.may_know(claim.started()));
        let asked = asked.map(|(index, member)| indexed(index, member.end(claim.started(), &freeing)));
        // Freed by one of two requests that were sent, or never held: nobody knows.
        let read = |freed: &Answer<bool>| (freed.value || !freed.repeated).then_some(freed.value);
        let Majority { answer, pending } = self.servers.majority_of(asked.collect(), read).await;
        self.servers.carry_on(pending);
        Ok(if answer? { Released::Freed } else { Released::NotOwner })
    }

    async fn undo(&self, claim: &Claim) -> Result<()> {
        self.stop_canvassing(claim).await;
        let freeing = self.freeing(claim);
        let asked = self.servers.members.iter().filter(|member| member.may_know(claim.started()));
        let undone = join_all(asked.map(|member| member.end::<bool>(claim.started(), &freeing))).await;
        let failures: Vec<_> = undone.into_iter().filter_map(Result::err).collect();
        // A server that cannot even be connected to has nothing under way; if it has a vote, the vote runs out.
        let few = failures.len() < self.servers.majority();
        if few && failures.iter().all(|failure| failure.effect() == Effect::None) {
            return Ok(());
        }
        Err(self.servers.unavailable(0, failures))
    }

    async fn verify(&self, claim: &Claim) -> Result<bool> {
        let keys = vec![self.names(claim.key()).lock];
        let owner = claim.owner().to_string();
        let asked = self.ask::<Vec<Value>>(Request { script: &INSPECT, keys, arguments: Vec::new() });
        let is_owner = |holder: &Answer<Vec<Value>>| {
            Some(matches!(holder.value.first(), Some(Value::BulkString(id)) if id == owner.as_bytes()))
        };
        self.servers.majority_of(asked, is_owner).await.answer
    }
}

impl WaitingStore for Redlock {
    async fn lock(&self, acquirer: &Acquirer<'_, Self>) -> Result<LockGuard> {
        let _turn = self.turns.wait(acquirer.key()).await;
        let channel = self.names(acquirer.key()).lock;
        let mut bell = MajorityBell::new(&self.notices, &channel, acquirer.key(), &self.backoff);
        acquirer.wait(&mut bell).await
    }
}

impl fmt::Debug for Redlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redlock").finish_non_exhaustive()
    }
}
