//! What the lock promises beside the suite, on real servers that die, freeze, forget and answer late.

mod contention;
mod memory;
mod outages;
mod refusals;
mod set;
mod snapshots;
mod wire;
