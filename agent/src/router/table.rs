//! The routing table: who waits, who is connected to whom, and what becomes of them when the cluster changes.
//!
//! A state machine without IO: [`Table::step`] takes one thing that happened and the time, and returns what is to be done. The same inputs
//! give the same orders. What it guarantees:
//!
//! - A session goes to the primary only where the leader key and the member's own key agree on it, or where the same reign has been seen to
//!   agree and the server must be coming back ([`target`](super::target)).
//! - A session of a deposed primary is reset with the very view that shows another leader. No news of etcd, or a leader key that has run
//!   out while nobody else leads, deposes nobody: the primary may live on the grants of its peers.
//! - Who cannot be connected waits, first come, first served, no longer than `hold`, and no more than `max_waiting` of them.
//! - A server that does not take a session is tried by one session at a time, so that those who wait do not trample it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use surus_core::types::MonoTime;

use super::cluster::{Cluster, Role, State};
use super::figures::Figures;
use super::target::{self, Known, Target};
use crate::config::settings::HostPort;

/// Pause between two attempts at a primary that did not take a session: a restart in place takes some tenths of a second.
const TRY_PRIMARY: Duration = Duration::from_millis(20);
/// Pause before a replica that did not take a session is tried again, while others do.
const TRY_REPLICA: Duration = Duration::from_secs(2);

/// Where clients come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// To the primary.
    Primary,
    /// To the replicas.
    Replicas,
}

impl Door {
    /// Its name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replicas => "replicas",
        }
    }
}

/// A client's connection. Numbers are given by whoever drives the table, rising.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A member that sessions can be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub at: HostPort,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The keys in etcd changed.
    View(Cluster),
    /// A client has come.
    Arrived {
        /// It.
        id: SessionId,
        /// Where it came in.
        door: Door,
        /// Its first words are in the clear: what the server answers can be looked at, and a standby would be noticed.
        plain: bool,
    },
    /// The member of this name did not take the session, and the client knows of nothing.
    Failed(SessionId, String),
    /// The member of this name took it: its answer is about to be passed on, if [`Table::holds`] then says so.
    Opened(SessionId, String),
    /// The session is over.
    Left(SessionId),
    /// Time passed.
    Tick,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Connect the session to this member.
    Connect(SessionId, Backend),
    /// Give the attempt up, and wait for another order.
    Wait(SessionId),
    /// End the session: it is with a server that has been deposed.
    Reset(SessionId),
    /// Send the client away.
    Refuse(SessionId, Refusal),
}

/// Why a client is sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// There are `max_connections` already.
    TooMany,
    /// There are `max_waiting` already.
    TooManyWaiting,
    /// It waited for as long as `hold`.
    Expired,
}

/// What the table keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long a client may wait for a server.
    pub hold: Duration,
    /// How many clients may wait at each door.
    pub max_waiting: usize,
    /// How many clients there may be.
    pub max_connections: usize,
    /// Bytes that a replica may be behind; `None` for any.
    pub maximum_lag: Option<u64>,
    /// Without a replica that is fit, clients of the replicas go to the primary.
    pub fall_back: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    door: Door,
    plain: bool,
    since: MonoTime,
    /// It had to wait.
    held: bool,
    /// Its server is one that it was given as the primary.
    primary: bool,
    state: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Waiting,
    Connecting(String),
    Open(String),
}

impl Session {
    fn backend(&self) -> Option<&str> {
        match &self.state {
            Stage::Waiting => None,
            Stage::Connecting(name) | Stage::Open(name) => Some(name),
        }
    }

    fn tries(&self, name: &str) -> bool {
        matches!(&self.state, Stage::Connecting(tried) if tried == name)
    }
}

/// A member that did not take a session.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Suspect {
    /// When it may be tried again.
    next: MonoTime,
    /// Who tries.
    trial: Option<SessionId>,
}

