//! The guard's clock: `CLOCK_BOOTTIME` in nanoseconds.
//!
//! BOOTTIME goes on while the host is suspended. A lease does too: etcd does not wait for a sleeping laptop or a
//! paused virtual machine. With `CLOCK_MONOTONIC` a host that slept through its ttl would wake up believing that it
//! still has the time left that it had when it fell asleep; with BOOTTIME the timer is already due when it wakes.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds in a second.
pub(crate) const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Now, in nanoseconds of `CLOCK_BOOTTIME`: monotonic, counts suspend, the same for every process of a host (of a
/// time namespace), which is why a deadline can be handed from the agent to the guard as a plain number.
#[must_use]
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * NANOS_PER_SECOND + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// `ns` as the kernel wants it; values beyond the range of `timespec` are held at its end.
pub(crate) fn timespec(ns: u64) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(ns / NANOS_PER_SECOND).unwrap_or(i64::MAX),
        tv_nsec: (ns % NANOS_PER_SECOND) as _,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boottime_does_not_go_back() {
        let first = boottime_ns();
        let second = boottime_ns();
        assert!(first > 0 && first <= second);
    }

    #[test]
    fn timespec_splits_seconds() {
        let split = timespec(3 * NANOS_PER_SECOND + 7);
        assert_eq!((split.tv_sec, split.tv_nsec), (3, 7));
    }
}
