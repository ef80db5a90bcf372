//! Fencing tokens.

use std::fmt;

/// A number that grows from hold to hold of a key: hand it to the resource that the lock protects.
///
/// Tokens of one key are unique, and if acquire A returned before acquire B was called then
/// `token(A) < token(B)`, within the limits that the backend's [`TokenOrder`](crate::TokenOrder) states. The
/// resource keeps the largest token that it saw and refuses smaller ones, **on reads too**: a store that
/// checks writes alone still loses updates. Gaps between tokens mean nothing. A token fits a signed 64-bit
/// column.
///
/// The idea is Chubby's *sequencer* (Burrows, "The Chubby lock service", OSDI 2006, §2.4).
///
/// # Examples
///
/// ```
/// use lock_core::FencingToken;
///
/// let (old, new) = (FencingToken::new(33), FencingToken::new(34));
/// assert!(old < new);
/// assert_eq!(new.get(), 34);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(u64);

impl FencingToken {
    /// Wraps the number that a backend issued.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<FencingToken> for u64 {
    fn from(token: FencingToken) -> Self {
        token.0
    }
}
