//! One server that keeps a lease, and requests that come late, twice, or in another order than they were sent (L).
//!
//! A client sends an acquire, then perhaps renewals, then a release if it held, or an undo if it gave up. Each may be
//! executed at any later time and any number of times up to a bound; each answer may be lost.

mod entries;
mod words;

pub(crate) use self::entries::entries;

use stateright::{Model, Property};

const TTL: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rules {
    /// A release, an undo and a renewal touch only what has their owner id.
    compares_owners: bool,
    /// A renewal that finds nothing creates nothing.
    renews_only: bool,
    /// What an undo has named is never granted again.
    remembers_undone: bool,
    /// Whether an answer to a renewal counts from when the renewal was sent; else from when the answer came.
    counts_from_sending: bool,
}

#[derive(Debug, Clone, Copy)]
struct Late {
    rules: Rules,
    attempts: [u8; 2],
    /// How often a client renews, at most.
    renewals: u8,
    /// How often a request is executed once more than it was sent, at most.
    copies: u8,
    horizon: u8,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct State {
    time: u8,
    held: Option<Held>,
    /// The owners that were undone, a bit each.
    undone: u8,
    clients: [Client; 2],
    /// What is under way, for each owner.
    sent: [Sent; 4],
    copies: u8,
    /// An owner was granted the key after its undo.
    rose_again: bool,
    both: u8,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Held {
    owner: u8,
    until: u8,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Client {
    made: u8,
    renewals: u8,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Phase {
    Idle,
    Acquiring { start: u8 },
    Holds { until: u8, renewed_at: Option<u8> },
}

/// Requests of one attempt that are under way.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq, Default)]
struct Sent {
    acquire: bool,
    renewal: bool,
    /// The answer to a renewal that was executed.
    renewed: bool,
    /// A release of what was held.
    release: bool,
    undo: bool,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Request {
    Acquire,
    Renewal,
    Release,
    Undo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Tick,
    Begin(u8),
    /// A request is executed; with `stays`, a copy of it is still under way.
    Execute {
        owner: u8,
        request: Request,
        stays: bool,
    },
    /// The answer to a renewal arrives.
    Answer {
        owner: u8,
    },
    GiveUp(u8),
    Renew(u8),
    Release(u8),
}

fn client_of(owner: u8) -> usize {
    usize::from(owner / 2)
}

impl State {
    fn owner(&self, client: u8) -> u8 {
        client * 2 + self.clients[usize::from(client)].made.saturating_sub(1)
    }

    fn is_present(&self, owner: u8) -> bool {
        self.owner(owner / 2) == owner
    }

    fn sent(&mut self, owner: u8) -> &mut Sent {
        &mut self.sent[usize::from(owner)]
    }

    fn believers(&self) -> usize {
        let believes =
            |client: &&Client| matches!(client.phase, Phase::Holds { until, .. } if until > self.time);
        self.clients.iter().filter(believes).count()
    }

    fn is_free(&self) -> bool {
        self.held.is_none_or(|held| held.until <= self.time)
    }
}

impl Sent {
    fn flag(&mut self, request: Request) -> &mut bool {
        match request {
            Request::Acquire => &mut self.acquire,
            Request::Renewal => &mut self.renewal,
            Request::Release => &mut self.release,
            Request::Undo => &mut self.undo,
        }
    }
}

impl Model for Late {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let client = Client { made: 0, renewals: self.renewals, phase: Phase::Idle };
        vec![State {
            time: 0,
            held: None,
            undone: 0,
            clients: [client; 2],
            sent: [Sent::default(); 4],
            copies: self.copies,
            rose_again: false,
            both: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for index in [0, 1] {
            let client = &state.clients[usize::from(index)];
            match client.phase {
                Phase::Idle if client.made < self.attempts[usize::from(index)] => {
                    actions.push(Action::Begin(index))
                }
                Phase::Idle => {}
                Phase::Acquiring { .. } => actions.push(Action::GiveUp(index)),
                Phase::Holds { until, renewed_at } => {
                    actions.push(Action::Release(index));
                    if until > state.time && renewed_at.is_none() && client.renewals > 0 {
                        actions.push(Action::Renew(index));
                    }
                }
            }
        }
        for (sent, owner) in state.sent.iter().zip(0..) {
            if sent.renewed {
                actions.push(Action::Answer { owner });
            }
            for request in [Request::Acquire, Request::Renewal, Request::Release, Request::Undo] {
                if *sent.clone().flag(request) {
                    actions.push(Action::Execute { owner, request, stays: false });
                    if state.copies > 0 {
                        actions.push(Action::Execute { owner, request, stays: true });
                    }
                }
            }
        }
        if state.time < self.horizon {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        match action {
            Action::Tick => next.time += 1,
            Action::Begin(client) => {
                let it = &mut next.clients[usize::from(client)];
                it.made += 1;
                it.phase = Phase::Acquiring { start: state.time };
                let owner = next.owner(client);
                next.sent(owner).acquire = true;
            }
            Action::Answer { owner } => {
                next.sent(owner).renewed = false;
                self.answer_renewal(&mut next, owner);
            }
            Action::GiveUp(client) => {
                let owner = next.owner(client);
                next.clients[usize::from(client)].phase = Phase::Idle;
                next.sent(owner).undo = true;
            }
            Action::Renew(client) => {
                let owner = next.owner(client);
                let it = &mut next.clients[usize::from(client)];
                it.renewals -= 1;
                if let Phase::Holds { renewed_at, .. } = &mut it.phase {
                    *renewed_at = Some(state.time);
                }
                next.sent(owner).renewal = true;
            }
            Action::Release(client) => {
                let owner = next.owner(client);
                next.clients[usize::from(client)].phase = Phase::Idle;
                next.sent(owner).release = true;
            }
            Action::Execute { owner, request, stays } => {
                *next.sent(owner).flag(request) = stays;
                next.copies -= u8::from(stays);
                self.execute(&mut next, owner, request);
            }
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no two beliefs", |_, state: &State| state.believers() <= 1),
            Property::always("what was undone is not held", |_, state: &State| !state.rose_again),
            Property::sometimes("both have held", |_, state: &State| state.both == 3),
            Property::sometimes("an undo overtakes its acquire", |_, state: &State| {
                state
                    .sent
                    .iter()
                    .zip(0..)
                    .any(|(sent, owner)| sent.acquire && state.undone & (1 << owner) != 0)
            }),
            Property::sometimes("a renewal comes after its release", |model: &Self, state: &State| {
                let is_idle = |owner| state.clients[client_of(owner)].phase == Phase::Idle;
                let is_late = |sent: &Sent, owner| sent.renewal && !sent.release && is_idle(owner);
                model.renewals == 0 || state.sent.iter().zip(0..).any(|(sent, owner)| is_late(sent, owner))
            }),
        ]
    }
}

impl Late {
    fn execute(&self, state: &mut State, owner: u8, request: Request) {
        let time = state.time;
        let is_mine = state.held.is_some_and(|held| held.owner == owner) && !state.is_free();
        let is_undone = state.undone & (1 << owner) != 0;
        let lease = Some(Held { owner, until: time + TTL });
        match request {
            Request::Acquire => {
                let is_granted = is_mine || state.is_free() && !(is_undone && self.rules.remembers_undone);
                if is_granted {
                    state.rose_again |= is_undone;
                    state.held = if is_mine { state.held } else { lease };
                    self.answer_acquire(state, owner);
                }
            }
            Request::Renewal => {
                let extends = is_mine || !self.rules.compares_owners && !state.is_free();
                if extends || !self.rules.renews_only {
                    state.held = match state.held {
                        Some(held) if extends => Some(Held { until: time + TTL, ..held }),
                        _ => lease,
                    };
                    state.sent(owner).renewed = true;
                }
            }
            Request::Release | Request::Undo => {
                if is_mine || !self.rules.compares_owners {
                    state.held = None;
                }
                if request == Request::Undo {
                    state.undone |= 1 << owner;
                }
            }
        }
    }

    /// The answer comes at once: whether it or the request is late makes no difference to a lease that counts from the
    /// sending, and a client may give up before.
    fn answer_acquire(&self, state: &mut State, owner: u8) {
        if !state.is_present(owner) {
            return;
        }
        let time = state.time;
        let client = &mut state.clients[client_of(owner)];
        if let Phase::Acquiring { start } = client.phase {
            let until = start + TTL;
            if until > time {
                client.phase = Phase::Holds { until, renewed_at: None };
                state.both |= 1 << client_of(owner);
            }
        }
    }

    fn answer_renewal(&self, state: &mut State, owner: u8) {
        if !state.is_present(owner) {
            return;
        }
        let time = state.time;
        if let Phase::Holds { until, renewed_at } = &mut state.clients[client_of(owner)].phase
            && let Some(sent) = renewed_at.take()
            && *until > time
        {
            *until = TTL + if self.rules.counts_from_sending { sent } else { time };
        }
    }
}
