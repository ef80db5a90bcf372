//! All the servers, and what is common to every question that is put to them.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use lock_core::{Error, ErrorKind, Options, Result, backend::BoxFuture};
use lock_redis::{Answer, Prefix, Target};
use tokio::{runtime::Handle, time};

use crate::{
    identity::{Identities, Introduction},
    member::{Member, Reply},
    recall::{Recall, memory_name},
};

/// The servers that have a vote each.
pub(crate) struct Servers {
    pub(crate) members: Vec<Arc<Member>>,
    pub(crate) identities: Arc<Identities>,
    /// The name of what each of them remembers.
    pub(crate) memory: String,
    pub(crate) recall: Recall,
    pub(crate) ttl: Duration,
    /// The request timeout.
    pub(crate) limit: Duration,
    /// Where the connections live, and what goes on in the background.
    pub(crate) runtime: Handle,
}

/// Questions under way, in no order, each with the index of its server.
pub(crate) type Asked<T> = FuturesUnordered<BoxFuture<'static, (usize, Reply<T>)>>;

/// How a majority answered, and who has not answered yet.
pub(crate) struct Majority<T> {
    pub(crate) answer: Result<bool>,
    pub(crate) pending: Asked<T>,
}

impl Servers {
    pub(crate) async fn connect(targets: Vec<Arc<Target>>, options: &Options) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|error| {
            Error::new(ErrorKind::Closed, "a locker must be made within a tokio runtime")
                .with_source(error)
                .without_effect()
        })?;
        let timing = options.check()?;
        let (ttl, limit) = (timing.ttl(), timing.request_timeout());
        Prefix::new(&prefix(options))?;
        let memory = memory_name(&prefix(options));
        let identities = Arc::<Identities>::default();
        let recall = Recall::new(targets.len(), ttl);
        let introduction = |index, server| Introduction {
            index,
            server,
            identities: Arc::clone(&identities),
            memory: memory.clone(),
            ttl,
        };
        let member = |(index, target): (usize, Arc<Target>)| {
            let introduction = introduction(index, target.server());
            Arc::new(Member::new(target, limit, ttl, introduction, runtime.clone()))
        };
        let members: Vec<_> = targets.into_iter().enumerate().map(member).collect();
        check_set(&members)?;
        let servers = Self { members, identities, memory, recall, ttl, limit, runtime: runtime.clone() };
        servers.reach_majority().await?;
        servers.recall().await?;
        Ok(servers)
    }

    async fn reach_majority(&self) -> Result<()> {
        let mut attempts: FuturesUnordered<_> = self.members.iter().map(Member::connect).collect();
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

    pub(crate) fn enumerated(&self) -> impl Iterator<Item = (usize, &Arc<Member>)> {
        self.members.iter().enumerate()
    }

    pub(crate) fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The servers that are asked for votes: all, without those that have been silent lately if there are enough others.
    pub(crate) fn worth_asking(&self) -> Vec<bool> {
        let worth: Vec<_> = self.members.iter().map(|member| member.is_worth_asking()).collect();
        let enough = worth.iter().filter(|worth| **worth).count() >= self.majority();
        if enough { worth } else { vec![true; self.members.len()] }
    }

    /// Counts answers until a majority has said yes or no. `read` makes a yes or a no of an answer, or neither.
    pub(crate) async fn majority_of<T: 'static>(
        &self,
        mut pending: Asked<T>,
        read: impl Fn(&Answer<T>) -> Option<bool>,
    ) -> Majority<T> {
        let (mut yes, mut no) = (0, 0);
        let mut failures = Vec::new();
        while let Some((_, reply)) = pending.next().await {
            match reply.map(|answer| read(&answer)) {
                Ok(Some(true)) => yes += 1,
                Ok(Some(false)) => no += 1,
                Ok(None) => {}
                Err(error) => failures.push(error),
            }
            if yes >= self.majority() || no >= self.majority() {
                return Majority { answer: Ok(yes > no), pending };
            }
        }
        Majority { answer: Err(self.unavailable(0, failures)), pending }
    }

    /// Lets questions that nobody waits for any more come to their end.
    pub(crate) fn carry_on<T: Send + 'static>(&self, mut pending: Asked<T>) {
        if !pending.is_empty() {
            self.runtime.spawn(async move { while pending.next().await.is_some() {} });
        }
    }

    /// Says why there is no majority, and gives the first failure as the cause. Those who forgot have no vote. What a
    /// server refuses is said in its words: it answered, and people have to see to it.
    pub(crate) fn unavailable(&self, forgot: usize, failures: Vec<Error>) -> Error {
        let (all, answered) =
            (self.members.len(), |failure: &Error| failure.kind() != ErrorKind::Unavailable);
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
    reply: BoxFuture<'static, Reply<T>>,
) -> BoxFuture<'static, (usize, Reply<T>)> {
    Box::pin(async move { (index, reply.await) })
}

/// What the names of all locks begin with: other than those of the locks on a single server, which may be one of these.
pub(crate) fn prefix(options: &Options) -> String {
    format!("{}:redlock", options.prefix())
}

/// An odd number of servers, at least three, no two the same.
fn check_set(members: &[Arc<Member>]) -> Result<()> {
    let refuse = |reason: String| Err(Error::new(ErrorKind::InvalidInput, reason).without_effect());
    let count = members.len();
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
    for (index, member) in members.iter().enumerate() {
        if members[..index].iter().any(|other| other.server() == member.server()) {
            return refuse(format!("{} was given twice; each server has one vote", member.server()));
        }
    }
    Ok(())
}
