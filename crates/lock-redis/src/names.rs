//! How keys are named in Redis.

use std::borrow::Cow;

use lock_core::{Error, ErrorKind, Key, Result};
use rand::RngExt;

/// The prefix of all names, checked.
#[derive(Clone, Debug)]
pub struct Prefix {
    prefix: String,
    /// What stands in the braces before the bucket.
    mark: &'static str,
    /// Whether the bucket of a key is its slot.
    #[cfg(feature = "movable")]
    by_slot: bool,
}

/// The names of one lock: in one text, since they are made for each request.
#[derive(Clone, Debug)]
pub struct Names {
    /// `<lock><fence><queue>`
    text: String,
    lock: usize,
    fence: usize,
}

// A counter serves all keys of one bucket, so that counters do not grow in number with the keys ever locked; there
// are several buckets so that a cluster spreads the keys over its nodes.
const BUCKETS: u64 = 256;

const HEX: &[u8; 16] = b"0123456789abcdef";

impl Prefix {
    const MAX_LEN: usize = 256;

    /// Checks `prefix`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: it has characters that it must not have, or is too long.
    pub fn new(prefix: &str) -> Result<Self> {
        let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}');
        if !prefix.is_empty() && prefix.len() <= Self::MAX_LEN && prefix.bytes().all(allowed) {
            return Ok(Self {
                prefix: prefix.to_owned(),
                mark: "",
                #[cfg(feature = "movable")]
                by_slot: false,
            });
        }
        let message = format!(
            "the prefix must have 1 to {} visible ASCII characters, and no braces, which Redis Cluster gives a meaning",
            Self::MAX_LEN
        );
        Err(Error::new(ErrorKind::InvalidInput, message).without_effect())
    }

    /// Tells the names from those of another lock, whatever its prefix: `mark` stands in the braces before the bucket.
    #[must_use]
    pub fn marked(self, mark: &'static str) -> Self {
        Self { mark, ..self }
    }

    /// Returns a channel that no other locker has.
    #[must_use]
    pub fn channel(&self) -> String {
        format!("{}:#{:016x}", self.prefix, rand::rng().random::<u64>())
    }

    /// Returns the names of `key`: `<prefix>:{<bucket>}:<key>`, `<prefix>:{<bucket>}#fence` and
    /// `<prefix>:{<bucket>}#queue:<key>`.
    ///
    /// What stands in braces decides where a cluster keeps a key, so they are always together. No key reaches the other
    /// names, since `#` does not follow `}:`.
    #[must_use]
    pub fn names(&self, key: &Key) -> Names {
        let keep = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'%');
        let encoded = match key.as_str() {
            plain if plain.bytes().all(keep) => Cow::Borrowed(plain),
            _ => Cow::Owned(key.percent_encoded(keep)),
        };
        let bucket = self.bucket(key, &encoded);
        let digits = [HEX[bucket >> 4], HEX[bucket & 15]].map(char::from);
        let mut text =
            String::with_capacity(3 * (self.prefix.len() + self.mark.len() + 14) + 2 * encoded.len());
        let mut add = |rest: &[&str]| {
            [self.prefix.as_str(), ":{", self.mark].iter().for_each(|part| text.push_str(part));
            text.extend(digits);
            text.push('}');
            rest.iter().for_each(|part| text.push_str(part));
            text.len()
        };
        let lock = add(&[":", &encoded]);
        let fence = add(&["#fence"]);
        add(&["#queue:", &encoded]);
        Names { text, lock, fence }
    }

    fn bucket(&self, key: &Key, encoded: &str) -> usize {
        #[cfg(feature = "movable")]
        if self.by_slot {
            return lock_core::movable::Slot::of(key).index();
        }
        let _ = key;
        usize::try_from(fnv1a(encoded.as_bytes()) % BUCKETS).expect("it is below 256")
    }
}

#[cfg(feature = "movable")]
impl Prefix {
    /// Puts all keys of a slot into one bucket, which has the number of the slot.
    #[must_use]
    pub fn by_slot(self) -> Self {
        Self { by_slot: true, ..self }
    }

    /// Returns what the names of all locks of a slot begin with: `<prefix>:{<slot>}:`.
    #[must_use]
    pub fn slot(&self, slot: lock_core::movable::Slot) -> String {
        format!("{}:{{{}{:02x}}}:", self.prefix, self.mark, slot.index())
    }

    /// Returns the name of something that belongs to a slot, and is no lock: `<prefix>:{<slot>}#<what>`.
    #[must_use]
    pub fn beside(&self, slot: lock_core::movable::Slot, what: &str) -> String {
        format!("{}:{{{}{:02x}}}#{what}", self.prefix, self.mark, slot.index())
    }
}

impl Names {
    /// Returns the name of the lock.
    #[must_use]
    pub fn lock(&self) -> &str {
        &self.text[..self.lock]
    }

    /// Returns the name of the counter that its tokens come from.
    #[must_use]
    pub fn fence(&self) -> &str {
        &self.text[self.lock..self.fence]
    }

    /// Returns the name of the queue of those who wait for it.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.text[self.fence..]
    }
}

/// Returns the 64-bit FNV-1a hash: small, and the same in every version and language that shares the locks.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock_name(key: &str) -> String {
        Prefix::new("lock").unwrap().names(&Key::new(key).unwrap()).lock().to_owned()
    }

    #[test]
    fn names_are_readable_and_stay_as_they_are() {
        // Changing these would let two versions of a program hold one lock at once.
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c, "a published test vector of FNV-1a");
        assert_eq!(lock_name("orders/42"), "lock:{df}:orders/42");
        assert_eq!(lock_name("{a}b\r\n%"), "lock:{67}:%7Ba%7Db%0D%0A%25");
    }

    #[test]
    fn lock_and_counter_share_a_slot_and_differ() {
        let names = Prefix::new("lock").unwrap().names(&Key::new("#fence").unwrap());
        let tag = |name: &str| name[name.find('{').unwrap()..=name.find('}').unwrap()].to_owned();
        for other in [names.fence(), names.queue()] {
            assert_eq!(tag(names.lock()), tag(other));
            assert_ne!(names.lock(), other);
        }
        assert_eq!(names.queue(), "lock:{33}#queue:#fence");
    }

    #[test]
    fn bad_prefixes_are_refused() {
        for bad in ["", "a{b", "a}", "a b", "a\n", "é", &"x".repeat(257)] {
            assert_eq!(Prefix::new(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
    }
}
