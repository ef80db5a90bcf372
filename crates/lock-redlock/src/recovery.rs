//! What is done about servers that have forgotten what they voted for.
//!
//! A server that lost its data would give its vote away a second time, and to an older token. So each keeps a hash of
//! its counters, and one without that hash has no vote. Nor has one that was restarted, unless it logged all its writes
//! before and does so now: what else it comes back with is a snapshot, and whatever that holds (counters, votes, the
//! mark of an earlier loss) may be older than its last votes. So the hash names the run of the server for which it is
//! true, and the first thing over each new connection is to compare that with the server's run id.
//!
//! Each loss has a mark of its own. The server gets its vote back once two things are certain:
//!
//! - Whoever had its vote has it no more: the longest lease that anybody asks for has passed, on the clock of the
//!   client that noticed, since it saw this mark. Each client tells its TTL to a majority before its first claim, so
//!   the longest is known.
//! - It refuses all tokens that are not newer than any that was ever granted. It is told the newest of a majority of
//!   the servers that still know. They are asked after that wait, since a claim that counts its old vote may collect
//!   others until then, and no longer.
//!
//! With slots it is also told what the others know of them; see `remembered.rs`.
//!
//! Where all servers answer and none ever had a vote, the set is new: then nothing has to be waited for. One that has
//! or had its vote, though it never used it, tells that the others may have.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use lock_core::{Error, ErrorKind, Options, Result, backend::BootInstant};
use parking_lot::Mutex;
use tokio::time;

use crate::{
    remembered::to_restore,
    requests::{Memory, RESTORE_VOTE, Request},
    servers::Servers,
};

/// Notices which servers have forgotten, and gives them their votes back.
pub(crate) struct AmnesiaRecovery {
    servers: Arc<Servers>,
    losses: Mutex<Vec<Option<Loss>>>,
    longest_ttl_ms: AtomicU64,
    /// In nanoseconds of a [`BootInstant`]: before, there is nothing to be learnt.
    due: AtomicU64,
    under_way: AtomicBool,
}

#[derive(Clone)]
struct Loss {
    mark: String,
    noticed: BootInstant,
}

impl AmnesiaRecovery {
    pub(crate) fn new(servers: Arc<Servers>) -> Self {
        let ttl = servers.ttl.as_millis();
        Self {
            losses: Mutex::new(vec![None; servers.voters.len()]),
            longest_ttl_ms: AtomicU64::new(u64::try_from(ttl).unwrap_or(u64::MAX)),
            servers,
            due: AtomicU64::new(0),
            under_way: AtomicBool::new(false),
        }
    }

    /// Writes down that a server has forgotten, and starts what can be done about it by now.
    pub(crate) fn notice(self: &Arc<Self>, index: usize, mark: &str) {
        if !mark.is_empty() {
            self.noticed(index, mark);
        }
        if BootInstant::now().as_nanos() >= self.due.load(Ordering::Relaxed) {
            let recovery = Arc::clone(self);
            self.servers.runtime.spawn(async move {
                if let Err(error) = recovery.run().await {
                    tracing::warn!(%error, "servers without their data stay without their votes");
                }
            });
        }
    }

    /// Returns when this loss was first seen. A server that forgets once more has another mark.
    fn noticed(&self, index: usize, mark: &str) -> BootInstant {
        let loss = &mut self.losses.lock()[index];
        if loss.as_ref().is_none_or(|known| known.mark != mark) {
            *loss = Some(Loss { mark: mark.to_owned(), noticed: BootInstant::now() });
            self.due.store(0, Ordering::Relaxed);
        }
        loss.as_ref().expect("it was just noted").noticed
    }

    /// Returns how long the votes of before may count: the longest lease with the largest drift of clocks that options
    /// allow.
    fn wait(&self) -> Duration {
        Duration::from_millis(self.longest_ttl_ms.load(Ordering::Relaxed))
            .mul_f64(1.0 + 2.0 * Options::MAX_DRIFT)
    }

