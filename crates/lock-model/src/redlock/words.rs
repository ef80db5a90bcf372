//! The steps of the model, told in sentences.

use super::{Action, Left, Phase, Redlock, State, Tokens, client_of};
use crate::protocol::Protocol;

impl Protocol for Redlock {
    fn tell(&self, before: &State, action: &Action) -> String {
        let after = stateright::Model::next_state(self, before, *action).unwrap_or(*before);
        let is_proposed = self.tokens == Tokens::Proposed;
        match *action {
            Action::Tick => "time passes".to_owned(),
            Action::Begin { client, token } if is_proposed => {
                format!("{} asks for all votes, with token {token}", name(after.attempt(client)))
            }
            Action::Begin { client, .. } => format!("{} asks for all votes", name(after.attempt(client))),
            Action::Raise(client) => {
                let attempt = after.attempt(client);
                format!("{} asks again, with token {}", name(attempt), after.tokens[usize::from(attempt)])
            }
            Action::GiveUp(client) => {
                format!("{} is given up, and an undo sent to all", name(before.attempt(client)))
            }
            Action::Release(client) => {
                format!("{} releases, everywhere", name(before.attempt(client)))
            }
            Action::Vote { server, attempt } => {
                let (claim, vote) = (name(attempt), self.tell_vote(before, &after, server, attempt));
                format!("the claim of {claim} reaches {}, which {vote}", place(server))
            }
            Action::End { server, attempt } => {
                let held = before.servers[usize::from(server)].held.map_or(attempt, |held| held.attempt);
                let of = if held == attempt { String::new() } else { format!(" for {}", name(held)) };
                format!("the end of {} reaches {}, which frees its vote{of}", name(attempt), place(server))
            }
            Action::Restart(server) => {
                let with =
                    if self.left == Left::Nothing { "without its data" } else { "with data of before" };
                format!("{} restarts {with}", place(server))
            }
            Action::Save(server) => format!("{} writes down what it has", place(server)),
            Action::Ask { server, other } => {
                let counter = before.servers[usize::from(other)].counter;
                let text =
                    format!("{} is told that {} has voted for token {counter}", place(server), place(other));
                text + if after.servers[usize::from(server)].to_ask == 0 { ", and asks no more" } else { "" }
            }
            Action::Jump(server) => format!("the clock of {} jumps over the end of its lease", place(server)),
            Action::Gain(server) => format!("the clock of {} gains 1", place(server)),
        }
    }

    fn without_symmetry(&self) -> Self {
        Self { is_symmetric: false, ..*self }
    }
}

impl Redlock {
    /// What a server makes of a claim, and what its client makes of that.
    fn tell_vote(&self, before: &State, after: &State, server: u8, attempt: u8) -> String {
        let (was, is) = (before.servers[usize::from(server)], after.servers[usize::from(server)]);
        let voted = match (was.held, is.held) {
            (old, Some(new)) if new.attempt == attempt && old != is.held => match self.tokens {
                Tokens::Proposed => "votes for it".to_owned(),
                Tokens::Counted => format!("votes for it, and counts {}", is.counter),
            },
            (Some(old), _) if old.attempt == attempt => "has voted for it".to_owned(),
            _ => format!("wants a token larger than {}", was.counter),
        };
        let client = client_of(attempt);
        let (Phase::Asks { heard, .. }, Phase::Holds { left }) =
            (before.clients[client].phase, after.clients[client].phase)
        else {
            return voted;
        };
        let token = match self.tokens {
            Tokens::Proposed => before.tokens[usize::from(attempt)],
            Tokens::Counted => heard.max(is.counter),
        };
        format!("{voted}; {} holds for {left}, with token {token}", ["A", "B"][client])
    }
}

fn place(server: u8) -> &'static str {
    ["server 1", "server 2", "server 3"][usize::from(server)]
}

fn name(attempt: u8) -> String {
    format!("{}'s attempt {}", ["A", "B"][client_of(attempt)], attempt % 2 + 1)
}
