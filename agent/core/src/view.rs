//! What a node can know: the facts that rules look at.
//!
//! Facts are plain values. Each is kept as [`Seen`], with the time it was seen, so that staleness is visible to every
//! rule and in every explanation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sync::{Names, SyncKey};
use crate::types::{LeaseId, Lsn, MonoTime, NodeName, Revision, SystemId, Term, Timeline};
use crate::zoo::{Flaw, lacks};

/// A fact and when it was true: for an answer, the time the question was *sent*.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen<T> {
    /// The fact.
    pub value: T,
    /// The time for which it is known.
    pub at: MonoTime,
}

/// What the DCS holds for this cluster, at one revision. Values are shared: the next view differs in one or two of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterView {
    /// The store's revision of this view.
    pub revision: Revision,
    /// The raft term of the answer.
    pub term: Term,
    /// The `initialize` key.
    pub initialize: Option<Initialize>,
    /// When the `config` key last changed; `None` if there is no such key.
    pub config_revision: Option<Revision>,
    /// The `leader` key.
    pub leader: Option<LeaderKey>,
    /// The `members/` keys.
    pub members: BTreeMap<NodeName, Arc<Member>>,
    /// The `status` key.
    pub status: Option<Arc<Status>>,
    /// When the `status` key last changed; the leader writes it with each renewal.
    pub status_revision: Revision,
    /// The `failover` key, unless empty.
    pub failover: Option<FailoverKey>,
    /// When the `failover` key last changed; an emptied one has a revision too.
    pub failover_revision: Revision,
    /// The `history` key: one line per timeline that has ended.
    pub history: Arc<Vec<HistoryLine>>,
    /// The `failsafe` key: the members that could be elected, with the address of their REST API.
    pub failsafe: Option<Arc<BTreeMap<NodeName, String>>>,
    /// When the `failsafe` key last changed.
    pub failsafe_revision: Revision,
    /// The `sync` key, if it names a leader.
    pub sync: Option<Arc<SyncKey>>,
    /// When the `sync` key last changed.
    pub sync_revision: Revision,
}

impl ClusterView {
    /// The ttl that the leader's right is reckoned by, as its last renewal told (Patroni's does not).
    #[must_use]
    pub fn claimed_ttl(&self) -> Option<Duration> {
        self.status.as_ref()?.ttl
    }

    /// The highest timeline that the DCS gives evidence of: the leader's, or the one after the last line of history.
    #[must_use]
    pub fn timeline(&self) -> Option<Timeline> {
        let ended = self.history.iter().map(|line| line.timeline.0 + 1).max();
        let lived = self
            .status
            .as_ref()
            .and_then(|status| status.timeline)
            .map(|timeline| timeline.0);
        ended.max(lived).map(Timeline)
    }

    /// Where the cluster's history left `timeline`, as far as its leaders have recorded it. Zero if it never was on it.
    ///
    /// A leader records its history some time after its promotion, and may be lost before, as may those after it: then the `history` key is that
    /// of another reign, and what `status` says of the way to the newest timeline comes first.
    #[must_use]
    pub fn fork_of(&self, timeline: Timeline) -> Option<Lsn> {
        let recorded = || {
            let line = self.history.iter().find(|line| line.timeline == timeline)?;
            Some(line.switch)
        };
        let Some(forks) = self.unrecorded() else {
            return recorded();
        };
        if forks.first().is_none_or(|first| timeline < first.from) {
            return recorded();
        }
        let left = forks.iter().find(|fork| fork.from == timeline);
        Some(left.map_or(Lsn(0), |fork| fork.at))
    }

    /// Where `timeline` left the one before, as far as its leaders have recorded it.
    #[must_use]
    pub fn began(&self, timeline: Timeline) -> Option<Fork> {
        let status = self.status.as_ref()?;
        if let Some(last) = status.forks.last().filter(|_| status.timeline == Some(timeline)) {
            return Some(*last);
        }
        if self.unrecorded().is_some() || self.timeline() < Some(timeline) {
            return None;
        }
        Fork::of(timeline, &self.history)
    }

