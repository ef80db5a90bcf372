//! A slot that moves between two clusters while a key of it is held and awaited (S).
//!
//! There is no clock: a lease may end at any time at which nobody believes in it. A client believes by virtue of its
//! entry on one cluster, or, while it does not know whether its adoption was executed, of both. What movers and clients
//! read may be as old as you like when they act on it: each read and each change is a step of its own.

mod clients;
mod entries;
mod movers;
mod words;

pub(crate) use self::entries::entries;

use stateright::{Model, Property};

use self::{
    clients::Client,
    movers::{Drain, Mover},
};

const A: u8 = 0;

/// How the protocol is followed; each `false` is a way in which it fails.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// The servers compare the epoch that a request names with that of the marker; else that it is open is enough.
    compares_epochs: bool,
    /// Who becomes first in a queue holds only if the same look shows the slot open.
    look_shows_marker: bool,
    /// A copy can be adopted only once the slot is open on the new cluster.
    adopts_after_open: bool,
    /// While its adoption is unknown, a client believes no longer than both leases last.
    relies_on_both: bool,
    /// A copy is freed only while the old cluster is sealed for the move.
    drain_needs_seal: bool,
    /// Who drains reads the marker of the old cluster after its holds.
    drain_reads_marker_last: bool,
    /// A copy is freed only if it was not adopted.
    drain_spares_adopted: bool,
    /// Holds are copied only while the new cluster prepares.
    copies_while_preparing: bool,
    /// Holds are listed after the old cluster was sealed.
    census_after_seal: bool,
    /// Who listed the holds reads the marker of the old cluster again before it goes on.
    confirms_census: bool,
    /// A move whose slot was opened in a later epoch without it is ended by whoever finds it.
    cancels_overtaken: bool,
    /// To give up a move, it is cancelled on the new cluster before the old one is opened again.
    cancels_first: bool,
    /// What a cancelled move has left is cleared before the next.
    clears_copies: bool,
    /// Only who planned a move prepares it, and only once.
    prepares_once: bool,
    /// The old cluster is cleaned only when no copy waits for its drain.
    cleans_after_drain: bool,
    /// Who opens a slot again after a loss of data first cancels what is being prepared elsewhere.
    reopens_last: bool,
    /// A slot that is opened again on a cluster gets an epoch that it never had.
    reopens_in_new_epoch: bool,
}

const RULES: Rules = Rules {
    compares_epochs: true,
    look_shows_marker: true,
    adopts_after_open: true,
    relies_on_both: true,
    drain_needs_seal: true,
    drain_reads_marker_last: true,
    drain_spares_adopted: true,
    copies_while_preparing: true,
    census_after_seal: true,
    confirms_census: true,
    cancels_overtaken: true,
    cancels_first: true,
    clears_copies: true,
    prepares_once: true,
    cleans_after_drain: true,
    reopens_last: true,
    reopens_in_new_epoch: true,
};

/// How a client that stands in a queue learns that it is the first of a slot that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// By one look at both; and its request is refused where the slot is not open.
    AtBoth,
    /// By two looks. Its request was sent after it had seen the slot open, and is executed whatever the marker says;
    /// copies go before all who stand in the queue.
    QueueThenMarker,
    /// The same, the other way round.
    MarkerThenQueue,
}

