//! A keyed, in-process lock that is tried and never waited for.
//!
#![doc = include_str!("../README.md")]

mod held;
mod locker;

pub use held::Try;
pub use lock_core::{
    AnyLocker, Backoff, Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Locker, Result,
    Retrying,
};
pub use locker::TryLocker;
