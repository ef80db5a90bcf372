//! ZooKeeper: each move of a session to another connection sets its timeout anew, within the bounds of the process that
//! executes it. The process at the address may end at any time, and another come that keeps sessions for less.

use stateright::{Model, Property};

use super::{Session, tick};
use crate::{catalogue::Entry, protocol::Protocol};

/// For how long the first process keeps a session; two thirds of that are believed after each vote.
const LONG: u8 = 3;
const BELIEF: u8 = 2;
/// For how long the next one does.
const SHORT: u8 = 1;

/// How a client moves its session when its connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// At once.
    Blindly,
    /// It first opens another session, which tells for how long the process keeps sessions. If the answer to the move
    /// is lost, it asks over that other session whether the process is still there, and gives up if it is not.
    Probing,
    /// It also gives up as soon as the connection of that other session breaks.
    ProbingAndWatching,
}

#[derive(Debug, Clone, Copy)]
struct Terms {
    way: Way,
    /// Whether the end of a process breaks its connections before another serves at its address.
    tells_ends: bool,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct State {
    process: Process,
    session: Option<Session>,
    belief: u8,
    phase: Phase,
    /// A move that may still be executed.
    is_moving: bool,
    was_moved: bool,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Process {
    First,
    None,
    Next,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Phase {
    Connected,
    Cut,
    Probed,
    Moves,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Tick,
    Vote,
    Cut,
    Probe,
    Move,
    Execute { is_answered: bool },
    GiveUp,
    Stop,
    Start,
}

impl Model for Terms {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            process: Process::First,
            session: Some(Session::of(LONG)),
            belief: BELIEF,
            phase: Phase::Connected,
            is_moving: false,
            was_moved: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        let is_there = state.session.is_some();
        match state.phase {
            // Whoever believes no longer asks for nothing.
            _ if state.belief == 0 => {}
            Phase::Connected => {
                actions.push(Action::Cut);
                if state.process == Process::First && is_there {
                    actions.push(Action::Vote);
                }
            }
            Phase::Cut if self.way == Way::Blindly => actions.push(Action::Move),
            Phase::Cut if state.process == Process::First => actions.push(Action::Probe),
            Phase::Probed => actions.push(Action::Move),
            Phase::Moves => actions.push(Action::GiveUp),
            Phase::Cut | Phase::Over => {}
        }
        if state.is_moving && is_there && state.process != Process::None {
            actions.extend([true, false].map(|is_answered| Action::Execute { is_answered }));
        }
        match state.process {
            Process::First => actions.push(Action::Stop),
            Process::None => actions.push(Action::Start),
            Process::Next => {}
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        match action {
            Action::Tick => {
                next.session = state.session.and_then(Session::after_a_tick);
                next.belief = state.belief.saturating_sub(1);
            }
            Action::Vote => {
                next.session = state.session.map(|session| Session::of(session.term));
                next.belief = BELIEF;
            }
            Action::Cut => next.phase = Phase::Cut,
            Action::Probe => next.phase = Phase::Probed,
            Action::Move => {
                next.phase = Phase::Moves;
                next.is_moving = true;
            }
            Action::Execute { is_answered } => {
                next.is_moving = false;
                next.session = Some(Session::of(state.term()));
                match state.phase {
                    Phase::Moves if is_answered && state.process == Process::First => {
                        next.phase = Phase::Connected;
                        next.was_moved = true;
                    }
                    Phase::Moves if is_answered => next.lose(),
                    _ => {}
                }
            }
            Action::GiveUp if self.way != Way::Blindly && state.process != Process::First => next.lose(),
            Action::GiveUp => {
                next.phase = Phase::Cut;
                next.is_moving = false;
            }
            Action::Stop => {
                next.process = Process::None;
                match state.phase {
                    Phase::Connected | Phase::Probed if self.tells_ends => next.phase = Phase::Cut,
                    Phase::Moves if self.tells_ends && self.way == Way::ProbingAndWatching => next.lose(),
                    _ => {}
                }
            }
            Action::Start => next.process = Process::Next,
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no two beliefs", |_, state: &State| {
                state.belief == 0 || state.session.is_some()
            }),
            Property::sometimes("a session is moved", |_, state: &State| state.was_moved),
            Property::sometimes("a session ends", |_, state: &State| state.session.is_none()),
        ]
    }
}

impl State {
    fn term(self) -> u8 {
        if self.process == Process::First { LONG } else { SHORT }
    }

    fn lose(&mut self) {
        (self.phase, self.belief, self.is_moving) = (Phase::Over, 0, false);
    }
}

impl Protocol for Terms {
    fn tell(&self, before: &State, action: &Action) -> String {
        let after = self.next_state(before, *action).unwrap_or(*before);
        match action {
            Action::Tick => tick(before.session),
            Action::Vote => format!("A's session has a vote: A believes for {BELIEF}"),
            Action::Cut => "A's connection breaks".to_owned(),
            Action::Probe => format!("A opens another session, which is kept for {LONG}"),
            Action::Move => "A asks for its session to be moved to a new connection".to_owned(),
            Action::Execute { is_answered } => {
                let answer = match (is_answered, after.phase) {
                    (false, _) => ", and the answer is lost",
                    (true, Phase::Over) => ", and A gives it up",
                    (true, _) => "",
                };
                format!("the move is executed: A's session is kept for {}{answer}", before.term())
            }
            Action::GiveUp if after.phase == Phase::Over => {
                "A waits no longer, and gives its session up".to_owned()
            }
            Action::GiveUp => "A waits no longer".to_owned(),
            Action::Stop if after.phase == Phase::Over => {
                "the process ends, and A gives its session up".to_owned()
            }
            Action::Stop => "the process ends".to_owned(),
            Action::Start => format!("another comes in its place, which keeps sessions for {SHORT}"),
        }
    }
}

pub(super) fn entries() -> Vec<Entry> {
    let terms = |way, tells_ends| Terms { way, tells_ends };
    let belief = &["no two beliefs"];
    vec![
        Entry::new(
            "T3",
            "ZooKeeper: a session is moved, and its answer tells for how long it is kept",
            terms(Way::Blindly, true),
        )
        .breaks(belief),
        Entry::new(
            "T4",
            "a process that tells before for how long it keeps sessions, asked again if there is no answer",
            terms(Way::Probing, true),
        )
        .breaks(belief),
        Entry::new(
            "T5",
            "the same, and the session is given up as soon as that process ends",
            terms(Way::ProbingAndWatching, true),
        )
        .holds(),
        Entry::new("T6", "the same, where a process may end untold", terms(Way::ProbingAndWatching, false))
            .breaks(belief),
    ]
}
