//! What happened, as agents and the lab write it down: one JSON value a line.

use lock_core::backend::BootInstant;
use serde::{Deserialize, Serialize};

/// An instant of the boot clock in nanoseconds; all processes of one machine share that clock.
pub(crate) type Nanos = u64;

pub(crate) const MS: Nanos = 1_000_000;

pub(crate) fn now() -> Nanos {
    BootInstant::now().as_nanos()
}

/// The lab itself, among the numbers of agents.
pub(crate) const LAB: u32 = 0;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Event {
    pub(crate) at: Nanos,
    pub(crate) agent: u32,
    pub(crate) what: What,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) enum What {
    /// An acquire is called.
    Invoked { attempt: u64, lock: String, how: How },
    /// It returned a guard that is believed in until `until`.
    Acquired { attempt: u64, token: u64, until: Nanos },
    /// It returned that another holds the lock.
    Busy { attempt: u64 },
    /// It returned an error, or its future was dropped.
    Failed { attempt: u64, kind: String, message: String },
    /// The deadline of a hold was seen to be another.
    Deadline { attempt: u64, until: Nanos },
    /// `lost()` resolved.
    Lost { attempt: u64 },
    /// `is_held` was false for the first time.
    NotHeld { attempt: u64, reason: String },
    /// `is_held` was true after it had been false.
    Revived { attempt: u64 },
    /// A release is called.
    Releasing { attempt: u64 },
    /// It returned: nothing, or the kind of error and its words.
    Released { attempt: u64, error: Option<(String, String)> },
    /// The guard is dropped, or forgotten.
    Dropped { attempt: u64 },
    /// The work under the lock begins.
    Entered { attempt: u64 },
    /// It ended.
    Left { attempt: u64 },
    /// A request to the store, written down when it was answered.
    Asked { attempt: u64, request: u64, checking: bool, checked: Nanos, sent: Nanos, accepted: Option<bool> },
    /// What an agent answers to a command.
    Reply { command: u64, answer: Result<Answer, (String, String)> },
    /// A ticker of ten milliseconds was so late.
    Gap { nanos: Nanos },
    /// The lab begins to break something.
    FaultBegan { fault: String },
    /// What shows that it is broken.
    FaultFired { fault: String, proof: String },
    /// It is whole again.
    FaultEnded { fault: String },
    /// The lab ended an agent by force.
    Killed { agent: u32 },
    /// The lab stopped an agent, or lets it go on.
    Stopped { agent: u32, stopped: bool },
    /// The contention that a cell needs is over; what is asked from here on belongs to the end.
    Ceased,
    /// A condition that a scenario states for itself.
    Expected { invariant: Invariant, holds: bool, text: String },
}

/// How a lock is asked for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum How {
    Try,
    Wait,
    /// For so many milliseconds at most.
    For(u64),
}

/// What an agent may answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) enum Answer {
    Done,
    Acquired { attempt: u64, token: u64 },
    Busy,
    Held(bool),
    Accepted(bool),
    Count(u64),
}

/// What a checker can find broken; see docs/reliability.md.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) enum Invariant {
    /// Beliefs do not overlap.
    Belief,
    /// Work under the lock does not overlap.
    Overlap,
    /// Nobody acts after the end of its belief, and no belief comes back.
    ActsLate,
    /// Tokens are unique and grow.
    Tokens,
    /// The checking store took no stale token.
    Fencing,
    /// No update is lost.
    Updates,
    /// A release ends the releaser's own hold and says so truly.
    Owner,
    /// Those who queue are served in order.
    Order,
    /// Those who wait are served in time.
    Progress,
    /// Nothing is left behind.
    Leaks,
    /// A loss is told in time.
    Loss,
    /// An error is of the right kind, in time.
    Errors,
    /// The run shows something: the fault fired, and work was done around it.
    Valid,
}

impl Invariant {
    pub(crate) const ALL: [Self; 13] = [
        Self::Belief,
        Self::Overlap,
        Self::ActsLate,
        Self::Tokens,
        Self::Fencing,
        Self::Updates,
        Self::Owner,
        Self::Order,
        Self::Progress,
        Self::Leaks,
        Self::Loss,
        Self::Errors,
        Self::Valid,
    ];

    /// Its number in the documents, and its name in one word or two.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Belief => "I1 belief",
            Self::Overlap => "I1b overlap",
            Self::ActsLate => "I2 acting late",
            Self::Tokens => "I3 tokens",
            Self::Fencing => "I4 fencing",
            Self::Updates => "I5 updates",
            Self::Owner => "I6 owner",
            Self::Order => "I7 order",
            Self::Progress => "I8 progress",
            Self::Leaks => "I9 leaks",
            Self::Loss => "loss told",
            Self::Errors => "errors",
            Self::Valid => "I10 valid run",
        }
    }
}
