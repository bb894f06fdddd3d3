//! What a node orders: complete orders, with nothing left to choose where they are executed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::input::RequestId;
use crate::sync::{Names, SyncKey};
use crate::types::{ActionId, Generation, LeaseId, Lsn, MonoTime, NodeName, Revision, SystemId, Timeline};
use crate::view::{Fork, HistoryLine};

/// One order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Its completion carries the same id.
    pub id: ActionId,
    /// The reign it belongs to; an executor refuses an older one than it has seen.
    pub generation: Generation,
    /// What to do.
    pub order: Order,
}

/// A queue of orders: at most one of a lane is under way at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The leader key: acquire, renew, release, take away.
    Lock,
    /// Reads of the DCS.
    Read,
    /// Other writes to the DCS.
    Publish,
    /// Everything that changes PostgreSQL.
    Postgres,
    /// Looking at PostgreSQL.
    Probe,
    /// Small housekeeping inside a running PostgreSQL: slots, checkpoints.
    Upkeep,
    /// The two sides of synchronous replication.
    Synchronous,
    /// The guard's deadline.
    Guard,
    /// Questions to the other members.
    Peers,
    /// Failsafe rounds.
    Failsafe,
    /// Answers to people, and the end of the process: no completion is awaited.
    Reply,
}

/// The keys that say who may take the lock, at their revisions in a view; zero for "no such key".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grounds {
    /// `config`: a pause, the modes and limits.
    pub config: Revision,
    /// `failover`: whom a person named.
    pub failover: Revision,
    /// `failsafe`: whom a primary without etcd asks.
    pub failsafe: Revision,
    /// `sync`: who has every acknowledged commit.
    pub sync: Revision,
}

