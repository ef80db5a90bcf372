//! The clock of every deadline: it never steps, and it counts the time that the machine sleeps.

use std::time::Duration;

/// An instant on the boot clock, in nanoseconds.
///
/// `std::time::Instant` stands still while a Linux machine is suspended
/// ([rust-lang/rust#87906](https://github.com/rust-lang/rust/issues/87906)), so a laptop that wakes up would
/// still believe in a lease that ended hours ago. This one reads `CLOCK_BOOTTIME` there. On systems without
/// such a clock it reads the monotonic clock. Instants of two processes of one machine can be compared on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootInstant(u64);

impl BootInstant {
    /// An instant that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// Returns the present instant.
    #[must_use]
    pub fn now() -> Self {
        Self(imp::nanos())
    }

    /// Returns the nanoseconds since the clock's arbitrary origin.
    #[must_use]
    pub fn as_nanos(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the time from `earlier` to `self`, or zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Returns this instant moved into the future; [`NEVER`](Self::NEVER) if it cannot be represented.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(unix)]
mod imp {
    use rustix::time::{ClockId, clock_gettime};

    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    // On Apple systems the monotonic clock goes on while the machine sleeps.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;

    pub(super) fn nanos() -> u64 {
        let now = clock_gettime(CLOCK);
        let seconds = u64::try_from(now.tv_sec).expect("the boot clock starts at zero");
        seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).expect("nanoseconds are not negative")
    }
}

#[cfg(not(unix))]
mod imp {
    use std::{sync::LazyLock, time::Instant};

    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

    pub(super) fn nanos() -> u64 {
        // One is added so that no instant is zero.
        u64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(u64::MAX - 1) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_and_saturates() {
        let before = BootInstant::now();
        let after = BootInstant::now();
        assert!(before <= after);
        assert_eq!(before.since(after.after(Duration::from_secs(1))), Duration::ZERO);
        assert_eq!(before.after(Duration::MAX), BootInstant::NEVER);
        assert_eq!(before.after(Duration::from_secs(3)).since(before), Duration::from_secs(3));
    }
}
