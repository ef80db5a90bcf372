#![doc = include_str!("../README.md")]

mod cluster;
mod drain;
mod hold;
mod locker;
mod map;
mod members;
mod mover;
mod relocation;
mod routing;
mod shared;
mod source;

pub use lock_core::{
    self, AnyLocker, Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Locker, Options, Result,
    movable::{ClusterName, Epoch, Marker, MoveId, Slot},
};

pub use crate::{
    cluster::Cluster,
    locker::{ShardedBackend, ShardedLocker},
    map::{ShardMap, Slots},
    mover::*,
    source::MapSource,
};
