//! Everything the agent does to, and asks of, the local PostgreSQL (13 to 18).
//!
//! [`Postgres`] carries out the orders of the lanes `Postgres`, `Probe`, `Upkeep`, `Synchronous` and `Guard`, one method per order. It chooses nothing: what
//! to do, when, and until when it may be done was decided by the core.
//!
//! What it guarantees:
//!
//! - an order whose right has run out is refused at the place of the deed, after everything that may take time;
//! - no server that will accept writes is started or promoted before the guard has its deadline;
//! - a probe of a healthy server is one prepared query on one connection: no process, no file;
//! - a probe never lasts much longer than two seconds, whatever PostgreSQL or its disk do.
//!
//! It stands on three seams. Files, tools and processes are the [`Site`]'s, [`Local`] in production; the postmaster is started and signalled
//! through [`ProcessControl`], behind which stands the guard; statements ([`sql`]) go over connections of a [`Dial`]. A simulator replaces
//! these three and runs everything else.
//!
//! Map: [`site`], `local`, `process`, [`sql`] (the seams), `probe` (look), `answer` (its row), `conf` and `hba` (what the configuration
//! says), `connect` (connections and connection strings), `lifecycle` (start, stop, restart, adopt), `part` (from clients, before a planned stop), `promote`, `follow` (upstream,
//! history), `rewind`, `basebackup`, `bootstrap`, `slots`, `synchronous` (by whom commits are acknowledged), `reload`, `details`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use surus_core::action::Order;
use surus_core::input::Outcome;
use surus_core::sync::Names;
use surus_core::types::{Generation, Lsn, MonoTime, SystemId, Timeline};
use surus_core::view::{ControlData, HistoryLine};

use crate::clock::Clock;
use crate::config::settings::{Bootstrap, PostgresSettings};
use crate::machine::Machine;
use crate::net::Dial;
use crate::task::Spawn;
use site::Recovery;

mod answer;
mod basebackup;
mod bootstrap;
mod conf;
mod connect;
mod details;
mod error;
mod follow;
mod gate;
mod hba;
mod lifecycle;
mod local;
mod part;
mod probe;
mod process;
mod promote;
mod reload;
mod rewind;
pub mod site;
mod slots;
pub mod sql;
mod synchronous;
mod walsender;

pub use details::{Details, Walsender};
pub use error::Error;
pub use local::Local;
pub use part::Herald;
pub use process::{BoxFuture, ControlError, ControlStatus, ProcessControl, Signal, StartRequest};
pub use reload::{PendingRestart, ReloadReport};
pub use site::{Progress, Site};

/// The local PostgreSQL.
///
/// Methods of different lanes may run at the same time; within the lane `Postgres` the driver runs one at a time.
pub struct Postgres {
    clock: Arc<dyn Clock>,
    dial: Arc<dyn Dial>,
    tasks: Arc<dyn Spawn>,
    control: Arc<dyn ProcessControl>,
    site: Arc<dyn Site>,
    settings: RwLock<Arc<PostgresSettings>>,
    bootstrap: Option<Arc<Bootstrap>>,
    heartbeat: connect::HeartbeatSlot,
    progress: Slot<Progress>,
    memory: Mutex<Memory>,
    /// Held by who writes the configuration.
    writing: tokio::sync::Mutex<()>,
    /// Who says that a planned stop is about to come.
    herald: RwLock<Option<Arc<dyn part::Herald>>>,
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
    /// The control file as it was last read.
    control: Option<ControlData>,
    /// Whom the standby was last told to follow.
    recovery: Option<Recovery>,
    /// Parameters that differ from what is configured until the next restart.
    pending_restart: BTreeMap<String, PendingRestart>,
    /// When the running server was started.
    started_at: Option<String>,
    /// By whom commits are acknowledged, as our file says; the inner `None` leaves it to the user. `None`: not read yet.
    synchronous: Option<Option<Names>>,
    /// Whether commits of the running server wait for anybody at all, if every process of it is known to have read that; and when the
    /// configuration was last read then.
    waits: Option<(bool, String)>,
    /// Whom the server lets in, as our file says; the inner `None`: it has no gate. `None`: not read yet.
    gate: Option<Option<site::Gate>>,
    /// The running server was told to read what our files hold. Whoever wrote them before may have been killed before it said so.
    told: bool,
    /// The newest reign that gave an order.
    generation: Generation,
    /// The deadline that the agent set last, and in which reign: a guard that has died does not know it any more.
    deadline: Option<(MonoTime, Generation)>,
    /// The last complaint about a connection, so that it is logged once and not each second.
    complaint: Option<String>,
}

impl Postgres {
    /// A handle on the PostgreSQL of `settings`. Touches nothing.
    #[must_use]
    pub fn new(
        machine: Machine,
        control: Arc<dyn ProcessControl>,
        site: Arc<dyn Site>,
        settings: PostgresSettings,
        bootstrap: Option<Bootstrap>,
    ) -> Self {
        let settings = Arc::new(settings);
        site.obey(Arc::clone(&settings));
        Self {
            clock: machine.clock,
            dial: machine.dial,
            tasks: machine.tasks,
            control,
            site,
            settings: RwLock::new(settings),
            bootstrap: bootstrap.map(Arc::new),
            heartbeat: connect::HeartbeatSlot::default(),
            progress: Slot::default(),
            memory: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            herald: RwLock::default(),
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
                synchronous,
                gated,
            } => {
                let names = synchronous.as_ref();
                self.start_primary(*guard_until, *valid_until, names, *gated, generation)
                    .await
            }
            Order::Stop {
                mode,
                checkpoint_first,
            } => self.stop(*mode, *checkpoint_first).await,
            Order::Promote {
                guard_until,
                valid_until,
                above,
                synchronous,
                gated,
            } => {
                let names = synchronous.as_ref();
                self.promote(*guard_until, *valid_until, *above, names, *gated, generation)
                    .await
            }
            Order::Follow { upstream } => self.follow(upstream.as_ref()).await,
            Order::CompareHistory { leader } => self.compare_history(leader).await,
            Order::Rewind { leader } => self.rewind(leader).await,
            Order::Restart { guard_until, gated } => self.restart(*guard_until, *gated, generation).await,
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
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres")
            .field("data_dir", &self.settings().data_dir)
            .finish_non_exhaustive()
    }
}

/// Holds a value that somebody else looks at.
#[derive(Debug)]
struct Slot<T>(Mutex<Option<T>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Slot<T> {
    fn get(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, value: Option<T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

/// A path as text for messages and command lines.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
