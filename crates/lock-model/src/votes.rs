//! A slot that is sealed on three servers that know nothing of each other, and claims whose votes are under way (V).
//!
//! The marker is a register on which a majority agrees, and a server gives its vote as long as it has not heard of the
//! seal. So a claim may count its majority long after the seal was agreed on, and whoever lists the holds must list
//! that one too. Two claims want one key. Requests and answers are late or lost; a claimant asks again.
//!
//! There is one seal, which is never undone, and no copy. A vote lasts as long as its claim; that a lease ends is an
//! end of the claim. No round of the mover lasts as long as the wait of a server that lost its data.

use stateright::{Model, Property};

use crate::{catalogue::Entry, protocol::Protocol};

const SERVERS: usize = 3;
const MAJORITY: usize = 2;
const NAMES: [&str; 2] = ["A", "B"];

pub(crate) fn entries() -> Vec<Entry> {
    let rules = Rules { teaches: true, counts_unheard: true, asks_again: true, recovers_from_all: true };
    let votes = |rules, restarts| Votes { rules, restarts, is_symmetric: true };
    let entry = Entry::new;
    vec![
        entry("V1", "votes of three servers, a seal, and a census that tells of it first", votes(rules, 0))
            .holds(),
        entry("V2", "the same, and a server restarts without its data", votes(rules, 1)).holds().long(),
        entry("V3", "like V1, if the census only listens", votes(Rules { teaches: false, ..rules }, 0))
            .breaks(&[LISTED]),
        entry(
            "V4",
            "like V1, if only what a majority told is listed",
            votes(Rules { counts_unheard: false, ..rules }, 0),
        )
        .breaks(&[LISTED]),
        entry(
            "V5",
            "like V1, if of two that may hold the first is taken",
            votes(Rules { asks_again: false, ..rules }, 0),
        )
        .breaks(&[LISTED]),
        entry(
            "V6",
            "like V2, if the restarted server learns the marker from one other",
            votes(Rules { recovers_from_all: false, ..rules }, 1),
        )
        .breaks(&[LISTED]),
    ]
}

const LISTED: &str = "every hold is listed";

#[derive(Debug, Clone, Copy)]
struct Rules {
    /// The census tells a server of the seal before it asks for its votes.
    teaches: bool,
    /// A server that did not answer may have voted for anybody.
    counts_unheard: bool,
    /// If two may have a majority, the servers are asked once more.
    asks_again: bool,
    /// A server without its data learns the marker from a majority of the others, which are both, and not from one.
    recovers_from_all: bool,
}

#[derive(Debug, Clone, Copy)]
struct Votes {
    rules: Rules,
    restarts: u8,
    /// Servers that are alike are one.
    is_symmetric: bool,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct State {
    servers: [Server; SERVERS],
    /// Which claims were given up, given back or lost.
    is_over: [bool; 2],
    /// Which had a vote when a server restarted.
    is_old: [bool; 2],
    /// A majority has accepted the seal.
    agreed: bool,
    /// Whom the census lists, a bit each.
    listed: Option<u8>,
    restarts: u8,
    /// A claim counted its majority after the seal was agreed on.
    was_late: bool,
    asked_again: bool,
    recovered: bool,
}

#[derive(Debug, Clone, Copy, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
struct Server {
    sealed: bool,
    /// It has accepted the seal, as the mover knows, since it was restored last.
    accepted: bool,
    vote: Option<u8>,
    /// It has lost its data, and does nothing but ask the others.
    forgot: bool,
    /// What it was told then, once every lease of before is over.
    learned: Option<bool>,
    /// What each claim has of it.
    answers: [Answer; 2],
    /// The census has told it of the seal.
    told: bool,
    /// What the census has heard of it.
    heard: Option<Option<u8>>,
}

/// What a claim knows of its request to a server.
#[derive(Debug, Clone, Copy, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    /// Nothing: it may ask again.
    #[default]
    Awaited,
    /// It has the vote.
    Counted,
    /// It has no vote, and gets none.
    Undone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Vote { claim: u8, server: usize, is_heard: bool },
    End(u8),
    Free { claim: u8, server: usize },
    Seal(usize),
    Tell(usize),
    Ask(usize),
    List,
    AskAgain,
    Restart(usize),
    Learn { server: usize, from: usize },
    Restore(usize),
}

