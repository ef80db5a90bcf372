//! What a backend of sessions and queues must supply.

use std::{
    future::{self, Future},
    time::Duration,
};

use crate::{
    FencingToken, Result,
    backend::{BoxFuture, Claim, Effect, Released, Renewal},
};

/// Servers on which a session carries many locks, and each lock is a queue whose first entry holds it: etcd, ZooKeeper.
/// [`Queued`](crate::backend::Queued) makes a backend of it.
///
/// Each method is one exchange with the servers, or waits to be told something by them. Unless it says otherwise, the
/// caller bounds it with the request timeout and may drop it at any await.
pub trait QueueStore: Send + Sync + 'static {
    /// A session. When it is dropped, no task and no socket of it may be left.
    type Session: Send + Sync + 'static;

    /// An entry that was certainly made.
    type Entry: Send + Sync + 'static;

    /// Opens a session, and returns for how long the servers certainly keep it from the sending of a renewal on.
    fn open(&self) -> impl Future<Output = Result<(Self::Session, Duration)>> + Send;

    /// Renews a session: [`Renewal::Extended`] with the time for which servers keep it now, or [`Renewal::NotOwner`] if
    /// it is over. The answer must come from a majority, not from what one server remembers.
    fn keep_alive(&self, session: &Self::Session) -> impl Future<Output = Result<Renewal>> + Send;

    /// Ends a session that nobody needs any more. If that fails, the servers end it after its TTL.
    fn close(&self, session: &Self::Session) -> impl Future<Output = ()> + Send;

    /// Returns a future that resolves when `session` is known to be over before its TTL has passed; never if the
    /// servers do not tell. It must not keep the session.
    fn over(&self, session: &Self::Session) -> BoxFuture<'static, ()> {
        let _ = session;
        Box::pin(future::pending())
    }

    /// Puts an entry for `claim` at the end of the queue of its key. A claim that does not wait becomes the first or
    /// leaves nothing.
    fn enter(
        &self,
        session: &Self::Session,
        claim: &Claim,
    ) -> impl Future<Output = Result<Entered<Self::Entry>>> + Send;

    /// Waits until `predecessor` is gone, and returns the position then. If it is gone already, returns at once.
    ///
    /// It tells that the entry is the first only if the entry was there when `predecessor` was gone, or after that:
    /// [`gone`](Self::gone) is heard of in another task, and may be late.
    ///
    /// It is not bounded as a whole, so it must bound each of its requests; it is dropped and called again now and
    /// then.
    fn advance(
        &self,
        session: &Self::Session,
        entry: &Self::Entry,
        predecessor: &Predecessor,
    ) -> impl Future<Output = Result<Position>> + Send;

    /// Resolves when `entry` is gone. Not bounded; if it cannot tell any more, it waits for ever.
    fn gone(&self, session: &Self::Session, entry: &Self::Entry) -> impl Future<Output = ()> + Send;

    /// Takes the entry of `claim` away and nothing else; after a success, no request of the claim can have an effect
    /// any more. Without `entry` it is not known whether one was made: [`enter`](Self::enter) may have been executed,
    /// or may be yet. It is repeated until it succeeds or the session is over.
    fn leave(
        &self,
        session: &Self::Session,
        claim: &Claim,
        entry: Option<&Self::Entry>,
    ) -> impl Future<Output = Result<Released>> + Send;

    /// Returns whether `entry` is there, by an answer of a majority that is not older than the call.
    fn verify(
        &self,
        session: &Self::Session,
        entry: &Self::Entry,
    ) -> impl Future<Output = Result<bool>> + Send;
}

/// How the servers answered a claim that enters a queue.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Entered<E> {
    /// It has an entry.
    Queued {
        /// Its entry.
        entry: E,
        /// The token of the hold that it leads to.
        token: FencingToken,
        /// Where it stands.
        position: Position,
    },
    /// It does not wait, and another holds the key.
    Busy(Effect),
    /// The session is over, and the claim has changed nothing.
    SessionOver,
}

/// Where an entry stands in its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Position {
    /// Nobody is before it: it holds the key.
    First,
    /// Somebody is.
    Behind(Predecessor),
    /// The entry is not there any more.
    Gone,
}

/// Who stands directly before an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// Its name on the servers.
    pub name: String,
    /// Whether nobody is before it. It stays so, since entries are made at the end of the queue.
    pub is_first: bool,
}
