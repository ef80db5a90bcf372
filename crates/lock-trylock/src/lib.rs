#![doc = include_str!("../README.md")]

mod held;
mod locker;

pub use held::TryBackend;
pub use lock_core::{
    self, AnyLocker, Backoff, Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Locker, Result,
    Retrying,
};
pub use locker::TryLocker;
