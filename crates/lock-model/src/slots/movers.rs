//! Those who move the slot: any number, each of which may act on what it read long ago; and those who drain.

use super::{Cluster, Entry, Looks, Marker, Plan, Slots, State};

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
pub(super) enum Mover {
    Off,
    On { task: Task, todo: Todo },
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) id: u8,
    gives_up: bool,
    /// It has planned the move, and has not prepared it yet.
    may_prepare: bool,
}

/// What it does next.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
pub(super) enum Todo {
    /// Reads the markers, in any order.
    Look {
        old: Option<Marker>,
        new: Option<Marker>,
    },
    Prepare {
        present: Marker,
    },
    /// With what was listed before, if that was too early.
    Seal {
        present: Marker,
        listed: Option<Option<(u8, u8)>>,
    },
    EarlyCensus {
        present: Marker,
    },
    Census,
    /// Reads the marker of the old cluster once more: had it lost its data, nothing was listed.
    Confirm {
        found: Option<(u8, u8)>,
    },
    Copy {
        found: Option<(u8, u8)>,
    },
    Open,
    /// Looks whether copies are left on the new cluster.
    Drain,
    /// Looks whether holds are left on the old one.
    Left,
    Clean {
        present: Marker,
    },
    Cancel {
        present: Marker,
    },
    Reopen {
        present: Marker,
    },
    Clear,
}

