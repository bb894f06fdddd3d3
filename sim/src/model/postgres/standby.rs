//! Recovery on a standby: the walreceiver that fetches, the startup process that replays, and the timelines they follow.
//!
//! Two things of it mislead whoever asks. `pg_last_wal_receive_lsn()` begins at the start of the *segment* from which streaming was asked
//! for, so after a restart it lies behind what is on disk and was replayed. And a walreceiver whose upstream is lost without a word
//! goes on "streaming" until `wal_receiver_timeout`.

use surus_core::view::ControlState;

use super::directory::Cluster;
use super::message::Link;
use super::server::{Happening, Server, Stage};
use super::settings::Settings;
use super::stop::Ended;
use super::timeline::Fork;
use super::wal::Kind;
use crate::clock::Time;

/// What the walreceiver is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReceiverState {
    /// Connecting, or asking who is there.
    Connecting,
    /// `streaming`: the connection is made.
    Streaming,
    /// `waiting`: the upstream has no more of this timeline.
    Waiting,
}

/// The walreceiver.
#[derive(Debug, Clone)]
pub(super) struct Receiver {
    pub(super) link: Link,
    pub(super) state: ReceiverState,
    pub(super) timeline: u32,
    /// `receive_start_lsn`.
    pub(super) start: u64,
    pub(super) heard: Time,
    pub(super) pinged: bool,
    pub(super) next_report: Time,
}

/// How far a promotion has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promotion {
    /// Asked for; the startup process notices then.
    Asked(Time),
    /// What was received is replayed first.
    Replaying,
    /// The end of recovery is written then.
    Ending(Time),
    /// Writes are accepted then, on a timeline that began here.
    Opening(Time, Fork),
}

/// Recovery, as the startup process and the walreceiver know it.
#[derive(Debug, Clone)]
pub(super) struct Standby {
    pub(super) replayed: u64,
    /// The timeline that is followed to its end.
    pub(super) target: u32,
    /// A piece is being replayed: until when, and up to where.
    pub(super) replaying: Option<(Time, u64)>,
    /// `recovery_min_apply_delay` holds the next commit back until then.
    pub(super) delayed: Option<Time>,
    pub(super) paused: bool,
    /// `pg_last_wal_receive_lsn()`.
    pub(super) received: Option<u64>,
    /// `received_tli`.
    pub(super) received_timeline: u32,
    pub(super) receiver: Option<Receiver>,
    /// The next attempt to connect.
    pub(super) retry: Option<Time>,
    /// The last attempt that had to wait its turn.
    pub(super) attempted: Option<Time>,
    pub(super) promotion: Option<Promotion>,
}

impl Standby {
    /// Archive recovery begins: the control file says so, and what was known of consistency. A crashed primary replays all of its own
    /// log first.
    pub(super) fn enter(cluster: &mut Cluster) {
        let crashed = cluster.control.state.was_primary()
            && !cluster.control.clean()
            && cluster.control.min_recovery == 0
            && cluster.backup_label.is_none();
        let least = if crashed {
            cluster.valid_end()
        } else {
            cluster.control.redo
        };
        if cluster.control.min_recovery < least {
            cluster.control.min_recovery = least;
            cluster.control.min_recovery_timeline = cluster.control.timeline;
        }
        cluster.control.state = ControlState::InArchiveRecovery;
    }

