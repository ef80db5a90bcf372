//! All the servers, and what every question that is put to them has in common.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use lock_core::{
    Error, ErrorKind, Options, Result,
    backend::{BoxFuture, present_runtime},
};
use lock_redis::{Answer, Target};
use redis::FromRedisValue;
use tokio::{runtime::Handle, time};

use crate::{
    handshake::{RunIds, VoterHandshake},
    names::RedlockNames,
    requests::{Reply, Request},
    voter::Voter,
};

/// The least time for which those are waited for that are slower than a majority.
const MOMENT: Duration = Duration::from_millis(10);

/// The servers that have a vote each.
pub(crate) struct Servers {
    pub(crate) voters: Vec<Arc<Voter>>,
    pub(crate) run_ids: Arc<RunIds>,
    pub(crate) names: RedlockNames,
    /// On which waiters of this locker are told that they are next.
    pub(crate) channel: String,
    pub(crate) ttl: Duration,
    /// The request timeout.
    pub(crate) limit: Duration,
    /// Where the connections live, and what goes on in the background.
    pub(crate) runtime: Handle,
}

/// Questions under way, in no order, each with the index of its server.
pub(crate) type Asked<T> = FuturesUnordered<BoxFuture<'static, (usize, Reply<T>)>>;

impl Servers {
    pub(crate) async fn connect(
        targets: Vec<Arc<Target>>,
        names: RedlockNames,
        options: &Options,
    ) -> Result<Self> {
        let runtime = present_runtime()?;
        let timing = options.check()?;
        let (ttl, limit) = (timing.ttl(), timing.request_timeout());
        let channel = names.channel();
        let run_ids = Arc::<RunIds>::default();
        let voter = |(index, target): (usize, Arc<Target>)| {
            let (server, memory) = (target.server(), names.memory.clone());
            let handshake = VoterHandshake { index, server, run_ids: Arc::clone(&run_ids), memory, ttl };
            Arc::new(Voter::new(target, limit, ttl, handshake, channel.clone(), runtime.clone()))
        };
        let voters: Vec<_> = targets.into_iter().enumerate().map(voter).collect();
        check_set(&voters)?;
        let servers = Self { voters, run_ids, names, channel, ttl, limit, runtime };
        servers.reach_majority().await?;
        Ok(servers)
    }

    async fn reach_majority(&self) -> Result<()> {
        let mut attempts: FuturesUnordered<_> = self.voters.iter().map(Voter::connect).collect();
        let enough = time::sleep(self.limit);
        tokio::pin!(enough);
        let mut reached = 0;
        let mut failures = Vec::new();
        loop {
            let attempt = tokio::select! {
                biased;
                attempt = attempts.next() => attempt,
                // Those that are late go on in the background.
                () = &mut enough, if reached >= self.majority() => None,
            };
            match attempt {
                Some(Ok(())) => reached += 1,
                // What does not pass by itself is told at once, even of one server: somebody has to see to it.
                Some(Err(error)) if !error.is_transient() => return Err(error),
                Some(Err(error)) => {
                    tracing::warn!(%error, "a server cannot be reached; it is left out until it can be");
                    failures.push(error);
                }
                None if reached >= self.majority() => return Ok(()),
                None => return Err(self.unavailable(0, failures).without_effect()),
            }
        }
    }

    pub(crate) fn enumerated(&self) -> impl Iterator<Item = (usize, &Arc<Voter>)> {
        self.voters.iter().enumerate()
    }

    /// Puts a question about a hold to the servers that are worth asking.
    pub(crate) fn ask<T>(&self, request: Request) -> Asked<T>
    where
        T: FromRedisValue + Send + 'static,
    {
        let request = Arc::new(request);
        let asked = self.enumerated().zip(self.worth_asking()).filter(|(_, worth)| *worth);
        asked.map(|((index, voter), _)| indexed(index, Arc::clone(voter).ask(Arc::clone(&request)))).collect()
    }

    pub(crate) fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Returns the servers that are asked: all, without those that have been silent lately if there are
    /// enough others.
    pub(crate) fn worth_asking(&self) -> Vec<bool> {
        let worth: Vec<_> = self.voters.iter().map(|voter| voter.is_worth_asking()).collect();
        let enough = worth.iter().filter(|worth| **worth).count() >= self.majority();
        if enough { worth } else { vec![true; self.voters.len()] }
    }

    /// Returns how long one of them is waited for.
    pub(crate) fn patience(&self) -> Duration {
        self.voters[0].patience()
    }

    /// Returns for how long the others are waited for where a majority `took` so long: a few times that.
    pub(crate) fn a_while(&self, took: Duration) -> Duration {
        (8 * took + MOMENT).min(self.limit / 4)
    }

