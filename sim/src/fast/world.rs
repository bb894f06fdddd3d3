//! The fast world: cores and models in one queue of events; time jumps from one to the next.
//!
//! An event of an agent that is frozen waits until it thaws; one of an agent that died is dropped, but what had left the agent (a
//! request on its way, a promotion asked for) goes on without it.

use surus_core::types::{MonoTime, NodeName};
use surus_scenarios::Shape;

use crate::clock::{MS, SEC, Time};
use crate::fast::clients::{Client, Route};
use crate::fast::dcs::{Store, What};
use crate::fast::event::{Change, Event, Part};
use crate::fast::host::Host;
use crate::fast::queue::{Due, Queue};
use crate::fast::routers::Router;
use crate::fast::story::{Armed, Mend};
use crate::fast::wire::Wires;
use crate::model::postgres::{Costs, Effect, Peer, Server, Settings};
use crate::net::{Net, Place};
use crate::record::{Keep, Recorder, Seen};
use crate::rng::Rng;
use crate::zoo::Bug;

/// The pace of the clients beside the servers, about: what they write, and its way to the replicas, is most of what happens in a run.
const BESIDE: Time = 50 * MS;

/// The world.
#[derive(Debug)]
pub struct World {
    /// World time.
    pub now: Time,
    /// What it was made of.
    pub shape: Shape,
    /// The members.
    pub hosts: Vec<Host>,
    /// Their names.
    pub names: Vec<NodeName>,
    /// etcd.
    pub etcd: Store,
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
    /// Who writes and reads.
    pub clients: Vec<Client>,
    /// What stands between some of them and the servers.
    pub routers: Vec<Router>,
    /// The ways between the servers.
    pub(crate) wires: Wires,
    /// Values of which the story's own clients know that they are written.
    pub(crate) acked: Vec<u64>,
    /// Faults that wait for an act.
    pub(crate) traps: Vec<Armed>,
    /// Steps of the story so far.
    pub(crate) steps: usize,
    /// Where the trap sprang whose strike is under way.
    pub(crate) here: Option<usize>,
    queue: Queue,
    /// What came of a call on a server, while it is seen to; otherwise empty.
    pub(crate) effects: Vec<Effect>,
}

/// A member's PostgreSQL, before there is anything.
fn server(seed: u64, node: usize, settings: &surus_scenarios::Settings) -> Server {
    let peer = Peer(u32::try_from(node).unwrap_or(u32::MAX));
    let mut server = Server::new(peer, Costs::ORDINARY, Rng::new(seed, 100 + u64::from(peer.0)));
    server.settings = Settings::by_agent(settings);
    server
}

impl World {
    /// The world of a seed, before its first event.
    #[must_use]
    pub fn new(seed: u64, shape: &Shape, keep: Keep) -> Self {
        let mut rng = Rng::new(seed, 2);
        let names: Vec<_> = shape
            .members
            .iter()
            .map(|member| NodeName(member.name.0.clone()))
            .collect();
        let hosts = shape
            .members
            .iter()
            .enumerate()
            .map(|(node, member)| {
                let server = server(seed, node, &shape.settings);
                Host::new(member, &shape.settings, server, &mut rng)
            })
            .collect();
        let mut world = Self {
            now: 0,
            hosts,
            etcd: Store::new(shape.etcd.len(), seed),
            net: Net::default(),
            record: Recorder::new(names.clone(), keep),
            rng,
            counter: 0,
            events: 0,
            bug: None,
            queue: Queue::default(),
            effects: Vec::new(),
            clients: Vec::new(),
            routers: Vec::new(),
            wires: Wires::new(shape.members.len()),
            acked: Vec::new(),
            traps: Vec::new(),
            steps: 0,
            here: None,
            shape: shape.clone(),
            names,
        };
        for node in 0..world.hosts.len() {
            let at = world.rng.range(0, 800 * MS) + shape.members[node].tags.joins.0;
            world.after(at, Event::Boot(node));
        }
        world.people();
        world
    }

    /// The story's routers and clients, and one client beside each server that always writes to that one: whenever a server lets somebody
    /// write, somebody does.
    fn people(&mut self) {
        let nodes = self.hosts.len();
        for (index, member) in self.shape.etcd.iter().enumerate() {
            let host = member.host.as_ref().and_then(|name| self.named(name));
            if let Some(node) = host {
                self.net.settle(Place::Etcd(index), Place::Node(node));
                self.etcd.settle(index, node);
            }
        }
        for index in 0..self.shape.routers.len() {
            self.routers
                .push(Router::new(nodes, &self.shape.routers[index].health));
            for node in 0..nodes {
                let at = self.rng.below(3 * SEC);
                self.after(at, Event::Poll(index, node));
            }
        }
        for index in 0..self.shape.clients.len() {
            let route = self.shape.clients[index].route.clone();
            let beside = route.beside.as_ref().and_then(|name| self.named(name));
            let via = route.via.as_ref();
            let via = via.and_then(|name| self.shape.routers.iter().position(|router| router.name == *name));
            // libpq tries hosts in the order given; whoever runs beside one names that first.
            let hosts = beside
                .into_iter()
                .chain((0..nodes).filter(|node| Some(*node) != beside));
            let way = via.map_or_else(|| Route::Hosts(hosts.collect()), Route::Router);
            let mut client = Client::new(Place::Client(index), way);
            client.pace = route.every.0;
            client.reads = route.reads;
            client.sticky = route.sticky;
            if let Some(node) = beside {
                self.net.settle(Place::Client(index), Place::Node(node));
            }
            self.clients.push(client);
        }
        for node in 0..nodes {
            let place = Place::Client(self.clients.len());
            self.net.settle(place, Place::Node(node));
            let mut client = Client::new(place, Route::Direct(node));
            client.pace = BESIDE;
            self.clients.push(client);
        }
        for client in 0..self.clients.len() {
            let at = self.rng.below(100 * MS);
            self.after(at, Event::ClientAct(client));
        }
    }

