#![doc = include_str!("../README.md")]

mod clock;
mod error;
mod key;
mod token;

mod options;
mod validity;

mod capabilities;
mod guard;
mod locker;
mod retrying;

mod any;

mod attempt;
pub mod backend;
mod background;
mod hold;
mod leased;
mod local_waiters;
#[cfg(feature = "movable")]
pub mod movable;
mod newtypes;
mod queue_store;
mod queued;
mod session;
mod shared;
mod store;
mod waiting;

pub use any::AnyLocker;
pub use capabilities::{Capabilities, Scope, TokenOrder, Waiting};
pub use error::{Error, ErrorKind, Result};
pub use guard::LockGuard;
pub use key::Key;
pub use locker::Locker;
pub use options::Options;
pub use retrying::{Backoff, Retrying};
pub use token::FencingToken;
pub use validity::LossReason;
