//! The queues that three servers keep for a key, each its own, where a majority of votes is a hold (N1–N3): who is next
//! at one server may not be so at another.
//!
//! Requests of a client to a server are executed in order, but for a copy of a yielding that comes whenever it likes.
//! Nothing is lost and no clock goes on: what is shown is that no wait needs the end of a lease or of a reservation. A
//! client may give up anywhere.

use stateright::{Model, Property};

use crate::{
    catalogue::Entry,
    protocol::{Goal, Protocol},
};

const SERVERS: usize = 3;
const MAJORITY: usize = 2;

#[derive(Debug, Clone, Default)]
struct Places {
    clients: u8,
    /// So many clients may give up, and yieldings be copied on the way.
    give_ups: u8,
    copies: u8,
    /// What is left out, to see that it is needed.
    leaves_out: Option<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Who has too few votes gives them back.
    Yielding,
    /// A reservation goes to whoever comes to stand before.
    Moving,
    /// A yielding names the question that it is about.
    Naming,
}

#[derive(Debug, Clone, Default, Hash, PartialEq, Eq)]
struct Server {
    /// A client, and which of its questions it was.
    vote: Option<(u8, u8)>,
    reserved: Option<u8>,
    /// Tickets and clients, the smallest first; also of whom it is reserved for.
    queue: Vec<(u8, u8)>,
    /// So many have entered the queue: the server's clock.
    arrivals: u8,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Stage {
    Idle,
    Asks,
    Waits,
    Holds,
    Done,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Reply {
    Granted,
    Refused { ticket: u8 },
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Request {
    Ask { ticket: Option<u8>, question: u8 },
    Yield { ticket: u8, question: u8 },
    End,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct Client {
    stage: Stage,
    ticket: Option<u8>,
    questions: u8,
    is_told: bool,
    replies: [Option<Reply>; SERVERS],
    in_flight: [Vec<Request>; SERVERS],
}

#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct State {
    servers: [Server; SERVERS],
    clients: Vec<Client>,
    give_ups: u8,
    copies: u8,
    /// A copy on another way: a client, a server and what is in it.
    stray: Option<(u8, usize, Request)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Ask(u8),
    Execute { client: u8, server: usize },
    Copy { client: u8, server: usize },
    Arrive,
    GiveUp(u8),
    Release(u8),
}

impl Model for Places {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let client = Client {
            stage: Stage::Idle,
            ticket: None,
            questions: 0,
            is_told: false,
            replies: Default::default(),
            in_flight: Default::default(),
        };
        let clients = vec![client; usize::from(self.clients)];
        let (give_ups, copies) = (self.give_ups, self.copies);
        vec![State { servers: Default::default(), clients, give_ups, copies, stray: None }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (number, client) in (0..).zip(&state.clients) {
            for (server, requests) in client.in_flight.iter().enumerate() {
                if !requests.is_empty() {
                    actions.push(Action::Execute { client: number, server });
                }
                // One server is like another.
                if state.copies > 0 && server == 0 && matches!(requests.first(), Some(Request::Yield { .. }))
                {
                    actions.push(Action::Copy { client: number, server });
                }
            }
            match client.stage {
                // That they come in one order tells as much as any order.
                Stage::Idle if number == 0 || state.clients[usize::from(number) - 1].stage != Stage::Idle => {
                    actions.push(Action::Ask(number));
                }
                Stage::Waits if client.is_told => actions.push(Action::Ask(number)),
                Stage::Holds => actions.push(Action::Release(number)),
                _ => {}
            }
            if state.give_ups > 0 && matches!(client.stage, Stage::Asks | Stage::Waits) {
                actions.push(Action::GiveUp(number));
            }
        }
        actions.extend(state.stray.map(|_| Action::Arrive));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Ask(client) => {
                let client = &mut next.clients[usize::from(client)];
                (client.stage, client.is_told, client.replies) = (Stage::Asks, false, Default::default());
                // Which question it is about matters only to a copy.
                client.questions += u8::from(self.copies > 0);
                client.send(Request::Ask { ticket: client.ticket, question: client.questions });
            }
            Action::Execute { client, server } => {
                let request = next.clients[usize::from(client)].in_flight[server].remove(0);
                next.execute(client, server, request, self);
            }
            Action::Copy { client, server } => {
                next.copies -= 1;
                next.stray = Some((client, server, next.clients[usize::from(client)].in_flight[server][0]));
            }
            Action::Arrive => {
                let (client, server, request) = next.stray.take()?;
                next.execute(client, server, request, self);
            }
            Action::GiveUp(client) | Action::Release(client) => {
                let client = &mut next.clients[usize::from(client)];
                next.give_ups -= u8::from(client.stage != Stage::Holds);
                client.stage = Stage::Done;
                client.send(Request::End);
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("no two holders", |_, state: &State| {
                state.clients.iter().filter(|client| client.stage == Stage::Holds).count() <= 1
            }),
            // A copy may take a place for one who is gone, which costs a reservation.
            Property::always("no waiter is forgotten", |model: &Self, state: &State| {
                let is_over = |client: &Client| {
                    let sends_nothing = client.in_flight.iter().all(Vec::is_empty) && !client.is_told;
                    sends_nothing && !matches!(client.stage, Stage::Asks | Stage::Holds)
                };
                let waits = |client: &Client| client.stage == Stage::Waits;
                model.copies > 0 || !(state.clients.iter().all(is_over) && state.clients.iter().any(waits))
            }),
        ];
        if self.clients > 2 {
            properties
                .push(Property::sometimes("each server is for another", |_, state: &State| state.is_split()));
        }
        properties
    }
}

impl Client {
    fn send(&mut self, request: Request) {
        self.in_flight.iter_mut().for_each(|requests| requests.push(request));
    }
}

impl Server {
    fn is_for(&self) -> Option<u8> {
        self.vote.map(|(client, _)| client).or(self.reserved)
    }

    /// Puts a client where it belongs; returns its ticket.
    fn stand(&mut self, client: u8, ticket: Option<u8>) -> u8 {
        let present = self.queue.iter().find(|(_, other)| *other == client).map(|(ticket, _)| *ticket);
        let ticket = ticket.or(present).unwrap_or_else(|| {
            self.arrivals += 1;
            self.arrivals
        });
        self.queue.retain(|(_, other)| *other != client);
        self.queue.push((ticket, client));
        self.queue.sort_unstable();
        ticket
    }
}

impl State {
    fn is_split(&self) -> bool {
        let [one, two, three] = self.servers.each_ref().map(Server::is_for);
        let all = one.is_some() && two.is_some() && three.is_some();
        all && one != two && two != three && one != three
    }

    fn execute(&mut self, number: u8, index: usize, request: Request, model: &Places) {
        let server = &mut self.servers[index];
        match request {
            Request::Ask { ticket, question } => {
                let reply = self.ask(number, index, ticket, question, model);
                let client = &mut self.clients[usize::from(number)];
                if client.stage == Stage::Asks {
                    client.replies[index] = Some(reply);
                    self.decide(number, model);
                }
            }
            Request::Yield { ticket, question } => {
                let is_newer = |vote: (u8, u8)| vote.0 == number && vote.1 > question;
                if server.vote.is_some_and(is_newer) && model.leaves_out != Some(Part::Naming) {
                    return;
                }
                server.vote.take_if(|vote| vote.0 == number);
                server.stand(number, Some(ticket));
                self.hand_on(index, number, model);
            }
            Request::End => {
                server.vote.take_if(|vote| vote.0 == number);
                server.queue.retain(|(_, other)| *other != number);
                server.reserved.take_if(|reserved| *reserved == number);
                self.hand_on(index, number, model);
            }
        }
    }

    fn ask(&mut self, number: u8, index: usize, ticket: Option<u8>, question: u8, model: &Places) -> Reply {
        let server = &mut self.servers[index];
        let is_own = server.vote.is_some_and(|(client, _)| client == number);
        if !is_own && (server.vote.is_some() || !server.queue.is_empty()) {
            let ticket = server.stand(number, ticket);
            self.hand_on(index, number, model);
            if self.servers[index].is_for().is_some_and(|other| other != number) {
                return Reply::Refused { ticket };
            }
        }
        let server = &mut self.servers[index];
        server.queue.retain(|(_, other)| *other != number);
        server.reserved.take_if(|reserved| *reserved == number);
        server.vote = Some((number, question));
        Reply::Granted
    }

    /// Reserves the key for the first who waits, and tells it, unless it is the one who asks.
    fn hand_on(&mut self, index: usize, asks: u8, model: &Places) {
        let server = &mut self.servers[index];
        let Some(&(_, first)) = server.queue.first().filter(|_| server.vote.is_none()) else { return };
        let stays = server.reserved.is_some() && model.leaves_out == Some(Part::Moving);
        if server.reserved != Some(first) && !stays {
            server.reserved = Some(first);
            if first != asks {
                self.clients[usize::from(first)].is_told = true;
            }
        }
    }

    fn decide(&mut self, number: u8, model: &Places) {
        let client = &mut self.clients[usize::from(number)];
        let granted = client.replies.iter().flatten().filter(|reply| **reply == Reply::Granted).count();
        if granted >= MAJORITY {
            client.stage = Stage::Holds;
            return;
        }
        if client.replies.iter().any(Option::is_none) {
            return;
        }
        let told = client.replies.iter().flatten();
        let mut tickets: Vec<_> = told
            .filter_map(|reply| match reply {
                Reply::Granted => None,
                Reply::Refused { ticket } => Some(*ticket),
            })
            .collect();
        tickets.sort_unstable();
        let ticket = *client.ticket.get_or_insert(tickets[(tickets.len() - 1) / 2]);
        client.stage = Stage::Waits;
        if granted > 0 && model.leaves_out != Some(Part::Yielding) {
            client.send(Request::Yield { ticket, question: client.questions });
        }
    }
}

impl Protocol for Places {
    fn tell(&self, before: &State, action: &Action) -> String {
        match *action {
            Action::Ask(client) if before.clients[usize::from(client)].stage == Stage::Idle => {
                format!("{} asks for the key", name(client))
            }
            Action::Ask(client) => format!("{} was told, and asks again", name(client)),
            Action::Execute { client, server } => {
                let what = match before.clients[usize::from(client)].in_flight[server][0] {
                    Request::Ask { .. } => "question",
                    Request::Yield { .. } => "yielding",
                    Request::End => "release or undo",
                };
                format!(
                    "{}'s {what} arrives at server {}, which {}",
                    name(client),
                    server + 1,
                    before.state_of(server)
                )
            }
            Action::Copy { client, server } => {
                format!("a copy of {}'s yielding to server {} is kept on the way", name(client), server + 1)
            }
            Action::Arrive => {
                let (client, server, _) = before.stray.expect("there is one that arrives");
                let state = before.state_of(server);
                format!(
                    "the copy of {}'s yielding arrives at server {}, which {state}",
                    name(client),
                    server + 1
                )
            }
            Action::GiveUp(client) => format!("{} gives up", name(client)),
            Action::Release(client) => format!("{} releases", name(client)),
        }
    }

    fn is_fault(&self, action: &Action) -> bool {
        matches!(action, Action::GiveUp(_) | Action::Copy { .. })
    }

    fn goals(&self) -> Vec<Goal<State>> {
        // Copies leave something, and three clients have too many states to look back from each.
        if self.copies > 0 || self.clients > 2 {
            return Vec::new();
        }
        vec![("all are served and nothing is left", |state| {
            let is_clean = |server: &Server| {
                server.vote.is_none() && server.reserved.is_none() && server.queue.is_empty()
            };
            state.clients.iter().all(|client| client.stage == Stage::Done)
                && state.servers.iter().all(is_clean)
        })]
    }
}

impl State {
    fn state_of(&self, server: usize) -> String {
        match (self.servers[server].vote, self.servers[server].reserved) {
            (Some((vote, _)), _) => format!("votes for {}", name(vote)),
            (None, Some(next)) => format!("is reserved for {}", name(next)),
            (None, None) => "is free".to_owned(),
        }
    }
}

fn name(client: u8) -> &'static str {
    ["A", "B", "C"][usize::from(client)]
}

pub(crate) fn entries() -> Vec<Entry> {
    let two = || Places { clients: 2, ..Places::default() };
    let without = Places { clients: 3, leaves_out: Some(Part::Yielding), ..Places::default() };
    vec![
        Entry::new(
            "N1",
            "two who wait in the queues of three servers, of which one may give up",
            Places { give_ups: 1, ..two() },
        )
        .holds(),
        Entry::new("N2", "three, who keep votes that are too few", without)
            .breaks(&["no waiter is forgotten"]),
        Entry::new(
            "N3",
            "like N1, and a copy of a yielding arrives whenever it likes",
            Places { copies: 1, ..two() },
        )
        .holds(),
    ]
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    /// Plays one history to its end; returns what is wrong with it.
    fn play(model: &Places, seed: u64) -> Option<&'static str> {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut state = model.init_states().remove(0);
        for _ in 0..5_000 {
            let mut actions = Vec::new();
            model.actions(&state, &mut actions);
            if actions.is_empty() {
                let served = state.clients.iter().all(|client| client.stage == Stage::Done);
                return (!served).then_some("a waiter is forgotten");
            }
            let action = actions.swap_remove(random.random_range(0..actions.len()));
            state = model.next_state(&state, action).expect("it is one of the possible actions");
            if state.clients.iter().filter(|client| client.stage == Stage::Holds).count() > 1 {
                return Some("two hold the key");
            }
        }
        Some("it does not end")
    }

    /// Three have too many states for the checker.
    #[test]
    fn three_who_wait_are_served_in_any_order_of_events() {
        let model = Places { clients: 3, give_ups: 1, ..Places::default() };
        for seed in 0..100_000 {
            assert_eq!(play(&model, seed), None, "seed {seed}");
        }
        let wrong = |part, copies| {
            // One who gives up would help the others on.
            let model = Places { copies, give_ups: 0, leaves_out: Some(part), ..model.clone() };
            (0..1_000_000).find_map(|seed| play(&model, seed))
        };
        assert_eq!(wrong(Part::Yielding, 0), Some("a waiter is forgotten"));
        assert_eq!(wrong(Part::Moving, 0), Some("a waiter is forgotten"));
        assert_eq!(wrong(Part::Naming, 1), Some("two hold the key"));
    }
}
