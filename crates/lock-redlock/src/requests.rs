//! What a server is asked, and what it answers.

use std::{sync::LazyLock, time::Duration};

use lock_core::Result;
use lock_redis::{Answer, Script};
use rand::RngExt;

macro_rules! scripts {
    ($($name:ident = $file:literal,)*) => {
        $(pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| script(include_str!(concat!("../scripts/", $file))));)*
    };
}

scripts! {
    ACQUIRE = "acquire.lua",
    RELEASE = "release.lua",
    HAND_ON = "hand_on.lua",
    SURVEY = "survey.lua",
    RESTORE_VOTE = "restore_vote.lua",
}

/// Makes a script. Several include what all have to do with queues.
fn script(text: &str) -> Script {
    Script::new(text.replace("-- include queue.lua\n", include_str!("../scripts/queue.lua")))
}

/// What a server returns that freed a key, and what it returns besides if it handed a key on; see `release.lua`.
pub(crate) const FREED: u8 = 1;
pub(crate) const HANDED_ON: u8 = 2;

#[cfg(feature = "movable")]
mod of_slots {
    use super::{LazyLock, Script, script};

    scripts! {
        PREPARE = "prepare.lua",
        ACCEPT = "accept.lua",
        LEARN = "learn.lua",
        REGISTERS = "registers.lua",
        CENSUS = "census.lua",
        PUT_COPIES = "put_copies.lua",
        ADOPT = "adopt.lua",
        DROP_COPY = "drop_copy.lua",
    }

    /// What a server says: a word and a text.
    pub(crate) type Said = (String, String);

    /// What a server tells: a word, a text and a list.
    pub(crate) type Told = (String, String, Vec<String>);
}

#[cfg(feature = "movable")]
pub(crate) use of_slots::*;

/// What a claim does if it is refused; see `acquire.lua`.
#[derive(Clone, Copy)]
pub(crate) enum Refused {
    /// It stands in the queues, under its ticket if it has one. One that is not told when it is next has to look.
    Waits {
        ticket: Option<u64>,
        is_told: bool,
    },
    Goes,
}

impl Refused {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Waits { ticket: None, .. } => "come",
            Self::Waits { ticket: Some(_), .. } => "wait",
            Self::Goes => "go",
        }
    }
}

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

/// Returns whether another has the server's vote, or is next.
pub(crate) fn is_busy(reply: &Reply<VoteReply>) -> bool {
    matches!(reply, Ok(Answer { value: (word, ..), .. }) if word == "busy" || word == "next")
}

/// Returns the mark of the server's loss, if it has no vote.
pub(crate) fn forgotten(reply: &Reply<VoteReply>) -> Option<&str> {
    let (word, _, mark) = &reply.as_ref().ok()?.value;
    (word == "forgot").then_some(mark)
}

impl Request {
    pub(crate) fn borrowed(&self) -> (Vec<&str>, Vec<&str>) {
        (self.keys.iter().map(String::as_str).collect(), self.arguments.iter().map(String::as_str).collect())
    }

    /// Asks for the same vote on behalf of a claim that has a majority by now.
    pub(crate) fn of_holder(&self) -> Self {
        let mut arguments = self.arguments.clone();
        "held".clone_into(&mut arguments[2]);
        Self { script: self.script, keys: self.keys.clone(), arguments }
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
