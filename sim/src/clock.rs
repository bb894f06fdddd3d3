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
    /// What it showed at `since`.
    offset: u64,
    /// The time since which it runs as it does.
    since: Time,
    /// Parts per million by which it runs fast (or slow, if negative).
    drift: i64,
}

impl Clock {
    /// A clock that shows `offset` when the world begins, and runs fast by so many parts per million.
    #[must_use]
    pub fn new(offset: u64, drift: i64) -> Self {
        Self {
            offset,
            since: 0,
            drift,
        }
    }

    /// From now on it runs fast by so many parts per million. It does not jump.
    pub fn steer(&mut self, now: Time, drift: i64) {
        *self = Self {
            offset: self.local(now).0,
            since: now,
            drift,
        };
    }

    /// What the clock shows at `time`.
    #[must_use]
    pub fn local(&self, time: Time) -> MonoTime {
        let passed = i128::from(time) - i128::from(self.since);
        let shown = i128::from(self.offset) + passed * i128::from(1_000_000 + self.drift) / 1_000_000;
        MonoTime(u64::try_from(shown).unwrap_or(0))
    }

    /// The first time at which the clock shows `local` or more; never, for [`MonoTime::NEVER`].
    #[must_use]
    pub fn world(&self, local: MonoTime) -> Time {
        if local == MonoTime::NEVER {
            return Time::MAX;
        }
        let ahead = i128::from(local.0) - i128::from(self.offset);
        let time = i128::from(self.since) + ahead * 1_000_000 / i128::from(1_000_000 + self.drift) + 1;
        u64::try_from(time).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_passed_at_the_time_given_for_it() {
        for drift in [-900, 0, 900] {
            let clock = Clock::new(77 * SEC, drift);
            for local in [77 * SEC, 78 * SEC + 1, 999 * SEC + 12_345] {
                let local = MonoTime(local);
                let time = clock.world(local);
                assert!(local <= clock.local(time));
                assert!(clock.local(time.saturating_sub(2 * 1000)) <= local);
            }
        }
    }

    #[test]
    fn a_clock_that_is_steered_does_not_jump() {
        let mut clock = Clock::new(5 * SEC, 700);
        let before = clock.local(100 * SEC);
        clock.steer(100 * SEC, -900);
        assert_eq!(clock.local(100 * SEC), before);
        assert!(clock.local(200 * SEC) < before.plus(std::time::Duration::from_secs(100)));
    }
}
