//! How all servers are asked for what a majority is to agree on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lock_core::{Error, ErrorKind, Result, backend::BootInstant};
use rand::RngExt;
use tokio::time;

use crate::{
    look::{Look, foreign},
    recovery::AmnesiaRecovery,
    register::{Ballot, Proposal, Wish, largest},
    requests::{ACCEPT, LEARN, PREPARE, Reply, Request, Said},
    servers::Servers,
};

/// How often what is not certain is looked at: somebody may be changing it right now.
const LOOKS: u32 = 3;

/// For how long it is waited before the second look or round; then more and more.
const PAUSE: Duration = Duration::from_millis(2);

/// The registers of all servers; see `register.rs`.
pub(crate) struct Registers {
    servers: Arc<Servers>,
    recovery: Arc<AmnesiaRecovery>,
}

/// How a round ended.
enum Round {
    /// This was agreed on, or it is certain that nothing is; and whether it is what was wished for.
    Over(Option<Proposal>, bool),
    /// Servers have promised to wait for a larger ballot.
    Outbid(Ballot),
}

/// What the servers said in one phase of a round.
enum Phase {
    Yes(Vec<String>),
    Outbid(Ballot),
}

/// Waits for half of that time or up to all of it, so that not all are in each other's way once more.
async fn pause_about(time: Duration) {
    let part = rand::rng().random_range(0.5..=1.0);
    time::sleep(time.mul_f64(part)).await;
}

impl Registers {
    pub(crate) fn new(servers: Arc<Servers>, recovery: Arc<AmnesiaRecovery>) -> Self {
        Self { servers, recovery }
    }

    /// A server was seen that has forgotten what it knew.
    pub(crate) fn notice(&self, index: usize, mark: &str) {
        self.recovery.notice(index, mark);
    }

    /// Returns what was agreed on of each register that has a value, or of one of them, and tells those servers that
    /// lag behind.
    ///
    /// # Errors
    ///
    /// No majority answered in time, or others go on changing it.
    pub(crate) async fn read(&self, only: Option<&str>) -> Result<BTreeMap<String, Proposal>> {
        let (mut pause, mut looks) = (PAUSE, 0);
        loop {
            let seen = Look::at(&self.servers, only, |index, mark| self.notice(index, mark)).await?;
            let (mut certain, mut uncertain) = (BTreeMap::new(), Vec::new());
            for name in seen.names() {
                match seen.agreed(&name, self.servers.majority()) {
                    Some(agreed) if !seen.is_disputed(&name, agreed.as_ref()) => {
                        certain.extend(agreed.map(|agreed| (name, agreed)));
                    }
                    _ => uncertain.push(name),
                }
            }
            looks += 1;
            if uncertain.is_empty() || looks == LOOKS {
                self.teach(certain.iter().filter(|(name, agreed)| seen.lags(name, agreed))).await;
                for name in uncertain {
                    if let (Some(agreed), _) = self.agree(&name, Wish::Read).await? {
                        certain.insert(name, agreed);
                    }
                }
                return Ok(certain);
            }
            pause_about(pause).await;
            pause *= 2;
        }
    }

    /// Has a majority agree on what is wished for, or else on what it may have agreed on before. Returns that, and
    /// whether it is what was wished for.
    ///
    /// # Errors
    ///
    /// No majority answered in time, or others were faster each time; whether it was done is not known.
    pub(crate) async fn agree(&self, register: &str, mut wish: Wish) -> Result<(Option<Proposal>, bool)> {
        let begun = BootInstant::now();
        // The first ballot is most often outbid by that of the last change.
        let (mut ballot, mut pause) = (Ballot::random(), Duration::ZERO);
        loop {
            match self.round(register, ballot, &mut wish).await? {
                Round::Over(agreed, is_done) => return Ok((agreed, is_done)),
                Round::Outbid(other) => ballot = ballot.above(other),
            }
            if BootInstant::now().since(begun) > self.servers.limit {
                let message = "others change what the servers say of the slot, and were faster each time";
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            pause_about(pause).await;
            pause = (2 * pause).max(PAUSE).min(self.servers.limit / 8);
        }
    }

    async fn round(&self, register: &str, ballot: Ballot, wish: &mut Wish) -> Result<Round> {
        let begun = BootInstant::now();
        let mut arguments = vec![register.to_owned(), ballot.to_string()];
        let promise = self.servers.to_memory(&PREPARE, arguments.clone());
        let promises = match self.phase(begun, promise).await? {
            Phase::Yes(promises) => promises,
            Phase::Outbid(other) => return Ok(Round::Outbid(other)),
        };
        let accepted = promises.iter().filter(|accepted| !accepted.is_empty());
        let accepted = accepted.map(|accepted| Proposal::parse(accepted).ok_or_else(foreign).map(Some));
        let present = largest(accepted.collect::<Result<Vec<_>>>()?);
        let (value, is_done) = wish.proposal(present.as_ref().map(|present| present.value.as_str()));
        let Some(value) = value else { return Ok(Round::Over(None, is_done)) };
        arguments.push(value.clone());
        match self.phase(begun, self.servers.to_memory(&ACCEPT, arguments)).await? {
            Phase::Yes(_) => {}
            Phase::Outbid(other) => return Ok(Round::Outbid(other)),
        }
        let agreed = Proposal { ballot, value };
        self.teach([(&register.to_owned(), &agreed)]).await;
        Ok(Round::Over(Some(agreed), is_done))
    }

    /// Asks for something that a majority must say yes to, within one request timeout since the round began: so long at
    /// the most does anybody count on a promise that a server may have forgotten since, which gets its vote back much
    /// later.
    async fn phase(&self, begun: BootInstant, request: Request) -> Result<Phase> {
        let (all, majority) = (self.servers.voters.len(), self.servers.majority());
        let (mut yes, mut outbid, mut refused, mut forgot) = (Vec::new(), Ballot::default(), 0, 0);
        let mut failures = Vec::new();
        let hear = |index, reply: Reply<Said>| {
            match reply.map(|answer| answer.value) {
                Ok((word, accepted)) if word == "yes" => yes.push(accepted),
                Ok((word, ballot)) if word == "outbid" => {
                    refused += 1;
                    outbid = outbid.max(Ballot::parse(&ballot).unwrap_or_default());
                }
                Ok((_, mark)) => {
                    forgot += 1;
                    self.notice(index, &mark);
                }
                Err(error) => failures.push(error),
            }
            let pending = all - yes.len() - refused - forgot - failures.len();
            (yes.len() >= majority || yes.len() + pending < majority).then_some(())
        };
        self.servers.until(request, hear).await;
        if BootInstant::now().since(begun) > self.servers.limit {
            return Err(Error::no_answer(self.servers.limit));
        }
        if yes.len() >= majority {
            return Ok(Phase::Yes(yes));
        }
        if refused > 0 { Ok(Phase::Outbid(outbid)) } else { Err(self.servers.unavailable(forgot, failures)) }
    }

    /// Tells all servers what was agreed on, and waits for a majority of them. Who does not hear it is told by whoever
    /// looks next.
    pub(crate) async fn teach<'a>(&self, agreed: impl IntoIterator<Item = (&'a String, &'a Proposal)>) {
        let told = |(name, agreed): (&String, &Proposal)| {
            [name.clone(), agreed.ballot.to_string(), agreed.value.clone()]
        };
        let arguments: Vec<_> = agreed.into_iter().flat_map(told).collect();
        if !arguments.is_empty() {
            let asked = self.servers.ask_all::<Said>(self.servers.to_memory(&LEARN, arguments));
            self.servers.collect(asked, |(word, _)| word == "yes").await;
        }
    }
}
