//! What lock-zk promises, on real ZooKeepers.

mod background;
mod common;
mod ensemble;
mod losses;
mod numbers;
mod refusals;
mod timeouts;
#[cfg(feature = "tls")]
mod tls;
mod wire;
