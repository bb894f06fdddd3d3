//! The orders that change PostgreSQL, stage by stage, as the agent's adapter carries them out; that to create a cluster stands apart.

use std::time::Duration;

use surus_core::action::{StopMode, Upstream};
use surus_core::input::Outcome;
use surus_core::sync::Names;
use surus_core::types::{Lsn, MonoTime, NodeName};
use surus_core::zoo::Flaw;
use surus_core::{Action, Order};
use surus_scenarios::PostgresStep;

use crate::clock::{MS, SEC, Time};
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::model::guard::Guard;
use crate::model::postgres::rewind::{Snapshot, Verdict};
use crate::model::postgres::{Conninfo, Peer, Refusal, StopMode as PgStop};
use crate::net::Place;
use crate::record::{End, Rebuild, Seen};
use crate::zoo::Bug;

/// The adapter looks this often at what it waits for.
pub(super) const TICK: Time = 10 * MS;

/// How long it looks for the end of a promotion: longer than any right to be primary lasts.
const PROMOTION: u8 = 200;

/// What lives so long after an immediate stop began is killed from outside.
const IMMEDIATE_LIMIT: Time = SEC;

/// `pg_ctl_timeout`: how long a start waits for the end of the former server.
pub(super) const PG_CTL_TIMEOUT: Time = 60 * SEC;

/// A tool that works on the data directory, and what it reads from.
#[derive(Debug, Clone)]
pub struct Tool {
    source: usize,
    /// The server it is connected to; another one there means that the connection broke.
    server: u64,
    /// Where replay begins after a rewind.
    redo: u64,
}

pub(super) fn failed(text: &str) -> Option<Outcome> {
    Some(Outcome::Failed(text.to_owned()))
}

fn refused(refusal: &Refusal) -> Option<Outcome> {
    Some(Outcome::Failed(format!("PostgreSQL refuses: {refusal:?}")))
}

fn younger() -> Option<Outcome> {
    let text = "the guard has heard of a younger reign";
    Some(Outcome::Refused(text.to_owned()))
}

impl World {
    pub(crate) fn postgres_stage(&mut self, node: usize, action: &Action, stage: u8) -> Option<Outcome> {
        if let Some(outcome) = self.ill(node, &action.order, stage) {
            return Some(outcome);
        }
        let outcome = match &action.order {
            Order::Bootstrap { .. } => self.bootstrap_stage(node, action, stage),
            Order::BaseBackup { from } => self.clone_stage(node, action, stage, &from.name),
            Order::StartReplica { upstream } => self.start_replica(node, action, upstream.as_ref()),
            Order::StartPrimary {
                guard_until,
                synchronous,
                gated,
                ..
            } => {
                let outcome = self.start_primary(node, action, *guard_until, synchronous.as_ref());
                self.begun(node, outcome.as_ref(), *gated);
                outcome
            }
            Order::Stop { .. } | Order::Restart { .. } => self.stop_stage(node, action, stage),
            Order::Promote { .. } => self.promote_stage(node, action, stage),
            Order::Follow { upstream } => self.follow_stage(node, upstream.as_ref()),
            Order::CompareHistory { leader } => {
                match self.remote(node, &leader.name, !self.early_history()) {
                    Some(there) => match self.hosts[there].pg.identify() {
                        Ok((_, timeline, history)) => Some(Outcome::Ancestry { timeline, history }),
                        Err(refusal) => refused(&refusal),
                    },
                    None => failed("the leader does not answer"),
                }
            }
            Order::Rewind { leader } => self.rewind_stage(node, action, stage, &leader.name),
            _ => Some(Outcome::Ok),
        };
        self.follow_pg(node);
        outcome
    }

    /// The planted bug asks a leader for its history before it is a primary.
    fn early_history(&self) -> bool {
        self.bug == Some(Bug::Core(Flaw::EarlyHistory))
    }

