//! Planted bugs: each takes one safeguard away. A sweep that does not find each of them proves nothing.
//!
//! Those of the state machine are flaws that the core itself can be given ([`surus_core::zoo`]); the others are mistakes
//! of the adapters and the driver around it, made where the worlds carry out orders.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

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
    PromoteUnguarded "the guard is not armed for a promotion",
    TimelineNotReserved "the timeline after one's own is made, whatever others have made",
    UnknownIsFailure "a transaction that timed out counts as not done",
    AcquireUnseenReign "the lock is taken although a reign that was not seen has passed",
    ReleaseAnyReign "a release ends whatever reign it meets",
    RenewAnyStatus "a renewal writes over whatever `status` says by then",
    BootWithoutGuard "a restarted agent does not ask the guard for its deadline",
}

impl Bug {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        OUTSIDE
            .iter()
            .copied()
            .chain(Flaw::ALL.iter().copied().map(Self::Core))
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

/// Looks for a bug: the first seed that finds it, and what it found.
#[must_use]
pub fn hunt(bug: Bug, seeds: Range<u64>) -> Option<(u64, Violation)> {
    seeds.into_iter().find_map(|seed| {
        let job = Job {
            bug: Some(bug),
            ..Job::seed(seed)
        };
        Some((seed, job.run(Keep::Hash).violation?))
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
