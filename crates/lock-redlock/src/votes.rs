//! Counting votes: when it is decided, and what.

use std::time::Duration;

use lock_core::{Error, backend::Effect};

/// What one server made of a claim.
#[derive(Debug)]
pub(crate) enum Vote {
    /// It votes for the claim.
    Granted,
    /// It votes for another, or keeps its vote for another.
    Busy {
        free_in: Duration,
        owner: String,
        /// Whether the other is next, and has no vote yet.
        is_next: bool,
        /// The ticket under which the claim stands in the queue there, if it does.
        ticket: Option<u64>,
    },
    /// It would vote for the claim if its token were larger than this.
    Stale(u64),
    /// It has no vote.
    Forgot,
    /// It votes for nobody, since the slot of the key is not open there.
    Closed,
    /// It gave no answer.
    Failed(Error),
}

/// What the votes come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// A majority is for the claim.
    Held,
    /// A majority may be for it if it proposes a larger token.
    Again,
    /// No majority will be for it, since others have votes.
    Busy,
    /// No majority can vote.
    Unavailable,
    /// No majority votes, since the slot of the key is not open.
    Closed,
}

/// The votes of one round.
#[derive(Debug)]
pub(crate) struct Tally {
    servers: usize,
    granted: usize,
    busy: Vec<(Duration, String)>,
    tickets: Vec<u64>,
    is_reserved: bool,
    stale: usize,
    newest: u64,
    forgot: usize,
    closed: usize,
    failures: Vec<Error>,
}

impl Tally {
    pub(crate) fn of(servers: usize) -> Self {
        Self {
            servers,
            granted: 0,
            busy: Vec::new(),
            tickets: Vec::new(),
            is_reserved: false,
            stale: 0,
            newest: 0,
            forgot: 0,
            closed: 0,
            failures: Vec::new(),
        }
    }

    pub(crate) fn count(&mut self, vote: Vote) {
        match vote {
            Vote::Granted => self.granted += 1,
            Vote::Busy { free_in, owner, is_next, ticket } => {
                self.busy.push((free_in, owner));
                self.is_reserved |= is_next;
                self.tickets.extend(ticket);
            }
            Vote::Stale(token) => {
                self.stale += 1;
                self.newest = self.newest.max(token);
            }
            Vote::Forgot => self.forgot += 1,
            Vote::Closed => self.closed += 1,
            Vote::Failed(error) => self.failures.push(error),
        }
    }

    fn majority(&self) -> usize {
        self.servers / 2 + 1
    }

    fn votes(&self) -> usize {
        self.granted + self.busy.len() + self.stale
    }

    fn pending(&self) -> usize {
        self.servers - self.votes() - self.forgot - self.closed - self.failures.len()
    }

    /// Returns whether a majority has voted, so that the rest need not be waited for without end.
    pub(crate) fn has_quorum(&self) -> bool {
        self.votes() >= self.majority()
    }

    /// Returns what is certain, whatever those say who have not answered.
    pub(crate) fn decided(&self) -> Option<Decision> {
        self.decide(self.pending())
    }

    /// Returns what it comes to if those who have not answered never do. Needs a quorum.
    pub(crate) fn without_the_rest(&self) -> Decision {
        self.decide(0).unwrap_or(Decision::Busy)
    }

    fn decide(&self, pending: usize) -> Option<Decision> {
        let majority = self.majority();
        if self.granted >= majority {
            return Some(Decision::Held);
        }
        // No majority can vote because of faults alone. The number of servers is odd.
        if self.forgot + self.closed + self.failures.len() >= majority {
            return Some(if self.closed > 0 { Decision::Closed } else { Decision::Unavailable });
        }
        if self.granted + pending >= majority {
            return None;
        }
        if self.stale > 0 && self.granted + self.stale + pending >= majority {
            return Some(Decision::Again);
        }
        // With too few votes it is open still whether it will be busy or unavailable; and where votes are split, who
        // yields.
        let certain = self.has_quorum() && (pending == 0 || self.has_majority_for_another());
        certain.then_some(Decision::Busy)
    }

    /// Returns whether one other has a majority.
    fn has_majority_for_another(&self) -> bool {
        let held_by = |owner: &String| self.busy.iter().filter(|(_, other)| other == owner).count();
        self.busy.iter().any(|(_, owner)| held_by(owner) >= self.majority())
    }

    /// Returns whether this claim, of all that split the votes, stays while the others yield: the one with the smallest
    /// owner id does. All who see its vote agree on that, so that one wins of those who try at once. Nobody stays where
    /// a waiter is next.
    pub(crate) fn stays(&self, own: &str) -> bool {
        self.granted > 0
            && !self.is_reserved
            && !self.has_majority_for_another()
            && self.busy.iter().all(|(_, other)| own < other.as_str())
    }

    /// Returns the ticket under which the claim can wait in queues, if a majority lets it once it has given its votes
    /// back: the median of what it was given.
    pub(crate) fn ticket(&self) -> Option<u64> {
        let mut tickets = self.tickets.clone();
        tickets.sort_unstable();
        let can_wait = self.granted + tickets.len() >= self.majority();
        tickets.get(tickets.len().saturating_sub(1) / 2).copied().filter(|_| can_wait)
    }

    /// Returns whether all have answered or failed.
    pub(crate) fn is_complete(&self) -> bool {
        self.pending() == 0
    }

