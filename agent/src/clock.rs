//! The clocks of the machine, and the only place that reads them.

use surus_core::types::MonoTime;

use crate::task::BoxFuture;

/// Where the agent takes time from: the machine's clocks in production, simulated ones in the simulator.
pub trait Clock: Send + Sync + 'static {
    /// The monotonic clock that counts suspend.
    fn now(&self) -> MonoTime;
    /// Wall time as a duration since 1970: data for people, and for schedules that people wrote.
    fn wall(&self) -> std::time::Duration;
    /// Returns when [`Clock::now`] has reached `at`. The machine's own sleeps do not count suspend, so it may return late then.
    fn sleep_until(&self, at: MonoTime) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(at.since(self.now())))
    }
}

/// CLOCK_BOOTTIME and CLOCK_REALTIME.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> MonoTime {
        MonoTime(nanoseconds(rustix::time::ClockId::Boottime))
    }

    fn wall(&self) -> std::time::Duration {
        std::time::Duration::from_nanos(nanoseconds(rustix::time::ClockId::Realtime))
    }
}

fn nanoseconds(clock: rustix::time::ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    // Neither clock is negative on a machine whose date is after 1970.
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
