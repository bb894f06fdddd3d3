//! The fast world: cores and models in one queue of events; time jumps from one to the next.
//!
//! An event of an agent that is frozen waits until it thaws; one of an agent that died is dropped, but what had left the agent (a
//! request on its way, a promotion asked for) goes on without it.

use std::collections::BTreeMap;

use surus_core::input::Input;
use surus_core::types::{MonoTime, NodeName};

use crate::clock::{Clock, MS, SEC, Time};
use crate::fast::event::Event;
use crate::fast::host::Host;
use crate::model::etcd::single::Etcd;
use crate::model::postgres::{Postgres, Server0};
use crate::nemesis::{self, Plan};
use crate::net::Net;
use crate::record::{Keep, Recorder, Seen};
use crate::rng::Rng;
use crate::zoo::Bug;

/// The world.
#[derive(Debug)]
pub struct World {
    /// World time.
    pub now: Time,
    /// How it was made.
    pub plan: Plan,
    /// The members.
    pub hosts: Vec<Host>,
    /// Their names.
    pub names: Vec<NodeName>,
    /// etcd.
    pub etcd: Etcd,
    /// etcd has no quorum until then.
    pub etcd_down: Time,
    /// etcd is slow until then, by up to this.
    pub etcd_slow: (Time, Time),
    /// The network.
    pub net: Net,
    /// What happened, and who is told.
    pub record: Recorder,
    /// Chance.
    pub rng: Rng,
    /// Numbers questions and clusters.
    pub counter: u64,
    /// Events handled.
    pub events: u64,
    /// The planted bug.
    pub bug: Option<Bug>,
    queue: BTreeMap<(Time, u64), (Option<u64>, Event)>,
    sequence: u64,
}

impl World {
    /// The world of a seed, before its first event.
    #[must_use]
    pub fn new(seed: u64, plan: Plan, keep: Keep) -> Self {
        let mut rng = Rng::new(seed, 2);
        let names = nemesis::names(plan.nodes);
        let hosts = names
            .iter()
            .map(|name| Host {
                name: name.clone(),
                clock: Clock {
                    offset: rng.range(1, 1000) * SEC,
                    drift: i64::try_from(rng.below(1600)).unwrap_or(0) - 800,
                },
                agent: None,
                epoch: 0,
                frozen: 0,
                powered: true,
                pg: Postgres::default(),
                guard: None,
                armed: None,
                sluggish: 0,
                trap: None,
                right: 0,
                denied: None,
                deaf: 0,
                missed: false,
                ttl: plan.ttl,
                pause: false,
                pause_changed: 0,
                unfenced: false,
                again: None,
                deferred: Vec::new(),
            })
            .collect();
        let mut etcd = Etcd::default();
        etcd.view.term.0 = 1;
        let mut world = Self {
            now: 0,
            hosts,
            etcd,
            etcd_down: 0,
            etcd_slow: (0, 0),
            net: Net::default(),
            record: Recorder::new(names.clone(), keep),
            rng,
            counter: 0,
            events: 0,
            bug: None,
            queue: BTreeMap::new(),
            sequence: 0,
            plan,
            names,
        };
        for node in 0..world.hosts.len() {
            let at = world.rng.range(0, 800 * MS);
            world.after(at, Event::Boot(node));
        }
        for index in 0..world.plan.faults.len() {
            let at = world.plan.faults[index].at;
            world.after(at, Event::Fault(index));
        }
        world.after(100 * MS, Event::EtcdExpiry);
        world.after(20 * MS, Event::Clients);
        world.after(300 * MS, Event::Reconnect);
        world
    }

    /// Puts an event into the queue.
    pub fn after(&mut self, delay: Time, event: Event) {
        self.sequence += 1;
        self.queue.insert(
            (self.now.saturating_add(delay), self.sequence),
            (self.record.cause(), event),
        );
    }

    /// Something happened.
    pub fn see(&mut self, node: impl Into<Option<usize>>, seen: Seen) {
        self.record.see(self.now, node.into(), seen);
    }

    /// What the node's clock shows.
    #[must_use]
    pub fn local(&self, node: usize) -> MonoTime {
        self.hosts[node].clock.local(self.now)
    }

    /// Handles events until `end`, or until something happened that must not.
    pub fn run_until(&mut self, end: Time) {
        while self.record.checker.violation.is_none()
            && let Some(((time, _), _)) = self.queue.first_key_value()
            && *time <= end
            && let Some(((time, _), (cause, event))) = self.queue.pop_first()
        {
            self.record.resume(cause);
            self.now = time;
            self.events += 1;
            self.handle(event);
        }
        if self.record.checker.violation.is_none() {
            self.now = end;
        }
    }

    /// The agent that an event is for, unless that one is gone; a frozen one gets the event later.
    fn agent_side(&mut self, node: usize, epoch: u64, event: &Event) -> bool {
        let now = self.now;
        let host = &mut self.hosts[node];
        if host.agent.as_ref().is_none_or(|agent| agent.epoch != epoch) {
            return false;
        }
        if now < host.frozen {
            host.deferred.push(event.clone());
            return false;
        }
        true
    }

