//! A world: machines on a network, etcd, the members with their agents and supervisors, clients, and the hands that do harm to them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use surus::agent::Told;
use surus_core::types::NodeName;
use surus_scenarios::Shape;
use tokio::sync::mpsc;

use super::agent::{Agent, File};
use super::balancer;
use super::client::{Client, PACE};
use super::etcd::Ensemble;
use super::file::{Places, SCOPE, file};
use super::host::Host;
use super::hub::Hub;
use super::keys::Keys;
use super::net::{Driver, Machine, Net};
use super::process::take_panic;
use super::router;
use super::story::{Armed, Still};
use crate::clock::{Clock, MS, SEC, Time};
use crate::model::etcd;
use crate::record::{Keep, Recorder, Seen};
use crate::rng::Rng;

/// A supervisor starts an agent that failed again after this long.
pub(super) const RESTART: Time = 5 * SEC;
/// How often the run is looked at from outside: for violations, ended agents, panics.
const SLICE: Time = 100 * MS;

/// Something that is done later.
type Later = Box<dyn FnOnce(&mut World)>;

/// A world.
pub struct World {
    pub(super) driver: Box<dyn Driver>,
    pub(super) net: Arc<dyn Net>,
    pub(super) hub: Arc<Hub>,
    pub(super) etcd: Ensemble,
    pub(super) shape: Shape,
    pub(super) agents: Vec<Option<Agent>>,
    pub(super) files: Vec<File>,
    pub(super) clients: Vec<Client>,
    pub(super) machines: Machines,
    /// How many faults cut each way.
    pub(super) cuts: BTreeMap<(Machine, Machine), u32>,
    /// The hosts that have power.
    pub(super) powered: Vec<bool>,
    /// What stands still.
    pub(super) still: Vec<Still>,
    /// The hosts whose supervisor starts the agent when they go on.
    pub(super) boots: Vec<bool>,
    /// When a host's agent is started again after its orderly end, if somebody stopped it.
    pub(super) again: Vec<Option<Time>>,
    pub(super) rng: Rng,
    pub(super) person: Machine,
    /// Steps that this world cannot do are left out.
    pub(super) lenient: bool,
    pub(super) here: Option<usize>,
    pub(super) traps: Vec<Armed>,
    /// What a trap was to do that this world cannot.
    pub(super) unable: Option<String>,
    pub(super) steps: usize,
    later: BTreeMap<(Time, u64), Later>,
    sequence: u64,
    ended: mpsc::UnboundedReceiver<(usize, bool)>,
    ending: mpsc::UnboundedSender<(usize, bool)>,
}

/// Who runs where.
#[derive(Debug, Clone, Default)]
pub struct Machines {
    /// All names, in the order of the network's machines.
    pub names: Vec<String>,
    /// The members' hosts.
    pub hosts: Vec<Machine>,
    /// etcd's members.
    pub etcd: Vec<Machine>,
    /// The clients.
    pub clients: Vec<Machine>,
    /// The routers.
    pub routers: Vec<Machine>,
    /// Where people sit.
    pub person: Option<Machine>,
}

impl Machines {
    /// The machines of a shape: everybody has one, but for those who live on a member's host.
    #[must_use]
    pub fn of(shape: &Shape) -> Self {
        let mut machines = Self::default();
        let add = |names: &mut Vec<String>, name: &str| {
            names.push(name.to_owned());
            Machine(names.len() - 1)
        };
        for member in &shape.members {
            let machine = add(&mut machines.names, member.name.as_str());
            machines.hosts.push(machine);
        }
        for member in &shape.etcd {
            let home = member.host.as_ref().and_then(|host| shape.member(host));
            let machine = match home {
                Some(host) => machines.hosts[host],
                None => add(&mut machines.names, member.name.as_str()),
            };
            machines.etcd.push(machine);
        }
        for client in &shape.clients {
            let home = client.route.beside.as_ref().and_then(|host| shape.member(host));
            let machine = match home {
                Some(host) => machines.hosts[host],
                None => add(&mut machines.names, client.name.as_str()),
            };
            machines.clients.push(machine);
        }
        for router in &shape.routers {
            let machine = add(&mut machines.names, router.name.as_str());
            machines.routers.push(machine);
        }
        machines.person = Some(add(&mut machines.names, "person"));
        machines
    }
}