    /// Returns the newest token of those who want a larger one.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Returns whether the claim may have left anything anywhere.
    pub(crate) fn effect(&self) -> Effect {
        // Who is told to propose more may stand in the queue there.
        let may_wait = self.stale > 0 || !self.tickets.is_empty();
        if may_wait || self.may_have_votes() { Effect::Possible } else { Effect::None }
    }

    /// Returns whether a server may vote for the claim.
    pub(crate) fn may_have_votes(&self) -> bool {
        self.granted + self.pending() > 0
            || self.failures.iter().any(|failure| failure.effect() == Effect::Possible)
    }

    /// Returns when enough votes for another will have run out, if one other has a majority: else nobody may have the
    /// key, and it is free as soon as all who failed have given their votes back.
    pub(crate) fn free_in(&self) -> Option<Duration> {
        if !self.has_majority_for_another() {
            return None;
        }
        let mut ends: Vec<_> = self.busy.iter().map(|(free_in, _)| *free_in).collect();
        ends.sort_unstable();
        let needed = self.majority() - self.granted;
        ends.get(needed - 1).copied()
    }

    /// Returns whether a server has no vote, or did not answer.
    pub(crate) fn lacks_servers(&self) -> bool {
        self.forgot + self.failures.len() + self.pending() > 0
    }

    pub(crate) fn forgot(&self) -> usize {
        self.forgot
    }

    pub(crate) fn into_failures(self) -> Vec<Error> {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use lock_core::ErrorKind;

    use super::*;

    fn tally(votes: &str) -> Tally {
        let mut tally = Tally::of(5);
        for vote in votes.chars() {
            tally.count(match vote {
                'g' => Vote::Granted,
                's' => Vote::Stale(7),
                '0' => Vote::Forgot,
                '/' => Vote::Closed,
                'x' => Vote::Failed(Error::new(ErrorKind::Unavailable, "dead").without_effect()),
                owner => {
                    // Only those in capitals let the claim wait in a queue.
                    let ticket = owner.is_ascii_uppercase().then_some(u64::from(owner));
                    let (free_in, owner) = (Duration::from_millis(9), owner.to_string());
                    Vote::Busy { free_in, owner, is_next: ticket.is_some(), ticket }
                }
            });
        }
        tally
    }

    #[test]
    fn it_is_decided_at_the_first_majority_either_way() {
        use Decision::{Again, Busy, Closed, Held, Unavailable};
        for (votes, decision) in [
            ("", None),
            ("gg", None),
            ("ggg", Some(Held)),
            ("ggaag", Some(Held)),
            ("aa", None),
            ("aaa", Some(Busy)),
            ("ggab", None),
            ("ggabb", Some(Busy)),
            ("aab", None),
            ("gaab", None),
            ("xx", None),
            ("xxaa", None),
            ("xxgga", Some(Busy)),
            ("xxaaa", Some(Busy)),
            ("xxx", Some(Unavailable)),
            ("x00", Some(Unavailable)),
            ("ggxx0", Some(Unavailable)),
            ("ss", None),
            ("sss", Some(Again)),
            ("ssa", Some(Again)),
            ("ssaa", Some(Again)),
            ("saaa", Some(Busy)),
            ("ssxx", Some(Again)),
            ("ggg/", Some(Held)),
            ("g//", None),
            ("gg//", None),
            ("aaa//", Some(Busy)),
            ("///", Some(Closed)),
            ("/x0", Some(Closed)),
            ("gg/xx", Some(Closed)),
        ] {
            assert_eq!(tally(votes).decided(), decision, "{votes}");
        }
    }

    #[test]
    fn a_server_that_is_late_is_not_waited_for_without_end() {
        assert!(!tally("gg").has_quorum());
        assert_eq!(tally("ggaa").without_the_rest(), Decision::Busy);
        assert_eq!(tally("ggsa").without_the_rest(), Decision::Again);
    }

    #[test]
    fn the_ticket_is_the_median_of_those_that_were_given() {
        for (votes, ticket) in [
            ("ABC", Some('B')),
            ("ggCAB", Some('B')),
            ("AAZZ", Some('A')),
            ("xxgAB", Some('A')),
            ("xaaAA", None),
        ] {
            assert_eq!(tally(votes).ticket(), ticket.map(u64::from), "{votes}");
        }
        assert_eq!(tally("xxaaa").effect(), Effect::None);
        assert_eq!(tally("xxaAx").effect(), Effect::Possible, "it has a place");
    }

    #[test]
    fn only_a_majority_of_one_other_is_waited_for() {
        assert_eq!(tally("aaa").free_in(), Some(Duration::from_millis(9)));
        assert_eq!(tally("gaabb").free_in(), None, "votes are split");
    }

    #[test]
    fn of_those_who_split_the_votes_one_stays() {
        assert!(tally("ggbbc").stays("a"));
        assert!(!tally("aabbc").stays("a"), "nobody sees it");
        assert!(!tally("ggaac").stays("b"));
        assert!(!tally("gbbb").stays("a"), "another holds the key");
        assert!(tally("gbbxx").stays("a"), "which another may hold");
    }

    #[test]
    fn only_what_may_be_left_is_undone() {
        assert_eq!(tally("aaaxx").effect(), Effect::None);
        assert_eq!(tally("aaax").effect(), Effect::Possible, "one has not answered");
        assert_eq!(tally("gaaxx").effect(), Effect::Possible);
    }
}
