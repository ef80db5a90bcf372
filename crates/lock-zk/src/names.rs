//! How nodes are named, and in which order they queue.

use lock_core::{Error, ErrorKind, Key, Result, backend::OwnerId};

/// The path above all locks, checked.
#[derive(Clone, Debug)]
pub(crate) struct Prefix(String);

/// The name of a node that stands in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryName {
    name: String,
    sequence: i32,
}

/// The hex digits of an owner id, with which the name of each node of ours begins.
const ID_LEN: usize = 32;

impl Prefix {
    const MAX_LEN: usize = 256;

    pub(crate) fn new(prefix: &str) -> Result<Self> {
        let refuse = |reason: String| Err(Error::new(ErrorKind::InvalidInput, reason).without_effect());
        let parts: Vec<&str> = prefix.split('/').collect();
        if prefix.len() > Self::MAX_LEN || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse(format!("the prefix must have 1 to {} visible ASCII characters", Self::MAX_LEN));
        }
        if parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
            return refuse(
                "the prefix must be names separated by slashes, none at its ends, and none of them empty, . or .."
                    .to_owned(),
            );
        }
        if parts[0] == "zookeeper" {
            return refuse("the prefix must not be in /zookeeper, which ZooKeeper uses itself".to_owned());
        }
        Ok(Self(format!("/{prefix}")))
    }

    /// The node under which those who want `key` queue: `/<prefix>/<key>`, in which no key can bring in another slash.
    pub(crate) fn queue(&self, key: &Key) -> String {
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'.');
        format!("{}/{}", self.0, key.percent_encoded(plain))
    }
}

/// What the node of `owner` under `queue` is called, less the sequence number that the server appends.
pub(crate) fn stem(queue: &str, owner: OwnerId) -> String {
    format!("{queue}/{owner}-")
}

/// Returns whether a node under a queue is of `owner`.
pub(crate) fn is_of(node: &str, owner: OwnerId) -> bool {
    node.starts_with(&owner.to_string())
}

impl EntryName {
    /// Reads the name of a node; `None` if the node is none of ours.
    ///
    /// # Errors
    ///
    /// The node has the name of one of ours, and a number that cannot be compared.
    pub(crate) fn parse(name: &str) -> Result<Option<Self>> {
        let Some((id, rest)) = name.split_at_checked(ID_LEN) else { return Ok(None) };
        let Some(number) = rest.strip_prefix('-') else { return Ok(None) };
        if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        match number.parse() {
            Ok(sequence) => Ok(Some(Self { sequence, name: name.to_owned() })),
            Err(error) => {
                let message =
                    format!("the server numbers the nodes of a queue in a way that is not known: {number}");
                Err(Error::new(ErrorKind::Unexpected, message).with_source(error))
            }
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }

    /// Returns how far before `other` it is in the queue; negative if behind it.
    ///
    /// Numbers are serial ones (RFC 1982): after 2³¹ − 1 the server goes on with −2³¹, and with 2³¹ nodes at once a
    /// queue would have no order. A queue that is deleted and made again starts at zero, but then without any older
    /// node.
    pub(crate) fn lead_over(&self, other: &Self) -> i32 {
        other.sequence.wrapping_sub(self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: i32) -> EntryName {
        let name = format!("{:032x}-{sequence:010}", 7);
        EntryName::parse(&name).unwrap().unwrap()
    }

    #[test]
    fn the_order_goes_on_where_the_numbers_wrap() {
        for (earlier, later) in [
            (0, 1),
            (9, 10),
            (i32::MAX - 1, i32::MAX),
            (i32::MAX, i32::MIN),
            (i32::MAX - 3, i32::MIN + 3),
            (i32::MIN, i32::MIN + 1),
            (-1, 0),
            (-10, -9),
        ] {
            assert!(entry(earlier).lead_over(&entry(later)) > 0, "{earlier} before {later}");
            assert!(entry(later).lead_over(&entry(earlier)) < 0, "{later} behind {earlier}");
        }
        assert_eq!(entry(i32::MIN).lead_over(&entry(i32::MIN)), 0);
    }

    #[test]
    fn numbers_are_read_as_servers_write_them() {
        let id = "0123456789abcdef0123456789abcdef";
        for (suffix, sequence) in [
            ("0000000000", 0),
            ("2147483647", i32::MAX),
            ("-2147483648", i32::MIN),
            ("-2147483647", i32::MIN + 1),
            ("-000000001", -1),
        ] {
            let name = format!("{id}-{suffix}");
            assert_eq!(EntryName::parse(&name).unwrap(), Some(EntryName { name, sequence }));
        }
        let error = EntryName::parse(&format!("{id}-0000000002147483648")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unexpected);
    }

    #[test]
    fn nodes_of_others_are_passed_over() {
        for name in
            ["", "lock-0000000001", "é", &"x".repeat(40), "0123456789abcdef0123456789abcdef_0000000001"]
        {
            assert_eq!(EntryName::parse(name).unwrap(), None, "{name}");
        }
    }

    #[test]
    fn queues_are_readable_and_stay_as_they_are() {
        // Changing these would let two versions of a program hold one lock at once.
        let queue = |key: &str| Prefix::new("shop/lock").unwrap().queue(&Key::new(key).unwrap());
        assert_eq!(queue("orders:42"), "/shop/lock/orders:42");
        assert_eq!(queue("../a/\0\u{e9}%"), "/shop/lock/%2E%2E%2Fa%2F%00%C3%A9%25");
    }

    #[test]
    fn bad_prefixes_are_refused() {
        for bad in
            ["", "/", "/a", "a/", "a//b", ".", "a/..", "a b", "a\0", "é", "zookeeper/x", &"x".repeat(257)]
        {
            assert_eq!(Prefix::new(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
        Prefix::new("zookeepers/x").unwrap();
    }
}