    /// Puts an event into the queue.
    pub fn after(&mut self, delay: Time, event: Event) {
        let time = self.now.saturating_add(delay);
        if time != Time::MAX {
            self.queue.push(time, self.record.cause(), event);
        }
    }

    /// Something happened.
    pub fn see(&mut self, node: impl Into<Option<usize>>, seen: Seen) {
        let node = node.into();
        if let Some(node) = node.filter(|_| !self.traps.is_empty()) {
            self.spring(node, &seen);
        }
        self.record.see(self.now, node, seen);
    }

    /// A message sets out: how long it takes, or `None` if it gets lost. Reports draw it.
    pub(crate) fn post(&mut self, from: Place, to: Place, what: &'static str) -> Option<Time> {
        let up = self.net.up(self.now, from, to);
        let delay = up.then(|| self.net.delay(self.now, from, to, &mut self.rng));
        self.draw(from, to, delay, what);
        delay
    }

    /// Tells a report of a message that takes so long, or is lost.
    pub(crate) fn draw(&mut self, from: Place, to: Place, delay: Option<Time>, what: &'static str) {
        if !self.record.wants_messages() {
            return;
        }
        let node = match from {
            Place::Node(node) => Some(node),
            _ => None,
        };
        let message = Seen::Message {
            from,
            to,
            arrives: delay.map(|delay| self.now + delay),
            what,
        };
        self.record.see(self.now, node, message);
    }

    /// What the node's clock shows.
    #[must_use]
    pub fn local(&self, node: usize) -> MonoTime {
        self.hosts[node].clock.local(self.now)
    }

    /// Handles events until `end`, or until something happened that must not.
    pub fn run_until(&mut self, end: Time) {
        while self.record.checker.violation.is_none()
            && let Some(due) = self.next(end)
        {
            self.record.resume(due.cause);
            self.now = due.time;
            self.events += 1;
            self.handle(due.event);
        }
        if self.record.checker.violation.is_none() {
            self.now = end;
        }
    }

    /// The next event, if it is due by `end`: of the queue, or a call that a server wants.
    fn next(&mut self, end: Time) -> Option<Due> {
        if let Some((node, time)) = self.next_tick()
            && time <= end
            && self.queue.next().is_none_or(|queued| time < queued)
        {
            let (_, cause) = std::mem::replace(&mut self.hosts[node].ticking, (Time::MAX, None));
            let event = Event::PgTick(node);
            return Some(Due { time, cause, event });
        }
        self.queue.pop(end)
    }

    /// The event, if it can happen now: the agent it is for still is, and nothing there stands still. What stands still gets it later.
    fn due(&mut self, event: Event) -> Option<Event> {
        let Some((node, part)) = event.part() else {
            return Some(event);
        };
        let host = &mut self.hosts[node];
        let stuck = match part {
            Part::Agent(epoch) if host.agent.as_ref().is_none_or(|agent| agent.epoch != epoch) => {
                return None;
            }
            Part::Agent(_) => host.frozen.max(host.still),
            Part::Rest => host.still,
        };
        if self.now < stuck {
            host.deferred.push(event);
            return None;
        }
        Some(event)
    }

    /// The whole host stands still for so long.
    pub(crate) fn host_freeze(&mut self, node: usize, span: Time) {
        let until = self.now.saturating_add(span);
        let host = &mut self.hosts[node];
        if host.powered && host.still < until {
            host.still = until;
            if self.bug == Some(Bug::GuardClockStops) {
                host.slept += span;
            }
            self.see(node, Seen::HostFrozen { frozen: true });
            self.etcd_stands_still(node, span);
            self.after(span, Event::HostThaw(node));
        }
    }

