//! Birth and death of a server: start, crash recovery, and the ways to die that nobody ordered.

use surus_core::view::ControlState;

use super::commit::Fact;
use super::directory::DataDir;
use super::message::Message;
use super::server::{Happening, Process, Refusal, Server, Stage};
use super::standby::Standby;
use super::stop::Ended;
use super::sync::SyncNames;
use crate::clock::Time;

impl Server {
    /// Starts the postmaster: as a standby if there is a standby.signal, else to accept writes. [`Happening::Ready`] follows, or
    /// [`Happening::Exited`].
    ///
    /// # Errors
    ///
    /// The postmaster cannot run: processes of a former one are there, there is no complete cluster, the settings are wrong.
    pub fn start(&mut self, now: Time) -> Result<(), Refusal> {
        if self.process.is_some() {
            return Err(Refusal::Running);
        }
        if self.disk.gone {
            return Err(Refusal::Disk);
        }
        let DataDir::Cluster(_) = &self.dir else {
            return Err(Refusal::NoCluster);
        };
        let sync = SyncNames::parse(&self.settings.synchronous_standby_names)
            .map_err(|_| Refusal::Other("synchronous_standby_names is not valid"))?;
        self.epoch += 1;
        self.process = Some(Box::new(self.processes(now, sync)));
        self.begin_recovery(now);
        Ok(())
    }

    fn processes(&self, now: Time, sync: SyncNames) -> Process {
        Process {
            settings: self.settings.clone(),
            stage: Stage::Starting,
            start_due: None,
            standby: None,
            senders: Vec::new(),
            pending: std::collections::VecDeque::new(),
            fsync: None,
            checkpoint: None,
            next_checkpoint: now + self.settings.checkpoint_timeout,
            sync,
            sync_due: None,
            stopping: None,
            hung: None,
            orphaned: None,
            stuck: 0,
        }
    }

    /// The startup process begins: the control file says so, and replaying takes its time.
    fn begin_recovery(&mut self, now: Time) {
        let spawn = self.costs.start.draw(&mut self.rng) + std::mem::take(&mut self.sluggish);
        let flush = self.costs.sync_directory.draw(&mut self.rng);
        let recovery_checkpoint = self.costs.checkpoint.draw(&mut self.rng);
        let Some((cluster, _)) = self.parts() else { return };
        let crashed = !cluster.control.clean();
        let recovers = !cluster.control.clean() || cluster.backup_label.is_some();
        let standby = cluster.standby_signal;
        if standby {
            Standby::enter(cluster);
        } else if recovers {
            cluster.control.state = ControlState::InCrashRecovery;
        }
        let volume = if standby || recovers {
            let from = cluster
                .backup_label
                .map_or(cluster.control.redo, |label| label.redo);
            cluster.log.volume(from, cluster.valid_end())
        } else {
            0
        };
        let mut due = now + spawn + self.costs.replay_time(volume);
        if crashed {
            due += flush;
        }
        if recovers && !standby {
            due += recovery_checkpoint;
        }
        if let Some(process) = &mut self.process {
            process.start_due = Some(due);
        }
    }

    /// What was on disk has been replayed.
    pub(super) fn start_step(&mut self, now: Time) {
        let Some((cluster, process)) = self.parts() else {
            return;
        };
        process.start_due = None;
        if cluster.standby_signal {
            match Standby::begin(cluster) {
                Ok(Some(standby)) => {
                    process.standby = Some(standby);
                    self.standby_begin(now);
                }
                // It looks for its checkpoint where it never was, and goes on looking.
                Ok(None) => {}
                Err(why) => self.vanish(now, Ended::Failed(why)),
            }
            return;
        }
        let recovered = cluster.control.state == ControlState::InCrashRecovery;
        let timeline = if recovered {
            cluster.control.recovery_timeline()
        } else {
            cluster.log.timeline()
        };
        if let Some(end) = cluster.log.end_of(timeline) {
            // Crash recovery stays on the timeline of the control file.
            cluster.log.truncate(end);
        }
        if recovered && cluster.valid_end() < cluster.consistent_at() {
            self.vanish(
                now,
                Ended::Failed("WAL ends before the consistent recovery point"),
            );
            return;
        }
        let origin = self.origin();
        if let Some(cluster) = self.cluster_mut() {
            cluster.log.begin(timeline, origin);
            cluster.backup_label = None;
        }
        if recovered && self.write_checkpoint(now).is_err() {
            self.vanish(
                now,
                Ended::Failed("the end-of-recovery checkpoint could not be written"),
            );
            return;
        }
        self.open(now);
        self.happened(Happening::Ready { primary: true });
    }