    /// Asks all servers what they remember, and restores the votes of those that may have them back. Only one does it
    /// at a time; the others return at once.
    ///
    /// # Errors
    ///
    /// Fewer than a majority have their votes, and why.
    pub(crate) async fn run(&self) -> Result<()> {
        let servers = &self.servers;
        if self.under_way.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let _under_way = UnderWay(&self.under_way);
        let (all, majority) = (servers.voters.len(), servers.majority());
        let (patience, mut pause) = (BootInstant::now().after(servers.limit), servers.limit / 32);
        let Survey { started, newest, mut remember, used, forgot, failure } = loop {
            let survey = self.survey().await;
            let begun = (1..majority).contains(&survey.remember) && survey.newest == 0;
            if !begun || survey.failure.is_some() || survey.started.after(pause) >= patience {
                break survey;
            }
            // why: it may be a new set that another client sets up right now, one server after the other.
            time::sleep(pause).await;
            pause *= 2;
        };
        // Where nobody has a vote, nobody can have given one since that was noticed. They get it back together: one
        // that had it before the others would be a minority that knows too little to tell them.
        let none = forgot.len() == all;
        let last = forgot.iter().map(|(_, noticed, _)| *noticed).max();
        let mut next = servers.limit / 4;
        if none || remember >= majority {
            let mut due = Vec::new();
            for (index, noticed, mark) in &forgot {
                let noticed = if none { last.unwrap_or(*noticed) } else { *noticed };
                let back = if none && !used { started } else { noticed.after(self.wait()) };
                if started < back {
                    next = next.min(back.since(started));
                } else {
                    due.push((*index, mark));
                }
            }
            remember += self.restore_votes(&due, newest, none).await;
        }
        self.due.store(BootInstant::now().after(next).as_nanos(), Ordering::Relaxed);
        if remember >= majority {
            return Ok(());
        }
        Err(self.too_few(forgot.len(), failure))
    }

    async fn survey(&self) -> Survey {
        let started = BootInstant::now();
        let mut survey =
            Survey { started, newest: 0, remember: 0, used: false, forgot: Vec::new(), failure: None };
        let servers = &self.servers;
        let asked = servers.enumerated().map(|(index, voter)| {
            let run = servers.run_ids.of(index);
            let survey = Request::survey(&servers.names.memory, servers.ttl, &run, false, false);
            Arc::clone(voter).ask::<Memory>(Arc::new(survey))
        });
        for (index, answer) in join_all(asked).await.into_iter().enumerate() {
            let (state, newest, ttl, mark) = match answer {
                Ok(answer) => answer.value,
                Err(error) => {
                    survey.failure = survey.failure.or(Some(error));
                    continue;
                }
            };
            survey.newest = survey.newest.max(newest);
            self.longest_ttl_ms.fetch_max(ttl, Ordering::Relaxed);
            survey.used |= state != "new";
            if state == "votes" {
                survey.remember += 1;
            } else {
                survey.forgot.push((index, self.noticed(index, &mark), mark));
            }
        }
        survey
    }

    /// Gives servers their votes back that waited for long enough, each known by the mark of its loss; returns how many
    /// have theirs.
    async fn restore_votes(&self, due: &[(usize, &String)], newest: u64, none: bool) -> usize {
        if due.is_empty() {
            return 0;
        }
        // Asked for after the wait, as the newest token was.
        let told = match Box::pin(to_restore(&self.servers, !none)).await {
            Ok(told) => told,
            Err(error) => {
                tracing::debug!(%error, "servers without their data stay without their votes for now");
                return 0;
            }
        };
        let mut restored = 0;
        for (index, mark) in due {
            if self.restore_vote(*index, mark, newest, &told).await {
                restored += 1;
                let server = self.servers.voters[*index].server();
                tracing::info!(server, newest, "the server has its vote back");
            }
        }
        restored
    }

    async fn restore_vote(&self, index: usize, mark: &str, newest: u64, told: &[String]) -> bool {
        let longest = self.longest_ttl_ms.load(Ordering::Relaxed);
        let mut arguments = vec![mark.to_owned(), newest.to_string(), longest.to_string()];
        arguments.extend_from_slice(told);
        let keys = vec![self.servers.names.memory.clone()];
        let request = Arc::new(Request { script: &RESTORE_VOTE, keys, arguments });
        let restored = Arc::clone(&self.servers.voters[index]).ask::<bool>(request).await;
        restored.is_ok_and(|answer| answer.value)
    }

    fn too_few(&self, forgot: usize, failure: Option<Error>) -> Error {
        let all = self.servers.voters.len();
        let Some(failure) = failure else {
            let message = format!(
                "{forgot} of {all} servers have lost their data, more than the others can make up for; once no lock is \
                 held any more, delete {} on all of them, and they begin anew",
                self.servers.names.memory
            );
            return Error::new(ErrorKind::UnsafeConfig, message).without_effect();
        };
        let message = if forgot == 0 {
            format!("no majority of the {all} servers can be reached")
        } else {
            format!(
                "{forgot} of {all} servers are new or have lost their data, and not all others can be reached to tell \
                 which; start those too"
            )
        };
        Error::new(ErrorKind::Unavailable, message).with_source(failure).without_effect()
    }
}

/// What all servers said at one time.
struct Survey {
    /// Before the first was asked.
    started: BootInstant,
    newest: u64,
    remember: usize,
    /// Whether one has or had its vote, so that the set is not new.
    used: bool,
    /// Which have forgotten, since when, and their marks.
    forgot: Vec<(usize, BootInstant, String)>,
    /// Why the first of those who did not answer did not.
    failure: Option<Error>,
}

struct UnderWay<'a>(&'a AtomicBool);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
