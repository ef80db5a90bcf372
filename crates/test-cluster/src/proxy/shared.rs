//! What all connections of a proxy share: the behaviours, the counters and the list of themselves.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{
    Behaviour, Direction,
    connection::{Connection, close_with_reset},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RESET_BOUND: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) target: SocketAddr,
    pub(super) behaviours: [Behaviour; 2],
    pub(super) drop_next_reply: bool,
    pub(super) refuse: bool,
    pub(super) closing: bool,
    pub(super) open: HashMap<u64, Arc<Connection>>,
    pub(super) opened: u64,
    pub(super) traffic: [Traffic; 2],
    pub(super) requests: u64,
}

#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) bytes: u64,
    pub(super) chunks: u64,
}

/// What to do with something that arrived.
pub(super) enum Verdict {
    HandOn,
    Forget,
    /// The connection is being reset.
    Stop,
}

impl Shared {
    pub(super) fn new(target: SocketAddr) -> Shared {
        let state = State {
            target,
            behaviours: Default::default(),
            drop_next_reply: false,
            refuse: false,
            closing: false,
            open: HashMap::new(),
            opened: 0,
            traffic: Default::default(),
            requests: 0,
        };
        Shared { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.lock())
    }

    pub(super) fn update(&self, update: impl FnOnce(&mut State)) {
        update(&mut self.state.lock());
        self.changed.notify_all();
    }

    /// Leads `client` to the target until both ends are done.
    pub(super) fn serve(&self, client: TcpStream) {
        let (target, refuse) = self.read(|state| (state.target, state.refuse));
        if refuse {
            return close_with_reset(client);
        }
        let Ok(server) = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT) else {
            return close_with_reset(client);
        };
        let Ok(connection) = Connection::new(client, server) else { return };
        let Some(id) = self.register(&connection) else { return connection.reset() };
        connection.run(self);
        // The sockets close with the last reference, and `reset_all` promises that they are closed.
        drop(connection);
        self.update(|state| drop(state.open.remove(&id)));
    }

    /// Waits until something that arrived at the instant `arrived` may be handed on, or must not be.
    pub(super) fn admit(&self, direction: Direction, arrived: Instant, connection: &Connection) -> Verdict {
        let mut state = self.state.lock();
        loop {
            if connection.is_reset() {
                return Verdict::Stop;
            }
            if direction == Direction::ToClient && connection.is_silent() {
                return Verdict::Forget;
            }
            match state.behaviours[direction as usize] {
                Behaviour::Pass => return Verdict::HandOn,
                Behaviour::Swallow => return Verdict::Forget,
                Behaviour::Stall => self.changed.wait(&mut state),
                Behaviour::Delay(delay) if arrived.elapsed() >= delay => return Verdict::HandOn,
                Behaviour::Delay(delay) => {
                    self.changed.wait_until(&mut state, arrived + delay);
                }
            }
        }
    }

    /// Counts bytes that have arrived. Returns whether they are the reply that shall be dropped.
    pub(super) fn count(&self, direction: Direction, bytes: usize, requests: u64) -> bool {
        let mut state = self.state.lock();
        let traffic = &mut state.traffic[direction as usize];
        traffic.bytes += bytes as u64;
        traffic.chunks += 1;
        state.requests += requests;
        direction == Direction::ToClient && std::mem::take(&mut state.drop_next_reply)
    }

    pub(super) fn reset(&self, connection: &Connection) {
        self.update(|_| connection.reset());
    }

    pub(super) fn silence(&self) -> usize {
        let state = self.state.lock();
        state.open.values().for_each(|connection| connection.silence());
        state.open.len()
    }

    pub(super) fn reset_all(&self) {
        let ids: Vec<u64> = self.read(|state| state.open.keys().copied().collect());
        self.update(|state| state.open.values().for_each(|connection| connection.reset()));
        let mut state = self.state.lock();
        let still_open = |state: &mut State| ids.iter().any(|id| state.open.contains_key(id));
        self.changed.wait_while_for(&mut state, still_open, RESET_BOUND);
    }

    fn register(&self, connection: &Arc<Connection>) -> Option<u64> {
        let mut state = self.state.lock();
        if state.closing {
            return None;
        }
        state.opened += 1;
        let id = state.opened;
        state.open.insert(id, connection.clone());
        Some(id)
    }
}
