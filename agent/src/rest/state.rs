//! What the REST API answers from: a value that the driver publishes after each step.
//!
//! Requests never look at PostgreSQL or ask the core: they read the newest [`NodeStatus`] from a `tokio::sync::watch`
//! channel, so a slow client or a thousand of them cannot slow the node down. The one exception is time: whether
//! the right to be primary still holds is asked of the clock at the instant of the request.
//!
//! The large parts are behind `Arc`: publishing at 10 Hz copies a few words and bumps counters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use surus_core::types::{Lsn, MonoTime, SystemId, Timeline};
use surus_core::view::{DataDir, PostgresView, Process, Seen, Server, ServerRole};

use crate::config::settings::Tags;
use crate::dcs::mode::{self, Synchronous, truthy};
use crate::dcs::snapshot::Snapshot;

/// All that REST says about this node.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// Cluster name.
    pub scope: Arc<str>,
    /// Member name.
    pub name: Arc<str>,
    /// The timing that health codes are judged with.
    pub timing: Timing,
    /// The cluster's keys, and for which time they are known (when the read or the progress notification was sent).
    pub cluster: Option<Seen<Arc<ClusterStatus>>>,
    /// The last look at PostgreSQL.
    pub postgres: Option<Arc<PostgresStatus>>,
    /// Patroni's word for the state of PostgreSQL, one of [`STATES`].
    pub state: &'static str,
    /// Patroni's internal word for the role: `primary`, `replica`, `standby_leader`, `demoted`, `uninitialized`, `promoted`.
    pub role: &'static str,
    /// The right to be primary: until when it holds, counted from the *sending* of the last confirmed renewal or, without
    /// the DCS, of the last failsafe round that all granted.
    pub lock_until: Option<MonoTime>,
    /// When the driver means to publish next at the latest; `/liveness` measures delay from it.
    pub next_run: MonoTime,
    /// Maintenance mode.
    pub pause: bool,
    /// In a pause: everybody can know that this member's primary runs on without a right in time.
    pub unfenced: bool,
    /// `failsafe_mode` is on.
    pub failsafe_mode: bool,
    /// The primary lives on its peers' grants, because the DCS is out of reach.
    pub failsafe_active: bool,
    /// This node could take the lock if it were free: the DCS answers it, and nothing forbids it.
    pub can_take_lock: bool,
    /// The timeline that the data here is on, whether PostgreSQL runs or not.
    pub stands: Option<Timeline>,
    /// A watchdog is required and does not work.
    pub watchdog_failed: bool,
    /// Wall time of the last answer of the DCS, since 1970.
    pub dcs_last_seen: Option<Duration>,
    /// This member's tags.
    pub tags: Arc<Tags>,
    /// Long work on the data directory, while it lasts.
    pub progress: Option<Progress>,
    /// Decisions the core has made since it started.
    pub decisions: u64,
    /// Stable code of the rule that fired last, such as `R21`.
    pub last_rule: &'static str,
}

/// The timing that health codes are judged with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Life of the leader's lease.
    pub ttl: Duration,
    /// Pause between two rounds of routine work.
    pub loop_wait: Duration,
    /// Patience with a starting primary: also how long `POST /restart` waits unless it says otherwise.
    pub primary_start_timeout: Duration,
    /// Bytes of lag with which a replica still counts as ready.
    pub maximum_lag_on_failover: u64,
}

impl Timing {
    /// How old a look at PostgreSQL may be for an answer to rest on it: two rounds and a second, so that one slow probe is
    /// forgiven and a wedged prober is not.
    #[must_use]
    pub fn probe_limit(&self) -> Duration {
        self.loop_wait * 2 + Duration::from_secs(1)
    }
}

/// Bytes done of long work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is done, such as `base backup` or `rewind`.
    pub what: &'static str,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, once known.
    pub total: Option<u64>,
}

/// The core's explanation, in both renderings.
#[derive(Debug, Clone, Default)]
pub struct Explanation {
    /// For programs.
    pub json: Value,
    /// For people.
    pub text: String,
}

/// The cluster's keys with those parts read that requests ask for again and again. Made once per revision.
#[derive(Debug, Clone)]
pub struct ClusterStatus {
    /// The keys.
    pub snapshot: Arc<Snapshot>,
    /// The `config` key, if it is JSON.
    pub config: Option<Arc<Value>>,
    /// The members named in the `sync` key.
    pub sync_standbys: BTreeSet<String>,
    /// `synchronous_mode`.
    pub synchronous: Synchronous,
    /// The cluster follows another one (`standby_cluster`).
    pub standby_cluster: bool,
    /// The configuration says pause.
    pub pause: bool,
}

