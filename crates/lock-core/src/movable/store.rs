//! What a backend must supply so that its slots can move.

use std::{fmt, future::Future};

use super::{ClusterName, Epoch, Marker, MoveId, Slot};
use crate::{
    FencingToken, Key, Result,
    backend::{Claim, LeaseStore, OwnerId, QueueStore},
};

/// Servers of one cluster, as a mover sees them. Each method is one exchange, or a few that belong together; all may be
/// repeated, and be executed after the caller gave up.
///
/// The rule that all rests on: in the same atomic step in which a key is granted, the servers see the marker of its
/// slot open in the epoch of the grant's token. Renewals, releases and looks do not depend on the marker.
pub trait SlotStore: Send + Sync + 'static {
    /// Returns a text that differs from that of any other cluster, and stays.
    fn identity(&self) -> impl Future<Output = Result<String>> + Send;

    /// Returns the markers of all slots that have one, as a majority has them.
    fn markers(&self) -> impl Future<Output = Result<Vec<(Slot, Marker)>>> + Send;

    /// Returns the marker of `slot`, as a majority has it.
    fn marker(&self, slot: Slot) -> impl Future<Output = Result<Option<Marker>>> + Send;

    /// Changes the marker of `slot` from exactly `from` to `to`; returns `false`, and changes nothing, if another is
    /// there. What it wrote is as durable as locks are.
    fn change_marker(
        &self,
        slot: Slot,
        from: Option<&Marker>,
        to: &Marker,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Returns the holds of `slot`, or those of one `key` of it, as a majority has them: whatever may be a hold, and
    /// all copies of holds.
    fn holds(&self, slot: Slot, key: Option<&Key>) -> impl Future<Output = Result<Vec<SlotHold>>> + Send;

    /// Puts copies of holds there, which end only by somebody's hand, if in the same step the marker of `slot` is
    /// `preparing`; else returns `false`. Nobody else has an entry then, so each copy is first in its queue.
    fn put_copies(
        &self,
        slot: Slot,
        preparing: &Marker,
        copies: &[SlotHold],
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Deletes a copy, if it is still there exactly as it was put: not adopted, and of the same move.
    fn drop_copy(&self, slot: Slot, copy: &SlotHold) -> impl Future<Output = Result<()>> + Send;
}

/// A [`QueueStore`] whose slots can move.
pub trait MovableQueue: QueueStore + SlotStore {
    /// Puts the copy of a hold of `claim`'s owner into `session`, if it is there and the slot is open in `epoch`;
    /// `None` if there is none. To repeat it is harmless. If the slot is not open in that epoch, the error comes of
    /// [`NotOpen`](super::NotOpen).
    fn adopt(
        &self,
        session: &Self::Session,
        claim: &Claim,
        epoch: Epoch,
        token: FencingToken,
    ) -> impl Future<Output = Result<Option<Self::Entry>>> + Send;
}

/// A [`LeaseStore`] whose slots can move.
pub trait MovableLease: LeaseStore + SlotStore {
    /// Gives the copy of a hold of `claim`'s owner a lease of the claim's TTL, if it is there and the slot is open in
    /// `epoch`; returns `false` if there certainly is none. To repeat it is harmless. If the slot is not open in that
    /// epoch, the error comes of [`NotOpen`](super::NotOpen).
    fn adopt(&self, claim: &Claim, epoch: Epoch) -> impl Future<Output = Result<bool>> + Send;
}

/// What may be a hold of a key, on one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotHold {
    /// The key.
    pub key: Key,
    /// Whose it is.
    pub owner: OwnerId,
    /// Its token, which it keeps wherever it moves.
    pub token: FencingToken,
    /// Says that this is a copy that was not adopted.
    pub copy: Option<CopyLabel>,
}

/// Where a copy of a hold comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyLabel {
    /// The cluster that has the original.
    pub from: ClusterName,
    /// The move that made the copy.
    pub id: MoveId,
}

impl CopyLabel {
    /// Reads what [`Display`](fmt::Display) writes; `None` if the text is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, id) = text.strip_prefix("copy:")?.split_once(':')?;
        Some(Self { from: from.parse().ok()?, id: id.parse().ok()? })
    }
}

impl fmt::Display for CopyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "copy:{}:{}", self.from, self.id)
    }
}
