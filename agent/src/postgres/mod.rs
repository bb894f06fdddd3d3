//! Everything the agent does to, and asks of, the local PostgreSQL (13 to 18).
//!
//! [`Postgres`] carries out the orders of the lanes `Postgres`, `Probe`, `Upkeep` and `Guard`, one method per order. It chooses nothing: what
//! to do, when, and until when it may be done was decided by the core.
//!
//! What it guarantees:
//!
//! - an order whose right has run out is refused at the place of the deed, after everything that may take time;
//! - no server that will accept writes is started or promoted before the guard has its deadline;
//! - no directory that may hold the last copy of anything is deleted: it is moved aside, next to where it was;
//! - work that was interrupted half-way (initdb, base backup, rewind) is known as such for ever after, by a marker beside the data
//!   directory;
//! - a probe of a healthy server is one prepared query on one connection: no process, no file;
//! - a probe never lasts much longer than two seconds, whatever PostgreSQL or its disk do.
//!
//! The process itself is started and signalled through [`ProcessControl`], behind which stands the guard.
//!
//! Map: `process` (the seam to the guard), `probe` (look), `answer` (its query), `control` (pg_control), `directory` (what a data directory is, who uses
//! it, markers, moving aside), `conf` and `hba` (configuration files), `binaries` (what the installed version knows), `connect`
//! (connections and connection strings), `exec` (running tools), `lifecycle` (start, stop, restart, adopt), `promote`, `follow`
//! (upstream, history), `rewind`, `basebackup`, `bootstrap`, `slots`, `reload`, `details`, `callbacks`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use surus_core::action::Order;
use surus_core::input::Outcome;
use surus_core::types::{Generation, Lsn, MonoTime, SystemId, Timeline};
use surus_core::view::HistoryLine;

use crate::clock::Clock;
use crate::config::settings::{Bootstrap, PostgresSettings};
use crate::machine::Machine;
use crate::net::Dial;
use crate::task::Spawn;

mod answer;
mod basebackup;
mod binaries;
mod bootstrap;
mod callbacks;
mod conf;
mod connect;
mod control;
mod details;
mod directory;
mod error;
mod exec;
mod files;
mod follow;
mod hba;
mod lifecycle;
mod probe;
mod process;
mod promote;
mod reload;
mod rewind;
mod slots;

pub use details::{Details, Walsender};
pub use error::Error;
pub use exec::Progress;
pub use process::{BoxFuture, ControlError, ControlStatus, ProcessControl, Signal, StartRequest};
pub use reload::{PendingRestart, ReloadReport};

/// The local PostgreSQL.
///
/// Methods of different lanes may run at the same time; within the lane `Postgres` the driver runs one at a time.
pub struct Postgres {
    clock: Arc<dyn Clock>,
    dial: Arc<dyn Dial>,
    tasks: Arc<dyn Spawn>,
    control: Arc<dyn ProcessControl>,
    settings: RwLock<Arc<PostgresSettings>>,
    bootstrap: Option<Arc<Bootstrap>>,
    heartbeat: connect::HeartbeatSlot,
    binaries: binaries::Cache,
    callbacks: callbacks::Callbacks,
    progress: exec::ProgressSlot,
    memory: Mutex<Memory>,
    /// A look at the files of the data directory is under way.
    stuck: Arc<AtomicBool>,
}

/// What is remembered between orders. Nothing in it is needed for safety: a restarted agent begins with an empty one.
#[derive(Debug, Default)]
struct Memory {
    /// The role the server was last seen in or started in: `true` for a primary.
    primary: Option<bool>,
    /// The furthest position received of a timeline. PostgreSQL itself forgets it in a restart, the WAL is on disk all the same.
    received: Option<(SystemId, Timeline, Lsn)>,
    /// History of a timeline, as read from its file.
    history: Option<(Timeline, Vec<HistoryLine>)>,
    /// The control file as pg_controldata last printed it, with the stamp of the file then.
    control: Option<(control::Stamp, control::ControlFile)>,
    /// Whom the standby was last told to follow.
    recovery: Option<conf::Recovery>,
    /// Parameters that differ from what is configured until the next restart.
    pending_restart: BTreeMap<String, PendingRestart>,
    /// When the running server was started.
    started_at: Option<String>,
    /// The newest reign that gave an order.
    generation: Generation,
    /// The last complaint about a connection, so that it is logged once and not each second.
    complaint: Option<String>,
}