    /// Chooses the timeline to follow, and replays what is on disk. Nothing, if the newest history file is an empty one: PostgreSQL then
    /// looks for its own checkpoint on that timeline, for ever.
    pub(super) fn begin(cluster: &mut Cluster) -> Result<Option<Self>, &'static str> {
        let control = &cluster.control;
        let base = control.recovery_timeline();
        let target = cluster.histories.newest(base);
        if target != base && cluster.histories.of(target).is_empty() {
            return Ok(None);
        }
        let fork = cluster.histories.switch(control.timeline, target);
        if fork.is_none_or(|fork| fork < control.checkpoint) {
            return Err("requested timeline is not a child of this server's history");
        }
        if control.min_recovery != 0 {
            let fork = cluster.histories.switch(control.min_recovery_timeline, target);
            if fork.is_none_or(|fork| fork < control.min_recovery) {
                return Err("requested timeline does not contain the minimum recovery point");
            }
        }
        // What lies beyond a fork is not of the target's history.
        while let Some(fork) = cluster.histories.switch(cluster.log.timeline(), target)
            && fork < cluster.log.inserted
        {
            cluster.log.truncate(fork);
        }
        Ok(Some(Self {
            replayed: cluster.valid_end(),
            target,
            replaying: None,
            delayed: None,
            paused: false,
            received: None,
            received_timeline: 0,
            receiver: None,
            retry: None,
            attempted: None,
            promotion: None,
        }))
    }

    pub(super) fn link(&self) -> Option<Link> {
        self.receiver.as_ref().map(|receiver| receiver.link)
    }

    pub(super) fn due(&self, settings: &Settings) -> Option<Time> {
        let mut next = Time::MAX;
        let mut at = |time: Option<Time>| next = next.min(time.unwrap_or(Time::MAX));
        at(self.replaying.map(|(due, _)| due));
        at(self.delayed);
        at(self.retry);
        if let Some(receiver) = &self.receiver {
            if receiver.state == ReceiverState::Connecting {
                at(Some(receiver.heard + settings.connect_timeout));
            } else {
                at(Some(receiver.next_report));
                let patience = settings.wal_receiver_timeout;
                let patience = if receiver.pinged { patience } else { patience / 2 };
                at((patience != 0).then(|| receiver.heard + patience));
            }
        }
        at(match self.promotion {
            Some(Promotion::Asked(due) | Promotion::Ending(due) | Promotion::Opening(due, _)) => Some(due),
            Some(Promotion::Replaying) | None => None,
        });
        (next != Time::MAX).then_some(next)
    }
}

impl Server {
    pub(super) fn standby_begin(&mut self, now: Time) {
        self.replayed(now);
        self.seek_upstream(now);
        self.advance(now);
    }

    /// The timeline and the position from which the walreceiver asks next.
    pub(super) fn wanted(&self) -> Option<(u32, u64)> {
        let cluster = self.cluster()?;
        let standby = self.process.as_ref()?.standby.as_ref()?;
        let end = cluster.valid_end();
        let own = cluster.log.timeline();
        let path = cluster.histories.path(own, standby.target);
        let timeline = path.iter().rev().find(|(_, start)| *start <= end);
        Some((timeline.map_or(own, |(timeline, _)| *timeline), end))
    }

    /// Moves replay on as far as it may go now.
    pub(super) fn advance(&mut self, now: Time) {
        let costs = self.costs;
        let Some((cluster, process)) = self.parts() else {
            return;
        };
        let delay = process.settings.recovery_min_apply_delay;
        let Some(standby) = &mut process.standby else {
            return;
        };
        if standby.replaying.is_some()
            || matches!(
                standby.promotion,
                Some(Promotion::Ending(_) | Promotion::Opening(..))
            )
        {
            return;
        }
        let promotes = standby.promotion == Some(Promotion::Replaying);
        standby.delayed = None;
        if standby.paused && !promotes {
            return;
        }
        let mut goal = cluster.log.valid_end(cluster.log.flushed);
        if delay != 0 && !promotes {
            let mut end = standby.replayed;
            for record in cluster.log.records(standby.replayed, goal) {
                if matches!(record.kind, Kind::Commit(_)) && now < record.at + delay {
                    standby.delayed = Some(record.at + delay);
                    break;
                }
                end = record.end;
            }
            goal = end;
        }
        let volume = goal.saturating_sub(standby.replayed);
        if volume == 0 {
            self.out_of_wal(now);
            return;
        }
        let spent = costs.apply.draw(&mut self.rng) + costs.replay_time(volume) + self.ills.replay;
        let Some(process) = &mut self.process else { return };
        let Some(standby) = &mut process.standby else {
            return;
        };
        if spent == 0 {
            standby.replayed = goal;
            self.replayed(now);
            self.advance(now);
        } else {
            standby.replaying = Some((now + spent, goal));
        }
    }

