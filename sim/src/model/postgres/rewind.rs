//! Copies of another server: base backups, and pg_rewind with all it relies on.
//!
//! pg_rewind believes control files. A source that was promoted and has not checkpointed since still shows its former timeline there: then
//! pg_rewind finds "no rewind required" and leaves a diverged directory as it was (B-046). What it needs on the target: a clean shutdown (it
//! makes one, in a single-user server that writes WAL of its own), checksums or wal_log_hints, and WAL back to the last checkpoint
//! before the fork.

use surus_core::view::ControlState;

use super::control::ControlFile;
use super::directory::{Cluster, DataDir, Label, Unfinished};
use super::server::{Refusal, Server};
use super::timeline::{Histories, ancestor};
use super::wal::{Log, segment_start};
use crate::clock::Time;

/// What a base backup or pg_rewind reads of a running server.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its control file.
    pub control: ControlFile,
    /// What it has written (or replayed).
    pub log: Log,
    /// Its history files.
    pub histories: Histories,
    /// It accepts writes.
    pub primary: bool,
}

impl Snapshot {
    fn end(&self) -> u64 {
        self.log.inserted
    }
}

/// Why pg_rewind gives up before it has touched anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewindError {
    /// A server runs on the target, or there is none that could be rewound.
    Target,
    /// The target was not shut down cleanly, and single-user recovery is not possible: a standby.signal is there, or the disk refuses.
    NotClean,
    /// "source and target clusters are from different systems".
    OtherSystem,
    /// "target server needs to use either data checksums or wal_log_hints = on".
    NoHints,
    /// "could not find common ancestor of the source and target cluster's timelines".
    NoAncestor,
    /// "could not find previous WAL record": WAL back to the last common checkpoint is not there.
    WalRemoved,
}

/// What pg_rewind finds it has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// "no rewind required".
    NotRequired,
    /// Files must be copied.
    Required {
        /// Where the histories part.
        fork: u64,
        /// Where replay will begin: the redo position of the last common checkpoint.
        redo: u64,
    },
}

impl Server {
    /// What a base backup or pg_rewind would read now.
    ///
    /// # Errors
    ///
    /// The server lets nobody in, or does not answer.
    pub fn snapshot(&self) -> Result<Snapshot, Refusal> {
        self.lets_in()?;
        let cluster = self.cluster().ok_or(Refusal::NoCluster)?;
        let mut log = cluster.log.clone();
        log.truncate(self.replay_position().unwrap_or(log.flushed));
        log.flush();
        Ok(Snapshot {
            control: cluster.control,
            log,
            histories: cluster.histories.clone(),
            primary: self.primary(),
        })
    }

    /// What pg_basebackup does to its source when it begins and when it has the files: on a primary the log goes on in a new segment
    /// both times, and a checkpoint comes with the first. A standby can do neither.
    ///
    /// # Errors
    ///
    /// The server lets nobody in.
    pub fn backup(&mut self, now: Time, begins: bool) -> Result<(), Refusal> {
        self.accepts()?;
        if self.primary() {
            self.switch_wal(now)?;
            if begins {
                self.checkpoint(now)?;
            }
        }
        Ok(())
    }

    /// pg_basebackup begins: whatever was there is gone, and what is there is not startable until [`Server::clone_finish`].
    ///
    /// # Errors
    ///
    /// A server runs here, or the disk refuses.
    pub fn clone_begin(&mut self) -> Result<(), Refusal> {
        if self.process.is_some() {
            return Err(Refusal::Running);
        }
        if self.disk.full || self.disk.broken || self.disk.gone {
            return Err(Refusal::Disk);
        }
        self.dir = DataDir::Incomplete(Unfinished::BaseBackup);
        Ok(())
    }

