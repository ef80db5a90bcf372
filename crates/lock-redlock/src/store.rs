//! The requests of the lock, each put to all servers at once.

use std::{
    fmt, iter,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
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
use lock_redis::{Answer, INSPECT, Names, Notices, RENEW, RESERVATION, Reservations, Target};
use rand::RngExt;
use redis::Value;
use tokio::time;

use crate::{
    gate::{Gate, Slots},
    listener::MajorityListener,
    names::{RedlockNames, of_queue},
    queues::Tickets,
    recovery::AmnesiaRecovery,
    requests::{ACQUIRE, FREED, HANDED_ON, RELEASE, Refused, Reply, Request, VoteReply},
    servers::{Asked, Servers, indexed},
    unfinished::Unfinished,
    voter::Voter,
    votes::{Decision, Tally, Vote},
};

/// The largest token that a script can compare exactly: microseconds until the year 2255.
const MAX_TOKEN: u64 = (1 << 53) - 1;

/// The least time for which one whose votes were split keeps out of the way.
const SHORTEST_ROUND: Duration = Duration::from_millis(1);

/// The longest time for which a waiter does so that has no place in the queues.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Locks as keys of most of several Redis servers. Users see the [`RedlockLocker`](crate::RedlockLocker) around it.
pub struct RedlockStore {
    pub(crate) servers: Arc<Servers>,
    pub(crate) recovery: Arc<AmnesiaRecovery>,
    pub(crate) slots: Slots,
    /// The largest token that was seen or proposed here.
    newest: AtomicU64,
    unfinished: Arc<Unfinished>,
    tickets: Tickets,
    pub(crate) reservations: Reservations<Servers>,
    notices: Vec<Notices>,
}

impl RedlockStore {
    pub(crate) async fn connect(
        targets: Vec<Target>,
        names: RedlockNames,
        options: &Options,
    ) -> Result<Self> {
        if !targets.iter().all(Target::is_one_server) {
            let message = "each target must be one server: what Sentinel or a cluster calls by one name may \
                           change, and a change of servers forgets votes";
            return Err(Error::new(ErrorKind::InvalidInput, message).without_effect());
        }
        let targets: Vec<_> = targets.into_iter().map(Arc::new).collect();
        let servers = Arc::new(Servers::connect(targets.clone(), names, options).await?);
        let recovery = Arc::new(AmnesiaRecovery::new(Arc::clone(&servers)));
        recovery.run().await?;
        Ok(Self {
            slots: Slots::default(),
            newest: AtomicU64::default(),
            unfinished: Unfinished::new(Arc::clone(&servers), Arc::clone(&recovery)),
            tickets: Tickets::default(),
            reservations: Reservations::new(Arc::clone(&servers), servers.runtime.clone()),
            notices: targets
                .into_iter()
                .map(|target| Notices::new(target, servers.channel.clone(), servers.limit, &servers.runtime))
                .collect(),
            recovery,
            servers,
        })
    }

    pub(crate) fn names(&self, key: &Key) -> Names {
        self.servers.names.of(key)
    }

    /// Returns a token larger than any that was seen here, and the more likely larger than all others the better the
    /// clock.
    fn propose(&self) -> Result<u64> {
        let clock = now();
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
    async fn poll(
        &self,
        claim: &Claim,
        names: &Names,
        token: u64,
        gate: &Gate,
        refused: Refused,
    ) -> (Decision, Tally) {
        let (started, patience) = (time::Instant::now(), self.servers.patience());
        let mut tally = Tally::of(self.servers.voters.len());
        let mut pending = Asked::<VoteReply>::new();
        let request = Arc::new(self.vote_request(claim, names, token, gate, refused));
        for ((index, voter), worth) in self.servers.enumerated().zip(self.servers.worth_asking()) {
            if worth {
                pending.push(indexed(index, voter.claim(&request)));
            } else {
                tally.count(Vote::Failed(voter.left_out()));
            }
        }
        let mut limit = pin!(time::sleep_until(started + patience));
        let (mut hurries, mut refusing) = (false, Vec::<usize>::new());
        let decision = loop {
            // Who waits hears the rest, since a vote that nobody knows of would be in the way of others.
            let is_over = |decision: &Decision| {
                *decision != Decision::Busy || matches!(refused, Refused::Goes) || tally.is_complete()
            };
            if let Some(decision) = tally.decided().filter(is_over) {
                break decision;
            }
            // The rest of the votes is waited for a few times as long as a majority took, lest one slow server slow
            // all.
            if !hurries && tally.has_quorum() {
                hurries = true;
                let a_while = self.servers.a_while(started.elapsed());
                limit.as_mut().reset((time::Instant::now() + a_while).min(started + patience));
            }
            tokio::select! {
                biased;
                Some((index, reply)) = pending.next() => {
                    let vote = self.read(index, reply, claim, token, gate);
                    refusing.extend(matches!(vote, Vote::Busy { .. }).then_some(index));
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
            self.unfinished.collect_votes(claim, request, pending, refusing);
        }
        (decision, tally)
    }

    fn vote_request(
        &self,
        claim: &Claim,
        names: &Names,
        token: u64,
        gate: &Gate,
        refused: Refused,
    ) -> Request {
        let mut arguments = vec![
            claim.owner().to_string(),
            claim.ttl().as_millis().to_string(),
            refused.word().to_owned(),
            names.fence().to_owned(),
            token.to_string(),
        ];
        arguments.extend(gate.arguments());
        if let Refused::Waits { ticket, is_told } = refused {
            arguments.resize(7, String::new());
            arguments.extend([self.stands_as(is_told).to_owned(), ticket.unwrap_or_else(now).to_string()]);
        }
        let memory = self.servers.names.memory.clone();
        let keys = vec![names.lock().to_owned(), memory, names.queue().to_owned()];
        Request { script: &ACQUIRE, keys, arguments }
    }

    /// Returns what a claim does if it is refused: once in the queues it stays what it is there. The first here to wait
    /// has nobody listening yet, and asks again at once when somebody does.
    fn refused(&self, claim: &Claim) -> Refused {
        if !claim.waits() {
            return Refused::Goes;
        }
        if let Some((ticket, is_told)) = self.tickets.of(claim.owner()) {
            return Refused::Waits { ticket: Some(ticket), is_told };
        }
        let count = |connected| {
            self.notices.iter().filter(|notices| notices.is_connected() == Some(connected)).count()
        };
        match count(true) {
            enough if enough >= self.servers.majority() => Refused::Waits { ticket: None, is_told: true },
            _ if count(false) > 0 => Refused::Waits { ticket: None, is_told: false },
            _ => Refused::Goes,
        }
    }

    /// Returns what stands behind the owner id of a claim in the queues; see `queue.lua`.
    fn stands_as(&self, is_told: bool) -> &str {
        if is_told { &self.servers.channel } else { "?" }
    }

    fn read(&self, index: usize, reply: Reply<VoteReply>, claim: &Claim, proposed: u64, gate: &Gate) -> Vote {
        let (word, number, name) = match reply {
            Ok(Answer { value, .. }) => value,
            Err(error) => return Vote::Failed(error),
        };
        let natural = u64::try_from(number).unwrap_or(0);
        match word.as_str() {
            "granted" if natural == proposed => Vote::Granted,
            "granted" | "stale" => Vote::Stale(natural),
            "busy" | "next" => {
                // A key without an end, of which somebody took it, has a negative time left: it is not free at once.
                let free_in = if number < 0 { claim.ttl() } else { Duration::from_millis(natural) };
                let (owner, ticket) = name.split_once(' ').unwrap_or((&name, ""));
                let (owner, ticket) = (owner.to_owned(), ticket.parse().ok());
                Vote::Busy { free_in, owner, is_next: word == "next", ticket }
            }
            "closed" if gate.is_there() => Vote::Closed,
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

    /// Makes the request that ends a claim.
    fn ending(&self, claim: &Claim, names: &Names) -> Request {
        let mut arguments = vec![claim.owner().to_string()];
        if claim.waits() {
            arguments.push(self.servers.channel.clone());
        }
        Request { script: &RELEASE, keys: of_queue(names), arguments }
    }

    /// Returns the servers that may know of a claim.
    fn knowing(&self, claim: &Claim) -> impl Iterator<Item = (usize, &Arc<Voter>)> {
        let begun = claim.begun();
        self.servers.enumerated().filter(move |(_, voter)| voter.may_know(begun))
    }

    /// Gives votes back that are too few, to whoever is first, and has all servers know the ticket of the claim.
    async fn yield_votes(&self, claim: &Claim, names: &Names, is_told: bool, ticket: u64, token: u64) {
        let mut request = self.ending(claim, names);
        self.stands_as(is_told).clone_into(&mut request.arguments[1]);
        request.arguments.extend(
            [u128::from(ticket), claim.ttl().as_millis(), token.into()].map(|number| number.to_string()),
        );
        let request = Arc::new(request);
        let give_back =
            |voter: &Arc<Voter>| Arc::clone(voter).end_for_now(claim.begun(), Arc::clone(&request));
        let asked = self.knowing(claim).map(|(index, voter)| indexed(index, give_back(voter))).collect();
        let heard = |_: &Answer<u8>| Some(true);
        // A vote that is not given back runs out, or is given to this claim once more.
        let _ = self.servers.majority_of(asked, heard, |pending| self.unfinished.hear(pending)).await;
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
        let refused = self.refused(claim);
        let (mut round, mut gate) = (None, self.slots.gate(claim.key()));
        loop {
            let token = self.propose()?;
            let (decision, tally) = self.poll(claim, &names, token, &gate, refused).await;
            self.newest.fetch_max(tally.newest(), Ordering::Relaxed);
            effect = effect.and(tally.effect());
            match decision {
                Decision::Held => {
                    if claim.waits() {
                        self.tickets.drop(claim.owner());
                    }
                    let token = gate.token(FencingToken::new(token))?;
                    return Ok(AcquireReply::Granted { token, ttl: claim.ttl() });
                }
                // The same owner id may go on, since no undo was sent for it: a server that voted for the smaller token
                // votes for the larger one.
                Decision::Again => {}
                Decision::Busy => {
                    if let Refused::Waits { is_told, .. } = refused
                        && let Some(ticket) = tally.ticket()
                    {
                        let ticket = self.tickets.keep(claim.owner(), ticket, is_told);
                        if tally.may_have_votes() {
                            self.yield_votes(claim, &names, is_told, ticket, token).await;
                        }
                        let free_in = tally.free_in().unwrap_or(RESERVATION);
                        let soon = if !is_told {
                            // One that cannot be told has to look before a reservation is over.
                            RESERVATION / 3
                        } else if tally.lacks_servers() {
                            // Acquires notice that a server came back without its vote, and give it back.
                            claim.ttl() / 10
                        } else {
                            free_in
                        };
                        return Ok(AcquireReply::Queued { free_in: free_in.min(soon) });
                    }
                    let took = BootInstant::now().since(started);
                    let round = *round.get_or_insert(took.max(SHORTEST_ROUND));
                    if tally.stays(&owner) && took + round < self.servers.limit / 2 {
                        // The others yield meanwhile.
                        time::sleep(round).await;
                        continue;
                    }
                    let pause = || LONGEST_PAUSE.mul_f64(rand::rng().random_range(0.0..=1.0));
                    let free_in = tally.free_in().unwrap_or_else(pause);
                    return Ok(AcquireReply::Busy { free_in, effect });
                }
                // Rare, and would be part of every acquire's future.
                Decision::Closed => gate = Box::pin(self.slots.reopened(&gate, effect)).await?,
                Decision::Unavailable => {
                    let forgot = tally.forgot();
                    return Err(self.servers.unavailable(forgot, tally.into_failures()).with_effect(effect));
                }
            }
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal> {
        self.renew_all(&[claim]).await.remove(0)
    }

    fn renews_at_once(&self) -> usize {
        self.servers.voters.iter().map(|voter| voter.renews_at_once()).min().unwrap_or(1)
    }

    async fn renew_all(&self, claims: &[&Claim]) -> Vec<Result<Renewal>> {
        let keys = claims.iter().map(|claim| self.names(claim.key()).lock().to_owned()).collect();
        let owners = claims.iter().map(|claim| claim.owner().to_string());
        let arguments = iter::once(self.servers.ttl.as_millis().to_string()).chain(owners).collect();
        let asked = self.servers.ask(Request { script: &RENEW, keys, arguments });
        let read = |answer: &Answer<Vec<bool>>, index: usize| answer.value.get(index).copied();
        let rest = |pending| self.unfinished.hear(pending);
        let renewed =
            self.servers.majority_of_each(claims.len(), asked, read, rest).await.into_iter().zip(claims);
        renewed.map(|(renewed, claim)| Ok(Renewal::of(renewed?, claim.ttl()))).collect()
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        self.unfinished.stop_votes(claim);
        let (names, handed_on) = (self.names(claim.key()), AtomicBool::new(false));
        let ending = Arc::new(self.ending(claim, &names));
        let end = |voter: &Arc<Voter>| Arc::clone(voter).end(claim.begun(), Arc::clone(&ending));
        let asked = self.knowing(claim).map(|(index, voter)| indexed(index, end(voter))).collect();
        let read = |answer: &Answer<u8>| {
            handed_on.fetch_or(answer.value & HANDED_ON != 0, Ordering::Relaxed);
            let freed = answer.value & FREED != 0;
            // Freed by one of two requests that were sent, or never held: nobody knows.
            (freed || !answer.repeated).then_some(freed)
        };
        let freed = self.servers.majority_of(asked, read, |pending| self.unfinished.hear(pending)).await;
        if handed_on.into_inner() {
            self.reservations.watch(&names);
        }
        Ok(if freed? { Released::Freed } else { Released::NotOwner })
    }

    async fn undo(&self, claim: &Claim) -> Result<()> {
        self.unfinished.stop_votes(claim);
        let names = self.names(claim.key());
        let ending = Arc::new(self.ending(claim, &names));
        let end = |voter: &Arc<Voter>| Arc::clone(voter).end::<u8>(claim.begun(), Arc::clone(&ending));
        let undone = join_all(self.knowing(claim).map(|(_, voter)| voter.in_time(end(voter)))).await;
        if claim.waits() {
            self.tickets.drop(claim.owner());
        }
        if undone.iter().flatten().any(|answer| answer.value & HANDED_ON != 0) {
            self.reservations.watch(&names);
        }
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
        let mut listener = MajorityListener::new(&self.notices, self.names(acquirer.key()).lock());
        acquirer.wait(&mut listener).await
    }
}

/// Returns the time of this machine's clock in microseconds.
fn now() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}

impl fmt::Debug for RedlockStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedlockStore").finish_non_exhaustive()
    }
}