    /// Counts answers until a majority has said yes or no; the others are left to `rest`. `read` makes a yes or a no of
    /// an answer, or neither.
    pub(crate) async fn majority_of<T: Send + 'static>(
        &self,
        pending: Asked<T>,
        read: impl Fn(&Answer<T>) -> Option<bool>,
        rest: impl FnOnce(Asked<T>),
    ) -> Result<bool> {
        self.majority_of_each(1, pending, |answer, _| read(answer), rest).await.remove(0)
    }

    /// As [`majority_of`](Self::majority_of), where each answer tells of `count` holds.
    pub(crate) async fn majority_of_each<T: Send + 'static>(
        &self,
        count: usize,
        mut pending: Asked<T>,
        read: impl Fn(&Answer<T>, usize) -> Option<bool>,
        rest: impl FnOnce(Asked<T>),
    ) -> Vec<Result<bool>> {
        let decided = |(yes, no): &(usize, usize)| (*yes.max(no) >= self.majority()).then_some(yes > no);
        let mut votes = vec![(0, 0); count];
        let mut failures = Vec::new();
        let mut limit = pin!(time::sleep(self.patience()));
        loop {
            let reply = tokio::select! {
                biased;
                reply = pending.next() => reply,
                () = &mut limit => {
                    failures.extend(pending.iter().map(|_| Error::no_answer(self.patience())));
                    None
                }
            };
            let Some((_, reply)) = reply else { break };
            match reply {
                Ok(answer) => {
                    for (index, (yes, no)) in votes.iter_mut().enumerate() {
                        match read(&answer, index) {
                            Some(true) => *yes += 1,
                            Some(false) => *no += 1,
                            None => {}
                        }
                    }
                }
                Err(error) => failures.push(error),
            }
            if votes.iter().all(|votes| decided(votes).is_some()) {
                rest(pending);
                return votes.iter().filter_map(decided).map(Ok).collect();
            }
        }
        let undecided = self.unavailable(0, failures);
        votes.iter().map(|votes| decided(votes).ok_or_else(|| undecided.clone())).collect()
    }

    /// Says why there is no majority, and gives the first failure as the cause. Those who forgot have no vote. What a
    /// server refuses is said in its words: it answered, and people have to see to it.
    pub(crate) fn unavailable(&self, forgot: usize, failures: Vec<Error>) -> Error {
        let (all, answered) = (self.voters.len(), |failure: &Error| failure.kind() != ErrorKind::Unavailable);
        let (refused, silent): (Vec<_>, Vec<_>) = failures.into_iter().partition(answered);
        let mut parts = Vec::new();
        if !silent.is_empty() {
            parts.push(format!("{} did not answer", silent.len()));
        }
        if forgot > 0 {
            parts.push(format!("{forgot} have lost their data and have no vote yet"));
        }
        if let Some(refusal) = refused.first() {
            parts.push(format!("{} refuse: {refusal}", refused.len()));
        }
        let kind = match refused.first() {
            Some(refusal) if refused.len() >= self.majority() => refusal.kind(),
            _ => ErrorKind::Unavailable,
        };
        if parts.is_empty() {
            parts.push("their answers make no majority".to_owned());
        }
        let message = format!("of {all} servers {}; a majority must be able to vote", parts.join(", "));
        let error = Error::new(kind, message);
        match silent.into_iter().next() {
            Some(failure) => error.with_source(failure),
            None => error,
        }
    }
}

pub(crate) fn indexed<T: Send + 'static>(
    index: usize,
    reply: impl Future<Output = Reply<T>> + Send + 'static,
) -> BoxFuture<'static, (usize, Reply<T>)> {
    Box::pin(async move { (index, reply.await) })
}

/// Checks that it is an odd number of servers, at least three, no two the same.
fn check_set(voters: &[Arc<Voter>]) -> Result<()> {
    let refuse = |reason: String| Err(Error::new(ErrorKind::InvalidInput, reason).without_effect());
    let count = voters.len();
    if count < 3 {
        return refuse(format!(
            "{count} servers were given; at least 3 are needed for one of them to be able to fail"
        ));
    }
    if count.is_multiple_of(2) {
        return refuse(format!(
            "{count} servers were given; take an odd number: {count} bear no more failures than {}, and votes can be \
             split in halves",
            count - 1
        ));
    }
    for (index, voter) in voters.iter().enumerate() {
        if voters[..index].iter().any(|other| other.server() == voter.server()) {
            return refuse(format!("{} was given twice; each server has one vote", voter.server()));
        }
    }
    Ok(())
}
