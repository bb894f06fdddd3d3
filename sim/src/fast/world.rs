//! The fast world: cores and models in one queue of events; time jumps from one to the next.
//!
//! An event of an agent that is frozen waits until it thaws; one of an agent that died is dropped, but what had left the agent (a
//! request on its way, a promotion asked for) goes on without it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use surus_core::config::Config;
use surus_core::decision::Decision;
use surus_core::input::{Input, Outcome};
use surus_core::node::{Boot, Node};
use surus_core::types::{ActionId, Generation, LeaseId, MonoTime, NodeName};
use surus_core::view::ClusterView;
use surus_core::{Action, Lane, Order, Step};

use crate::clock::{Clock, MS, SEC, Time};
use crate::fast::executor::{Round, Rpc};
use crate::model::etcd::{Etcd, Response};
use crate::model::guard::Guard;
use crate::model::postgres::{Postgres, Server0};
use crate::nemesis::{self, Plan, Trap};
use crate::net::{Net, Place};
use crate::record::{Deed, Keep, OrderEnd, Recorder, Seen, Settings};
use crate::rng::Rng;

use crate::zoo::Bug;

/// Something that happens.
#[derive(Debug, Clone)]
pub enum Event {
    /// The supervisor starts the agent.
    Boot(usize),
    /// The core asked to be called.
    Wake(usize, u64, u64),
    /// The agent hears something.
    Input(usize, u64, Box<Input>),
    /// A frozen agent goes on.
    Thaw(usize),
    /// The host has power again.
    PowerOn(usize),
    /// A request reaches etcd.
    EtcdRequest(Box<Rpc>),
    /// Its answer reaches the agent.
    EtcdAnswer(Box<Rpc>, Box<Response>),
    /// The agent waits no longer.
    EtcdTimeout(usize, u64, ActionId),
    /// etcd looks for leases that expired.
    EtcdExpiry,
    /// A stage of an order that the agent carries out itself.
    Stage(usize, u64, Box<Action>, u8),
    /// A server is up.
    PgReady(usize, u64),
    /// A promotion is done.
    PgPromoted(usize, u64, u32),
    /// The checkpoint that follows a promotion by itself is done.
    PgCheckpoint(usize, u64),
    /// A stop is done: (node, server, fast).
    PgStopped(usize, u64, bool),
    /// A hung server goes on.
    PgThaw(usize, u64),
    /// WAL arrives at a replica.
    Replicate(usize, u64),
    /// A replica has replayed what it has.
    Replay(usize, u64),
    /// The guard's deadline, of this version.
    GuardDue(usize, u64),
    /// A question of one member reaches another: (from, its agent, to, question, failsafe).
    Ask(usize, u64, usize, u64, bool),
    /// Its answer: (asker, its agent, who, question, what).
    Answer(usize, u64, usize, u64, Box<Option<surus_core::view::PeerStatus>>),
    /// A failsafe answer.
    Grant(usize, u64, usize, u64, bool),
    /// The asker waits no longer.
    AskOver(usize, u64, u64),
    /// Clients write.
    Clients,
    /// Walreceivers and watches reconnect.
    Reconnect,
    /// A fault of the plan begins.
    Fault(usize),
    /// A person's ttl and pause reach a node.
    Configure(usize, Option<u64>, Option<bool>),
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// Its core.
    pub core: Node,
    /// Which agent of its node this is.
    pub epoch: u64,
    /// Requests to etcd under way.
    pub rpcs: BTreeSet<ActionId>,
    /// The lease it knows.
    pub lease: Option<LeaseId>,
    /// The youngest reign its executor has seen.
    pub newest: Generation,
    /// The order to PostgreSQL that it carries out.
    pub postgres: Option<ActionId>,
    /// Questions to peers that are not answered yet.
    pub asks: BTreeMap<(u64, usize), MonoTime>,
    /// The failsafe round under way.
    pub round: Option<Round>,
    /// Orders that have begun and not ended.
    pub under_way: BTreeMap<ActionId, Deed>,
    wakes: u64,
    said: Option<Decision>,
}

