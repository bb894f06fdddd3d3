//! Synchronous replication: who acknowledges commits, and who may therefore be elected.
//!
//! Two things say so, and neither can be changed at one instant with the other: `synchronous_standby_names`, by which PostgreSQL lets
//! commits return ([`Names`]), and the `sync` key, by which members elect ([`SyncKey`]). The invariant (S7 in `sim`):
//!
//! > At every instant, any set of members that may elect a primary has a member in common with any set of standbys that may have
//! > acknowledged a commit.
//!
//! Then whoever is elected has every commit that a client was told of. "May have acknowledged" counts that a changed setting reaches
//! each process of PostgreSQL at its own time, so that for a while commits return by the old rule and by the new one.
//!
//! - [`names`], [`key`]: the two sides, and when they meet
//! - [`target`]: what both should be, by who streams and by the settings
//! - [`plan`]: the next single write that leads there and keeps the invariant whatever becomes of it
//! - [`progress`]: what is known of what PostgreSQL does by now
//! - [`gate`]: who may look at a new primary before its standbys have what it shows
//! - [`duty`]: the leader's orders; the rules that elect and promote look at the key themselves

pub(crate) mod duty;
pub mod gate;
pub mod key;
pub mod names;
pub mod plan;
pub mod progress;
pub mod target;

pub use gate::Gate;
pub use key::SyncKey;
pub use names::Names;

use serde::{Deserialize, Serialize};

/// `synchronous_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Mode {
    /// Asynchronous replication.
    #[default]
    Off,
    /// Each of some named standbys acknowledges each commit, and each of them may be elected.
    On,
    /// So many of all standbys acknowledge each commit, and of all so many must be heard in an election.
    Quorum,
}

/// The settings of synchronous replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `synchronous_mode`.
    pub mode: Mode,
    /// `synchronous_mode_strict`: with nobody to acknowledge, commits wait.
    pub strict: bool,
    /// `synchronous_node_count`: how many standbys acknowledge each commit, if there are so many.
    pub count: usize,
    /// `maximum_lag_on_syncnode`, in bytes: who lags more behind the best standby does not count. `None`: no limit.
    pub maximum_lag: Option<u64>,
    /// After a start or a promotion clients wait for standbys to have what they would see. `None`: they do not.
    pub gate: Option<Gate>,
}

impl Settings {
    /// The gate, in a mode that has standbys to wait for.
    #[must_use]
    pub fn shut_by(&self) -> Option<Gate> {
        self.gate.filter(|_| self.mode != Mode::Off)
    }

    /// The setting while no standby acknowledges: the primary goes on alone or, in strict mode, commits wait.
    #[must_use]
    pub fn alone(&self) -> Names {
        if self.strict {
            Names::nobody(self.mode == Mode::Quorum)
        } else {
            Names::Alone
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Off,
            strict: false,
            count: 1,
            maximum_lag: None,
            gate: None,
        }
    }
}
