//! The models of Redlock, with their bounds.

use super::{Left, Recovery, Redlock, TTL, Tokens};
use crate::catalogue::Entry;

const REDLOCK: Redlock = Redlock {
    attempts: [1, 1],
    has_fresh_owners: true,
    counts_from_start: true,
    margin: 0,
    tokens: Tokens::Proposed,
    restarts: 0,
    left: Left::Nothing,
    recovery: Recovery::WaitsThenLearns,
    jumps: 0,
    drifts: false,
    is_symmetric: true,
};
const DRIFT: Redlock = Redlock { drifts: true, ..REDLOCK };
const MARGIN: Redlock = Redlock { margin: 1, ..DRIFT };
const JUMP: Redlock = Redlock { jumps: 1, ..REDLOCK };
const TWICE: Redlock = twice(REDLOCK);

/// One client tries a second time.
const fn twice(redlock: Redlock) -> Redlock {
    Redlock { attempts: [2, 1], ..redlock }
}

pub(crate) fn entries() -> Vec<Entry> {
    [steady(), restarts()].into_iter().flatten().collect()
}

/// Those in which servers keep what they know.
fn steady() -> Vec<Entry> {
    let (belief, tokens) = (&["no two beliefs"], &["tokens grow"]);
    let one_owner = Redlock { has_fresh_owners: false, ..TWICE };
    let from_the_vote = Redlock { counts_from_start: false, ..TWICE };
    let counted = Redlock { tokens: Tokens::Counted, ..TWICE };
    vec![
        Entry::new("R1", "three servers; claims, undos and releases that are late", TWICE).holds(),
        Entry::new("R2", "all attempts of a client have one owner id", one_owner).breaks(belief),
        Entry::new("R3", "a belief counts from the vote that made a majority", from_the_vote).breaks(belief),
        Entry::new("R4", "the token is the largest of the servers' counts", counted).breaks(tokens),
        Entry::new("R5", "clocks of servers gain 1 in each lease, and beliefs last as long", DRIFT)
            .breaks(belief),
        Entry::new("R6", "the same, and beliefs are shorter by 1", MARGIN).holds(),
        Entry::new("R7", "the clock of a server jumps over the end of its lease", JUMP)
            .breaks(belief)
            .keeps_the_rest(),
        Entry::new("R8", "R6 with two attempts of a client", twice(MARGIN)).holds().long(),
        Entry::new("R9", "R7 with two attempts of a client", twice(JUMP))
            .breaks(belief)
            .keeps_the_rest()
            .long(),
    ]
}

/// Those in which a server restarts.
fn restarts() -> Vec<Entry> {
    let (belief, tokens) = (&["no two beliefs"], &["tokens grow"]);
    let both = &["no two beliefs", "tokens grow"];
    let without = |recovery| Redlock { restarts: 1, recovery, ..REDLOCK };
    let older = |recovery| Redlock { left: Left::Older, ..without(recovery) };
    vec![
        Entry::new("R10", "a server restarts without its data, and votes at once", without(Recovery::None))
            .breaks(both),
        Entry::new("R11", "a server restarts with older data, and votes at once", older(Recovery::None))
            .breaks(both),
        Entry::new(
            "R12",
            "a server restarts without its data, and votes before a lease is over",
            without(Recovery::Waits(TTL - 1)),
        )
        .breaks(belief),
        Entry::new("R13", "the same, when a lease is over", without(Recovery::Waits(TTL)))
            .breaks(tokens)
            .keeps_the_rest(),
        Entry::new(
            "R14",
            "the same, and it is told the others' tokens meanwhile",
            without(Recovery::WaitsAndLearns),
        )
        .breaks(tokens)
        .keeps_the_rest(),
        Entry::new(
            "R15",
            "the same, and it is told them when the lease is over",
            without(Recovery::WaitsThenLearns),
        )
        .holds(),
        Entry::new("R16", "the same, with older data", older(Recovery::WaitsThenLearns)).holds(),
    ]
}
