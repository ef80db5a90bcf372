//! One connection through a proxy: for each direction a thread that reads and one that writes.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt::set_socket_linger;

use super::{
    Direction,
    requests::Requests,
    shared::{Shared, Verdict},
};

const BUFFER: usize = 64 * 1024;

/// How often a writer that a full peer holds up looks whether the connection was reset.
const WRITE_PATIENCE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Connection {
    client: TcpStream,
    server: TcpStream,
    reset: AtomicBool,
    silent: AtomicBool,
}

/// What a peer did. The end of a connection is held, delayed and swallowed like bytes: a broken network
/// carries no news of it either.
enum Event {
    Bytes(Vec<u8>),
    Closed,
    Reset,
}

/// Closes the socket such that the peer gets a reset instead of an orderly end.
pub(super) fn close_with_reset(stream: TcpStream) {
    linger_not(&stream);
}

impl Connection {
    pub(super) fn new(client: TcpStream, server: TcpStream) -> std::io::Result<Arc<Connection>> {
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(WRITE_PATIENCE))?;
        }
        Ok(Arc::new(Connection {
            client,
            server,
            reset: AtomicBool::new(false),
            silent: AtomicBool::new(false),
        }))
    }

    /// From now on nothing reaches the client.
    pub(super) fn silence(&self) {
        self.silent.store(true, Ordering::Release);
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Acquire)
    }

    pub(super) fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Acquire)
    }

    /// Ends all threads of the connection; the last one closes the sockets, which sends the resets.
    ///
    /// Threads that wait on the shared state must be woken by the caller: see [`Shared::reset`].
    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::Release);
        for stream in [&self.client, &self.server] {
            linger_not(stream);
            // Wakes a blocked reader and sends nothing. It fails only if the peer has ended the connection.
            stream.shutdown(Shutdown::Read).ok();
        }
    }

    /// Carries bytes until both directions have ended.
    pub(super) fn run(&self, shared: &Shared) {
        thread::scope(|scope| {
            for direction in [Direction::ToServer, Direction::ToClient] {
                let (sender, receiver) = mpsc::channel();
                scope.spawn(move || self.receive(direction, &sender, shared));
                scope.spawn(move || self.deliver(direction, receiver, shared));
            }
        });
    }

    /// Reads as fast as the peer sends, whatever the behaviour is, so that arrival times are true.
    fn receive(&self, direction: Direction, events: &Sender<(Instant, Event)>, shared: &Shared) {
        let mut source = match direction {
            Direction::ToServer => &self.client,
            Direction::ToClient => &self.server,
        };
        let mut buffer = vec![0; BUFFER];
        let mut requests = Requests::default();
        loop {
            let event = match source.read(&mut buffer) {
                Ok(0) => Event::Closed,
                Ok(length) => Event::Bytes(buffer[..length].to_vec()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => Event::Reset,
            };
            let Event::Bytes(bytes) = &event else {
                events.send((Instant::now(), event)).ok();
                return;
            };
            let complete = if direction == Direction::ToServer { requests.feed(bytes) } else { 0 };
            if shared.count(direction, bytes.len(), complete) {
                return shared.reset(self);
            }
            if events.send((Instant::now(), event)).is_err() {
                return;
            }
        }
    }

    fn deliver(&self, direction: Direction, events: Receiver<(Instant, Event)>, shared: &Shared) {
        let sink = match direction {
            Direction::ToServer => &self.server,
            Direction::ToClient => &self.client,
        };
        for (arrived, event) in events {
            match shared.admit(direction, arrived, self) {
                Verdict::HandOn => {}
                Verdict::Forget => continue,
                Verdict::Stop => return,
            }
            let delivered = match event {
                Event::Bytes(bytes) => self.write(sink, &bytes),
                Event::Closed => {
                    // It fails only if the peer is gone, which the other direction notices.
                    sink.shutdown(Shutdown::Write).ok();
                    true
                }
                Event::Reset => false,
            };
            if !delivered {
                return shared.reset(self);
            }
        }
    }

    /// Returns whether all bytes were taken.
    fn write(&self, mut sink: &TcpStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match sink.write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if is_patience(error.kind()) && !self.is_reset() => {}
                Err(_) => return false,
            }
        }
        true
    }
}

fn is_patience(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// It fails only for a socket whose peer has reset it, which needs no reset.
fn linger_not(stream: &TcpStream) {
    set_socket_linger(stream, Some(Duration::ZERO)).ok();
}
