//! Which holds a majority may have, and which copies any server has.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use lock_core::{
    Error, ErrorKind, Key, Result,
    movable::{Epoch, SlotHold},
};
use lock_redis::{Answer, all_below};

use crate::{
    register::Proposal,
    requests::{CENSUS, LEARN, Reply, Request, Said, Told},
    servers::{Asked, Servers, indexed},
    value::Value,
    voter::Voter,
};

/// What to list.
#[derive(Clone)]
pub(crate) enum Wanted {
    /// What is kept under one name.
    Name(String),
    /// All whose names begin so.
    Below(String),
    /// Of those the copies of holds.
    CopiesBelow(String),
}

impl Wanted {
    fn arguments(&self) -> [String; 2] {
        match self {
            Self::Name(name) => [name.clone(), "name".to_owned()],
            Self::Below(prefix) => [all_below(prefix), "all".to_owned()],
            Self::CopiesBelow(prefix) => [all_below(prefix), "copies".to_owned()],
        }
    }
}

/// What each of those servers has that were heard, by the names of locks.
pub(crate) type Heard = Vec<HashMap<String, String>>;

/// Asks all servers for what they keep. Before that each is told what was agreed on of the slot: one that has answered
/// gives no vote any more which that forbids, and what it has given before it has told. Those who are much slower than
/// a majority are not waited for, unless it `waits_for_all`.
///
/// # Errors
///
/// Fewer than a majority have their votes and answered.
pub(crate) async fn take(
    servers: &Servers,
    wanted: &Wanted,
    agreed: Option<(&str, &Proposal)>,
    waits_for_all: bool,
    mut forgot: impl FnMut(usize, &str),
) -> Result<Heard> {
    let learn = agreed.map(|(register, agreed)| {
        let arguments = vec![register.to_owned(), agreed.ballot.to_string(), agreed.value.clone()];
        Arc::new(servers.to_memory(&LEARN, arguments))
    });
    let asked: Asked<Told> = servers
        .enumerated()
        .map(|(index, voter)| {
            let (voter, memory) = (Arc::clone(voter), servers.names.memory.clone());
            indexed(index, list(voter, learn.clone(), memory, wanted.arguments()))
        })
        .collect();
    let (mut heard, mut lost, mut failures) = (Vec::new(), 0, Vec::new());
    let counts = |(word, ..): &Told| word == "yes" && !waits_for_all;
    for (index, reply) in servers.collect(asked, counts).await {
        match reply.map(|answer| answer.value) {
            Ok((word, _, found)) if word == "yes" => {
                let (pairs, _) = found.as_chunks::<2>();
                heard.push(pairs.iter().map(|[name, value]| (name.clone(), value.clone())).collect());
            }
            Ok((_, mark, _)) => {
                lost += 1;
                forgot(index, &mark);
            }
            Err(error) => failures.push(error),
        }
    }
    if heard.len() < servers.majority() { Err(servers.unavailable(lost, failures)) } else { Ok(heard) }
}

/// Asks one server for all that it has.
async fn list(
    voter: Arc<Voter>,
    learn: Option<Arc<Request>>,
    memory: String,
    wanted: [String; 2],
) -> Reply<Told> {
    if let Some(learn) = learn {
        let Answer { value: (word, mark), repeated } = Arc::clone(&voter).ask::<Said>(learn).await?;
        if word != "yes" {
            return Ok(Answer { value: (word, mark, Vec::new()), repeated });
        }
    }
    let (mut all, mut next) = (Vec::new(), "0".to_owned());
    loop {
        let mut arguments = wanted.to_vec();
        arguments.push(next);
        let request = Arc::new(Request { script: &CENSUS, keys: vec![memory.clone()], arguments });
        let mut answer = Arc::clone(&voter).ask::<Told>(request).await?;
        all.append(&mut answer.value.2);
        if answer.value.0 != "yes" || answer.value.1 == "0" {
            answer.value.2 = all;
            return Ok(answer);
        }
        next = answer.value.1;
    }
}

/// The votes for the holds of one key.
#[derive(Default)]
struct Votes {
    /// Each with its number of votes.
    holds: Vec<(Value, usize)>,
    copies: Vec<(Value, usize)>,
}

impl Votes {
    fn add(&mut self, value: Value) {
        let of = if value.copy.is_some() { &mut self.copies } else { &mut self.holds };
        match of.iter_mut().find(|(known, _)| known.owner == value.owner && known.copy == value.copy) {
            Some((known, votes)) => {
                // A claim that proposes again proposes more.
                known.token = known.token.max(value.token);
                *votes += 1;
            }
            None => of.push((value, 1)),
        }
    }
}

