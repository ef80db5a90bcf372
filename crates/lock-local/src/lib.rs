#![doc = include_str!("../README.md")]

mod blocking;
mod local;
mod locker;
mod queues;
mod sync;

pub use local::LocalBackend;
pub use lock_core::{
    self, AnyLocker, Backoff, Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Locker, Result,
};
pub use locker::LocalLocker;