    /// A step that is to be slow or to fail, by the story.
    fn ill(&mut self, node: usize, order: &Order, stage: u8) -> Option<Outcome> {
        let (step, at, text) = match order {
            Order::Bootstrap { .. } | Order::StartReplica { .. } | Order::StartPrimary { .. } => {
                (PostgresStep::Start, 0, "the postmaster ended at once")
            }
            Order::BaseBackup { .. } => (
                PostgresStep::BaseBackup,
                1,
                "pg_basebackup: could not receive data from WAL stream",
            ),
            Order::Stop { .. } | Order::Restart { .. } => (PostgresStep::Stop, 0, "the stop failed"),
            Order::Promote { .. } => (PostgresStep::Promote, 0, "pg_promote() did not take effect"),
            Order::Rewind { .. } => (PostgresStep::Rewind, 2, "pg_rewind: could not fetch file list"),
            _ => return None,
        };
        if stage == 0 {
            // What an order before did not use, a stop of a server that was gone, is not this one's.
            self.hosts[node].pg.sluggish = self.slowed(node, step);
        }
        let stops = step == PostgresStep::Stop;
        if stage == at && (!stops || self.hosts[node].pg.alive()) && self.fails(node, step) {
            if step == PostgresStep::BaseBackup {
                self.hosts[node].pg.wipe();
            }
            return failed(text);
        }
        None
    }

    /// The server of the source, if it is the one that the tool is connected to.
    fn connected(&self, node: usize, primary: bool) -> Option<(Tool, Snapshot)> {
        let tool = self.hosts[node].tool.clone()?;
        let name = &self.names[tool.source];
        let there = self.remote(node, name, primary)?;
        let pg = &self.hosts[there].pg;
        let snapshot = pg.snapshot().ok().filter(|_| pg.epoch() == tool.server)?;
        Some((tool, snapshot))
    }

    fn clone_stage(&mut self, node: usize, action: &Action, stage: u8, from: &NodeName) -> Option<Outcome> {
        if self.hosts[node].pg.alive() {
            return failed("PostgreSQL runs");
        }
        let source = self.position(from);
        if stage == 0 {
            self.tell_discard(node, source, Rebuild::Clone);
            if let Err(refusal) = self.hosts[node].pg.clone_begin() {
                return refused(&refusal);
            }
            self.see(node, Seen::DataBroken);
            self.hosts[node].making = false;
            self.hosts[node].tool = None;
            if let Some(there) = self.remote(node, from, false) {
                let pg = &mut self.hosts[there].pg;
                let server = pg.epoch();
                let _ = pg.backup(self.now, true);
                self.follow_pg(there);
                self.hosts[node].tool = Some(Tool {
                    source: there,
                    server,
                    redo: 0,
                });
            }
            let slow = std::mem::take(&mut self.hosts[node].pg.sluggish);
            let delay = self.rng.range(200 * MS, 2 * SEC) + slow;
            self.next_stage(node, action.clone(), 1, delay);
            return None;
        }
        let Some((tool, snapshot)) = self.connected(node, false) else {
            // What the failed attempt left is worth nothing.
            self.hosts[node].pg.wipe();
            return failed("the source does not answer");
        };
        let _ = self.hosts[tool.source].pg.backup(self.now, false);
        self.follow_pg(tool.source);
        self.hosts[node].pg.clone_finish(&snapshot);
        self.hosts[node].memory.received = None;
        self.tell_rebuilt(node, tool.source, Rebuild::Clone);
        Some(Outcome::Ok)
    }

    /// Writes `primary_conninfo` and `primary_slot_name`.
    fn point(&mut self, node: usize, upstream: Option<&Upstream>) {
        let to = upstream.and_then(|upstream| self.position(&upstream.name));
        let application_name = self.names[node].0.clone();
        let settings = &mut self.hosts[node].pg.settings;
        let conninfo = to.map(|to| Conninfo {
            to: Peer(u32::try_from(to).unwrap_or(u32::MAX)),
            application_name,
        });
        let slot = upstream.and_then(|upstream| upstream.slot.clone());
        let changed = settings.primary_conninfo != conninfo || settings.primary_slot_name != slot;
        settings.primary_conninfo = conninfo;
        settings.primary_slot_name = slot;
        if changed {
            self.see(node, Seen::Following { upstream: to });
        }
    }

    /// A former server that is on its way out is waited for.
    fn settling(&mut self, node: usize, action: &Action) -> Option<Option<Outcome>> {
        let host = &mut self.hosts[node];
        let clean = host.pg.cluster().is_some_and(|cluster| cluster.control.clean());
        if !host.pg.alive() || !(clean || host.pg.stopping()) {
            host.waits = None;
            return None;
        }
        let since = *host.waits.get_or_insert(self.now);
        if self.now < since + PG_CTL_TIMEOUT {
            // Stages are looked at anew each time, the right included.
            self.next_stage(node, action.clone(), 0, 2 * TICK);
            return Some(None);
        }
        host.waits = None;
        Some(failed("the former server does not end"))
    }

