//! What a server is asked, and what it answers.

use std::{sync::LazyLock, time::Duration};

use lock_core::Result;
use lock_redis::{Answer, Script};
use rand::RngExt;

pub(crate) static ACQUIRE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/acquire.lua")));
pub(crate) static SURVEY: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/survey.lua")));
pub(crate) static RESTORE_VOTE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/restore_vote.lua")));

/// A script with what it is given.
pub(crate) struct Request {
    pub(crate) script: &'static LazyLock<Script>,
    pub(crate) keys: Vec<String>,
    pub(crate) arguments: Vec<String>,
}

/// What one server answered.
pub(crate) type Reply<T> = Result<Answer<T>>;

/// What a server says of a claim: a word, a number and a name; see `acquire.lua`.
pub(crate) type VoteReply = (String, i64, String);

/// Whether a server has its vote, the newest token, the longest TTL in ms, and the mark of its loss; see `survey.lua`.
pub(crate) type Memory = (String, u64, u64, String);

/// Returns whether another has the server's vote.
pub(crate) fn is_busy(reply: &Reply<VoteReply>) -> bool {
    matches!(reply, Ok(Answer { value: (word, ..), .. }) if word == "busy")
}

impl Request {
    pub(crate) fn borrowed(&self) -> (Vec<&str>, Vec<&str>) {
        (self.keys.iter().map(String::as_str).collect(), self.arguments.iter().map(String::as_str).collect())
    }

    /// Asks what a server remembers. Only over a `new` connection is it certain that run id and log are the server's.
    pub(crate) fn survey(memory: &str, ttl: Duration, run: &str, logs: bool, new: bool) -> Self {
        let flag = |set: bool| if set { "1" } else { "0" }.to_owned();
        let mark = rand::rng().random::<u128>();
        let arguments =
            vec![ttl.as_millis().to_string(), run.to_owned(), flag(logs), format!("{mark:032x}"), flag(new)];
        Self { script: &SURVEY, keys: vec![memory.to_owned()], arguments }
    }
}
