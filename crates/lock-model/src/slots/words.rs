//! The steps of the model, told in sentences.

use super::{
    Action, Cluster, Marker, Slots, State, clients,
    movers::{self, Drain, Mover, Todo},
};
use crate::protocol::Protocol;

impl Protocol for Slots {
    fn tell(&self, before: &State, action: &Action) -> String {
        let after = || stateright::Model::next_state(self, before, *action).unwrap_or(*before);
        match *action {
            Action::Client(index, step) => client(before, &after(), index, step),
            Action::Mover(index, step) => mover(before, &after(), index, step),
            Action::Drain(step) => drain(before, &after(), step),
            Action::End { at, owner } => {
                let token = entry_token(before, at, owner);
                format!("the entry of {} (token {token}) on {} ends", whose(owner), cluster(at))
            }
            Action::LateAdoption => {
                let (owner, at, _) = before.late_adoption.unwrap_or_default();
                let changed = before.clusters != after().clusters;
                let effect = if changed { "it gets a lease" } else { "it does nothing" };
                format!(
                    "the adoption that {} no longer waits for reaches {}: {effect}",
                    whose(owner),
                    cluster(at)
                )
            }
            Action::FreeCopy { at, owner } => {
                format!(
                    "when its lease is over, an operator frees the copy of {} on {}",
                    whose(owner),
                    cluster(at)
                )
            }
            Action::Wipe(at) => format!("{} restarts, and has lost its data", cluster(at)),
            Action::Snapshot(at) => format!("the disk of {} is copied", cluster(at)),
            Action::Restore => {
                let at = before.snapshot.map_or(0, |(at, _)| at);
                format!("{} restarts with the copy of its disk: {}", cluster(at), says(after().marker(at)))
            }
            Action::Reopen(at) if before.marker(at) == after().marker(at) => {
                format!(
                    "when every lease is over, an operator cancels the move: {}",
                    change(before, &after())
                )
            }
            Action::Reopen(at) => {
                format!(
                    "when every lease is over, an operator reopens {}: {}",
                    cluster(at),
                    says(after().marker(at))
                )
            }
        }
    }

    fn is_fault(&self, action: &Action) -> bool {
        match action {
            Action::Client(_, clients::Step::Enter { is_lost } | clients::Step::Adopted { is_lost }) => {
                *is_lost
            }
            Action::Mover(_, movers::Step::Crash | movers::Step::Resume { gives_up: true }) => true,
            Action::Wipe(_) | Action::Snapshot(_) | Action::Restore => true,
            _ => false,
        }
    }

    fn goals(&self) -> Vec<Goal> {
        vec![("no key is stuck", |state: &State| {
            let is_free = |cluster: &Cluster| !cluster.marker.is_open() || cluster.first().is_none();
            state.is_at_rest() && state.clusters.iter().all(is_free)
        })]
    }
}

type Goal = (&'static str, fn(&State) -> bool);

pub(super) fn cluster(at: u8) -> &'static str {
    if at == super::A { "A" } else { "B" }
}

fn whose(owner: u8) -> String {
    format!("{}'s attempt {}", ["client 1", "client 2"][usize::from(owner / 8)], owner % 8)
}

fn token(number: u8) -> String {
    format!("{}.{}", number / 8, number % 8)
}

fn entry_token(state: &State, at: u8, owner: u8) -> String {
    let cluster = state.clusters[usize::from(at)];
    cluster.find(owner).map_or_else(|| "?".to_owned(), |entry| token(entry.token))
}

fn says(marker: Marker) -> String {
    match marker {
        Marker::Absent => "no marker".to_owned(),
        Marker::Open { epoch } => format!("open {epoch}"),
        Marker::Sealed { epoch, next, id } => format!("sealed {epoch} for move {id} to epoch {next}"),
        Marker::Preparing { epoch, id } => format!("preparing {epoch} for move {id}"),
        Marker::Cancelled { epoch, id } => format!("cancelled {epoch} of move {id}"),
        Marker::Moved { epoch } => format!("moved {epoch}"),
    }
}

/// What the markers say now, if one was changed.
fn change(before: &State, after: &State) -> String {
    let changed = (0..2).find(|at| before.marker(*at) != after.marker(*at));
    changed.map_or_else(
        || "it changes nothing".to_owned(),
        |at| format!("{} says: {}", cluster(at), says(after.marker(at))),
    )
}

