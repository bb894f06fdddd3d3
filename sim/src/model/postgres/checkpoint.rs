//! Checkpoints and restartpoints: what the control file then says, and which WAL goes.

use super::directory::Cluster;
use super::server::{Happening, Process, Refusal, Server, Stage};
use super::settings::{Archiving, Settings};
use super::wal::segment_start;
use crate::clock::Time;

impl Process {
    /// When the next checkpoint is written: one that was asked for, or the one of `checkpoint_timeout`. A stop writes its own.
    pub(super) fn checkpoint_due(&self) -> Option<Time> {
        if self.stopping.is_some() || self.stage == Stage::Starting {
            return None;
        }
        let timed = (self.stage == Stage::Primary).then_some(self.next_checkpoint);
        self.checkpoint.into_iter().chain(timed).min()
    }
}

impl Server {
    /// `CHECKPOINT`. [`Happening::Checkpoint`] follows. On a standby it is a restartpoint: it can be no newer than the last checkpoint
    /// that was replayed.
    ///
    /// # Errors
    ///
    /// The server does not answer.
    pub fn checkpoint(&mut self, now: Time) -> Result<(), Refusal> {
        self.accepts()?;
        let spent = self.costs.checkpoint.draw(&mut self.rng) + self.disk.slow;
        if let Some(process) = &mut self.process {
            let due = process.checkpoint.unwrap_or(Time::MAX).min(now + spent);
            process.checkpoint = Some(due);
        }
        self.tick(now);
        Ok(())
    }

    /// A checkpoint is under way.
    #[must_use]
    pub fn checkpointing(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.checkpoint.is_some())
    }

    pub(super) fn checkpoint_tick(&mut self, now: Time) {
        let Some(process) = &mut self.process else { return };
        if process.checkpoint_due().is_none_or(|due| now < due) {
            return;
        }
        process.checkpoint = None;
        process.next_checkpoint = now + process.settings.checkpoint_timeout;
        if process.stage == Stage::Primary {
            if self.write_checkpoint(now).is_err() {
                self.crash(now, "the checkpoint could not be written");
                return;
            }
        } else {
            self.restartpoint();
        }
        self.push(now);
        self.happened(Happening::Checkpoint);
    }

    /// Writes a checkpoint and the control file.
    pub(super) fn write_checkpoint(&mut self, now: Time) -> Result<(), Refusal> {
        let disk = self.disk;
        let Some((cluster, process)) = self.parts() else {
            return Err(Refusal::NotRunning);
        };
        let end = cluster.log.inserted + super::wal::RECORD;
        let allocated = segment_start(cluster.log.flushed.saturating_sub(1)) + super::wal::SEGMENT;
        if disk.broken || disk.gone || (disk.full && (allocated < end || process.stage == Stage::Starting)) {
            return Err(Refusal::Disk);
        }
        let start = cluster.log.checkpoint(now);
        cluster.log.flush();
        process.fsync = None;
        let control = &mut cluster.control;
        control.checkpoint = start;
        control.redo = start;
        control.timeline = cluster.log.timeline();
        control.min_recovery = 0;
        control.min_recovery_timeline = 0;
        self.recycle(start);
        Ok(())
    }

    /// The last replayed checkpoint becomes where recovery would begin.
    pub(super) fn restartpoint(&mut self) {
        let Some((cluster, process)) = self.parts() else {
            return;
        };
        let Some(standby) = &process.standby else { return };
        let replayed = standby.replayed;
        let control = &mut cluster.control;
        if let Some((start, redo, end)) = cluster.log.last_checkpoint(replayed)
            && control.checkpoint < start
        {
            control.checkpoint = start;
            control.redo = redo;
            control.timeline = cluster.log.timeline_at(end);
        }
        if control.min_recovery < replayed {
            control.min_recovery = replayed;
            control.min_recovery_timeline = cluster.log.timeline_at(replayed);
        }
        let redo = control.redo;
        self.recycle(redo);
    }

    /// Removes the segments that nothing holds.
    fn recycle(&mut self, redo: u64) {
        let Some((cluster, process)) = self.parts() else {
            return;
        };
        let (keep, lost) = kept(cluster, &process.settings, redo);
        cluster.log.oldest = cluster.log.oldest.max(keep);
        for name in &lost {
            self.lose_slot(name);
        }
        if !lost.is_empty() {
            // What only they held can go now.
            self.recycle(redo);
        }
    }

    fn lose_slot(&mut self, name: &str) {
        let slot = self.cluster_mut().and_then(|cluster| cluster.slots.get_mut(name));
        let user = slot.and_then(|slot| {
            slot.lost = true;
            slot.active.take()
        });
        if let Some(link) = user {
            self.drop_sender(link);
            self.send(link.standby, link, super::message::Message::Close);
        }
        self.happened(Happening::SlotLost(name.to_owned()));
    }
}

/// The first byte of WAL that must stay, and the slots that are too far behind to be heeded.
fn kept(cluster: &Cluster, settings: &Settings, redo: u64) -> (u64, Vec<String>) {
    let end = cluster.log.inserted;
    let mut keep = redo.min(end.saturating_sub(settings.wal_keep_size));
    let mut lost = Vec::new();
    let furthest = settings
        .max_slot_wal_keep_size
        .map_or(0, |limit| segment_start(end.saturating_sub(limit)));
    for (name, slot) in &cluster.slots {
        match slot.holds() {
            Some(restart) if restart < furthest.min(segment_start(redo)) => lost.push(name.clone()),
            Some(restart) => keep = keep.min(restart),
            None => {}
        }
    }
    if matches!(settings.archiving, Archiving::Fails | Archiving::Hangs) {
        keep = keep.min(cluster.log.oldest);
    }
    (segment_start(keep), lost)
}
