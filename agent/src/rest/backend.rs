//! What the REST API asks of the rest of the agent.
//!
//! Object-safe with boxed futures, so that the server is compiled once and the driver, the simulator and tests each
//! put their own behind it. Every future must end by itself within the agent's own time limits; the server adds an
//! outer bound where a client waits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use surus_core::input::OperatorOrder;
use surus_core::types::{Lsn, MonoTime};
use surus_core::view::PeerStatus;
use tokio::task::AbortHandle;

use super::state::Explanation;
use crate::dcs::snapshot::Snapshot;
use crate::net::{Network as _, Tcp};
pub use crate::task::BoxFuture;
use crate::task::{Spawn as _, Tokio};

/// The agent behind the REST API.
pub trait Backend: Send + Sync + 'static {
    /// The monotonic clock that `lock_until` is counted on.
    fn now(&self) -> MonoTime;

    /// Wall time since 1970: for schedules and the `Date` header.
    fn wall(&self) -> Duration;

    /// Passes an order to the core; the reply comes when it is done or refused.
    fn order(&self, order: OperatorOrder) -> BoxFuture<'_, Reply>;

    /// Reads the configuration files anew, as on SIGHUP. Returns at once.
    fn reload(&self);

    /// Has the driver do a round now: the failover key or the configuration has changed, or a restart was scheduled.
    fn wake(&self);

    /// Has PostgreSQL looked at now; returns when the status published shows it, or after a short while. Another member in a
    /// race must not decide by what was true a second ago.
    fn look(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// Why the node is where it is, as the core says at this moment; `None` if it does not answer within two seconds or so.
    fn explain(&self) -> BoxFuture<'_, Option<Explanation>>;

    /// Reads all keys, linearizably.
    fn read_cluster(&self) -> BoxFuture<'_, Result<Snapshot, DcsError>>;

    /// Judges a dynamic configuration before it is written. The error names the key and says what it may be.
    fn check_config(&self, config: &Value) -> Result<(), String>;

    /// Writes the `config` key if its mod revision is still `expected`.
    fn cas_config(&self, config: Value, expected: i64) -> BoxFuture<'_, Result<(), DcsError>>;

    /// Writes the `config` key whatever it holds.
    fn put_config(&self, config: Value) -> BoxFuture<'_, Result<(), DcsError>>;

    /// Writes the `failover` key if its mod revision is still `expected` (zero: there is no such key), and returns the
    /// revision at which that happened.
    fn put_failover(&self, text: String, expected: i64) -> BoxFuture<'_, Result<i64, DcsError>>;

    /// Another primary asks to stay primary without the DCS. The core answers.
    fn failsafe_asked(&self, ask: FailsafeAsk) -> BoxFuture<'_, FailsafeAnswer>;

    /// Asks another member for its status; `None` if it does not answer within two seconds or so.
    fn ask_status(&self, api_url: String) -> BoxFuture<'_, Option<PeerStatus>>;

    /// Addresses of a host name of the allowlist; none if it cannot be resolved.
    fn resolve(&self, host: String) -> BoxFuture<'_, Vec<IpAddr>> {
        Tcp.resolve(host)
    }

    /// Runs a connection's task.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> AbortHandle {
        Tokio.spawn(task)
    }
}

/// How an order went, in words for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Done, or begun where the order says so.
    pub ok: bool,
    /// What to tell; may be empty for the usual text.
    pub text: String,
}

/// Why the DCS did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DcsError {
    /// Somebody else has changed the key; nothing was written.
    #[error("the key has been changed by somebody else in the meantime; read it again and retry")]
    Conflict,
    /// No answer, or a refusal; the write may have happened if it timed out.
    #[error("the DCS is not available: {0}")]
    Unavailable(String),
}

/// A primary's question of `POST /failsafe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailsafeAsk {
    /// Who asks.
    pub name: String,
    /// Its PostgreSQL.
    pub conn_url: String,
    /// Its REST API.
    pub api_url: String,
    /// Its slots with their positions.
    pub slots: BTreeMap<String, Lsn>,
    /// For how long at least, if it says so (Patroni does not).
    pub ttl: Option<Duration>,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailsafeAnswer {
    /// The asker may stay primary: this node will not race for a ttl.
    Accepted,
    /// It may not. `Running as a leader` if this node is a primary itself.
    Refused(String),
    /// Failsafe mode is off here.
    Off,
}
