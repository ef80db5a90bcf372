//! Redlock (R): the votes of three servers, their leases, and the tokens that clients propose.
//!
//! Clocks only count down, what is left of a lease and of a client's belief, so that no bound on time is needed. What
//! was sent is executed at any later time, or never. A reply is heard as soon as its request is executed: a client that
//! hears it later, or never, does what one does here that gives up.

mod clients;
mod entries;
mod servers;
mod words;

pub(crate) use self::entries::entries;

use stateright::{Model, Property};

use self::{
    clients::{Client, Phase},
    servers::{Held, Server},
};

const MAJORITY: u32 = 2;
const TTL: u8 = 2;

/// What the token of a hold is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tokens {
    /// The client proposes it, and a server votes only for one that is larger than all that it voted for.
    Proposed,
    /// Each server counts its votes; the token is the largest count.
    Counted,
}

/// What a server does that restarts without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recovery {
    /// It votes at once.
    None,
    /// It votes after so long.
    Waits(u8),
    /// It is told the largest counter of the others at any time, and votes when it was told and a lease is over.
    WaitsAndLearns,
    /// It is told that when a lease is over.
    WaitsThenLearns,
}

/// What a restart leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// What was written down at some time before.
    Older,
}

#[derive(Debug, Clone, Copy)]
struct Redlock {
    attempts: [u8; 2],
    /// Each attempt has an owner id of its own; else all of a client have one.
    has_fresh_owners: bool,
    /// Belief counts from before the first request; else from the vote that made a majority.
    counts_from_start: bool,
    /// How much shorter a belief is than a lease.
    margin: u8,
    tokens: Tokens,
    /// How often a server restarts, at most.
    restarts: u8,
    left: Left,
    recovery: Recovery,
    /// How often the clock of a server jumps over the end of a lease, at most.
    jumps: u8,
    /// Whether clocks of servers gain 1 in each lease.
    drifts: bool,
    /// Whether servers are told apart by what is in them only.
    is_symmetric: bool,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct State {
    servers: [Server; 3],
    clients: [Client; 2],
    /// What each attempt proposes.
    tokens: [u8; 4],
    /// The tokens of all holds so far, a bit each.
    issued: u8,
    restarts: u8,
    jumps: u8,
    token_went_back: bool,
    held: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Tick,
    Begin { client: u8, token: u8 },
    Vote { server: u8, attempt: u8 },
    End { server: u8, attempt: u8 },
    Raise(u8),
    GiveUp(u8),
    Release(u8),
    Restart(u8),
    Save(u8),
    Ask { server: u8, other: u8 },
    Jump(u8),
    Gain(u8),
}

fn client_of(attempt: u8) -> usize {
    usize::from(attempt / 2)
}

impl State {
    fn server(&mut self, server: u8) -> &mut Server {
        &mut self.servers[usize::from(server)]
    }

    fn believers(&self) -> usize {
        self.clients.iter().filter(|client| client.believes()).count()
    }

    /// The largest token so far.
    fn newest(&self) -> u8 {
        u8::try_from(self.issued.checked_ilog2().unwrap_or(0)).expect("there are eight bits")
    }

    /// Whoever has no time left gives up, or lets go: to do so later makes no difference to others, since what it sends
    /// is late as it is.
    fn tick(&mut self) {
        self.servers.iter_mut().for_each(Server::tick);
        for client in [0, 1] {
            if self.clients[usize::from(client)].tick() {
                self.leave(client);
            }
        }
    }
}

impl Model for Redlock {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            servers: [Server::default(); 3],
            clients: [Client::default(); 2],
            tokens: [0; 4],
            issued: 0,
            restarts: self.restarts,
            jumps: self.jumps,
            token_went_back: false,
            held: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for client in [0, 1] {
            self.acts(state, client, actions);
        }
        for server in [0, 1, 2] {
            self.happens(state, server, actions);
        }
        actions.push(Action::Tick);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        match action {
            Action::Tick => next.tick(),
            Action::Begin { client, token } => next.begin(client, (token, TTL - self.margin)),
            Action::Vote { server, attempt } => self.vote(&mut next, server, attempt),
            Action::End { server, attempt } => self.end(&mut next, server, attempt),
            Action::Raise(client) => next.raise(client),
            Action::GiveUp(client) | Action::Release(client) => next.leave(client),
            Action::Restart(server) => {
                next.restarts -= 1;
                self.restart(next.server(server));
            }
            Action::Save(server) => {
                let it = next.server(server);
                it.saved = Some((it.held, it.counter));
            }
            Action::Ask { server, other } => self.ask(&mut next, server, other),
            Action::Jump(server) => {
                next.jumps -= 1;
                next.server(server).held = None;
            }
            Action::Gain(server) => next.server(server).gain(),
        }
        if self.has_fresh_owners {
            next.servers.iter_mut().for_each(Server::forget_vain_ends);
        }
        if self.is_symmetric {
            next.servers.sort_unstable();
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no two beliefs", |_, state: &State| state.believers() <= 1),
            Property::always("tokens grow", |_, state: &State| !state.token_went_back),
            Property::sometimes("both have held", |_, state: &State| state.held == 3),
            Property::sometimes("a claim is late", |_, state: &State| {
                let is_over = |attempt| !state.is_present(attempt);
                let is_late =
                    |held: Held| state.tokens[usize::from(held.attempt)] > 0 && is_over(held.attempt);
                state.servers.iter().any(|server| server.held.is_some_and(is_late))
            }),
            Property::sometimes("a larger token is proposed", |model: &Self, state: &State| {
                model.tokens == Tokens::Counted || state.tokens.iter().any(|token| *token > 2)
            }),
            Property::sometimes("a server votes after its restart", |model: &Self, state: &State| {
                model.restarts == 0
                    || state.restarts == 0
                        && state.servers.iter().any(|server| server.restarted && server.held.is_some())
            }),
        ]
    }
}