#[derive(Debug, Clone, Copy)]
struct Slots {
    rules: Rules,
    looks: Looks,
    /// How often each client asks for the key, at most.
    asks: [u8; 2],
    /// How many moves are planned, at most.
    moves: u8,
    aborts: u8,
    /// How often a reply is lost, at most.
    losses: u8,
    /// How often a cluster restarts without its data, at most.
    wipes: u8,
    /// How often a cluster restarts with older data, at most.
    restores: u8,
    /// How many movers there are.
    movers: u8,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Marker {
    Absent,
    Open { epoch: u8 },
    Sealed { epoch: u8, next: u8, id: u8 },
    Preparing { epoch: u8, id: u8 },
    Cancelled { epoch: u8, id: u8 },
    Moved { epoch: u8 },
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Entry {
    owner: u8,
    token: u8,
    /// The move that made this copy, until it is adopted.
    copy_of: Option<u8>,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Cluster {
    marker: Marker,
    /// The first may hold.
    queue: [Option<Entry>; 3],
    counter: u8,
}

/// A move that was planned.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Plan {
    from: u8,
    next: u8,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct State {
    clusters: [Cluster; 2],
    plans: [Option<Plan>; 3],
    movers: [Mover; 2],
    drain: Drain,
    clients: [Client; 2],
    /// An adoption whose client has given up: the owner, the cluster, the epoch.
    late_adoption: Option<(u8, u8, u8)>,
    /// What a cluster was like when its disk was copied.
    snapshot: Option<(u8, Cluster)>,
    aborts: u8,
    losses: u8,
    wipes: u8,
    restores: u8,
    /// The largest token of a hold so far.
    newest: u8,
    token_went_back: bool,
    freed_adopted: bool,
    was_moved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Client(u8, clients::Step),
    Mover(u8, movers::Step),
    Drain(movers::DrainStep),
    /// The lease of an entry ends, or it is deleted by its owner.
    End {
        at: u8,
        owner: u8,
    },
    LateAdoption,
    /// An operator frees a copy whose original was lost with the data of the old cluster.
    FreeCopy {
        at: u8,
        owner: u8,
    },
    Wipe(u8),
    Snapshot(u8),
    Restore,
    Reopen(u8),
}

impl Marker {
    fn epoch(self) -> u8 {
        match self {
            Self::Absent => 0,
            Self::Open { epoch }
            | Self::Sealed { epoch, .. }
            | Self::Preparing { epoch, .. }
            | Self::Cancelled { epoch, .. }
            | Self::Moved { epoch } => epoch,
        }
    }

    fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

impl Cluster {
    fn first(&self) -> Option<Entry> {
        self.queue[0]
    }

    fn find(&self, owner: u8) -> Option<Entry> {
        self.queue.iter().flatten().find(|entry| entry.owner == owner).copied()
    }

    fn find_mut(&mut self, owner: u8) -> Option<&mut Entry> {
        self.queue.iter_mut().flatten().find(|entry| entry.owner == owner)
    }

    fn has_room(&self) -> bool {
        self.queue[2].is_none()
    }

    fn push(&mut self, entry: Entry) {
        let free = self.queue.iter_mut().find(|place| place.is_none()).expect("there is room");
        *free = Some(entry);
    }

    fn push_first(&mut self, entry: Entry) {
        self.queue.rotate_right(1);
        assert!(self.queue[0].is_none(), "there is room");
        self.queue[0] = Some(entry);
    }

    fn remove(&mut self, owner: u8) {
        let mut left = [None; 3];
        let kept = self.queue.iter().flatten().filter(|entry| entry.owner != owner);
        left.iter_mut().zip(kept).for_each(|(place, entry)| *place = Some(*entry));
        self.queue = left;
    }

    fn has_copies(&self) -> bool {
        self.queue.iter().flatten().any(|entry| entry.copy_of.is_some())
    }
}

impl State {
    fn cluster(&mut self, at: u8) -> &mut Cluster {
        &mut self.clusters[usize::from(at)]
    }

    fn marker(&self, at: u8) -> Marker {
        self.clusters[usize::from(at)].marker
    }

    fn change_marker(&mut self, at: u8, from: Marker, to: Marker) {
        if self.marker(at) == from {
            self.cluster(at).marker = to;
        }
    }

    fn plan(&self, id: u8) -> Plan {
        self.plans[usize::from(id) - 1].expect("a move has a plan")
    }

    fn is_believed(&self, at: u8, owner: u8, rules: &Rules) -> bool {
        self.clients.iter().any(|client| client.relies_on(at, owner, rules))
    }

    fn is_at_rest(&self) -> bool {
        let open = self.clusters.iter().filter(|cluster| cluster.marker.is_open()).count();
        let is_moving = |cluster: &Cluster| {
            match cluster.marker {
                Marker::Sealed { .. } | Marker::Preparing { .. } => true,
                // What a cancelled move has left is cleared when it matters.
                _ => cluster.marker.is_open() && cluster.has_copies(),
            }
        };
        open == 1 && !self.clusters.iter().any(is_moving)
    }
}

impl Model for Slots {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let empty = Cluster { marker: Marker::Absent, queue: [None; 3], counter: 0 };
        let open = Cluster { marker: Marker::Open { epoch: 0 }, ..empty };
        vec![State {
            clusters: [open, empty],
            plans: [None; 3],
            movers: [Mover::Off; 2],
            drain: Drain::Off,
            clients: [Client::new(0, self.asks[0]), Client::new(1, self.asks[1])],
            late_adoption: None,
            snapshot: None,
            aborts: self.aborts,
            losses: self.losses,
            wipes: self.wipes,
            restores: self.restores,
            newest: 0,
            token_went_back: false,
            freed_adopted: false,
            was_moved: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for index in 0..2 {
            clients::steps(state, index, &mut |step| actions.push(Action::Client(index, step)));
        }
        for index in 0..self.movers {
            movers::steps(self, state, index, &mut |step| actions.push(Action::Mover(index, step)));
        }
        movers::drain_steps(state, &mut |step| actions.push(Action::Drain(step)));
        for (cluster, at) in state.clusters.iter().zip(0..) {
            for entry in cluster.queue.iter().flatten().filter(|entry| entry.copy_of.is_none()) {
                let is_awaited = state.clients.iter().any(|client| client.waits(at, entry.owner));
                if !is_awaited && !state.is_believed(at, entry.owner, &self.rules) {
                    actions.push(Action::End { at, owner: entry.owner });
                }
            }
            let other = &state.clusters[usize::from(1 - at)];
            for copy in cluster.queue.iter().flatten().filter(|entry| entry.copy_of.is_some()) {
                // The longest TTL has passed since the data was lost.
                let is_over = !state.is_believed(1 - at, copy.owner, &self.rules);
                if other.marker == Marker::Absent && self.wipes > state.wipes && is_over {
                    actions.push(Action::FreeCopy { at, owner: copy.owner });
                }
            }
            if state.wipes > 0 && cluster.marker != Marker::Absent {
                actions.push(Action::Wipe(at));
            }
            if state.restores > 0 && state.snapshot.is_none() {
                actions.push(Action::Snapshot(at));
            }
            // The operator waits for the longest TTL: nobody believes any more, and nothing is left anywhere else.
            let is_over = !state.clients.iter().any(Client::believes);
            if cluster.marker == Marker::Absent
                && self.wipes > state.wipes
                && is_over
                && !other.marker.is_open()
            {
                actions.push(Action::Reopen(at));
            }
        }
        if state.late_adoption.is_some() {
            actions.push(Action::LateAdoption);
        }
        if state.restores > 0 && state.snapshot.is_some() {
            actions.push(Action::Restore);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        match action {
            Action::Client(index, step) => clients::act(self, &mut next, index, step),
            Action::Mover(index, step) => movers::act(self, &mut next, index, step),
            Action::Drain(step) => movers::act_drain(self, &mut next, step),
            Action::End { at, owner } | Action::FreeCopy { at, owner } => next.cluster(at).remove(owner),
            Action::LateAdoption => {
                let (owner, at, epoch) = next.late_adoption.take()?;
                clients::adopt(self, &mut next, owner, at, epoch);
            }
            Action::Wipe(at) => {
                next.wipes -= 1;
                *next.cluster(at) = Cluster { marker: Marker::Absent, queue: [None; 3], counter: 0 };
            }
            Action::Snapshot(at) => next.snapshot = Some((at, state.clusters[usize::from(at)])),
            Action::Restore => {
                next.restores -= 1;
                let (at, cluster) = next.snapshot.take()?;
                *next.cluster(at) = cluster;
            }
            Action::Reopen(at) => {
                let other = 1 - at;
                if let (Marker::Preparing { epoch, id }, true) =
                    (state.marker(other), self.rules.reopens_last)
                {
                    next.cluster(other).marker = Marker::Cancelled { epoch, id };
                    return Some(next);
                }
                let known = state.clusters.iter().map(|cluster| cluster.marker.epoch());
                let planned = state.plans.iter().flatten().map(|plan| plan.next);
                let last = known.chain(planned).max().unwrap_or_default();
                let epoch = if self.rules.reopens_in_new_epoch { last + 1 } else { last };
                next.cluster(at).marker = Marker::Open { epoch };
            }
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no two beliefs", |_, state: &State| {
                state.clients.iter().filter(|client| client.believes()).count() <= 1
            }),
            Property::always("tokens grow", |_, state: &State| !state.token_went_back),
            Property::always("no adopted hold is freed", |_, state: &State| !state.freed_adopted),
            Property::sometimes("a hold is adopted", |model: &Self, state: &State| {
                let is_adopted = |client: &Client| client.holds_away_from_its_origin();
                model.moves == 0 || state.clients.iter().any(is_adopted)
            }),
            Property::sometimes("a move is done", |model: &Self, state: &State| {
                model.moves == 0 || state.was_moved && state.is_at_rest()
            }),
            Property::sometimes("the last move is done", |model: &Self, state: &State| {
                let is_left = |cluster: &Cluster| {
                    let last = state.plans[usize::from(model.moves.max(1)) - 1];
                    last.is_some_and(|plan| cluster.marker == Marker::Open { epoch: plan.next })
                };
                state.is_at_rest() && state.clusters.iter().any(is_left)
            }),
            Property::sometimes("a move is given up", |model: &Self, state: &State| {
                let is_cancelled = |cluster: &Cluster| matches!(cluster.marker, Marker::Cancelled { .. });
                model.aborts == 0 || state.is_at_rest() && state.clusters.iter().any(is_cancelled)
            }),
        ]
    }
}