impl ClusterStatus {
    /// Reads the parts.
    #[must_use]
    pub fn new(snapshot: impl Into<Arc<Snapshot>>) -> Self {
        let snapshot = snapshot.into();
        let config = snapshot.raw.json("config").map(Arc::new);
        Self::with(snapshot, config)
    }

    /// The same at another revision; what is as it was is not read again.
    #[must_use]
    pub fn followed_by(&self, snapshot: Arc<Snapshot>) -> Self {
        if snapshot.raw.keys.get("config") != self.snapshot.raw.keys.get("config") {
            return Self::new(snapshot);
        }
        Self::with(snapshot, self.config.clone())
    }

    fn with(snapshot: Arc<Snapshot>, config: Option<Arc<Value>>) -> Self {
        let said = config.as_deref().unwrap_or(&Value::Null);
        let synchronous = Synchronous::of(said);
        let standby_cluster = mode::follows_another(said);
        let pause = said.get("pause").is_some_and(truthy);
        let sync_standbys = mode::sync_standbys(&snapshot.raw);
        Self {
            snapshot,
            config,
            sync_standbys,
            synchronous,
            standby_cluster,
            pause,
        }
    }

    /// The name in the `leader` key.
    #[must_use]
    pub fn leader(&self) -> Option<&str> {
        self.snapshot
            .view
            .leader
            .as_ref()
            .map(|leader| leader.name.as_str())
    }

    /// The `history` key, `[]` if there is none.
    #[must_use]
    pub fn history(&self) -> Value {
        match self.snapshot.raw.json("history") {
            Some(history @ Value::Array(_)) => history,
            _ => Value::Array(Vec::new()),
        }
    }
}

/// One look at PostgreSQL.
#[derive(Debug, Clone, PartialEq)]
pub struct PostgresStatus {
    /// When the look began.
    pub at: MonoTime,
    /// What the core was told.
    pub view: PostgresView,
    /// What only people and dashboards ask for.
    pub detail: ServerDetail,
}

/// Facts of a running server that the core has no use for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServerDetail {
    /// `pg_postmaster_start_time()`, since 1970.
    pub postmaster_start_time: Option<Duration>,
    /// `pg_stat_replication`.
    pub walsenders: Vec<WalSender>,
    /// `pg_last_xact_replay_timestamp()`, since 1970.
    pub replayed_at: Option<Duration>,
    /// Replay is paused.
    pub replay_paused: bool,
    /// `streaming` or `in archive recovery`, of a replica.
    pub replication_state: Option<&'static str>,
    /// `latest_end_lsn` of the walreceiver: where its upstream was when it last wrote.
    pub upstream_end: Option<Lsn>,
    /// Settings that wait for a restart: name, value in force, value wanted.
    pub pending_restart: BTreeMap<String, (String, String)>,
}

/// A line of `pg_stat_replication`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalSender {
    /// `usename`.
    pub usename: String,
    /// `application_name`.
    pub application_name: String,
    /// `client_addr`; none over a Unix socket.
    pub client_addr: Option<String>,
    /// `state`.
    pub state: String,
    /// `sync_state`.
    pub sync_state: String,
    /// `sync_priority`.
    pub sync_priority: i64,
}

/// The words for the state of PostgreSQL; the index is the value of `patroni_postgres_state`.
pub const STATES: [&str; 15] = [
    "initializing new cluster",
    "initdb failed",
    "running custom bootstrap script",
    "custom bootstrap failed",
    "creating replica",
    "running",
    "starting",
    "starting after custom bootstrap",
    "start failed",
    "restarting",
    "restart failed",
    "stopping",
    "stopped",
    "stop failed",
    "crashed",
];

impl NodeStatus {
    /// A node that has done nothing yet: what to publish before the first step.
    #[must_use]
    pub fn starting(scope: &str, name: &str, timing: Timing, now: MonoTime) -> Self {
        Self {
            scope: scope.into(),
            name: name.into(),
            timing,
            cluster: None,
            postgres: None,
            state: "stopped",
            role: "uninitialized",
            lock_until: None,
            next_run: now.plus(timing.loop_wait),
            pause: false,
            unfenced: false,
            failsafe_mode: false,
            failsafe_active: false,
            can_take_lock: false,
            stands: None,
            watchdog_failed: false,
            dcs_last_seen: None,
            tags: Arc::default(),
            progress: None,
            decisions: 0,
            last_rule: "",
        }
    }

