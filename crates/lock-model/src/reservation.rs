//! The queue of waiters that one Redis keeps for a key (Q1–Q10): a release reserves the key for the first of them for a
//! short time and tells it, and it confirms.
//!
//! Requests of a client are executed in order, and what is due is done before time goes on. Notices may be lost. A
//! client may give up anywhere, or stop for good. `A` to `C` wait, and `D` tries once.

use stateright::{Model, Property};

use crate::{catalogue::Entry, protocol::Protocol};

const TTL: u8 = 2;
const RESERVATION: u8 = 1;
const HORIZON: u8 = 5;
const TRIES: u8 = 3;

#[derive(Debug, Clone, Default)]
struct Reservation {
    /// So many clients may stop, notices be lost, servers restart without their data, and copies of an acquire arrive
    /// whenever they like.
    stops: u8,
    losses: u8,
    restarts: u8,
    copies: u8,
    /// What is left out, to see that it is needed.
    leaves_out: Option<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The lease counts from before the request that confirms, not from its arrival.
    EarlyBelief,
    /// One who finds the key free heeds the queue.
    Queue,
    /// An undo hands a reservation on.
    PassingOn,
    /// An undo has copies refused.
    RefusedCopies,
    /// Whoever handed the key on looks whether the waiter came.
    Watch,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Key {
    Free,
    Held { by: u8, until: u8 },
    Reserved { by: u8, until: u8 },
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Stage {
    Idle,
    Asked { at: u8 },
    Queued { look: u8, is_told: bool },
    Holds { until: u8 },
    Done,
    Stopped,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Request {
    Acquire { sent: u8 },
    End,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct State {
    time: u8,
    key: Key,
    queue: Vec<u8>,
    undone: Vec<u8>,
    stages: Vec<Stage>,
    in_flight: Vec<Vec<Request>>,
    /// Copies on another way.
    strays: Vec<u8>,
    /// Who looks, and when, whether the key is still handed on.
    watch: Option<(u8, u8)>,
    stops: u8,
    losses: u8,
    restarts: u8,
    copies: u8,
    /// For how long nobody held the key although somebody alive waited.
    idle: u8,
    overtook: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Tick,
    Ask { client: u8, copied: bool },
    Look(u8),
    Execute(u8),
    Arrive(u8),
    GiveUp(u8),
    Release(u8),
    Lose(u8),
    Stop(u8),
    Watch,
    Restart,
}

impl Model for Reservation {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            time: 0,
            key: Key::Free,
            queue: Vec::new(),
            undone: Vec::new(),
            stages: vec![Stage::Idle; 4],
            in_flight: vec![Vec::new(); 4],
            strays: Vec::new(),
            watch: None,
            stops: self.stops,
            losses: self.losses,
            restarts: self.restarts,
            copies: self.copies,
            idle: 0,
            overtook: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut may_tick = state.time < HORIZON;
        for client in 0..4 {
            let index = usize::from(client);
            if !state.in_flight[index].is_empty() {
                actions.push(Action::Execute(client));
                may_tick = false;
            }
            match state.stages[index] {
                // Three clients in a queue tell more than in any order.
                Stage::Idle if client == 0 || client == TRIES || state.stages[index - 1] != Stage::Idle => {
                    actions.push(Action::Ask { client, copied: false });
                    if state.copies > 0 && client != TRIES {
                        actions.push(Action::Ask { client, copied: true });
                    }
                }
                Stage::Queued { look, is_told } => {
                    if look <= state.time || is_told {
                        actions.push(Action::Look(client));
                        may_tick = false;
                    }
                    if is_told && state.losses > 0 {
                        actions.push(Action::Lose(client));
                    }
                }
                Stage::Holds { .. } => actions.push(Action::Release(client)),
                _ => {}
            }
            let stage = state.stages[index];
            if matches!(stage, Stage::Asked { .. } | Stage::Queued { .. }) {
                actions.push(Action::GiveUp(client));
            }
            if state.stops > 0 && matches!(stage, Stage::Queued { .. } | Stage::Holds { .. }) {
                actions.push(Action::Stop(client));
            }
        }
        if state.watch.is_some_and(|(_, due)| due <= state.time) {
            actions.push(Action::Watch);
            may_tick = false;
        }
        actions.extend(state.strays.iter().copied().map(Action::Arrive));
        if state.restarts > 0 {
            actions.push(Action::Restart);
        }
        if may_tick {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Tick => next.tick(),
            Action::Ask { client, copied } => {
                next.send_acquire(client);
                if copied {
                    next.copies -= 1;
                    next.strays.push(client);
                }
            }
            Action::Look(client) => next.send_acquire(client),
            Action::Execute(client) => next.execute(client, self),
            Action::Arrive(client) => {
                next.strays.retain(|stray| *stray != client);
                next.acquire(client, None, self);
            }
            Action::GiveUp(client) | Action::Release(client) => {
                next.stages[usize::from(client)] = Stage::Done;
                next.in_flight[usize::from(client)].push(Request::End);
            }
            Action::Lose(client) => {
                next.losses -= 1;
                let Stage::Queued { is_told, .. } = &mut next.stages[usize::from(client)] else {
                    return None;
                };
                *is_told = false;
            }
            Action::Stop(client) => {
                next.stops -= 1;
                next.stages[usize::from(client)] = Stage::Stopped;
            }
            Action::Watch => {
                let (watcher, _) = next.watch.take()?;
                if next.key == Key::Free {
                    next.hand_on(watcher, self);
                }
            }
            Action::Restart => {
                next.restarts -= 1;
                (next.key, next.queue, next.undone) = (Key::Free, Vec::new(), Vec::new());
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no two beliefs", |_, state: &State| state.believers() <= 1),
            Property::always("a try never overtakes", |_, state: &State| !state.overtook),
            Property::always("what was given back is not taken", |_, state: &State| {
                let Key::Held { by, .. } = state.key else { return true };
                let by = usize::from(by);
                state.stages[by] != Stage::Done || !state.in_flight[by].is_empty()
            }),
            // So does a copy that takes a place in the queue for one whose lease has ended. Whoever lost a notice, or
            // the server's data, looks after its TTL.
            Property::always("one who stops costs a reservation", |model: &Self, state: &State| {
                let looks = if model.losses + model.restarts > 0 { TTL } else { 0 };
                state.idle <= RESERVATION * (model.stops + model.losses + model.copies) + looks
            }),
            Property::sometimes("all who wait are served", |_, state: &State| {
                state.time > 0
                    && state.stages.iter().all(|stage| *stage == Stage::Done)
                    && state.queue.is_empty()
            }),
            Property::sometimes("a reservation runs out", |model: &Self, state: &State| {
                model.stops == 0
                    || state.watch.is_some_and(|(_, due)| due <= state.time) && state.key == Key::Free
            }),
        ]
    }
}

impl State {
    fn believers(&self) -> usize {
        let believes = |stage: &&Stage| matches!(stage, Stage::Holds { until } if *until > self.time);
        self.stages.iter().filter(believes).count()
    }

    fn waits(&self, client: u8) -> bool {
        matches!(self.stages[usize::from(client)], Stage::Asked { .. } | Stage::Queued { .. })
    }

    fn tick(&mut self) {
        let waited_for = (0..TRIES).any(|client| self.waits(client));
        let idle = waited_for && !matches!(self.key, Key::Held { .. });
        self.idle = if idle { self.idle + 1 } else { 0 };
        self.time += 1;
        if let Key::Held { until, .. } | Key::Reserved { until, .. } = self.key
            && until <= self.time
        {
            self.key = Key::Free;
        }
    }

    fn send_acquire(&mut self, client: u8) {
        let index = usize::from(client);
        self.stages[index] = Stage::Asked { at: self.time };
        self.in_flight[index].push(Request::Acquire { sent: self.time });
    }

    fn execute(&mut self, client: u8, model: &Reservation) {
        match self.in_flight[usize::from(client)].remove(0) {
            Request::Acquire { sent } => self.acquire(client, Some(sent), model),
            Request::End => self.end(client, model),
        }
    }

    /// `sent` is when the client sent it; none for a copy, whose answer nobody hears.
    fn acquire(&mut self, client: u8, sent: Option<u8>, model: &Reservation) {
        if self.undone.contains(&client) {
            return;
        }
        let tries = client == TRIES;
        let is_own = matches!(self.key, Key::Held { by, .. } | Key::Reserved { by, .. } if by == client);
        let heeds = model.leaves_out != Some(Part::Queue);
        if self.key == Key::Free && heeds && self.queue.first().is_some_and(|first| *first != client) {
            self.hand_on(client, model);
        }
        let granted = is_own || self.key == Key::Free;
        if granted {
            let is_waiter = |other: &u8| self.waits(*other);
            self.overtook |= tries && self.queue.iter().any(is_waiter);
            self.queue.retain(|other| *other != client);
            self.key = Key::Held { by: client, until: self.time + TTL };
        } else if !tries && !self.queue.contains(&client) {
            self.queue.push(client);
        }
        let (Some(sent), Stage::Asked { .. }) = (sent, self.stages[usize::from(client)]) else { return };
        let since = if model.leaves_out == Some(Part::EarlyBelief) { self.time + 1 } else { sent };
        self.stages[usize::from(client)] = match (granted, self.key) {
            (true, _) => Stage::Holds { until: since + TTL },
            (false, _) if tries => Stage::Done,
            (false, Key::Held { until, .. } | Key::Reserved { until, .. }) => {
                Stage::Queued { look: until.min(self.time + TTL), is_told: false }
            }
            (false, Key::Free) => Stage::Queued { look: self.time + TTL, is_told: false },
        };
    }

    fn end(&mut self, client: u8, model: &Reservation) {
        if model.leaves_out != Some(Part::RefusedCopies) {
            self.undone.push(client);
        }
        self.queue.retain(|other| *other != client);
        match self.key {
            Key::Reserved { by, .. } if by == client && model.leaves_out == Some(Part::PassingOn) => {}
            Key::Held { by, .. } | Key::Reserved { by, .. } if by == client => {
                self.key = Key::Free;
                self.hand_on(client, model);
            }
            _ => {}
        }
    }

    fn hand_on(&mut self, from: u8, model: &Reservation) {
        if self.queue.is_empty() {
            return;
        }
        let first = self.queue.remove(0);
        let until = self.time + RESERVATION;
        self.key = Key::Reserved { by: first, until };
        if model.leaves_out != Some(Part::Watch) {
            self.watch = Some((from, until));
        }
        if let Stage::Queued { is_told, .. } = &mut self.stages[usize::from(first)] {
            *is_told = true;
        }
    }
}

impl Protocol for Reservation {
    fn tell(&self, before: &State, action: &Action) -> String {
        match *action {
            Action::Tick => format!("time passes: it is {}", before.time + 1),
            Action::Ask { client, copied: false } => format!("{} asks for the key", name(client)),
            Action::Ask { client, copied: true } => {
                format!("{} asks for the key, and a copy of that is kept on the way", name(client))
            }
            Action::Look(client) => format!("{} asks again", name(client)),
            Action::Execute(client) => match before.in_flight[usize::from(client)][0] {
                Request::Acquire { .. } => {
                    format!("{}'s acquire arrives; the key is {}", name(client), before.key())
                }
                Request::End => {
                    format!("{}'s release or undo arrives; the key is {}", name(client), before.key())
                }
            },
            Action::Arrive(client) => format!("the copy of {}'s acquire arrives", name(client)),
            Action::GiveUp(client) => format!("{} gives up", name(client)),
            Action::Release(client) => format!("{} releases", name(client)),
            Action::Lose(client) => format!("the notice to {} is lost", name(client)),
            Action::Stop(client) => format!("{} stops for good", name(client)),
            Action::Watch => "whoever handed the key on looks after it".to_owned(),
            Action::Restart => "the server restarts without its data".to_owned(),
        }
    }
}

impl State {
    fn key(&self) -> String {
        match self.key {
            Key::Free => "free".to_owned(),
            Key::Held { by, until } => format!("{}'s until {until}", name(by)),
            Key::Reserved { by, until } => format!("reserved for {} until {until}", name(by)),
        }
    }
}

fn name(client: u8) -> &'static str {
    ["A", "B", "C", "D"][usize::from(client)]
}

pub(crate) fn entries() -> Vec<Entry> {
    let model = Reservation::default;
    let without = |part| Reservation { leaves_out: Some(part), ..model() };
    vec![
        Entry::new("Q1", "waiters in a queue at the server, and one who tries", model()).holds(),
        Entry::new("Q2", "one of them stops for good", Reservation { stops: 1, ..model() }).holds(),
        Entry::new("Q3", "a notice is lost", Reservation { losses: 1, ..model() }).holds(),
        Entry::new("Q4", "a copy of an acquire arrives late", Reservation { copies: 1, ..model() }).holds(),
        Entry::new("Q5", "the server restarts without its data", Reservation { restarts: 1, ..model() })
            .breaks(&["no two beliefs"])
            .keeps_the_rest(),
        Entry::new("Q6", "like Q1, if a key that is found free is taken", without(Part::Queue))
            .breaks(&["a try never overtakes"]),
        Entry::new("Q7", "like Q1, if an undo leaves a reservation as it is", without(Part::PassingOn))
            .breaks(&["one who stops costs a reservation"]),
        Entry::new(
            "Q8",
            "like Q4, if copies are not refused",
            Reservation { copies: 1, ..without(Part::RefusedCopies) },
        )
        .breaks(&["what was given back is not taken"]),
        Entry::new(
            "Q9",
            "like Q2, if nobody looks after a reservation",
            Reservation { stops: 1, ..without(Part::Watch) },
        )
        .breaks(&["one who stops costs a reservation"]),
        Entry::new("Q10", "like Q1, if a lease counts from its answer", without(Part::EarlyBelief))
            .breaks(&["no two beliefs"]),
    ]
}