impl State {
    fn counts(&self, claim: u8) -> bool {
        let counted = |server: &&Server| server.answers[usize::from(claim)] == Answer::Counted;
        self.servers.iter().filter(counted).count() >= MAJORITY
    }

    fn holds(&self, claim: u8) -> bool {
        !self.is_over[usize::from(claim)] && self.counts(claim)
    }

    fn lists_all(&self) -> bool {
        self.listed
            .is_none_or(|listed| [0, 1].iter().all(|claim| !self.holds(*claim) || listed & 1 << claim != 0))
    }

    fn heard(&self) -> impl Iterator<Item = Option<u8>> + Clone {
        self.servers.iter().filter_map(|server| server.heard)
    }

    /// Whom the census has to list, by these rules; none if that is not clear.
    fn outcome(&self, rules: Rules) -> Option<u8> {
        let unheard = if rules.counts_unheard { SERVERS - self.heard().count() } else { 0 };
        let may_hold = |claim: &u8| {
            let votes = self.heard().filter(|vote| *vote == Some(*claim)).count();
            votes > 0 && votes + unheard >= MAJORITY
        };
        let mut holders = [0, 1].into_iter().filter(may_hold);
        let first = holders.next();
        match holders.next() {
            Some(_) if rules.asks_again => None,
            _ => Some(first.map_or(0, |claim| 1 << claim)),
        }
    }

    /// Whether a claim from before the restart of `server` is over, or has a majority without it.
    fn is_over_or_goes_on(&self, claim: u8, server: usize) -> bool {
        let index = usize::from(claim);
        let counts = |(other, it): (usize, &Server)| other != server && it.answers[index] == Answer::Counted;
        let without_it = self.servers.iter().enumerate().filter(|it| counts(*it)).count();
        self.is_over[index] || !self.is_old[index] || without_it >= MAJORITY
    }
}

impl Model for Votes {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            servers: [Server::default(); SERVERS],
            is_over: [false; 2],
            is_old: [false; 2],
            agreed: false,
            listed: None,
            restarts: self.restarts,
            was_late: false,
            asked_again: false,
            recovered: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for claim in [0, 1] {
            let is_over = state.is_over[usize::from(claim)];
            if !is_over {
                actions.push(Action::End(claim));
            }
            for server in 0..SERVERS {
                if state.servers[server].answers[usize::from(claim)] == Answer::Awaited {
                    let vote = |is_heard| Action::Vote { claim, server, is_heard };
                    actions.extend([vote(true), vote(false)]);
                }
                if is_over {
                    actions.push(Action::Free { claim, server });
                }
            }
        }
        for (server, it) in state.servers.iter().enumerate() {
            if it.forgot {
                let others = (0..SERVERS).filter(|other| *other != server && !state.servers[*other].forgot);
                actions.extend(others.map(|from| Action::Learn { server, from }));
                actions.extend(it.learned.map(|_| Action::Restore(server)));
                continue;
            }
            actions.push(Action::Seal(server));
            if state.restarts > 0 {
                actions.push(Action::Restart(server));
            }
            if state.agreed && state.listed.is_none() && it.heard.is_none() {
                let must_tell = self.rules.teaches && !it.told;
                actions.push(if must_tell { Action::Tell(server) } else { Action::Ask(server) });
            }
        }
        if state.heard().count() >= MAJORITY && state.listed.is_none() {
            let is_clear = state.outcome(self.rules).is_some();
            actions.push(if is_clear { Action::List } else { Action::AskAgain });
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        match action {
            Action::Vote { claim, server, is_heard } => {
                let it = &mut next.servers[server];
                if it.sealed || it.forgot || it.vote.is_some_and(|other| other != claim) {
                    return None;
                }
                it.vote = Some(claim);
                if is_heard {
                    it.answers[usize::from(claim)] = Answer::Counted;
                    next.was_late |= state.agreed && next.holds(claim) && !state.holds(claim);
                }
            }
            Action::End(claim) => next.is_over[usize::from(claim)] = true,
            Action::Free { claim, server } => {
                let it = &mut next.servers[server];
                it.vote = it.vote.filter(|vote| *vote != claim);
                it.answers[usize::from(claim)] = Answer::Undone;
            }
            Action::Seal(server) => {
                next.servers[server].sealed = true;
                next.servers[server].accepted = true;
                next.agreed |= next.servers.iter().filter(|server| server.accepted).count() >= MAJORITY;
            }
            Action::Tell(server) => {
                next.servers[server].sealed = true;
                next.servers[server].told = true;
            }
            Action::Ask(server) => next.servers[server].heard = Some(state.servers[server].vote),
            Action::List => next.listed = state.outcome(self.rules),
            Action::AskAgain => {
                next.servers.iter_mut().for_each(|server| (server.told, server.heard) = (false, None));
                next.asked_again = true;
            }
            Action::Restart(server) => {
                next.restarts -= 1;
                let has_vote = |claim: usize| {
                    let counted = |it: &Server| it.answers[claim] == Answer::Counted;
                    state.servers.iter().any(counted)
                };
                next.is_old = [0, 1].map(has_vote);
                let Server { accepted, answers, heard, .. } = state.servers[server];
                next.servers[server] = Server { forgot: true, accepted, answers, heard, ..Server::default() };
            }
            Action::Learn { server, from } => {
                if ![0, 1].iter().all(|claim| state.is_over_or_goes_on(*claim, server)) {
                    return None;
                }
                let any = state.servers.iter().any(|other| other.sealed);
                let sealed = if self.rules.recovers_from_all { any } else { state.servers[from].sealed };
                next.servers[server].learned = Some(sealed);
            }
            Action::Restore(server) => {
                let it = &mut next.servers[server];
                let sealed = it.learned.take()?;
                (it.sealed, it.accepted, it.forgot) = (sealed, sealed, false);
                // A claim that goes on has a majority of the others, and may ask it once more.
                for answer in it.answers.iter_mut().filter(|answer| **answer == Answer::Counted) {
                    *answer = Answer::Awaited;
                }
                next.recovered = true;
            }
        }
        if self.is_symmetric {
            next.servers.sort_unstable();
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LISTED, |_, state: &State| state.lists_all()),
            Property::sometimes("a claim counts its majority after the seal", |_, state: &State| {
                state.was_late
            }),
            Property::sometimes("a census has to be repeated", |_, state: &State| state.asked_again),
            Property::sometimes("a server votes after its restart", |model: &Self, state: &State| {
                model.restarts == 0 || state.recovered && state.servers.iter().all(|it| it.vote.is_some())
            }),
        ]
    }
}