    /// The right to be primary holds at `now`.
    #[must_use]
    pub fn is_leader(&self, now: MonoTime) -> bool {
        self.lock_until.is_some_and(|until| now < until)
    }

    /// The cluster's keys, if they were seen within the last ttl.
    #[must_use]
    pub fn fresh_cluster(&self, now: MonoTime) -> Option<&Arc<ClusterStatus>> {
        let seen = self.cluster.as_ref()?;
        (now.since(seen.at) < self.timing.ttl).then_some(&seen.value)
    }

    /// The cluster follows another one, as far as was ever seen.
    #[must_use]
    pub fn standby_cluster(&self) -> bool {
        self.cluster
            .as_ref()
            .is_some_and(|seen| seen.value.standby_cluster)
    }

    /// The server, if a recent look found it answering.
    #[must_use]
    pub fn server(&self, now: MonoTime) -> Option<(&Server, &ServerDetail)> {
        let status = self.postgres.as_ref()?;
        match &status.view.process {
            Process::Running(server) if now.since(status.at) <= self.timing.probe_limit() => {
                Some((server, &status.detail))
            }
            _ => None,
        }
    }

    /// A recent look found a server that accepts writes.
    #[must_use]
    pub fn accepts_writes(&self, now: MonoTime) -> bool {
        self.state_word(now) == "running"
            && self
                .server(now)
                .is_some_and(|(server, _)| server.is_primary() && !server.gated)
    }

    /// The state to tell: `unknown` if PostgreSQL ought to run and does not answer.
    #[must_use]
    pub fn state_word(&self, now: MonoTime) -> &'static str {
        if self.state == "running" && self.server(now).is_none() {
            "unknown"
        } else {
            self.state
        }
    }

    /// The role to tell: the server's own account, or the internal word when it does not answer.
    #[must_use]
    pub fn role_word(&self, now: MonoTime) -> &'static str {
        match self.server(now) {
            Some((server, _)) if server.is_primary() => "primary",
            Some(_) if self.standby_cluster() && self.is_leader(now) => "standby_leader",
            Some(_) => "replica",
            None => self.role,
        }
    }

    /// `streaming` or `in archive recovery`, of a replica that answers.
    #[must_use]
    pub fn replication_state(&self, now: MonoTime) -> Option<&'static str> {
        let (server, detail) = self.server(now)?;
        match server.role {
            ServerRole::Primary { .. } => None,
            ServerRole::Replica { streaming: true, .. } => Some("streaming"),
            ServerRole::Replica { .. } => detail.replication_state,
        }
    }

    /// This node is named in the `sync` key of a cluster that has synchronous replication: as a synchronous standby,
    /// or as one of a quorum.
    #[must_use]
    pub fn sync_standby(&self, now: MonoTime) -> Synchronous {
        match self.fresh_cluster(now) {
            Some(cluster) if cluster.sync_standbys.contains(&*self.name) => cluster.synchronous,
            _ => Synchronous::Off,
        }
    }

    /// Bytes by which replay is behind the furthest known position of the primary; `None` unless this is a replica that
    /// answers.
    #[must_use]
    pub fn lag(&self, now: MonoTime, position: Position) -> Option<u64> {
        let (server, detail) = self.server(now)?;
        let ServerRole::Replica {
            received, replayed, ..
        } = server.role
        else {
            return None;
        };
        let published = self
            .cluster
            .as_ref()
            .and_then(|seen| seen.value.snapshot.view.status.as_ref())
            .map(|status| status.optime);
        let known = published.max(detail.upstream_end).unwrap_or_default();
        Some(known.ahead_of(match position {
            Position::Replayed => replayed,
            Position::Received => received.unwrap_or(replayed),
        }))
    }

    /// The cluster's identity, from the server or from its control file.
    #[must_use]
    pub fn system_id(&self) -> Option<SystemId> {
        let view = &self.postgres.as_ref()?.view;
        match (&view.process, &view.data) {
            (Process::Running(server), _) => Some(server.system_id),
            (_, DataDir::Present(control)) => Some(control.system_id),
            _ => None,
        }
    }
}

/// Which of a replica's positions counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Replayed: visible to queries.
    Replayed,
    /// Received: not lost in a failover to it.
    Received,
}
