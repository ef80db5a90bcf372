//! How the copy of a hold is freed whose original is gone.

use lock_core::{
    Key, Result,
    movable::{Marker, MoveId, Slot, SlotHold},
};

use crate::{cluster::Member, members::Members};

/// Returns whether `original` is still sealed for the move, as it is from before the first copy was made until nothing
/// of the slot is left there. Only then does the absence of a hold there say that it is gone: nothing can appear.
pub(crate) fn is_sealed_for(marker: Option<&Marker>, move_id: MoveId) -> bool {
    matches!(marker, Some(Marker::Sealed { id, .. }) if *id == move_id)
}

/// Frees those of `copies`, all of one move, whose originals are gone; returns how many that were.
///
/// Whoever does it late, or twice, deletes nothing that was adopted, nor a copy of another move.
pub(crate) async fn drain(
    original: &dyn Member,
    at: &dyn Member,
    slot: Slot,
    key: Option<&Key>,
    copies: &[SlotHold],
    move_id: MoveId,
) -> Result<usize> {
    // The marker is read after the holds: if data was lost before, it is not there.
    let holds = original.holds(slot, key).await?;
    if !is_sealed_for(original.marker(slot).await?.as_ref(), move_id) {
        return Ok(0);
    }
    let is_gone =
        |copy: &&SlotHold| !holds.iter().any(|hold| hold.key == copy.key && hold.owner == copy.owner);
    let mut freed = 0;
    for copy in copies.iter().filter(is_gone) {
        at.drop_copy(slot, copy).await?;
        freed += 1;
    }
    Ok(freed)
}

/// Frees what stands before an acquire at a new cluster, if it is a copy whose original is gone: its mover may be dead,
/// or not have come to it yet. Returns whether it did.
pub(crate) async fn drain_key(members: &Members, at: &dyn Member, slot: Slot, key: &Key) -> Result<bool> {
    let copies = at.holds(slot, Some(key)).await?;
    let mut freed = 0;
    for copy in copies.iter().filter(|hold| hold.key == *key) {
        if let Some(label) = &copy.copy {
            let original = members.get(&label.from).await?;
            let one = std::slice::from_ref(copy);
            freed += drain(&*original, at, slot, Some(key), one, label.id).await?;
        }
    }
    Ok(freed > 0)
}
