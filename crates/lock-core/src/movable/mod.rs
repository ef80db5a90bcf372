//! What lets a lock space be spread over several clusters, and slots of it move between them while their locks are
//! held and awaited. Users see `lock-sharded`, which is made of this.
//!
//! A backend takes part by [`SlotStore`], which a mover works with, and by [`MovableQueue`] or [`MovableLease`], by
//! which a holder takes its hold over on the new cluster.

mod adoption;
mod marker;
mod open_epochs;
mod slot;
mod store;

pub use self::{
    adoption::{Adoption, MovableBackend, hold_of},
    marker::{ClusterName, Marker, MoveId, NotOpen},
    open_epochs::OpenEpochs,
    slot::{Epoch, Slot},
    store::{CopyLabel, MovableLease, MovableQueue, SlotHold, SlotStore},
};