/// How far somebody is who frees a copy: it read the copy, then two things of the old cluster.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
pub(super) enum Drain {
    Off,
    Copy { at: u8, owner: u8, id: u8 },
    Half { at: u8, owner: u8, id: u8 },
    Free { at: u8, owner: u8, id: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Plan,
    Resume { gives_up: bool },
    Crash,
    ReadOld,
    ReadNew,
    Do,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DrainStep {
    Find { at: u8, owner: u8, id: u8 },
    Read,
    Free,
    Stop,
}

const LOOK: Todo = Todo::Look { old: None, new: None };

/// The move that is under way, by what the markers say.
fn unfinished(state: &State) -> Option<u8> {
    let sealed = state.clusters.iter().find_map(|cluster| match cluster.marker {
        Marker::Sealed { id, .. } => Some(id),
        _ => None,
    });
    let prepared = state.clusters.iter().find_map(|cluster| match cluster.marker {
        Marker::Preparing { id, .. } => Some(id),
        _ => None,
    });
    sealed.or(prepared)
}

pub(super) fn steps(model: &Slots, state: &State, index: u8, add: &mut impl FnMut(Step)) {
    match state.movers[usize::from(index)] {
        Mover::Off => match unfinished(state) {
            Some(_) => {
                add(Step::Resume { gives_up: false });
                if state.aborts > 0 {
                    add(Step::Resume { gives_up: true });
                }
            }
            None => {
                let is_open = state.clusters.iter().filter(|cluster| cluster.marker.is_open()).count() == 1;
                let planned = state.plans.iter().flatten().count();
                if is_open && planned < usize::from(model.moves) {
                    add(Step::Plan);
                }
            }
        },
        Mover::On { todo, .. } => {
            add(Step::Crash);
            match todo {
                Todo::Look { old, new } => {
                    if old.is_none() {
                        add(Step::ReadOld);
                    }
                    if new.is_none() {
                        add(Step::ReadNew);
                    }
                }
                _ => add(Step::Do),
            }
        }
    }
}

pub(super) fn act(model: &Slots, state: &mut State, index: u8, step: Step) {
    let mover = state.movers[usize::from(index)];
    let next = match (step, mover) {
        (Step::Plan, _) => {
            let from = state.clusters.iter().position(|cluster| cluster.marker.is_open()).unwrap_or_default();
            let last = state.clusters.iter().map(|cluster| cluster.marker.epoch()).max().unwrap_or_default();
            let free = state.plans.iter().position(Option::is_none).expect("there are so many plans at most");
            state.plans[free] = Some(Plan { from: u8::from(from == 1), next: last + 1 });
            let id = u8::try_from(free + 1).unwrap_or(u8::MAX);
            Mover::On { task: Task { id, gives_up: false, may_prepare: true }, todo: LOOK }
        }
        (Step::Resume { gives_up }, _) => {
            state.aborts -= u8::from(gives_up);
            let task = |id| Task { id, gives_up, may_prepare: !model.rules.prepares_once };
            unfinished(state).map_or(Mover::Off, |id| Mover::On { task: task(id), todo: LOOK })
        }
        (Step::Crash, _) => Mover::Off,
        (step, Mover::On { mut task, todo }) => {
            let todo = work(model, state, &mut task, todo, step);
            todo.map_or(Mover::Off, |todo| Mover::On { task, todo })
        }
        (_, Mover::Off) => Mover::Off,
    };
    state.movers[usize::from(index)] = next;
}

/// Does a step, and returns the next.
fn work(model: &Slots, state: &mut State, task: &mut Task, todo: Todo, step: Step) -> Option<Todo> {
    let id = task.id;
    let Plan { from, next } = state.plan(id);
    let to = 1 - from;
    let preparing = Marker::Preparing { epoch: next, id };
    match todo {
        Todo::Look { old, new } => {
            let old = if step == Step::ReadOld { Some(state.marker(from)) } else { old };
            let new = if step == Step::ReadNew { Some(state.marker(to)) } else { new };
            match (old, new) {
                (Some(old), Some(new)) => decide(model, *task, next, old, new),
                _ => Some(Todo::Look { old, new }),
            }
        }
        Todo::Prepare { present } => {
            if let (Marker::Cancelled { id, .. }, true) = (present, model.rules.clears_copies) {
                clear(state.cluster(to), id);
            }
            state.change_marker(to, present, preparing);
            task.may_prepare = !model.rules.prepares_once;
            Some(LOOK)
        }
        Todo::EarlyCensus { present } => Some(Todo::Seal { present, listed: Some(census(state, from)) }),
        Todo::Seal { present, listed } => {
            state.change_marker(from, present, Marker::Sealed { epoch: present.epoch(), next, id });
            Some(listed.map_or(LOOK, |found| Todo::Copy { found }))
        }
        Todo::Census => {
            let found = census(state, from);
            Some(if model.rules.confirms_census { Todo::Confirm { found } } else { Todo::Copy { found } })
        }
        Todo::Confirm { found } => {
            let is_sealed = matches!(state.marker(from), Marker::Sealed { id: of, .. } if of == id);
            Some(if is_sealed { Todo::Copy { found } } else { LOOK })
        }
        Todo::Copy { found } => {
            let may = state.marker(to) == preparing || !model.rules.copies_while_preparing;
            if may && let Some((owner, token)) = found {
                let cluster = state.cluster(to);
                if cluster.find(owner).is_none() && cluster.has_room() {
                    let copy = Entry { owner, token, copy_of: Some(id) };
                    match model.looks {
                        Looks::AtBoth => cluster.push(copy),
                        Looks::QueueThenMarker | Looks::MarkerThenQueue => cluster.push_first(copy),
                    }
                }
            }
            Some(if may { Todo::Open } else { LOOK })
        }
        Todo::Open => {
            state.change_marker(to, preparing, Marker::Open { epoch: next });
            Some(LOOK)
        }
        Todo::Drain => {
            let is_drained = !state.cluster(to).has_copies() || !model.rules.cleans_after_drain;
            Some(if is_drained { Todo::Left } else { LOOK })
        }
        Todo::Left => {
            let marker = state.marker(from);
            let is_left = state.cluster(from).first().is_some();
            Some(if is_left { LOOK } else { Todo::Clean { present: marker } })
        }
        Todo::Clean { present } => {
            if let Marker::Sealed { epoch, id: of, .. } = present
                && of == id
                && state.marker(from) == present
            {
                state.was_moved = true;
                state.change_marker(from, present, Marker::Moved { epoch });
            }
            None
        }
        Todo::Cancel { present } => {
            state.change_marker(to, present, Marker::Cancelled { epoch: next, id });
            Some(LOOK)
        }
        Todo::Reopen { present } => {
            let is_of_the_move = match present {
                Marker::Sealed { id: of, .. } => of == id,
                Marker::Open { epoch } => epoch < next,
                _ => false,
            };
            if is_of_the_move {
                let epoch = if model.rules.reopens_in_new_epoch { next + 1 } else { present.epoch() };
                state.change_marker(from, present, Marker::Open { epoch });
            }
            Some(if model.rules.cancels_first { Todo::Clear } else { LOOK })
        }
        Todo::Clear => {
            clear(state.cluster(to), id);
            None
        }
    }
}

/// The owner and the token of what may be a hold.
fn census(state: &State, at: u8) -> Option<(u8, u8)> {
    state.clusters[usize::from(at)].first().map(|entry| (entry.owner, entry.token))
}

/// Chooses the next step by what the markers said; none if they do not fit the move.
fn decide(model: &Slots, task: Task, next: u8, old: Marker, new: Marker) -> Option<Todo> {
    let Task { id, gives_up, may_prepare } = task;
    let is_sealed = matches!(old, Marker::Sealed { id: of, .. } if of == id);
    let is_open = matches!(old, Marker::Open { epoch } if epoch < next);
    let is_preparing = new == Marker::Preparing { epoch: next, id };
    let at_rest = matches!(new, Marker::Absent | Marker::Cancelled { .. } | Marker::Moved { .. });
    let can_prepare = at_rest && new.epoch() < next && is_open && may_prepare;
    let is_cancelled = matches!(new, Marker::Cancelled { id: of, .. } if of == id);
    if gives_up && (is_preparing || can_prepare) {
        let reopens = !model.rules.cancels_first && is_sealed;
        return Some(if reopens { Todo::Reopen { present: old } } else { Todo::Cancel { present: new } });
    }
    // A slot that was opened again without this move, after its data was lost.
    let is_overtaken = matches!(old, Marker::Open { epoch } if epoch > next);
    match new {
        _ if is_preparing && is_overtaken && model.rules.cancels_overtaken => {
            Some(Todo::Cancel { present: new })
        }
        _ if is_cancelled => Some(Todo::Reopen { present: old }),
        Marker::Open { epoch }
            if is_sealed && (epoch == next || epoch > next && model.rules.cancels_overtaken) =>
        {
            Some(Todo::Drain)
        }
        _ if is_preparing && is_sealed => Some(Todo::Census),
        _ if is_preparing && is_open && !model.rules.census_after_seal => {
            Some(Todo::EarlyCensus { present: old })
        }
        _ if is_preparing && is_open => Some(Todo::Seal { present: old, listed: None }),
        _ if can_prepare => Some(Todo::Prepare { present: new }),
        _ => None,
    }
}

/// Deletes the copies that a move has left.
fn clear(cluster: &mut Cluster, id: u8) {
    let copies = cluster.queue.iter().flatten().filter(|entry| entry.copy_of == Some(id));
    let owners: Vec<_> = copies.map(|entry| entry.owner).collect();
    owners.into_iter().for_each(|owner| cluster.remove(owner));
}

pub(super) fn drain_steps(state: &State, add: &mut impl FnMut(DrainStep)) {
    match state.drain {
        Drain::Off => {
            for (cluster, at) in state.clusters.iter().zip(0..) {
                // A waiter finds it only at the head of an open slot.
                for entry in cluster.queue.iter().flatten().filter(|_| cluster.marker.is_open()) {
                    if let Some(id) = entry.copy_of {
                        add(DrainStep::Find { at, owner: entry.owner, id });
                    }
                }
            }
        }
        Drain::Copy { .. } | Drain::Half { .. } => {
            add(DrainStep::Read);
            add(DrainStep::Stop);
        }
        Drain::Free { .. } => {
            add(DrainStep::Free);
            add(DrainStep::Stop);
        }
    }
}

pub(super) fn act_drain(model: &Slots, state: &mut State, step: DrainStep) {
    state.drain = match (step, state.drain) {
        (DrainStep::Find { at, owner, id }, _) => Drain::Copy { at, owner, id },
        (DrainStep::Stop, _) => Drain::Off,
        (DrainStep::Free, Drain::Free { at, owner, id }) => {
            let spares = model.rules.drain_spares_adopted;
            if let Some(entry) = state.cluster(at).find(owner)
                && (entry.copy_of == Some(id) || !spares)
            {
                state.freed_adopted |= entry.copy_of.is_none();
                state.cluster(at).remove(owner);
            }
            Drain::Off
        }
        (_, Drain::Copy { at, owner, id }) => {
            let goes_on = if model.rules.drain_reads_marker_last {
                is_gone(state, at, owner)
            } else {
                is_sealed(model, state, at, id)
            };
            if goes_on { Drain::Half { at, owner, id } } else { Drain::Off }
        }
        (_, Drain::Half { at, owner, id }) => {
            let goes_on = if model.rules.drain_reads_marker_last {
                is_sealed(model, state, at, id)
            } else {
                is_gone(state, at, owner)
            };
            if goes_on { Drain::Free { at, owner, id } } else { Drain::Off }
        }
        (_, drain) => drain,
    };
}

fn is_gone(state: &mut State, at: u8, owner: u8) -> bool {
    state.cluster(1 - at).find(owner).is_none()
}

fn is_sealed(model: &Slots, state: &State, at: u8, id: u8) -> bool {
    let is_sealed = matches!(state.marker(1 - at), Marker::Sealed { id: of, .. } if of == id);
    is_sealed || !model.rules.drain_needs_seal
}
