//! etcd in the fast world: the model's members at their places, the agents' adapters, and what goes between them.
//!
//! ```text
//!   core ─ Order ─► work ─ request ─► pool ─► carry ─► model::etcd ─► record (what is agreed)
//!   core ◄ Input ── work ◄ answer ── pool ◄── carry ◄──┘
//!   core ◄ Input::Cluster ── follow ◄ events ── carry
//! ```
//!
//! - [`keys`]: the keys with typed values; [`work`]: an order as a sequence of requests; [`pool`]: which member to ask
//! - `carry`: requests and answers on their way; `follow`: the watch; `record`: what changed, for the record
//! - `faults`: what can be done to etcd
//!
//! `keys`, `work`, `pool` and `follow` imitate `agent/src/dcs`: whoever changes that changes them.

mod carry;
mod faults;
mod follow;
pub mod keys;
pub mod pool;
mod record;
mod txn;
pub mod work;

use std::collections::BTreeMap;

use surus_core::types::{ActionId, NodeName, Term};
use surus_core::view::{ClusterView, Member};
use surus_core::{Action, Lane, Order};
use surus_scenarios::ErrorCode;

use crate::clock::{SEC, Time};
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::model::etcd::{Etcd, Header, Output, Revision, Settings};
use follow::Follower;
use keys::{Answered, Asked, Held, Key};
use pool::Pool;
use work::{OwnLease, Work, Worker};

/// How long the agent waits for etcd: `retry_timeout`.
const PATIENCE: Time = 2 * SEC;

/// The order that stands for the read of the watch.
const WATCHS_READ: ActionId = ActionId(u64::MAX);

/// etcd, and who waits for it.
#[derive(Debug)]
pub struct Store {
    /// The members.
    pub cluster: Etcd<Key, Held>,
    /// What is agreed, whatever any member says.
    pub view: ClusterView,
    /// The node on whose host each member runs, if any.
    hosts: Vec<Option<usize>>,
    /// Each is slow until then, by up to this.
    pub(super) slow: Vec<(Time, Time)>,
    /// The members do not reach each other until then.
    pub(super) split: Time,
    /// Up to where `view` and the record have come.
    seen: Revision,
    /// Numbers each member's processes.
    process: Vec<u64>,
    /// Whose requests are in a member's hands.
    calls: BTreeMap<u64, Caller>,
    /// Whose watches hang on which member.
    watches: BTreeMap<u64, Watching>,
    /// For when the next look at the links stands in the queue.
    relink: Time,
    /// For when the next tick stands in the queue.
    scheduled: Time,
    /// The leader that the record knows.
    told: Option<(u64, Option<usize>)>,
    out: Vec<Output<Key, Held>>,
}

/// Who asked.
#[derive(Debug, Clone, Copy)]
struct Caller {
    node: usize,
    epoch: u64,
    id: ActionId,
    member: usize,
    fate: Fate,
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Usual,
    /// It gets lost.
    Mute,
    /// An error takes its place.
    Error(ErrorCode),
}

/// Who watches.
#[derive(Debug, Clone, Copy)]
struct Watching {
    node: usize,
    epoch: u64,
    member: usize,
    /// When its last message arrives.
    last: Time,
}

/// A request on its way to a member's process.
#[derive(Debug, Clone)]
pub struct Sent {
    caller: Caller,
    attempt: u64,
    process: u64,
    asked: Asked,
}

/// An answer on its way to an agent, or the end of waiting for one.
#[derive(Debug, Clone)]
pub struct Heard {
    pub(super) node: usize,
    pub(super) epoch: u64,
    id: ActionId,
    attempt: u64,
    what: What,
}

/// What an agent hears of an attempt.
#[derive(Debug, Clone)]
pub(crate) enum What {
    Answer(Header, Answered),
    Failed(pool::Failure),
    /// Its share of the time is over.
    Late,
}

impl Store {
    /// A cluster of so many members.
    #[must_use]
    pub fn new(members: usize, seed: u64) -> Self {
        let settings = Settings {
            members,
            ..Settings::default()
        };
        let cluster = Etcd::new(settings, seed);
        let view = ClusterView {
            term: Term(cluster.term()),
            revision: surus_core::types::Revision(cluster.revision()),
            ..ClusterView::default()
        };
        Self {
            seen: cluster.revision(),
            cluster,
            view,
            hosts: vec![None; members],
            slow: vec![(0, 0); members],
            split: 0,
            process: vec![0; members],
            calls: BTreeMap::new(),
            watches: BTreeMap::new(),
            relink: 0,
            scheduled: Time::MAX,
            told: None,
            out: Vec::new(),
        }
    }

