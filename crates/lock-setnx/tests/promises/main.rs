//! What the lock promises beside the suite, on real servers that die, freeze, refuse, forget and fall silent.

mod flavours;
mod outages;
mod queue;
mod refusals;
mod renewals;
#[cfg(feature = "movable")]
mod slots;
mod waiting;
mod wire;
