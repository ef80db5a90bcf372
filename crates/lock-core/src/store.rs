//! What a backend of leases must supply: one request each to acquire, renew, release and inspect.

use std::{fmt, future::Future, ops::Deref, time::Duration};

use futures_util::future::join_all;
use rand::{TryRng, rngs::SysRng};

use crate::{
    Capabilities, FencingToken, Key, Result,
    backend::{BootInstant, Effect},
};

/// The servers behind a lock, seen as a keeper of leases. [`Leased`](crate::backend::Leased) makes a backend of it.
///
/// Each method is one exchange with the servers. The caller bounds it with the request timeout and may drop it at
/// any await; a method never retries past an outcome that it does not know.
///
/// # Examples
///
/// ```
/// use lock_core::{
///     Capabilities, FencingToken, Result, Scope, TokenOrder, Waiting,
///     backend::{AcquireReply, Claim, LeaseStore, Released, Renewal},
/// };
///
/// /// Servers that grant everything at once, which no lock should be made of.
/// struct Generous;
///
/// impl LeaseStore for Generous {
///     fn capabilities(&self) -> Capabilities {
///         Capabilities::new(Scope::Servers, Waiting::Never, TokenOrder::Locker)
///     }
///     async fn acquire(&self, claim: &Claim) -> Result<AcquireReply> {
///         Ok(AcquireReply::Granted { token: FencingToken::new(1), ttl: claim.ttl() })
///     }
///     async fn renew(&self, claim: &Claim) -> Result<Renewal> {
///         Ok(Renewal::Extended(claim.ttl()))
///     }
///     async fn release(&self, _: &Claim) -> Result<Released> {
///         Ok(Released::Freed)
///     }
///     async fn undo(&self, _: &Claim) -> Result<()> {
///         Ok(())
///     }
///     async fn verify(&self, _: &Claim) -> Result<bool> {
///         Ok(true)
///     }
/// }
/// ```
pub trait LeaseStore: Send + Sync + 'static {
    /// Returns what it can do and what it promises.
    fn capabilities(&self) -> Capabilities;

    /// Makes `claim` the holder of its key if nobody is.
    ///
    /// If the same claim arrives twice, the second time must not be refused. A claim that was [`Queued`] is sent again
    /// each time that its waiter looks.
    ///
    /// [`Queued`]: AcquireReply::Queued
    fn acquire(&self, claim: &Claim) -> impl Future<Output = Result<AcquireReply>> + Send;

    /// Sets the lease of `claim` back to its full TTL, if `claim` still holds its key. Never creates anything.
    fn renew(&self, claim: &Claim) -> impl Future<Output = Result<Renewal>> + Send;

    /// Returns how many claims at most are renewed with one request; one by default.
    fn renews_at_once(&self) -> usize {
        1
    }

    /// Renews several claims, no more than [`renews_at_once`](Self::renews_at_once), and returns an answer for each in
    /// their order. They have one limit of time. After an error that is not transient a claim is renewed alone, since
    /// another of them may have been the cause.
    ///
    /// By default each is renewed by [`renew`](Self::renew), which will do for one.
    fn renew_all(&self, claims: &[&Claim]) -> impl Future<Output = Vec<Result<Renewal>>> + Send {
        async { join_all(claims.iter().map(|claim| self.renew(claim))).await }
    }

    /// Frees the key if `claim` holds it, and touches nothing otherwise.
    fn release(&self, claim: &Claim) -> impl Future<Output = Result<Released>> + Send;

    /// Releases whatever an acquire of `claim` left or may still leave on any server, after every request of it
    /// that is still under way. The claim is never used for an acquire again.
    fn undo(&self, claim: &Claim) -> impl Future<Output = Result<()>> + Send;

    /// Returns whether `claim` holds its key, by an answer that is not older than the call.
    fn verify(&self, claim: &Claim) -> impl Future<Output = Result<bool>> + Send;
}

/// One attempt to hold a key: the key, and an owner id that no other attempt has or will have.
#[derive(Clone, Debug)]
pub struct Claim {
    key: Key,
    owner: OwnerId,
    ttl: Duration,
    waits: bool,
    begun: BootInstant,
    started: BootInstant,
}

