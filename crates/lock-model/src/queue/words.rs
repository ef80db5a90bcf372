//! The steps of the model, told in sentences.

use super::{Action, End, Phase, Queue, State};
use crate::protocol::{Goal, Protocol};

impl Protocol for Queue {
    fn tell(&self, before: &State, action: &Action) -> String {
        let after = stateright::Model::next_state(self, before, *action).unwrap_or(*before);
        let name = |client: u8| ["A", "B", "C"][usize::from(client)];
        let attempt = |attempt: u8| ["first", "second"][usize::from(attempt)];
        match *action {
            Action::Begin(client) => {
                let of = attempt(before.clients[usize::from(client)].made);
                format!("{} sends the acquire of its {of} attempt", name(client))
            }
            Action::Enter { client, attempt: of, is_lost } => {
                let effect = match after.find(client, of) {
                    Some(place) => format!("entry {}", place.number),
                    None => "refused".to_owned(),
                };
                let is_awaited =
                    before.clients[usize::from(client)].phase != after.clients[usize::from(client)].phase;
                let answer = match (is_lost, is_awaited) {
                    (true, _) => ", and the reply is lost",
                    (false, true) => "",
                    (false, false) => ", and nobody waits for the reply",
                };
                format!(
                    "the acquire of {}'s {} attempt is executed: {effect}{answer}",
                    name(client),
                    attempt(of)
                )
            }
            Action::Look(client) => match after.clients[usize::from(client)].phase {
                Phase::Holds => {
                    format!("{} looks, and holds: token {}", name(client), number(before, client))
                }
                _ => format!("{} looks, finds its entry gone, and leaves", name(client)),
            },
            Action::GiveUp(client) => format!("{} gives up, and sends an undo", name(client)),
            Action::Release(client) => format!("{} releases", name(client)),
            Action::End { client, attempt: of, is_stale } => {
                let what = match before.ends[usize::from(client)][usize::from(of)] {
                    Some(End::Undo) => "undo",
                    _ => "release",
                };
                let effect =
                    if before.entries == after.entries { "nothing is there" } else { "its entry is gone" };
                let stale = if is_stale { ", at a server that lags" } else { "" };
                format!(
                    "the {what} of {}'s {} attempt is executed{stale}: {effect}",
                    name(client),
                    attempt(of)
                )
            }
            Action::Expire(client) => format!("the session of {} ends, with its entries", name(client)),
            Action::Reopen(client) => format!("{} notices, and opens a session", name(client)),
        }
    }

    fn is_fault(&self, action: &Action) -> bool {
        matches!(
            action,
            Action::Enter { is_lost: true, .. } | Action::End { is_stale: true, .. } | Action::Expire(_)
        )
    }

    fn goals(&self) -> Vec<Goal<State>> {
        vec![("no key is stuck", |state: &State| {
            let is_idle = state.clients.iter().all(|client| client.phase == Phase::Idle);
            is_idle && state.first().is_none()
        })]
    }
}

fn number(state: &State, client: u8) -> u8 {
    match state.clients[usize::from(client)].phase {
        Phase::Waits { number, .. } => number,
        _ => 0,
    }
}