    /// The way to the newest timeline, if the `history` key does not have all of it.
    fn unrecorded(&self) -> Option<&[Fork]> {
        let status = self.status.as_ref()?;
        let last = status.forks.last().filter(|_| !lacks(Flaw::ForkUnrecorded))?;
        let recorded = self.history.last().is_some_and(|line| *last == line.into());
        (status.timeline == self.timeline() && !recorded).then_some(&status.forks)
    }

    /// What of these forks, one after another, `status` has to say: those after the last that the `history` key has, and the newest in any case.
    #[must_use]
    pub fn to_publish(&self, mut forks: Vec<Fork>) -> Vec<Fork> {
        let recorded = |fork: &Fork| self.history.iter().any(|line| *fork == line.into());
        let known = forks.iter().rposition(recorded).map_or(0, |last| last + 1);
        forks.drain(..known.min(forks.len().saturating_sub(1)));
        forks
    }
}

/// The `initialize` key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Initialize {
    /// Somebody is creating the cluster.
    InProgress,
    /// The cluster's system identifier.
    Done(SystemId),
    /// A value that is neither empty nor a number.
    Garbage,
}

/// The `leader` key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderKey {
    /// Whose it is.
    pub name: NodeName,
    /// The lease it hangs on; `None` if it hangs on none (it then never expires).
    pub lease: Option<LeaseId>,
    /// The revision at which it was created: the reign's identity.
    pub created: Revision,
}

/// A `members/` key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// `postgres://host:port/db`, without credentials.
    pub conn_url: String,
    /// Address of the member's REST API.
    pub api_url: String,
    /// Patroni's word for the state of PostgreSQL, such as `running`.
    pub state: String,
    /// Patroni's word for the role.
    pub role: String,
    /// Position: written by a primary, received by a replica.
    pub position: Option<Lsn>,
    /// Timeline of that position.
    pub timeline: Option<Timeline>,
    /// `false` until a promoted primary has made its first checkpoint.
    pub checkpoint_after_promote: Option<bool>,
    /// The tag: never to be elected.
    pub nofailover: bool,
    /// The tag: preference among equals.
    pub failover_priority: u32,
    /// The tag: preferred as a source of base backups.
    pub clonefrom: bool,
    /// The tag: streams from this member rather than from the leader.
    pub replicatefrom: Option<NodeName>,
    /// The tag: needs no slot, for it does not stream.
    pub nostream: bool,
    /// The tag: never to acknowledge commits. A member that is about to stop says so as well.
    pub nosync: bool,
    /// The tag: preference among those who acknowledge; higher wins.
    pub sync_priority: u32,
    /// Runs Surus rather than Patroni.
    pub surus: bool,
    /// The member has acknowledged the pause.
    pub pause: bool,
}

impl Member {
    /// PostgreSQL of this member serves queries.
    #[must_use]
    pub fn running(&self) -> bool {
        self.state == "running" || self.state == "streaming"
    }
}

/// The `status` key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The primary's position when it was written.
    pub optime: Lsn,
    /// Positions of slots.
    pub slots: BTreeMap<String, Lsn>,
    /// Slots of absent members that must be kept.
    pub retain_slots: BTreeSet<String>,
    /// Ours: the ttl that the leader's right is counted with.
    pub ttl: Option<Duration>,
    /// Ours: the timeline the primary was on.
    pub timeline: Option<Timeline>,
    /// Ours: the way to that timeline, each fork after the one before, from where `history` ends; the newest in any case.
    pub forks: Vec<Fork>,
    /// Ours: the timeline that the holder of the lock makes if it promotes. Nobody else may make it, used or not.
    pub next: Option<Timeline>,
    /// Ours: this leader stopped PostgreSQL cleanly and gave the lock back, so its right is over.
    pub vacated: Option<NodeName>,
    /// Ours: this member's primary runs in a pause without a deadline: it may be writable for as long as this stands here, whoever
    /// holds the lock and whether its agent lives or not.
    pub unfenced: Option<NodeName>,
}

