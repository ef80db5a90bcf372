//! Those who want the key: they ask, stand in a queue, hold, and take their hold over on another cluster.

use super::{Entry, Looks, Marker, Rules, Slots, State};

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
pub(super) struct Client {
    index: u8,
    asks: u8,
    made: u8,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Its request is under way.
    Asked {
        at: u8,
        epoch: u8,
    },
    Queued {
        at: u8,
        epoch: u8,
    },
    /// Of the two looks that it takes, it has had one.
    Seen {
        at: u8,
        epoch: u8,
    },
    /// It believes.
    Holds {
        at: u8,
        origin: u8,
        adoption: Adoption,
    },
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Adoption {
    No,
    /// Its request is under way; whether an earlier one was executed may be unknown.
    Sent {
        epoch: u8,
        is_uncertain: bool,
    },
    Unknown {
        epoch: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Ask {
        at: u8,
    },
    /// The request is executed, and the reply arrives or is lost.
    Enter {
        is_lost: bool,
    },
    Look,
    LookAgain,
    GiveUp,
    /// It releases, loses its lease or crashes: its belief ends, and its entry is left to its lease.
    Stop,
    Adopt,
    Adopted {
        is_lost: bool,
    },
    AdoptAgain,
}

impl Client {
    pub(super) fn new(index: u8, asks: u8) -> Self {
        Self { index, asks, made: 0, phase: Phase::Idle }
    }

    /// The owner id of the present attempt, or of the last.
    pub(super) fn owner(&self) -> u8 {
        self.index * 8 + self.made
    }

    /// The cluster that it asks, stands at or relies on.
    pub(super) fn at(&self) -> Option<u8> {
        match self.phase {
            Phase::Idle => None,
            Phase::Asked { at, .. }
            | Phase::Queued { at, .. }
            | Phase::Seen { at, .. }
            | Phase::Holds { at, .. } => Some(at),
        }
    }

    pub(super) fn believes(&self) -> bool {
        matches!(self.phase, Phase::Holds { .. })
    }

    /// Whether it has had one of the two looks that it takes.
    pub(super) fn has_half_seen(&self) -> bool {
        matches!(self.phase, Phase::Seen { .. })
    }

    pub(super) fn holds_away_from_its_origin(&self) -> bool {
        matches!(self.phase, Phase::Holds { at, origin, .. } if at != origin)
    }

    /// Whether it believes only as long as the lease of that entry lasts.
    pub(super) fn relies_on(&self, at: u8, owner: u8, rules: &Rules) -> bool {
        let Phase::Holds { at: home, adoption, .. } = self.phase else { return false };
        let is_certain = adoption == Adoption::No || !rules.relies_on_both;
        owner == self.owner() && (at == home || !is_certain)
    }

    pub(super) fn waits(&self, at: u8, owner: u8) -> bool {
        let stands =
            matches!(self.phase, Phase::Queued { at: home, .. } | Phase::Seen { at: home, .. } if home == at);
        owner == self.owner() && stands
    }
}

pub(super) fn steps(state: &State, index: u8, add: &mut impl FnMut(Step)) {
    let client = &state.clients[usize::from(index)];
    match client.phase {
        Phase::Idle if client.asks > 0 => {
            (0..2).filter(|at| state.marker(*at).is_open()).for_each(|at| add(Step::Ask { at }));
        }
        Phase::Idle => {}
        Phase::Asked { .. } => {
            add(Step::Enter { is_lost: false });
            if state.losses > 0 {
                add(Step::Enter { is_lost: true });
            }
        }
        Phase::Queued { .. } => {
            add(Step::Look);
            add(Step::GiveUp);
        }
        Phase::Seen { .. } => {
            add(Step::LookAgain);
            add(Step::GiveUp);
        }
        Phase::Holds { at, adoption, .. } => {
            add(Step::Stop);
            match adoption {
                Adoption::No if matches!(state.marker(at), Marker::Sealed { .. }) => add(Step::Adopt),
                Adoption::No => {}
                Adoption::Sent { .. } => {
                    add(Step::Adopted { is_lost: false });
                    if state.losses > 0 {
                        add(Step::Adopted { is_lost: true });
                    }
                }
                Adoption::Unknown { .. } => add(Step::AdoptAgain),
            }
        }
    }
}

pub(super) fn act(model: &Slots, state: &mut State, index: u8, step: Step) {
    let client = state.clients[usize::from(index)];
    let phase = match (step, client.phase) {
        (Step::Ask { at }, _) => {
            let client = &mut state.clients[usize::from(index)];
            client.asks -= 1;
            client.made += 1;
            Phase::Asked { at, epoch: state.marker(at).epoch() }
        }
        (Step::Enter { is_lost }, Phase::Asked { at, epoch }) => {
            enter(model, state, index, (at, epoch), is_lost)
        }
        (Step::Look, Phase::Queued { at, epoch }) => look(model, state, index, (at, epoch)),
        (Step::LookAgain, Phase::Seen { at, epoch }) => look_again(model, state, index, (at, epoch)),
        (Step::GiveUp, _) => Phase::Idle,
        (Step::Stop, Phase::Holds { at, adoption: Adoption::Sent { epoch, .. }, .. }) => {
            state.late_adoption.get_or_insert((client.owner(), 1 - at, epoch));
            Phase::Idle
        }
        (Step::Stop, _) => Phase::Idle,
        (Step::Adopt, Phase::Holds { at, origin, .. }) => {
            let Marker::Sealed { next, .. } = state.marker(at) else { unreachable!("it looked") };
            Phase::Holds { at, origin, adoption: Adoption::Sent { epoch: next, is_uncertain: false } }
        }
        (Step::AdoptAgain, Phase::Holds { at, origin, adoption: Adoption::Unknown { epoch } }) => {
            Phase::Holds { at, origin, adoption: Adoption::Sent { epoch, is_uncertain: true } }
        }
        (
            Step::Adopted { is_lost },
            Phase::Holds { at, origin, adoption: Adoption::Sent { epoch, is_uncertain } },
        ) => {
            let answer = adopt(model, state, client.owner(), 1 - at, epoch);
            state.losses -= u8::from(is_lost);
            let here = |adoption| Phase::Holds { at, origin, adoption };
            match answer {
                _ if is_lost => here(Adoption::Unknown { epoch }),
                Answer::Adopted => Phase::Holds { at: 1 - at, origin, adoption: Adoption::No },
                Answer::Nothing => Phase::Idle,
                Answer::NotOpen if is_uncertain => here(Adoption::Unknown { epoch }),
                Answer::NotOpen => here(Adoption::No),
            }
        }
        (step, phase) => unreachable!("{step:?} in {phase:?}"),
    };
    state.clients[usize::from(index)].phase = phase;
}

type Request = (u8, u8);

fn enter(model: &Slots, state: &mut State, index: u8, (at, epoch): Request, is_lost: bool) -> Phase {
    let owner = state.clients[usize::from(index)].owner();
    let is_granted = match state.marker(at) {
        _ if model.looks != Looks::AtBoth => true,
        Marker::Open { epoch: now } => now == epoch || !model.rules.compares_epochs,
        _ => false,
    };
    state.losses -= u8::from(is_lost);
    let cluster = state.cluster(at);
    if is_granted && cluster.has_room() {
        cluster.counter += 1;
        cluster.push(Entry { owner, token: epoch * 8 + cluster.counter, copy_of: None });
        return if is_lost { Phase::Idle } else { Phase::Queued { at, epoch } };
    }
    if !is_lost {
        // Refused, with no effect: it may ask again.
        let client = &mut state.clients[usize::from(index)];
        client.asks += 1;
        client.made -= 1;
    }
    Phase::Idle
}

fn is_open(model: &Slots, state: &State, (at, epoch): Request) -> bool {
    let marker = state.marker(at);
    marker.is_open() && (marker.epoch() == epoch || !model.rules.compares_epochs)
}

fn look(model: &Slots, state: &mut State, index: u8, (at, epoch): Request) -> Phase {
    let owner = state.clients[usize::from(index)].owner();
    let cluster = *state.cluster(at);
    let is_open = is_open(model, state, (at, epoch));
    let Some(entry) = cluster.find(owner) else { return Phase::Idle };
    let is_first = cluster.first().is_some_and(|first| first.owner == owner);
    match model.looks {
        Looks::AtBoth if !is_open && model.rules.look_shows_marker => Phase::Idle,
        Looks::AtBoth if is_first => hold(state, at, entry),
        Looks::QueueThenMarker if is_first => Phase::Seen { at, epoch },
        Looks::AtBoth | Looks::QueueThenMarker => Phase::Queued { at, epoch },
        Looks::MarkerThenQueue if is_open => Phase::Seen { at, epoch },
        Looks::MarkerThenQueue => Phase::Idle,
    }
}

/// What it sees besides what it saw before.
fn look_again(model: &Slots, state: &mut State, index: u8, (at, epoch): Request) -> Phase {
    let owner = state.clients[usize::from(index)].owner();
    let cluster = *state.cluster(at);
    let Some(entry) = cluster.find(owner) else { return Phase::Idle };
    let is_first = cluster.first().is_some_and(|first| first.owner == owner);
    match model.looks {
        Looks::QueueThenMarker if is_open(model, state, (at, epoch)) => hold(state, at, entry),
        Looks::MarkerThenQueue if is_first => hold(state, at, entry),
        Looks::MarkerThenQueue => Phase::Queued { at, epoch },
        Looks::AtBoth | Looks::QueueThenMarker => Phase::Idle,
    }
}

fn hold(state: &mut State, at: u8, entry: Entry) -> Phase {
    state.token_went_back |= entry.token <= state.newest;
    state.newest = state.newest.max(entry.token);
    Phase::Holds { at, origin: at, adoption: Adoption::No }
}

pub(super) enum Answer {
    Adopted,
    Nothing,
    NotOpen,
}

pub(super) fn adopt(model: &Slots, state: &mut State, owner: u8, at: u8, epoch: u8) -> Answer {
    let is_open = state.marker(at) == Marker::Open { epoch };
    if !is_open && model.rules.adopts_after_open {
        return Answer::NotOpen;
    }
    match state.cluster(at).find_mut(owner) {
        Some(entry) => {
            entry.copy_of = None;
            Answer::Adopted
        }
        None => Answer::Nothing,
    }
}
