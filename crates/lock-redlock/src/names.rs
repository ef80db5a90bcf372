//! How locks are named on the servers.

use lock_core::{Key, Options, Result};
use lock_redis::{Names, Prefix};

/// The names of all locks of one prefix: `<prefix>:{redlock:<bucket>}:<key>`.
///
/// No prefix has braces, so what stands in the first braces of a name tells a lock on a majority from one on a single
/// server, which writes its bucket alone, whatever prefixes both were given.
pub(crate) struct RedlockNames {
    prefix: Prefix,
    /// The name of what a server remembers; see `survey.lua`. It has no bucket, so no lock has it.
    pub(crate) memory: String,
    /// Whether a bucket is a slot.
    #[cfg(feature = "movable")]
    pub(crate) are_by_slot: bool,
}

impl RedlockNames {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        Ok(Self {
            prefix: Prefix::new(options.prefix())?.marked("redlock:"),
            memory: format!("{}:{{redlock}}#memory", options.prefix()),
            #[cfg(feature = "movable")]
            are_by_slot: false,
        })
    }

    pub(crate) fn of(&self, key: &Key) -> Names {
        self.prefix.names(key)
    }

    /// Returns a channel that no other locker has.
    pub(crate) fn channel(&self) -> String {
        self.prefix.channel()
    }
}

/// Returns the names that the scripts about a lock's queue are given: the lock and the queue.
pub(crate) fn of_queue(names: &Names) -> Vec<String> {
    [names.lock(), names.queue()].map(str::to_owned).into()
}

#[cfg(feature = "movable")]
impl RedlockNames {
    /// Makes those of locks whose slots can move: `<prefix>:{redslot:<slot>}:<key>`. They share nothing with those of
    /// other locks, so that a server which has its vote in the one may be without it in the other.
    pub(crate) fn by_slot(options: &Options) -> Result<Self> {
        Ok(Self {
            prefix: Prefix::new(options.prefix())?.marked("redslot:").by_slot(),
            memory: format!("{}:{{redlock}}#slots", options.prefix()),
            are_by_slot: true,
        })
    }

    /// Returns what the names of all locks of all slots begin with.
    pub(crate) fn slots(&self) -> String {
        let first = self.slot(lock_core::movable::Slot::all().next().expect("there are some"));
        first[..first.len() - "00}:".len()].to_owned()
    }

    /// Returns what the names of all locks of a slot begin with.
    pub(crate) fn slot(&self, slot: lock_core::movable::Slot) -> String {
        self.prefix.slot(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_one_of_a_lock_on_a_single_server() {
        let key = Key::new("orders/42").unwrap();
        let names = RedlockNames::new(&Options::default()).unwrap();
        let own = names.of(&key);
        let (lock, fence) = (own.lock(), own.fence());
        // Changing these would let two versions of a program hold one lock at once.
        assert_eq!(lock, "lock:{redlock:df}:orders/42");
        assert_eq!(fence, "lock:{redlock:df}#fence");
        assert_eq!(own.queue(), "lock:{redlock:df}#queue:orders/42");
        assert_eq!(names.memory, "lock:{redlock}#memory");
        for single in ["lock", "lock:redlock", "lock:(redlock"] {
            let single = Prefix::new(single).unwrap().names(&key);
            for single in [single.lock(), single.fence(), single.queue()] {
                assert!(![lock, fence, &names.memory].contains(&single), "{single}");
            }
        }
    }

    #[cfg(feature = "movable")]
    #[test]
    fn those_of_a_slot_begin_alike_and_are_no_others() {
        use lock_core::movable::Slot;

        let names = RedlockNames::by_slot(&Options::default()).unwrap();
        for key in ["orders/42", "{a}b", "ü"] {
            let key = Key::new(key).unwrap();
            let of = names.of(&key);
            let (lock, slot) = (of.lock(), names.slot(Slot::of(&key)));
            assert!(lock.starts_with(&slot) && lock.starts_with(&names.slots()), "{lock}");
        }
        assert_eq!(names.of(&Key::new("orders/42").unwrap()).lock(), "lock:{redslot:df}:orders/42");
        assert_eq!(
            (names.slots().as_str(), names.memory.as_str()),
            ("lock:{redslot:", "lock:{redlock}#slots")
        );
    }
}
