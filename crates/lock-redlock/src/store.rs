//! The requests of the lock, each put to all servers at once.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, future::join_all};
use lock_core::{
    Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Options, Result, Scope, TokenOrder,
    Waiting,
    backend::{
        AcquireReply, Acquirer, BootInstant, Claim, Effect, LeaseStore, Released, Renewal, WaitingStore,
    },
};
use lock_redis::{Answer, INSPECT, Names, Notices, RELEASE, RENEW, Target};
use redis::Value;
use tokio::time;

use crate::{
    backoff::SplitVoteBackoff,
    listener::MajorityListener,
    recovery::AmnesiaRecovery,
    requests::{ACQUIRE, Reply, Request, VoteReply},
    servers::{Asked, Servers, indexed},
    unfinished::Unfinished,
    voter::Voter,
    votes::{Decision, Tally, Vote},
};

/// The largest token that a script can compare exactly: microseconds until the year 2255.
const MAX_TOKEN: u64 = (1 << 53) - 1;

/// The least time for which one whose votes were split keeps out of the way.
const SHORTEST_ROUND: Duration = Duration::from_millis(1);

/// The least time for which votes are waited for that may decide.
const MOMENT: Duration = Duration::from_millis(10);

/// Locks as keys of most of several Redis servers. Users see the [`RedlockLocker`](crate::RedlockLocker) around it.
pub struct RedlockStore {
    servers: Arc<Servers>,
    recovery: Arc<AmnesiaRecovery>,
    /// The largest token that was seen or proposed here.
    newest: AtomicU64,
    unfinished: Arc<Unfinished>,
    backoff: SplitVoteBackoff,
    notices: Vec<Notices>,
}

impl RedlockStore {
    pub(crate) async fn connect(targets: Vec<Target>, options: &Options) -> Result<Self> {
        if !targets.iter().all(Target::is_one_server) {
            let message = "each target must be one server: what Sentinel or a cluster calls by one name may \
                           change, and a change of servers forgets votes";
            return Err(Error::new(ErrorKind::InvalidInput, message).without_effect());
        }
        let targets: Vec<_> = targets.into_iter().map(Arc::new).collect();
        let servers = Arc::new(Servers::connect(targets.clone(), options).await?);
        let recovery = Arc::new(AmnesiaRecovery::new(Arc::clone(&servers)));
        recovery.run().await?;
        Ok(Self {
            recovery,
            newest: AtomicU64::default(),
            unfinished: Unfinished::new(Arc::clone(&servers)),
            backoff: SplitVoteBackoff::new(servers.ttl),
            notices: targets
                .into_iter()
                .map(|target| Notices::new(target, servers.limit, &servers.runtime))
                .collect(),
            servers,
        })
    }

    pub(crate) fn names(&self, key: &Key) -> Names {
        self.servers.names.of(key)
    }

    /// Returns a token larger than any that was seen here, and the more likely larger than all others the better the
    /// clock.
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

    /// Asks all servers to vote for this claim and token.
    async fn poll(&self, claim: &Claim, names: &Names, token: u64) -> (Decision, Tally) {
        let (started, patience) = (time::Instant::now(), self.servers.patience());
        let mut tally = Tally::of(self.servers.voters.len());
        let mut pending = Asked::<VoteReply>::new();
        let request = Arc::new(self.vote_request(claim, names, token));
        for ((index, voter), worth) in self.servers.enumerated().zip(self.servers.worth_asking()) {
            if worth {
                pending.push(indexed(index, voter.claim(&request)));
            } else {
                tally.count(Vote::Failed(voter.left_out()));
            }
        }
        let mut limit = pin!(time::sleep_until(started + patience));
        let (mut hurries, mut refused) = (false, Vec::<usize>::new());
        let decision = loop {
            if let Some(decision) = tally.decided() {
                break decision;
            }
            // The rest of the votes is waited for a few times as long as a majority took, lest one slow server slow
            // all.
            if !hurries && tally.has_quorum() {
                hurries = true;
                let a_while = (8 * started.elapsed() + MOMENT).min(self.servers.limit / 4);
                limit.as_mut().reset((time::Instant::now() + a_while).min(started + patience));
            }
            tokio::select! {
                biased;
                Some((index, reply)) = pending.next() => {
                    let vote = self.read(index, reply, claim, token);
                    refused.extend(matches!(vote, Vote::Busy { .. }).then_some(index));
                    tally.count(vote);
                }
                () = &mut limit => {
                    if tally.has_quorum() {
                        break tally.without_the_rest();
                    }
                    pending.iter().for_each(|_| tally.count(Vote::Failed(Error::no_answer(patience))));
                }
            }
        };
        if decision == Decision::Held {
            self.unfinished.collect_votes(claim, request, pending, refused);
        }
        (decision, tally)
    }

    fn vote_request(&self, claim: &Claim, names: &Names, token: u64) -> Request {
        Request {
            script: &ACQUIRE,
            keys: vec![names.lock().to_owned(), self.servers.names.memory.clone()],
            arguments: vec![
                claim.owner().to_string(),
                claim.ttl().as_millis().to_string(),
                if claim.waits() { "1" } else { "0" }.to_owned(),
                names.fence().to_owned(),
                token.to_string(),
            ],
        }
    }

