//! The settings that the state machine itself obeys.
//!
//! The agent merges `patroni.yml`, the environment and the `config` key of the DCS into this; the core never
//! sees a file. Defaults are ours where the user is silent; see `docs` in the README for their reasons.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sync::Settings;
use crate::types::NodeName;

/// What the core needs to know about its node and cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// This member's name.
    pub name: NodeName,
    /// Life of the leader's lease in etcd without renewal. Default 5 s.
    pub ttl: Duration,
    /// Pause between two rounds of routine work. Default 1 s.
    pub loop_wait: Duration,
    /// How long one request to etcd or PostgreSQL may be retried. Default 2 s.
    pub retry_timeout: Duration,
    /// Bytes by which a candidate may be behind the last known position of the primary. Default 1 MiB.
    pub maximum_lag_on_failover: u64,
    /// How long a crashed primary may take to come back in place before another is elected; zero fails over at once.
    /// Default 300 s.
    pub primary_start_timeout: Duration,
    /// How long a slot of a vanished member is kept. Default 30 min; zero drops it at once.
    pub member_slots_ttl: Duration,
    /// Keeps the primary through a loss of etcd while every electable member grants it. Default on.
    pub failsafe_mode: bool,
    /// Synchronous replication. Default off.
    pub synchronous: Settings,
    /// Maintenance: nothing is started, stopped, promoted or demoted by itself.
    pub pause: bool,
    /// This member may never become primary.
    pub nofailover: bool,
    /// Preference among candidates at the same position; higher wins. Default 1.
    pub failover_priority: u32,
    /// This node may create a new cluster (its file has a `bootstrap` section).
    pub may_bootstrap: bool,
    /// Members get a physical replication slot each.
    pub use_slots: bool,
    /// A diverged data directory may be rewound.
    pub use_pg_rewind: bool,
    /// A data directory whose rewind failed may be moved aside and cloned anew.
    pub reclone_on_rewind_failure: bool,
    /// A diverged data directory that cannot be rewound may be moved aside and cloned anew.
    pub reclone_on_divergence: bool,
    /// Stream from this member rather than from the leader (tag `replicatefrom`).
    pub replicate_from: Option<NodeName>,
    /// Names of slots that belong to the user and are never dropped.
    pub permanent_slots: Vec<String>,
    /// How many lines of timeline history the `history` key keeps; zero keeps all.
    pub max_timelines_history: usize,
}

/// The bound on the drift between a node's clock and etcd's: one part in this many.
///
/// 1e-3 is ten times what the kernel tolerates of an undisciplined crystal (500 ppm slew at most).
pub const DRIFT_PARTS: u32 = 1000;

impl Config {
    /// The defaults for a member called `name`.
    #[must_use]
    pub fn new(name: NodeName) -> Self {
        Self {
            name,
            ttl: Duration::from_secs(5),
            loop_wait: Duration::from_secs(1),
            retry_timeout: Duration::from_secs(2),
            maximum_lag_on_failover: 1 << 20,
            primary_start_timeout: Duration::from_secs(300),
            member_slots_ttl: Duration::from_secs(1800),
            failsafe_mode: true,
            synchronous: Settings::default(),
            pause: false,
            nofailover: false,
            failover_priority: 1,
            may_bootstrap: true,
            use_slots: true,
            use_pg_rewind: false,
            reclone_on_rewind_failure: false,
            reclone_on_divergence: false,
            replicate_from: None,
            permanent_slots: Vec::new(),
            max_timelines_history: 0,
        }
    }

    /// How long a confirmed renewal of a lease of `ttl` gives the right to be primary, counted from when it was *sent*:
    /// the ttl less the drift bound.
    #[must_use]
    pub fn right(ttl: Duration) -> Duration {
        ttl - ttl / DRIFT_PARTS
    }

    /// How long somebody else's right can last by *our* clock: the ttl plus the drift bound.
    #[must_use]
    pub fn foreign_right(ttl: Duration) -> Duration {
        ttl + ttl / DRIFT_PARTS
    }

    /// The pace of routine work: `loop_wait`, and three rounds in the life of the lease at least, whatever ttl was set meanwhile.
    #[must_use]
    pub fn round(&self) -> Duration {
        self.loop_wait.min(self.ttl / 3)
    }

    /// How long before its right ends a primary stops by itself (1.5 s, less for a short ttl): time for a fast stop
    /// that turns into an immediate one before the guard kills.
    #[must_use]
    pub fn stop_margin(&self) -> Duration {
        Duration::from_millis(1500).min(self.ttl * 3 / 10)
    }

    /// How long before the right ends the guard kills (0.5 s, less for a short ttl). The kill itself took 64 ms with
    /// 28 busy backends on two cores.
    #[must_use]
    pub fn guard_margin(&self) -> Duration {
        Duration::from_millis(500).min(self.ttl / 10)
    }

    /// How long after the last confirmed renewal trouble is suspected: a primary asks for failsafe grants, replicas ask
    /// each other for positions.
    #[must_use]
    pub fn suspicion(&self) -> Duration {
        (self.ttl * 4 / 10)
            .max(self.round() * 3 / 2)
            .min(self.ttl * 6 / 10)
    }
}