impl World {
    /// A world of this shape on a network of its [`Machines`], with everybody started.
    ///
    /// # Errors
    /// A member's configuration is refused, in words.
    pub fn new(
        seed: u64,
        shape: &Shape,
        keep: Keep,
        machines: Machines,
        driver: Box<dyn Driver>,
    ) -> io::Result<Self> {
        let net = driver.net();
        let mut rng = Rng::new(seed, 20);
        let names: Vec<NodeName> = shape
            .members
            .iter()
            .map(|member| NodeName(member.name.as_str().to_owned()))
            .collect();
        let hosts = shape
            .members
            .iter()
            .enumerate()
            .map(|(index, member)| {
                let drawn = i64::try_from(rng.below(1000)).unwrap_or(0) - 500;
                let drift = member.tags.drift_ppm.unwrap_or(drawn);
                let clock = Clock::new(rng.range(SEC, 100_000 * SEC), drift);
                let name = member.name.as_str().to_owned();
                Host::new(index, name, machines.hosts[index], clock, &shape.settings, seed)
            })
            .collect();
        let hub = Hub::new(Arc::clone(&net), hosts, Recorder::new(names, keep), seed);
        // What agents go by until the `config` key says otherwise.
        hub.grants().ttl = shape.settings.ttl * SEC;
        let etcd = Ensemble::start(&net, &machines.etcd, etcd::Settings::default(), seed);
        let mut keys = Keys::below(shape.file.prefix(SCOPE));
        // Weak: the observer must not keep alive what keeps it alive.
        let world = Arc::downgrade(&hub);
        etcd.observe(Box::new(move |store, answers| {
            if let Some(hub) = world.upgrade() {
                keys.observe(&hub, store, answers);
            }
        }));
        // Set once, here.
        let _ = hub.etcd.set(etcd.clone());
        let name = |machine: &Machine| machines.names[machine.0].clone();
        let places = Places {
            etcd: machines.etcd.iter().map(name).collect(),
            router: machines.routers.first().map(name),
        };
        let files = shape
            .members
            .iter()
            .map(|member| file(shape, member, &places))
            .collect::<Result<_, _>>()
            .map_err(io::Error::other)?;
        let clients = shape
            .clients
            .iter()
            .enumerate()
            .map(|(number, client)| {
                // The usual pace of 20 ms is for a world in which a write costs nothing.
                let pace = client.route.every.0.max(PACE);
                Client::start(&hub, number, machines.clients[number], pace, &client.route)
            })
            .collect();
        for (number, router) in shape.routers.iter().enumerate() {
            let process = router::start(&hub, number, machines.routers[number], router.health.clone());
            if shape.file.uses("balancer") {
                balancer::start(&process, &places.etcd);
            }
        }
        let (ending, ended) = mpsc::unbounded_channel();
        let count = shape.members.len();
        let person = machines.person.unwrap_or(machines.hosts[0]);
        let mut world = Self {
            driver,
            net,
            hub,
            etcd,
            shape: shape.clone(),
            agents: (0..count).map(|_| None).collect(),
            files,
            clients,
            machines,
            cuts: BTreeMap::new(),
            powered: vec![true; count],
            still: vec![Still::default(); count],
            boots: vec![false; count],
            again: vec![None; count],
            rng,
            person,
            lenient: false,
            here: None,
            traps: Vec::new(),
            unable: None,
            steps: 0,
            later: BTreeMap::new(),
            sequence: 0,
            ended,
            ending,
        };
        for host in 0..count {
            let joins = shape.members[host].tags.joins.0;
            let delay = joins + world.rng.below(100 * MS);
            world.after(delay, move |world| world.boot(host));
        }
        // A file that is refused must not look like a member that is down.
        for file in &world.files {
            surus::agent::Source::load(file)
                .map_err(|problems| io::Error::other(surus::config::render(&problems)))?;
        }
        Ok(world)
    }