    fn start_replica(
        &mut self,
        node: usize,
        action: &Action,
        upstream: Option<&Upstream>,
    ) -> Option<Outcome> {
        if let Some(waits) = self.settling(node, action) {
            return waits;
        }
        if self.hosts[node].pg.standby() {
            return self.follow_stage(node, upstream);
        }
        if self.hosts[node].pg.alive() || self.hosts[node].pg.cluster().is_none() {
            return failed("PostgreSQL runs already, or there is no data");
        }
        self.begin_guard(node);
        let guard = self.hosts[node].guard.get_or_insert_with(Guard::default);
        guard.set(action.generation, None);
        self.arm_timer(node);
        self.point(node, upstream);
        if let Some(cluster) = self.hosts[node].pg.cluster_mut() {
            cluster.standby_signal = true;
        }
        Some(self.start_postgres(node).unwrap_or(Outcome::Ok))
    }

    fn start_primary(
        &mut self,
        node: usize,
        action: &Action,
        guard_until: MonoTime,
        synchronous: Option<&Names>,
    ) -> Option<Outcome> {
        if let Some(waits) = self.settling(node, action) {
            return waits;
        }
        if self.hosts[node].pg.alive() || self.hosts[node].pg.cluster().is_none() {
            return failed("PostgreSQL runs already, or there is no data");
        }
        if !self.arm(node, action, guard_until) {
            return younger();
        }
        self.name_standbys(node, synchronous);
        if let Some(cluster) = self.hosts[node].pg.cluster_mut() {
            cluster.standby_signal = false;
        }
        Some(self.start_postgres(node).unwrap_or(Outcome::Ok))
    }

    /// A start that went well begins with the gate shut, or open.
    fn begun(&mut self, node: usize, outcome: Option<&Outcome>, gated: bool) {
        if outcome == Some(&Outcome::Ok) {
            self.set_gate(node, gated);
        }
    }

    /// Starts the postmaster; returns what went wrong.
    pub(super) fn start_postgres(&mut self, node: usize) -> Option<Outcome> {
        let host = &mut self.hosts[node];
        let primary = host.pg.cluster().is_some_and(|cluster| !cluster.standby_signal);
        if let Some(cluster) = host.pg.cluster_mut().filter(|_| !primary) {
            cluster.sweep_histories();
        }
        if let Err(refusal) = host.pg.start(self.now) {
            return refused(&refusal);
        }
        host.memory.primary = Some(primary);
        if primary {
            host.memory.received = None;
        }
        self.tell_starting(node);
        self.follow_pg(node);
        None
    }

    fn promote_stage(&mut self, node: usize, action: &Action, stage: u8) -> Option<Outcome> {
        let Order::Promote {
            guard_until,
            above,
            synchronous,
            gated,
            ..
        } = &action.order
        else {
            return None;
        };
        if stage == 0 {
            if !self.hosts[node].pg.standby() || self.hosts[node].pg.hung() {
                return failed("PostgreSQL is no running replica");
            }
            let careless = self.bug == Some(Bug::TimelineNotReserved);
            if let Some(cluster) = self.hosts[node].pg.cluster_mut().filter(|_| !careless) {
                let own = cluster.control.timeline;
                cluster.histories.reserve(own, above.0);
            }
            if !self.arm(node, action, *guard_until) {
                return younger();
            }
            if self.name_standbys(node, synchronous.as_ref()) {
                // What it says is looked at again when it is a primary.
                let _ = self.hosts[node].pg.reload(self.now);
            }
            self.set_gate(node, *gated);
            if let Err(refusal) = self.hosts[node].pg.promote(self.now) {
                return refused(&refusal);
            }
            self.hosts[node].memory.primary = Some(true);
            self.next_stage(node, action.clone(), 1, TICK);
            return None;
        }
        let pg = &mut self.hosts[node].pg;
        if pg.primary() && !pg.hung() {
            self.hosts[node].memory.received = None;
            return Some(Outcome::Ok);
        }
        if !pg.alive() {
            return failed("PostgreSQL ended");
        }
        if stage < PROMOTION {
            pg.wake_startup(self.now);
            self.next_stage(node, action.clone(), stage + 1, TICK);
            return None;
        }
        if self.bug == Some(Bug::UnknownIsFailure) {
            return failed("promotion takes long");
        }
        Some(Outcome::Unknown("promotion takes long".to_owned()))
    }

