//! A TCP proxy that breaks the network between a client and a server on demand.

mod connection;
mod requests;
mod shared;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use shared::Shared;

/// Which way bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server: requests.
    ToServer,
    /// From the server to the client: replies.
    ToClient,
}

/// What happens to bytes, and to the news that the sender closed its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// They are handed on at once.
    #[default]
    Pass,
    /// They are held, and handed on when another behaviour is set.
    Stall,
    /// They vanish, and nobody is told.
    Swallow,
    /// They are handed on when this time has passed since they arrived, in order.
    Delay(Duration),
}

/// A TCP proxy on a loopback port of its own, which stays the same over restarts of the server behind it.
///
/// Behaviours hold for all connections, also for those opened later. Whoever wants to break one client alone
/// gives it a proxy alone. Dropping the proxy resets its connections.
///
/// # Examples
///
/// A server that acts, and whose answer is lost:
///
/// ```
/// use std::time::Duration;
/// use test_cluster::{Proxy, Redis, resp::Connection};
///
/// # fn main() -> anyhow::Result<()> {
/// let redis = Redis::start()?;
/// let proxy = Proxy::start(redis.address())?;
/// let mut client = Connection::open(proxy.address(), Duration::from_secs(5))?;
///
/// proxy.drop_next_reply();
/// assert!(client.call(&["INCR", "visits"]).is_err());
/// assert_eq!(redis.command(&["GET", "visits"])?.text(), "1");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy in front of `target`, which need not listen yet.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub fn start(target: SocketAddr) -> Result<Proxy> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot open a port for a proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(target));
        let acceptor = thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Ok(Proxy { address, shared, acceptor: Some(acceptor) })
    }

    /// Returns the address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the port for clients.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Sets what happens to bytes in one direction, including those that are held now.
    pub fn set(&self, direction: Direction, behaviour: Behaviour) {
        self.shared.update(|state| state.behaviours[direction as usize] = behaviour);
    }

    /// Resets every open connection at both ends: the client reads "connection reset by peer".
    ///
    /// Bytes that are held are lost. When this returns, the resets have been sent. A connection is open as soon
    /// as the proxy has reached the server for it: see [`open_connections`](Self::open_connections).
    pub fn reset_all(&self) {
        self.shared.reset_all();
    }

    /// Drops the next bytes that come from the server, on whichever connection, and resets that connection.
    ///
    /// The server has acted and the client cannot know.
    pub fn drop_next_reply(&self) {
        self.shared.update(|state| state.drop_next_reply = true);
    }

    /// Sets whether to reset new connections as soon as they are opened. Open ones are not touched.
    ///
    /// The port stays bound, so a client sees "connection reset", not "connection refused".
    pub fn refuse(&self, refuse: bool) {
        self.shared.update(|state| state.refuse = refuse);
    }

    /// Lets nothing reach the client any more over connections that are open now, as if they were alive and nothing
    /// happened. Later ones are not touched. Returns how many there were.
    pub fn silence(&self) -> usize {
        self.shared.silence()
    }

    /// Leads new connections to `target`. Open ones are not touched.
    pub fn retarget(&self, target: SocketAddr) {
        self.shared.update(|state| state.target = target);
    }

    /// Returns how many connections have reached the server so far.
    pub fn connections(&self) -> u64 {
        self.shared.read(|state| state.opened)
    }

    /// Returns how many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.shared.read(|state| state.open.len())
    }

    /// Returns how many bytes have arrived so far for this direction, including those held or swallowed.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.shared.read(|state| state.traffic[direction as usize].bytes)
    }

    /// Returns how many reads those bytes took: for small messages sent one at a time, how many messages.
    pub fn chunks(&self, direction: Direction) -> u64 {
        self.shared.read(|state| state.traffic[direction as usize].chunks)
    }

    /// Returns how many Redis commands have arrived from clients so far. It means nothing for other protocols.
    pub fn requests(&self) -> u64 {
        self.shared.read(|state| state.requests)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.update(|state| state.closing = true);
        self.shared.reset_all();
        // The acceptor sees that it shall close when it has a connection in hand. If it cannot get one, it is
        // left behind rather than waited for.
        if TcpStream::connect(self.address).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            acceptor.join().expect("accepting does not panic");
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.read(|state| state.closing) {
            return;
        }
        match accepted {
            Ok((client, _)) => {
                let shared = shared.clone();
                thread::spawn(move || shared.serve(client));
            }
            // The client is gone already, or there are no more descriptors, which may pass.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}
