//! What the agent's executors do with the core's orders, step by step, each of which something can come between.
//!
//! The conventions of the real ones: `valid_until` and the generation are checked when an order is executed; the guard is armed before
//! a server can accept writes; commands to the guard keep their order; a stop takes the place of what is being done to PostgreSQL.

use surus_core::input::Outcome;
use surus_core::types::{ActionId, Lsn, MonoTime};
use surus_core::{Action, Lane, Order};
use surus_scenarios::PostgresStep;

use crate::clock::{MS, SEC, Time};
use crate::fast::event::Event;
use crate::fast::look::UNANSWERED;
use crate::fast::world::World;
use crate::model::guard::Guard;
use crate::model::postgres::Server;
use crate::record::{Deed, Seen};
use crate::zoo::Bug;

impl World {
    /// Begins an order.
    pub(crate) fn execute(&mut self, node: usize, action: Action) {
        let lane = action.order.lane();
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let epoch = agent.epoch;
        if lane == Lane::Postgres {
            agent.postgres = Some(action.id);
        }
        let began = Seen::OrderBegan {
            id: action.id.0,
            order: Deed::of(&action.order),
            about: Deed::about(&action.order).and_then(|name| self.position(name)),
        };
        self.rivalry_begins(node, &action);
        self.see(node, began);
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        agent.under_way.insert(action.id, Deed::of(&action.order));
        match &action.order {
            Order::AskPeers(whom) => {
                let whom = whom.clone();
                self.ask(node, &whom, None);
                self.complete(node, action.id, Outcome::Ok);
            }
            Order::AskFailsafe { voters, ttl } => {
                let (whom, ttl) = (voters.clone(), *ttl);
                self.ask(node, &whom, Some((action.id, ttl)));
            }
            Order::Reply { .. } => {}
            Order::Exit {
                reason,
                detach,
                failure,
            } => {
                let (detach, failure) = (*detach, *failure);
                let reason = reason.as_str().into();
                self.hosts[node].agent = None;
                self.see(node, Seen::AgentEnded { reason, detach });
                self.exit(node, detach, failure);
            }
            _ => match lane {
                Lane::Lock | Lane::Read | Lane::Publish => self.begin_rpc(node, action),
                _ if matches!(action.order, Order::WriteSync { .. }) => self.begin_rpc(node, action),
                _ => {
                    let delay = match lane {
                        Lane::Guard => MS / 5,
                        Lane::Probe if self.hosts[node].pg.hung() => UNANSWERED,
                        Lane::Probe => {
                            self.rng.range(MS / 2, 4 * MS) + self.slowed(node, PostgresStep::Probe)
                        }
                        Lane::Upkeep => {
                            self.rng.range(5 * MS, 200 * MS) + self.slowed(node, PostgresStep::Checkpoint)
                        }
                        _ => self.rng.range(MS / 2, 4 * MS),
                    };
                    self.after(delay, Event::Stage(node, epoch, Box::new(action), 0));
                }
            },
        }
    }

    fn exit(&mut self, node: usize, detach: bool, failure: bool) {
        self.forget_agent(node);
        let host = &mut self.hosts[node];
        if !detach && !host.pg.alive() {
            host.guard = None;
        }
        let again = host.again.take().or(failure.then_some(5 * SEC));
        if let Some(delay) = again {
            self.after(delay, Event::Boot(node));
        }
    }

    pub(crate) fn next_stage(&mut self, node: usize, action: Action, stage: u8, delay: Time) {
        if let Some(agent) = &self.hosts[node].agent {
            let epoch = agent.epoch;
            self.after(delay, Event::Stage(node, epoch, Box::new(action), stage));
        }
    }