    fn follow_stage(&mut self, node: usize, upstream: Option<&Upstream>) -> Option<Outcome> {
        let pg = &self.hosts[node].pg;
        let signal = pg.cluster().is_some_and(|cluster| cluster.standby_signal);
        if !pg.alive() || !signal {
            return failed("PostgreSQL is no running replica");
        }
        self.point(node, upstream);
        // A server that hangs reads it when it goes on.
        let _ = self.hosts[node].pg.reload(self.now);
        Some(Outcome::Ok)
    }

    fn rewind_stage(
        &mut self,
        node: usize,
        action: &Action,
        stage: u8,
        leader: &NodeName,
    ) -> Option<Outcome> {
        if self.hosts[node].pg.alive() {
            return failed("PostgreSQL runs");
        }
        if stage == 0 {
            let Some(there) = self.remote(node, leader, true) else {
                return failed("the leader does not answer as a primary");
            };
            let Ok(snapshot) = self.hosts[there].pg.snapshot() else {
                return failed("the leader does not answer as a primary");
            };
            // Its crash recovery is a single-user server, which refuses to be a standby.
            if let Some(cluster) = self.hosts[node].pg.cluster_mut() {
                cluster.standby_signal = false;
            }
            let redo = match self.hosts[node].pg.rewind_plan(self.now, &snapshot) {
                Ok(Verdict::NotRequired) => {
                    self.hosts[node].memory.received = None;
                    return Some(Outcome::Ok);
                }
                Ok(Verdict::Required { redo, .. }) => redo,
                Err(error) => return Some(Outcome::Failed(format!("pg_rewind: {error:?}"))),
            };
            let server = self.hosts[there].pg.epoch();
            self.hosts[node].tool = Some(Tool {
                source: there,
                server,
                redo,
            });
            self.tell_discard(node, Some(there), Rebuild::Rewind);
            let slow = std::mem::take(&mut self.hosts[node].pg.sluggish);
            let delay = self.rng.range(50 * MS, 300 * MS) + slow;
            self.next_stage(node, action.clone(), 1, delay);
            return None;
        }
        let Some((tool, snapshot)) = self.connected(node, true) else {
            // Before the first file was changed the directory is as good as it was; after that it is marked.
            return failed("the leader went away");
        };
        if stage == 1 {
            self.hosts[node].pg.rewind_begin();
            self.see(node, Seen::DataBroken);
            let delay = self.rng.range(50 * MS, 500 * MS);
            self.next_stage(node, action.clone(), 2, delay);
            return None;
        }
        self.hosts[node].pg.rewind_finish(&snapshot, tool.redo);
        self.hosts[node].memory.received = None;
        self.tell_rebuilt(node, tool.source, Rebuild::Rewind);
        Some(Outcome::Ok)
    }

    fn tell_rebuilt(&mut self, node: usize, source: usize, how: Rebuild) {
        if let Some(standing) = self.standing(node) {
            let seen = Seen::Rebuilt {
                how,
                source,
                standing,
            };
            self.see(node, seen);
        }
    }

    pub(crate) fn begin_guard(&mut self, node: usize) {
        if self.hosts[node].guard.is_none() {
            self.hosts[node].armed = None;
            self.see(node, Seen::GuardBegan);
        }
    }

