//! Faults of etcd: its members, and what they answer.

use std::fmt;

use super::Target;
use crate::text::{Name, Nanos, Value, verbs, words};

/// A member of etcd, by name or by its part when the fault strikes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EtcdTarget {
    /// This one.
    Member(Name),
    /// The leader of the present term.
    Leader,
    /// A follower, by chance.
    Follower,
    /// Any, by chance.
    Any,
    /// All.
    All,
}

impl Value for EtcdTarget {
    const WHAT: &'static str = "an etcd member's name, leader, follower, any or all";
    const WORDS: &'static [&'static str] = &["leader", "follower", "any", "all"];

    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "leader" => Self::Leader,
            "follower" => Self::Follower,
            "any" => Self::Any,
            "all" => Self::All,
            name => Self::Member(Name::read(name)?),
        })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(name) => name.write(f),
            Self::Leader => f.write_str("leader"),
            Self::Follower => f.write_str("follower"),
            Self::Any => f.write_str("any"),
            Self::All => f.write_str("all"),
        }
    }

    fn names(&self, visit: &mut dyn FnMut(&Name)) {
        if let Self::Member(name) = self {
            visit(name);
        }
    }

    #[cfg(test)]
    fn sample(dice: &mut crate::text::Dice) -> Self {
        match dice.below(5) {
            0 => Self::Leader,
            1 => Self::Follower,
            2 => Self::Any,
            3 => Self::All,
            _ => Self::Member(Name::sample(dice)),
        }
    }
}

words! {
    /// A kind of request.
    Rpc "a request: any, range, put, txn, grant, keepalive, revoke, watch or member-list" {
        /// Any of them.
        Any "any",
        /// Range.
        Range "range",
        /// Put.
        Put "put",
        /// Txn.
        Txn "txn",
        /// LeaseGrant.
        Grant "grant",
        /// LeaseKeepAlive.
        KeepAlive "keepalive",
        /// LeaseRevoke.
        Revoke "revoke",
        /// Watch.
        Watch "watch",
        /// MemberList.
        MemberList "member-list",
    }
}

words! {
    /// What gets lost of a request.
    Lost "request, reply, or neither (delivered twice)" {
        /// The request: it has no effect.
        Request "request",
        /// The reply: it has its effect, and nobody hears of it.
        Reply "reply",
        /// Nothing: it is delivered twice.
        Twice "twice",
    }
}

words! {
    /// An answer that is an error, by etcd's message.
    ErrorCode "an error of etcd such as unavailable, no-leader or timeout" {
        /// Unavailable, in general.
        Unavailable "unavailable",
        /// `etcdserver: no leader` (Unavailable).
        NoLeader "no-leader",
        /// `etcdserver: leader changed` (Unavailable).
        LeaderChanged "leader-changed",
        /// `etcdserver: not leader` (FailedPrecondition).
        NotLeader "not-leader",
        /// `etcdserver: request timed out` (Unavailable): the fate is unknown.
        Timeout "timeout",
        /// `etcdserver: request timed out, possibly due to previous leader failure` (Unavailable).
        TimeoutLeaderFail "timeout-leader-fail",
        /// `etcdserver: request timed out, possibly due to connection lost` (Unavailable).
        TimeoutConnectionLost "timeout-connection-lost",
        /// `etcdserver: server stopped` (Unavailable).
        Stopped "stopped",
        /// `etcdserver: unhealthy cluster` (Unavailable).
        Unhealthy "unhealthy",
        /// `etcdserver: too many requests` (ResourceExhausted).
        TooManyRequests "too-many-requests",
        /// `etcdserver: mvcc: database space exceeded` (ResourceExhausted).
        NoSpace "no-space",
        /// `etcdserver: request is too large` (InvalidArgument).
        TooLarge "too-large",
        /// `etcdserver: requested lease not found` (NotFound).
        LeaseNotFound "lease-not-found",
        /// `etcdserver: lease already exists` (FailedPrecondition).
        LeaseExists "lease-exists",
        /// `etcdserver: mvcc: required revision has been compacted` (OutOfRange).
        Compacted "compacted",
        /// `etcdserver: mvcc: required revision is a future revision` (OutOfRange).
        FutureRevision "future-revision",
        /// `etcdserver: invalid auth token` (Unauthenticated).
        InvalidToken "invalid-token",
        /// `etcdserver: permission denied` (PermissionDenied).
        PermissionDenied "permission-denied",
        /// `etcdserver: revision of auth store is old` (InvalidArgument).
        AuthOld "auth-old",
        /// `etcdserver: corrupt cluster` (DataLoss).
        Corrupt "corrupt",
        /// Unknown: what etcd makes of an error it has no code for.
        Unknown "unknown",
        /// Internal.
        Internal "internal",
        /// DeadlineExceeded.
        DeadlineExceeded "deadline-exceeded",
        /// Canceled.
        Canceled "canceled",
    }
}

