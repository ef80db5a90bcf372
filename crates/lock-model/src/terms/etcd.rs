//! etcd: each member keeps a lease for no less than its own least, and what counts is the present leader's.

use stateright::{Model, Property};

use super::{Session, tick};
use crate::{catalogue::Entry, protocol::Protocol};

const ASKED: u8 = 2;
/// For how long the first leader keeps a lease for which less was asked.
const LEAST: u8 = 3;

#[derive(Debug, Clone, Copy)]
struct Terms {
    /// Whether a client believes for no longer than it asked for, whatever it is told.
    believes_what_it_asked: bool,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct State {
    leader_is_first: bool,
    lease: Option<Session>,
    belief: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Tick,
    KeepAlive,
    Elect,
}

impl Terms {
    fn belief(self, told: u8) -> u8 {
        if self.believes_what_it_asked { told.min(ASKED) } else { told }
    }
}

impl Model for Terms {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { leader_is_first: true, lease: Some(Session::of(LEAST)), belief: self.belief(LEAST) }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        if state.belief > 0 && state.lease.is_some() {
            actions.push(Action::KeepAlive);
        }
        if state.leader_is_first {
            actions.push(Action::Elect);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        match action {
            Action::Tick => {
                next.lease = state.lease.and_then(Session::after_a_tick);
                next.belief = state.belief.saturating_sub(1);
            }
            Action::KeepAlive => {
                let term = state.term();
                next.lease = Some(Session::of(term));
                next.belief = self.belief(term);
            }
            Action::Elect => {
                next.leader_is_first = false;
                // A new leader begins each lease anew.
                next.lease = state.lease.map(|_| Session::of(next.term()));
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no two beliefs", |_, state: &State| state.belief == 0 || state.lease.is_some()),
            Property::sometimes("the new leader is asked", |_, state: &State| {
                !state.leader_is_first && state.belief == ASKED
            }),
            Property::sometimes("a lease ends", |_, state: &State| state.lease.is_none()),
        ]
    }
}

impl State {
    fn term(self) -> u8 {
        if self.leader_is_first { LEAST } else { ASKED }
    }
}

impl Protocol for Terms {
    fn tell(&self, before: &State, action: &Action) -> String {
        match action {
            Action::Tick => tick(before.lease),
            Action::KeepAlive => {
                let told = before.term();
                format!("A's keep-alive is answered: kept for {told}; A believes for {}", self.belief(told))
            }
            Action::Elect => format!("another leader is elected, and keeps A's lease for {ASKED}"),
        }
    }
}

pub(super) fn entries() -> Vec<Entry> {
    let terms = |believes_what_it_asked| Terms { believes_what_it_asked };
    vec![
        Entry::new(
            "T1",
            "etcd: a client believes what a leader told it, and the next keeps leases for less",
            terms(false),
        )
        .breaks(&["no two beliefs"]),
        Entry::new("T2", "the same, and it believes for no longer than it asked for", terms(true)).holds(),
    ]
}
