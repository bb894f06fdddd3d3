//! The orders that change PostgreSQL, stage by stage.

use surus_core::action::StopMode;
use surus_core::input::Outcome;
use surus_core::types::{MonoTime, NodeName, SystemId, Timeline};
use surus_core::view::ControlState;
use surus_core::{Action, Order};
use surus_scenarios::PostgresStep;

use crate::clock::{MS, SEC, Time};
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::model::guard::Guard;
use crate::model::postgres::simple::{Cluster, Data, RECORD, Server0, Wal};
use crate::net::Place;
use crate::record::{Rebuild, Seen};
use crate::zoo::Bug;

impl World {
    pub(crate) fn postgres_stage(&mut self, node: usize, action: &Action, stage: u8) -> Option<Outcome> {
        let failed = |text: &str| Some(Outcome::Failed(text.to_owned()));
        let local = self.local(node);
        let server = self.hosts[node].pg.server;
        match (&action.order, stage) {
            (Order::Bootstrap { .. }, 0) => {
                if self.hosts[node].pg.alive() || self.hosts[node].pg.cluster().is_some() {
                    return failed("the data directory is not empty");
                }
                self.hosts[node].pg.data = Data::Incomplete;
                let delay = self.rng.range(300 * MS, 1500 * MS) + self.slowed(node, PostgresStep::Start);
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
                self.unpark(node);
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
                    .discard(&self.hosts, leader, (node, source), "cloned over");
                self.tell_discard(node, source, Rebuild::Clone);
                self.hosts[node].pg.data = Data::Incomplete;
                self.see(node, Seen::DataBroken);
                self.hosts[node].pg.slots.clear();
                let delay = self.rng.range(200 * MS, 2 * SEC) + self.slowed(node, PostgresStep::BaseBackup);
                self.next_stage(node, action.clone(), 1, delay);
                None
            }
            (Order::BaseBackup { .. }, _) if self.fails(node, PostgresStep::BaseBackup) => {
                failed("pg_basebackup: could not receive data from WAL stream")
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
            (Order::StartReplica { .. } | Order::StartPrimary { .. }, _)
                if self.fails(node, PostgresStep::Start) =>
            {
                failed("the postmaster ended at once")
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
            (Order::Promote { .. }, 0) if self.fails(node, PostgresStep::Promote) => {
                failed("pg_promote() did not take effect")
            }
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
                let delay = self.rng.range(20 * MS, 120 * MS) + self.slowed(node, PostgresStep::Promote);
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
                    .discard(&self.hosts, leader, (node, source), "rewound");
                self.tell_discard(node, source, Rebuild::Rewind);
                let delay = self.rng.range(100 * MS, 800 * MS) + self.slowed(node, PostgresStep::Rewind);
                self.next_stage(node, action.clone(), 1, delay);
                None
            }
            (Order::Rewind { .. }, _) if self.fails(node, PostgresStep::Rewind) => {
                self.hosts[node].pg.data = Data::Incomplete;
                self.see(node, Seen::DataBroken);
                failed("pg_rewind: fatal: could not fetch file list")
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

    pub(crate) fn begin_guard(&mut self, node: usize) {
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
                self.cut_sessions(node);
                let delay = self.rng.range(5 * MS, 60 * MS) + self.slowed(node, PostgresStep::Stop);
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
        let delay = self.rng.range(40 * MS, most * MS) + self.slowed(node, PostgresStep::Start);
        let epoch = self.hosts[node].pg.epoch;
        let as_primary = matches!(self.hosts[node].pg.server, Server0::Starting { as_primary: true });
        if let Some(standing) = self.standing(node) {
            self.see(node, Seen::Starting { as_primary, standing });
        }
        self.after(delay, Event::PgReady(node, epoch));
    }

    pub(crate) fn position(&self, name: &NodeName) -> Option<usize> {
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
