//! What must hold, at a time or in the whole run.

use crate::fault::Target;
use crate::text::{Name, Nanos, verbs, words};

words! {
    /// What a member is, by its PostgreSQL and not by what its agent says.
    Role "primary, replica or down" {
        /// It takes writes.
        Primary "primary",
        /// It runs in recovery.
        Replica "replica",
        /// PostgreSQL does not run, or is on its way down and lets nobody in.
        Down "down",
    }
}

verbs! {
    /// What must hold. One with `within` may come true until then; at the end of a story that counts from when the faults ended.
    Expectation "an expectation" {
        /// Never two that take writes, but for the hand-over that the lease bounds.
        NoDualPrimary "no-dual-primary" () {},
        /// So many acknowledged transactions at most are missing at the end.
        Lost "lost=" (
            /// Transactions.
            max: u64,
        ) {},
        /// There is a primary that takes writes.
        Primary "primary" () {
            /// And it is this member.
            is "is": Target = Target::Any,
            /// In this time.
            within "within": Nanos = Nanos::ZERO,
        },
        /// Nobody takes writes.
        NoPrimary "no-primary" () {
            /// In this time.
            within "within": Nanos = Nanos::ZERO,
        },
        /// A member is what is said.
        Role "role" (
            /// Which.
            node: Target,
            /// What.
            role: Role,
        ) {
            /// In this time.
            within "within": Nanos = Nanos::ZERO,
        },
        /// A client's write is acknowledged.
        Writes "writes" () {
            /// This client's; else anybody's.
            client "client": Option<Name> = None,
            /// In this time.
            within "within": Nanos,
        },
        /// One primary with the lock, everybody else streams from it and has what it has.
        Healthy "healthy" () {
            /// In this time.
            within "within": Nanos = Nanos::ZERO,
        },
        /// The primary of when the faults began is the primary, and was all the time.
        NoFailover "no-failover" () {},
        /// So many promotions at most, that of the first primary left out.
        Promotions "promotions<=" (
            /// Promotions.
            max: u64,
        ) {},
        /// No longer than this between two acknowledged writes, from the first on.
        Outage "outage<=" (
            /// How long.
            max: Nanos,
        ) {
            /// This client's; else anybody's.
            client "client": Option<Name> = None,
        },
        /// A member never takes writes.
        NeverPrimary "never-primary" (
            /// Who.
            node: Target,
        ) {},
        /// A member's data directory is neither rewound nor cloned over.
        DataKept "data-kept" (
            /// Whose.
            node: Target,
        ) {},
        /// Who asks a router's door for this role reaches a server of this role.
        Door "door" (
            /// Whose door.
            router: Name,
            /// Which.
            role: Role,
        ) {
            /// In this time.
            within "within": Nanos = Nanos::ZERO,
        },
        /// A parameter of a member's PostgreSQL is what is said (SHOW).
        Parameter "parameter" (
            /// Whose.
            node: Target,
            /// Which.
            name: Name,
            /// Its value, as PostgreSQL shows it.
            value: Name,
        ) {
            /// In this time.
            within "within": Nanos = Nanos::ZERO,
        },
        /// A rule of the core fires somewhere, by its code or name.
        Decides "decides" (
            /// Which.
            rule: Name,
        ) {
            /// At this member.
            on "on": Target = Target::Any,
            /// In this time.
            within "within": Nanos = Nanos::ZERO,
        },
        /// A guard of the core stops a rule somewhere, by its code.
        Blocks "blocks" (
            /// Which.
            guard: Name,
        ) {
            /// At this member.
            on "on": Target = Target::Any,
            /// In this time.
            within "within": Nanos = Nanos::ZERO,
        },
    }
}

impl Expectation {
    /// How long it may take to come true.
    #[must_use]
    pub const fn within(&self) -> Nanos {
        match self {
            Self::Primary { within, .. }
            | Self::NoPrimary { within }
            | Self::Role { within, .. }
            | Self::Writes { within, .. }
            | Self::Healthy { within }
            | Self::Door { within, .. }
            | Self::Parameter { within, .. }
            | Self::Decides { within, .. }
            | Self::Blocks { within, .. } => *within,
            Self::NoDualPrimary {}
            | Self::Lost { .. }
            | Self::NoFailover {}
            | Self::Promotions { .. }
            | Self::Outage { .. }
            | Self::NeverPrimary { .. }
            | Self::DataKept { .. } => Nanos::ZERO,
        }
    }
}