    /// pg_basebackup has everything, WAL included, as the source had it at the end.
    pub fn clone_finish(&mut self, source: &Snapshot) {
        let control = source.control;
        let mut log = source.log.clone();
        log.oldest = log.oldest.max(segment_start(control.redo));
        self.dir = DataDir::Cluster(Box::new(Cluster {
            control,
            log,
            histories: source.histories.clone(),
            standby_signal: false,
            backup_label: Some(Label {
                redo: control.redo,
                end: source.end(),
            }),
            slots: std::collections::BTreeMap::new(),
        }));
    }

    /// pg_rewind looks at both sides, after single-user recovery of a target that was not shut down cleanly.
    ///
    /// # Errors
    ///
    /// It gives up; nothing was changed but by that recovery.
    pub fn rewind_plan(&mut self, now: Time, source: &Snapshot) -> Result<Verdict, RewindError> {
        if self.process.is_some() {
            return Err(RewindError::Target);
        }
        let target = self.cluster().ok_or(RewindError::Target)?;
        if !target.control.clean() {
            self.single_user(now)?;
        }
        let target = self.cluster().ok_or(RewindError::Target)?;
        if target.control.system_id != source.control.system_id {
            return Err(RewindError::OtherSystem);
        }
        if !target.control.rewindable {
            return Err(RewindError::NoHints);
        }
        let (own, theirs) = (target.control.timeline, source.control.timeline);
        if own == theirs {
            return Ok(Verdict::NotRequired);
        }
        let common = ancestor(
            (own, target.histories.of(own)),
            (theirs, source.histories.of(theirs)),
        );
        let (_, fork) = common.ok_or(RewindError::NoAncestor)?;
        let last = target.log.records(target.control.checkpoint, u64::MAX).first();
        let end = last.map_or(target.control.checkpoint, |record| record.end);
        if end.max(target.control.min_recovery) <= fork {
            return Ok(Verdict::NotRequired);
        }
        let checkpoint = target.log.last_checkpoint(fork);
        let (_, redo, _) = checkpoint.ok_or(RewindError::WalRemoved)?;
        Ok(Verdict::Required { fork, redo })
    }

    /// `postgres --single`: crash recovery, and a shutdown.
    ///
    /// # Errors
    ///
    /// It refuses to be a standby, or the disk refuses.
    pub fn single_user(&mut self, now: Time) -> Result<(), RewindError> {
        let disk = self.disk;
        let origin = self.origin();
        let cluster = self.cluster_mut().ok_or(RewindError::Target)?;
        if cluster.standby_signal || disk.full || disk.broken || disk.gone {
            return Err(RewindError::NotClean);
        }
        let timeline = cluster.control.recovery_timeline();
        if let Some(end) = cluster.log.end_of(timeline) {
            cluster.log.truncate(end);
        }
        if cluster.valid_end() < cluster.consistent_at() {
            return Err(RewindError::NotClean);
        }
        cluster.log.begin(timeline, origin);
        cluster.log.checkpoint(now);
        let start = cluster.log.checkpoint(now);
        cluster.log.flush();
        cluster.backup_label = None;
        cluster.control = ControlFile {
            state: ControlState::ShutDown,
            checkpoint: start,
            redo: start,
            timeline,
            min_recovery: 0,
            min_recovery_timeline: 0,
            ..cluster.control
        };
        Ok(())
    }

    /// pg_rewind begins to change files: from here on the directory is good for nothing until [`Server::rewind_finish`].
    pub fn rewind_begin(&mut self) {
        self.dir = DataDir::Incomplete(Unfinished::Rewind);
    }

    /// pg_rewind has copied everything, as the source had it at the end.
    pub fn rewind_finish(&mut self, source: &Snapshot, redo: u64) {
        self.dir = DataDir::Cluster(Box::new(Cluster {
            control: ControlFile {
                state: ControlState::InArchiveRecovery,
                min_recovery: source.end(),
                min_recovery_timeline: source.log.timeline_at(source.end()),
                ..source.control
            },
            log: source.log.clone(),
            histories: source.histories.clone(),
            standby_signal: false,
            backup_label: Some(Label {
                redo,
                end: source.end(),
            }),
            slots: std::collections::BTreeMap::new(),
        }));
    }
}
