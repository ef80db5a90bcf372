//! What the lock promises beside the suite, on real servers that die, freeze, forget and answer late.

mod contention;
mod memory;
mod outages;
mod queue;
mod refusals;
mod renewals;
mod set;
#[cfg(feature = "movable")]
mod slots;
mod snapshots;
mod wire;
