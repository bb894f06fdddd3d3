//! Planted flaws: each takes one safeguard away, so that a simulation can prove that it would notice.
//!
//! With the feature `zoo`, which nothing that is shipped turns on, a run plants a [`Flaw`] in its thread and the safeguard asks
//! [`lacks`]. Without the feature `lacks` is the constant `false`, and the compiled core is as if this file were not there.

macro_rules! flaws {
    ($($variant:ident $text:literal,)*) => {
        /// A safeguard of the state machine that can be taken away.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "`text` is the documentation of each")]
        pub enum Flaw { $($variant,)* }

        impl Flaw {
            /// Every flaw.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, as the simulator's command line takes it.
            #[must_use]
            pub fn name(self) -> &'static str { match self { $(Self::$variant => stringify!($variant),)* } }

            /// What is wrong with a core that has it.
            #[must_use]
            pub fn text(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
        }
    };
}

flaws! {
    OldRightIgnored "a free lock is used while the last leader's right may run",
    OldRightAtPromotionIgnored "a lock that came late is used without another look at the old right",
    RenewalsUnseen "another's right is timed by its key alone, not by its renewals in `status`",
    ReignEndedEarly "the key of a leader whose right may still run is taken away",
    RefusedUnawaited "members that lost their keys are waited for no longer while etcd refuses what they write",
    ReturnUnawaited "a leader's key is taken away as soon as etcd is back, before the leader could renew",
    NewcomerDoesNotWait "a node that has just begun believes that no right is running",
    OwnTtlForOthers "another's right is timed with one's own ttl, not with the one it claims",
    LongRightKept "a shorter ttl is told at once, and the right that a longer one gave is kept",
    PromiseAsKnown "a failsafe grant binds for the ttl that who grants knows of, not for what it was asked for",
    LongRightByGrants "failsafe grants give a right of the newest ttl, which who granted may not know",
    RightForever "a renewal gives a right of twice the ttl",
    GuardTooLate "the guard's deadline lies two seconds after the right",
    PromiseForgotten "a member that granted a primary its stay keeps no promise of it, and takes part in the race",
    GrantWhileTaking "a member grants while its own order to take the lock is under way",
    GrantToTwo "a member grants to a second primary while the first one's grant binds",
    GrantAsLeader "a member grants although it leads itself",
    FailsafeByMajority "a failsafe round counts when half of the members granted",
    FailsafeListUnread "who is not on the failsafe list takes part in the race",
    FailsafeOffAtOnce "who is not on the failsafe list takes part in the race as soon as the mode is off",
    ListOnGrants "who may be elected is named on the failsafe list while the right rests on grants without it",
    FailsafeListInFlight "members on a list that may have arrived are not asked",
    SyncUnheeded "who is not named in the sync key takes part in the race",
    SyncNamesFirst "the synchronous standbys are changed before the sync key allows it",
    SyncKeyFirst "the sync key names a standby before commits wait for it",
    SyncUnconfirmed "the sync key names a standby that has not got what was committed before",
    SyncDoubtIgnored "a write of the sync key that was not answered is taken not to arrive any more",
    VotesBeforeTheEnd "votes count that were given while the last primary could still acknowledge commits",
    VotesOfThePast "a vote of an older timeline counts whatever its position",
    GateOpenedAtOnce "clients are let in before standbys have what they see",
    PromotedUnlisted "who leads by a person's word is promoted before the failsafe list names it",
    PromotedUnnamed "a primary is promoted while the sync key still names those of the reign before",
    PauseUnheeded "a replica takes part in a race during a pause",
    NofailoverUnheeded "a member that may never lead takes part in the race",
    LagUnheeded "a replica far behind takes the lock",
    NewTimelineLags "a replica of a reign that published nothing lags behind what the reign before it published",
    AncestryUnheeded "a replica of an old timeline takes the lock, whatever it holds beyond the fork",
    ForkUnrecorded "a timeline whose leader was lost before it recorded its history is taken to have left where another did",
    DoomedByHearsay "a data directory is given up for a leader of whom only an outdated view tells",
    SilentRenewalCounts "a renewal of which `status` tells nobody, for etcd has no space, gives a right",
    UsurperUnknown "a timeline that somebody made by hand counts as the cluster's newest",
    MembersForgotten "members whose keys vanished with the leader's are not waited for in a race",
    NumberForAncestry "a timeline of a higher number counts as a successor, whatever it forked from",
    PromotionUnconsidered "a promotion under the lock rests on what the order to take it rested on",
    HearsayBelieved "a member that says it may not lead is passed over in the very instant in which the lock becomes free",
    PeersUnasked "the race does not wait for the positions of others",
    PeerAheadUnheeded "a replica takes the lock although another has more",
    PeerPrimaryUnheeded "a primary takes the lock beside another that runs",
    OldTimelineLeads "a primary of an old timeline takes the free lock",
    NextUnreserved "the timeline of a promotion is not reserved",
    UnknownPromotion "a promotion of unknown end counts as one that will not come to pass",
    UnfencedBeforeBoot "a server without a deadline that the last agent said of in a pause, and that is no primary yet, is taken for a replica",
    PromotionBeforeBoot "a restarted agent forgets that its predecessor may have been promoting",
    LostLockUnheeded "a primary goes on when another holds the lock, until its right ends",
    UnfinishedPromotion "a promotion that is not wanted any more is left to itself",
    ReleaseForgotten "after a release that was not answered the reign goes on as before",
    StandbyUnawaited "a hand-over does not wait for a standby to have the shutdown checkpoint",
    PromiseOutlived "a failsafe grant keeps who gave it from the lock that its leader has handed over since",
    PreferredFirst "the candidate that a person named waits for one of a higher failover_priority",
    HalfMadeLeads "a server whose making was broken off counts as one that may lead",
    SecondCluster "a cluster is created beside one that has lived",
    ForeignData "a data directory of another cluster is used",
    LeaderRecloned "a wish to rebuild outlives winning the lock, and a leader obeys it",
    FormerHistory "the history of a former leader counts as the present one's",
    EarlyHistory "the leader is asked for its history before it is a primary, and what it says counts",
    RewindBeforeCheckpoint "pg_rewind does not wait for the new primary's checkpoint",
    ForkIgnored "an ex-primary that went on past the fork is started as a replica",
    CrashCountsAsClean "an ex-primary that crashed is taken for one that stopped cleanly",
    DeadlineUnrepeated "the guard is not told its deadline again after an order that armed it",
    DisarmingRace "something becomes writable while the guard is told to lift its deadline",
    OldViewTaken "a view of an older revision replaces a newer one",
    UnfencedUnheeded "the lock is taken beside a primary whose deadline was lifted",
    OldLookTaken "a look at PostgreSQL from before its end counts",
    OldPeerTaken "an older answer of a peer replaces a newer one",
    AnyCompletion "a completion counts for whatever order its lane carries out now",
    StopUnpaced "a stop that fails at once is repeated at once",
}

impl Flaw {
    /// What else stops the harm that this flaw would do. Where two safeguards cover one another, taking one away shows nothing; either
    /// one of the two is too much, or it is there for what no simulation has (members of another kind, clocks beyond their bound).
    #[must_use]
    pub fn covered(self) -> Option<&'static str> {
        const IN_TIME: &str = "whoever leads has waited until every right that this could touch was over";
        Some(match self {
            Self::OldRightAtPromotionIgnored => {
                "a lock that comes late comes only if `status` has not changed since the old right was waited for"
            }
            Self::GrantWhileTaking
            | Self::GrantToTwo
            | Self::GrantAsLeader
            | Self::PeerPrimaryUnheeded
            | Self::LostLockUnheeded => IN_TIME,
            Self::OldTimelineLeads => {
                "an old primary that still runs is in a pause, where `unfenced` keeps it from the lock"
            }
            Self::FormerHistory => "a history is asked for again when the leader's timeline is beyond it",
            Self::CrashCountsAsClean => {
                "a replica that runs and does not stream is compared anew, by what it has replayed"
            }
            Self::DisarmingRace => "orders reach the guard in the order in which they were given",
            Self::OldLookTaken => "nothing is decided on a look from before the last order ended",
            Self::OldPeerTaken => {
                "an answer from before the lock was free, or before the stop, does not count"
            }
            _ => return None,
        })
    }
}

/// Whether the running core has this flaw.
#[cfg(not(feature = "zoo"))]
#[inline(always)]
#[must_use]
pub const fn lacks(_: Flaw) -> bool {
    false
}

#[cfg(feature = "zoo")]
pub use planted::{Planted, lacks, plant};

#[cfg(feature = "zoo")]
mod planted {
    use std::cell::Cell;

    use super::Flaw;

    thread_local! {
        static FLAW: Cell<Option<Flaw>> = const { Cell::new(None) };
    }

    /// Whether the cores of this thread have this flaw.
    #[must_use]
    pub fn lacks(flaw: Flaw) -> bool {
        FLAW.get() == Some(flaw)
    }

    /// While it lives, the cores of this thread have the flaw.
    #[derive(Debug)]
    #[must_use = "the flaw is gone when this is dropped"]
    pub struct Planted(Option<Flaw>);

    /// Gives the cores of this thread a flaw.
    pub fn plant(flaw: Option<Flaw>) -> Planted {
        Planted(FLAW.replace(flaw))
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            FLAW.set(self.0);
        }
    }
}
