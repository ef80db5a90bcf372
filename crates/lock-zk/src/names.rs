//! How nodes are named, and in which order they queue.

use lock_core::{Error, ErrorKind, Key, Result, backend::OwnerId};

/// The path above all locks, checked.
#[derive(Clone, Debug)]
pub(crate) struct Prefix {
    path: String,
    /// Whether the queues of a slot are together, so that they can be found.
    #[cfg(feature = "movable")]
    by_slot: bool,
}

/// The name of a node that stands in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryName {
    name: String,
    /// None of one that came from another cluster, and is before all that have a number.
    sequence: Option<i32>,
}

/// The hex digits of an owner id, with which the name of each node of ours begins.
const ID_LEN: usize = 32;

/// The number from which on servers do not count: they give it to each node that follows, or numbers below zero, so
/// that such nodes have no order. A queue gets there if it was never empty since it was made.
const LAST: i32 = i32::MAX;

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
        Ok(Self {
            path: format!("/{prefix}"),
            #[cfg(feature = "movable")]
            by_slot: false,
        })
    }

    /// The node under which those who want `key` queue: `/<prefix>/<key>`, in which no key can bring in another slash.
    pub(crate) fn queue(&self, key: &Key) -> String {
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'.');
        let encoded = key.percent_encoded(plain);
        #[cfg(feature = "movable")]
        if self.by_slot {
            return format!("{}/{encoded}", self.slot(lock_core::movable::Slot::of(key)));
        }
        format!("{}/{encoded}", self.path)
    }
}

/// No key has a name that begins with a dot.
#[cfg(feature = "movable")]
impl Prefix {
    pub(crate) fn by_slot(self) -> Self {
        Self { by_slot: true, ..self }
    }

    /// The node under which all queues of a slot are.
    pub(crate) fn slot(&self, slot: lock_core::movable::Slot) -> String {
        format!("{}/{:02x}", self.slots(), slot.index())
    }

    pub(crate) fn slots(&self) -> String {
        format!("{}/.slots", self.path)
    }

    /// The node under which each slot has one node, whose name is the marker.
    pub(crate) fn markers(&self) -> String {
        format!("{}/.markers", self.path)
    }

    /// The node that says which ensemble this is.
    pub(crate) fn identity(&self) -> String {
        format!("{}/.ensemble", self.path)
    }
}

/// What the node of `owner` under `queue` is called, less the sequence number that the server appends.
pub(crate) fn stem(queue: &str, owner: OwnerId) -> String {
    format!("{queue}/{owner}-")
}

/// Returns whether a node under a queue is one that requests of `owner` left. A copy of a hold is put there by others.
pub(crate) fn is_left_by(node: &str, owner: OwnerId) -> bool {
    #[cfg(feature = "movable")]
    if is_copy(node) {
        return false;
    }
    node.starts_with(&owner.to_string())
}

