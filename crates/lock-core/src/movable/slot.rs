//! The parts of a lock space that move, and how often each has moved.

use std::fmt;

use crate::{Error, ErrorKind, FencingToken, Key, Result};

/// One of the [`COUNT`](Self::COUNT) parts of a lock space. A key belongs to one slot for ever; a slot is open on one
/// cluster at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

impl Slot {
    /// How many slots there are. It can never change, since two programs that count differently would hold one key at
    /// once. `lock-setnx` keeps the counter of its tokens per slot, beside the locks themselves.
    pub const COUNT: usize = 256;

    /// Returns the slot with this number, if there is one.
    #[must_use]
    pub fn new(number: usize) -> Option<Self> {
        u8::try_from(number).ok().map(Self)
    }

    /// Returns all slots in their order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// Returns the slot of `key`.
    ///
    /// If the key has braces with something between them, only what is between the first `{` and the next `}` counts,
    /// so that all keys of one business id share a slot.
    ///
    /// # Examples
    ///
    /// ```
    /// use lock_core::{Key, movable::Slot};
    ///
    /// let slot = |key: &str| Slot::of(&Key::new(key).unwrap());
    /// assert_eq!(slot("{order-42}/stock"), slot("{order-42}/payment"));
    /// ```
    #[must_use]
    pub fn of(key: &Key) -> Self {
        let keep = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}');
        let tag = tag(key.as_str()).and_then(|tag| Key::new(tag).ok());
        let hash = fnv1a(tag.as_ref().unwrap_or(key).percent_encoded(keep).as_bytes());
        Self(u8::try_from(hash % 256).expect("a remainder of 256"))
    }

    /// Returns its number.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

fn tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

/// Returns the 64-bit FNV-1a hash: small, and the same in every version and language that shares the locks.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How often a slot was opened anew: the upper bits of its tokens, so that those of a new cluster are larger than all
/// of the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u16);

impl Epoch {
    /// The last one: with it, a token just fits a signed 64-bit number.
    pub const LAST: Self = Self(1023);

    /// The bits that are left for the cluster's own number.
    const NUMBER_BITS: u32 = 53;

    /// Returns the epoch with this number, if there is one.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        (number <= Self::LAST.0).then_some(Self(number))
    }

    /// Returns the epoch after this one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`]: this is the last one.
    pub fn next(self) -> Result<Self> {
        Self::new(self.0 + 1).ok_or_else(|| {
            let message =
                format!("the slot was moved {} times, and no epoch is left for another move", self.0);
            Error::new(ErrorKind::Unsupported, message).without_effect()
        })
    }

    /// Returns its number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }

    /// Returns the token of a hold that the cluster gave this `number` in this epoch. In epoch 0 it is that number.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnsafeConfig`]: the number is 2⁵³ or more, so that it would reach into the epoch.
    pub fn token(self, number: FencingToken) -> Result<FencingToken> {
        if number.get() >> Self::NUMBER_BITS != 0 {
            let message = format!(
                "the cluster counts its tokens beyond 2^53 ({number}); such a cluster cannot share slots"
            );
            return Err(Error::new(ErrorKind::UnsafeConfig, message));
        }
        Ok(FencingToken::new(u64::from(self.0) << Self::NUMBER_BITS | number.get()))
    }

    /// Returns the cluster's own number in a token.
    #[must_use]
    pub fn number_in(token: FencingToken) -> u64 {
        token.get() & ((1 << Self::NUMBER_BITS) - 1)
    }

    /// Returns the epoch in which a token was given.
    #[must_use]
    pub fn of(token: FencingToken) -> Self {
        Self(u16::try_from(token.get() >> Self::NUMBER_BITS).unwrap_or(u16::MAX))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(key: &str) -> usize {
        Slot::of(&Key::new(key).unwrap()).index()
    }

    #[test]
    fn slots_stay_as_they_are() {
        // Changing these would let two versions of a program hold one lock at once.
        assert_eq!((slot("orders/42"), slot("{}a"), slot("a{b}{c}")), (0xdf, slot("{}a"), slot("b")));
        assert_eq!(slot("{a}b\r\n%"), slot("a"));
        assert_eq!(slot("a"), 0x8c, "the last byte of a published test vector of FNV-1a");
    }

    #[test]
    fn a_token_of_a_later_epoch_is_larger_and_fits_a_signed_column() {
        let largest = FencingToken::new((1 << 53) - 1);
        let (old, new) = (Epoch(1).token(largest).unwrap(), Epoch(2).token(FencingToken::new(1)).unwrap());
        assert!(old < new && Epoch::of(old) == Epoch(1) && Epoch::of(new) == Epoch(2));
        assert_eq!((Epoch::number_in(old), Epoch::number_in(new)), (largest.get(), 1));
        assert_eq!(Epoch(0).token(FencingToken::new(7)).unwrap().get(), 7);
        assert_eq!(Epoch::LAST.token(largest).unwrap().get(), i64::MAX.unsigned_abs());
        assert!(Epoch(0).token(FencingToken::new(1 << 53)).is_err());
        assert!(Epoch::LAST.next().is_err());
    }
}
