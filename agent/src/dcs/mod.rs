//! The distributed configuration store: etcd through its v3 API.
//!
//! [`Etcd`] carries out the core's orders of the lanes `Lock`, `Read` and `Publish`, one method each, and what REST and the
//! command line ask. It decides nothing, and nothing in it renews a lease by itself. What it guarantees:
//!
//! - **One of three ends, never confused**: certainly done, certainly not done ([`DcsError::Failed`]), or in doubt
//!   ([`DcsError::Unknown`]). `fault` holds the table of etcd's errors.
//! - **A right is never over-counted**: see [`Lock`].
//! - **One bad endpoint costs one order some time, not its success**: dead, swallowing, frozen or stale, it is left for the next,
//!   and asked last for a while.
//! - **Bounded**: every method ends within its `limit`.
//!
//! Map:
//! - `endpoint`: one etcd member: channel, TLS, token, one request; `pool`: which member to ask, deadlines, raft terms; `fault`: errors
//! - `lock`: the leader key and the lease; `publish`: reads and the other keys; `watch`: following the keys
//! - [`mode`]: what kind of cluster the keys make it; `record`: the values we write; [`parse`]: the facts in what anybody wrote; [`snapshot`]: both as one value

mod endpoint;
mod fault;
mod lock;
pub mod mode;
pub mod parse;
mod pool;
mod publish;
mod record;
pub mod snapshot;
mod watch;

use std::sync::{Arc, Mutex};

pub use fault::DcsError;
pub use lock::Lock;
pub(crate) use parse::number;
pub use publish::{STOPPING, Swap};
pub use record::{MemberFacts, PATRONI_VERSION, member_json};

use crate::clock::Clock;
use crate::config::settings;
use crate::machine::Machine;

/// The cluster's keys in etcd, as one member uses them. Lanes may use it at the same time; within a lane, one order at a time.
pub struct Etcd {
    pool: pool::Pool,
    /// `/{namespace}/{scope}/`.
    prefix: String,
    /// This member.
    name: String,
    clock: Arc<dyn Clock>,
    /// The one lease of this process.
    lease: Mutex<Option<lock::OwnLease>>,
    /// The cluster's keys as they were last read.
    known: Mutex<snapshot::Snapshot>,
}

impl Etcd {
    /// The cluster under `prefix` (`/{namespace}/{scope}/`), used by the member `name`. Connects when first needed, through `machine`.
    ///
    /// # Errors
    /// [`DcsError::Settings`]: no endpoint, or TLS files that cannot be read.
    pub fn new(
        settings: &settings::Etcd,
        prefix: &str,
        name: &str,
        machine: Machine,
    ) -> Result<Self, DcsError> {
        if settings.hosts.is_empty() {
            return Err(DcsError::Settings("no endpoint; set etcd3.hosts".to_owned()));
        }
        let endpoints = settings
            .hosts
            .iter()
            .map(|at| endpoint::Endpoint::new(at.clone(), settings, &machine))
            .collect::<Result<Vec<_>, _>>()?;
        let clock = machine.clock;
        Ok(Self {
            pool: pool::Pool::new(endpoints, Arc::clone(&clock)),
            prefix: prefix.to_owned(),
            name: name.to_owned(),
            clock,
            lease: Mutex::default(),
            known: Mutex::default(),
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}
