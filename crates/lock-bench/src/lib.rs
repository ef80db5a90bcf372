//! Measures the locks of this workspace beside the floor of their protocols and beside other libraries.
//!
//! A *setup* is a kind of server: one Redis, five, etcd, ZooKeeper, or none. A *subject* is a lock on it: ours, a
//! peer, or the floor, which is the fewest requests that the protocol needs. A *case* drives all subjects of a setup
//! with one load, in turns, round after round, so that what disturbs one disturbs all; what is compared are ratios
//! within rounds.

pub mod agent;
pub mod bench;
pub mod burden;
pub mod choose;
pub mod clock;
pub mod growth;
pub mod load;
pub mod lock;
pub mod locks;
pub mod page;
pub mod plot;
pub mod reading;
pub mod results;
pub mod sample;
pub mod setup;
pub mod stats;
pub mod table;
pub mod targets;
