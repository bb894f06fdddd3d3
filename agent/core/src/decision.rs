//! Why a node does what it does, and why it does not do what one might expect.
//!
//! One value feeds the log line, `GET /explain`, `surus explain`, golden files and the simulator's trace. Every rule and
//! guard has a stable code; free text is only ever a rendering.

use std::fmt;
use std::time::Duration;

use crate::action::Action;
use crate::types::{Generation, Lsn, MonoTime, NodeName, SystemId, Timeline};

/// What one call of [`crate::Node::step`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an action that is not executed leaves the node believing it acted"]
pub struct Step {
    /// Always present: to hold still is a decision too.
    pub decision: Decision,
    /// Orders, each complete.
    pub actions: Vec<Action>,
    /// When to call again at the latest.
    pub wake: Wake,
}

/// The next deadline, and who wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wake {
    /// When.
    pub at: MonoTime,
    /// For what.
    pub why: &'static str,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decision {
    /// Counts decisions; equal times stay distinguishable.
    pub seq: u64,
    /// When.
    pub at: MonoTime,
    /// The rule that fired.
    pub rule: Rule,
    /// Facts it rests on.
    pub because: Vec<Evidence>,
    /// Rules that wanted to fire, and what stopped each.
    pub blocked: Vec<(Rule, Guard)>,
    /// The reign the node believes itself in.
    pub generation: Generation,
}

impl Decision {
    /// Says the same as `other`, but for times and counters: nothing new to log.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.rule == other.rule
            && self
                .blocked
                .iter()
                .map(|(rule, guard)| (rule, guard.code()))
                .eq(other.blocked.iter().map(|(rule, guard)| (rule, guard.code())))
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seq: _,
            at: _,
            rule,
            because,
            blocked,
            generation: _,
        } = self;
        write!(f, "{} {}: {}", rule.code(), rule.name(), rule.text())?;
        for (index, evidence) in because.iter().enumerate() {
            write!(f, "{} {evidence}", if index == 0 { ";" } else { "," })?;
        }
        for (rule, guard) in blocked {
            write!(f, "; not {}: {guard}", rule.name())?;
        }
        Ok(())
    }
}

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident = $code:literal $name:literal $text:literal,)*) => {
        /// The rules, in the order in which they are tried.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule { $($(#[$doc])* $variant,)* }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code.
            #[must_use]
            pub fn code(self) -> &'static str { match self { $(Self::$variant => $code,)* } }

            /// The stable name.
            #[must_use]
            pub fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }

            /// What it means, in a sentence.
            #[must_use]
            pub fn text(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
        }
    };
}