    fn read(&self, index: usize, reply: Reply<VoteReply>, claim: &Claim, proposed: u64) -> Vote {
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
                let server = self.servers.voters[index].server();
                Vote::Failed(
                    Error::new(ErrorKind::UnsafeConfig, message).with_server(server).without_effect(),
                )
            }
            _ => {
                self.recovery.notice(index, &name);
                Vote::Forgot
            }
        }
    }

    fn freeing(&self, claim: &Claim) -> Arc<Request> {
        let keys = vec![self.names(claim.key()).lock().to_owned()];
        Arc::new(Request { script: &RELEASE, keys, arguments: vec![claim.owner().to_string()] })
    }
}

impl LeaseStore for RedlockStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Servers, Waiting::Notified, TokenOrder::ServerData)
    }

    async fn acquire(&self, claim: &Claim) -> Result<AcquireReply> {
        let names = self.names(claim.key());
        let (started, owner) = (BootInstant::now(), claim.owner().to_string());
        let mut effect = Effect::None;
        let mut round = None;
        loop {
            let token = self.propose()?;
            let (decision, tally) = self.poll(claim, &names, token).await;
            self.newest.fetch_max(tally.newest(), Ordering::Relaxed);
            effect = effect.and(tally.effect());
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
                    if tally.free_in().is_none() && claim.waits() {
                        self.backoff.split(claim.key(), took);
                    }
                    let free_in = tally.free_in().unwrap_or_else(|| self.backoff.pause(claim.key()));
                    return Ok(AcquireReply::Busy { free_in, effect });
                }
                Decision::Unavailable => {
                    let forgot = tally.forgot();
                    let error = self.servers.unavailable(forgot, tally.into_failures());
                    return Err(if effect == Effect::None { error.without_effect() } else { error });
                }
            }
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal> {
        let keys = vec![self.names(claim.key()).lock().to_owned()];
        let arguments = vec![claim.owner().to_string(), claim.ttl().as_millis().to_string()];
        let asked = self.servers.ask(Request { script: &RENEW, keys, arguments });
        let rest = |pending| self.unfinished.hear(pending);
        let renewed = self.servers.majority_of(asked, |renewed| Some(renewed.value), rest).await?;
        Ok(if renewed { Renewal::Extended(claim.ttl()) } else { Renewal::NotOwner })
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        self.unfinished.stop_votes(claim);
        let freeing = self.freeing(claim);
        let asked = self.servers.enumerated().filter(|(_, voter)| voter.may_know(claim.started()));
        let end = |voter: &Arc<Voter>| Arc::clone(voter).end(claim.started(), Arc::clone(&freeing));
        let asked = asked.map(|(index, voter)| indexed(index, end(voter)));
        // Freed by one of two requests that were sent, or never held: nobody knows.
        let read = |freed: &Answer<bool>| (freed.value || !freed.repeated).then_some(freed.value);
        let freed =
            self.servers.majority_of(asked.collect(), read, |pending| self.unfinished.hear(pending)).await?;
        Ok(if freed { Released::Freed } else { Released::NotOwner })
    }

    async fn undo(&self, claim: &Claim) -> Result<()> {
        self.unfinished.stop_votes(claim);
        let freeing = self.freeing(claim);
        let asked = self.servers.voters.iter().filter(|voter| voter.may_know(claim.started()));
        let undone = asked
            .map(|voter| voter.in_time(Arc::clone(voter).end::<bool>(claim.started(), Arc::clone(&freeing))));
        let undone = join_all(undone).await;
        let failures: Vec<_> = undone.into_iter().filter_map(Result::err).collect();
        // A server that cannot even be connected to has nothing under way; if it has a vote, the vote runs out.
        let few = failures.len() < self.servers.majority();
        if few && failures.iter().all(|failure| failure.effect() == Effect::None) {
            return Ok(());
        }
        Err(self.servers.unavailable(0, failures))
    }

    async fn verify(&self, claim: &Claim) -> Result<bool> {
        let keys = vec![self.names(claim.key()).lock().to_owned()];
        let owner = claim.owner().to_string();
        let asked = self.servers.ask::<Vec<Value>>(Request { script: &INSPECT, keys, arguments: Vec::new() });
        let is_owner = |holder: &Answer<Vec<Value>>| {
            Some(matches!(holder.value.first(), Some(Value::BulkString(id)) if id == owner.as_bytes()))
        };
        // Two more answers that nobody needs.
        self.servers.majority_of(asked, is_owner, drop).await
    }
}

impl WaitingStore for RedlockStore {
    async fn lock(&self, acquirer: &Acquirer<'_, Self>) -> Result<LockGuard> {
        let channel = self.names(acquirer.key()).lock().to_owned();
        let mut listener = MajorityListener::new(&self.notices, &channel, acquirer.key(), &self.backoff);
        acquirer.wait(&mut listener).await
    }
}

impl fmt::Debug for RedlockStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedlockStore").finish_non_exhaustive()
    }
}
