//! Planted bugs: each takes one safeguard away. A sweep that does not find each of them proves nothing.
//!
//! Those of the state machine are flaws that the core itself can be given ([`surus_core::zoo`]); the others are mistakes
//! of the adapters and the driver around it, made where the worlds carry out orders.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use surus_core::zoo::Flaw;

use crate::check::Violation;
use crate::record::Keep;
use crate::run::Job;

macro_rules! bugs {
    ($($variant:ident $text:literal,)*) => {
        /// A planted bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "`text` is the documentation of each")]
        pub enum Bug {
            /// In the state machine.
            Core(Flaw),
            $($variant,)*
        }

        /// Those around the state machine.
        const OUTSIDE: &[Bug] = &[$(Bug::$variant,)*];

        impl Bug {
            /// Its name, as the command line takes it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    Self::Core(flaw) => flaw.name(),
                    $(Self::$variant => stringify!($variant),)*
                }
            }

            /// What is wrong where it is planted.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    Self::Core(flaw) => flaw.text(),
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

bugs! {
    NoOldRight "a lock that is free counts as vacated: nobody waits for the old right",
    RightFromReceiveTime "the right is counted from when the answer came",
    RenewWithoutTransaction "a keep-alive alone renews: no transaction confirms that the key is ours",
    NoCheckAtExecution "`valid_until` is not looked at where the order is executed, and the guard is armed from then on",
    FailsafeWithoutGrants "a failsafe round counts as granted by all, whoever answered",
    GrantWithoutPromise "a member grants without its core being asked, so it promises nothing",
    ReleaseBeforeStop "a stop is reported done when it has begun: the lock is released over a server that still acknowledges",
    GuardAsleep "the guard does not kill",
    PromoteUnguarded "the guard hears of no deadline until a promotion is over",
    StartUnguarded "the guard is not armed for the start of a primary",
    TimelineNotReserved "the timeline after one's own is made, whatever others have made",
    UnknownIsFailure "a transaction that timed out counts as not done",
    AcquireUnseenReign "the lock is taken although a reign that was not seen has passed",
    AcquireTakesAll "a lock that an earlier order created is taken to have written what this one says",
    ReleaseAnyReign "a release ends whatever reign it meets",
    EndAnyStatus "the key of a leader that has renewed meanwhile is taken away",
    RenewAnyStatus "a renewal writes over whatever `status` says by then",
    BootWithoutGuard "a restarted agent does not ask the guard for its deadline",
    GuardSlow "the guard kills two seconds after its deadline",
    GuardClockStops "the guard's clock stops while the host stands still",
    PostgresOutlivesGuard "PostgreSQL is not told of its guard's death, and runs on",
    DeadlineSaidTooSoon "the guard's deadline is reported as set before the guard has it",
    UnknownIsSuccess "a renewal that was not answered counts as done",
    KeepAliveOfAnyTerm "keep-alive and transaction may be answered under two terms",
    AnswerOfAnyAttempt "an answer counts for the attempt that is under way, whichever it answers",
    AcquireWithoutStatus "the lock is taken without a word in `status`: what the last reign said of itself stands",
    RenewWithoutStatus "a renewal does not write `status`: nobody else can time it",
    StaleReads "reads are answered by any member of etcd from what it has",
    LookOfBefore "a look at PostgreSQL is answered with what the look before has seen",
    OtherRoundsGrants "a grant counts for the failsafe round that is under way, whichever it answers",
    SilenceGrants "in a failsafe round a member that is not there counts as one that granted",
    HealthByRole "`/primary` goes by the server's role, whatever its right",
    SettingsDropped "a change of settings that comes while orders are under way is dropped",
    NamesSaidTooSoon "the synchronous standbys are reported as set before every process of PostgreSQL goes by them",
    TimerRounded "the driver wakes the core on its rounds only, not when it asked for it",
}

impl Bug {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        OUTSIDE
            .iter()
            .copied()
            .chain(Flaw::ALL.iter().copied().map(Self::Core))
    }

    /// What else stops the harm in this world, if something does: then taking this safeguard alone away shows nothing, and it is not
    /// hunted.
    #[must_use]
    pub fn covered(self) -> Option<&'static str> {
        match self {
            Self::Core(flaw) => flaw.covered(),
            _ => None,
        }
    }

    /// The flaw of the state machine, if it is one.
    #[must_use]
    pub fn flaw(self) -> Option<Flaw> {
        match self {
            Self::Core(flaw) => Some(flaw),
            _ => None,
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Bug {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::all().find(|bug| bug.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::all().map(Self::name).collect();
            format!("there is no planted bug `{name}`; there are {}", names.join(", "))
        })
    }
}

/// The seeds in which the world without a bug fails, each looked into at most once: what fails without a bug does not show it.
#[derive(Debug, Default)]
pub struct Clean(Mutex<BTreeMap<u64, bool>>);

impl Clean {
    /// Whether the same run without its bug ends well.
    #[must_use]
    pub fn is(&self, job: &Job) -> bool {
        let known = |clean: &Self| clean.0.lock().ok()?.get(&job.seed).copied();
        if let Some(clean) = known(self) {
            return clean;
        }
        let without = Job {
            bug: None,
            ..job.clone()
        };
        let clean = without.run(Keep::Hash).violation.is_none();
        if let Ok(mut known) = self.0.lock() {
            known.insert(job.seed, clean);
        }
        clean
    }
}

/// Looks for a bug: the first of the jobs that finds it and ends well without it, and what it found.
#[must_use]
pub fn hunt(jobs: impl IntoIterator<Item = Job>, clean: &Clean) -> Option<(Job, Violation)> {
    jobs.into_iter().find_map(|job| {
        let violation = job.run(Keep::Hash).violation?;
        clean.is(&job).then_some((job, violation))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own_and_is_found_by_it() {
        let names: BTreeSet<_> = Bug::all().map(Bug::name).collect();
        assert_eq!(names.len(), Bug::all().count());
        assert!(60 <= names.len(), "{} bugs", names.len());
        for bug in Bug::all() {
            assert_eq!(bug.name().parse(), Ok(bug));
        }
        assert!("Nonesuch".parse::<Bug>().is_err());
    }
}