impl EntryName {
    /// Reads the name of a node; `None` if the node is none of ours, or its number has no order.
    ///
    /// # Errors
    ///
    /// The node has the name of one of ours, and a number that cannot be compared.
    pub(crate) fn parse(name: &str) -> Result<Option<Self>> {
        let Some((id, rest)) = name.split_at_checked(ID_LEN) else { return Ok(None) };
        if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        #[cfg(feature = "movable")]
        if rest.starts_with(FROM_ELSEWHERE) {
            return Ok(Some(Self { name: name.to_owned(), sequence: None }));
        }
        let Some(number) = rest.strip_prefix('-') else { return Ok(None) };
        match number.parse() {
            Ok(sequence) if (0..LAST).contains(&sequence) => {
                Ok(Some(Self { name: name.to_owned(), sequence: Some(sequence) }))
            }
            Ok(_) => Ok(None),
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

    /// Returns whether its end is the end of what it stands for. What came from another cluster gets another name when
    /// it is taken over.
    pub(crate) fn keeps_its_name(&self) -> bool {
        self.sequence.is_some()
    }

    /// Returns how far before `other` it is in the queue; negative if behind it.
    ///
    /// A queue that is deleted and made again starts at zero, but then without any older node.
    pub(crate) fn lead_over(&self, other: &Self) -> i32 {
        match (self.sequence, other.sequence) {
            (Some(own), Some(other)) => other - own,
            (None, Some(_)) => i32::MAX,
            (Some(_), None) => i32::MIN,
            (None, None) => other.name.cmp(&self.name) as i32,
        }
    }
}

#[cfg(feature = "movable")]
pub(crate) use self::from_elsewhere::*;

/// What came from another cluster: copies of holds, and holds that were taken over.
#[cfg(feature = "movable")]
mod from_elsewhere {
    use lock_core::{
        FencingToken,
        backend::OwnerId,
        movable::{CopyLabel, SlotHold},
    };

    use super::{EntryName, ID_LEN};

    /// What follows the owner id in the names of these.
    pub(super) const FROM_ELSEWHERE: char = '=';

    /// What the name of a node tells, without its data.
    pub(crate) struct Told {
        pub(crate) owner: OwnerId,
        pub(crate) token: FencingToken,
        /// None, if it was taken over.
        pub(crate) copy: Option<CopyLabel>,
    }

    impl EntryName {
        /// That of a hold that was taken over into `session`: `<owner id>=held:<session>:<token>`.
        pub(crate) fn held(owner: OwnerId, session: i64, token: FencingToken) -> Self {
            Self { name: format!("{owner}{FROM_ELSEWHERE}held:{session:x}:{token}"), sequence: None }
        }

        /// Returns whose it is.
        pub(crate) fn owner(&self) -> Option<OwnerId> {
            OwnerId::parse(&self.name[..ID_LEN])
        }

        /// Returns what the name tells, if it came from another cluster and has a name of ours.
        pub(crate) fn told(&self) -> Option<Told> {
            let rest = self.name[ID_LEN..].strip_prefix(FROM_ELSEWHERE)?;
            let (label, token) = rest.rsplit_once(':')?;
            let copy = if label.starts_with("held:") { None } else { Some(CopyLabel::parse(label)?) };
            Some(Told { owner: self.owner()?, token: token.parse().ok().map(FencingToken::new)?, copy })
        }
    }

    /// What the node of a copy is called: `<owner id>=copy:<from>:<move>:<token>`; none if it is none.
    pub(crate) fn copy(hold: &SlotHold) -> Option<String> {
        let label = hold.copy.as_ref()?;
        Some(format!("{}{FROM_ELSEWHERE}{label}:{}", hold.owner, hold.token))
    }

    /// Returns whether a node of ours is a copy, which lives until somebody deletes it.
    pub(crate) fn is_copy(node: &str) -> bool {
        node.get(ID_LEN..).is_some_and(|rest| rest.starts_with("=copy:"))
    }

    /// Returns whether a node is `owner`'s hold from another cluster, taken over or not.
    pub(crate) fn is_from_elsewhere(node: &str, owner: OwnerId) -> bool {
        node.split_at_checked(ID_LEN)
            .is_some_and(|(id, rest)| id == owner.to_string() && rest.starts_with(FROM_ELSEWHERE))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "movable")]
    use lock_core::FencingToken;

    use super::*;

    fn entry(sequence: i32) -> EntryName {
        let name = format!("{:032x}-{sequence:010}", 7);
        EntryName::parse(&name).unwrap().unwrap()
    }

    #[test]
    fn the_order_is_that_of_the_numbers() {
        for (earlier, later) in [(0, 1), (9, 10), (0, LAST - 1), (LAST - 2, LAST - 1)] {
            assert!(entry(earlier).lead_over(&entry(later)) > 0, "{earlier} before {later}");
            assert!(entry(later).lead_over(&entry(earlier)) < 0, "{later} behind {earlier}");
        }
        assert_eq!(entry(7).lead_over(&entry(7)), 0);
    }

    #[test]
    fn numbers_are_read_as_servers_write_them() {
        let id = "0123456789abcdef0123456789abcdef";
        for (suffix, sequence) in [
            ("0000000000", Some(0)),
            ("2147483646", Some(LAST - 1)),
            ("2147483647", None),
            ("-2147483648", None),
            ("-000000001", None),
        ] {
            let name = format!("{id}-{suffix}");
            let read = sequence.map(|sequence| EntryName { name: name.clone(), sequence: Some(sequence) });
            assert_eq!(EntryName::parse(&name).unwrap(), read);
        }
        let error = EntryName::parse(&format!("{id}-0000000002147483648")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unexpected);
    }

    #[cfg(feature = "movable")]
    #[test]
    fn what_came_from_elsewhere_is_before_all_numbers() {
        let id = format!("{:032x}", 7);
        let copy = EntryName::parse(&format!("{id}=copy:a:00000000000000ff:12")).unwrap().unwrap();
        let held = EntryName::held(OwnerId::parse(&id).unwrap(), -2, FencingToken::new(12));
        for number in [0, 9, LAST - 1] {
            for first in [&copy, &held] {
                assert!(first.lead_over(&entry(number)) > 0 && entry(number).lead_over(first) < 0);
            }
        }
        assert!((copy.lead_over(&held) > 0) != (held.lead_over(&copy) > 0) && copy.lead_over(&copy) == 0);
        let told = |name: &EntryName| name.told().map(|told| (told.token.get(), told.copy.is_some()));
        assert_eq!(
            (told(&copy), told(&held), told(&entry(3)).is_none()),
            (Some((12, true)), Some((12, false)), true)
        );
        assert!(is_copy(copy.as_str()) && !is_copy(held.as_str()) && !is_copy(entry(3).as_str()));
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
