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
}

impl RedlockNames {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let memory = format!("{}:{{redlock}}#memory", options.prefix());
        Ok(Self { prefix: Prefix::new(options.prefix())?.marked("redlock:"), memory })
    }

    pub(crate) fn of(&self, key: &Key) -> Names {
        self.prefix.names(key)
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
        assert_eq!(names.memory, "lock:{redlock}#memory");
        for single in ["lock", "lock:redlock", "lock:(redlock"] {
            let single = Prefix::new(single).unwrap().names(&key);
            for single in [single.lock(), single.fence(), single.queue()] {
                assert!(![lock, fence, &names.memory].contains(&single), "{single}");
            }
        }
    }
}
