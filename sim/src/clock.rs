//! Time: the world's own, and each node's clock, which runs a little fast or slow and began somewhere else.

use surus_core::types::MonoTime;

/// Nanoseconds of the world since it began.
pub type Time = u64;

/// A millisecond.
pub const MS: Time = 1_000_000;

/// A second.
pub const SEC: Time = 1000 * MS;

/// A node's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// What it showed when the world began.
    pub offset: u64,
    /// Parts per million by which it runs fast (or slow, if negative).
    pub drift: i64,
}

impl Clock {
    /// What the clock shows at `time`.
    #[must_use]
    pub fn local(&self, time: Time) -> MonoTime {
        let drifted = i128::from(time) * i128::from(1_000_000 + self.drift) / 1_000_000;
        MonoTime(self.offset + u64::try_from(drifted).unwrap_or(0))
    }

    /// The first time at which the clock shows `local` or more; never, for [`MonoTime::NEVER`].
    #[must_use]
    pub fn world(&self, local: MonoTime) -> Time {
        if local == MonoTime::NEVER {
            return Time::MAX;
        }
        let ahead = i128::from(local.0.saturating_sub(self.offset));
        let time = ahead * 1_000_000 / i128::from(1_000_000 + self.drift) + 1;
        u64::try_from(time).unwrap_or(Time::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_passed_at_the_time_given_for_it() {
        for drift in [-900, 0, 900] {
            let clock = Clock {
                offset: 77 * SEC,
                drift,
            };
            for local in [77 * SEC, 78 * SEC + 1, 999 * SEC + 12_345] {
                let local = MonoTime(local);
                let time = clock.world(local);
                assert!(local <= clock.local(time));
                assert!(clock.local(time.saturating_sub(2 * 1000)) <= local);
            }
        }
    }
}
