//! What every lock of this workspace shares: keys, guards, fencing tokens, leases and errors.
//!
//! You rarely depend on this crate alone: a backend crate (`lock-local`, `lock-trylock`, `lock-setnx`, …)
//! gives you a [`Locker`], and re-exports what you need from here.
//!
//! # Two promises, kept apart
//!
//! - **Exclusion of belief**: no two holders believe at one instant that they hold one key, as long as
//!   clock rates differ by no more than [`Options::with_drift`] and the servers keep what they acknowledged.
//!   [`LockGuard::is_held`] is computed from a clock that counts suspend; it needs no I/O and no task.
//! - **Fenced effects**: the [`FencingToken`]s of one key are unique, and if acquire A returned before
//!   acquire B was called then `token(A) < token(B)`. A resource that checks the token on reads *and* writes
//!   is safe with no assumption about clocks at all.
//!
//! # What is not promised
//!
//! No lock service can stop a paused process from acting late: between a check of
//! [`is_held`](LockGuard::is_held) and the effect that follows it, any time may pass. Only a token that the
//! resource checks protects the effect itself.
//!
//! # For those who write a backend
//!
//! A backend is a [`Backend`], and also a [`WaitingBackend`] if it can wait. A backend whose locks are leases
//! on a server implements the smaller [`LeaseStore`] and is wrapped in [`Leased`], which supplies deadlines,
//! renewal, undo of abandoned attempts and release in the background.

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
pub use guard::{BoxFuture, Hold, LockGuard, Release};
pub use key::Key;
pub use leased::{Attempt, Attempts, Leased, Outcome};
pub use locker::Locker;
pub use options::{Options, Terms};
pub use retrying::{Backoff, Retrying};
pub use store::{Claim, LeaseStore, OwnerId, Released, Renewal, Verdict, WaitingStore};
pub use token::FencingToken;
pub use validity::{LossReason, Validity};
pub use waiting::Bell;