fn client(before: &State, after: &State, index: u8, step: clients::Step) -> String {
    let name = format!("client {}", index + 1);
    let (was, is) = (&before.clients[usize::from(index)], &after.clients[usize::from(index)]);
    let lost = |is_lost| if is_lost { ", and the reply is lost" } else { "" };
    let at = cluster(was.at().or(is.at()).unwrap_or_default());
    match step {
        clients::Step::Ask { at } => {
            format!("{name} asks {} for the key, in epoch {}", cluster(at), before.marker(at).epoch())
        }
        clients::Step::Enter { is_lost } => {
            let has_entered = before.clusters != after.clusters;
            let effect = if has_entered { "enters the queue" } else { "is refused" };
            format!("{name}'s request reaches {at}: it {effect}{}", lost(is_lost))
        }
        clients::Step::Look if is.has_half_seen() => format!("{name} looks at {at}, and will look again"),
        clients::Step::Look | clients::Step::LookAgain if is.believes() => {
            format!(
                "{name} looks at {at}: it is first, and holds: token {}",
                entry_token(after, home(is), is.owner())
            )
        }
        clients::Step::LookAgain if is.waits(is.at().unwrap_or_default(), is.owner()) => {
            format!("{name} looks at {at}: somebody is before it")
        }
        clients::Step::Look | clients::Step::LookAgain => {
            format!("{name} looks at {at}: its place is void, and it leaves")
        }
        clients::Step::GiveUp => format!("{name} gives up waiting"),
        clients::Step::Stop => format!("{name} releases, is lost or crashes: it believes no longer"),
        clients::Step::Adopt => {
            format!("{name} sees the seal on {at}, and sends its adoption to {}", other(at))
        }
        clients::Step::AdoptAgain => format!("{name} sends its adoption to {} again", other(at)),
        clients::Step::Adopted { is_lost } => {
            let had_effect = before.clusters != after.clusters || is.at() != was.at() && is.believes();
            let effect = if had_effect { "it has a lease there" } else { "it is refused" };
            format!("{name}'s adoption reaches {}: {effect}{}", other(at), lost(is_lost))
        }
    }
}

fn home(client: &clients::Client) -> u8 {
    client.at().unwrap_or_default()
}

fn other(at: &str) -> &'static str {
    if at == "A" { "B" } else { "A" }
}

fn mover(before: &State, after: &State, index: u8, step: movers::Step) -> String {
    let name = format!("mover {}", index + 1);
    let (was, is) = (before.movers[usize::from(index)], after.movers[usize::from(index)]);
    let id = match (was, is) {
        (Mover::On { task, .. }, _) | (_, Mover::On { task, .. }) => task.id,
        _ => 0,
    };
    let plan = after.plans[usize::from(id.max(1)) - 1].unwrap_or(super::Plan { from: 0, next: 0 });
    let (from, to) = (cluster(plan.from), cluster(1 - plan.from));
    match step {
        movers::Step::Plan => format!("{name} plans move {id} from {from} to {to}, to epoch {}", plan.next),
        movers::Step::Resume { gives_up: false } => format!("{name} goes on with move {id}"),
        movers::Step::Resume { gives_up: true } => format!("{name} is told to give up move {id}"),
        movers::Step::Crash => format!("{name} is killed"),
        movers::Step::ReadOld => format!("{name} reads {from}: {}", says(before.marker(plan.from))),
        movers::Step::ReadNew => format!("{name} reads {to}: {}", says(before.marker(1 - plan.from))),
        movers::Step::Do => {
            let Mover::On { todo, .. } = was else { return name };
            let what = work(before, after, todo, (from, to));
            format!("{name} {what}")
        }
    }
}

fn work(before: &State, after: &State, todo: Todo, (from, to): (&str, &str)) -> String {
    let changed = || change(before, after);
    let holds = |found: Option<(u8, u8)>| {
        found.map_or_else(
            || "no hold".to_owned(),
            |(owner, number)| format!("{} (token {})", whose(owner), token(number)),
        )
    };
    match todo {
        Todo::Look { .. } => "looks".to_owned(),
        Todo::Prepare { .. } => format!("prepares {to}: {}", changed()),
        Todo::Seal { .. } => format!("seals {from}: {}", changed()),
        Todo::EarlyCensus { .. } | Todo::Census => {
            let found =
                before.clusters[usize::from(from == "B")].first().map(|entry| (entry.owner, entry.token));
            format!("lists the holds of {from}: {}", holds(found))
        }
        Todo::Confirm { .. } => format!("reads {from} again: {}", says(before.marker(u8::from(from == "B")))),
        Todo::Copy { found } if before.clusters == after.clusters => {
            format!("copies nothing to {to} ({})", holds(found))
        }
        Todo::Copy { found } => format!("copies to {to}: {}", holds(found)),
        Todo::Open => format!("opens {to}: {}", changed()),
        Todo::Drain => format!("looks for copies on {to}"),
        Todo::Left => format!("looks for holds left on {from}"),
        Todo::Clean { .. } => format!("cleans {from}: {}", changed()),
        Todo::Cancel { .. } => format!("cancels the move on {to}: {}", changed()),
        Todo::Reopen { .. } => format!("opens {from} again: {}", changed()),
        Todo::Clear => format!("clears the copies on {to}"),
    }
}

fn drain(before: &State, after: &State, step: movers::DrainStep) -> String {
    let freed = before.clusters != after.clusters;
    let goes_on = after.drain != Drain::Off;
    match (step, before.drain) {
        (movers::DrainStep::Find { at, owner, .. }, _) => {
            format!("somebody finds the copy of {} on {}", whose(owner), cluster(at))
        }
        (movers::DrainStep::Read, Drain::Copy { at, .. }) => {
            let result = if goes_on { "goes on" } else { "stops" };
            format!(
                "it looks at {} whether the copy's original stands, a first time, and {result}",
                cluster(1 - at)
            )
        }
        (movers::DrainStep::Read, _) => {
            let result = if goes_on { "finds it gone" } else { "stops" };
            format!("it looks a second time, and {result}")
        }
        (movers::DrainStep::Free, _) => {
            let result = if freed { "it deletes the copy" } else { "there is no such copy any more" };
            result.to_owned()
        }
        (movers::DrainStep::Stop, _) => "it stops there".to_owned(),
    }
}