words! {
    /// Keys under the cluster's prefix.
    Keys "all, or a key: leader, status, config, initialize, members, history, failover, failsafe or sync" {
        /// All of them.
        All "all",
        /// `leader`.
        Leader "leader",
        /// `status`.
        Status "status",
        /// `config`.
        Config "config",
        /// `initialize`.
        Initialize "initialize",
        /// `members/…`.
        Members "members",
        /// `history`.
        History "history",
        /// `failover`.
        Failover "failover",
        /// `failsafe`.
        Failsafe "failsafe",
        /// `sync`.
        Sync "sync",
    }
}

verbs! {
    /// With etcd.
    EtcdFault "a fault of etcd" {
        /// SIGKILL to a member; it starts again from its disk after `back`.
        Kill "kill-etcd" (
            /// Which.
            member: EtcdTarget,
        ) {
            /// Until it is started again.
            back "back": Nanos = Nanos::FOREVER,
        },
        /// SIGSTOP to a member: it misses elections and wakes with the term it knew.
        Freeze "freeze-etcd" (
            /// Which.
            member: EtcdTarget,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// Each request to a member takes longer: a slow disk.
        Slow "slow-etcd" (
            /// Which.
            member: EtcdTarget,
        ) {
            /// By up to this.
            by "by": Nanos,
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// The members elect another leader.
        Elect "elect-etcd" () {
            /// Without a leader for this long.
            outage "outage": Nanos = Nanos::ZERO,
        },
        /// So many members stop that there is no quorum.
        NoQuorum "no-quorum" () {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// The leader hangs in a flush, is deposed, and wakes still believing that it leads: it answers keep-alives that the
        /// cluster does not know of, and revokes leases that live.
        Depose "depose-etcd" () {
            /// How long it hangs.
            span "for": Nanos,
        },
        /// The lease of a member's keys ends early.
        LeaseEarly "lease-early" (
            /// Whose.
            node: Target,
        ) {},
        /// No lease ends, though nobody renews it.
        LeaseLate "lease-late" () {
            /// By how much.
            by "by": Nanos,
        },
        /// A member of etcd answers from an old revision, and says that it is current.
        StaleReads "stale-reads" (
            /// Which.
            member: EtcdTarget,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// Reads work and writes fail: the NOSPACE alarm.
        ReadOnly "read-only" () {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// Somebody deletes keys of the cluster.
        Wipe "wipe" (
            /// Which.
            keys: Keys,
        ) {},
        /// The history of revisions is compacted up to now.
        Compact "compact" () {},
        /// A member's watch is silent, and nothing says so.
        WatchGap "watch-gap" (
            /// Whose.
            node: Target,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// A member's watch is cancelled by compaction, with the connection left open.
        WatchCancel "watch-cancel" (
            /// Whose.
            node: Target,
        ) {},
        /// A member's watch tells events again that it told before.
        WatchRepeat "watch-repeat" (
            /// Whose.
            node: Target,
        ) {},
        /// A member's watch hangs on this etcd member only, its requests on the others.
        PinWatch "pin-watch" (
            /// Whose.
            node: Target,
        ) {
            /// Where.
            member "member": EtcdTarget,
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// Requests of a member of the cluster are answered with an error, or with one although they had their effect.
        Error "etcd-error" (
            /// Whose.
            node: Target,
            /// Which.
            code: ErrorCode,
        ) {
            /// Of which requests.
            rpc "rpc": Rpc = Rpc::Any,
            /// The request had its effect all the same.
            applied "applied": bool = false,
            /// The next so many; zero is all for `for`.
            count "count": u64 = 1,
            /// At the latest until then.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// A request of a member of the cluster, or its reply, gets lost.
        Lose "lose" (
            /// Whose.
            node: Target,
            /// What.
            part: Lost,
        ) {
            /// Of which requests.
            rpc "rpc": Rpc = Rpc::Any,
            /// The next so many; zero is all for `for`.
            count "count": u64 = 1,
            /// At the latest until then.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// A request of a member of the cluster is answered late: the connection stands, nothing comes.
        Delay "delay" (
            /// Whose.
            node: Target,
        ) {
            /// By this.
            by "by": Nanos,
            /// Of which requests.
            rpc "rpc": Rpc = Rpc::Any,
            /// The next so many; zero is all for `for`.
            count "count": u64 = 1,
            /// At the latest until then.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// The token of a member's connection is not valid any more.
        ExpireToken "expire-token" (
            /// Whose.
            node: Target,
        ) {},
    }
}