/// See the module.
#[derive(Debug)]
pub struct Table {
    rules: Rules,
    cluster: Option<Cluster>,
    known: Option<Known>,
    /// When the last step was.
    now: MonoTime,
    /// The word of the leader that it stops: its revision, and until when new sessions wait for that.
    stopping: Option<(i64, MonoTime)>,
    sessions: BTreeMap<SessionId, Session>,
    /// Those who wait, in the order in which they came.
    waiting: BTreeSet<SessionId>,
    suspects: BTreeMap<String, Suspect>,
    /// The replica that was chosen last.
    last: String,
    figures: Figures,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            cluster: None,
            known: None,
            now: MonoTime::ZERO,
            stopping: None,
            sessions: BTreeMap::new(),
            waiting: BTreeSet::new(),
            suspects: BTreeMap::new(),
            last: String::new(),
            figures: Figures::default(),
        }
    }

    /// Tells it what happened; returns what is to be done. Any input is legal at any time.
    pub fn step(&mut self, now: MonoTime, input: Input) -> Vec<Order> {
        let mut orders = Vec::new();
        self.now = now;
        match input {
            Input::View(cluster) => self.observe(now, cluster, &mut orders),
            Input::Arrived { id, door, plain } => self.arrive(now, id, door, plain, &mut orders),
            Input::Failed(id, name) => self.failed(now, id, name),
            Input::Opened(id, name) => self.opened(now, id, name),
            Input::Left(id) => self.left(now, id),
            Input::Tick => {}
        }
        self.expire(now, &mut orders);
        self.assign(now, &mut orders);
        orders
    }

    /// When it wants to be told that time passed, if nothing else happens before.
    #[must_use]
    pub fn wake(&self) -> Option<MonoTime> {
        let first = self.waiting.first().and_then(|id| self.sessions.get(id))?;
        let expiry = first.since.plus(self.rules.hold);
        let tries = self.suspects.values().filter(|suspect| suspect.trial.is_none());
        let stop = self.stopping.map(|(_, until)| until);
        let times = tries.map(|suspect| suspect.next).chain(stop).chain([expiry]);
        // What is past has been acted on, as far as anybody waits for it.
        times.filter(|at| self.now < *at).min()
    }

    /// Where a client of `door` would be connected now.
    #[must_use]
    pub fn target(&self, now: MonoTime, door: Door) -> Target {
        match door {
            Door::Primary => self.primary(now),
            Door::Replicas => self.replica(now),
        }
    }

    /// The session is open on the member of this name.
    #[must_use]
    pub fn holds(&self, id: SessionId, name: &str) -> bool {
        let session = self.sessions.get(&id);
        session.is_some_and(|session| matches!(&session.state, Stage::Open(open) if open == name))
    }

    /// Where a request to cancel goes whose session is not known: to the primary that was last known, or to all replicas.
    #[must_use]
    pub fn everybody(&self, door: Door) -> Vec<Backend> {
        match door {
            Door::Primary => self.known.iter().map(|known| known.backend.clone()).collect(),
            Door::Replicas => self
                .cluster
                .iter()
                .flat_map(|cluster| &cluster.members)
                .filter(|(_, member)| member.state == State::Running)
                .map(|(name, member)| backend(name, &member.at))
                .collect(),
        }
    }

    /// What has been counted.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// The sessions by door and member, and how many wait at each door.
    #[must_use]
    pub fn census(&self) -> (BTreeMap<(Door, String), u64>, BTreeMap<Door, u64>) {
        let mut open = BTreeMap::new();
        let mut waiting = BTreeMap::from([(Door::Primary, 0), (Door::Replicas, 0)]);
        for session in self.sessions.values() {
            match session.backend() {
                Some(name) => *open.entry((session.door, name.to_owned())).or_default() += 1,
                None => *waiting.entry(session.door).or_default() += 1,
            }
        }
        (open, waiting)
    }

    fn observe(&mut self, now: MonoTime, cluster: Cluster, orders: &mut Vec<Order>) {
        if let Some(revision) = cluster.stopping
            && self.stopping.is_none_or(|(seen, _)| seen != revision)
        {
            self.stopping = Some((revision, now.plus(target::STOPPING)));
        }
        let before = self.known.take();
        self.known = target::follow(before.as_ref(), &cluster);
        if self.known.as_ref().map(|known| known.reign) != before.as_ref().map(|known| known.reign)
            && let Some(known) = &self.known
        {
            // What was wrong with it, as a replica or in another reign, says nothing now.
            self.suspects.remove(&known.backend.name);
        }
        self.suspects.retain(|name, _| {
            cluster.members.contains_key(name)
                || self
                    .known
                    .as_ref()
                    .is_some_and(|known| known.backend.name == *name)
        });
        self.cluster = Some(cluster);
        self.depose(now, orders);
    }

    /// Ends sessions of a deposed primary, and takes back attempts at whoever is no target any more.
    fn depose(&mut self, now: MonoTime, orders: &mut Vec<Order>) {
        let Some(cluster) = &self.cluster else { return };
        let deposed = |name: &str| {
            let member = cluster.members.get(name);
            let other = cluster.leader.as_ref().is_some_and(|leader| leader.name != name);
            other
                || member.is_some_and(|member| member.role == Role::Replica && member.state == State::Running)
        };
        let ended: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.primary)
            .filter(|(_, session)| matches!(&session.state, Stage::Open(name) if deposed(name)))
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            if let Some(session) = self.sessions.remove(&id) {
                self.figures.door(session.door).reset += 1;
            }
            orders.push(Order::Reset(id));
        }
        let wanted = match self.primary(now) {
            Target::To(backend) | Target::Try(backend) => Some(backend.name),
            Target::Wait(_) => None,
        };
        let vain: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.primary)
            .filter(|(_, session)| {
                matches!(&session.state, Stage::Connecting(name) if Some(name) != wanted.as_ref())
            })
            .map(|(id, _)| *id)
            .collect();
        for id in vain {
            self.requeue(id);
            orders.push(Order::Wait(id));
        }
    }

    fn arrive(&mut self, now: MonoTime, id: SessionId, door: Door, plain: bool, orders: &mut Vec<Order>) {
        self.figures.door(door).accepted += 1;
        if self.sessions.len() >= self.rules.max_connections {
            return self.refuse(id, door, Refusal::TooMany, orders);
        }
        // Those who need not wait are among the waiting until they are assigned, so there is room for one at least.
        let at_door = |id: &&SessionId| self.sessions.get(id).is_some_and(|session| session.door == door);
        if self.waiting.iter().filter(at_door).count() >= self.rules.max_waiting.max(1) {
            return self.refuse(id, door, Refusal::TooManyWaiting, orders);
        }
        let session = Session {
            door,
            plain,
            since: now,
            held: false,
            primary: false,
            state: Stage::Waiting,
        };
        self.sessions.insert(id, session);
        self.waiting.insert(id);
    }

    fn refuse(&mut self, id: SessionId, door: Door, why: Refusal, orders: &mut Vec<Order>) {
        *self.figures.door(door).refused.entry(why).or_default() += 1;
        orders.push(Order::Refuse(id, why));
    }

    fn failed(&mut self, now: MonoTime, id: SessionId, name: String) {
        // Word of an attempt that was taken back meanwhile is word of nothing.
        let Some(session) = self.sessions.get(&id).filter(|session| session.tries(&name)) else {
            return;
        };
        let door = session.door;
        *self.figures.failed.entry((door, name.clone())).or_default() += 1;
        let pause = match self.known.as_mut().filter(|known| known.backend.name == name) {
            Some(known) => {
                known.proven = false;
                TRY_PRIMARY
            }
            None => TRY_REPLICA,
        };
        let suspect = Suspect {
            next: now.plus(pause),
            trial: None,
        };
        self.suspects.insert(name, suspect);
        self.requeue(id);
    }

    /// Lets a session wait again, in the place that it had.
    fn requeue(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.state = Stage::Waiting;
            session.primary = false;
            session.held = true;
            self.waiting.insert(id);
        }
        self.free(id);
    }

    /// Whoever was tried by this session may be tried by another.
    fn free(&mut self, id: SessionId) {
        for suspect in self.suspects.values_mut() {
            if suspect.trial == Some(id) {
                suspect.trial = None;
            }
        }
    }

    fn opened(&mut self, now: MonoTime, id: SessionId, name: String) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.tries(&name)) else {
            return;
        };
        let door = session.door;
        session.state = Stage::Open(name.clone());
        if session.held {
            self.figures.door(door).held.add(now.since(session.since));
        }
        *self.figures.opened.entry((door, name.clone())).or_default() += 1;
        self.suspects.remove(&name);
        if let Some(known) = self.known.as_mut().filter(|known| known.backend.name == name) {
            known.proven = true;
        }
    }

    fn left(&mut self, now: MonoTime, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id)
            && session.held
            && !matches!(session.state, Stage::Open(_))
        {
            self.figures.door(session.door).gave_up += 1;
            self.figures.door(session.door).held.add(now.since(session.since));
        }
        self.waiting.remove(&id);
        self.free(id);
    }

    fn expire(&mut self, now: MonoTime, orders: &mut Vec<Order>) {
        while let Some(id) = self.waiting.first().copied() {
            let Some(session) = self.sessions.get(&id) else {
                self.waiting.remove(&id);
                continue;
            };
            if now < session.since.plus(self.rules.hold) {
                return;
            }
            let (door, waited) = (session.door, now.since(session.since));
            self.waiting.remove(&id);
            self.sessions.remove(&id);
            self.figures.door(door).held.add(waited);
            self.refuse(id, door, Refusal::Expired, orders);
        }
    }

    /// Gives those who wait a member each, as far as there are any.
    fn assign(&mut self, now: MonoTime, orders: &mut Vec<Order>) {
        let mut next = self.waiting.first().copied();
        while let Some(id) = next {
            if let Some(backend) = self.place(now, id) {
                self.waiting.remove(&id);
                orders.push(Order::Connect(id, backend));
            } else if let Some(session) = self.sessions.get_mut(&id) {
                session.held = true;
            }
            next = self
                .waiting
                .range((std::ops::Bound::Excluded(id), std::ops::Bound::Unbounded))
                .next()
                .copied();
        }
    }

    fn place(&mut self, now: MonoTime, id: SessionId) -> Option<Backend> {
        let session = self.sessions.get(&id)?;
        let (door, plain) = (session.door, session.plain);
        let (backend, certain) = match self.target(now, door) {
            Target::To(backend) => (backend, true),
            Target::Try(backend) if plain => (backend, false),
            Target::Try(_) | Target::Wait(_) => return None,
        };
        let suspect = match self.suspects.get_mut(&backend.name) {
            Some(suspect) => Some(suspect),
            None if certain => None,
            None => Some(self.suspects.entry(backend.name.clone()).or_insert(Suspect {
                next: now,
                trial: None,
            })),
        };
        if let Some(suspect) = suspect {
            if suspect.trial.is_some() || now < suspect.next {
                return None;
            }
            suspect.trial = Some(id);
        }
        if door == Door::Replicas {
            self.last.clone_from(&backend.name);
        }
        let primary = self
            .known
            .as_ref()
            .is_some_and(|known| known.backend.name == backend.name);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.state = Stage::Connecting(backend.name.clone());
            session.primary = door == Door::Primary || primary;
        }
        Some(backend)
    }

    fn primary(&self, now: MonoTime) -> Target {
        let closing = self.stopping.is_some_and(|(_, until)| now < until);
        target::primary(self.cluster.as_ref(), self.known.as_ref(), closing)
    }

    fn replica(&self, now: MonoTime) -> Target {
        let Some(cluster) = &self.cluster else {
            return Target::Wait(target::Why::NoView);
        };
        let busy = |name: &str| {
            let with = |session: &&Session| session.backend() == Some(name);
            self.sessions.values().filter(with).count()
        };
        let ready = |name: &str| {
            let suspect = self.suspects.get(name);
            suspect.is_none_or(|suspect| suspect.trial.is_none() && suspect.next <= now)
        };
        let fit = |suspected: bool| {
            target::replicas(cluster, self.rules.maximum_lag)
                .filter(|(name, _)| ready(name) && self.suspects.contains_key(*name) == suspected)
                // The next in turn of those who have least to do.
                .min_by_key(|(name, _)| (busy(name), name.as_str() <= self.last.as_str(), (*name).clone()))
                .map(|(name, member)| backend(name, &member.at))
        };
        // One that failed is tried again when its time has come, before others get more to do.
        if let Some(backend) = fit(true).or_else(|| fit(false)) {
            return Target::To(backend);
        }
        if self.rules.fall_back {
            return self.primary(now);
        }
        Target::Wait(target::Why::NoReplica)
    }
}

/// A member to connect to.
pub(super) fn backend(name: &str, at: &HostPort) -> Backend {
    Backend {
        name: name.to_owned(),
        at: at.clone(),
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