impl Claim {
    // Nobody outside this crate makes a claim, so that none goes without its undo.
    pub(crate) fn new(key: Key, ttl: Duration, waits: bool) -> Self {
        let begun = BootInstant::now();
        Self { key, owner: OwnerId::random(), ttl, waits, begun, started: begun }
    }

    /// Makes it a claim that is about to be sent again, from its place in a queue.
    pub(crate) fn restarted(&self) -> Self {
        Self { started: BootInstant::now(), ..self.clone() }
    }

    /// Makes a claim for what `owner` holds already, elsewhere.
    #[cfg(feature = "movable")]
    pub(crate) fn adopting(key: Key, owner: OwnerId, ttl: Duration) -> Self {
        let begun = BootInstant::now();
        Self { key, owner, ttl, waits: false, begun, started: begun }
    }

    /// Returns the key that is claimed.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Returns whose claim it is.
    #[must_use]
    pub fn owner(&self) -> OwnerId {
        self.owner
    }

    /// Returns the TTL to ask for, in whole milliseconds.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Returns an instant before the first byte of the last attempt was sent. The lease counts from here.
    #[must_use]
    pub fn started(&self) -> BootInstant {
        self.started
    }

    /// Returns an instant before the first byte of anything was sent. It differs from [`started`](Self::started) if the
    /// claim stood in a queue.
    #[must_use]
    pub fn begun(&self) -> BootInstant {
        self.begun
    }

    /// Returns whether the claimant, if refused, is going to wait to be told of the release.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.waits
    }
}

/// A random 128-bit number, fresh for each attempt; shown as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnerId(u128);

impl OwnerId {
    /// Makes an id that no other has.
    ///
    /// The system's own generator is asked each time: a copy of a generator's state, as a forked child has, would
    /// repeat ids.
    fn random() -> Self {
        let mut bytes = [0; 16];
        SysRng.try_fill_bytes(&mut bytes).expect("the system has a source of randomness");
        Self(u128::from_ne_bytes(bytes))
    }

    /// Reads what [`Display`](fmt::Display) writes, as servers have it.
    #[cfg(feature = "movable")]
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32).map(Self)
    }
}

impl OwnerId {
    /// Returns the 32 hex digits, without a text being allocated.
    #[must_use]
    pub fn hex(self) -> OwnerHex {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 32];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0.to_be_bytes()) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        OwnerHex(hex)
    }
}

/// The 32 hex digits of an [`OwnerId`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OwnerHex([u8; 32]);

impl Deref for OwnerHex {
    type Target = str;

    fn deref(&self) -> &str {
        str::from_utf8(&self.0).expect("hex digits are text")
    }
}

impl fmt::Debug for OwnerHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerId({self})")
    }
}

/// How the servers answered an acquire.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AcquireReply {
    /// The claim holds the key.
    Granted {
        /// The token of this hold.
        token: FencingToken,
        /// The TTL that was granted, which may differ from the one asked for.
        ttl: Duration,
    },
    /// Another holds the key.
    Busy {
        /// When the holder's lease will end unless it is renewed.
        free_in: Duration,
        /// Whether the attempt may have left anything on a server, which is then undone.
        effect: Effect,
    },
    /// Another holds the key, and the claim, which waits, has a place in the servers' queue until it is undone. When it
    /// is its turn the same claim is sent again.
    Queued {
        /// When to look again at the latest.
        free_in: Duration,
    },
}

/// How the servers answered a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Renewal {
    /// The lease now lasts this long from the arrival of the request.
    Extended(Duration),
    /// The claim does not hold the key.
    NotOwner,
}

impl Renewal {
    /// Returns what it is that a claim was `renewed` for its `ttl`, or was not.
    #[must_use]
    pub fn of(renewed: bool, ttl: Duration) -> Self {
        if renewed { Self::Extended(ttl) } else { Self::NotOwner }
    }
}

/// How the servers answered a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Released {
    /// The claim held the key until this request.
    Freed,
    /// It did not. Nothing was changed.
    NotOwner,
}
