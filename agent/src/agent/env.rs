//! What an agent stands on: everything that [`run`](super::run) takes of the world.
//!
//! In production all of it is the machine's own ([`Env::of_machine`]); in a simulator none is. The agent between, from the driver to the
//! bytes on its connections, is the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use surus_core::config::Config;
use surus_core::types::{Generation, MonoTime};
use surus_core::{Boot, Input, Step};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::configuration::first_dynamic;
use super::custody::Guarded;
use super::systemd::Systemd;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Problem, Settings, Surroundings};
use crate::log::Logging;
use crate::net::{Network, Tcp};
use crate::postgres::{Local, ProcessControl, Site};
use crate::task::{BoxFuture, Spawn, Tokio};

/// The world of one agent.
///
/// Dropping the future of [`run`](super::run) at any point is what `kill -9` is to the process: its tasks end with it, nothing is said
/// good-bye to.
pub struct Env {
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The network.
    pub net: Arc<dyn Network>,
    /// Where its tasks run.
    pub tasks: Arc<dyn Spawn>,
    /// Where its configuration is read anew.
    pub source: Arc<dyn Source>,
    /// Who holds PostgreSQL's processes, and goes on when the agent is gone.
    pub custody: Arc<dyn Custody>,
    /// Where PostgreSQL lives: its files, its programs, its processes.
    pub site: Arc<dyn Site>,
    /// What the process is told from outside.
    pub told: mpsc::UnboundedReceiver<Told>,
    /// The service manager.
    pub systemd: Systemd,
    /// Who is shown each step of the core, if anybody is.
    pub observer: Option<Box<dyn Observer>>,
    /// The log, whose settings follow the configuration; `None` where somebody else sees to it.
    pub log: Option<Arc<Logging>>,
}

/// What a process can be told from outside; the signals of the production agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// SIGTERM, SIGINT: end, cleanly.
    Shutdown,
    /// SIGHUP: read the configuration anew.
    Reload,
    /// SIGUSR1: end at once, and leave PostgreSQL and its guard as they are.
    Detach,
}

/// Is shown what the core is told and what it decides, step by step. Called from the loop: it must not take long.
pub trait Observer: Send + 'static {
    /// The core begins, with its first step.
    fn begun(&mut self, now: MonoTime, config: &Config, boot: &Boot, step: &Step);
    /// The core is about to be told this.
    fn told(&mut self, now: MonoTime, input: &Input);
    /// The core has taken the step that this led to.
    fn stepped(&mut self, now: MonoTime, step: &Step);
}

/// Where the local configuration comes from.
pub trait Source: Send + Sync + 'static {
    /// Reads it. The problems of a success are warnings; those of a failure say why it cannot be obeyed.
    fn load(&self) -> Result<(Settings, Vec<Problem>), Vec<Problem>>;
}

/// A file or a directory of files, under the environment's variables.
#[derive(Debug, Clone)]
pub struct Files {
    /// The path that was given.
    pub path: PathBuf,
    /// The environment.
    pub around: Surroundings,
}

impl Source for Files {
    fn load(&self) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
        config::load(Some(&self.path), &self.around)
    }
}

/// Custody of PostgreSQL's processes over the lives of agents.
pub trait Custody: ProcessControl {
    /// Takes over whoever is alive and holds PostgreSQL; `None` if nobody is. From now on `news` is told what happens.
    fn find(&self, news: mpsc::UnboundedSender<GuardNews>) -> BoxFuture<'_, Option<Found>>;

    /// Ends whoever it is, if there is nothing left to hold.
    fn quit(&self) -> BoxFuture<'_, ()>;
}

/// Who was found to hold PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// When it kills unless told otherwise; `None` if nothing is held, or without a limit.
    pub deadline: Option<MonoTime>,
    /// The newest reign that it knows of.
    pub generation: Generation,
}

/// What the guard tells on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardNews {
    /// PostgreSQL has ended, and nothing is left of it.
    Exited,
    /// The guard is gone.
    Lost,
    /// Another agent has taken it over.
    Replaced,
}

impl Env {
    /// This machine: its clocks, sockets, files and processes; the guard beside the data directory of `settings`; the signals and the
    /// service manager of this process.
    ///
    /// # Errors
    /// The settings contradict each other, or this program's own path cannot be found, which a guard is started with.
    pub fn of_machine(
        settings: &Settings,
        source: Arc<dyn Source>,
        log: Option<Arc<Logging>>,
    ) -> Result<Self, String> {
        let (effective, _) = config::effective(settings, &first_dynamic(None, settings))
            .map_err(|problems| config::render(&problems))?;
        let data_dir = effective.postgres.data_dir.clone();
        let exe =
            std::env::current_exe().map_err(|error| format!("error: where is my own binary? {error}"))?;
        let (sender, told) = mpsc::unbounded_channel();
        tokio::spawn(follow_signals(sender));
        Ok(Self {
            clock: Arc::new(SystemClock),
            net: Arc::new(Tcp),
            tasks: Arc::new(Tokio),
            source,
            custody: Arc::new(Guarded::new(exe, data_dir.clone(), server_log(&data_dir))),
            site: Arc::new(Local::new(Arc::new(SystemClock), effective.postgres)),
            told,
            systemd: Systemd::of_process(),
            observer: None,
            log,
        })
    }
}

/// Where PostgreSQL's own output goes until its logging collector takes over: the file that pg_ctl users look for, beside
/// the data directory.
fn server_log(data_dir: &Path) -> Option<PathBuf> {
    let mut name = data_dir.file_name()?.to_owned();
    name.push(".log");
    Some(data_dir.with_file_name(name))
}

async fn follow_signals(told: mpsc::UnboundedSender<Told>) {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
        signal(SignalKind::user_defined1()),
    );
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup), Ok(mut detach)) = signals else {
        tracing::error!("cannot listen for signals");
        return;
    };
    loop {
        let what = tokio::select! { biased;
            _ = terminate.recv() => Told::Shutdown,
            _ = interrupt.recv() => Told::Shutdown,
            _ = hangup.recv() => Told::Reload,
            _ = detach.recv() => Told::Detach,
        };
        if told.send(what).is_err() {
            return;
        }
    }
}
