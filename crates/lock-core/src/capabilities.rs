//! What a backend says of itself.

/// What a backend says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Whom it excludes from each other.
    pub scope: Scope,
    /// How it waits.
    pub waiting: Waiting,
    /// What its tokens outlive.
    pub tokens: TokenOrder,
}

impl Capabilities {
    /// States the three facts.
    #[must_use]
    pub const fn new(scope: Scope, waiting: Waiting, tokens: TokenOrder) -> Self {
        Self { scope, waiting, tokens }
    }
}

/// Whom a lock excludes from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// The tasks and threads of one process that share one locker. A lock cannot be lost.
    Process,
    /// All clients of the same servers. A lock is a lease: it can be lost.
    Servers,
}

/// How an acquire waits while another holds the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// It cannot.
    Never,
    /// It tries again and again, as its user asked it to.
    Polling,
    /// It is told when the key may be free; any waiter may win.
    Notified,
    /// It queues; waiters are served in order of arrival.
    Fifo,
}

/// What the order of fencing tokens outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenOrder {
    /// The locker: a new one counts from the start.
    Locker,
    /// Everything as long as the servers keep their data; without it, anything but a clock that was set back.
    ServerData,
    /// Everything in the life of one cluster.
    Cluster,
}