/// Counts the votes for each key below `prefix`. Copies that could be taken over before `epoch` only are nothing any
/// more.
fn count(prefix: &str, heard: &Heard, epoch: Option<Epoch>) -> Result<BTreeMap<String, (Key, Votes)>> {
    let mut keys = BTreeMap::<String, (Key, Votes)>::new();
    for (name, text) in heard.iter().flatten() {
        let read = || {
            let key = Key::from_percent_encoded(name.strip_prefix(prefix)?)?;
            Some((key, Value::parse(text)?))
        };
        let (key, value) = read().ok_or_else(|| {
            let message =
                format!("{name:?} does not hold what a lock is; does another program use the prefix?");
            Error::new(ErrorKind::UnsafeConfig, message)
        })?;
        if value.copy.as_ref().is_none_or(|copy| Some(copy.epoch) >= epoch) {
            keys.entry(name.clone()).or_insert_with(|| (key, Votes::default())).1.add(value);
        }
    }
    Ok(keys)
}

/// Returns what a majority of so many servers may hold, and all copies.
///
/// # Errors
///
/// Of some key two holds may have a majority, and one of them certainly has not: the servers must be asked once more.
pub(crate) fn holds(
    servers: usize,
    prefix: &str,
    heard: &Heard,
    epoch: Option<Epoch>,
) -> Result<Vec<SlotHold>> {
    let (unheard, majority) = (servers - heard.len(), servers / 2 + 1);
    let mut all = Vec::new();
    for (key, votes) in count(prefix, heard, epoch)?.into_values() {
        let mut may_be = votes.holds.into_iter().filter(|(_, votes)| votes + unheard >= majority);
        let hold = may_be.next();
        if may_be.next().is_some() {
            let message = "the votes for a key are split, and not all servers answer; look again in a moment";
            return Err(Error::new(ErrorKind::Unavailable, message).with_key(&key));
        }
        let found = hold.into_iter().chain(votes.copies);
        all.extend(found.map(|(value, _)| value.into_hold(key.clone())));
    }
    Ok(all)
}

/// Returns whether a majority of so many servers may have the copy of a hold that can still be taken over.
pub(crate) fn has_copies(servers: usize, prefix: &str, heard: &Heard, epoch: Option<Epoch>) -> Result<bool> {
    let (unheard, majority) = (servers - heard.len(), servers / 2 + 1);
    let counted = count(prefix, heard, epoch)?;
    let mut copies = counted.values().flat_map(|(_, votes)| &votes.copies);
    Ok(copies.any(|(_, votes)| votes + unheard >= majority))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "lock:{redslot:df}:";

    /// Each server has the votes of one key, in words of owner and what follows; "-" for none.
    fn heard(servers: &[&str]) -> Heard {
        let owner = |letter: &str| letter.repeat(32);
        let value = |vote: &str| format!("{}:{}", owner(&vote[..1]), &vote[1..]);
        let of = |vote: &&str| match *vote {
            "-" => HashMap::new(),
            vote => HashMap::from([(format!("{PREFIX}k"), value(vote))]),
        };
        servers.iter().map(of).collect()
    }

    /// Tells each hold by the letter of its owner and the number of its token, a copy with a "c".
    fn told(servers: usize, votes: &[&str], epoch: u16) -> String {
        let told = holds(servers, PREFIX, &heard(votes), Epoch::new(epoch));
        let Ok(told) = told else { return "split".to_owned() };
        let one = |hold: &SlotHold| {
            let copy = if hold.copy.is_some() { "c" } else { "" };
            format!("{}{}{copy}", &hold.owner.to_string()[..1], hold.token)
        };
        told.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_hold_is_what_may_have_a_majority() {
        for (servers, votes, expected) in [
            (3, &["a7@0", "a7@0", "-"][..], "a7"),
            (3, &["a7@0", "-", "-"], ""),
            (3, &["a7@0", "-"], "a7"),
            (3, &["a7@0", "a9@0+"], "a9"),
            (3, &["a7@0", "b8@0", "b8@0"], "b8"),
            (3, &["a7@0", "b8@0"], "split"),
            (3, &["a7@0", "b8@0", "c9@0"], ""),
            (5, &["a7@0", "b8@0", "-", "-"], ""),
            (5, &["a7@0", "b8@0", "-"], "split"),
            (5, &["a7@0", "a7@0", "b8@0", "-"], "a7"),
        ] {
            assert_eq!(told(servers, votes, 0), expected, "{servers} {votes:?}");
        }
    }

    #[test]
    fn copies_are_told_wherever_they_are_as_long_as_they_can_be_taken_over() {
        let copy = "a7@0=1:copy:x:00000000000000aa";
        assert_eq!(told(3, &["-", "-", copy], 1), "a7c");
        assert_eq!(told(3, &["a7@0", "a7@0", copy], 1), "a7 a7c");
        assert_eq!(told(3, &["a7@0", copy, copy], 1), "a7c");
        assert_eq!(told(3, &["-", "-", copy], 2), "", "its epoch is over");
        let may = |votes: &[&str], epoch| has_copies(3, PREFIX, &heard(votes), Epoch::new(epoch)).unwrap();
        assert!(may(&[copy, "-"], 1) && may(&[copy, copy, "-"], 1));
        assert!(!may(&[copy, "-", "-"], 1) && !may(&[copy, "-"], 2));
    }
}
