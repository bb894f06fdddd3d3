//! PostgreSQL on this host: files, programs and processes, as the production agent uses them.
//!
//! What it guarantees:
//!
//! - no directory that may hold the last copy of anything is deleted: it is moved aside, next to where it was;
//! - work that was interrupted half-way (initdb, base backup, rewind) is known as such for ever after, by a marker beside the data
//!   directory;
//! - a file that is written has its old or its new content, whenever the machine stops;
//! - no tool outlives the agent.
//!
//! Map: `directory` (what a data directory is, who uses it, markers, moving aside), `control` (pg_control), `conf` (configuration files),
//! `signals` (signal files, signals, reserved timelines), `hollow` (segments with nothing of their timeline), `binaries` (what the
//! installed version knows), `exec` (running tools), `create`, `copy` and `rewind` (the three tools that make a directory), `callbacks`,
//! `files`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use serde_json::Value;
use surus_core::action::Upstream;
use surus_core::sync::Names;
use surus_core::types::Timeline;

use super::site::{
    Address, Configuration, ControlFile, Divergence, Found, Gate, Launch, Look, OnProgress, Operation,
    PidFile, Question, Site, Unfinished,
};
use super::{BoxFuture, Error, Signal};
use crate::clock::Clock;
use crate::config::settings::{Bootstrap, CustomMethod, PostgresSettings};
use directory::Marker;

mod binaries;
mod callbacks;
mod conf;
mod control;
mod copy;
mod create;
mod directory;
mod exec;
mod files;
mod hollow;
mod rewind;
mod signals;

/// The PostgreSQL of this host.
pub struct Local {
    clock: Arc<dyn Clock>,
    settings: RwLock<Arc<PostgresSettings>>,
    binaries: binaries::Cache,
    callbacks: callbacks::Callbacks,
    /// The control file as pg_controldata last printed it, with the stamp of the file then.
    control: Mutex<Option<(control::Stamp, ControlFile)>>,
}

impl Local {
    /// The PostgreSQL of `settings`. Touches nothing. `clock` names what is moved aside.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, settings: PostgresSettings) -> Self {
        Self {
            clock,
            settings: RwLock::new(Arc::new(settings)),
            binaries: binaries::Cache::default(),
            callbacks: callbacks::Callbacks::default(),
            control: Mutex::default(),
        }
    }

    fn settings(&self) -> Arc<PostgresSettings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// UTC time for names of things that are kept: `20261120T105800Z`.
    fn timestamp(&self) -> String {
        let seconds = i64::try_from(self.clock.wall().as_secs()).unwrap_or(0);
        jiff::Timestamp::from_second(seconds)
            .map(|time| time.strftime("%Y%m%dT%H%M%SZ").to_string())
            .unwrap_or_else(|_| seconds.to_string())
    }

    /// Forgets the control file: the directory has been made anew.
    fn forget_control(&self) {
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Does file work in the data directory, where a slow disk holds up nothing else.
    fn at<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> T + Send + 'static) -> BoxFuture<'_, T> {
        let settings = self.settings();
        Box::pin(blocking(move || work(&settings.data_dir)))
    }
}

