//! What is done about servers that have forgotten what they voted for.
//!
//! A server that lost its data would give its vote away a second time, and to an older token. So each keeps a hash of
//! its counters, and one without that hash has no vote. It gets it back once two things are certain:
//!
//! - Whoever had its vote has it no more: the longest lease that anybody asks for has passed on the clock of the client
//!   that noticed. Each client tells its TTL to a majority before its first claim, so the longest is known.
//! - It refuses all tokens that are not newer than any that was ever granted. It is told the newest of a majority of the
//!   servers that still know. They are asked after that wait, since a claim that counts its old vote may collect others
//!   until then, and no longer.
//!
//! Where all servers answer and none remembers anything, the set is new: then nothing has to be waited for. One that
//! remembers, though it has never voted, tells that the others may have.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use lock_core::{Error, ErrorKind, Result, backend::BootInstant};
use lock_redis::Script;
use parking_lot::Mutex;
use rand::RngExt;
use tokio::time;

use crate::{member::Request, servers::Servers};

pub(crate) static LOOK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../scripts/look.lua")));
pub(crate) static TEACH: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/teach.lua")));

/// Whether it remembers, the newest token, the longest TTL in ms, and the mark of one that forgot.
pub(crate) type Look = (bool, u64, u64, String);

/// The names of what a server remembers. No lock has one of them, since theirs have braces.
pub(crate) struct MemoryNames {
    pub(crate) memory: String,
    pub(crate) mark: String,
}

impl MemoryNames {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { memory: format!("{prefix}#memory"), mark: format!("{prefix}#forgot") }
    }

    pub(crate) fn keys(&self) -> [&str; 2] {
        [&self.memory, &self.mark]
    }

    pub(crate) fn look(&self, ttl: Duration, run: &str, logs: bool) -> [String; 4] {
        let mark = rand::rng().random::<u128>();
        [
            ttl.as_millis().to_string(),
            run.to_owned(),
            if logs { "1" } else { "0" }.to_owned(),
            format!("{mark:032x}"),
        ]
    }
}

/// Which servers have forgotten, and since when.
pub(crate) struct Recall {
    absences: Mutex<Vec<Option<Absence>>>,
    longest_ttl_ms: AtomicU64,
    /// In nanoseconds of a [`BootInstant`]: before, there is nothing to be learnt.
    due: AtomicU64,
    under_way: AtomicBool,
}

#[derive(Clone)]
struct Absence {
    mark: String,
    noticed: BootInstant,
}

impl Recall {
    pub(crate) fn new(servers: usize, ttl: Duration) -> Self {
        Self {
            absences: Mutex::new(vec![None; servers]),
            longest_ttl_ms: AtomicU64::new(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            due: AtomicU64::new(0),
            under_way: AtomicBool::new(false),
        }
    }

    /// Writes down that a server has forgotten, and says whether something should be done about it now.
    pub(crate) fn notice(&self, index: usize, mark: &str) -> bool {
        self.note(index, mark);
        BootInstant::now().as_nanos() >= self.due.load(Ordering::Relaxed)
    }

    /// When it was first seen to have forgotten. A server that forgets once more has another mark.
    fn note(&self, index: usize, mark: &str) -> BootInstant {
        let absence = &mut self.absences.lock()[index];
        if absence.as_ref().is_none_or(|known| known.mark != mark) {
            *absence = Some(Absence { mark: mark.to_owned(), noticed: BootInstant::now() });
            self.due.store(0, Ordering::Relaxed);
        }
        absence.as_ref().expect("it was just noted").noticed
    }

    /// The longest lease with the largest drift of clocks that options allow.
    fn wait(&self) -> Duration {
        Duration::from_millis(self.longest_ttl_ms.load(Ordering::Relaxed)).mul_f64(1.2)
    }
}

impl Servers {
    /// Asks all servers what they remember, and teaches those that may have their votes back. Only one does it at a
    /// time; the others return at once.
    ///
    /// # Errors
    ///
    /// Fewer than a majority have their votes, and why.
    pub(crate) async fn recall(&self) -> Result<()> {
        let recall = &self.recall;
        if recall.under_way.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let _under_way = UnderWay(&recall.under_way);
        let (all, majority) = (self.members.len(), self.majority());
        let (patience, mut pause) = (BootInstant::now().after(self.limit), self.limit / 32);
        let Survey { started, newest, mut remember, forgot, failure } = loop {
            let survey = self.survey().await;
            let begun = (1..majority).contains(&survey.remember) && survey.newest == 0;
            if !begun || survey.failure.is_some() || survey.started.after(pause) >= patience {
                break survey;
            }
            // why: it may be a new set that another client teaches right now, one server after the other.
            time::sleep(pause).await;
            pause *= 2;
        };
        let new = forgot.len() == all;
        let mut next = self.limit / 4;
        if new || remember >= majority {
            for (index, noticed, mark) in &forgot {
                let back = if new { started } else { noticed.after(recall.wait()) };
                if started < back {
                    next = next.min(back.since(started));
                } else if self.teach(*index, mark, newest).await {
                    remember += 1;
                    tracing::info!(
                        server = self.members[*index].server(),
                        newest,
                        "the server has its vote back"
                    );
                }
            }
        }
        recall.due.store(BootInstant::now().after(next).as_nanos(), Ordering::Relaxed);
        if remember >= majority {
            return Ok(());
        }
        Err(self.too_few(forgot.len(), failure))
    }

    async fn survey(&self) -> Survey {
        let (started, forgot) = (BootInstant::now(), Vec::new());
        let mut survey = Survey { started, newest: 0, remember: 0, forgot, failure: None };
        for (index, look) in self.look().await.into_iter().enumerate() {
            match look {
                Ok((true, token, ttl, _)) => {
                    survey.remember += 1;
                    survey.newest = survey.newest.max(token);
                    self.recall.longest_ttl_ms.fetch_max(ttl, Ordering::Relaxed);
                }
                Ok((false, _, _, mark)) => {
                    survey.forgot.push((index, self.recall.note(index, &mark), mark));
                }
                Err(error) => survey.failure = survey.failure.or(Some(error)),
            }
        }
        survey
    }

    async fn look(&self) -> Vec<Result<Look>> {
        // Whether it restarted was looked at when it was connected to, which it is over again after each restart.
        let request = self.request(&LOOK, self.names.look(self.ttl, "", true).to_vec());
        let looks = self.members.iter().map(|member| member.ask::<Look>(&request));
        let answers = join_all(looks).await;
        answers.into_iter().map(|answer| answer.map(|answer| answer.value)).collect()
    }

    async fn teach(&self, index: usize, mark: &str, newest: u64) -> bool {
        let longest = self.recall.longest_ttl_ms.load(Ordering::Relaxed);
        let run = self.identities.of(index);
        let arguments = vec![mark.to_owned(), newest.to_string(), longest.to_string(), run];
        let taught = self.members[index].ask::<bool>(&self.request(&TEACH, arguments)).await;
        taught.is_ok_and(|answer| answer.value)
    }

    fn request(&self, script: &'static LazyLock<Script>, arguments: Vec<String>) -> Arc<Request> {
        let keys = self.names.keys().map(str::to_owned).to_vec();
        Arc::new(Request { script, keys, arguments })
    }

    fn too_few(&self, forgot: usize, failure: Option<Error>) -> Error {
        let all = self.members.len();
        let Some(failure) = failure else {
            let message = format!(
                "{forgot} of {all} servers have lost their data, more than the others can make up for; once no lock is \
                 held any more, delete {} on all of them, and they begin anew",
                self.names.memory
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