rules! {
    /// See `rules/fence.rs`.
    StopBeforeRightEnds = "R01" "stop-before-right-ends" "the right to be primary is about to end, so PostgreSQL is stopped",
    /// See `rules/fence.rs`.
    StopLostLock = "R02" "stop-lost-lock" "another member holds the lock, so this primary is stopped",
    /// See `rules/fence.rs`.
    StopWithoutRight = "R03" "stop-without-right" "this primary has no right to be one and may not take the lock",
    /// See `rules/shutdown.rs`.
    Leave = "R05" "leave" "the agent was asked to end",
    /// See `rules/identity.rs`.
    ForeignCluster = "R06" "foreign-cluster" "the data directory belongs to another cluster",
    /// See `rules/pause.rs`.
    Paused = "R10" "paused" "the cluster is paused: nothing is done by itself",
    /// See `rules/operator.rs`.
    ObeyOperator = "R11" "obey-operator" "an operator asked for it",
    /// See `rules/mod.rs`.
    AwaitView = "R12" "await-view" "the cluster's state in etcd is not known yet",
    /// See `rules/mod.rs`.
    AwaitProbe = "R13" "await-probe" "PostgreSQL is being looked at",
    /// See `rules/mod.rs`.
    Busy = "R14" "busy" "an order to PostgreSQL is under way",
    /// See `rules/handover.rs`.
    HandOver = "R20" "hand-over" "a planned hand-over of the lock is under way",
    /// See `rules/bootstrap.rs`.
    CreateCluster = "R30" "create-cluster" "there is no cluster yet and this node creates it",
    /// See `rules/bootstrap.rs`.
    Clone = "R31" "clone" "the data directory is empty and is cloned from a member",
    /// See `rules/bootstrap.rs`.
    AwaitSource = "R32" "await-source" "there is nothing to clone from yet",
    /// See `rules/bootstrap.rs`.
    NeedHelp = "R33" "need-help" "the data directory needs a person",
    /// See `rules/bootstrap.rs`.
    StopHalfMade = "R34" "stop-half-made" "PostgreSQL runs in a data directory that nobody is making any more, and is stopped",
    /// See `rules/stopped.rs`.
    RestartPrimary = "R40" "restart-primary" "this primary's PostgreSQL ended and is started again in place",
    /// See `rules/stopped.rs`.
    GiveUp = "R41" "give-up" "PostgreSQL does not come back here, so the lock is given to others",
    /// See `rules/stopped.rs`.
    StartReplica = "R42" "start-replica" "PostgreSQL is started as a replica",
    /// See `rules/rejoin.rs`.
    CompareHistory = "R43" "compare-history" "the leader's timelines are compared with this node's",
    /// See `rules/rejoin.rs`.
    Rewind = "R44" "rewind" "this node has WAL that the leader's history does not have, and is rewound",
    /// See `rules/rejoin.rs`.
    Reclone = "R45" "reclone" "the data directory is moved aside and cloned anew",
    /// See `rules/stopped.rs`.
    YieldToStandby = "R46" "yield-to-standby" "PostgreSQL crashed, and a synchronous standby has every commit that clients were told of, so it leads at once",
    /// See `rules/starting.rs`.
    AwaitStart = "R50" "await-start" "PostgreSQL is starting",
    /// See `rules/starting.rs`.
    Unresponsive = "R51" "unresponsive" "PostgreSQL does not answer",
    /// See `rules/primary.rs`.
    Lead = "R60" "lead" "this node is the primary and holds the lock",
    /// See `rules/primary.rs`.
    LeadFailsafe = "R61" "lead-failsafe" "etcd does not renew the lock, and every electable member grants that this node stays primary",
    /// See `rules/primary.rs`.
    Reacquire = "R62" "reacquire" "this primary takes the free lock",
    /// See `rules/primary.rs`.
    Adopt = "R63" "adopt" "a running PostgreSQL is put under the guard",
    /// See `rules/replica.rs`.
    Promote = "R70" "promote" "this node holds the lock and promotes PostgreSQL",
    /// See `rules/race.rs`.
    TakeLock = "R71" "take-lock" "the lock is free and this node may take it",
    /// See `rules/replica.rs`.
    Follow = "R72" "follow" "the leader changed, and the replica is pointed at it",
    /// See `rules/replica.rs`.
    Replicate = "R73" "replicate" "this node is a replica of the leader",
    /// See `rules/race.rs`.
    AwaitLeader = "R74" "await-leader" "there is no leader, and this node may not be it",
    /// See `rules/lapse.rs`.
    EndReign = "R75" "end-reign" "the leader's right is over, and its key, which etcd still holds, is taken away",
}

