//! Queues in sessions, as on etcd and ZooKeeper (W): entries that vanish while one waits, replies that are lost, and
//! what is executed after its sender gave up.
//!
//! There is no clock: a session may end at any time at which its client does not believe. A client whose session ended
//! while it waited does not know until it looks.

mod entries;
mod words;

pub(crate) use self::entries::entries;

use stateright::{Model, Property};

const CLIENTS: usize = 3;

/// How a waiter learns that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Its own entry is there, and first.
    OwnFirst,
    /// Nothing is before the number of its entry.
    NothingBefore,
    /// Its own entry is there, and the one that was before it when it entered is gone.
    PredecessorGone,
}

/// What keeps an acquire from being executed after its undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    Nothing,
    /// The undo changes a value of the session that the acquire compares (etcd).
    Fence,
    /// Requests are executed in the order in which they were sent (ZooKeeper).
    Order,
    /// They are, but the undo looks for the entry at a server that may lag.
    OrderAndStaleLook,
}

#[derive(Debug, Clone, Copy)]
struct Queue {
    look: Look,
    guard: Guard,
    attempts: [u8; CLIENTS],
    /// How often a session ends, at most.
    expiries: u8,
    /// How often a reply is lost, at most.
    losses: u8,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct State {
    entries: [Option<Place>; 5],
    number: u8,
    clients: [Client; CLIENTS],
    /// Acquires under way, of each client's attempts.
    acquires: [[Option<Acquire>; 2]; CLIENTS],
    /// Releases and undos under way, of each client's attempts.
    ends: [[Option<End>; 2]; CLIENTS],
    expiries: u8,
    losses: u8,
    newest: u8,
    token_went_back: bool,
    held: u8,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Place {
    client: u8,
    attempt: u8,
    number: u8,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Acquire {
    session: u8,
    fence: u8,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum End {
    Release,
    Undo,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Client {
    made: u8,
    /// The session that it thinks it has, and the one that the servers know.
    session: u8,
    alive: u8,
    fence: u8,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Phase {
    Idle,
    Entering { floor: u8 },
    Waits { number: u8, before: Option<u8>, floor: u8 },
    Holds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Begin(u8),
    Enter { client: u8, attempt: u8, is_lost: bool },
    Look(u8),
    GiveUp(u8),
    Release(u8),
    End { client: u8, attempt: u8, is_stale: bool },
    Expire(u8),
    Reopen(u8),
}

impl State {
    fn client(&mut self, client: u8) -> &mut Client {
        &mut self.clients[usize::from(client)]
    }

    fn first(&self) -> Option<Place> {
        self.entries[0]
    }

    fn find(&self, client: u8, attempt: u8) -> Option<Place> {
        let is_it = |place: &&Place| (place.client, place.attempt) == (client, attempt);
        self.entries.iter().flatten().find(is_it).copied()
    }

    fn keep(&mut self, is_kept: impl Fn(&Place) -> bool) {
        let mut left = [None; 5];
        let kept = self.entries.iter().flatten().filter(|place| is_kept(place));
        left.iter_mut().zip(kept).for_each(|(place, kept)| *place = Some(*kept));
        self.entries = left;
    }
}

impl Client {
    fn attempt(&self) -> u8 {
        self.made - 1
    }
}

impl Model for Queue {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let client = Client { made: 0, session: 0, alive: 0, fence: 0, phase: Phase::Idle };
        vec![State {
            entries: [None; 5],
            number: 0,
            clients: [client; CLIENTS],
            acquires: [[None; 2]; CLIENTS],
            ends: [[None; 2]; CLIENTS],
            expiries: self.expiries,
            losses: self.losses,
            newest: 0,
            token_went_back: false,
            held: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for client in [0, 1, 2] {
            let it = &state.clients[usize::from(client)];
            match it.phase {
                Phase::Idle => {
                    let has_left = it.made < self.attempts[usize::from(client)];
                    if has_left && it.session == it.alive {
                        actions.push(Action::Begin(client));
                    }
                    if it.session != it.alive {
                        actions.push(Action::Reopen(client));
                    }
                }
                Phase::Entering { .. } => actions.push(Action::GiveUp(client)),
                Phase::Waits { .. } => {
                    actions.push(Action::Look(client));
                    actions.push(Action::GiveUp(client));
                }
                Phase::Holds => actions.push(Action::Release(client)),
            }
            for attempt in 0..2 {
                let at = usize::from(attempt);
                if state.acquires[usize::from(client)][at].is_some() {
                    actions.push(Action::Enter { client, attempt, is_lost: false });
                    if state.losses > 0 {
                        actions.push(Action::Enter { client, attempt, is_lost: true });
                    }
                }
                if state.ends[usize::from(client)][at].is_some() {
                    actions.push(Action::End { client, attempt, is_stale: false });
                    if self.guard == Guard::OrderAndStaleLook {
                        actions.push(Action::End { client, attempt, is_stale: true });
                    }
                }
            }
            if state.expiries > 0 && it.phase != Phase::Holds && it.session == it.alive {
                actions.push(Action::Expire(client));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        match action {
            Action::Begin(client) => {
                let floor = state.newest;
                let it = next.client(client);
                let request = Acquire { session: it.session, fence: it.fence };
                it.made += 1;
                it.phase = Phase::Entering { floor };
                let attempt = usize::from(it.attempt());
                next.acquires[usize::from(client)][attempt] = Some(request);
            }
            Action::Enter { client, attempt, is_lost } => self.enter(&mut next, (client, attempt), is_lost),
            Action::Look(client) => self.look(&mut next, client),
            Action::GiveUp(client) | Action::Release(client) => {
                let it = next.client(client);
                let end = if it.phase == Phase::Holds { End::Release } else { End::Undo };
                it.phase = Phase::Idle;
                let attempt = usize::from(it.attempt());
                next.ends[usize::from(client)][attempt] = Some(end);
            }
            Action::End { client, attempt, is_stale } => self.end(&mut next, (client, attempt), is_stale),
            Action::Expire(client) => {
                next.expiries -= 1;
                let it = next.client(client);
                it.alive += 1;
                it.fence = 0;
                next.keep(|place| place.client != client);
            }
            Action::Reopen(client) => {
                let it = next.client(client);
                it.session = it.alive;
            }
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no two beliefs", |_, state: &State| {
                state.clients.iter().filter(|client| client.phase == Phase::Holds).count() <= 1
            }),
            Property::always("tokens grow", |_, state: &State| !state.token_went_back),
            Property::sometimes("each has held", |model: &Self, state: &State| {
                (0..3).all(|client| model.attempts[client] == 0 || state.held & (1 << client) != 0)
            }),
            Property::sometimes("a session ends while its client waits", |model: &Self, state: &State| {
                let is_void = |client: &Client| {
                    client.session != client.alive && matches!(client.phase, Phase::Waits { .. })
                };
                model.expiries == 0 || state.clients.iter().any(is_void)
            }),
            Property::sometimes(
                "one whose entry vanished holds in the end",
                |model: &Self, state: &State| {
                    let is_back = |client: &Client| client.alive > 0 && client.phase == Phase::Holds;
                    model.expiries == 0 || state.clients.iter().any(is_back)
                },
            ),
        ]
    }
}

impl Queue {
    fn enter(&self, state: &mut State, (client, attempt): (u8, u8), is_lost: bool) {
        let at = (usize::from(client), usize::from(attempt));
        let Some(request) = state.acquires[at.0][at.1].take() else { return };
        state.losses -= u8::from(is_lost);
        let it = state.clients[at.0];
        let is_valid =
            request.session == it.alive && (self.guard != Guard::Fence || request.fence == it.fence);
        let before = state.entries.iter().flatten().last().map(|place| place.number);
        let entered = is_valid.then(|| {
            state.number += 1;
            let place = Place { client, attempt, number: state.number };
            *state
                .entries
                .iter_mut()
                .find(|place| place.is_none())
                .expect("there are five attempts at most") = Some(place);
            place
        });
        let is_awaited = it.made == attempt + 1;
        if let Phase::Entering { floor } = it.phase
            && is_awaited
            && !is_lost
        {
            state.clients[at.0].phase = match entered {
                Some(place) => Phase::Waits { number: place.number, before, floor },
                None => Phase::Idle,
            };
        }
    }

    fn look(&self, state: &mut State, client: u8) {
        let it = state.clients[usize::from(client)];
        let Phase::Waits { number, before, floor } = it.phase else { return };
        let own = state.find(client, it.attempt());
        let holds = match self.look {
            Look::OwnFirst => own.is_some() && own == state.first(),
            Look::NothingBefore => state.first().is_none_or(|first| first.number >= number),
            Look::PredecessorGone => {
                let is_there = |place: &Place| Some(place.number) == before;
                own.is_some() && !state.entries.iter().flatten().any(is_there)
            }
        };
        if holds {
            state.token_went_back |= number <= floor;
            state.newest = state.newest.max(number);
            state.held |= 1 << client;
            state.client(client).phase = Phase::Holds;
        } else if own.is_none() {
            // Its session ended: it queues again, at the end.
            state.client(client).phase = Phase::Idle;
        }
    }

    fn end(&self, state: &mut State, (client, attempt): (u8, u8), is_stale: bool) {
        let at = (usize::from(client), usize::from(attempt));
        let Some(end) = state.ends[at.0][at.1].take() else { return };
        if matches!(self.guard, Guard::Order | Guard::OrderAndStaleLook) {
            // Whatever was sent before was executed before, or never is.
            state.acquires[at.0][at.1] = None;
        }
        if is_stale {
            return;
        }
        state.keep(|place| (place.client, place.attempt) != (client, attempt));
        if end == End::Undo && self.guard == Guard::Fence {
            state.client(client).fence += 1;
        }
    }
}
