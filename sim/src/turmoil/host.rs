//! A member's host: the model of its PostgreSQL, its guard, its clock, and what holds them together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use surus::agent::GuardNews;
use surus::postgres::site::{Configuration, Gate};
use surus_core::types::{Generation, Lsn, MonoTime, Timeline};
use tokio::sync::{Notify, mpsc, oneshot};

use super::hub::Hub;
use super::net::Machine;
use super::postgres;
use super::process::Process;
use crate::clock::{Clock, MS, Time};
use crate::model::guard::Guard;
use crate::model::postgres::directory::Disk;
use crate::model::postgres::sync::SyncNames;
use crate::model::postgres::{
    Costs, DataDir, Effect, Ended, Fact, Happening, Link, Message, Peer, Point, Refused, Server, Settings,
    Txn,
};
use crate::record::{End, Seen, Standing};
use crate::rng::Rng;

/// From its deadline to the death of the last backend: up to this, measured on the prototype of the guard.
const KILL: Time = 64 * MS;

/// A host.
pub struct Host {
    /// Its place.
    pub index: usize,
    /// Its name, and the member's.
    pub name: String,
    /// Its machine.
    pub machine: Machine,
    /// Something about its models has changed.
    pub changed: Notify,
    inside: Mutex<Inside>,
}

/// The guard's process.
#[derive(Debug)]
pub struct Warden {
    /// What it holds.
    pub guard: Guard,
    /// Stopped by a signal.
    pub frozen: bool,
    /// When it will have killed, world time.
    pub kills: Time,
}

/// What is in a host.
pub struct Inside {
    /// PostgreSQL and its data directory.
    pub server: Server,
    /// The host's clock.
    pub clock: Clock,
    /// By how much its wall clock is off, in nanoseconds.
    pub wall: i64,
    /// The guard, if one lives.
    pub warden: Option<Warden>,
    /// The agent that the guard reports to.
    pub listener: Option<mpsc::UnboundedSender<GuardNews>>,
    /// The server is in the guard's custody.
    pub held: bool,
    /// The configuration files.
    pub configuration: Option<Configuration>,
    /// Clients are kept out until standbys have this.
    gate: Option<Point>,
    /// How often they were read.
    pub loads: u64,
    /// The mark of something unfinished beside the data directory: a bootstrap, or else a clone.
    pub mark: Option<bool>,
    /// The copy of the dynamic configuration.
    pub dynamic: Option<Value>,
    /// The pid file of a server that did not end by itself.
    pub stale: Option<u32>,
    /// New sessions are turned away.
    pub refusing: bool,
    /// The tools take so much longer.
    pub sluggish: Time,
    /// The sessions and the listener of the running server.
    pub sessions: Option<Process>,
    /// Who waits for a commit.
    pub commits: BTreeMap<Txn, oneshot::Sender<()>>,
    /// By whom commits may be acknowledged, as the record knows; `None`: it does not ask.
    acknowledging: Option<Vec<SyncNames>>,
    /// Who is killing the server.
    killer: Option<End>,
    rng: Rng,
}

/// What became of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// Members alone are let in.
    Shut,
    /// Clients are let in to see this.
    Opened(Point),
    /// There is nothing to keep them from.
    Lifted,
}

impl Host {
    /// A host with an empty data directory.
    #[must_use]
    pub fn new(
        index: usize,
        name: String,
        machine: Machine,
        clock: Clock,
        settings: &surus_scenarios::Settings,
        seed: u64,
    ) -> Self {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let stream = 30 + u64::from(number);
        let mut server = Server::new(Peer(number), Costs::ORDINARY, Rng::new(seed, stream));
        server.settings = Settings::by_agent(settings);
        let synchronous = settings.synchronous_mode != surus_scenarios::SyncMode::Off;
        Self {
            index,
            name,
            machine,
            changed: Notify::new(),
            inside: Mutex::new(Inside {
                server,
                clock,
                wall: 0,
                warden: None,
                listener: None,
                held: false,
                configuration: None,
                gate: None,
                loads: 0,
                mark: None,
                dynamic: None,
                stale: None,
                refusing: false,
                sluggish: 0,
                sessions: None,
                commits: BTreeMap::new(),
                acknowledging: synchronous.then(Vec::new),
                killer: None,
                rng: Rng::new(seed, 100 + stream),
            }),
        }
    }