impl Postgres {
    /// A handle on the PostgreSQL of `settings`. Touches nothing.
    #[must_use]
    pub fn new(
        machine: Machine,
        control: Arc<dyn ProcessControl>,
        settings: PostgresSettings,
        bootstrap: Option<Bootstrap>,
    ) -> Self {
        Self {
            clock: machine.clock,
            dial: machine.dial,
            tasks: machine.tasks,
            control,
            settings: RwLock::new(Arc::new(settings)),
            bootstrap: bootstrap.map(Arc::new),
            heartbeat: connect::HeartbeatSlot::default(),
            binaries: binaries::Cache::default(),
            callbacks: callbacks::Callbacks::default(),
            progress: exec::ProgressSlot::default(),
            memory: Mutex::default(),
            stuck: Arc::default(),
        }
    }

    /// Carries out an order of the lanes `Postgres`, `Probe`, `Upkeep` and `Guard`; `None` for those of other lanes.
    pub async fn execute(&self, generation: Generation, order: &Order) -> Option<Outcome> {
        Some(match order {
            Order::Probe => self.probe().await,
            Order::Bootstrap {
                guard_until,
                valid_until,
            } => self.bootstrap(*guard_until, *valid_until, generation).await,
            Order::BaseBackup { from } => self.base_backup(from).await,
            Order::StartReplica { upstream } => self.start_replica(upstream.as_ref(), generation).await,
            Order::StartPrimary {
                guard_until,
                valid_until,
            } => self.start_primary(*guard_until, *valid_until, generation).await,
            Order::Stop {
                mode,
                checkpoint_first,
            } => self.stop(*mode, *checkpoint_first).await,
            Order::Promote {
                guard_until,
                valid_until,
                above,
            } => self.promote(*guard_until, *valid_until, *above, generation).await,
            Order::Follow { upstream } => self.follow(upstream.as_ref()).await,
            Order::CompareHistory { leader } => self.compare_history(leader).await,
            Order::Rewind { leader } => self.rewind(leader).await,
            Order::Restart { guard_until } => self.restart(*guard_until, generation).await,
            Order::AdoptPostmaster { guard_until } => self.adopt_postmaster(*guard_until, generation).await,
            Order::SyncSlots { ensure, drop } => self.sync_slots(ensure, drop).await,
            Order::Checkpoint => self.checkpoint().await,
            Order::SetDeadline(deadline) => self.set_deadline(*deadline, generation).await,
            _ => return None,
        })
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<PostgresSettings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How far a base backup or a rewind has come; `None` when none is under way.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.progress.get()
    }

    /// Parameters whose configured value waits for a restart.
    #[must_use]
    pub fn pending_restart(&self) -> BTreeMap<String, PendingRestart> {
        self.memory().pending_restart.clone()
    }

    /// When the running server was started (`2026-11-20 09:22:40.696997+00:00`), as of the last probe.
    #[must_use]
    pub fn started_at(&self) -> Option<String> {
        self.memory().started_at.clone()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses when `valid_until` has passed or a newer reign has spoken. To be asked right before the deed.
    fn still_valid(&self, valid_until: MonoTime, generation: Generation) -> Result<(), Error> {
        self.newest(generation)?;
        let now = self.clock.now();
        if valid_until <= now {
            return Err(Error::Refused(format!(
                "the order's right ended {:?} ago",
                now.since(valid_until)
            )));
        }
        Ok(())
    }

    /// Refuses an order of an older reign than one that was seen.
    fn newest(&self, generation: Generation) -> Result<(), Error> {
        let mut memory = self.memory();
        if generation < memory.generation {
            return Err(Error::Refused(format!(
                "the order is of reign {}, and one of reign {} came before it",
                generation.0, memory.generation.0
            )));
        }
        memory.generation = generation;
        Ok(())
    }

    /// UTC time for names of things that are kept: `20261120T105800Z`.
    fn timestamp(&self) -> String {
        let seconds = i64::try_from(self.clock.wall().as_secs()).unwrap_or(0);
        jiff::Timestamp::from_second(seconds)
            .map(|time| time.strftime("%Y%m%dT%H%M%SZ").to_string())
            .unwrap_or_else(|_| seconds.to_string())
    }
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres")
            .field("data_dir", &self.settings().data_dir)
            .finish_non_exhaustive()
    }
}

/// Runs file work where a slow disk holds up nothing else.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A path as text for messages and command lines.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