/// What stopped a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Guard {
    /// Another member holds the lock.
    LockHeld(NodeName),
    /// The right of the last leader may still run.
    OldRight {
        /// For this long.
        left: Duration,
    },
    /// This node has granted another to stay primary without etcd.
    FailsafePromise {
        /// For this long.
        left: Duration,
    },
    /// This member is not in the `failsafe` key, so a primary without etcd would not have asked it.
    NotInFailsafe,
    /// The tag `nofailover`.
    NoFailover,
    /// Too far behind the last known position of the primary.
    LagTooHigh {
        /// Bytes behind.
        lag: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// This node left the cluster's history: it has WAL of an old timeline beyond the fork.
    Diverged {
        /// Its timeline.
        timeline: Timeline,
        /// Its position.
        position: Lsn,
    },
    /// It still receives WAL from a server whose timeline the cluster has left; a promotion would keep that.
    Receiving,
    /// The leader is on an older timeline than this node, so what is known of it is out of date.
    LeaderOlder {
        /// This node's timeline.
        own: Timeline,
        /// The leader's, as known.
        leader: Timeline,
    },
    /// This node's data is on a timeline that no leader reserved: PostgreSQL was promoted past the agent.
    Usurped {
        /// The timeline.
        own: Timeline,
        /// The last one that was published or reserved.
        reserved: Timeline,
    },
    /// It is on an older timeline and where that one ended is not known.
    TimelineBehind {
        /// Its timeline.
        own: Timeline,
        /// The cluster's.
        cluster: Timeline,
    },
    /// A member that could be ahead has not been heard yet.
    PeerUnheard(NodeName),
    /// A member is ahead.
    PeerAhead {
        /// Who.
        peer: NodeName,
        /// By how many bytes.
        by: u64,
    },
    /// A member says that it is still a primary.
    PeerIsPrimary(NodeName),
    /// An equal with a higher `failover_priority`.
    PeerPreferred(NodeName),
    /// The lock is meant for somebody else.
    Reserved(NodeName),
    /// This node handed the lock over and lets others have it.
    JustLeft,
    /// Tried a moment ago.
    Cooldown {
        /// For this long.
        left: Duration,
    },
    /// The lock has just become free, and another that could take it would have to be followed.
    Succession {
        /// For this long.
        left: Duration,
    },
    /// PostgreSQL may still come to follow the leader by itself.
    MayYetFollow {
        /// For this long nothing is done about it.
        left: Duration,
    },
    /// PostgreSQL here is not a running replica.
    PostgresNotReady,
    /// The cluster is paused.
    PauseOn,
    /// This member's primary ran in a pause without a deadline, and has not said since that it is under one again or has ended.
    Unfenced(NodeName),
    /// What is known of the DCS is too old to act on.
    ViewStale {
        /// Its age.
        age: Duration,
    },
    /// etcd takes what this member writes again since a moment only: a leader that lives is about to renew.
    EtcdReturned {
        /// That is waited for so long.
        left: Duration,
    },
    /// The lock has not been renewed in etcd: that is out of reach, or has no space.
    Unrenewed {
        /// For how long.
        age: Duration,
    },
    /// No right to be primary at this moment.
    NoRight,
    /// Commits of the primary wait for this member.
    CommitsWait,
    /// The `sync` key does not name this node: commits that it acknowledges would be lost to who is named there.
    SyncKeyNotWritten,
    /// The `sync` key still names this node, and this leader has not made it its own.
    StillNamed(NodeName),
    /// The `sync` key does not name this member: it may lack acknowledged commits.
    NotSynchronous {
        /// The primary that wrote it.
        leader: NodeName,
    },
    /// Too few of those in the `sync` key have said that they are not ahead: an acknowledged commit may be on others only.
    VotesMissing {
        /// So many have.
        have: usize,
        /// So many must.
        need: usize,
    },
    /// The timeline that a promotion would make is not reserved in the DCS yet.
    NoReservation,
    /// Nobody could take over.
    NoCandidate,
    /// The named candidate cannot take over.
    CandidateUnfit(NodeName),
    /// The candidate has not received everything yet.
    CandidateBehind,
    /// The candidate streams, and has received nothing of this primary's timeline yet.
    CandidateBeforeFork(NodeName),
    /// The failsafe list does not name the candidate yet.
    CandidateUnlisted(NodeName),
    /// It is not time yet.
    NotDue {
        /// For this long.
        left: Duration,
    },
    /// `initialize` does not name the cluster in this node's data directory yet: what it wrote could be lost to another.
    Unannounced,
    /// `bootstrap` is not in this node's file.
    MayNotBootstrap,
    /// Somebody else is creating the cluster.
    SomebodyBootstraps,
    /// The leader does not run yet.
    LeaderNotReady,
    /// The new primary has not made its first checkpoint.
    LeaderCheckpoint,
    /// pg_rewind is not allowed (`use_pg_rewind`), or not possible here (neither checksums nor `wal_log_hints`).
    MayNotRewind,
    /// The last attempt failed, in these words.
    LastAttempt(String),
    /// The system identifiers differ.
    SystemIdMismatch {
        /// Here.
        own: SystemId,
        /// In the DCS.
        cluster: SystemId,
    },
}

