//! What those need who write a backend: traits to implement, and what lock-core makes of them.
//!
//! [`Backend`] is the whole of it: acquire a key, return a guard. Few implement it themselves. A server that keeps a
//! lease for each lock becomes a backend through [`LeaseStore`] and [`Leased`]; one that keeps sessions, and queues in
//! them, through [`QueueStore`] and [`Queued`].

use std::future::Future;

use crate::{Capabilities, Key, LockGuard, Result};

pub use crate::{
    any::AnyBackend,
    attempt::Outcome,
    background::{present_runtime, runtime_ended},
    clock::BootInstant,
    error::Effect,
    guard::{BoxFuture, Hold, InProcessHold, Release},
    leased::Leased,
    options::LeaseTiming,
    queue_store::{Entered, Position, Predecessor, QueueStore},
    queued::Queued,
    shared::SharedAttempt,
    store::{AcquireReply, Claim, LeaseStore, OwnerHex, OwnerId, Released, Renewal},
    validity::Validity,
    waiting::{Acquirer, ReleaseListener, WaitingStore},
};

/// A lock implementation that can be tried. Users see the [`Locker`](crate::Locker) around it.
pub trait Backend: Send + Sync + 'static {
    /// Returns what it can do and what it promises; the conformance suite holds it to this.
    fn capabilities(&self) -> Capabilities;

    /// Acquires `key` if it is free, and never waits for another holder: busy is `Ok(None)`.
    ///
    /// Must be cancel safe: whatever a dropped future left anywhere is undone in the background.
    fn try_lock(&self, key: Key) -> impl Future<Output = Result<Option<LockGuard>>> + Send;

    /// Refuses new acquires from now on and waits until nothing is left to undo.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// A backend that can wait until a key is free.
pub trait WaitingBackend: Backend {
    /// Acquires `key`, waiting as long as another holds it.
    ///
    /// Must be cancel safe, as [`try_lock`](Backend::try_lock) must.
    fn lock(&self, key: Key) -> impl Future<Output = Result<LockGuard>> + Send;
}