    /// A stage of an order that the agent carries out.
    pub(crate) fn stage(&mut self, node: usize, action: Action, stage: u8) {
        let local = self.local(node);
        let id = action.id;
        let frozen = self.hosts[node].guard_frozen;
        let asks_guard = matches!(action.order.lane(), Lane::Guard | Lane::Postgres);
        if asks_guard && self.now < frozen && self.hosts[node].guard.is_some() {
            // The guard's socket takes the request; the answer comes when the guard goes on.
            self.next_stage(node, action, stage, frozen - self.now + 1);
            return;
        }
        match &action.order {
            Order::Probe => {
                if self.fails(node, PostgresStep::Probe) {
                    self.complete(
                        node,
                        id,
                        Outcome::Failed("PostgreSQL could not be looked at".to_owned()),
                    );
                    return;
                }
                let mut memory = std::mem::take(&mut self.hosts[node].memory);
                let mut view = self.look(node, &mut memory);
                if self.bug == Some(Bug::LookOfBefore) {
                    let before = self.hosts[node].looked.replace(view.clone());
                    view = before.unwrap_or(view);
                }
                let host = &mut self.hosts[node];
                host.memory = memory;
                if host.denied == Some(host.pg.epoch()) {
                    view.process = surus_core::view::Process::Absent;
                }
                let at = self.look_began(node);
                self.complete(node, id, Outcome::Probed { at, view });
                return;
            }
            Order::SetDeadline(deadline) => {
                if self.deadline_waits(node, &action, stage) {
                    return;
                }
                let alive = self.hosts[node].pg.alive();
                let accepted = match &mut self.hosts[node].guard {
                    // It is killing; whoever comes now comes too late.
                    Some(guard) if alive && guard.deadline.is_some_and(|deadline| deadline <= local) => false,
                    Some(guard) => guard.set(action.generation, *deadline),
                    None => true,
                };
                if accepted {
                    self.hosts[node].memory.deadline = deadline.map(|deadline| (deadline, action.generation));
                    self.arm_timer(node);
                }
                let outcome = if accepted {
                    Outcome::Ok
                } else {
                    Outcome::Refused("the guard has heard of a younger reign".to_owned())
                };
                self.complete(node, id, outcome);
                return;
            }
            Order::SetSynchronous { names } => {
                if let Some(outcome) = self.synchronous_stage(node, &action, names.as_ref(), stage) {
                    self.complete(node, id, outcome);
                }
                return;
            }
            Order::OpenGate => {
                let outcome = self.open_gate(node);
                self.complete(node, id, outcome);
                return;
            }
            Order::Checkpoint | Order::SyncSlots { .. } => {
                let outcome = self.upkeep(node, &action, stage);
                self.follow_pg(node);
                if let Some(outcome) = outcome {
                    self.complete(node, id, outcome);
                }
                return;
            }
            _ => {}
        }
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        if agent.postgres != Some(id) {
            return;
        }
        if action.generation < agent.newest {
            self.finish(node, id, Outcome::Refused("an older reign".to_owned()));
            return;
        }
        agent.newest = action.generation;
        let unchecked = self.bug == Some(Bug::NoCheckAtExecution);
        let over = valid_until(&action.order).is_some_and(|until| until <= local);
        if stage == 0 && over && !unchecked {
            self.finish(node, id, Outcome::Refused("the right is over".to_owned()));
            return;
        }
        if let Some(outcome) = self.postgres_stage(node, &action, stage) {
            self.finish(node, id, outcome);
        }
    }

    /// A planted bug keeps the deadline from the guard, for now.
    fn deadline_waits(&mut self, node: usize, action: &Action, stage: u8) -> bool {
        match self.bug {
            Some(Bug::PromoteUnguarded) => {
                let agent = self.hosts[node].agent.as_ref();
                let promoting =
                    agent.is_some_and(|agent| agent.under_way.values().any(|deed| *deed == Deed::Promote));
                if promoting {
                    self.next_stage(node, action.clone(), stage, MS);
                }
                promoting
            }
            Some(Bug::DeadlineSaidTooSoon) if stage == 0 => {
                self.complete(node, action.id, Outcome::Ok);
                let late = self.rng.range(5 * MS, 400 * MS);
                self.next_stage(node, action.clone(), 1, late);
                true
            }
            _ => false,
        }
    }

    /// An order to PostgreSQL ended.
    fn finish(&mut self, node: usize, id: ActionId, outcome: Outcome) {
        if let Some(agent) = &mut self.hosts[node].agent {
            agent.postgres = None;
        }
        if matches!(outcome, Outcome::Stopped { .. }) {
            self.rivalry_stopped(node);
        }
        self.complete(node, id, outcome);
    }