impl Guard {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::LockHeld(_) => "lock-held",
            Self::OldRight { .. } => "old-right",
            Self::FailsafePromise { .. } => "failsafe-promise",
            Self::NotInFailsafe => "not-in-failsafe",
            Self::NoFailover => "nofailover",
            Self::LagTooHigh { .. } => "lag-too-high",
            Self::Diverged { .. } => "diverged",
            Self::TimelineBehind { .. } => "timeline-behind",
            Self::PeerUnheard(_) => "peer-unheard",
            Self::PeerAhead { .. } => "peer-ahead",
            Self::PeerIsPrimary(_) => "peer-is-primary",
            Self::PeerPreferred(_) => "peer-preferred",
            Self::Reserved(_) => "reserved",
            Self::JustLeft => "just-left",
            Self::Cooldown { .. } => "cooldown",
            Self::Succession { .. } => "succession",
            Self::MayYetFollow { .. } => "may-yet-follow",
            Self::PostgresNotReady => "postgres-not-ready",
            Self::PauseOn => "pause-on",
            Self::Receiving => "receiving",
            Self::LeaderOlder { .. } => "leader-older",
            Self::Usurped { .. } => "usurped",
            Self::Unfenced(_) => "unfenced",
            Self::ViewStale { .. } => "view-stale",
            Self::EtcdReturned { .. } => "etcd-returned",
            Self::Unrenewed { .. } => "unrenewed",
            Self::NoRight => "no-right",
            Self::NoReservation => "no-reservation",
            Self::CommitsWait => "commits-wait",
            Self::SyncKeyNotWritten => "sync-key-not-written",
            Self::StillNamed(_) => "still-named",
            Self::NotSynchronous { .. } => "not-synchronous",
            Self::VotesMissing { .. } => "votes-missing",
            Self::NoCandidate => "no-candidate",
            Self::CandidateUnfit(_) => "candidate-unfit",
            Self::CandidateBehind => "candidate-behind",
            Self::CandidateBeforeFork(_) => "candidate-before-fork",
            Self::CandidateUnlisted(_) => "candidate-unlisted",
            Self::NotDue { .. } => "not-due",
            Self::Unannounced => "unannounced",
            Self::MayNotBootstrap => "may-not-bootstrap",
            Self::SomebodyBootstraps => "somebody-bootstraps",
            Self::LeaderNotReady => "leader-not-ready",
            Self::LeaderCheckpoint => "leader-checkpoint",
            Self::MayNotRewind => "may-not-rewind",
            Self::LastAttempt(_) => "last-attempt",
            Self::SystemIdMismatch { .. } => "system-id-mismatch",
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |left: &Duration| left.as_millis() as f64 / 1000.0;
        match self {
            Self::LockHeld(name) => write!(f, "{name} holds the lock"),
            Self::OldRight { left } => {
                write!(f, "the last leader's right may run for another {:.1} s", seconds(left))
            }
            Self::FailsafePromise { left } => {
                write!(f, "this node granted another to stay primary for {:.1} s more", seconds(left))
            }
            Self::NotInFailsafe => {
                f.write_str("this member is not in the failsafe key, so a primary without etcd would not ask it")
            }
            Self::LeaderOlder { own, leader } => write!(
                f,
                "the leader is known to be on timeline {leader} and this node is on {own}: that is out of date"
            ),
            Self::Usurped { own, reserved } => write!(
                f,
                "PostgreSQL was promoted past the agent: its timeline {own} is none that a leader reserved (they have come to {reserved}); it counts \
                 for what it has of theirs, and others go first, unless a manual failover names this node"
            ),
            Self::Receiving => f.write_str("it still receives WAL from a server whose timeline the cluster has left"),
            Self::NoFailover => f.write_str("tag nofailover"),
            Self::LagTooHigh { lag, limit } => {
                write!(f, "{lag} bytes behind the last known position, maximum_lag_on_failover is {limit}")
            }
            Self::Diverged { timeline, position } => {
                write!(f, "WAL up to {position} on timeline {timeline} is not in the cluster's history")
            }
            Self::TimelineBehind { own, cluster } => {
                write!(f, "timeline {own} is older than the cluster's {cluster}, and where it ended is not known")
            }
            Self::PeerUnheard(peer) => write!(f, "{peer} has not answered yet"),
            Self::PeerAhead { peer, by } => write!(f, "{peer} is ahead by {by} bytes"),
            Self::PeerIsPrimary(peer) => write!(f, "{peer} says it is still primary"),
            Self::PeerPreferred(peer) => write!(f, "{peer} has a higher failover_priority"),
            Self::Reserved(name) => write!(f, "the lock is meant for {name}"),
            Self::JustLeft => f.write_str("this node has just handed the lock over"),
            Self::Cooldown { left } => {
                write!(f, "the next attempt is in {:.1} s", seconds(left))
            }
            Self::Succession { left } => {
                write!(f, "another is about to take the lock; {:.1} s are left to it before this one starts and follows nobody", seconds(left))
            }
            Self::MayYetFollow { left } => {
                write!(f, "PostgreSQL may come to follow the leader by itself, and has another {:.1} s for that", seconds(left))
            }
            Self::PostgresNotReady => f.write_str("PostgreSQL here is not a running replica"),
            Self::PauseOn => f.write_str("the cluster is paused"),
            Self::Unfenced(name) => write!(
                f,
                "{name} ran as primary in a pause, without a deadline, and has not said that it is over: start its agent, or make \
                 sure that its PostgreSQL is stopped and name another member with `surus failover`"
            ),
            Self::ViewStale { age } => {
                write!(f, "what is known of etcd is {:.1} s old", seconds(age))
            }
            Self::EtcdReturned { left } => {
                write!(
                    f,
                    "etcd takes what is written again since a moment only, and a leader that lives has {:.1} s left to renew",
                    seconds(left)
                )
            }
            Self::Unrenewed { age } => {
                write!(f, "the lock was renewed in etcd {:.1} s ago for the last time", seconds(age))
            }
            Self::NoRight => f.write_str("no right to be primary at this moment"),
            Self::CommitsWait => f.write_str("commits wait for this member until the leader has chosen another"),
            Self::SyncKeyNotWritten => f.write_str("the sync key does not name this node yet"),
            Self::StillNamed(leader) => write!(
                f,
                "the sync key names this node and is not {leader}'s yet: what is here would be needed if {leader} were lost"
            ),
            Self::NotSynchronous { leader } => write!(
                f,
                "the sync key of {leader} does not name this member, so it may lack commits that clients were told of; if those \
                 named there are gone for good, name a member with `surus failover`"
            ),
            Self::VotesMissing { have, need } => write!(
                f,
                "{have} of the {need} members that must be heard have said that they are not ahead; without them commits that \
                 clients were told of may be missing here"
            ),
            Self::NoReservation => f.write_str("the next timeline is not reserved in etcd yet"),
            Self::NoCandidate => f.write_str("no other member could take over"),
            Self::CandidateUnfit(name) => write!(f, "{name} does not stream, or may not be elected"),
            Self::CandidateBehind => f.write_str("no candidate has received the shutdown checkpoint yet"),
            Self::CandidateBeforeFork(name) => {
                write!(f, "{name} has received nothing of this primary's timeline yet")
            }
            Self::CandidateUnlisted(name) => {
                write!(f, "{name} may not take the lock before the failsafe key names it")
            }
            Self::NotDue { left } => write!(f, "due in {:.0} s", seconds(left)),
            Self::Unannounced => f.write_str("the initialize key does not name this cluster yet"),
            Self::MayNotBootstrap => f.write_str("this node's file has no bootstrap section"),
            Self::SomebodyBootstraps => {
                f.write_str("the initialize key says that another node is creating the cluster")
            }
            Self::LeaderNotReady => f.write_str("the leader's PostgreSQL does not run as primary yet"),
            Self::LeaderCheckpoint => {
                f.write_str("the new primary has not made its first checkpoint, pg_rewind would see the old timeline")
            }
            Self::MayNotRewind => f.write_str(
                "pg_rewind is off (postgresql.use_pg_rewind) or impossible (needs data checksums or wal_log_hints); \
                 `surus reinit` clones this member anew",
            ),
            Self::LastAttempt(text) => write!(f, "the last attempt failed: {text}"),
            Self::SystemIdMismatch { own, cluster } => {
                write!(f, "system identifier {own} here, {cluster} in the initialize key")
            }
        }
    }
}

