//! What the lock promises beside the suite, on real servers that die, freeze, disagree, refuse and answer late.

mod cluster;
mod common;
mod connecting;
mod disagreement;
mod faults;
mod outages;
mod queue;
mod refusals;
mod wire;