/// Where a timeline left the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The one before.
    pub from: Timeline,
    /// The end of what they have in common.
    pub at: Lsn,
}

impl Fork {
    /// Where `timeline` left the one before, by the history of it or of one that came of it.
    #[must_use]
    pub fn of(timeline: Timeline, history: &[HistoryLine]) -> Option<Self> {
        let before = history.iter().filter(|line| line.timeline < timeline);
        before.max_by_key(|line| line.timeline).map(Self::from)
    }
}

impl From<&HistoryLine> for Fork {
    fn from(line: &HistoryLine) -> Self {
        Self {
            from: line.timeline,
            at: line.switch,
        }
    }
}

/// The `failover` key: an operator's wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverKey {
    /// The leader it is meant for; set in a switchover.
    pub leader: Option<NodeName>,
    /// Who shall take over.
    pub candidate: Option<NodeName>,
    /// Not before this time: seconds since 1970, already compared with the wall clock by the agent.
    pub due: Due,
    /// For compare-and-swap.
    pub revision: Revision,
}

impl FailoverKey {
    /// A manual failover: a person says who is to lead, whoever leads now. A switchover names the leader too.
    #[must_use]
    pub fn manual(&self) -> bool {
        self.leader.is_none() && self.candidate.is_some()
    }
}

/// Whether the time of a scheduled request has come. The agent compares wall clocks; the core sees only the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Due {
    /// No schedule, or its time has come.
    Now,
    /// Due in this long.
    In(Duration),
    /// Missed by more than one and a half rounds: it is dropped.
    Stale,
}

/// One line of the `history` key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Where its successor forked off.
    pub switch: Lsn,
    /// PostgreSQL's reason.
    pub reason: String,
    /// When, as text; absent in old entries.
    pub at: Option<String>,
    /// Who was promoted; absent in old entries.
    pub leader: Option<String>,
}

/// What is known of the local PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresView {
    /// The data directory.
    pub data: DataDir,
    /// The server process.
    pub process: Process,
}

/// The data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataDir {
    /// Missing or empty.
    Empty,
    /// A complete cluster.
    Present(ControlData),
    /// Something that was interrupted half-way: an initdb, a base backup, a rewind. The text says which.
    Incomplete(String),
    /// It cannot be read or holds something that is no cluster. The text says what to do.
    Unusable(String),
}

/// What `pg_controldata` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlData {
    /// The cluster's identity.
    pub system_id: SystemId,
    /// The state in which the server left it.
    pub state: ControlState,
    /// Timeline of the last checkpoint.
    pub timeline: Timeline,
    /// End of what is known to be valid: the last checkpoint, or the minimal end of recovery if that is later.
    pub position: Lsn,
    /// Checksums or wal_log_hints: pg_rewind can work on it.
    pub rewindable: bool,
    /// Where that timeline left the one before, by its history file; known of a directory without a server.
    pub fork: Option<Fork>,
}

/// The state of a data directory, as the control file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlState {
    /// A primary that was stopped cleanly.
    ShutDown,
    /// A standby that was stopped cleanly.
    ShutDownInRecovery,
    /// A primary that runs, or crashed.
    InProduction,
    /// A standby that runs, or crashed.
    InArchiveRecovery,
    /// A primary in crash recovery, or that crashed in it.
    InCrashRecovery,
    /// A primary in the midst of stopping, or that crashed in it.
    ShuttingDown,
}

impl ControlState {
    /// The last server on it was a primary.
    #[must_use]
    pub fn was_primary(self) -> bool {
        !matches!(self, Self::ShutDownInRecovery | Self::InArchiveRecovery)
    }
}