impl Site for Local {
    fn obey(&self, settings: Arc<PostgresSettings>) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn look(&self) -> BoxFuture<'_, Look> {
        self.at(|data_dir| {
            let pid_file = directory::read_pid_file(data_dir);
            Look {
                alive: pid_file
                    .as_ref()
                    .is_some_and(|file| directory::at_work(file.pid, data_dir)),
                pid_file,
                control: control::light(data_dir),
                standby: data_dir.join("standby.signal").exists(),
                backup_label: data_dir.join("backup_label").exists(),
            }
        })
    }

    fn alive(&self, pid: u32) -> BoxFuture<'_, bool> {
        self.at(move |data_dir| directory::at_work(pid, data_dir))
    }

    fn users(&self) -> BoxFuture<'_, BTreeSet<u32>> {
        self.at(directory::users)
    }

    fn inspect(&self, major: Option<u32>) -> BoxFuture<'_, Found> {
        self.at(move |data_dir| directory::inspect(data_dir, major))
    }

    fn control_file(&self) -> BoxFuture<'_, Result<ControlFile, Error>> {
        Box::pin(self.read_control_file())
    }

    fn unfinished(&self) -> BoxFuture<'_, Option<Unfinished>> {
        self.at(|data_dir| {
            Marker::read(data_dir).map(|marker| Unfinished {
                bootstrap: marker.operation == create::BOOTSTRAP,
                text: marker.describe(data_dir),
            })
        })
    }

    fn history(&self, timeline: Timeline) -> BoxFuture<'_, Option<String>> {
        self.at(move |data_dir| {
            let path = signals::history_file(data_dir, timeline.0);
            std::fs::read_to_string(&path)
                .inspect_err(|error| tracing::debug!(path = %path.display(), %error, "no history file"))
                .ok()
        })
    }

    fn is_here(&self, data_directory: String) -> BoxFuture<'_, bool> {
        self.at(move |data_dir| {
            std::fs::canonicalize(data_directory).ok() == std::fs::canonicalize(data_dir).ok()
        })
    }

    fn major(&self) -> BoxFuture<'_, Result<u32, Error>> {
        Box::pin(async move { self.catalogue().await.map(|catalogue| catalogue.major) })
    }

    fn fitting<'a>(
        &'a self,
        wanted: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<BTreeMap<String, String>, Error>> {
        Box::pin(self.fit(wanted))
    }

    fn launch(&self, command_line: &BTreeMap<String, String>) -> Launch {
        self.postmaster(command_line)
    }

    fn signal(&self, pid: u32, signal: Signal) -> BoxFuture<'_, Result<(), Error>> {
        self.at(move |data_dir| signals::signal(data_dir, pid, signal))
    }

    fn promote(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.at(signals::promote)
    }

    fn wake(&self, pid: u32) -> BoxFuture<'_, ()> {
        self.at(move |data_dir| signals::wake(data_dir, pid))
    }

    fn clear_strays(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.end_strays())
    }

    fn configure<'a>(&'a self, wanted: &'a Configuration) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.write_configuration(wanted))
    }

    fn synchronous(&self) -> BoxFuture<'_, Option<Names>> {
        Box::pin(self.read_synchronous())
    }

    fn gate(&self) -> BoxFuture<'_, Option<Gate>> {
        Box::pin(self.read_gate())
    }

    fn prepare(&self, primary: bool) -> BoxFuture<'_, Result<bool, Error>> {
        self.at(move |data_dir| signals::prepare(data_dir, primary))
    }

    fn set_standby(&self, standby: bool) -> BoxFuture<'_, Result<(), Error>> {
        self.at(move |data_dir| signals::set_standby(data_dir, standby))
    }

    fn remove_stale_pid_file(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.at(directory::remove_stale_pid_file)
    }

    fn reserve(&self, above: Timeline) -> BoxFuture<'_, Result<(), Error>> {
        self.at(move |data_dir| signals::reserve(data_dir, above))
    }

    fn keep_passwords<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, Result<(), Error>> {
        let (settings, at) = (self.settings(), at.clone());
        Box::pin(blocking(move || conf::write_pgpass(&settings, &at)))
    }

    fn kept_dynamic(&self) -> BoxFuture<'_, Option<Value>> {
        self.at(conf::read_dynamic)
    }

    fn keep_dynamic<'a>(&'a self, dynamic: &'a Value) -> BoxFuture<'a, ()> {
        let text = dynamic.to_string();
        self.at(move |data_dir| conf::write_dynamic(data_dir, &text))
    }

    fn ask<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Result<String, Error>> {
        Box::pin(self.psql(question))
    }

    fn begin(&self, operation: Operation) -> BoxFuture<'_, Result<(), Error>> {
        let time = self.timestamp();
        match operation {
            Operation::Bootstrap => self.at(move |data_dir| create::begin(data_dir, time)),
            Operation::Clone { keep_data } => self.at(move |data_dir| copy::begin(data_dir, keep_data, time)),
        }
    }

    fn finish(&self, operation: Operation) -> BoxFuture<'_, Result<(), Error>> {
        self.forget_control();
        match operation {
            Operation::Bootstrap => self.at(create::finish),
            Operation::Clone { .. } => self.at(copy::finish),
        }
    }

    fn abandon(&self, operation: Operation) -> BoxFuture<'_, Result<(), Error>> {
        self.forget_control();
        let time = self.timestamp();
        match operation {
            Operation::Bootstrap => self.at(move |data_dir| create::abandon(data_dir, &time)),
            Operation::Clone { .. } => self.at(copy::abandon),
        }
    }

    fn create<'a>(&'a self, bootstrap: &'a Bootstrap) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.create_cluster(bootstrap))
    }

    fn post_bootstrap<'a>(&'a self, file: PidFile, command: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.run_post_bootstrap(file, command))
    }

    fn copy_from<'a>(
        &'a self,
        from: &'a Upstream,
        method: Option<&'a CustomMethod>,
        progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.copy_cluster(from, method, progress))
    }

    fn keep_diverged(&self, divergence: Divergence) -> BoxFuture<'_, Result<(), Error>> {
        let time = self.timestamp();
        self.at(move |data_dir| rewind::keep(data_dir, &divergence, &time))
    }

    fn rewind<'a>(
        &'a self,
        _at: &'a Address,
        conninfo: &'a str,
        progress: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.run_pg_rewind(conninfo, progress))
    }

    fn hook<'a>(
        &'a self,
        name: &'static str,
        command: &'a str,
        limit: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(exec::hook(name, command, limit))
    }

    fn callback(&self, action: &'static str, role: &'static str) {
        let settings = self.settings();
        let Some(command) = settings.callbacks.get(action) else {
            return;
        };
        if let Err(error) = self.callbacks.start(command, action, role, &settings.scope) {
            tracing::warn!(action, error = %error.chain(), "callback not started");
        }
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