    /// World time.
    #[must_use]
    pub fn time(&self) -> Time {
        self.net.now()
    }

    /// Does something after a while, between two slices of the run.
    pub(super) fn after(&mut self, delay: Time, what: impl FnOnce(&mut Self) + 'static) {
        self.sequence += 1;
        let at = self.time().saturating_add(delay);
        if at != Time::MAX {
            self.later.insert((at, self.sequence), Box::new(what));
        }
    }

    /// Nothing is left to be done.
    pub(super) fn forget_later(&mut self) {
        self.later.clear();
    }

    /// Something happened.
    pub(super) fn see(&self, host: impl Into<Option<usize>>, seen: Seen) {
        self.hub.see(host.into(), seen);
    }

    /// What must not happen and did.
    #[must_use]
    pub fn violation(&self) -> Option<String> {
        let record = self.hub.record();
        let violation = record.checker.violation.as_ref();
        violation.map(ToString::to_string)
    }

    /// Lets time pass, up to a violation.
    pub fn run(&mut self, until: Time) {
        while self.time() < until && self.violation().is_none() {
            let next = self.later.first_key_value().map_or(Time::MAX, |((at, _), _)| *at);
            let stop = until.min(self.time() + SLICE).min(next.max(self.time() + 1));
            self.driver.run_until(stop);
            self.spring();
            if let Some(text) = take_panic() {
                let text = Arc::from(text.as_str());
                self.see(None, Seen::Broken { text });
            }
            while let Ok((host, failure)) = self.ended.try_recv() {
                self.agents[host] = None;
                let again = self.again[host].take().or(failure.then_some(RESTART));
                if let Some(delay) = again {
                    self.after(delay, move |world| world.boot(host));
                }
            }
            while let Some(entry) = self.later.first_entry()
                && entry.key().0 <= self.net.now()
            {
                entry.remove()(self);
            }
        }
    }

    /// The supervisor starts a host's agent, unless one runs.
    pub(super) fn boot(&mut self, host: usize) {
        if self.agents[host].is_some() || !self.powered[host] {
            return;
        }
        if self.still[host].host() {
            self.boots[host] = true;
            return;
        }
        self.still[host].forget_agent();
        match Agent::start(&self.hub, host, &self.files[host], self.ending.clone()) {
            Ok(agent) => self.agents[host] = Some(agent),
            Err(text) => {
                let text = Arc::from(text.as_str());
                self.see(host, Seen::Broken { text });
            }
        }
    }

    /// SIGKILL to a host's agent.
    pub(super) fn kill_agent(&mut self, host: usize) -> bool {
        let Some(agent) = self.agents[host].take() else {
            return false;
        };
        agent.process.kill();
        self.hub.act(host, |_, inside| inside.listener = None);
        self.see(host, Seen::AgentDied);
        true
    }

    /// SIGTERM to a host's agent, which is started again that long after its end.
    pub(super) fn stop_agent(&mut self, host: usize, back: Time) -> bool {
        let Some(agent) = &self.agents[host] else {
            return false;
        };
        agent.tell(Told::Shutdown);
        self.again[host] = (back != Time::MAX).then_some(back);
        true
    }

    /// A link is cut once more, or once less.
    pub(super) fn cut(&mut self, from: Machine, to: Machine, cut: bool) {
        let count = self.cuts.entry((from, to)).or_default();
        let before = *count;
        *count = if cut { before + 1 } else { before.saturating_sub(1) };
        if (before == 0) != (*count == 0) {
            self.net.cut(from, to, *count != 0);
            self.hub.relink();
        }
    }

    /// The name in etcd of one of the cluster's keys.
    pub(super) fn key(&self, name: &str) -> Vec<u8> {
        format!("{}{name}", self.shape.file.prefix(SCOPE)).into_bytes()
    }

    /// The host that holds the lock, by what is agreed.
    pub(super) fn leader(&self) -> Option<usize> {
        let key = self.key("leader");
        let holder = self.etcd.model(|_, model| {
            let value = model.agreed(&key)?.value.clone()?;
            String::from_utf8(value).ok()
        })?;
        self.hub.host_named(&holder)
    }
}
