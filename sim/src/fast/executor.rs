//! What the agent's executors do with the core's orders, step by step, each of which something can come between.
//!
//! The conventions of the real ones: `valid_until` and the generation are checked when an order is executed; the guard is armed before
//! a server can accept writes; commands to the guard keep their order; a stop takes the place of what is being done to PostgreSQL.

use std::collections::BTreeSet;

use surus_core::action::StopMode;
use surus_core::input::Outcome;
use surus_core::types::{ActionId, MonoTime, NodeName, SystemId, Term, Timeline};
use surus_core::view::ControlState;
use surus_core::{Action, Lane, Order};

use crate::clock::{MS, SEC, Time};
use crate::fast::world::{Event, World};
use crate::model::etcd::Request;
use crate::model::guard::Guard;
use crate::model::postgres::{Cluster, Data, RECORD, Server0, Wal};
use crate::net::Place;
use crate::record::{Deed, Rebuild, Seen};
use crate::zoo::Bug;

/// A request to etcd on its way.
#[derive(Debug, Clone)]
pub struct Rpc {
    /// Whose.
    pub node: usize,
    /// Which agent's.
    pub epoch: u64,
    /// The order.
    pub id: ActionId,
    /// The order.
    pub order: Order,
    /// The round trip under way.
    pub request: Request,
    /// When the first round trip was sent.
    pub sent: MonoTime,
    /// The term of the first round trip's answer.
    pub term: Term,
}