/// What to do. Every order is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Lock: create the leader key, if there is none and none of the keys that the decision rests on has changed since the view
    /// it was taken with. Grants a lease of `ttl` if there is no living one. Writes `status` in the same transaction, so that a
    /// predecessor's `vacated` cannot be taken for this reign's. → `Locked` | `NotLocked`
    Acquire {
        /// Life of the lease.
        ttl: Duration,
        /// What the decision rests on.
        grounds: Grounds,
        /// The `status` key's revision in the view, zero for "no such key": a reign that the view missed has written it.
        seen: Revision,
        /// What to write to `status`: the former one, no longer vacated.
        status: StatusRecord,
    },
    /// Lock: keep the lease alive, then, under the same term, confirm that the leader key is ours and hangs on it, writing `status` if
    /// it has not changed since `seen`. If the key is ours but hangs on another lease (or `ttl` has changed), it is moved to this node's
    /// lease of `ttl`. If `status` has changed, by a renewal of ours that came late, what it is now is taken for `seen`: whoever waits
    /// for the answer has the last word, and a renewal that nobody waits for any more is void once another has been confirmed.
    /// → `Locked` | `NotLocked`
    Renew {
        /// Life of the lease.
        ttl: Duration,
        /// The revision of `status` as this node last wrote or saw it, zero for "no such key".
        seen: Revision,
        /// What to write to `status`.
        status: StatusRecord,
    },
    /// Lock: delete the leader key if it is ours and `status` has not changed since `seen`, writing `status` in the same transaction.
    /// → `Ok` | `NotLocked`
    Release {
        /// The revision of `status` as this node last wrote or saw it: any renewal since, be it by an agent that was restarted
        /// in between, makes a release that arrives late void.
        seen: Revision,
        /// What to write to `status`.
        status: StatusRecord,
    },

    /// Lock: delete the leader key of another whose right is over, if it is of that reign and `status` has not changed since `seen`.
    /// → `Ok` | `NotLocked`
    EndReign {
        /// The revision at which the key was created.
        created: Revision,
        /// The revision of `status`: its last word.
        seen: Revision,
    },

    /// Read: everything under the cluster's prefix, linearizably. → `Read`
    ReadCluster,

    /// Publish: claim the right to create the cluster. → `Ok` | `Failed` (somebody else did)
    ClaimInitialize,
    /// Publish: write the system identifier (over anything if `bootstrapped`, else only if absent or garbage).
    WriteInitialize {
        /// The identity.
        system_id: SystemId,
        /// This node has just created the cluster.
        bootstrapped: bool,
    },
    /// Publish: take back the claim, if the key is still empty.
    UnclaimInitialize,
    /// Publish: write the `config` key, if there is none, from `bootstrap.dcs` or the cached copy.
    WriteConfig,
    /// Publish: this member's own key, on the lease (granted if need be). The agent adds addresses, tags and positions.
    WriteMember(MemberRecord),
    /// Publish: the `history` key.
    WriteHistory(Vec<HistoryLine>),
    /// Publish: the `failsafe` key, if it has not changed since the view: of several writes whose fate is not known one at most arrives.
    WriteFailsafe {
        /// The `failsafe` key's revision in the view.
        seen: Revision,
        /// The members that could be elected, with the address of their REST API.
        list: BTreeMap<NodeName, String>,
    },
    /// Publish: empty the `failover` key, if it has not changed.
    ClearFailover(Revision),

    /// Probe: look at PostgreSQL, its control file and its guard. → `Probed`
    Probe,

    /// Postgres: create a new cluster in the empty data directory, and leave it stopped: nobody may write to it before `initialize`
    /// names it. What it takes to make roles and the like runs under the guard. → `Bootstrapped`
    Bootstrap {
        /// The guard's first deadline.
        guard_until: MonoTime,
        /// Refuse to execute later than this.
        valid_until: MonoTime,
    },
    /// Postgres: clone from this member. Whatever is in the data directory is moved aside first. → `Ok`
    BaseBackup {
        /// Source.
        from: Upstream,
    },
    /// Postgres: start in recovery, following `upstream` (or nobody). Returns when the postmaster is up, not when it answers. → `Ok`
    StartReplica {
        /// Whom to follow.
        upstream: Option<Upstream>,
    },
    /// Postgres: start as primary, guard armed before the postmaster exists. → `Ok`
    StartPrimary {
        /// The guard's deadline.
        guard_until: MonoTime,
        /// Refuse to execute later than this.
        valid_until: MonoTime,
        /// By whom commits are acknowledged from the first on; `None`: as the user has set it.
        synchronous: Option<Names>,
        /// Nobody but members is let in until [`Order::OpenGate`].
        gated: bool,
    },
    /// Postgres: stop. → `Stopped`
    Stop {
        /// How.
        mode: StopMode,
        /// Run a checkpoint first, so that the stop itself is short.
        checkpoint_first: bool,
    },
    /// Postgres: leave recovery, guard armed first. Returns when writes are accepted. → `Ok`
    Promote {
        /// The guard's deadline.
        guard_until: MonoTime,
        /// Refuse to execute later than this.
        valid_until: MonoTime,
        /// The new timeline must be above this one, whose history the node may not have.
        above: Timeline,
        /// By whom commits are acknowledged from the first on; `None`: as the user has set it.
        synchronous: Option<Names>,
        /// Nobody but members is let in until [`Order::OpenGate`]; who is there is sent away first.
        gated: bool,
    },
    /// Postgres: make the running replica follow `upstream`. → `Ok`
    Follow {
        /// Whom, or nobody.
        upstream: Option<Upstream>,
    },
    /// Postgres: ask the leader which timelines it went through. → `Ancestry`
    CompareHistory {
        /// The leader.
        leader: Upstream,
    },
    /// Postgres: pg_rewind the stopped data directory onto the leader's history, its own divergent WAL kept aside. → `Ok`
    Rewind {
        /// The leader.
        leader: Upstream,
    },
    /// Postgres: stop fast and start again in the same role (guard armed first if primary). → `Ok`
    Restart {
        /// The primary's guard deadline; `None` for a replica.
        guard_until: Option<MonoTime>,
        /// Nobody but members is let in until [`Order::OpenGate`].
        gated: bool,
    },
    /// Postgres: put a server that runs without a guard under one, without restarting it. → `Ok`
    AdoptPostmaster {
        /// The guard's deadline if it is a primary.
        guard_until: Option<MonoTime>,
    },

    /// Upkeep: make the physical slots `ensure` exist (advancing inactive ones on a replica) and drop `drop`.
    SyncSlots {
        /// Slots that must exist, with the position to advance an inactive one to.
        ensure: BTreeMap<String, Option<Lsn>>,
        /// Slots to drop if they are physical and inactive.
        drop: BTreeSet<String>,
    },
    /// Upkeep: checkpoint, so that the control file shows the new timeline.
    Checkpoint,

    /// Synchronous: the `sync` key, if this node leads and it has not changed since the view. → `Written`
    WriteSync {
        /// The `sync` key's revision in the view, zero for "no such key".
        seen: Revision,
        /// What to write; `None` deletes it.
        key: Option<SyncKey>,
    },
    /// Synchronous: have PostgreSQL acknowledge commits by these. Returns when every process does. → `Ok`
    SetSynchronous {
        /// By these; `None`: as the user has set it.
        names: Option<Names>,
    },
    /// Synchronous: let clients in. → `Ok`
    OpenGate,

    /// Guard: this is the deadline now. `None` lifts it: the server is a replica, or the cluster is paused.
    SetDeadline(Option<MonoTime>),

    /// Peers: ask each for its status; each answer comes as `Input::Peer`. → `Ok` when all have answered or timed out
    AskPeers(BTreeMap<NodeName, String>),
    /// Failsafe: ask each for its grant. → `Failsafe`
    AskFailsafe {
        /// Whom, with the addresses of their REST APIs.
        voters: BTreeMap<NodeName, String>,
        /// For how long: what the right will be reckoned by.
        ttl: Duration,
    },

    /// Reply to a question.
    Reply {
        /// Which.
        request: RequestId,
        /// Granted, or done.
        ok: bool,
        /// In words. REST clients compare some of them.
        text: String,
    },
    /// End the agent. `detach` leaves guard and PostgreSQL running.
    Exit {
        /// Why, in words.
        reason: String,
        /// Leave guard and PostgreSQL as they are.
        detach: bool,
        /// The process reports failure.
        failure: bool,
    },
}