    pub(super) fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    /// The postmaster's process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server
            .alive()
            .then(|| 1000 + u32::try_from(self.server.epoch()).unwrap_or(0))
    }

    /// What is in the data directory.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        let cluster = self.server.cluster()?;
        let position = if self.server.primary() {
            cluster.log.inserted
        } else {
            cluster.log.flushed
        };
        Some(Standing {
            system_id: cluster.control.system_id,
            timeline: Timeline(cluster.log.timeline_at(position)),
            position: Lsn(position),
        })
    }

    /// A drawn duration.
    pub fn draw(&mut self, low: Time, high: Time) -> Time {
        self.rng.range(low, high)
    }

    /// When the models are to be looked at next.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        let server = self.server.next_deadline().unwrap_or(Time::MAX);
        let guard = self
            .warden
            .as_ref()
            .filter(|warden| !warden.frozen && self.held && self.server.alive())
            .map_or(Time::MAX, |warden| warden.kills);
        server.min(guard)
    }

    /// The guard, which is started if there is none.
    pub fn warden(&mut self) -> (&mut Warden, bool) {
        let began = self.warden.is_none();
        let warden = self.warden.get_or_insert_with(|| Warden {
            guard: Guard::default(),
            frozen: false,
            kills: Time::MAX,
        });
        (warden, began)
    }

    /// Gives the guard a deadline, or takes it away.
    ///
    /// # Errors
    /// It has heard of a younger reign, or is already killing.
    pub fn arm(
        &mut self,
        now: Time,
        generation: Generation,
        deadline: Option<MonoTime>,
    ) -> Result<Vec<Seen>, String> {
        let late = self.rng.below(KILL);
        let (clock, alive) = (self.clock, self.server.alive() && self.held);
        let (warden, began) = self.warden();
        let past = |deadline: MonoTime| clock.world(deadline) <= now;
        if alive && warden.guard.deadline.is_some_and(past) {
            return Err("the guard is killing".to_owned());
        }
        if !warden.guard.set(generation, deadline) {
            return Err(format!(
                "the guard has heard of reign {}",
                warden.guard.generation.0
            ));
        }
        let mut seen = Vec::new();
        if began {
            seen.push(Seen::GuardBegan);
        }
        match warden.guard.deadline {
            Some(deadline) => {
                let until = clock.world(deadline);
                warden.kills = until.saturating_add(late);
                seen.push(Seen::Armed { until });
            }
            None => {
                warden.kills = Time::MAX;
                seen.push(Seen::Lifted);
            }
        }
        Ok(seen)
    }

    /// The guard kills, if its deadline has passed.
    pub fn guard_due(&mut self, now: Time) {
        let due = self
            .warden
            .as_ref()
            .is_some_and(|warden| !warden.frozen && warden.kills <= now);
        if due && self.held && self.server.alive() {
            self.kill(now, End::ByGuard);
        }
    }

    /// SIGKILL to the server.
    pub fn kill(&mut self, now: Time, by: End) {
        self.killer = Some(by);
        self.server.kill(now);
    }

    /// The clock runs differently: the guard's deadline comes at another time.
    pub fn retime(&mut self, now: Time) {
        let (clock, late) = (self.clock, self.rng.below(KILL));
        if let Some(warden) = &mut self.warden
            && let Some(deadline) = warden.guard.deadline
            && now < clock.world(deadline)
        {
            // One that has passed is being acted upon.
            warden.kills = clock.world(deadline).saturating_add(late);
        }
    }

    /// The host's processes are gone with its power.
    pub fn lose_power(&mut self) {
        self.warden = None;
        self.held = false;
        self.listener = None;
    }

    /// No fault is left in PostgreSQL or its disk.
    pub fn mend(&mut self, now: Time) {
        self.server.disk = Disk::default();
        self.server.unstall(now);
        self.server.ills.rogues.clear();
        self.server.stick_backend(0);
        self.refusing = false;
        self.sluggish = 0;
    }

    /// The guard's process is gone, and the kernel kills the server that it held.
    pub fn kill_guard(&mut self, now: Time) -> bool {
        if self.warden.take().is_none() {
            return false;
        }
        if self.held && self.server.alive() {
            self.kill(now, End::GuardDied);
        }
        self.held = false;
        self.tell(GuardNews::Lost);
        true
    }

    /// An agent that is gone hears nothing.
    fn tell(&self, news: GuardNews) {
        if let Some(listener) = &self.listener {
            let _ = listener.send(news);
        }
    }

    /// The server begins, with a listener of its own.
    pub(super) fn open(&mut self, host: &Host, hub: &Arc<Hub>) {
        let process = Process::new(Arc::clone(&hub.net), host.machine, "postgres");
        postgres::listen(hub, host.index, &process);
        self.sessions = Some(process);
    }

    /// The gate is as the configuration files have it from now on; tells what that changes.
    pub(super) fn turn_gate(&mut self) -> Option<Turned> {
        let shut = self.keeps_out();
        let log = self.server.cluster().map(|cluster| &cluster.log);
        match (self.gate, shut, log) {
            (None, true, Some(log)) => {
                self.gate = Some(log.point(log.inserted));
                Some(Turned::Shut)
            }
            (Some(shown), false, _) => {
                self.gate = None;
                Some(if self.server.in_recovery() == Ok(false) {
                    Turned::Opened(shown)
                } else {
                    Turned::Lifted
                })
            }
            _ => None,
        }
    }

    /// Members alone are let in.
    pub(super) fn keeps_out(&self) -> bool {
        self.configuration
            .as_ref()
            .is_some_and(|written| written.gate == Some(Gate::Shut))
    }

    /// By which rules commits may be acknowledged now, if that has changed since it was last asked for.
    pub(super) fn acknowledging(&mut self) -> Option<Vec<SyncNames>> {
        let known = self.acknowledging.as_mut()?;
        let rules = self.server.acknowledges_by();
        (*known != rules).then(|| {
            known.clone_from(&rules);
            rules
        })
    }

    /// What came of the last calls: facts, and mail for other servers.
    pub(super) fn settle(&mut self) -> (Vec<Seen>, Vec<(Peer, Link, Message)>) {
        let mut seen = Vec::new();
        let mut mail = Vec::new();
        if !self.server.has_effects() {
            return (seen, mail);
        }
        for effect in self.server.effects() {
            match effect {
                Effect::Send { to, link, message } => mail.push((to, link, message)),
                Effect::Happened(happening) => self.happened(happening, &mut seen),
            }
        }
        (seen, mail)
    }

    fn happened(&mut self, happening: Happening, seen: &mut Vec<Seen>) {
        let standing = self.standing();
        match happening {
            Happening::Ready { primary } => {
                seen.extend(standing.map(|standing| Seen::Up { primary, standing }));
            }
            Happening::Forked { from, at, .. } => seen.extend(standing.map(|standing| Seen::Forked {
                from: Timeline(from),
                switch: Lsn(at),
                standing,
            })),
            Happening::Promoted { from, at, .. } => seen.extend(standing.map(|standing| Seen::Promoted {
                from: Timeline(from),
                switch: Lsn(at),
                standing,
            })),
            Happening::Checkpoint => {
                let control = self.server.cluster().map(|cluster| cluster.control);
                seen.extend(control.map(|control| Seen::Checkpointed {
                    timeline: Timeline(control.timeline),
                    position: Lsn(control.checkpoint),
                }));
            }
            Happening::Crashed(_) => {
                self.commits.clear();
                let how = End::Killed;
                seen.push(Seen::Ended { how, standing });
                seen.extend(standing.map(|standing| Seen::Starting {
                    as_primary: !self.server.standby(),
                    standing,
                }));
            }
            Happening::Exited(ended) => {
                let killer = self.killer.take();
                let how = match ended {
                    Ended::Fast => End::FastStop,
                    Ended::Immediate => End::ImmediateStop,
                    Ended::PowerLoss => End::PowerLoss,
                    Ended::Killed | Ended::Failed(_) => killer.unwrap_or(End::Killed),
                };
                self.commits.clear();
                let pid = 1000 + u32::try_from(self.server.epoch()).unwrap_or(0);
                self.stale = (ended != Ended::Fast && ended != Ended::Immediate).then_some(pid);
                if let Some(sessions) = self.sessions.take() {
                    sessions.kill();
                }
                let held = std::mem::take(&mut self.held);
                if held && self.warden.is_some() {
                    self.tell(GuardNews::Exited);
                }
                seen.push(Seen::Ended { how, standing });
            }
            Happening::Commit { txn, point, fact } => match fact {
                Fact::Acked { .. } => {
                    if let Some(waiting) = self.commits.remove(&txn) {
                        let _ = waiting.send(());
                    }
                    let (key, value) = (postgres::register(txn), txn);
                    seen.extend(standing.map(|standing| Seen::Committed {
                        key,
                        value,
                        standing: Standing {
                            timeline: Timeline(point.run.timeline),
                            position: point.lsn(),
                            ..standing
                        },
                    }));
                }
                Fact::Dropped => drop(self.commits.remove(&txn)),
                Fact::Durable | Fact::Visible => {}
            },
            Happening::Streaming(Peer(upstream)) => {
                let upstream = usize::try_from(upstream).unwrap_or(usize::MAX);
                seen.extend(standing.map(|standing| Seen::Streaming { upstream, standing }));
            }
            Happening::Disconnected(why) => {
                if why == Refused::Removed.text() {
                    seen.push(Seen::WalMissing);
                }
                seen.push(Seen::StreamLost { why });
            }
            Happening::SlotLost(_) => {}
        }
    }

    /// The directory holds half of something.
    #[must_use]
    pub fn incomplete(&self) -> Option<&'static str> {
        match &self.server.dir {
            DataDir::Incomplete(what) => Some(what.name()),
            DataDir::Empty | DataDir::Cluster(_) => None,
        }
    }
}
