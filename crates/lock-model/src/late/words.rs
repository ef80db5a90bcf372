//! The steps of the model, told in sentences.

use super::{Action, Late, Phase, Request, State};
use crate::protocol::Protocol;

impl Protocol for Late {
    fn tell(&self, before: &State, action: &Action) -> String {
        let after = stateright::Model::next_state(self, before, *action).unwrap_or(*before);
        let name = |client: u8| ["A", "B"][usize::from(client)];
        match *action {
            Action::Tick => format!("time passes: it is {}", after.time),
            Action::Begin(client) => {
                format!("{} sends the acquire of its attempt {}", name(client), tried(&after, client))
            }
            Action::GiveUp(client) => {
                format!("{} gives its attempt {} up, and sends an undo", name(client), tried(before, client))
            }
            Action::Answer { owner } => {
                let client = owner / 2;
                let text =
                    format!("the answer to {}'s renewal of attempt {} arrives", name(client), owner % 2 + 1);
                format!("{text}: {}", effect(before, &after, client))
            }
            Action::Renew(client) => format!("{} sends a renewal", name(client)),
            Action::Release(client) => format!("{} ends, and sends a release", name(client)),
            Action::Execute { owner, request, stays } => {
                let copy = if stays { " (a copy of it is under way)" } else { "" };
                let what = match request {
                    Request::Acquire => "acquire",
                    Request::Renewal => "renewal",
                    Request::Release => "release",
                    Request::Undo => "undo",
                };
                let (client, attempt) = (owner / 2, owner % 2 + 1);
                let effect = effect(before, &after, client);
                format!("the server executes {}'s {what} of attempt {attempt}{copy}: {effect}", name(client))
            }
        }
    }
}

fn tried(state: &State, client: u8) -> u8 {
    state.clients[usize::from(client)].made
}

fn effect(before: &State, after: &State, client: u8) -> String {
    let (was, is) = (before.clients[usize::from(client)].phase, after.clients[usize::from(client)].phase);
    let server = match (before.held, after.held) {
        (was, is) if was == is => "nothing changes".to_owned(),
        (_, None) => "the key is free".to_owned(),
        (_, Some(held)) => {
            format!("the key is held by {} until {}", ["A", "B"][usize::from(held.owner / 2)], held.until)
        }
    };
    match is {
        Phase::Holds { until, .. } if was != is => format!("{server}, and it believes until {until}"),
        _ => server,
    }
}
