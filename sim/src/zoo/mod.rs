//! Planted bugs: each takes one safeguard away from the adapters or from what the core is told. A sweep that does not find
//! each of them proves nothing.

use crate::check::Violation;
use crate::record::Keep;
use crate::run::Job;

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A lock that is free counts as vacated: nobody waits for the old right.
    NoOldRight,
    /// The right is counted from when the answer came.
    RightFromReceiveTime,
    /// A keep-alive alone renews: no transaction confirms that the key is ours.
    RenewWithoutTransaction,
    /// `valid_until` is not looked at where the order is executed, and the guard is armed from then on.
    NoCheckAtExecution,
    /// A failsafe round counts as granted by all, whoever answered.
    FailsafeWithoutGrants,
    /// A member grants without its core being asked, so it promises nothing.
    GrantWithoutPromise,
    /// A stop is reported done when it has begun: the lock is released over a server that still acknowledges.
    ReleaseBeforeStop,
    /// The guard does not kill.
    GuardAsleep,
    /// The guard is not armed for a promotion.
    PromoteUnguarded,
    /// The timeline after one's own is made, whatever others have made.
    TimelineNotReserved,
    /// A transaction that timed out counts as not done.
    UnknownIsFailure,
    /// The lock is taken although a reign that was not seen has passed.
    AcquireUnseenReign,
    /// A release ends whatever reign it meets.
    ReleaseAnyReign,
    /// A restarted agent does not ask the guard for its deadline.
    BootWithoutGuard,
}

impl Bug {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::NoOldRight,
        Self::RightFromReceiveTime,
        Self::RenewWithoutTransaction,
        Self::NoCheckAtExecution,
        Self::FailsafeWithoutGrants,
        Self::GrantWithoutPromise,
        Self::ReleaseBeforeStop,
        Self::GuardAsleep,
        Self::PromoteUnguarded,
        Self::TimelineNotReserved,
        Self::UnknownIsFailure,
        Self::AcquireUnseenReign,
        Self::ReleaseAnyReign,
        Self::BootWithoutGuard,
    ];
}

/// Looks for a bug: the first seed that finds it, and what it found.
#[must_use]
pub fn hunt(bug: Bug, seeds: std::ops::Range<u64>) -> Option<(u64, Violation)> {
    seeds.into_iter().find_map(|seed| {
        let job = Job {
            bug: Some(bug),
            ..Job::seed(seed)
        };
        Some((seed, job.run(Keep::Hash).violation?))
    })
}