/// A failsafe round under way.
#[derive(Debug, Clone)]
pub struct Round {
    /// The order.
    pub id: ActionId,
    /// Its questions.
    pub question: u64,
    /// When they were sent.
    pub sent: MonoTime,
    /// Whom.
    pub asked: BTreeSet<usize>,
    /// Who granted.
    pub granted: BTreeSet<NodeName>,
    /// Who did not.
    pub refused: BTreeSet<NodeName>,
}

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
            about: about(&action.order).and_then(|name| self.position(name)),
        };
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
            Order::AskFailsafe(whom) => {
                let whom = whom.clone();
                self.ask(node, &whom, Some(action.id));
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
                _ => {
                    let delay = match lane {
                        Lane::Guard => MS / 5,
                        Lane::Probe if self.hosts[node].pg.hung => SEC,
                        Lane::Upkeep => self.rng.range(5 * MS, 200 * MS),
                        _ => self.rng.range(MS / 2, 4 * MS),
                    };
                    self.after(delay, Event::Stage(node, epoch, Box::new(action), 0));
                }
            },
        }
    }

    fn exit(&mut self, node: usize, detach: bool, failure: bool) {
        self.hosts[node].deferred.clear();
        self.hosts[node].frozen = 0;
        let host = &mut self.hosts[node];
        if !detach && !host.pg.alive() {
            host.guard = None;
        }
        let again = host.again.take().or(failure.then_some(5 * SEC));
        if let Some(delay) = again {
            self.after(delay, Event::Boot(node));
        }
    }

    fn next_stage(&mut self, node: usize, action: Action, stage: u8, delay: Time) {
        if let Some(agent) = &self.hosts[node].agent {
            let epoch = agent.epoch;
            self.after(delay, Event::Stage(node, epoch, Box::new(action), stage));
        }
    }

    fn slowly(&mut self, node: usize) -> Time {
        std::mem::take(&mut self.hosts[node].sluggish)
    }

    /// A stage of an order that the agent carries out.
    pub(crate) fn stage(&mut self, node: usize, action: Action, stage: u8) {
        let local = self.local(node);
        let id = action.id;
        match &action.order {
            Order::Probe => {
                let host = &self.hosts[node];
                let mut view = host.pg.look(&self.names, self.streaming_to(node));
                if host.denied == Some(host.pg.epoch) {
                    view.process = surus_core::view::Process::Absent;
                }
                let at = local.minus(std::time::Duration::from_nanos(MS / 2));
                self.complete(node, id, Outcome::Probed { at, view });
                return;
            }
            Order::SetDeadline(deadline) => {
                let alive = self.hosts[node].pg.alive();
                let accepted = match &mut self.hosts[node].guard {
                    // It is killing; whoever comes now comes too late.
                    Some(guard) if alive && guard.deadline.is_some_and(|deadline| deadline <= local) => false,
                    Some(guard) => guard.set(action.generation, *deadline),
                    None => true,
                };
                if accepted {
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
            Order::Checkpoint | Order::SyncSlots { .. } => {
                let outcome = self.upkeep(node, &action.order);
                self.complete(node, id, outcome);
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

    /// An order to PostgreSQL ended.
    fn finish(&mut self, node: usize, id: ActionId, outcome: Outcome) {
        if let Some(agent) = &mut self.hosts[node].agent {
            agent.postgres = None;
        }
        self.complete(node, id, outcome);
    }

    fn upkeep(&mut self, node: usize, order: &Order) -> Outcome {
        let pg = &mut self.hosts[node].pg;
        if !pg.answers() {
            return Outcome::Failed("PostgreSQL does not answer".to_owned());
        }
        match order {
            Order::SyncSlots { ensure, drop } => {
                pg.slots.extend(ensure.keys().cloned());
                pg.slots.retain(|slot| !drop.contains(slot));
            }
            _ => {
                pg.checkpoint();
                self.tell_checkpoint(node);
            }
        }
        Outcome::Ok
    }

    /// The guard holds this deadline before anything can write.
    fn arm(&mut self, node: usize, action: &Action, mut until: MonoTime) -> bool {
        if self.bug == Some(Bug::PromoteUnguarded) && matches!(action.order, Order::Promote { .. }) {
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

    fn arm_timer(&mut self, node: usize) {
        let deadline = self.hosts[node].guard.as_ref().and_then(|guard| guard.deadline);
        let primary = matches!(
            self.hosts[node].pg.server,
            Server0::Primary | Server0::Starting { as_primary: true }
        );
        let host = &mut self.hosts[node];
        host.unfenced = deadline.is_none() && (host.unfenced || host.pause && primary);
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

    fn postgres_stage(&mut self, node: usize, action: &Action, stage: u8) -> Option<Outcome> {
        let failed = |text: &str| Some(Outcome::Failed(text.to_owned()));
        let local = self.local(node);
        let server = self.hosts[node].pg.server;
        match (&action.order, stage) {
            (Order::Bootstrap { .. }, 0) => {
                if self.hosts[node].pg.alive() || self.hosts[node].pg.cluster().is_some() {
                    return failed("the data directory is not empty");
                }
                self.hosts[node].pg.data = Data::Incomplete;
                let delay = self.rng.range(300 * MS, 1500 * MS) + self.slowly(node);
                self.next_stage(node, action.clone(), 1, delay);
                None
            }
            (Order::Bootstrap { guard_until, .. }, _) => {
                if *guard_until <= local {
                    return failed("initdb took longer than the right lasted");
                }
                self.counter += 1;
                let system_id = SystemId(self.counter);
                self.arm(node, action, *guard_until);
                let pg = &mut self.hosts[node].pg;
                pg.data = Data::Present(Cluster {
                    system_id,
                    wal: Wal {
                        segments: vec![(1, 0)],
                        end: 10 * RECORD,
                    },
                    replayed: 10 * RECORD,
                    state: ControlState::ShutDown,
                    checkpoint_timeline: 1,
                    checkpoint: 9 * RECORD,
                });
                pg.start(true, None);
                pg.ready();
                self.record.checker.bootstrapped(&self.etcd, node, system_id);
                self.see(node, Seen::Bootstrapped { system_id });
                if let Some(standing) = self.standing(node) {
                    self.see(
                        node,
                        Seen::Up {
                            primary: true,
                            standing,
                        },
                    );
                }
                Some(Outcome::Bootstrapped { system_id })
            }
            (Order::BaseBackup { from }, 0) => {
                if self.hosts[node].pg.alive() {
                    return failed("PostgreSQL runs");
                }
                let source = self.position(&from.name);
                let leader = self.etcd.view.leader.as_ref().map(|key| &key.name);
                self.record
                    .checker
                    .discard(&self.plan, &self.hosts, leader, (node, source), "cloned over");
                self.tell_discard(node, source, Rebuild::Clone);
                self.hosts[node].pg.data = Data::Incomplete;
                self.see(node, Seen::DataBroken);
                self.hosts[node].pg.slots.clear();
                let delay = self.rng.range(200 * MS, 2 * SEC) + self.slowly(node);
                self.next_stage(node, action.clone(), 1, delay);
                None
            }
            (Order::BaseBackup { from }, _) => {
                let Some(mut copy) = self.remote(node, &from.name, false) else {
                    return failed("the source does not answer");
                };
                copy.state = ControlState::InArchiveRecovery;
                self.hosts[node].pg.data = Data::Present(copy);
                self.tell_rebuilt(node, &from.name, Rebuild::Clone);
                Some(Outcome::Ok)
            }
            (Order::StartReplica { upstream }, _) => {
                if server != Server0::Absent || self.hosts[node].pg.cluster().is_none() {
                    return failed("PostgreSQL runs already, or there is no data");
                }
                let upstream = upstream
                    .as_ref()
                    .and_then(|upstream| self.position(&upstream.name));
                self.begin_guard(node);
                let guard = self.hosts[node].guard.get_or_insert_with(Guard::default);
                guard.set(action.generation, None);
                self.arm_timer(node);
                self.hosts[node].pg.start(false, upstream);
                self.see(node, Seen::Following { upstream });
                self.come_up(node, 300);
                Some(Outcome::Ok)
            }
            (Order::StartPrimary { guard_until, .. }, _) => {
                if server != Server0::Absent || self.hosts[node].pg.cluster().is_none() {
                    return failed("PostgreSQL runs already, or there is no data");
                }
                if !self.arm(node, action, *guard_until) {
                    return Some(Outcome::Refused(
                        "the guard has heard of a younger reign".to_owned(),
                    ));
                }
                self.hosts[node].pg.start(true, None);
                self.come_up(node, 900);
                Some(Outcome::Ok)
            }
            (Order::Stop { .. } | Order::Restart { .. }, _) => self.stop_stage(node, action, stage),
            (
                Order::Promote {
                    guard_until, above, ..
                },
                0,
            ) => {
                if server != Server0::Replica || self.hosts[node].pg.hung {
                    return failed("PostgreSQL is no running replica");
                }
                if !self.arm(node, action, *guard_until) {
                    return Some(Outcome::Refused(
                        "the guard has heard of a younger reign".to_owned(),
                    ));
                }
                let delay = self.rng.range(20 * MS, 120 * MS) + self.slowly(node);
                let epoch = self.hosts[node].pg.epoch;
                self.after(delay, Event::PgPromoted(node, epoch, above.0));
                self.next_stage(node, action.clone(), 1, 10 * MS);
                None
            }
            (Order::Promote { .. }, _) => match server {
                Server0::Primary => Some(Outcome::Ok),
                Server0::Replica if stage < 200 => {
                    self.next_stage(node, action.clone(), stage + 1, 10 * MS);
                    None
                }
                Server0::Replica if self.bug == Some(Bug::UnknownIsFailure) => failed("promotion takes long"),
                Server0::Replica => Some(Outcome::Unknown("promotion takes long".to_owned())),
                Server0::Absent | Server0::Starting { .. } => failed("PostgreSQL ended"),
            },
            (Order::Follow { upstream }, _) => {
                if server != Server0::Replica || self.hosts[node].pg.hung {
                    return failed("PostgreSQL is no running replica");
                }
                let upstream = upstream
                    .as_ref()
                    .and_then(|upstream| self.position(&upstream.name));
                self.hosts[node].pg.upstream = upstream;
                self.see(node, Seen::Following { upstream });
                if std::mem::take(&mut self.hosts[node].pg.streaming) {
                    self.see(node, Seen::StreamLost);
                }
                Some(Outcome::Ok)
            }
            (Order::CompareHistory { leader }, _) => match self.remote(node, &leader.name, false) {
                Some(cluster) => Some(Outcome::Ancestry {
                    timeline: Timeline(cluster.wal.timeline()),
                    history: cluster.wal.history(),
                }),
                None => failed("the leader does not answer"),
            },
            (Order::Rewind { leader }, 0) => {
                if self.hosts[node].pg.alive() {
                    return failed("PostgreSQL runs");
                }
                let source = self.position(&leader.name);
                if self.remote(node, &leader.name, true).is_none() {
                    return failed("the leader does not answer as a primary");
                }
                let leader = self.etcd.view.leader.as_ref().map(|key| &key.name);
                self.record
                    .checker
                    .discard(&self.plan, &self.hosts, leader, (node, source), "rewound");
                self.tell_discard(node, source, Rebuild::Rewind);
                let delay = self.rng.range(100 * MS, 800 * MS) + self.slowly(node);
                self.next_stage(node, action.clone(), 1, delay);
                None
            }
            (Order::Rewind { leader }, _) => self.rewound(node, &leader.name),
            _ => Some(Outcome::Ok),
        }
    }

    fn rewound(&mut self, node: usize, leader: &NodeName) -> Option<Outcome> {
        let Some(source) = self.remote(node, leader, true) else {
            if self.rng.one_in(3) {
                self.hosts[node].pg.data = Data::Incomplete;
                self.see(node, Seen::DataBroken);
            }
            return Some(Outcome::Failed("the leader went away".to_owned()));
        };
        let cluster = self.hosts[node].pg.cluster_mut()?;
        // pg_rewind believes the control files: on the same timeline there is nothing to do.
        if source.checkpoint_timeline != cluster.wal.timeline() && !source.wal.contains(&cluster.wal) {
            *cluster = source;
        }
        cluster.state = ControlState::InArchiveRecovery;
        self.tell_rebuilt(node, leader, Rebuild::Rewind);
        Some(Outcome::Ok)
    }

    fn tell_rebuilt(&mut self, node: usize, source: &NodeName, how: Rebuild) {
        if let (Some(source), Some(standing)) = (self.position(source), self.standing(node)) {
            self.see(
                node,
                Seen::Rebuilt {
                    how,
                    source,
                    standing,
                },
            );
        }
    }

    fn begin_guard(&mut self, node: usize) {
        if self.hosts[node].guard.is_none() {
            self.see(node, Seen::GuardBegan);
        }
    }

    fn stop_stage(&mut self, node: usize, action: &Action, stage: u8) -> Option<Outcome> {
        let (mode, checkpoint_first, again) = match &action.order {
            Order::Stop {
                mode,
                checkpoint_first,
            } => (*mode, *checkpoint_first, None),
            Order::Restart { guard_until } => {
                let until = MonoTime::NEVER;
                (StopMode::Fast { until }, true, Some(*guard_until))
            }
            _ => return None,
        };
        let local = self.local(node);
        let pg = &self.hosts[node].pg;
        let epoch = pg.epoch;
        if !pg.alive() {
            if let Some(guard_until) = again {
                return self.start_again(node, action, guard_until);
            }
            let clean = pg.cluster().filter(|cluster| {
                matches!(
                    cluster.state,
                    ControlState::ShutDown | ControlState::ShutDownInRecovery
                )
            });
            let checkpoint = clean.map(|cluster| surus_core::types::Lsn(cluster.checkpoint));
            return Some(Outcome::Stopped { checkpoint });
        }
        let turned = match mode {
            StopMode::Fast { until } => until <= local,
            StopMode::Immediate => true,
        };
        if self.bug == Some(Bug::ReleaseBeforeStop) && again.is_none() && checkpoint_first {
            let checkpoint = pg
                .cluster()
                .map(|cluster| surus_core::types::Lsn(cluster.wal.end));
            let delay = self.rng.range(20 * MS, 400 * MS);
            self.after(delay, Event::PgStopped(node, epoch, true));
            self.hosts[node].denied = Some(epoch);
            return Some(Outcome::Stopped { checkpoint });
        }
        match stage {
            0 if checkpoint_first && !turned => {
                let delay = self.rng.range(5 * MS, 150 * MS);
                self.next_stage(node, action.clone(), 1, delay);
            }
            0 | 1 if !turned => {
                self.hosts[node].pg.closing = true;
                self.see(node, Seen::Closing);
                let delay = self.rng.range(5 * MS, 60 * MS) + self.slowly(node);
                self.after(delay, Event::PgStopped(node, epoch, true));
                self.next_stage(node, action.clone(), 2, 10 * MS);
            }
            0..=2 if turned => {
                // SIGQUIT; after a while SIGKILL, which a hung server cannot ignore.
                let delay = if self.hosts[node].pg.hung {
                    SEC
                } else {
                    self.rng.range(2 * MS, 30 * MS)
                };
                self.after(delay, Event::PgStopped(node, epoch, false));
                self.next_stage(node, action.clone(), 3, 10 * MS);
            }
            _ => self.next_stage(node, action.clone(), stage, 10 * MS),
        }
        None
    }

    fn start_again(
        &mut self,
        node: usize,
        action: &Action,
        guard_until: Option<MonoTime>,
    ) -> Option<Outcome> {
        let upstream = self.hosts[node].pg.upstream;
        let was_primary = guard_until.is_some();
        if let Some(until) = guard_until
            && (until <= self.local(node) || !self.arm(node, action, until))
        {
            return Some(Outcome::Refused(
                "the right ended while PostgreSQL stopped".to_owned(),
            ));
        }
        self.hosts[node].pg.start(was_primary, upstream);
        self.come_up(node, 200);
        Some(Outcome::Ok)
    }

    fn come_up(&mut self, node: usize, most: Time) {
        let delay = self.rng.range(40 * MS, most * MS) + self.slowly(node);
        let epoch = self.hosts[node].pg.epoch;
        let as_primary = matches!(self.hosts[node].pg.server, Server0::Starting { as_primary: true });
        if let Some(standing) = self.standing(node) {
            self.see(node, Seen::Starting { as_primary, standing });
        }
        self.after(delay, Event::PgReady(node, epoch));
    }

    fn position(&self, name: &NodeName) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// A member's cluster, if its server answers this node.
    fn remote(&self, node: usize, name: &NodeName, primary: bool) -> Option<Cluster> {
        let there = self.position(name)?;
        let pg = &self.hosts[there].pg;
        let reached = self
            .net
            .connected(self.now, Place::Node(node), Place::Node(there))
            && there != node;
        let fit = pg.answers() && (!primary || pg.server == Server0::Primary);
        pg.cluster().filter(|_| reached && fit).cloned()
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

/// The member that an order concerns.
fn about(order: &Order) -> Option<&NodeName> {
    match order {
        Order::BaseBackup { from } => Some(&from.name),
        Order::Rewind { leader } | Order::CompareHistory { leader } => Some(&leader.name),
        Order::Follow { upstream } | Order::StartReplica { upstream } => {
            upstream.as_ref().map(|upstream| &upstream.name)
        }
        _ => None,
    }
}