impl Protocol for Votes {
    fn without_symmetry(&self) -> Self {
        Self { is_symmetric: false, ..*self }
    }

    fn tell(&self, before: &State, action: &Action) -> String {
        let name = |claim: u8| NAMES[usize::from(claim)];
        let number = |server: usize| server + 1;
        match *action {
            Action::Vote { claim, server, is_heard: true } => {
                format!("server {} gives its vote to {}, who counts it", number(server), name(claim))
            }
            Action::Vote { claim, server, is_heard: false } => {
                format!("server {} gives its vote to {}, and the answer is lost", number(server), name(claim))
            }
            Action::End(claim) if before.holds(claim) => {
                format!("{} releases, is lost or crashes: it believes no longer", name(claim))
            }
            Action::End(claim) => format!("{} gives up", name(claim)),
            Action::Free { claim, server } => {
                format!(
                    "server {} has no vote of {} any more, and gives it none",
                    number(server),
                    name(claim)
                )
            }
            Action::Seal(server) => format!("server {} hears of the seal, and accepts it", number(server)),
            Action::Tell(server) => format!("the census tells server {} of the seal", number(server)),
            Action::Ask(server) => {
                let vote = before.servers[server].vote.map_or("no vote", |claim| name(claim));
                format!("the census asks server {}: {vote}", number(server))
            }
            Action::List => match before.outcome(self.rules) {
                Some(0) | None => "the census lists no hold".to_owned(),
                Some(claims) => {
                    format!("the census lists the hold of {}", name(claims.trailing_zeros() as u8))
                }
            },
            Action::AskAgain => "two may hold: the census begins anew".to_owned(),
            Action::Restart(server) => format!("server {} restarts without its data", number(server)),
            Action::Learn { server, from } => format!(
                "when every lease of before is over, server {} asks server {}",
                number(server),
                number(from)
            ),
            Action::Restore(server) => {
                let sealed = before.servers[server].learned == Some(true);
                let what = if sealed { "sealed" } else { "open" };
                format!("server {} gets its vote back: the slot is {what}", number(server))
            }
        }
    }

    fn is_fault(&self, action: &Action) -> bool {
        matches!(action, Action::Restart(_))
    }
}
