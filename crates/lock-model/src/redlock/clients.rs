//! The clients: they ask all servers for their votes, count them, hold, and send what ends their claim.

use super::{Action, MAJORITY, Redlock, State, TTL, Tokens, client_of, servers::Answer};

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq, Default)]
pub(super) struct Client {
    /// How many attempts it made.
    pub(super) made: u8,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq, Default)]
pub(super) enum Phase {
    #[default]
    Idle,
    Asks {
        /// For how long it would believe, were it to hold now.
        left: u8,
        /// The largest token of a hold when it began.
        floor: u8,
        /// The largest counter for which it was refused, or the largest count of its votes.
        heard: u8,
    },
    Holds {
        left: u8,
    },
}

impl Client {
    pub(super) fn believes(&self) -> bool {
        matches!(self.phase, Phase::Holds { .. })
    }

    /// Returns whether nothing is left of what it asks for, or holds.
    pub(super) fn tick(&mut self) -> bool {
        let (Phase::Asks { left, .. } | Phase::Holds { left }) = &mut self.phase else { return false };
        *left -= 1;
        *left == 0
    }
}

impl State {
    pub(super) fn attempt(&self, client: u8) -> u8 {
        client * 2 + self.clients[usize::from(client)].made.saturating_sub(1)
    }

    /// Whether its client still goes by this attempt.
    pub(super) fn is_present(&self, attempt: u8) -> bool {
        let client = &self.clients[client_of(attempt)];
        self.attempt(attempt / 2) == attempt && client.phase != Phase::Idle
    }

    fn votes(&self, attempt: u8) -> u32 {
        self.servers.iter().map(|server| u32::from(server.voted & 1 << attempt != 0)).sum()
    }

    pub(super) fn begin(&mut self, client: u8, (token, left): (u8, u8)) {
        let floor = self.newest();
        let it = &mut self.clients[usize::from(client)];
        it.made += 1;
        it.phase = Phase::Asks { left, floor, heard: 0 };
        let attempt = self.attempt(client);
        self.tokens[usize::from(attempt)] = token;
        self.servers.iter_mut().for_each(|server| server.claims |= 1 << attempt);
    }

    /// The claim goes on with a larger token, under the same owner id. What was under way to a server before is
    /// executed there before, and that is no other state than if it had been executed before this step.
    pub(super) fn raise(&mut self, client: u8) {
        let attempt = self.attempt(client);
        let Phase::Asks { heard, .. } = &mut self.clients[usize::from(client)].phase else { return };
        self.tokens[usize::from(attempt)] = std::mem::take(heard) + 1;
        for server in &mut self.servers {
            server.claims |= 1 << attempt;
            server.voted &= !(1 << attempt);
        }
    }

    pub(super) fn leave(&mut self, client: u8) {
        let attempt = self.attempt(client);
        self.clients[usize::from(client)].phase = Phase::Idle;
        for server in &mut self.servers {
            server.ends |= 1 << attempt;
            server.voted &= !(1 << attempt);
        }
    }
}

impl Redlock {
    /// What a client may do.
    pub(super) fn acts(&self, state: &State, client: u8, actions: &mut Vec<Action>) {
        let it = &state.clients[usize::from(client)];
        match it.phase {
            Phase::Idle if it.made < self.attempts[usize::from(client)] => {
                let clocks: &[u8] = if self.tokens == Tokens::Proposed { &[1, 2] } else { &[1] };
                actions.extend(clocks.iter().map(|token| Action::Begin { client, token: *token }));
            }
            Phase::Idle => {}
            Phase::Asks { heard, .. } => {
                let token = state.tokens[usize::from(state.attempt(client))];
                if self.tokens == Tokens::Proposed && heard >= token {
                    actions.push(Action::Raise(client));
                }
                actions.push(Action::GiveUp(client));
            }
            Phase::Holds { .. } => actions.push(Action::Release(client)),
        }
    }

    /// The client of a present attempt hears an answer. With a majority it holds.
    pub(super) fn hear(&self, state: &mut State, server: u8, attempt: u8, answer: Answer) {
        let client = client_of(attempt);
        let Phase::Asks { left, floor, heard } = &mut state.clients[client].phase else { return };
        match (answer, self.tokens) {
            (Answer::None, _) => return,
            (Answer::Stale(count), _) => return *heard = (*heard).max(count),
            (Answer::Vote(count), Tokens::Counted) => *heard = (*heard).max(count),
            (Answer::Vote(_) | Answer::Repeated, _) => {}
        }
        let (left, floor, heard) = (*left, *floor, *heard);
        state.server(server).voted |= 1 << attempt;
        if state.votes(attempt) < MAJORITY {
            return;
        }
        let token = match self.tokens {
            Tokens::Proposed => state.tokens[usize::from(attempt)],
            Tokens::Counted => heard,
        };
        state.token_went_back |= token <= floor || state.issued & 1 << token != 0;
        state.issued |= 1 << token;
        state.held |= 1 << client;
        state.clients[client].phase = Phase::Holds { left: if self.counts_from_start { left } else { TTL } };
        state.servers.iter_mut().for_each(|server| server.voted &= !(1 << attempt));
    }
}
