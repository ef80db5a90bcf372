//! What a client believes of the slots of one cluster.

use std::{
    array, fmt,
    sync::atomic::{AtomicU16, Ordering},
};

use super::{Epoch, Marker, Slot};

/// The epoch in which each slot was last seen open on one cluster: what requests are sent with. Servers compare, so a
/// wrong one costs a round trip and nothing else.
pub struct OpenEpochs([AtomicU16; Slot::COUNT]);

/// In place of the epoch of a slot that was not seen open.
const NOT_SEEN: u16 = u16::MAX;

impl OpenEpochs {
    /// Returns the epoch to send with a request: the first one, if the slot was not seen open.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Epoch {
        self.seen(slot).unwrap_or_default()
    }

    /// Returns the epoch in which the slot was certainly seen open, if it was, and not [forgotten](Self::forget).
    #[must_use]
    pub fn seen(&self, slot: Slot) -> Option<Epoch> {
        Epoch::new(self.0[slot.index()].load(Ordering::Relaxed))
    }

    /// Says that the slot was seen open in no epoch.
    pub fn forget(&self, slot: Slot) {
        self.0[slot.index()].store(NOT_SEEN, Ordering::Relaxed);
    }

    /// Learns from a marker that did not compare as equal with what was `sent`. Returns whether the slot is open in
    /// another epoch, with which the request may be sent again.
    pub fn learn(&self, slot: Slot, sent: Epoch, marker: Option<&Marker>) -> bool {
        let Some(epoch) = marker.and_then(Marker::open) else { return false };
        self.0[slot.index()].store(epoch.number(), Ordering::Relaxed);
        epoch != sent
    }
}

impl Default for OpenEpochs {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU16::new(NOT_SEEN)))
    }
}

impl fmt::Debug for OpenEpochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenEpochs").finish_non_exhaustive()
    }
}