    /// How many members.
    #[must_use]
    pub fn members(&self) -> usize {
        self.process.len()
    }

    /// A member runs on the host of a node.
    pub(super) fn settle(&mut self, member: usize, node: usize) {
        self.hosts[member] = Some(node);
    }

    /// The members that run on the host of a node.
    fn on(&self, node: usize) -> Vec<usize> {
        let all = 0..self.members();
        all.filter(|member| self.hosts[*member] == Some(node)).collect()
    }
}

/// The part of an agent that speaks to etcd.
#[derive(Debug)]
pub struct Adapter {
    pool: Pool,
    lease: Option<OwnLease>,
    works: BTreeMap<ActionId, Work>,
    follower: Follower,
}

impl Adapter {
    /// The adapter of a new agent, which asks `first` first.
    #[must_use]
    pub fn new(members: usize, first: usize) -> Self {
        Self {
            pool: Pool::new(members, first),
            lease: None,
            works: BTreeMap::new(),
            follower: Follower::default(),
        }
    }

    fn worker<'a>(
        &'a mut self,
        node: usize,
        names: &'a [NodeName],
        bug: Option<crate::zoo::Bug>,
        local: surus_core::types::MonoTime,
    ) -> (Worker<'a>, &'a mut BTreeMap<ActionId, Work>) {
        let worker = Worker {
            node,
            names,
            lease: &mut self.lease,
            bug,
            local,
        };
        (worker, &mut self.works)
    }
}

impl World {
    /// Begins an order to etcd.
    pub(crate) fn begin_rpc(&mut self, node: usize, action: Action) {
        let tags = &self.hosts[node].tags;
        let member = match &action.order {
            Order::WriteMember(record) => Some(Member {
                conn_url: format!("postgres://{}:5432/postgres", self.names[node]),
                api_url: format!("http://{}:8008/patroni", self.names[node]),
                state: record.state.to_owned(),
                role: record.role.to_owned(),
                position: record.position,
                timeline: record.timeline,
                checkpoint_after_promote: record.checkpoint_after_promote,
                nofailover: tags.nofailover,
                failover_priority: tags.failover_priority,
                clonefrom: tags.clonefrom,
                replicatefrom: tags.replicatefrom.as_ref().map(|name| NodeName(name.0.clone())),
                nostream: tags.nostream,
                nosync: tags.nosync || record.nosync,
                sync_priority: tags.sync_priority,
                surus: true,
                pause: record.pause,
            }),
            _ => None,
        };
        let patience = if action.order.lane() == Lane::Lock {
            // As `Limits::lock` has it: an answer that is lost must leave time for several more before the right ends.
            PATIENCE.min((self.hosts[node].settings.ttl * SEC / 5).max(SEC))
        } else {
            PATIENCE
        };
        self.begin_work(node, action.id, action.order, member, patience);
    }

    fn begin_work(
        &mut self,
        node: usize,
        id: ActionId,
        order: Order,
        member: Option<Member>,
        patience: Time,
    ) {
        let (deadline, local, bug) = (self.now + patience, self.local(node), self.bug);
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let (mut worker, works) = agent.dcs.worker(node, &self.names, bug, local);
        let work = Work::new(id, order, member, deadline, &mut worker);
        works.insert(id, work);
        self.ask_etcd(node, id, 0);
    }

    /// etcd may have something to do, or to say; and the record learns what is agreed.
    pub(crate) fn etcd_follow(&mut self) {
        self.record_agreed();
        let out = std::mem::take(&mut self.etcd.out);
        for output in out {
            self.carry_back(output);
        }
        let due = self.etcd.cluster.next_deadline();
        if due < self.etcd.scheduled {
            self.etcd.scheduled = due;
            let wait = due.saturating_sub(self.now);
            self.after(wait, Event::EtcdTick);
        }
    }

    /// A tick that stood in the queue.
    pub(crate) fn etcd_tick(&mut self) {
        if self.etcd.scheduled <= self.now {
            self.etcd.scheduled = Time::MAX;
        }
        let (now, etcd) = (self.now, &mut self.etcd);
        etcd.cluster.tick(now, &mut etcd.out);
        self.etcd_follow();
    }
}