/// A fact that a decision rests on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// How long the right to be primary still runs.
    RightLeft(Duration),
    /// For how long the leader's right has been over.
    RightOver(Duration),
    /// Who holds the lock.
    Leader(NodeName),
    /// Nobody has held the lock for this long.
    Leaderless(Duration),
    /// Own timeline and position.
    Position(Timeline, Lsn),
    /// A member's position.
    PeerPosition(NodeName, Timeline, Lsn),
    /// The age of the last look at PostgreSQL.
    ProbeAge(Duration),
    /// The candidate.
    Candidate(NodeName),
    /// A person named this node in a manual failover, whatever it lacks.
    Forced,
    /// This node has whatever the last primary acknowledged.
    Complete,
    /// The last primary told of this position, before which so many bytes are not here; what it wrote after that may not be here either.
    MayLack(Lsn, u64),
    /// Clients are kept out until standbys have what they would see; for no longer than this.
    GateShut(Option<Duration>),
    /// In words of another program.
    Said(String),
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: &Duration| time.as_millis() as f64 / 1000.0;
        match self {
            Self::RightLeft(left) => write!(f, "right for {:.1} s", seconds(left)),
            Self::RightOver(time) => write!(f, "its right has been over for {:.1} s", seconds(time)),
            Self::Leader(name) => write!(f, "leader {name}"),
            Self::Leaderless(time) => write!(f, "no leader for {:.1} s", seconds(time)),
            Self::Position(timeline, lsn) => write!(f, "at {lsn} on timeline {timeline}"),
            Self::PeerPosition(peer, timeline, lsn) => write!(f, "{peer} at {lsn} on timeline {timeline}"),
            Self::ProbeAge(age) => write!(f, "PostgreSQL seen {:.1} s ago", seconds(age)),
            Self::Candidate(name) => write!(f, "candidate {name}"),
            Self::Forced => f.write_str("a person named this member in a manual failover, whatever it lacks"),
            Self::Complete => f.write_str("no acknowledged commit is lost"),
            Self::GateShut(left) => {
                f.write_str("clients wait until standbys have what they would see")?;
                left.as_ref().map_or(Ok(()), |left| {
                    write!(f, ", for {:.1} s more at most", seconds(left))
                })
            }
            Self::MayLack(told, 0) => {
                write!(
                    f,
                    "lost is what the last primary wrote after {told} and nobody received"
                )
            }
            Self::MayLack(told, bytes) => write!(
                f,
                "lost are {bytes} bytes before {told}, and what the last primary wrote after that"
            ),
            Self::Said(text) => f.write_str(text),
        }
    }
}
