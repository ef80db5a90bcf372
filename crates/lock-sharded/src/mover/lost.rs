//! What is left to do when a cluster or its data is gone for good.

use std::time::Duration;

use lock_core::{
    Error, ErrorKind, Result,
    movable::{ClusterName, Epoch, Marker, MoveId, Slot},
};
use tokio::time;

use super::{
    Mover,
    report::{Event, Observer},
    state::SlotMove,
};
use crate::cluster::Member;

impl Mover {
    /// Opens a slot on `to` without the cluster that has it, or that had it and lost its data.
    ///
    /// It waits first until every lease of `longest_ttl` that anybody may have there would have ended. **Who still
    /// reaches the old cluster, and renews there, goes on believing**: make sure that it is off, and stays off. Only
    /// fencing tokens protect from it. Holds that were copied and not adopted are freed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: a cluster that answers has the slot, or holds of it: move the slot, or open it
    /// there. [`ErrorKind::Unavailable`]: `to` does not answer. [`ErrorKind::Unsupported`]: no epoch is left.
    ///
    /// # Cancel safety
    ///
    /// To be called again; it then waits again.
    pub async fn force(
        &self,
        slot: Slot,
        to: &ClusterName,
        longest_ttl: Duration,
        observer: &dyn Observer,
    ) -> Result<Epoch> {
        let map = self.map().await?;
        let status = self.status_of(slot).await?;
        if let Some(open) = status.open().find(|open| *open != to) {
            let message =
                format!("slot {slot} is open on {open}, which answers; move it, or abort or resume its move");
            return Err(Error::new(ErrorKind::InvalidInput, message).without_effect());
        }
        let target = self.members.get(to).await?;
        let present = target.marker(slot).await?;
        if let Some(epoch) = present.as_ref().and_then(Marker::open) {
            wait_out(slot, longest_ttl, observer).await;
            self.free_copies(slot, &*target).await?;
            return Ok(epoch);
        }
        let known = status.markers.iter().flat_map(|(_, marker)| match marker {
            Marker::Sealed { next, .. } => [marker.epoch(), *next],
            _ => [marker.epoch(); 2],
        });
        // One more than the epoch in which the slot may have been opened unseen.
        let last = known.max().unwrap_or_default().max(map.epoch(slot));
        let next = last.next()?.next()?;
        let preparing = Marker::Preparing { epoch: next, from: map.home(slot).clone(), id: MoveId::random() };
        for (name, marker) in status.markers.iter().filter(|(name, _)| name != to) {
            self.take_out(slot, name, marker, to).await?;
        }
        if !target.change_marker(slot, present.as_ref(), &preparing).await? {
            return Err(changed(slot));
        }
        wait_out(slot, longest_ttl, observer).await;
        self.free_copies(slot, &*target).await?;
        if !target.change_marker(slot, Some(&preparing), &Marker::Open { epoch: next }).await? {
            return Err(changed(slot));
        }
        self.tell_map(|map| map.set_home(slot, to.clone(), next)).await;
        observer.tell(&Event::Done { slot });
        Ok(next)
    }

    /// Takes a cluster out of a move that cannot go on, since `home` has the slot: else whoever goes on with the move,
    /// or gives it up, would open a second cluster.
    async fn take_out(
        &self,
        slot: Slot,
        at: &ClusterName,
        present: &Marker,
        home: &ClusterName,
    ) -> Result<()> {
        let member = self.members.get(at).await?;
        let out = match present {
            Marker::Preparing { epoch, id, .. } => Marker::Cancelled { epoch: *epoch, id: *id },
            Marker::Sealed { epoch, .. } => {
                // That there are none on a sealed cluster stays so.
                let left = member.holds(slot, None).await?.len();
                if left > 0 {
                    let message = format!(
                        "{at} answers and has {left} holds of slot {slot}, of which {home} knows nothing: open the \
                         slot on {at}, or wait until they have ended"
                    );
                    return Err(Error::new(ErrorKind::InvalidInput, message).without_effect());
                }
                Marker::Moved { epoch: *epoch, to: home.clone() }
            }
            Marker::Open { .. } | Marker::Cancelled { .. } | Marker::Moved { .. } => return Ok(()),
        };
        if member.change_marker(slot, Some(present), &out).await? { Ok(()) } else { Err(changed(slot)) }
    }

    /// Ends a move if a third cluster has the slot open in a later epoch than the move knows: it was forced open while
    /// the old one was away. Returns whether it did.
    pub(super) async fn is_left_behind(&self, what: &SlotMove) -> Result<bool> {
        let status = self.status_of(what.slot).await?;
        let is_third = |name: &ClusterName| *name != what.from && *name != what.to;
        let is_later = |marker: &Marker| marker.open().is_some_and(|epoch| epoch > what.next);
        let home = status.markers.iter().find(|(name, marker)| is_third(name) && is_later(marker));
        let Some((home, _)) = home else { return Ok(false) };
        for (name, marker) in status.markers.iter().filter(|(_, marker)| marker.id() == Some(what.id)) {
            self.take_out(what.slot, name, marker, home).await?;
        }
        Ok(true)
    }

    /// Frees the copies that nobody adopted. Their originals must not be there to be asked.
    async fn free_copies(&self, slot: Slot, at: &dyn Member) -> Result<()> {
        for hold in at.holds(slot, None).await? {
            let Some(label) = &hold.copy else { continue };
            let original = match self.members.get(&label.from).await {
                Ok(member) => member.marker(slot).await.unwrap_or(None),
                Err(_) => None,
            };
            if matches!(&original, Some(Marker::Sealed { id, .. }) if *id == label.id) {
                let message = format!("{} answers and knows whose holds stand; resume the move", label.from);
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            at.drop_copy(slot, &hold).await?;
        }
        Ok(())
    }

    /// Closes a slot on a cluster that was given up with [`force`](Self::force) and has come back, if another cluster
    /// has it open in a later epoch; returns whether it did.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]: a cluster does not answer.
    ///
    /// # Cancel safety
    ///
    /// To be called again.
    pub async fn retire(&self, slot: Slot, at: &ClusterName) -> Result<bool> {
        let status = self.status_of(slot).await?;
        let of =
            |name: &ClusterName| status.markers.iter().find(|(at, _)| at == name).map(|(_, marker)| marker);
        let Some(present) = of(at) else { return Ok(false) };
        let later =
            status.open().find(|open| *open != at && of(open).is_some_and(|it| it.epoch() > present.epoch()));
        let Some(later) = later else { return Ok(false) };
        if matches!(present, Marker::Moved { .. }) {
            return Ok(false);
        }
        let gone = Marker::Moved { epoch: present.epoch(), to: later.clone() };
        self.members.get(at).await?.change_marker(slot, Some(present), &gone).await
    }
}

fn changed(slot: Slot) -> Error {
    Error::new(ErrorKind::Unavailable, format!("slot {slot} was changed by another mover meanwhile"))
}

/// Waits until no lease can be left that began before.
async fn wait_out(slot: Slot, longest_ttl: Duration, observer: &dyn Observer) {
    let wait = longest_ttl.mul_f64(1.02) + Duration::from_secs(1);
    let reason = format!("all leases of {longest_ttl:?} must have ended: {wait:?}");
    observer.tell(&Event::Waiting { slot, reason });
    time::sleep(wait).await;
}