    fn upkeep(&mut self, node: usize, action: &Action, stage: u8) -> Option<Outcome> {
        let pg = &mut self.hosts[node].pg;
        if !pg.answers() {
            return Some(Outcome::Failed("PostgreSQL does not answer".to_owned()));
        }
        match &action.order {
            Order::SyncSlots { ensure, drop } => {
                for name in drop {
                    // One that is in use stays.
                    let _ = pg.drop_slot(name);
                }
                for (name, position) in ensure {
                    keep_slot(pg, name, *position);
                }
            }
            _ => {
                if stage == 0 && pg.checkpoint(self.now).is_err() {
                    return Some(Outcome::Failed("PostgreSQL does not answer".to_owned()));
                }
                if self.hosts[node].pg.checkpointing() {
                    self.next_stage(node, action.clone(), 1, 5 * MS);
                    return None;
                }
            }
        }
        Some(Outcome::Ok)
    }

    /// The guard holds this deadline before anything can write.
    pub(crate) fn arm(&mut self, node: usize, action: &Action, mut until: MonoTime) -> bool {
        let unguarded = match action.order {
            Order::Promote { .. } => self.bug == Some(Bug::PromoteUnguarded),
            Order::StartPrimary { .. } => self.bug == Some(Bug::StartUnguarded),
            _ => false,
        };
        if unguarded {
            self.begin_guard(node);
            self.hosts[node].guard.get_or_insert_with(Guard::default);
            return true;
        }
        if self.bug == Some(Bug::NoCheckAtExecution) {
            until = until.max(self.local(node).plus(std::time::Duration::from_secs(2)));
        }
        self.begin_guard(node);
        let guard = self.hosts[node].guard.get_or_insert_with(Guard::default);
        let accepted = guard.set(action.generation, Some(until));
        self.arm_timer(node);
        accepted
    }

    /// The guard's deadline of an order, which renewals may have moved since the order was given.
    pub(crate) fn extended(&self, node: usize, action: &Action, until: MonoTime) -> MonoTime {
        let host = &self.hosts[node];
        let told = host.memory.deadline;
        let told = told.filter(|(_, generation)| *generation == action.generation);
        let armed = host.guard.as_ref().and_then(|guard| guard.deadline);
        armed
            .or(told.map(|(deadline, _)| deadline))
            .map_or(until, |armed| until.max(armed))
    }

    pub(crate) fn arm_timer(&mut self, node: usize) {
        let deadline = self.hosts[node].guard.as_ref().and_then(|guard| guard.deadline);
        let due = deadline.map(|deadline| self.hosts[node].clock.world(deadline));
        if due != self.hosts[node].armed {
            self.hosts[node].armed = due;
            self.see(node, due.map_or(Seen::Lifted, |until| Seen::Armed { until }));
        }
        self.counter += 1;
        let version = self.counter;
        let Some(guard) = &mut self.hosts[node].guard else {
            return;
        };
        guard.version = version;
        let Some(deadline) = guard.deadline else { return };
        let wait = self.hosts[node].clock.world(deadline).saturating_sub(self.now);
        let kill = self.rng.below(64 * MS);
        self.after(wait + kill, Event::GuardDue(node, version));
    }
}

/// Makes a member's slot exist and moves it on, as the adapter does.
fn keep_slot(pg: &mut Server, name: &str, position: Option<Lsn>) {
    let known = pg.slots().and_then(|slots| slots.get(name));
    let idle = known.is_some_and(|slot| slot.active.is_none());
    let unusable = known.is_some_and(|slot| slot.lost || slot.restart.is_none() || slot.xmin.is_some());
    if idle && unusable {
        let _ = pg.drop_slot(name);
    }
    if pg.slots().is_some_and(|slots| !slots.contains_key(name)) {
        let _ = pg.create_slot(name, false, true);
    } else if idle && let Some(position) = position {
        let _ = pg.advance_slot(name, position.0);
    }
}

fn valid_until(order: &Order) -> Option<MonoTime> {
    match order {
        Order::Bootstrap { valid_until, .. }
        | Order::StartPrimary { valid_until, .. }
        | Order::Promote { valid_until, .. } => Some(*valid_until),
        _ => None,
    }
}
