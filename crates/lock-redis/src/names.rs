//! How keys are named in Redis.

use lock_core::{Error, ErrorKind, Key, Result};

/// The prefix of all names, checked.
#[derive(Clone, Debug)]
pub struct Prefix(String);

/// The names of one lock.
#[derive(Debug)]
pub struct Names {
    /// The lock, and the channel on which its release is told.
    pub lock: String,
    /// The counter that its tokens come from.
    pub fence: String,
}

// A counter serves all keys of one bucket, so that counters do not grow in number with the keys ever locked; there
// are several buckets so that a cluster spreads the keys over its nodes.
const BUCKETS: u64 = 256;

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
            return Ok(Self(prefix.to_owned()));
        }
        let message = format!(
            "the prefix must have 1 to {} visible ASCII characters, and no braces, which Redis Cluster gives a meaning",
            Self::MAX_LEN
        );
        Err(Error::new(ErrorKind::InvalidInput, message).without_effect())
    }

    /// `<prefix>:{<bucket>}:<key>` and `<prefix>:{<bucket>}#fence`: what stands in braces decides where a cluster
    /// keeps a key, so both are always together. No key reaches the counter's name, since `#` does not follow `}:`.
    #[must_use]
    pub fn names(&self, key: &Key) -> Names {
        let encoded = key.percent_encoded(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}'));
        let (prefix, bucket) = (&self.0, fnv1a(encoded.as_bytes()) % BUCKETS);
        Names {
            lock: format!("{prefix}:{{{bucket:02x}}}:{encoded}"),
            fence: format!("{prefix}:{{{bucket:02x}}}#fence"),
        }
    }
}

/// The 64-bit FNV-1a hash: small, and the same in every version and language that shares the locks.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock_name(key: &str) -> String {
        Prefix::new("lock").unwrap().names(&Key::new(key).unwrap()).lock
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
        assert_eq!(tag(&names.lock), tag(&names.fence));
        assert_ne!(names.lock, names.fence);
    }

    #[test]
    fn bad_prefixes_are_refused() {
        for bad in ["", "a{b", "a}", "a b", "a\n", "é", &"x".repeat(257)] {
            assert_eq!(Prefix::new(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
    }
}