/// The server process.
#[expect(
    clippy::large_enum_variant,
    reason = "a node keeps one of it, and nearly always that of a running server"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Process {
    /// No postmaster.
    Absent,
    /// A postmaster that does not take connections yet.
    Starting {
        /// It was started without a standby.signal, so it will accept writes when it is ready.
        as_primary: bool,
    },
    /// It answers queries.
    Running(Server),
    /// A postmaster that ought to answer and does not. What it was doing is as last seen.
    Unresponsive {
        /// It accepted writes when it last answered, or may do so.
        may_write: bool,
    },
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its role and positions.
    pub role: ServerRole,
    /// The timeline it writes or replays.
    pub timeline: Timeline,
    /// Identity, from its control file.
    pub system_id: SystemId,
    /// `server_version_num`, such as 150018.
    pub version: u32,
    /// It has a guard as its parent, or as adoptive parent.
    pub guarded: bool,
    /// Who streams from it, by application name.
    pub standbys: BTreeMap<String, Standby>,
    /// `synchronous_standby_names`.
    pub synchronous: Names,
    /// That setting was written by the agent; else it is the user's own.
    pub managed: bool,
    /// Its rules let in members alone: it is a primary whose standbys do not have what it shows yet.
    pub gated: bool,
    /// Its physical slots with their restart positions.
    pub slots: BTreeMap<String, Lsn>,
    /// The history of its timelines that have ended, from its history file.
    pub history: Vec<HistoryLine>,
    /// The `primary_conninfo` names this host and port; `None` when it follows nobody.
    pub upstream: Option<String>,
    /// The `primary_slot_name`; `None` when it asks for no slot.
    pub slot: Option<String>,
    /// It is a replica, does not stream, and has the history files of the timelines after its own, up to this one. PostgreSQL takes the newest of
    /// which it has a file for its target, asks no server for an older one, and makes none of these numbers in a promotion.
    pub heard_of: Option<Timeline>,
}

/// A walsender's standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standby {
    /// It has caught up once and streams.
    pub streaming: bool,
    /// How far it has confirmed what `synchronous_commit` demands: written, flushed or replayed.
    pub position: Lsn,
    /// More than one walsender serves this name, so it is not known whose position that is.
    pub doubled: bool,
}

/// Primary or replica, with the positions of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerRole {
    /// Accepts writes.
    Primary {
        /// The end of the WAL it has written.
        written: Lsn,
    },
    /// In recovery.
    Replica {
        /// The end of the WAL it has received and flushed; behind the truth after a restart.
        received: Option<Lsn>,
        /// The end of the WAL it has replayed.
        replayed: Lsn,
        /// A walreceiver streams.
        streaming: bool,
    },
}

impl Server {
    /// The names of those who stream from it.
    #[must_use]
    pub fn streaming_to(&self) -> BTreeSet<String> {
        self.standbys.keys().cloned().collect()
    }

    /// It accepts writes.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        matches!(self.role, ServerRole::Primary { .. })
    }

    /// The end of the WAL that a promotion here would keep.
    #[must_use]
    pub fn position(&self) -> Lsn {
        match self.role {
            ServerRole::Primary { written } => written,
            ServerRole::Replica {
                received, replayed, ..
            } => received.unwrap_or_default().max(replayed),
        }
    }
}

/// What another member said when it was asked over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// PostgreSQL runs and answers.
    pub running: bool,
    /// It is a primary.
    pub primary: bool,
    /// Its position.
    pub position: Option<Lsn>,
    /// Its timeline.
    pub timeline: Option<Timeline>,
    /// It may not be elected.
    pub nofailover: bool,
    /// Preference among equals.
    pub failover_priority: u32,
    /// The timeline that its data is on, whether PostgreSQL runs or not; `None` if it is a Patroni member.
    pub stands: Option<Timeline>,
    /// Its own account of whether it can reach the DCS and could take the lock; `None` if it is a Patroni member.
    pub can_take_lock: Option<bool>,
}
