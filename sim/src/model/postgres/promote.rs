//! Leaving recovery, in phases: asked, everything received replayed, the new timeline and its end-of-recovery record written, writes
//! accepted, and much later the first checkpoint, until which the control file shows the former timeline.

use super::server::{Happening, Refusal, Server, Stage};
use super::standby::Promotion;
use super::timeline::Fork;
use super::wal::Kind;
use crate::clock::Time;

impl Server {
    /// `pg_promote(wait := false)`, or its signal. [`Happening::Promoted`] follows some time later. A pause and a delay of replay end
    /// with it; what was received is replayed first. A standby that is not consistent yet ends instead.
    ///
    /// # Errors
    ///
    /// The server is no standby, or takes no orders.
    pub fn promote(&mut self, now: Time) -> Result<(), Refusal> {
        match self.accepts() {
            // By signal, before connections are taken.
            Ok(()) | Err(Refusal::StartingUp) => {}
            Err(refusal) => return Err(refusal),
        }
        let missed = self.costs.promote_missed;
        let Some(process) = &mut self.process else {
            return Err(Refusal::NotRunning);
        };
        let standby = process.standby.as_mut().ok_or(Refusal::NotInRecovery)?;
        if standby.promotion.is_none() {
            // It may go to sleep in this very moment until its next attempt to connect.
            let asleep = standby.retry.filter(|_| missed != 0 && self.rng.one_in(missed));
            standby.promotion = Some(Promotion::Asked(asleep.unwrap_or(now).max(now)));
        }
        self.tick(now);
        Ok(())
    }

    /// SIGHUP to the startup process: it wakes from its sleep.
    pub fn wake_startup(&mut self, now: Time) {
        let standby = self.process.as_mut().and_then(|process| process.standby.as_mut());
        if let Some(standby) = standby
            && let Some(Promotion::Asked(due)) = &mut standby.promotion
        {
            *due = (*due).min(now);
        }
        self.tick(now);
    }

    pub(super) fn promotion_tick(&mut self, now: Time) {
        let standby = self.process.as_mut().and_then(|process| process.standby.as_mut());
        let Some(standby) = standby else { return };
        match standby.promotion {
            Some(Promotion::Asked(due)) if due <= now => {
                standby.promotion = Some(Promotion::Replaying);
                standby.retry = None;
                standby.paused = false;
                self.close_receiver("promoted");
                self.advance(now);
            }
            Some(Promotion::Ending(due)) if due <= now => self.fork(now),
            Some(Promotion::Opening(due, fork)) if due <= now => self.opened(now, fork),
            _ => {}
        }
    }

    /// Everything received is replayed.
    pub(super) fn end_recovery(&mut self, now: Time) {
        if self
            .process
            .as_ref()
            .is_some_and(|process| process.stage == Stage::Starting)
        {
            self.inconsistent(now);
            return;
        }
        let spent = self.costs.promote.draw(&mut self.rng) + std::mem::take(&mut self.sluggish);
        let standby = self.process.as_mut().and_then(|process| process.standby.as_mut());
        if let Some(standby) = standby {
            standby.promotion = Some(Promotion::Ending(now + spent));
        }
        self.promotion_tick(now);
    }

    /// The new timeline begins: history file, end-of-recovery record.
    fn fork(&mut self, now: Time) {
        if self.disk.full || self.disk.broken || self.disk.gone {
            self.crash(now, "could not write the new timeline");
            return;
        }
        let origin = self.origin();
        let spent = self.costs.open.draw(&mut self.rng) + self.disk.slow;
        let Some((cluster, process)) = self.parts() else {
            return;
        };
        let Some(standby) = &mut process.standby else {
            return;
        };
        let (parent, at) = (cluster.log.timeline_at(standby.replayed), standby.replayed);
        let timeline = cluster.histories.newest(standby.target) + 1;
        let mut forks = cluster.histories.of(parent).to_vec();
        forks.push(Fork { timeline: parent, at });
        cluster.histories.write(timeline, forks);
        cluster.log.truncate(at);
        cluster.log.begin(timeline, origin);
        cluster.log.append(super::wal::RECORD, Kind::Other, now);
        cluster.log.flush();
        cluster.control.min_recovery = cluster.log.inserted;
        cluster.control.min_recovery_timeline = timeline;
        standby.replayed = cluster.log.inserted;
        standby.promotion = Some(Promotion::Opening(now + spent, Fork { timeline: parent, at }));
        let from = parent;
        self.happened(Happening::Forked { from, timeline, at });
        self.promotion_tick(now);
    }

    fn opened(&mut self, now: Time, fork: Fork) {
        let spread = self.costs.spread_checkpoint.draw(&mut self.rng);
        if let Some(process) = &mut self.process {
            process.standby = None;
            process.checkpoint = Some(now + spread);
        }
        let (from, at) = (fork.timeline, fork.at);
        let timeline = self.cluster().map_or(0, |cluster| cluster.log.timeline());
        self.open(now);
        self.happened(Happening::Promoted { from, timeline, at });
        if let Some(process) = &mut self.process {
            let names = process.sync.clone();
            for sender in &mut process.senders {
                sender.take_names(names.clone(), false);
            }
        }
        self.push(now);
    }
}
