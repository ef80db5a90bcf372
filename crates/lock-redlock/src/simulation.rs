//! Claims, a seal and a census of three servers in any order that chance makes, with the rules of the scripts: each
//! claim that ever counts a majority is in the census.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::{
    census::{Heard, holds},
    register::{Ballot, Known, Proposal},
};

const SERVERS: usize = 3;
const MAJORITY: usize = 2;
const PREFIX: &str = "lock:{redslot:df}:";
const OWNERS: [char; 3] = ['a', 'b', 'c'];

#[derive(Clone, Default)]
struct Server {
    known: Known,
    vote: Option<char>,
}

impl Server {
    /// Gives its vote to a claim of epoch 0; see `acquire.lua`.
    fn votes_for(&mut self, owner: char) -> bool {
        let says_open =
            |proposal: &Option<Proposal>| proposal.as_ref().is_some_and(|it| it.value == "open 0");
        if !(says_open(&self.known.accepted) && says_open(&self.known.learned)) {
            return false;
        }
        *self.vote.get_or_insert(owner) == owner
    }
}

/// What happens next, at one server.
#[derive(Clone, Copy)]
enum Event {
    Vote(char),
    Undo(char),
    Prepare,
    Accept,
    Learn,
    Census,
}

/// Plays one history. Returns how many claims counted a majority after the seal was agreed on, and whether the census
/// was of use; or the claim that is in no census.
fn play(seed: u64, learns_first: bool) -> Result<(usize, bool), char> {
    let random = &mut StdRng::seed_from_u64(seed);
    let ballots: Vec<_> =
        std::iter::successors(Some(Ballot::random()), |one| Some(one.above(*one))).take(2).collect();
    let [open, sealed] = [(0, "open 0"), (1, "sealed 0 b 1 00000000000000aa")]
        .map(|(ballot, value): (usize, &str)| Proposal { ballot: ballots[ballot], value: value.to_owned() });
    let mut servers = vec![Server::default(); SERVERS];
    servers.iter_mut().for_each(|server| server.known.learn(&open));
    let at_all = |event| (0..SERVERS).map(move |server| (server, event));
    let mut later: Vec<_> = OWNERS.into_iter().flat_map(|owner| at_all(Event::Vote(owner))).collect();
    later.extend(at_all(Event::Prepare));
    let (mut promises, mut accepted, mut late) = (0, 0, 0);
    let mut counted = HashMap::<char, usize>::new();
    let mut heard = Heard::new();
    loop {
        later.shuffle(random);
        let Some((server, event)) = later.pop() else { break };
        let at = &mut servers[server];
        // Requests are lost, but for those of the census, which is repeated.
        if random.random_bool(0.1) && !matches!(event, Event::Census) {
            continue;
        }
        match event {
            Event::Vote(owner) if at.votes_for(owner) => {
                let votes = counted.entry(owner).or_default();
                *votes += 1;
                late += usize::from(*votes == MAJORITY && accepted >= MAJORITY);
            }
            // Who is refused gives back, sooner or later, what it has.
            Event::Vote(owner) => {
                later.extend(at_all(Event::Undo(owner)).filter(|_| random.random_bool(0.2)))
            }
            Event::Undo(owner) if counted.get(&owner).is_none_or(|votes| *votes < MAJORITY) => {
                later.retain(|(of, event)| {
                    !(*of == server && matches!(event, Event::Vote(other) if *other == owner))
                });
                if at.vote.take_if(|vote| *vote == owner).is_some() {
                    *counted.entry(owner).or_default() -= 1;
                }
            }
            Event::Undo(_) => {}
            Event::Prepare => {
                promises += usize::from(at.known.prepare(sealed.ballot).is_ok());
                if promises == MAJORITY {
                    later.extend(at_all(Event::Accept));
                }
            }
            Event::Accept => {
                accepted += usize::from(at.known.accept(&sealed).is_ok());
                if accepted == MAJORITY {
                    later.extend(at_all(Event::Learn));
                    // One may be silent.
                    later.extend(at_all(Event::Census).skip(random.random_range(0..2)));
                }
            }
            Event::Learn => at.known.learn(&sealed),
            Event::Census => {
                if learns_first {
                    at.known.learn(&sealed);
                }
                let value = |owner: char| format!("{}:7@0", owner.to_string().repeat(32));
                heard.push(at.vote.map(|owner| (format!("{PREFIX}k"), value(owner))).into_iter().collect());
            }
        }
    }
    let told = (heard.len() >= MAJORITY).then(|| holds(SERVERS, PREFIX, &heard, None));
    let Some(Ok(told)) = told else { return Ok((late, false)) };
    let is_told = |owner: &char| told.iter().any(|hold| hold.owner.to_string().starts_with(*owner));
    let granted = counted.iter().filter(|(_, votes)| **votes >= MAJORITY).map(|(owner, _)| *owner);
    granted.into_iter().find(|owner| !is_told(owner)).map_or(Ok((late, true)), Err)
}

#[test]
fn a_claim_that_counts_a_majority_is_in_the_census() {
    let played: Vec<_> = (0..15_000).map(|seed| (seed, play(seed, true))).collect();
    let lost = played.iter().find(|(_, outcome)| outcome.is_err());
    assert!(lost.is_none(), "{lost:?}");
    let late = played.iter().filter(|(_, outcome)| matches!(outcome, Ok((late, true)) if *late > 0)).count();
    assert!(late > 10, "only {late} claims counted a majority after the seal");
}

/// What the servers are told in a census is what keeps a claim from winning after it.
#[test]
fn a_census_that_tells_the_servers_nothing_misses_claims() {
    assert!((0..50_000).any(|seed| play(seed, false).is_err()));
}
