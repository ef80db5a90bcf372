//! How far a move is, as the markers of its two clusters say.

use std::sync::Arc;

use lock_core::{
    Error, ErrorKind, Result,
    movable::{ClusterName, Epoch, Marker, MoveId, Slot},
};

use super::{Mover, report::SlotStatus};
use crate::cluster::Member;

/// A move that was begun, by whomever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotMove {
    /// What moves.
    pub slot: Slot,
    /// The old cluster.
    pub from: ClusterName,
    /// The new cluster.
    pub to: ClusterName,
    /// The epoch on the new cluster.
    pub next: Epoch,
    /// The move.
    pub id: MoveId,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was done yet.
    Planned,
    /// The new cluster prepares; the old one still grants.
    Prepared,
    /// The old cluster is sealed and the new one not open: free keys are refused.
    Sealed,
    /// The new cluster grants; some holds may still be on the old one.
    Opened,
    /// It is done.
    Done,
    /// It was given up before the new cluster was open; the old one may have to be opened again.
    Cancelled,
    /// The old cluster was opened in a later epoch, after it had lost its data: the move cannot go on.
    Overtaken,
    /// The new cluster was opened in a later epoch than that of the move, after it had lost its data: what is left on
    /// the old one ends there.
    Superseded,
}

/// A move with its two clusters, connected.
pub(super) struct Pair {
    pub(super) what: SlotMove,
    pub(super) old: Arc<dyn Member>,
    pub(super) new: Arc<dyn Member>,
}

/// What both clusters say of the slot.
pub(super) struct Markers {
    pub(super) old: Option<Marker>,
    pub(super) new: Option<Marker>,
}

impl Pair {
    pub(super) async fn of(mover: &Mover, what: SlotMove) -> Result<Self> {
        let (old, new) = (mover.members.get(&what.from).await?, mover.members.get(&what.to).await?);
        Ok(Self { what, old, new })
    }

    pub(super) async fn markers(&self) -> Result<Markers> {
        let slot = self.what.slot;
        let (old, new) = tokio::try_join!(self.old.marker(slot), self.new.marker(slot))?;
        Ok(Markers { old, new })
    }

    /// Returns how far the move is.
    ///
    /// # Errors
    ///
    /// The markers are of no stage of this move: it was given up, another move came first, or data was lost.
    pub(super) fn stage(&self, markers: &Markers) -> Result<Stage> {
        let SlotMove { next, id, slot, .. } = self.what;
        let is_sealed = matches!(&markers.old, Some(Marker::Sealed { id: of, .. }) if *of == id);
        let is_open = matches!(&markers.old, Some(Marker::Open { epoch }) if *epoch < next);
        let is_overtaken = matches!(&markers.old, Some(Marker::Open { epoch }) if *epoch > next);
        let is_left = matches!(&markers.old, Some(Marker::Moved { to, .. }) if *to == self.what.to);
        let stage = match &markers.new {
            Some(Marker::Open { epoch }) if *epoch == next && is_sealed => Stage::Opened,
            Some(Marker::Open { epoch }) if *epoch >= next && is_left => Stage::Done,
            Some(Marker::Open { epoch }) if *epoch > next && is_sealed => Stage::Superseded,
            Some(Marker::Preparing { id: of, .. }) if *of == id && is_sealed => Stage::Sealed,
            Some(Marker::Preparing { id: of, .. }) if *of == id && is_open => Stage::Prepared,
            Some(Marker::Preparing { id: of, .. }) if *of == id && is_overtaken => Stage::Overtaken,
            Some(Marker::Cancelled { id: of, .. }) if *of == id => Stage::Cancelled,
            new if is_open && new.as_ref().is_none_or(|new| is_at_rest(new, next)) => Stage::Planned,
            _ => {
                let said =
                    |marker: &Option<Marker>| marker.as_ref().map_or("nothing".to_owned(), Marker::to_string);
                let message = format!(
                    "slot {slot} is not in move {id} from {} to {}: the old cluster says {:?}, the new one {:?}; was \
                     it given up, or was data lost? see `lock-shards verify`",
                    self.what.from,
                    self.what.to,
                    said(&markers.old),
                    said(&markers.new)
                );
                return Err(Error::new(ErrorKind::UnsafeConfig, message).without_effect());
            }
        };
        Ok(stage)
    }
}

/// Returns whether a slot can be prepared on a cluster that says this.
fn is_at_rest(marker: &Marker, next: Epoch) -> bool {
    matches!(marker, Marker::Cancelled { .. } | Marker::Moved { .. }) && marker.epoch() < next
}

/// Returns the move that the markers of a slot tell of, if one is not finished.
pub(super) fn unfinished(status: &SlotStatus) -> Option<SlotMove> {
    let slot = status.slot;
    let sealed = status.markers.iter().find_map(|(name, marker)| match marker {
        Marker::Sealed { to, next, id, .. } => {
            Some(SlotMove { slot, from: name.clone(), to: to.clone(), next: *next, id: *id })
        }
        _ => None,
    });
    let prepared = status.markers.iter().find_map(|(name, marker)| match marker {
        Marker::Preparing { epoch, from, id } => {
            Some(SlotMove { slot, from: from.clone(), to: name.clone(), next: *epoch, id: *id })
        }
        _ => None,
    });
    sealed.or(prepared)
}