/// A member's host.
#[derive(Debug)]
pub struct Host {
    /// Its name.
    pub name: NodeName,
    /// Its clock.
    pub clock: Clock,
    /// Its agent.
    pub agent: Option<Agent>,
    /// Agents so far.
    pub epoch: u64,
    /// The agent is stopped until then.
    pub frozen: Time,
    /// It has power.
    pub powered: bool,
    /// PostgreSQL.
    pub pg: Postgres,
    /// The guard.
    pub guard: Option<Guard>,
    /// The deadline of its guard that the record knows, in world time.
    pub armed: Option<Time>,
    /// How much longer the next slow thing takes.
    pub sluggish: Time,
    /// The right to be primary ends here by all that was truly confirmed or granted, counted from when that was sent.
    pub right: Time,
    /// A server that a planted bug says is gone.
    pub denied: Option<u64>,
    /// A fault waits for the next act.
    pub trap: Option<Trap>,
    /// The watch is silent until then.
    pub deaf: Time,
    /// It missed something on its watch.
    pub missed: bool,
    /// The ttl its configuration says.
    pub ttl: u64,
    /// Its configuration says that the cluster is paused.
    pub pause: bool,
    /// When that last changed.
    pub pause_changed: Time,
    /// Its primary's deadline was lifted in a pause and has not come back: beyond what the lock covers (FOUND.md).
    pub unfenced: bool,
    /// Start the agent again after its orderly end.
    pub again: Option<Time>,
    pub(crate) deferred: Vec<Event>,
}

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
    queue: BTreeMap<(Time, u64), Event>,
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
        self.queue
            .insert((self.now.saturating_add(delay), self.sequence), event);
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
            && let Some(((time, _), event)) = self.queue.pop_first()
        {
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

    fn config(&self, node: usize) -> Config {
        Config {
            ttl: Duration::from_secs(self.hosts[node].ttl),
            pause: self.hosts[node].pause,
            failsafe_mode: self.plan.failsafe,
            use_pg_rewind: self.plan.rewind,
            reclone_on_divergence: self.plan.reclone,
            reclone_on_rewind_failure: self.plan.reclone,
            ..Config::new(self.names[node].clone())
        }
    }

    fn settings(&self, node: usize) -> Settings {
        let config = self.config(node);
        let time = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Settings {
            ttl: time(config.ttl),
            loop_wait: time(config.loop_wait),
            retry_timeout: time(config.retry_timeout),
            maximum_lag: config.maximum_lag_on_failover,
            failsafe: config.failsafe_mode,
            pause: config.pause,
        }
    }

    /// Starts the agent, unless one runs or the host has no power.
    pub fn boot(&mut self, node: usize) {
        let host = &self.hosts[node];
        if host.agent.is_some() || !host.powered {
            return;
        }
        let guard = host.guard.as_ref();
        let boot = Boot {
            guard_deadline: guard
                .filter(|_| host.pg.alive() && self.bug != Some(Bug::BootWithoutGuard))
                .and_then(|guard| guard.deadline),
            generation: guard.map(|guard| guard.generation).unwrap_or_default(),
        };
        let config = self.config(node);
        let local = self.local(node);
        self.see(node, Seen::AgentBegan);
        self.see(node, Seen::Configured(self.settings(node)));
        let (core, step) = Node::new(config, boot, local);
        let host = &mut self.hosts[node];
        host.epoch += 1;
        host.frozen = 0;
        host.missed = true;
        host.agent = Some(Agent {
            core,
            epoch: host.epoch,
            rpcs: BTreeSet::new(),
            lease: None,
            newest: boot.generation,
            postgres: None,
            asks: BTreeMap::new(),
            round: None,
            under_way: BTreeMap::new(),
            wakes: 0,
            said: None,
        });
        self.follow_step(node, step);
    }

    /// The agent is gone, and nothing was said.
    pub fn kill_agent(&mut self, node: usize) {
        if self.hosts[node].agent.take().is_some() {
            self.see(node, Seen::AgentDied);
        }
        self.hosts[node].frozen = 0;
        self.hosts[node].deferred.clear();
    }

    /// The agent will hear this in an instant.
    pub fn hear(&mut self, node: usize, input: Input) {
        if let Some(agent) = &self.hosts[node].agent {
            let epoch = agent.epoch;
            let delay = self.rng.range(MS / 10, MS);
            self.after(delay, Event::Input(node, epoch, Box::new(input)));
        }
    }

    /// An order ended.
    pub fn complete(&mut self, node: usize, id: ActionId, outcome: Outcome) {
        self.hear(node, Input::Done { id, outcome });
    }

    /// Tells the core, and does what it says.
    pub fn step(&mut self, node: usize, input: Input) {
        let local = self.local(node);
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let ended = match &input {
            Input::Done { id, outcome } => agent
                .under_way
                .remove(id)
                .map(|order| order_ended(*id, order, outcome)),
            _ => None,
        };
        let step = agent.core.step(local, input);
        if let Some(seen) = ended {
            self.see(node, seen);
        }
        self.follow_step(node, step);
    }

    pub(crate) fn follow_step(&mut self, node: usize, step: Step) {
        let local = self.local(node);
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let news = agent
            .said
            .as_ref()
            .is_none_or(|said| !said.same_as(&step.decision));
        agent.wakes += 1;
        let (epoch, wakes) = (agent.epoch, agent.wakes);
        if news {
            agent.said = Some(step.decision.clone());
            self.see(node, Seen::Decided(Box::new(step.decision)));
        }
        if step.wake.at <= local {
            let text = "asked to be woken in the past".into();
            self.see(node, Seen::Broken { text });
        }
        let delay = self.hosts[node]
            .clock
            .world(step.wake.at)
            .saturating_sub(self.now)
            .max(1);
        self.after(delay, Event::Wake(node, epoch, wakes));
        let act = step.actions.iter().any(|action| {
            action.order.lane() == Lane::Postgres
                || matches!(action.order, Order::Acquire { .. } | Order::Release { .. })
        });
        for action in step.actions {
            self.execute(node, action);
        }
        if act && self.hosts[node].trap.is_some() {
            // Requests have left the agent; what it does itself has not begun.
            self.spring(node);
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

    /// Sends what etcd holds down the node's watch, if that works.
    pub fn watch(&mut self, node: usize) {
        let now = self.now;
        let up = self.net.up(now, Place::Etcd, Place::Node(node)) && self.hosts[node].deaf <= now;
        let Some(agent) = &self.hosts[node].agent else {
            return;
        };
        let epoch = agent.epoch;
        self.hosts[node].missed = !up;
        if up {
            let view = self.shown();
            let delay = self.net.delay(now, Place::Etcd, Place::Node(node), &mut self.rng);
            self.after(delay, Event::Input(node, epoch, Box::new(Input::Cluster(view))));
        }
    }

    /// What an agent is shown of etcd.
    fn shown(&self) -> ClusterView {
        let mut view = self.etcd.read();
        if self.bug == Some(Bug::NoOldRight)
            && view.leader.is_none()
            && let Some(status) = &mut view.status
        {
            status.vacated = Some("anybody".into());
        }
        view
    }

    /// Every watcher hears of a change.
    pub fn changed(&mut self) {
        for node in 0..self.hosts.len() {
            self.watch(node);
        }
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

fn order_ended(id: ActionId, order: Deed, outcome: &Outcome) -> Seen {
    let (end, text) = match outcome {
        Outcome::Failed(text) => (OrderEnd::Failed, Some(text.as_str().into())),
        Outcome::Unknown(text) => (OrderEnd::Unknown, Some(text.as_str().into())),
        Outcome::Refused(text) => (OrderEnd::Refused, Some(text.as_str().into())),
        Outcome::NotLocked { .. } => (OrderEnd::Failed, None),
        _ => (OrderEnd::Done, None),
    };
    Seen::OrderEnded {
        id: id.0,
        order,
        end,
        text,
    }
}