    /// Replay has moved on.
    fn replayed(&mut self, now: Time) {
        let Some((cluster, process)) = self.parts() else {
            return;
        };
        let Some(standby) = &process.standby else { return };
        if process.stage == Stage::Starting && cluster.consistent_at() <= standby.replayed {
            process.stage = Stage::Standby;
            if let Some(label) = cluster.backup_label.take()
                && cluster.control.min_recovery < label.end
            {
                cluster.control.min_recovery = label.end;
                cluster.control.min_recovery_timeline = cluster.log.timeline_at(label.end);
            }
            self.happened(Happening::Ready { primary: false });
        }
        self.report(now, false);
        self.push(now);
    }

    /// Everything that is there has been replayed: the next timeline is looked for, or a promotion goes on.
    fn out_of_wal(&mut self, now: Time) {
        let Some((cluster, process)) = self.parts() else {
            return;
        };
        let Some(standby) = &mut process.standby else {
            return;
        };
        if standby.replayed < cluster.log.valid_end(cluster.log.flushed) {
            return;
        }
        if standby.promotion == Some(Promotion::Replaying) {
            self.end_recovery(now);
            return;
        }
        if standby
            .receiver
            .as_ref()
            .is_some_and(|receiver| receiver.state == ReceiverState::Waiting)
            && standby.retry.is_none()
        {
            if self.rescan() {
                self.seek_upstream(now);
            } else {
                self.retry_later(now);
            }
        }
    }

    /// A newer timeline is followed, if it forked off where this standby can still follow.
    fn rescan(&mut self) -> bool {
        let Some((cluster, process)) = self.parts() else {
            return false;
        };
        let Some(standby) = &mut process.standby else {
            return false;
        };
        let newest = cluster.histories.newest(standby.target);
        let fork = cluster.histories.switch(standby.target, newest);
        if newest == standby.target || fork.is_none_or(|fork| fork < standby.replayed) {
            return false;
        }
        standby.target = newest;
        if let Some(fork) = fork {
            cluster.log.truncate(fork);
        }
        true
    }

    pub(super) fn standby_tick(&mut self, now: Time) {
        let Some(process) = &mut self.process else { return };
        let due = |time: Option<Time>| time.is_some_and(|time| time <= now);
        let settings = (
            process.settings.connect_timeout,
            process.settings.wal_receiver_timeout,
        );
        let Some(standby) = &mut process.standby else {
            return;
        };
        if let Some((end, goal)) = standby.replaying
            && end <= now
        {
            standby.replaying = None;
            standby.replayed = goal;
            self.replayed(now);
            self.advance(now);
        } else if due(standby.delayed) {
            self.advance(now);
        }
        let Some(standby) = self.process.as_mut().and_then(|process| process.standby.as_mut()) else {
            return;
        };
        if due(standby.retry) {
            standby.retry = None;
            if standby.replaying.is_none() {
                self.rescan();
            }
            self.seek_upstream(now);
        }
        let Some(standby) = self.process.as_mut().and_then(|process| process.standby.as_mut()) else {
            return;
        };
        if let Some(receiver) = &mut standby.receiver {
            let silent = now.saturating_sub(receiver.heard);
            let connecting = receiver.state == ReceiverState::Connecting;
            let patience = if connecting { settings.0 } else { settings.1 };
            if patience != 0 && patience <= silent {
                self.lost_upstream(now, "the upstream does not answer");
            } else if !connecting && patience != 0 && !receiver.pinged && patience / 2 <= silent {
                receiver.pinged = true;
                self.report(now, true);
            } else if !connecting && receiver.next_report <= now {
                receiver.next_report = now + self.settings.wal_receiver_status_interval.max(1);
                self.report(now, false);
            }
        }
        self.promotion_tick(now);
    }

    /// `pg_wal_replay_pause` and `pg_wal_replay_resume`.
    pub fn pause_replay(&mut self, now: Time, paused: bool) -> Result<(), super::server::Refusal> {
        self.accepts()?;
        let standby = self.process.as_mut().and_then(|process| process.standby.as_mut());
        let standby = standby.ok_or(super::server::Refusal::NotInRecovery)?;
        standby.paused = paused;
        self.advance(now);
        Ok(())
    }

    /// A standby that cannot become consistent ends when it is promoted.
    pub(super) fn inconsistent(&mut self, now: Time) {
        self.vanish(
            now,
            Ended::Failed("WAL ends before the consistent recovery point"),
        );
    }
}