impl Order {
    /// The lane it runs in.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::Acquire { .. } | Self::Renew { .. } | Self::Release { .. } | Self::EndReign { .. } => {
                Lane::Lock
            }
            Self::ReadCluster => Lane::Read,
            Self::ClaimInitialize
            | Self::WriteInitialize { .. }
            | Self::UnclaimInitialize
            | Self::WriteConfig
            | Self::WriteMember(_)
            | Self::WriteHistory(_)
            | Self::WriteFailsafe { .. }
            | Self::ClearFailover(_) => Lane::Publish,
            Self::Probe => Lane::Probe,
            Self::Bootstrap { .. }
            | Self::BaseBackup { .. }
            | Self::StartReplica { .. }
            | Self::StartPrimary { .. }
            | Self::Stop { .. }
            | Self::Promote { .. }
            | Self::Follow { .. }
            | Self::CompareHistory { .. }
            | Self::Rewind { .. }
            | Self::Restart { .. }
            | Self::AdoptPostmaster { .. } => Lane::Postgres,
            Self::SyncSlots { .. } | Self::Checkpoint => Lane::Upkeep,
            Self::WriteSync { .. } | Self::SetSynchronous { .. } | Self::OpenGate => Lane::Synchronous,
            Self::SetDeadline(_) => Lane::Guard,
            Self::AskPeers(_) => Lane::Peers,
            Self::AskFailsafe { .. } => Lane::Failsafe,
            Self::Reply { .. } | Self::Exit { .. } => Lane::Reply,
        }
    }
}

/// A member to stream, rewind or clone from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name.
    pub name: NodeName,
    /// Its `conn_url`.
    pub conn_url: String,
    /// The slot to use there.
    pub slot: Option<String>,
}

/// How to stop PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Clients are cut off, the standbys get everything, a checkpoint is written. With a bound, it turns immediate at that time.
    Fast {
        /// When to lose patience.
        until: MonoTime,
    },
    /// At once; crash recovery at the next start.
    Immediate,
}

/// What a leader writes to the `status` key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatusRecord {
    /// Its position.
    pub optime: Lsn,
    /// Positions of its slots.
    pub slots: BTreeMap<String, Lsn>,
    /// Slots of absent members.
    pub retain_slots: BTreeSet<String>,
    /// The ttl its right is counted with.
    pub ttl: Duration,
    /// Its timeline.
    pub timeline: Option<Timeline>,
    /// The way to that timeline from where the `history` key ends.
    pub forks: Vec<Fork>,
    /// The timeline that a promotion under this lock makes: reserved when the lock is taken, before the timeline exists.
    pub next: Option<Timeline>,
    /// It stopped PostgreSQL cleanly and its right is over.
    pub vacated: bool,
    /// Its PostgreSQL may be writable without a deadline of the guard, as a pause wants it.
    pub unfenced: bool,
}

/// The part of a member's key that the core decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// Life of the lease it hangs on.
    pub ttl: Duration,
    /// The lease, if the core knows a living one.
    pub lease: Option<LeaseId>,
    /// Patroni's word for PostgreSQL's state.
    pub state: &'static str,
    /// Patroni's word for the role.
    pub role: &'static str,
    /// Position.
    pub position: Option<Lsn>,
    /// Replay position of a replica.
    pub replayed: Option<Lsn>,
    /// Timeline.
    pub timeline: Option<Timeline>,
    /// A replica streams.
    pub streaming: bool,
    /// `false` until the first checkpoint after a promotion.
    pub checkpoint_after_promote: Option<bool>,
    /// The pause is recognised.
    pub pause: bool,
    /// It is about to stop, and waits until no commit waits for it.
    pub nosync: bool,
}
