//! How keys are named in etcd.

use lock_core::{Error, ErrorKind, Key, Result, backend::OwnerId};

/// The prefix of all names, checked.
#[derive(Clone, Debug)]
pub(crate) struct Prefix {
    text: String,
    /// Whether the queues of a slot are together, so that they can be found.
    #[cfg(feature = "movable")]
    by_slot: bool,
}

// A prefix may contain slashes but no colon, an encoded key neither. So whatever begins with one key's queue is in
// that queue, also if one locker's prefix continues another's.
const END_OF_KEY: char = ':';

impl Prefix {
    const MAX_LEN: usize = 256;

    pub(crate) fn new(prefix: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_graphic() && c != END_OF_KEY;
        if !prefix.is_empty() && prefix.len() <= Self::MAX_LEN && prefix.chars().all(allowed) {
            return Ok(Self {
                text: prefix.to_owned(),
                #[cfg(feature = "movable")]
                by_slot: false,
            });
        }
        let message =
            format!("the prefix must have 1 to {} visible ASCII characters, and no colon", Self::MAX_LEN);
        Err(Error::new(ErrorKind::InvalidInput, message).without_effect())
    }

    /// Returns what the names of all who hold or await `key` begin with: `<prefix>/<key>:`.
    pub(crate) fn queue(&self, key: &Key) -> String {
        let encoded = key.percent_encoded(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'));
        #[cfg(feature = "movable")]
        if self.by_slot {
            return format!("{}{encoded}{END_OF_KEY}", self.slot(lock_core::movable::Slot::of(key)));
        }
        format!("{}/{encoded}{END_OF_KEY}", self.text)
    }

    /// Returns the name by which a session fences off its own late requests. It is in no queue, since no key is empty.
    pub(crate) fn fence(&self, lease: i64) -> String {
        format!("{}//{lease:x}", self.text)
    }
}

#[cfg(feature = "movable")]
impl Prefix {
    pub(crate) fn by_slot(self) -> Self {
        Self { by_slot: true, ..self }
    }

    /// Returns what the names of all queues of a slot begin with: `<prefix>/<slot>/`.
    pub(crate) fn slot(&self, slot: lock_core::movable::Slot) -> String {
        format!("{}/{:02x}/", self.text, slot.index())
    }

    /// Returns what the names of all markers begin with. None is the name of a fence: that has no slash behind the two.
    pub(crate) fn markers(&self) -> String {
        format!("{}//slot/", self.text)
    }

    /// Returns the name of a slot's marker.
    pub(crate) fn marker(&self, slot: lock_core::movable::Slot) -> String {
        format!("{}{:02x}", self.markers(), slot.index())
    }
}

/// Returns the name of one entry in a queue: `<prefix>/<key>:<owner>`.
pub(crate) fn entry(queue: &str, owner: OwnerId) -> String {
    format!("{queue}{owner}")
}

/// Returns the queue that an entry is in.
pub(crate) fn queue_of(entry: &str) -> &str {
    let end = entry.rfind(END_OF_KEY).expect("an entry's name contains the end of its key");
    &entry[..=end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(prefix: &str, key: &str) -> String {
        Prefix::new(prefix).unwrap().queue(&Key::new(key).unwrap())
    }

    #[test]
    fn names_are_readable_and_stay_as_they_are() {
        // Changing these would let two versions of a program hold one lock at once.
        assert_eq!(queue("lock", "orders/42"), "lock/orders%2F42:");
        assert_eq!(queue("shop/locks", "a:b\r\n%é"), "shop/locks/a%3Ab%0D%0A%25%C3%A9:");
        assert_eq!(queue_of("lock/a:0123"), "lock/a:");
    }

    #[test]
    fn no_queue_is_part_of_another() {
        let names =
            [("a", "b"), ("a", "b/c"), ("a/b", "c"), ("a/b/c", "c"), ("a", "b:"), ("a", "bc"), ("ab", "c")];
        for (prefix, key) in names {
            for (other_prefix, other_key) in names.into_iter().filter(|other| *other != (prefix, key)) {
                let (queue, other) = (queue(prefix, key), queue(other_prefix, other_key));
                assert!(!other.starts_with(&queue), "{other} is in {queue}");
            }
            let fence = Prefix::new(prefix).unwrap().fence(7);
            assert!(!fence.starts_with(&queue(prefix, key)));
        }
    }

    #[test]
    fn bad_prefixes_are_refused() {
        for bad in ["", "a:b", "a b", "a\n", "é", &"x".repeat(257)] {
            assert_eq!(Prefix::new(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
    }
}