    /// Writes are accepted from here on.
    pub(super) fn open(&mut self, now: Time) {
        self.set_state(ControlState::InProduction);
        if let Some((cluster, process)) = self.parts() {
            cluster.standby_signal = false;
            process.stage = Stage::Primary;
            process.next_checkpoint = now + process.settings.checkpoint_timeout;
        }
    }

    /// All processes are gone at once; the kernel closes their connections.
    pub(super) fn vanish(&mut self, _: Time, how: Ended) {
        let Some(process) = self.process.take() else {
            return;
        };
        self.hang_up(&process);
        self.drop_clients(*process);
        if let Some(cluster) = self.cluster_mut() {
            cluster.log.lose_buffers();
            for slot in cluster.slots.values_mut() {
                slot.active = None;
            }
        }
        self.happened(Happening::Exited(how));
    }

    fn hang_up(&mut self, process: &Process) {
        for sender in &process.senders {
            self.send(sender.link.standby, sender.link, Message::Close);
        }
        for (link, message) in process.hung.iter().flatten() {
            if matches!(message, Message::Hello { .. }) {
                // A connection that the kernel had taken, and nobody ever accepted.
                self.send(link.standby, *link, Message::Close);
            }
        }
        if let Some(link) = process.standby.as_ref().and_then(Standby::link) {
            self.send(link.upstream, link, Message::Close);
        }
    }

    fn drop_clients(&mut self, process: Process) {
        for pending in process.pending {
            self.happened(Happening::Commit {
                txn: pending.txn,
                point: pending.point,
                fact: Fact::Dropped,
            });
        }
    }

    /// SIGKILL to every process, as the guard does it.
    pub fn kill(&mut self, now: Time) {
        self.vanish(now, Ended::Killed);
    }

    /// SIGKILL to the postmaster alone. Backends in the middle of something go on for `linger`: nobody new is let in, commits under way
    /// end, walsenders send, and no other server can be started here.
    pub fn kill_postmaster(&mut self, now: Time, linger: Time) {
        if linger == 0 {
            self.kill(now);
        } else if let Some(process) = &mut self.process {
            process.orphaned.get_or_insert(now + linger);
        }
    }

    /// The host loses its power: nobody hears of it, and what was not flushed is gone.
    pub fn power_off(&mut self) {
        let Some(process) = self.process.take() else {
            self.lose_power();
            return;
        };
        self.drop_clients(*process);
        self.lose_power();
        self.happened(Happening::Exited(Ended::PowerLoss));
    }

    fn lose_power(&mut self) {
        if let Some(cluster) = self.cluster_mut() {
            cluster.log.lose_unflushed();
            for slot in cluster.slots.values_mut() {
                slot.active = None;
            }
        }
    }

    /// A process panics: all die, and the postmaster begins anew unless it is told not to, or was just starting.
    pub(super) fn crash(&mut self, now: Time, why: &'static str) {
        let again = self.process.as_ref().is_some_and(|process| {
            process.settings.restart_after_crash
                && process.stage != Stage::Starting
                && process.orphaned.is_none()
                && process.stopping.is_none()
        });
        if !again {
            self.vanish(now, Ended::Failed(why));
            return;
        }
        let Some(process) = self.process.take() else {
            return;
        };
        self.hang_up(&process);
        let sync = process.sync.clone();
        self.drop_clients(*process);
        if let Some(cluster) = self.cluster_mut() {
            cluster.log.lose_buffers();
            for slot in cluster.slots.values_mut() {
                slot.active = None;
            }
        }
        self.happened(Happening::Crashed(why));
        self.process = Some(Box::new(self.processes(now, sync)));
        self.begin_recovery(now);
    }

    /// A backend crashes (a fault of an extension, the kernel's out-of-memory killer).
    pub fn crash_backend(&mut self, now: Time) {
        if self
            .process
            .as_ref()
            .is_some_and(|process| process.hung.is_none())
        {
            self.crash(now, "a backend crashed");
        }
    }

    /// From now until then a backend does not react to signals.
    pub fn stick_backend(&mut self, until: Time) {
        if let Some(process) = &mut self.process {
            process.stuck = process.stuck.max(until);
        }
    }
}
