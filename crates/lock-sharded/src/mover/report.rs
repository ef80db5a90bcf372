//! What a mover tells while it works, and what it finds.

use std::{fmt, time::Duration};

use lock_core::{
    Error, FencingToken, Result,
    movable::{ClusterName, Marker, Slot},
};

use crate::members::named;

/// The steps of a move, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// See what there is, and whether the move can be.
    Plan,
    /// Mark the slot on the new cluster.
    Prepare,
    /// Let the old cluster grant nothing of it any more.
    Seal,
    /// List what is held there.
    Census,
    /// Copy that to the new cluster.
    Copy,
    /// Let the new cluster grant: the point of no return.
    Open,
    /// Wait until each copy is adopted or freed.
    Drain,
    /// Leave a marker on the old cluster that says where the slot went.
    Clean,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 8] = [
        Self::Plan,
        Self::Prepare,
        Self::Seal,
        Self::Census,
        Self::Copy,
        Self::Open,
        Self::Drain,
        Self::Clean,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plan => "plan",
            Self::Prepare => "prepare",
            Self::Seal => "seal",
            Self::Census => "census",
            Self::Copy => "copy",
            Self::Open => "open",
            Self::Drain => "drain",
            Self::Clean => "clean",
        })
    }
}

/// What happens in a move.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A step begins.
    Begins {
        /// Of which slot.
        slot: Slot,
        /// Which one.
        step: Step,
    },
    /// The slot is open on the new cluster: there is no way back but another move.
    Opened {
        /// Which one.
        slot: Slot,
        /// So many holds were copied.
        copied: usize,
        /// Free keys were refused for so long, if this mover sealed the slot itself.
        refused: Option<Duration>,
    },
    /// Some copies are neither adopted nor freed yet.
    Draining {
        /// In which slot.
        slot: Slot,
        /// So many.
        left: usize,
        /// The oldest, by its token: its key and the token.
        oldest: Option<(String, FencingToken)>,
    },
    /// Something cannot be done now, and is tried again.
    Waiting {
        /// In which slot.
        slot: Slot,
        /// Why.
        reason: String,
    },
    /// Nothing of the slot is left on the old cluster.
    Done {
        /// Which one.
        slot: Slot,
    },
}

/// Hears what happens in moves.
pub trait Observer: Send + Sync {
    /// Is told each event as it happens; must not block.
    fn tell(&self, event: &Event);
}

/// What all clusters say of a slot.
#[derive(Clone, Debug)]
pub struct SlotStatus {
    /// The slot.
    pub slot: Slot,
    /// Each cluster's marker, if it has one.
    pub markers: Vec<(ClusterName, Marker)>,
    /// The clusters that did not say, and why.
    pub unknown: Vec<(ClusterName, Error)>,
}

impl SlotStatus {
    /// Returns the clusters on which it is open; more than one is a [`Problem`].
    pub fn open(&self) -> impl Iterator<Item = &ClusterName> {
        self.markers.iter().filter(|(_, marker)| marker.open().is_some()).map(|(name, _)| name)
    }

    /// Fails if a cluster did not answer: what it has of the slot is not known.
    pub(super) fn certain(&self) -> Result<()> {
        self.unknown.first().map_or(Ok(()), |(name, error)| Err(named(error.clone(), name)))
    }
}

/// Something that must not be.
#[derive(Clone, Debug)]
pub struct Problem {
    /// In which slot.
    pub slot: Slot,
    /// What it is, and what to do.
    pub message: String,
}
