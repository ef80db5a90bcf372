//! What the lab tells an agent, one JSON value a line.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{backend::Backend, event::How};

/// The variable in which an agent finds its [`Setup`].
pub(crate) const SETUP: &str = "FAULT_LAB_AGENT";

/// How an agent reaches its servers, and how it locks.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Setup {
    /// The number of its events.
    pub(crate) agent: u32,
    pub(crate) backend: Backend,
    /// Separated by commas.
    pub(crate) urls: String,
    pub(crate) prefix: String,
    pub(crate) ttl_ms: u64,
    pub(crate) store: SocketAddr,
    /// Threads of the runtime.
    pub(crate) threads: usize,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    pub(crate) number: u64,
    /// In whose name: several agents in one process share a locker.
    pub(crate) agent: u32,
    pub(crate) command: Command,
}

/// What can be done. A guard is known by its agent and its lock.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) enum Command {
    /// Takes part in the contention for `lock` by `tasks` tasks until [`Cease`](Self::Cease).
    Contend {
        lock: String,
        tasks: usize,
        pace: Pace,
    },
    /// Ends the contention, each task after its present round. The answer counts the tasks that ended.
    Cease,
    /// Acquires `lock`, and keeps it.
    Acquire {
        lock: String,
        how: How,
    },
    /// Works under the guard: reads, writes and appends in both stores.
    Work {
        lock: String,
        gap: Gap,
    },
    /// Asks the guard whether it is held.
    IsHeld {
        lock: String,
    },
    Verify {
        lock: String,
    },
    Release {
        lock: String,
    },
    /// Drops the guard.
    Drop {
        lock: String,
    },
    /// Leaks the guard.
    Leak {
        lock: String,
    },
    /// Polls a release so many times, and drops it.
    CancelRelease {
        lock: String,
        polls: usize,
    },
    /// Polls an acquire so many times, and drops it. The answer counts the polls until it was ready.
    CancelAcquire {
        lock: String,
        how: How,
        polls: usize,
        /// Milliseconds between the last poll and the drop.
        linger: u64,
    },
    /// Polls an acquire so many times, and keeps it unpolled, or leaks it.
    Stall {
        lock: String,
        polls: usize,
        leak: bool,
    },
    /// Blocks all threads of the runtime for so long, and then asks the guard at once whether it is held.
    Starve {
        lock: String,
        ms: u64,
    },
    /// Panics in a task that has the guard.
    Panic {
        lock: String,
    },
    /// Acquires `lock`, which must be free, by a locker that was made in a runtime of its own, and keeps it. That
    /// runtime then exists but does nothing, or has ended.
    Elsewhere {
        lock: String,
        idle: bool,
    },
    /// Connects anew, as another client in the same process, and says whether that worked. It takes the place of the
    /// client so far if `keep` is set.
    Connect {
        urls: Option<String>,
        keep: bool,
    },
    /// Moves the slot of `lock` to a cluster of the lock space. Before a step of that, by its number, the process may
    /// send itself a signal.
    Move {
        lock: String,
        to: String,
        halt: Option<(usize, Halt)>,
    },
    /// Starts a process that outlives this one for some time. The answer is its number.
    Spawn,
    /// Counts the tasks of the runtime.
    Tasks,
    /// Closes the locker and waits for what is under way.
    Close,
    /// Returns from `main` with guards alive.
    Exit,
}

/// How a contender goes about it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Pace {
    pub(crate) how: How,
    /// Milliseconds under the lock.
    pub(crate) hold: u64,
    /// So many milliseconds more at most, by chance.
    pub(crate) jitter: u64,
    /// Milliseconds between two rounds.
    pub(crate) rest: u64,
    /// Rounds at most.
    pub(crate) rounds: u64,
}

/// By which signal a mover halts itself.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum Halt {
    Kill,
    Stop,
}

/// What happens between the look at the guard and the write that follows.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum Gap {
    None,
    /// The process stops itself by SIGSTOP.
    Stop,
    /// The thread sleeps for so many milliseconds.
    Sleep(u64),
}
