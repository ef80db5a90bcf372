//! A register that all servers keep, and that a majority agrees on: how it is read and changed. Pure; who asks the
//! servers is `agreement.rs`.
//!
//! A majority of servers that know nothing of each other cannot compare and set: two changes from one value could each
//! be made at a minority, and neither be undone with certainty. So the register is agreed on, by CASPaxos: a change
//! first has a majority promise to accept nothing of a smaller ballot, and is told what they accepted last. Of that,
//! only the value of the largest ballot can have been agreed on. If it is what the change is from, the new value is
//! proposed, else that one once more. What a majority accepts is agreed on, and is then told to all.

use std::fmt;

use lock_core::movable::Slot;

/// Returns the name of the register that has the marker of a slot.
pub(crate) fn register_of(slot: Slot) -> String {
    format!("{:02x}", slot.index())
}

/// The register that has the identity of the servers.
pub(crate) const IDENTITY: &str = "identity";

/// What a proposal is numbered with: of two, the larger one counts, and no two proposals have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ballot {
    round: u32,
    proposer: u64,
}

impl Ballot {
    /// Makes the first of a proposer that has not proposed yet.
    pub(crate) fn random() -> Self {
        Self { round: 1, proposer: rand::random() }
    }

    /// Returns the proposer's next, which is larger than `other` as well.
    pub(crate) fn above(self, other: Self) -> Self {
        Self { round: self.round.max(other.round).saturating_add(1), ..self }
    }

    /// Reads what [`Display`](fmt::Display) writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (round, proposer) = text.split_once('.')?;
        Some(Self { round: round.parse().ok()?, proposer: proposer.parse().ok()? })
    }
}

/// Of one width and of digits only, so that scripts can compare them as text.
impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}.{:020}", self.round, self.proposer)
    }
}

/// A value that a server accepted, or was told that it was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) ballot: Ballot,
    pub(crate) value: String,
}

impl Proposal {
    /// Reads what [`Display`](fmt::Display) writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (ballot, value) = text.split_once(' ')?;
        Some(Self { ballot: Ballot::parse(ballot)?, value: value.to_owned() })
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.ballot, self.value)
    }
}

/// What one server knows of a register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) promised: Ballot,
    pub(crate) accepted: Option<Proposal>,
    pub(crate) learned: Option<Proposal>,
}

impl Known {
    /// Returns whether the server was told that what it accepted is what was agreed on.
    pub(crate) fn is_settled(&self) -> bool {
        self.accepted == self.learned
    }

    /// Makes it the larger of both in each of its parts: what a server must know that has forgotten everything.
    pub(crate) fn merge(&mut self, other: &Self) {
        let larger = |own: &mut Option<Proposal>, other: &Option<Proposal>| {
            if other.as_ref().map(|other| other.ballot) > own.as_ref().map(|own| own.ballot) {
                own.clone_from(other);
            }
        };
        self.promised = self.promised.max(other.promised);
        larger(&mut self.accepted, &other.accepted);
        larger(&mut self.learned, &other.learned);
    }
}

/// Returns what was agreed on last, if what servers know makes that certain: a majority has accepted it and was told
/// so, or has accepted nothing. `None` if it may be one thing or another.
pub(crate) fn agreed<'a>(known: &[&'a Known], majority: usize) -> Option<Option<&'a Proposal>> {
    known.iter().find_map(|candidate| {
        let is_same = |other: &&&Known| other.is_settled() && other.accepted == candidate.accepted;
        (known.iter().filter(is_same).count() >= majority).then_some(candidate.accepted.as_ref())
    })
}

/// Of what a majority accepted before it promised, returns what may have been agreed on.
pub(crate) fn largest(accepted: impl IntoIterator<Item = Option<Proposal>>) -> Option<Proposal> {
    accepted.into_iter().flatten().max_by_key(|proposal| proposal.ballot)
}

/// What somebody wants of a register.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// To know its value for certain.
    Read,
    /// To change it from exactly one value to another.
    Change {
        from: Option<String>,
        to: String,
        /// Whether the new value was proposed before, in a round of which nobody knows what came of it.
        was_proposed: bool,
    },
}

impl Wish {
    pub(crate) fn change(from: Option<String>, to: String) -> Self {
        Self::Change { from, to, was_proposed: false }
    }

