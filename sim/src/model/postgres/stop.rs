//! Stopping: the steps of a fast stop, each of which can be waited in, and the immediate stop.
//!
//! A fast stop ends the backends, writes the shutdown checkpoint, lets every walsender bring its standby up to that, lets the archiver
//! finish, and only then does the postmaster go. The control file says "shut down" from the second step on.

use surus_core::view::ControlState;

use super::commit::Fact;
use super::message::Message;
use super::server::{Happening, Process, Refusal, Server, Stage};
use super::settings::Archiving;
use crate::clock::{SEC, Time};

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// SIGINT.
    Fast,
    /// SIGQUIT.
    Immediate,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By a fast stop.
    Fast,
    /// By an immediate stop, or a fast one before recovery had come to its end.
    Immediate,
    /// By SIGKILL.
    Killed,
    /// With its host.
    PowerLoss,
    /// By itself, with this in its log.
    Failed(&'static str),
}

/// After an immediate stop the postmaster kills what has not ended by itself.
const QUIT_LIMIT: Time = 5 * SEC;

/// A stop under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopping {
    /// Backends are ending.
    Backends(Time),
    /// The shutdown checkpoint (or restartpoint) is being written.
    Checkpoint(Time),
    /// Walsenders bring their standbys up to it.
    Senders,
    /// The archiver works.
    Archiver,
    /// Everything goes at this time.
    Quit(Time),
}

impl Stopping {
    pub(super) fn due(self, process: &Process) -> Option<Time> {
        match self {
            Self::Backends(due) | Self::Checkpoint(due) | Self::Quit(due) => Some(due),
            Self::Senders => process.senders.is_empty().then_some(0),
            Self::Archiver => (process.settings.archiving != Archiving::Hangs).then_some(0),
        }
    }
}

impl Server {
    /// Stops the server; [`Happening::Exited`] follows when the last process is gone.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn stop(&mut self, now: Time, mode: StopMode) -> Result<(), Refusal> {
        let terminate = self.costs.terminate;
        let quit = self.costs.quit;
        let spent = match mode {
            StopMode::Fast => terminate.draw(&mut self.rng) + std::mem::take(&mut self.sluggish),
            StopMode::Immediate => quit.draw(&mut self.rng),
        };
        let process = self.process.as_mut().ok_or(Refusal::NotRunning)?;
        match mode {
            StopMode::Fast if process.stopping.is_some() => {}
            StopMode::Fast if process.stage == Stage::Starting => {
                process.start_due = None;
                process.stopping = Some(Stopping::Quit(now + spent));
            }
            StopMode::Fast => {
                process.stopping = Some(Stopping::Backends((now + spent).max(process.stuck)));
                self.cancel_waits(now);
            }
            StopMode::Immediate => {
                process.start_due = None;
                let end = (now + spent).max(process.stuck).min(now + QUIT_LIMIT);
                let end = match process.stopping {
                    Some(Stopping::Quit(earlier)) => earlier.min(end),
                    _ => end,
                };
                process.stopping = Some(Stopping::Quit(end));
            }
        }
        self.tick(now);
        Ok(())
    }

    /// Backends that wait for standbys are told to go: what they committed is visible, and nobody is told so.
    fn cancel_waits(&mut self, now: Time) {
        let Some((cluster, process)) = self.parts() else {
            return;
        };
        if process.hung.is_some() {
            return;
        }
        process.fsync = None;
        cluster.log.flush();
        for pending in std::mem::take(&mut process.pending) {
            let (txn, point) = (pending.txn, pending.point);
            for fact in [Fact::Visible, Fact::Dropped] {
                self.happened(Happening::Commit { txn, point, fact });
            }
        }
        self.push(now);
    }

    pub(super) fn stop_tick(&mut self, now: Time) {
        while let Some(process) = &self.process
            && let Some(stopping) = process.stopping
            && process.hung.is_none()
            && stopping.due(process).is_some_and(|due| due <= now)
        {
            match stopping {
                Stopping::Backends(_) => self.stop_backends_gone(now),
                Stopping::Checkpoint(_) => self.stop_checkpoint(now),
                Stopping::Senders => self.stop_next(Stopping::Archiver),
                Stopping::Archiver => self.vanish(now, Ended::Fast),
                Stopping::Quit(_) => self.vanish(now, Ended::Immediate),
            }
        }
    }

    fn stop_next(&mut self, next: Stopping) {
        if let Some(process) = &mut self.process {
            process.stopping = Some(next);
        }
    }

    fn stop_backends_gone(&mut self, now: Time) {
        self.cancel_waits(now);
        let spent = self.costs.checkpoint.draw(&mut self.rng) + self.disk.slow;
        if self.primary() {
            self.set_state(ControlState::ShuttingDown);
        } else {
            self.close_receiver("the server stops");
        }
        if let Some(process) = &mut self.process {
            process.checkpoint = None;
        }
        self.stop_next(Stopping::Checkpoint(now + spent));
    }

    fn stop_checkpoint(&mut self, now: Time) {
        if self.primary() {
            if self.write_checkpoint(now).is_err() {
                self.vanish(now, Ended::Failed("the shutdown checkpoint could not be written"));
                return;
            }
            self.set_state(ControlState::ShutDown);
        } else {
            self.restartpoint();
            self.set_state(ControlState::ShutDownInRecovery);
        }
        self.stop_next(Stopping::Senders);
        self.push(now);
        self.stop_senders();
    }

    /// Walsenders whose standby has everything end.
    pub(super) fn stop_senders(&mut self) {
        if !self
            .process
            .as_ref()
            .is_some_and(|process| process.stopping == Some(Stopping::Senders))
        {
            return;
        }
        let end = self.sendable();
        let Some(process) = &mut self.process else { return };
        let mut done = Vec::new();
        process.senders.retain(|sender| {
            let over = !sender.streams() || (sender.sent >= end && sender.reported[1] >= end);
            if over {
                done.push(sender.link);
            }
            !over
        });
        for link in done {
            self.release_slot(link);
            self.send(link.standby, link, Message::Close);
        }
    }
}
