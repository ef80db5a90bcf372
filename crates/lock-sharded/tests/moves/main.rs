//! What moves of slots keep, on real clusters.

mod common;
mod etcd;
mod history;
mod large;
mod losses;
mod promises;
mod redlock;
mod setnx;
mod soak;
mod zk;