    /// Returns the value to propose where `present` may have been agreed on, and whether the change is made when that
    /// is agreed on; nothing to propose if there is nothing, and nothing to be changed.
    pub(crate) fn proposal(&mut self, present: Option<&str>) -> (Option<String>, bool) {
        match self {
            Self::Change { from, to, was_proposed } if from.as_deref() == present => {
                *was_proposed = true;
                (Some(to.clone()), true)
            }
            Self::Change { to, was_proposed: true, .. } if present == Some(to.as_str()) => {
                (Some(to.clone()), true)
            }
            _ => (present.map(str::to_owned), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn ballots_compare_as_texts_as_they_do_as_numbers() {
        let ballots = [(1, 7), (1, 8), (2, 0), (9, u64::MAX), (10, 0), (u32::MAX, u64::MAX)];
        let ballots = ballots.map(|(round, proposer)| Ballot { round, proposer });
        for pair in ballots.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_string() < pair[1].to_string(), "{pair:?}");
        }
        for ballot in ballots {
            let proposal = Proposal { ballot, value: "sealed 3 b 4 00000000000000aa".to_owned() };
            assert_eq!(Proposal::parse(&proposal.to_string()), Some(proposal));
        }
    }

    /// One server, as the scripts have it.
    impl Known {
        pub(crate) fn prepare(&mut self, ballot: Ballot) -> Result<Option<Proposal>, Ballot> {
            if self.promised > ballot {
                return Err(self.promised);
            }
            self.promised = ballot;
            Ok(self.accepted.clone())
        }

        pub(crate) fn accept(&mut self, proposal: &Proposal) -> Result<(), Ballot> {
            if self.promised > proposal.ballot {
                return Err(self.promised);
            }
            self.promised = proposal.ballot;
            self.accepted = Some(proposal.clone());
            Ok(())
        }

        pub(crate) fn learn(&mut self, proposal: &Proposal) {
            if self.promised <= proposal.ballot {
                self.accept(proposal).expect("it was promised");
            }
            if self.learned.as_ref().is_none_or(|learned| learned.ballot < proposal.ballot) {
                self.learned = Some(proposal.clone());
            }
        }
    }

    const SERVERS: usize = 3;
    const MAJORITY: usize = 2;

    /// What was accepted, by which servers, and what was agreed on: servers need not have it at one time.
    #[derive(Default)]
    struct History {
        accepted: BTreeMap<Ballot, BTreeSet<usize>>,
        agreed: Vec<Proposal>,
    }

    impl History {
        fn has_accepted(&mut self, server: usize, proposal: &Proposal) {
            let by = self.accepted.entry(proposal.ballot).or_default();
            if by.insert(server) && by.len() == MAJORITY {
                self.agreed.push(proposal.clone());
            }
        }
    }

    /// One that wants something, in the middle of a round.
    struct Proposer {
        wish: Wish,
        ballot: Ballot,
        /// Those who have not been asked in this phase.
        unasked: Vec<usize>,
        promises: Vec<Option<Proposal>>,
        proposed: Option<(Proposal, bool)>,
        accepted: usize,
        outcome: Option<bool>,
    }

    impl Proposer {
        fn new(number: u64, wish: Wish) -> Self {
            let ballot = Ballot { round: 1, proposer: number };
            let unasked = (0..SERVERS).collect();
            Self { wish, ballot, unasked, promises: Vec::new(), proposed: None, accepted: 0, outcome: None }
        }

        fn begin_again(&mut self, above: Ballot) {
            *self = Self { ballot: self.ballot.above(above), ..Self::new(0, self.wish.clone()) };
        }

        /// Asks one server more, whose request or answer may be lost.
        fn step(&mut self, servers: &mut [Known], random: &mut StdRng, history: &mut History) {
            if self.unasked.is_empty() {
                return self.begin_again(self.ballot);
            }
            let server = self.unasked.swap_remove(random.random_range(0..self.unasked.len()));
            if random.random_bool(0.2) {
                return;
            }
            let answer_is_lost = random.random_bool(0.2);
            if let Some((proposal, outcome)) = &self.proposed {
                let answer = servers[server].accept(proposal);
                if answer.is_ok() {
                    history.has_accepted(server, proposal);
                }
                match answer {
                    _ if answer_is_lost => return,
                    Err(above) => return self.begin_again(above),
                    Ok(()) => self.accepted += 1,
                }
                if self.accepted == MAJORITY {
                    self.outcome = Some(*outcome);
                    for known in servers.iter_mut().filter(|_| random.random_bool(0.7)) {
                        known.learn(proposal);
                    }
                }
                return;
            }
            match servers[server].prepare(self.ballot) {
                _ if answer_is_lost => return,
                Err(above) => return self.begin_again(above),
                Ok(accepted) => self.promises.push(accepted),
            }
            if self.promises.len() == MAJORITY {
                let present = largest(self.promises.drain(..));
                let (value, outcome) =
                    self.wish.proposal(present.as_ref().map(|present| present.value.as_str()));
                match value {
                    None => self.outcome = Some(outcome),
                    Some(value) => {
                        self.proposed = Some((Proposal { ballot: self.ballot, value }, outcome));
                        self.unasked = (0..SERVERS).collect();
                    }
                }
            }
        }
    }

    /// What was agreed on in the order of ballots is a chain of changes, each from the value before it. A change may be
    /// agreed on by another that was made from it.
    fn check(agreed: &mut [Proposal], proposers: &[Proposer], seed: u64) {
        agreed.sort_by_key(|proposal| proposal.ballot);
        let wanted = |proposer: &Proposer| match &proposer.wish {
            Wish::Change { from, to, .. } => Some((from.clone(), to.clone())),
            Wish::Read => None,
        };
        let changes: Vec<_> = proposers.iter().filter_map(wanted).collect();
        let (mut before, mut made) = (None, Vec::new());
        for proposal in agreed {
            let mut steps = Vec::new();
            let mut at = Some(proposal.value.clone());
            while at != before {
                let step = changes.iter().find(|(_, to)| Some(to) == at.as_ref());
                let step = step.unwrap_or_else(|| panic!("seed {seed}: {before:?} became {proposal}"));
                at.clone_from(&step.0);
                steps.push(step.clone());
            }
            for step in steps {
                assert!(!made.iter().any(|(from, _)| *from == step.0), "seed {seed}: two changes {step:?}");
                made.push(step);
            }
            before = Some(proposal.value.clone());
        }
        for proposer in proposers {
            if let (Wish::Change { from, to, .. }, Some(true)) = (&proposer.wish, proposer.outcome) {
                assert!(made.contains(&(from.clone(), to.clone())), "seed {seed}: {to} was not made");
            }
        }
    }

    /// Many proposers at once, whose requests are lost, in any order: of two changes from one value, one is made.
    #[test]
    fn of_two_changes_from_one_value_one_is_made() {
        let (mut raced, mut both_ways) = (0, [0; 2]);
        for seed in 0..10_000 {
            let random = &mut StdRng::seed_from_u64(seed);
            let mut servers = vec![Known::default(); SERVERS];
            let wishes = [
                Wish::change(None, "a".to_owned()),
                Wish::change(None, "b".to_owned()),
                Wish::change(Some("a".to_owned()), "c".to_owned()),
                Wish::change(Some("a".to_owned()), "d".to_owned()),
                Wish::Read,
            ];
            let mut proposers: Vec<_> =
                (1..).zip(wishes).map(|(number, wish)| Proposer::new(number, wish)).collect();
            let mut history = History::default();
            for _ in 0..random.random_range(10..200) {
                let proposer = random.random_range(0..proposers.len());
                if proposers[proposer].outcome.is_none() {
                    proposers[proposer].step(&mut servers, random, &mut history);
                }
                let known: Vec<_> = servers.iter().collect();
                if let Some(read) = super::agreed(&known, MAJORITY) {
                    let last = history.agreed.iter().max_by_key(|proposal| proposal.ballot);
                    assert_eq!(read, last, "seed {seed}");
                }
            }
            check(&mut history.agreed, &proposers, seed);
            let won = [0, 1].map(|index: usize| proposers[index].outcome == Some(true));
            raced += usize::from(won[0] || won[1]);
            both_ways[usize::from(won[1])] += 1;
            assert!(!(won[0] && won[1]), "seed {seed}");
        }
        assert!(raced > 3_000 && both_ways.iter().all(|often| *often > 1_000), "{raced}, {both_ways:?}");
    }

    #[test]
    fn what_was_accepted_and_not_agreed_on_is_not_read() {
        let proposal = |round, value: &str| {
            Some(Proposal { ballot: Ballot { round, proposer: 1 }, value: value.to_owned() })
        };
        let known = |accepted: Option<Proposal>, learned: Option<Proposal>| Known {
            promised: accepted.as_ref().map(|accepted| accepted.ballot).unwrap_or_default(),
            accepted,
            learned,
        };
        let old = known(proposal(1, "a"), proposal(1, "a"));
        let half = known(proposal(2, "b"), proposal(1, "a"));
        let new = known(proposal(2, "b"), proposal(2, "b"));
        let read = |known: &[&Known]| agreed(known, MAJORITY).map(|read| read.map(|read| read.value.clone()));
        assert_eq!(read(&[&old, &old, &half]), Some(Some("a".to_owned())));
        assert_eq!(read(&[&old, &half, &half]), None);
        assert_eq!(read(&[&half, &new]), None);
        assert_eq!(read(&[&old, &new]), None);
        assert_eq!(read(&[&old, &new, &new]), Some(Some("b".to_owned())));
        assert_eq!(read(&[&Known::default(), &Known::default()]), Some(None));
        let mut merged = old.clone();
        merged.merge(&half);
        assert_eq!(merged, half);
        merged.merge(&old);
        assert_eq!(merged, half);
    }
}