    /// A host goes on: what waited comes now, in its order.
    fn host_thaw(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.still == 0 || self.now < host.still {
            return;
        }
        host.still = 0;
        let deferred = std::mem::take(&mut host.deferred);
        self.see(node, Seen::HostFrozen { frozen: false });
        for event in deferred {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        let Some(event) = self.due(event) else { return };
        match event {
            Event::Boot(node) => self.boot(node),
            Event::Wake(node, _) => self.woken(node),
            Event::Input(node, _, input) => self.step(node, *input),
            Event::Thaw(node) => self.thaw(node),
            Event::HostThaw(node) => self.host_thaw(node),
            Event::PowerOn(node) => {
                self.hosts[node].powered = true;
                self.see(node, Seen::Power { on: true });
                self.etcd_power(node, true);
                self.boot(node);
            }
            Event::EtcdRequest(sent) => self.etcd_request(*sent),
            Event::EtcdAnswer(heard) => self.etcd_answer(*heard),
            Event::EtcdLate(node, _, id, attempt) => self.etcd_heard(node, id, attempt, What::Late),
            Event::EtcdRound(node, _, id, number) => self.ask_etcd(node, id, number),
            Event::EtcdWatch(node, epoch, member, watch, start, process) => {
                self.etcd_watch(node, epoch, member, watch, start, process);
            }
            Event::EtcdTold(node, _, watch, header, told) => self.etcd_told(node, watch, header, *told),
            Event::EtcdSilence(node, _, watch) => self.etcd_silence(node, watch),
            Event::EtcdFollow(node, _) => self.follow(node),
            Event::EtcdTick => self.etcd_tick(),
            Event::EtcdLinks => self.etcd_links(),
            Event::EtcdStart(member) => self.etcd_start(member),
            Event::EtcdThaw(member) => self.etcd_thaw(member),
            Event::EtcdSpace => self.etcd_space(),
            Event::Stage(node, _, action, stage) => self.stage(node, *action, stage),
            Event::PgTick(node) => self.pg_tick(node),
            Event::PgStopLate(node, server) => self.pg_stop_late(node, server),
            Event::PgThaw(node, server) => self.pg_thaw(node, server),
            Event::PgMend(node, mend) => self.mend(node, mend),
            Event::Wire(node, parcel) => self.wire(node, parcel),
            Event::WireRetry(from, to) => self.wire_retry(from, to),
            Event::GuardDue(node, version) => self.guard_due(node, version),
            Event::Ask(from, epoch, to, question, failsafe) => {
                self.asked(from, epoch, to, question, failsafe);
            }
            Event::Answer(node, _, from, question, status) => self.answered(node, from, question, *status),
            Event::Grant(node, _, from, question, granted) => self.granted(node, from, question, granted),
            Event::AskOver(node, _, question) => self.ask_over(node, question),
            Event::ClientAct(client) => self.client_act(client),
            Event::ClientRequest(client, id) => self.client_request(client, id),
            Event::ClientReply(client, id, reply) => self.client_heard(client, id, reply),
            Event::ClientTimeout(client) => self.client_timeout(client),
            Event::Poll(router, node) => self.poll(router, node),
            Event::PollArrives(router, node, question) => self.poll_arrives(router, node, question),
            Event::Polled(router, node, question, primary) => self.polled(router, node, question, primary),
            Event::Sprung(strike, here) => self.sprung(&strike, here),
            Event::StepOver(step) => self.see(None, Seen::StepEnded { step }),
            Event::Configure(node, change) => self.configure(node, &change),
        }
    }

    /// A frozen agent goes on, unless it was frozen again meanwhile: what waited comes now, in its order.
    fn thaw(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if self.now < host.frozen {
            return;
        }
        let deferred = std::mem::take(&mut host.deferred);
        if std::mem::take(&mut host.frozen) != 0 {
            self.see(node, Seen::AgentFrozen { frozen: false });
        }
        for event in deferred {
            self.handle(event);
        }
    }

    /// All faults end; whoever is down comes up.
    pub fn heal(&mut self) {
        self.see(None, Seen::Healed);
        self.net.heal(self.now);
        self.traps.clear();
        if !self.shape.settings.pause {
            self.spread(&Change::Pause(false), 0);
        }
        for node in 0..self.hosts.len() {
            let host = &mut self.hosts[node];
            let still = host.still != 0;
            host.frozen = host.frozen.min(self.now);
            host.still = host.still.min(self.now);
            host.guard_frozen = host.guard_frozen.min(self.now);
            host.deaf = 0;
            host.starved = (0, 0);
            host.troubles.clear();
            host.mishaps.clear();
            self.after(1, Event::HostThaw(node));
            self.after(1, Event::Thaw(node));
            self.after(500 * MS, Event::Boot(node));
            if !std::mem::replace(&mut self.hosts[node].powered, true) {
                self.see(node, Seen::Power { on: true });
            }
            let server = self.hosts[node].pg.epoch();
            if still {
                // Nothing of a host that stands still goes on before it does.
                for mend in Mend::ALL {
                    self.after(1, Event::PgMend(node, mend));
                }
                self.after(1, Event::PgThaw(node, server));
                continue;
            }
            for mend in Mend::ALL {
                self.mend(node, mend);
            }
            self.pg_thaw(node, server);
        }
        self.etcd_heal();
    }
}
