#![doc = include_str!("../README.md")]

mod clock;
mod error;
mod key;
mod token;

mod options;
mod validity;

mod guard;

mod backend;
mod locker;
mod retrying;

mod any;

mod keeper;
mod leased;
mod store;
mod waiting;

pub use any::AnyLocker;
pub use backend::{Backend, Capabilities, Scope, TokenOrder, Waiting, WaitingBackend};
pub use clock::BootInstant;
pub use error::{Error, ErrorKind, Result};
pub use guard::{BoxFuture, Hold, InProcessHold, LockGuard, Release};
pub use key::Key;
pub use leased::{Attempt, Attempts, Leased, Outcome};
pub use locker::Locker;
pub use options::{Options, Terms};
pub use retrying::{Backoff, Retrying};
pub use store::{Claim, LeaseStore, OwnerId, Released, Renewal, Verdict, WaitingStore};
pub use token::FencingToken;
pub use validity::{LossReason, Validity};
pub use waiting::Bell;