    /// Stage 0 begins, 1 waits for the checkpoint before the stop, 2 for the fast stop, 3 for the immediate one.
    fn stop_stage(&mut self, node: usize, action: &Action, stage: u8) -> Option<Outcome> {
        let (mode, checkpoint_first, again) = match &action.order {
            Order::Stop {
                mode,
                checkpoint_first,
            } => (*mode, *checkpoint_first, None),
            Order::Restart { guard_until, gated } => {
                let begins = self.local(node).plus(Duration::from_nanos(PG_CTL_TIMEOUT));
                let agent = self.hosts[node].agent.as_mut()?;
                if stage == 0 {
                    agent.restart_until = begins;
                }
                let until = agent.restart_until;
                (StopMode::Fast { until }, true, Some((*guard_until, *gated)))
            }
            _ => return None,
        };
        let local = self.local(node);
        let bug = self.bug;
        let since = self.hosts[node].waits;
        let pg = &mut self.hosts[node].pg;
        let clean = pg.cluster().filter(|cluster| cluster.control.clean());
        let checkpoint = clean.map(|cluster| Lsn(cluster.control.checkpoint));
        // The control file tells that no write can come any more, before the last process is gone.
        let ended = !pg.alive() || stage != 0 && checkpoint.is_some();
        if ended && (again.is_none() || !pg.alive()) {
            self.hosts[node].waits = None;
            return match again {
                Some((guard_until, gated)) => {
                    let outcome = self.start_again(node, action, guard_until);
                    self.begun(node, outcome.as_ref(), gated);
                    outcome
                }
                None => Some(Outcome::Stopped { checkpoint }),
            };
        }
        let turned = match mode {
            StopMode::Fast { until } => until <= local,
            StopMode::Immediate => true,
        };
        if bug == Some(Bug::ReleaseBeforeStop) && again.is_none() && checkpoint_first {
            let server = pg.epoch();
            let checkpoint = pg.cluster().map(|cluster| Lsn(cluster.log.inserted));
            let delay = self.rng.range(20 * MS, 400 * MS);
            self.after(delay, Event::PgStopLate(node, server));
            self.hosts[node].denied = Some(server);
            return Some(Outcome::Stopped { checkpoint });
        }
        let next = match stage {
            0 if checkpoint_first && !turned && pg.checkpoint(self.now).is_ok() => {
                self.hosts[node].waits = Some(self.now);
                1
            }
            0 | 1 if !turned => {
                // The other half of the time is left for the stop itself.
                let until = match mode {
                    StopMode::Fast { until } => until.since(local),
                    StopMode::Immediate => std::time::Duration::ZERO,
                };
                let left = u64::try_from(until.as_nanos()).unwrap_or(Time::MAX);
                let waited = self.now.saturating_sub(since.unwrap_or(0));
                if stage == 1 && pg.checkpointing() && pg.answers() && waited < left {
                    1
                } else {
                    self.stop_postgres(node, PgStop::Fast);
                    2
                }
            }
            0..=2 if turned => {
                self.stop_at_once(node, false);
                3
            }
            3 => {
                self.stop_at_once(node, true);
                3
            }
            other => other,
        };
        self.next_stage(node, action.clone(), next, TICK);
        None
    }

    pub(crate) fn stop_postgres(&mut self, node: usize, mode: PgStop) {
        let open = !self.hosts[node].pg.stopping();
        let _ = self.hosts[node].pg.stop(self.now, mode);
        if open {
            self.see(node, Seen::Closing);
            if !self.hosts[node].pg.hung() {
                self.cut_sessions(node);
            }
        }
        self.follow_pg(node);
    }

    /// An immediate stop, or one that has begun: what lives too long after that is killed.
    pub(super) fn stop_at_once(&mut self, node: usize, begun: bool) {
        if !begun {
            self.stop_postgres(node, PgStop::Immediate);
            self.hosts[node].waits = Some(self.now);
            return;
        }
        let since = *self.hosts[node].waits.get_or_insert(self.now);
        if since + IMMEDIATE_LIMIT <= self.now {
            self.kill_postgres(node, End::ImmediateStop);
        }
    }

    fn start_again(
        &mut self,
        node: usize,
        action: &Action,
        guard_until: Option<MonoTime>,
    ) -> Option<Outcome> {
        let signal = self.hosts[node]
            .pg
            .cluster()
            .is_some_and(|cluster| cluster.standby_signal);
        // The deadline may have been extended while the server stopped.
        if let Some(until) = guard_until
            .filter(|_| !signal)
            .map(|until| self.extended(node, action, until))
            && (until <= self.local(node) || !self.arm(node, action, until))
        {
            return Some(Outcome::Refused(
                "the right ended while PostgreSQL stopped".to_owned(),
            ));
        }
        if !signal && guard_until.is_none() {
            return failed("the server to restart was no replica");
        }
        Some(self.start_postgres(node).unwrap_or(Outcome::Ok))
    }

    pub(crate) fn position(&self, name: &NodeName) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// Where a member's server is, if it answers this node.
    fn remote(&self, node: usize, name: &NodeName, primary: bool) -> Option<usize> {
        let there = self.position(name)?;
        let host = &self.hosts[there];
        let reached = self
            .net
            .connected(self.now, Place::Node(node), Place::Node(there))
            && there != node
            && host.powered
            && host.still <= self.now;
        let fit = host.pg.answers() && !host.making && (!primary || host.pg.primary());
        (reached && fit).then_some(there)
    }
}
