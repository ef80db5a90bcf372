//! What a cluster says of a slot, and the refusal of whoever wants a key of a slot that is not open there.

use std::{error::Error as StdError, fmt, str::FromStr, sync::Arc};

use rand::RngExt;

use super::{Epoch, Slot};
use crate::{Error, ErrorKind, Result, backend::Effect};

/// What one cluster says of one slot. Where there is none, nothing is granted.
///
/// It is kept as a line of text, and changed only by comparing with the whole line that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Keys of the slot are granted here.
    Open {
        /// That of the tokens.
        epoch: Epoch,
    },
    /// Nothing is granted here any more; holds that there are live on.
    Sealed {
        /// That in which the slot was open here.
        epoch: Epoch,
        /// Where it moves.
        to: ClusterName,
        /// That in which it will be open there.
        next: Epoch,
        /// The move.
        id: MoveId,
    },
    /// Nothing is granted here yet; holds are being copied to it.
    Preparing {
        /// That in which it will be open here.
        epoch: Epoch,
        /// Where it comes from.
        from: ClusterName,
        /// The move.
        id: MoveId,
    },
    /// A move to here was given up.
    Cancelled {
        /// That in which it would have been open here.
        epoch: Epoch,
        /// The move.
        id: MoveId,
    },
    /// It has moved from here, and nothing of it is left.
    Moved {
        /// That in which it was open here.
        epoch: Epoch,
        /// Where it went.
        to: ClusterName,
    },
}

impl Marker {
    /// Returns the epoch that it names; those of one cluster only grow.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::Open { epoch }
            | Self::Sealed { epoch, .. }
            | Self::Preparing { epoch, .. }
            | Self::Cancelled { epoch, .. }
            | Self::Moved { epoch, .. } => *epoch,
        }
    }

    /// Returns the move under way here, if there is one.
    #[must_use]
    pub fn id(&self) -> Option<MoveId> {
        match self {
            Self::Sealed { id, .. } | Self::Preparing { id, .. } | Self::Cancelled { id, .. } => Some(*id),
            Self::Open { .. } | Self::Moved { .. } => None,
        }
    }

    /// Returns the epoch in which keys are granted here, if they are.
    #[must_use]
    pub fn open(&self) -> Option<Epoch> {
        match self {
            Self::Open { epoch } => Some(*epoch),
            _ => None,
        }
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { epoch } => write!(f, "open {epoch}"),
            Self::Sealed { epoch, to, next, id } => write!(f, "sealed {epoch} {to} {next} {id}"),
            Self::Preparing { epoch, from, id } => write!(f, "preparing {epoch} {from} {id}"),
            Self::Cancelled { epoch, id } => write!(f, "cancelled {epoch} {id}"),
            Self::Moved { epoch, to } => write!(f, "moved {epoch} {to}"),
        }
    }
}

impl FromStr for Marker {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let not_one = || {
            let message = format!(
                "{text:?} is kept where a slot's marker should be; does another program use the prefix?"
            );
            Error::new(ErrorKind::UnsafeConfig, message)
        };
        let epoch = |word: &str| word.parse().ok().and_then(Epoch::new).ok_or_else(not_one);
        let words: Vec<_> = text.split(' ').collect();
        Ok(match *words.as_slice() {
            ["open", number] => Self::Open { epoch: epoch(number)? },
            ["sealed", number, to, next, id] => {
                Self::Sealed { epoch: epoch(number)?, to: to.parse()?, next: epoch(next)?, id: id.parse()? }
            }
            ["preparing", number, from, id] => {
                Self::Preparing { epoch: epoch(number)?, from: from.parse()?, id: id.parse()? }
            }
            ["cancelled", number, id] => Self::Cancelled { epoch: epoch(number)?, id: id.parse()? },
            ["moved", number, to] => Self::Moved { epoch: epoch(number)?, to: to.parse()? },
            _ => return Err(not_one()),
        })
    }
}

/// What a cluster is called in maps and markers: 1 to 64 letters, digits, dots, dashes and underscores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(Arc<str>);

impl ClusterName {
    /// Returns it as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if (1..=64).contains(&name.len()) && name.bytes().all(plain) {
            return Ok(Self(name.into()));
        }
        let message = format!(
            "{name:?} cannot name a cluster: that takes 1 to 64 letters, digits, dots, dashes or underscores"
        );
        Err(Error::new(ErrorKind::InvalidInput, message).without_effect())
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A random number that tells one move of a slot from all others; shown as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MoveId(u64);

impl MoveId {
    /// Makes a new one.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::rng().random())
    }
}

impl fmt::Display for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for MoveId {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self> {
        let number = u64::from_str_radix(id, 16).ok().filter(|_| id.len() == 16);
        number.map(Self).ok_or_else(|| {
            let message = format!("{id:?} is not the id of a move, which has 16 hex digits");
            Error::new(ErrorKind::InvalidInput, message).without_effect()
        })
    }
}

/// The cause of the error of whoever was refused because the slot is not open where it asked. It is not for users:
/// whoever knows of other clusters asks there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotOpen {
    /// The slot.
    pub slot: Slot,
    /// What the cluster says of it.
    pub marker: Option<Marker>,
}

impl NotOpen {
    /// Makes the error of a request that was refused, or of a waiter whose entry is void, and has the `effect` of its
    /// entry.
    #[must_use]
    pub fn error(self, effect: Effect) -> Error {
        let message = "the slot of the key is not open on this cluster";
        Error::new(ErrorKind::Unavailable, message).with_source(self).lasting().with_effect(effect)
    }

    /// Returns the refusal that `error` comes of, if it comes of one.
    #[must_use]
    pub fn of(error: &Error) -> Option<&Self> {
        let mut cause = error.source();
        while let Some(found) = cause {
            if let Some(not_open) = found.downcast_ref() {
                return Some(not_open);
            }
            cause = found.source();
        }
        None
    }
}

impl fmt::Display for NotOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.marker {
            None => write!(f, "slot {} has no marker there", self.slot),
            Some(marker) => write!(f, "slot {} is marked there as {:?}", self.slot, marker.to_string()),
        }
    }
}

impl StdError for NotOpen {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_as_it_was_written() {
        let (epoch, next, id) = (Epoch::new(3).unwrap(), Epoch::new(4).unwrap(), MoveId(7));
        let name = |name: &str| name.parse::<ClusterName>().unwrap();
        for marker in [
            Marker::Open { epoch },
            Marker::Sealed { epoch, to: name("b"), next, id },
            Marker::Preparing { epoch, from: name("a"), id },
            Marker::Cancelled { epoch, id },
            Marker::Moved { epoch, to: name("b") },
        ] {
            assert_eq!(marker.to_string().parse::<Marker>().unwrap(), marker);
        }
        for bad in ["", "open", "open 1024", "open -1", "open 3 ", "sealed 3 b 4 7", "moved 3 b/c"] {
            assert!(bad.parse::<Marker>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_is_found_below_other_errors() {
        let refusal = NotOpen { slot: Slot::new(7).unwrap(), marker: None };
        let error = refusal.clone().error(Effect::None);
        let error = Error::new(ErrorKind::Unavailable, "outer").with_source(error);
        assert_eq!(NotOpen::of(&error), Some(&refusal));
        assert_eq!(NotOpen::of(&Error::new(ErrorKind::Unavailable, "other")), None);
    }
}
