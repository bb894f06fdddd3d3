//! Everything that can happen in a world, as one closed enum, and the small values that it is told in.

use std::sync::Arc;

use surus_core::decision::Decision;
use surus_core::types::{LeaseId, Lsn, Revision, SystemId, Term, Timeline};
use surus_core::view::Initialize;

use super::Deed;
use crate::clock::Time;
use crate::net::Place;

/// A member of the cluster, by its place in the world: `n1` is 0.
pub type NodeIndex = usize;

/// Where a cluster's data stands: whose it is, and how far it was written on which timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standing {
    /// The cluster's identity.
    pub system_id: SystemId,
    /// The last timeline.
    pub timeline: Timeline,
    /// The end of the WAL.
    pub position: Lsn,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// A fast stop that came to its end.
    FastStop,
    /// An immediate stop: no checkpoint, crash recovery at the next start.
    ImmediateStop,
    /// SIGKILL by a fault, or a crash.
    Killed,
    /// The guard, at its deadline.
    ByGuard,
    /// The kernel, because the guard died.
    GuardDied,
    /// The host lost its power.
    PowerLoss,
}

/// Why a lease, and the keys on it, are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseEnd {
    /// Nobody kept it alive.
    Expired,
    /// It was revoked, by its owner or by an etcd leader that did not know of its renewal.
    Revoked,
    /// It lives; another member took the leader key away, or a person.
    Deposed,
}

/// What gives a right to be primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RightBy {
    /// A renewal, confirmed under one term.
    Lock,
    /// A failsafe round that all granted.
    Grants,
}

/// What is done to a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rebuild {
    /// Moved aside for a base backup.
    Clone,
    /// pg_rewind.
    Rewind,
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrderEnd {
    /// Done.
    Done,
    /// Certainly not done.
    Failed,
    /// It may have had its effect.
    Unknown,
    /// Refused where it was to be executed.
    Refused,
}

/// What a client came to know of its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// A write was acknowledged; a read was answered.
    Ok,
    /// It certainly had no effect.
    Failed,
    /// It may have had its effect.
    Unknown,
}

/// The settings that the checks need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Life of the lease.
    pub ttl: Time,
    /// Pause between two rounds of routine work.
    pub loop_wait: Time,
    /// Patience with etcd and PostgreSQL.
    pub retry_timeout: Time,
    /// Bytes that a candidate may be behind.
    pub maximum_lag: u64,
    /// Failsafe mode.
    pub failsafe: bool,
    /// The cluster is paused.
    pub pause: bool,
    /// How long clients wait for standbys to have what a new primary shows; `None`: they do not.
    pub gate: Option<Gate>,
}

/// The settings of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gate {
    /// No longer than this.
    pub bound: Time,
    /// Or for as long as it takes.
    pub hold: bool,
}

