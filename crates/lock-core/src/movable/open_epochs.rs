//! What a client believes of the slots of one cluster.

use std::{
    array, fmt,
    sync::atomic::{AtomicU16, Ordering},
};

use super::{Epoch, Marker, Slot};

/// The epoch in which each slot was last seen open on one cluster: what requests are sent with. Servers compare, so a
/// wrong one costs a round trip and nothing else.
pub struct OpenEpochs([AtomicU16; Slot::COUNT]);

impl OpenEpochs {
    /// Returns the epoch to send with a request.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Epoch {
        Epoch::new(self.0[slot.index()].load(Ordering::Relaxed)).unwrap_or_default()
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
        Self(array::from_fn(|_| AtomicU16::new(0)))
    }
}

impl fmt::Debug for OpenEpochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenEpochs").finish_non_exhaustive()
    }
}
