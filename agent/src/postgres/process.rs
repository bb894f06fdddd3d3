//! The seam to whoever is the postmaster's parent: in production the guard, in tests a few lines.

use std::ffi::OsString;
use std::path::PathBuf;

use surus_core::types::{Generation, MonoTime};

pub use crate::task::BoxFuture;

/// Starts, signals and watches the postmaster.
pub trait ProcessControl: Send + Sync + 'static {
    /// Starts the postmaster and returns its process id at once. A deadline is armed *before* the process exists.
    fn start(&self, request: StartRequest) -> BoxFuture<'_, Result<u32, ControlError>>;
    /// Sends a signal to the postmaster.
    fn signal(&self, signal: Signal) -> BoxFuture<'_, Result<(), ControlError>>;
    /// Replaces the deadline, or lifts it. When it returns the new one is in force.
    fn set_deadline(
        &self,
        deadline: Option<MonoTime>,
        generation: Generation,
    ) -> BoxFuture<'_, Result<(), ControlError>>;
    /// Takes a postmaster that somebody else started into custody.
    fn adopt(&self, pid: u32) -> BoxFuture<'_, Result<(), ControlError>>;
    /// What is in custody. Asked with every probe, so it must be cheap.
    fn status(&self) -> BoxFuture<'_, Result<ControlStatus, ControlError>>;
    /// Returns when no postmaster is in custody and nothing is left of the last one.
    fn wait_exit(&self) -> BoxFuture<'_, Result<(), ControlError>>;
}

/// How to start the postmaster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRequest {
    /// The binary, absolute.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// When everything of it is killed unless extended; `None` for a replica.
    pub deadline: Option<MonoTime>,
    /// The reign it belongs to.
    pub generation: Generation,
}

/// What a postmaster can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop when all clients have gone.
    Smart,
    /// SIGINT: cut clients off, write a checkpoint, stop.
    Fast,
    /// SIGQUIT: stop at once.
    Immediate,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGKILL to the postmaster and all its children.
    Kill,
}

/// What is in custody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ControlStatus {
    /// The postmaster, if it lives.
    pub pid: Option<u32>,
    /// The deadline, if one is armed.
    pub deadline: Option<MonoTime>,
}

/// The guard said no, or said nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ControlError(pub String);