/// One thing that happens. The node it happens at is told beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Seen {
    // --- etcd, as its state machine has it ---
    /// The node's transaction created the leader key.
    LockTaken {
        /// The lease it hangs on.
        lease: LeaseId,
        /// The transaction's revision.
        revision: Revision,
        /// The raft term of the transaction.
        term: Term,
        /// The node's server is a primary at this instant.
        primary: bool,
        /// What the node's disk has at this instant.
        standing: Option<Standing>,
        /// The position that `status` told of just before.
        optime: Option<Lsn>,
    },
    /// The node's transaction confirmed that the leader key is its own, or moved it to another lease of its own.
    LockRenewed {
        /// The lease it hangs on.
        lease: LeaseId,
        /// The transaction's revision.
        revision: Revision,
        /// The raft term of the transaction.
        term: Term,
    },
    /// The node gave the leader key back.
    LockReleased {
        /// The transaction's revision.
        revision: Revision,
    },
    /// The node has taken the lock although another, which it could ask and which could lead, has more on its disk.
    Outdone {
        /// Who.
        by: NodeIndex,
        /// By so much.
        bytes: u64,
    },
    /// The node has given the lock back after a stop to hand over, and nobody has all that it wrote, though somebody streamed.
    LeftUnsent,
    /// The node's leader key is gone, and it did not give it back.
    LockLost {
        /// The lease it hung on.
        lease: LeaseId,
        /// Why.
        why: LeaseEnd,
    },
    /// The node wrote `status`.
    StatusWritten {
        /// Its position, as it says.
        optime: Lsn,
        /// Its timeline.
        timeline: Option<Timeline>,
        /// The timeline that its promotion makes.
        next: Option<Timeline>,
        /// It stopped its PostgreSQL cleanly.
        vacated: bool,
        /// Its primary may run without a deadline, as a pause wants it.
        unfenced: bool,
    },
    /// The `sync` key changed: so many of these must be heard before one is elected. Empty: replication is asynchronous.
    SyncWritten {
        /// The members that acknowledged commits may be on.
        members: Vec<NodeIndex>,
        /// How many of them.
        quorum: usize,
    },
    /// `initialize` changed.
    InitializeWritten {
        /// What it holds now.
        to: Option<Initialize>,
    },
    /// The node wrote the `failsafe` key.
    FailsafeWritten {
        /// The members on it.
        list: Vec<NodeIndex>,
    },
    /// A person's wish was written to the `failover` key.
    FailoverWritten {
        /// The leader it is meant for; a switchover names it.
        leader: Option<NodeIndex>,
        /// Who shall take over.
        candidate: Option<NodeIndex>,
    },
    /// The node emptied the `failover` key.
    FailoverCleared,
    /// The node's own key changed; `false`: it vanished with its lease.
    MemberKey {
        /// It exists.
        present: bool,
    },
    /// etcd has a new leader, or none.
    EtcdLeader {
        /// The term.
        term: Term,
        /// Which member; `None`: there is no quorum.
        member: Option<usize>,
    },
    /// A member of etcd came up or went down.
    EtcdMember {
        /// Which.
        member: usize,
        /// It runs.
        up: bool,
    },
    /// etcd forgot the revisions before this one.
    Compacted {
        /// The oldest revision that watches can begin at.
        revision: Revision,
    },

    // --- rights ---
    /// The node has a right to be primary, counted from when it was asked for.
    Right {
        /// When it was asked for.
        sent: Time,
        /// Until then: `sent` plus the ttl.
        until: Time,
        /// By what.
        by: RightBy,
    },
    /// The node granted another to stay primary without etcd.
    Granted {
        /// Whom.
        to: NodeIndex,
    },

    // --- PostgreSQL ---
    /// A new cluster was created.
    Bootstrapped {
        /// Its identity.
        system_id: SystemId,
    },
    /// A postmaster begins.
    Starting {
        /// It will accept writes when recovery is over.
        as_primary: bool,
        /// What is in the data directory.
        standing: Standing,
    },
    /// A server accepts connections.
    Up {
        /// And writes.
        primary: bool,
        /// What it has.
        standing: Standing,
    },
    /// A person promotes the node's replica, past its agent.
    PromotedByHand,
    /// A replica's disk has a new timeline: its promotion is under way and may still come to nothing.
    Forked {
        /// The timeline it leaves.
        from: Timeline,
        /// Where it leaves it.
        switch: Lsn,
        /// What it has now: the new timeline.
        standing: Standing,
    },
    /// A replica became a primary.
    Promoted {
        /// The timeline it left.
        from: Timeline,
        /// Where it left it.
        switch: Lsn,
        /// What it has now: the new timeline.
        standing: Standing,
    },
    /// A fast stop has cut the clients off.
    Closing,
    /// The server is gone.
    Ended {
        /// How.
        how: End,
        /// What is in the data directory, if that is complete.
        standing: Option<Standing>,
    },
    /// The server is stopped by SIGSTOP or waits for ever; `false`: it goes on.
    Hung {
        /// It hangs.
        hung: bool,
    },
    /// A replica is told to follow another member, or nobody.
    Following {
        /// Whom.
        upstream: Option<NodeIndex>,
    },
    /// A walreceiver streams.
    Streaming {
        /// From whom.
        upstream: NodeIndex,
        /// What it had when it began.
        standing: Standing,
    },
    /// The walreceiver was told that the WAL it asks for has been removed: only a rebuild helps.
    WalMissing,
    /// The walreceiver is gone.
    StreamLost {
        /// What it says in PostgreSQL's log.
        why: &'static str,
    },
    /// WAL that was written is gone: it had not been flushed.
    WalLost {
        /// What is left.
        standing: Standing,
        /// The position that had been reached.
        reached: Lsn,
    },
    /// By whom the node's server may acknowledge a commit from now on: by any one of these rules, while processes reread their settings each in
    /// its own time. None: it acknowledges nothing.
    SyncStandbys {
        /// Of each the members, and how many of them; zero: it waits for nobody.
        rules: Vec<(Vec<NodeIndex>, usize)>,
    },
    /// The node's server begins as a primary that lets in members alone.
    GateShut,
    /// What the node's server begins as next lets everybody in.
    GateLifted,
    /// The node's server lets clients in.
    GateOpened {
        /// The others whose disks have all that was in its log when they were shut out.
        having: Vec<NodeIndex>,
    },
    /// A member's slot on the node's server moved, or was dropped.
    Slot {
        /// Whose slot.
        of: NodeIndex,
        /// WAL from here on is kept; `None`: it is gone.
        position: Option<Lsn>,
    },
    /// The node's server removed old WAL.
    WalRemoved {
        /// All before this.
        before: Lsn,
    },
    /// The control file shows a checkpoint.
    Checkpointed {
        /// Its timeline.
        timeline: Timeline,
        /// Its position.
        position: Lsn,
    },
    /// The data directory is about to be given up for another's.
    Discarded {
        /// How.
        how: Rebuild,
        /// Whose data replaces it, if it exists.
        source: Option<NodeIndex>,
        /// What was in it.
        own: Standing,
        /// What the source has.
        theirs: Option<Standing>,
        /// From here on (to `own.position`) no other member's disk has this WAL.
        alone: Option<Lsn>,
    },
    /// The data directory is complete again.
    Rebuilt {
        /// How.
        how: Rebuild,
        /// From whom.
        source: NodeIndex,
        /// What it has now.
        standing: Standing,
    },
    /// The data directory is half of something.
    DataBroken,
    /// The data directory vanished, by a fault.
    DataGone {
        /// What was in it.
        own: Option<Standing>,
    },

    // --- the guard ---
    /// A guard begins.
    GuardBegan,
    /// The guard has a deadline.
    Armed {
        /// It kills then.
        until: Time,
    },
    /// The guard has no deadline any more.
    Lifted,
    /// The guard's process is gone.
    GuardDied,

    // --- processes and hosts ---
    /// An agent begins.
    AgentBegan,
    /// The agent ended by itself.
    AgentEnded {
        /// Why, in its words.
        reason: Arc<str>,
        /// Guard and PostgreSQL are left as they are.
        detach: bool,
    },
    /// The agent was killed.
    AgentDied,
    /// The agent is stopped (SIGSTOP); `false`: it goes on.
    AgentFrozen {
        /// It is stopped.
        frozen: bool,
    },
    /// The whole host stands still, its clock excepted; `false`: it goes on.
    HostFrozen {
        /// It stands still.
        frozen: bool,
    },
    /// The host has power, or has not.
    Power {
        /// It has.
        on: bool,
    },
    /// The node's agent obeys these settings from now on.
    Configured(Settings),
    /// The core did what no core may: it panicked, asked to be woken in the past, or steps without end.
    Broken {
        /// Which, in words.
        text: Arc<str>,
    },

    // --- what cores say ---
    /// A decision that differs from the node's last in its rule or in what was blocked.
    Decided(Box<Decision>),
    /// An order begins.
    OrderBegan {
        /// Its number within the agent.
        id: u64,
        /// What.
        order: Deed,
        /// The other member it concerns.
        about: Option<NodeIndex>,
    },
    /// An order ended.
    OrderEnded {
        /// Its number within the agent.
        id: u64,
        /// What.
        order: Deed,
        /// How.
        end: OrderEnd,
        /// What went wrong, in words.
        text: Option<Arc<str>>,
    },

    // --- clients and routers ---
    /// A client sends a write of a value that no other write has.
    WriteAsked {
        /// Which client.
        client: usize,
        /// The register.
        key: u32,
        /// The value.
        value: u64,
    },
    /// The node's server committed the write, and the acknowledgement leaves it.
    Committed {
        /// The register.
        key: u32,
        /// The value.
        value: u64,
        /// The end of its commit record.
        standing: Standing,
    },
    /// The client knows this of its write.
    WriteEnded {
        /// Which client.
        client: usize,
        /// The register.
        key: u32,
        /// The value.
        value: u64,
        /// What it knows.
        fate: Fate,
    },
    /// A client sends a read.
    ReadAsked {
        /// Which client.
        client: usize,
        /// The register.
        key: u32,
    },
    /// The client has the answer, or none. A server's session that is no primary's gives no answer.
    ReadEnded {
        /// Which client.
        client: usize,
        /// The register.
        key: u32,
        /// What it read; `None`: never written.
        value: Option<u64>,
        /// Whether it was answered.
        fate: Fate,
    },
    /// The node's REST API answered a router's question for the primary.
    Health {
        /// Which router.
        router: usize,
        /// `200`: it is the primary.
        primary: bool,
    },
    /// A router sends clients to this node, or does so no longer.
    Routed {
        /// Which router.
        router: usize,
        /// It does.
        up: bool,
    },

    // --- the plan ---
    /// A step of the story begins.
    StepBegan {
        /// Which.
        step: usize,
        /// Its text.
        text: Arc<str>,
    },
    /// A fault is over.
    StepEnded {
        /// Which.
        step: usize,
    },
    /// All faults are over; from here on all must become well.
    Healed,

    // --- detail, kept only if asked for and never hashed ---
    /// A message.
    Message {
        /// From.
        from: Place,
        /// To.
        to: Place,
        /// It arrives then; `None`: lost.
        arrives: Option<Time>,
        /// What it says, in a word or two.
        what: &'static str,
    },
}

impl Seen {
    /// Detail that only a report wants: it is not part of what makes two runs the same.
    #[must_use]
    pub fn is_detail(&self) -> bool {
        matches!(self, Self::Message { .. })
    }
}
