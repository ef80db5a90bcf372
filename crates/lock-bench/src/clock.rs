//! Clocks: one that all processes of the machine share, and the time that this process spent on the CPU.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Returns the nanoseconds since the machine started, by the clock that other processes and languages read as well.
#[must_use]
pub fn now() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// Returns the time that all threads of this process have been computing, in user mode and in the kernel.
#[must_use]
pub fn cpu() -> Duration {
    Duration::from_nanos(nanoseconds(clock_gettime(ClockId::ProcessCPUTime)))
}

fn nanoseconds(time: Timespec) -> u64 {
    let (seconds, rest) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.expect("not before the start") * 1_000_000_000 + rest.expect("below a second")
}