    fn handle(&mut self, event: Event) {
        match &event {
            Event::Boot(node) => self.boot(*node),
            Event::Wake(node, epoch, wake) => {
                if self.agent_side(*node, *epoch, &event)
                    && self.hosts[*node]
                        .agent
                        .as_ref()
                        .is_some_and(|agent| agent.wakes == *wake)
                {
                    self.step(*node, Input::Tick);
                }
            }
            Event::Input(node, epoch, input) => {
                if self.agent_side(*node, *epoch, &event) {
                    self.step(*node, (**input).clone());
                }
            }
            Event::Thaw(node) => {
                if self.hosts[*node].frozen <= self.now {
                    let deferred = std::mem::take(&mut self.hosts[*node].deferred);
                    if std::mem::take(&mut self.hosts[*node].frozen) != 0 {
                        self.see(*node, Seen::AgentFrozen { frozen: false });
                    }
                    for event in deferred {
                        self.handle(event);
                    }
                }
            }
            Event::PowerOn(node) => {
                self.hosts[*node].powered = true;
                self.see(*node, Seen::Power { on: true });
                self.boot(*node);
            }
            Event::EtcdRequest(rpc) => self.etcd_request(rpc.as_ref().clone()),
            Event::EtcdAnswer(rpc, response) => {
                if self.agent_side(rpc.node, rpc.epoch, &event) {
                    self.etcd_answer(rpc.as_ref().clone(), response.as_ref().clone());
                }
            }
            Event::EtcdTimeout(node, epoch, id) => {
                if self.agent_side(*node, *epoch, &event) {
                    self.etcd_timeout(*node, *id);
                }
            }
            Event::EtcdExpiry => self.etcd_expiry(),
            Event::Stage(node, epoch, action, stage) => {
                if self.agent_side(*node, *epoch, &event) {
                    self.stage(*node, action.as_ref().clone(), *stage);
                }
            }
            Event::PgReady(node, server) => self.pg_ready(*node, *server),
            Event::PgPromoted(node, server, above) => self.pg_promoted(*node, *server, *above),
            Event::PgCheckpoint(node, server) => {
                let pg = &mut self.hosts[*node].pg;
                if pg.epoch == *server && pg.server == Server0::Primary {
                    pg.checkpoint();
                    self.tell_checkpoint(*node);
                }
            }
            Event::PgStopped(node, server, fast) => self.pg_stopped(*node, *server, *fast),
            Event::PgThaw(node, server) => {
                let pg = &mut self.hosts[*node].pg;
                if pg.epoch == *server && pg.hung {
                    pg.hung = false;
                    self.see(*node, Seen::Hung { hung: false });
                }
            }
            Event::Replicate(node, server) => {
                if self.hosts[*node].pg.epoch == *server {
                    self.stream(*node);
                }
            }
            Event::Replay(node, server) => {
                let pg = &mut self.hosts[*node].pg;
                if pg.epoch == *server
                    && !pg.hung
                    && pg.server == Server0::Replica
                    && let Some(cluster) = pg.cluster_mut()
                {
                    cluster.replayed = cluster.wal.end;
                }
            }
            Event::GuardDue(node, version) => self.guard_due(*node, *version),
            Event::Ask(from, epoch, to, question, failsafe) => {
                self.asked(*from, *epoch, *to, *question, *failsafe, &event);
            }
            Event::Answer(node, epoch, from, question, status) => {
                if self.agent_side(*node, *epoch, &event) {
                    self.answered(*node, *from, *question, status.as_ref().clone());
                }
            }
            Event::Grant(node, epoch, from, question, granted) => {
                if self.agent_side(*node, *epoch, &event) {
                    self.granted(*node, *from, *question, *granted);
                }
            }
            Event::AskOver(node, epoch, question) => {
                if self.agent_side(*node, *epoch, &event) {
                    self.ask_over(*node, *question);
                }
            }
            Event::Clients => self.clients(),
            Event::Reconnect => self.reconnect(),
            Event::Fault(index) => self.fault(*index),
            Event::Configure(node, ttl, pause) => {
                let host = &mut self.hosts[*node];
                host.ttl = ttl.unwrap_or(host.ttl);
                host.pause = pause.unwrap_or(host.pause);
                host.pause_changed = if pause.is_some() {
                    self.now
                } else {
                    host.pause_changed
                };
                let config = self.config(*node);
                self.see(*node, Seen::Configured(self.settings(*node)));
                self.hear(*node, Input::Config(config));
            }
        }
    }

    /// Walreceivers and watches that were cut off try again.
    fn reconnect(&mut self) {
        for node in 0..self.hosts.len() {
            if self.hosts[node].pg.server == Server0::Replica {
                self.stream(node);
            }
            if self.hosts[node].missed {
                self.watch(node);
            }
        }
        let delay = self.rng.range(200 * MS, 500 * MS);
        self.after(delay, Event::Reconnect);
    }

    /// All faults end; whoever is down comes up.
    pub fn heal(&mut self) {
        self.see(None, Seen::Healed);
        self.net.heal();
        self.etcd_down = 0;
        self.etcd_slow = (0, 0);
        self.spread_config(None, Some(false), 0);
        for node in 0..self.hosts.len() {
            let host = &mut self.hosts[node];
            host.frozen = host.frozen.min(self.now);
            host.deaf = 0;
            host.sluggish = 0;
            host.trap = None;
            if !std::mem::replace(&mut host.powered, true) {
                self.record.see(self.now, Some(node), Seen::Power { on: true });
            }
            if std::mem::take(&mut host.pg.hung) {
                self.record.see(self.now, Some(node), Seen::Hung { hung: false });
            }
            self.after(1, Event::Thaw(node));
            self.after(500 * MS, Event::Boot(node));
        }
    }
}
