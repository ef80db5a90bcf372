//! A lock with a lease, and the store that it guards: where fencing must be checked (A0–A6).
//!
//! The lock service is perfect here: it never fails, and its clock is the clients' clock. Each client acquires, reads
//! a number from the store, writes the number plus one, and releases. The store is another machine: what is sent to it
//! is executed at any later time.

use stateright::{Model, Property};

use crate::{catalogue::Entry, protocol::Protocol};

const TTL: u8 = 2;
/// Time stands still then: all that is left happens after every lease is over.
const HORIZON: u8 = 6;

/// What the store does with the token of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Nothing,
    Writes,
    /// Reads too, which makes the store remember the token of a holder from its first contact on.
    All,
}

#[derive(Debug, Clone)]
struct Lease {
    clients: u8,
    /// How often each client acquires.
    rounds: u8,
    /// Whether a client looks at its clock before each request, and sends nothing after its deadline.
    looks: bool,
    /// Whether a request is executed in the instant in which it is sent.
    is_instant: bool,
    check: Check,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct State {
    time: u8,
    /// Who holds the lock, and until when.
    holder: Option<(u8, u8)>,
    counter: u8,
    clients: Vec<Client>,
    store: Store,
    in_flight: Vec<Request>,
    /// Whether two believed at one time.
    overlap: bool,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Client {
    rounds: u8,
    hold: Option<Hold>,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
struct Hold {
    token: u8,
    until: u8,
    work: Work,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Work {
    Acquired,
    Reading,
    Read { value: u8 },
    Writing,
    Done,
    Refused,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq, Default)]
struct Store {
    value: u8,
    /// The largest token that was seen in a request that this store checks.
    seen: u8,
    /// The largest token of a write that was executed.
    written: u8,
    stale_write: bool,
    lost_update: bool,
    refused: bool,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq, PartialOrd, Ord)]
enum Request {
    Read {
        client: u8,
        token: u8,
    },
    /// Puts `read + 1` in the place of `read`.
    Write {
        client: u8,
        token: u8,
        read: u8,
    },
}

impl Request {
    /// The client, and its token.
    fn sender(self) -> (u8, u8) {
        match self {
            Self::Read { client, token } | Self::Write { client, token, .. } => (client, token),
        }
    }

    fn is_checked(self, check: Check) -> bool {
        match self {
            Self::Read { .. } => check == Check::All,
            Self::Write { .. } => check != Check::Nothing,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Tick,
    Acquire(u8),
    SendRead(u8),
    SendWrite(u8),
    Execute(Request),
    Release(u8),
    GiveUp(u8),
}

impl Model for Lease {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let client = Client { rounds: self.rounds, hold: None };
        vec![State {
            time: 0,
            holder: None,
            counter: 0,
            clients: vec![client; usize::from(self.clients)],
            store: Store::default(),
            in_flight: Vec::new(),
            overlap: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let is_free = state.holder.is_none_or(|(_, until)| until <= state.time);
        for index in 0..self.clients {
            let client = &state.clients[usize::from(index)];
            let Some(hold) = client.hold else {
                if is_free && client.rounds > 0 {
                    actions.push(Action::Acquire(index));
                }
                continue;
            };
            let in_time = state.time < hold.until;
            match hold.work {
                Work::Acquired if in_time || !self.looks => actions.push(Action::SendRead(index)),
                Work::Read { .. } if in_time || !self.looks => actions.push(Action::SendWrite(index)),
                Work::Done if in_time => actions.push(Action::Release(index)),
                _ => {}
            }
            if !in_time || hold.work == Work::Refused {
                actions.push(Action::GiveUp(index));
            }
        }
        actions.extend(state.in_flight.iter().copied().map(Action::Execute));
        if state.time < HORIZON {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Tick => next.time += 1,
            Action::Acquire(index) => next.acquire(index),
            Action::SendRead(index) => {
                let hold = next.hold(index);
                hold.work = Work::Reading;
                let token = hold.token;
                next.send(Request::Read { client: index, token });
            }
            Action::SendWrite(index) => {
                let hold = next.hold(index);
                let Work::Read { value } = hold.work else { return None };
                hold.work = Work::Writing;
                let token = hold.token;
                next.send(Request::Write { client: index, token, read: value });
            }
            Action::Execute(request) => next.execute(request, self.check),
            Action::Release(index) => {
                next.holder = None;
                next.clients[usize::from(index)].hold = None;
            }
            Action::GiveUp(index) => next.clients[usize::from(index)].hold = None,
        }
        if self.is_instant
            && let Some(sent) = next.in_flight.first().copied()
        {
            next.execute(sent, self.check);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no two beliefs", |_, state: &State| !state.overlap),
            Property::always("no stale write", |_, state: &State| !state.store.stale_write),
            Property::always("no lost update", |_, state: &State| !state.store.lost_update),
            Property::sometimes("every round writes", |model: &Self, state: &State| {
                state.store.value == model.clients * model.rounds
            }),
            Property::sometimes("a lease ends before its work", |_, state: &State| {
                let mut holds = state.clients.iter().filter_map(|client| client.hold);
                holds.any(|hold| hold.until <= state.time && matches!(hold.work, Work::Read { .. }))
            }),
            Property::sometimes("a late request is refused", |model: &Self, state: &State| {
                state.store.refused || model.check == Check::Nothing
            }),
        ]
    }
}

impl State {
    fn hold(&mut self, index: u8) -> &mut Hold {
        self.clients[usize::from(index)].hold.as_mut().expect("only holders send")
    }

    fn acquire(&mut self, index: u8) {
        let until = self.time + TTL;
        let believed = |client: &Client| client.hold.is_some_and(|hold| self.time < hold.until);
        self.overlap |= self.clients.iter().any(believed);
        self.counter += 1;
        self.holder = Some((index, until));
        let client = &mut self.clients[usize::from(index)];
        client.rounds -= 1;
        client.hold = Some(Hold { token: self.counter, until, work: Work::Acquired });
    }

    /// What is in flight has no order.
    fn send(&mut self, request: Request) {
        self.in_flight.push(request);
        self.in_flight.sort_unstable();
    }

    fn is_refused(&self, request: Request, check: Check) -> bool {
        request.is_checked(check) && request.sender().1 < self.store.seen
    }

    fn execute(&mut self, request: Request, check: Check) {
        self.in_flight.retain(|other| *other != request);
        let (client, token) = request.sender();
        let is_refused = self.is_refused(request, check);
        let store = &mut self.store;
        store.refused |= is_refused;
        if request.is_checked(check) && !is_refused {
            store.seen = token;
        }
        let work = match request {
            _ if is_refused => Work::Refused,
            Request::Read { .. } => Work::Read { value: store.value },
            Request::Write { read, .. } => {
                store.stale_write |= token < store.written;
                store.lost_update |= store.value != read;
                store.written = store.written.max(token);
                store.value = read + 1;
                Work::Done
            }
        };
        // Nobody waits for the answer to a request of an earlier round.
        if let Some(hold) = &mut self.clients[usize::from(client)].hold
            && hold.token == token
        {
            hold.work = work;
        }
    }
}

impl Protocol for Lease {
    fn tell(&self, before: &State, action: &Action) -> String {
        let hold = |index: u8| before.clients[usize::from(index)].hold.expect("only holders act");
        let late = |index: u8| {
            let is_late = hold(index).until <= before.time;
            if is_late { ", not knowing that time has passed" } else { "" }
        };
        let sent =
            |request| if self.is_instant { before.tell_execution(self, request) } else { String::new() };
        match *action {
            Action::Tick => format!("time passes: it is {}", before.time + 1),
            Action::Acquire(index) => {
                let (token, until) = (before.counter + 1, before.time + TTL);
                format!("{} acquires: token {token}, believed until {until}", name(index))
            }
            Action::SendRead(index) => {
                let token = hold(index).token;
                let answer = sent(Request::Read { client: index, token });
                format!("{} sends a read, with token {token}{}{answer}", name(index), late(index))
            }
            Action::SendWrite(index) => {
                let Hold { work: Work::Read { value: read }, token, .. } = hold(index) else {
                    unreachable!()
                };
                let answer = sent(Request::Write { client: index, token, read });
                let text =
                    format!("sends a write of {}, with token {token}{}{answer}", read + 1, late(index));
                format!("{} {text}", name(index))
            }
            Action::Execute(request) => {
                let (index, what) = match request {
                    Request::Read { client, .. } => (client, "read"),
                    Request::Write { client, .. } => (client, "write"),
                };
                format!("{}'s {what} arrives{}", name(index), before.tell_execution(self, request))
            }
            Action::Release(index) => format!("{} releases", name(index)),
            Action::GiveUp(index) => format!("{} ends its work, since its lock is lost", name(index)),
        }
    }
}

fn name(index: u8) -> &'static str {
    ["A", "B", "C"][usize::from(index)]
}

impl State {
    fn tell_execution(&self, model: &Lease, request: Request) -> String {
        match (request, self.is_refused(request, model.check)) {
            (_, true) => format!(": refused, since the store has seen token {}", self.store.seen),
            (Request::Read { .. }, false) => format!(": it reads {}", self.store.value),
            (Request::Write { read, .. }, false) => format!(": {} becomes {}", self.store.value, read + 1),
        }
    }
}

pub(crate) fn entries() -> Vec<Entry> {
    let two = |looks, check| Lease { clients: 2, rounds: 2, looks, is_instant: false, check };
    let instant = |looks| Lease { is_instant: true, ..two(looks, Check::Nothing) };
    let both = &["no stale write", "no lost update"];
    vec![
        Entry::new("A0", "to look at the clock, to send and to be executed is one instant", instant(true))
            .holds(),
        Entry::new(
            "A1",
            "the client looks and sends in one instant, and the network takes time",
            two(true, Check::Nothing),
        )
        .breaks(both)
        .keeps_the_rest(),
        Entry::new(
            "A2",
            "the client stops between look and request, and the network takes no time",
            instant(false),
        )
        .breaks(both)
        .keeps_the_rest(),
        Entry::new(
            "A3",
            "like A1, with a store that checks the tokens of writes only",
            two(true, Check::Writes),
        )
        .breaks(&["no lost update"])
        .keeps_the_rest(),
        Entry::new(
            "A4",
            "like A1, with a store that checks the tokens of reads and writes",
            two(true, Check::All),
        )
        .holds(),
        Entry::new("A5", "the same, with clients that stop anywhere", two(false, Check::All)).holds(),
        Entry::new("A6", "the same, with three clients", Lease { clients: 3, ..two(false, Check::All) })
            .holds()
            .long(),
    ]
}
