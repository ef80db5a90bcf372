//! What a test and its agent say to each other, one JSON value a line.

use serde::{Deserialize, Serialize};

/// What an agent is told to do.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Command {
    /// Try for the key, and keep it.
    Take { key: String },
    /// Wait for the key, and keep it.
    Lock { key: String },
    /// Acquire the key, stay a moment, and give it back, `rounds` times.
    Contend { key: String, rounds: usize },
    /// Tell whether the lock is held.
    Status,
    /// Give the lock back.
    Release,
}

/// What an agent answers. The first answer, to no command, says that it is connected.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Reply {
    Done,
    Acquired { token: u64 },
    Busy,
    Contended { stays: Vec<Stay> },
    Status { held: bool },
    Failed { kind: String, message: String },
}

/// One stay in a critical section, in nanoseconds of the boot clock, which all processes share.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Stay {
    pub(crate) token: u64,
    pub(crate) entered: u64,
    pub(crate) left: u64,
}
