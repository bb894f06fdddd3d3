//! The data directory: what outlives the server, and what can be wrong with it and its disk.

use std::collections::BTreeMap;

use surus_core::types::SystemId;
use surus_core::view::ControlState;

use super::control::ControlFile;
use super::slots::Slot;
use super::timeline::Histories;
use super::wal::{Log, Origin};

/// What is where the data directory should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataDir {
    /// Nothing.
    Empty,
    /// What was begun and did not finish; nothing can be started on it.
    Incomplete(Unfinished),
    /// A cluster.
    Cluster(Box<Cluster>),
}

/// What was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// An initdb.
    Initdb,
    /// A base backup.
    BaseBackup,
    /// A pg_rewind that had begun to change files.
    Rewind,
}

impl Unfinished {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Initdb => "an initdb",
            Self::BaseBackup => "a base backup",
            Self::Rewind => "a rewind",
        }
    }
}

/// A cluster on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The control file.
    pub control: ControlFile,
    /// The log in pg_wal, and what it grew from.
    pub log: Log,
    /// The history files in pg_wal.
    pub histories: Histories,
    /// There is a standby.signal.
    pub standby_signal: bool,
    /// There is a backup_label: no server has come up on this copy yet.
    pub backup_label: Option<Label>,
    /// The replication slots.
    pub slots: BTreeMap<String, Slot>,
}

/// What a copy's first start needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Replay begins here.
    pub redo: u64,
    /// The copy is not consistent before this: the log itself says so, pg_controldata does not.
    pub end: u64,
}

impl Cluster {
    /// Removes the history files of timelines that neither a checkpoint nor any WAL here is of, as the agent does before a replica starts.
    pub fn sweep_histories(&mut self) {
        let own = self.log.timeline().max(self.control.timeline);
        self.histories.sweep(own);
    }

    /// What initdb makes, before its first start.
    #[must_use]
    pub fn new(system_id: SystemId, origin: Origin) -> Self {
        let mut log = Log::new(origin);
        let checkpoint = log.checkpoint(0);
        log.flush();
        Self {
            control: ControlFile {
                system_id,
                state: ControlState::ShutDown,
                checkpoint,
                redo: checkpoint,
                timeline: 1,
                min_recovery: 0,
                min_recovery_timeline: 0,
                rewindable: true,
            },
            log,
            histories: Histories::default(),
            standby_signal: false,
            backup_label: None,
            slots: BTreeMap::new(),
        }
    }

    /// Replay must reach this before the data are consistent.
    #[must_use]
    pub fn consistent_at(&self) -> u64 {
        let copied = self.backup_label.map_or(0, |label| label.end);
        self.control.min_recovery.max(copied)
    }

    /// The end of valid WAL, as pg_waldump would find it.
    #[must_use]
    pub fn valid_end(&self) -> u64 {
        self.log.valid_end(self.log.inserted)
    }
}

/// What is wrong with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disk {
    /// No space for a further WAL segment. The one being written was allocated when it was begun.
    pub full: bool,
    /// Writes and fsyncs of WAL fail.
    pub broken: bool,
    /// The directory is gone, or cannot be reached.
    pub gone: bool,
    /// How much longer an fsync takes.
    pub slow: crate::clock::Time,
}
