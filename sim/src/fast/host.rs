//! A member's host: its clock, its agent, its PostgreSQL and its guard, and what the agent has under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use surus_core::decision::Decision;
use surus_core::node::Node;
use surus_core::types::{ActionId, Generation, MonoTime, NodeName};
use surus_core::view::PostgresView;
use surus_scenarios::{Member, Settings, Tags};

use crate::clock::{Clock, SEC, Time};
use crate::fast::dcs::Adapter;
use crate::fast::event::Event;
use crate::fast::look::Memory;
use crate::fast::orders::Tool;
use crate::fast::rivals::Rivalry;
use crate::fast::story::{Mishap, Trouble};
use crate::model::guard::Guard;
use crate::model::postgres::sync::SyncNames;
use crate::model::postgres::{Point, Server, Txn};
use crate::record::Deed;
use crate::rng::Rng;

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// Its core.
    pub core: Node,
    /// Which agent of its node this is.
    pub epoch: u64,
    /// Its part that speaks to etcd.
    pub dcs: Adapter,
    /// The youngest reign its executor has seen.
    pub newest: Generation,
    /// The order to PostgreSQL that it carries out.
    pub postgres: Option<ActionId>,
    /// When a restart that is under way loses its patience with the stop.
    pub restart_until: MonoTime,
    /// Questions to peers that are not answered yet.
    pub asks: BTreeMap<(u64, usize), MonoTime>,
    /// The failsafe round under way.
    pub round: Option<Round>,
    /// Orders that have begun and not ended.
    pub under_way: BTreeMap<ActionId, Deed>,
    /// When the core asked to be called.
    pub(crate) wake: Time,
    /// When the timer goes off that is set; never, if none is.
    pub(crate) alarm: Time,
    pub(crate) said: Option<Decision>,
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
    /// The whole host stands still until then; its clock goes on.
    pub still: Time,
    /// Operations of clients that wait for a server that hangs.
    pub waiting: Vec<(usize, u64)>,
    /// It has power.
    pub powered: bool,
    /// PostgreSQL.
    pub pg: Server,
    /// When it wants to be called next, and the entry of the record that this is an effect of.
    pub(crate) ticking: (Time, Option<u64>),
    /// What the agent remembers of it.
    pub(crate) memory: Memory,
    /// The mark beside the data directory: a bootstrap was begun there and has not ended.
    pub(crate) making: bool,
    /// A tool at work on the data directory.
    pub(crate) tool: Option<Tool>,
    /// Since when the order under way waits for something.
    pub(crate) waits: Option<Time>,
    /// Commits under way: whose operation each is.
    pub(crate) commits: BTreeMap<Txn, (usize, u64)>,
    /// The guard.
    pub guard: Option<Guard>,
    /// The deadline of its guard that the record knows, in world time.
    pub armed: Option<Time>,
    /// Steps of PostgreSQL that are to be slow or to fail.
    pub troubles: Vec<Trouble>,
    /// What is to befall its requests to etcd.
    pub mishaps: Vec<Mishap>,
    /// Until the first time, what its agent hears and does comes late, by up to the second.
    pub starved: (Time, Time),
    /// The guard is stopped until then.
    pub guard_frozen: Time,
    /// The right to be primary ends here by all that was truly confirmed or granted, counted from when that was sent.
    pub right: Time,
    /// What is remembered for the question who else could have led.
    pub(crate) rivalry: Rivalry,
    /// For what ttl it promised to keep still when it last granted.
    pub promises: Duration,
    /// A server that a planted bug says is gone.
    pub denied: Option<u64>,
    /// What a planted bug answers the next look with.
    pub looked: Option<PostgresView>,
    /// How long a planted bug lets the guard's clock stand still.
    pub slept: Time,
    /// The deadline, by its version, that a planted bug has let pass.
    pub overdue: u64,
    /// The watch is silent until then.
    pub deaf: Time,
    /// Its watch hangs on this member of etcd only, until then.
    pub pinned: Option<(usize, Time)>,
    /// Clients are kept out of its server until standbys have this.
    pub(crate) gate: Option<Point>,
    /// `synchronous_standby_names` was written by its agent.
    pub managed: bool,
    /// By whom its server may acknowledge commits, as the record knows.
    pub(crate) acknowledging: Vec<SyncNames>,
    /// The settings that it knows of.
    pub settings: Settings,
    /// Its tags.
    pub tags: Tags,
    /// Start the agent again after its orderly end.
    pub again: Option<Time>,
    pub(crate) deferred: Vec<Event>,
}

impl Host {
    /// A host that has just come up, with nothing on it but its supervisor.
    #[must_use]
    pub fn new(member: &Member, settings: &Settings, pg: Server, rng: &mut Rng) -> Self {
        let offset = rng.range(1, 1000) * SEC;
        // Below the core's bound of a thousand, which is for two clocks together with etcd's.
        let drift = i64::try_from(rng.below(1600)).unwrap_or(0) - 800;
        Self {
            name: NodeName(member.name.0.clone()),
            clock: Clock::new(offset, member.tags.drift_ppm.unwrap_or(drift)),
            agent: None,
            epoch: 0,
            frozen: 0,
            still: 0,
            waiting: Vec::new(),
            powered: true,
            pg,
            ticking: (Time::MAX, None),
            memory: Memory::default(),
            making: false,
            tool: None,
            waits: None,
            commits: BTreeMap::new(),
            guard: None,
            armed: None,
            troubles: Vec::new(),
            mishaps: Vec::new(),
            starved: (0, 0),
            guard_frozen: 0,
            right: 0,
            rivalry: Rivalry::default(),
            promises: Duration::ZERO,
            denied: None,
            looked: None,
            slept: 0,
            overdue: 0,
            deaf: 0,
            pinned: None,
            gate: None,
            managed: false,
            acknowledging: Vec::new(),
            settings: settings.clone(),
            tags: member.tags.clone(),
            again: None,
            deferred: Vec::new(),
        }
    }
}

/// A failsafe round under way.
#[derive(Debug, Clone)]
pub struct Round {
    /// The order.
    pub id: ActionId,
    /// Its questions.
    pub question: u64,
    /// For how long they ask.
    pub ttl: Duration,
    /// When they were sent.
    pub sent: MonoTime,
    /// Whom.
    pub asked: BTreeSet<usize>,
    /// Who granted.
    pub granted: BTreeSet<NodeName>,
    /// Who did not.
    pub refused: BTreeSet<NodeName>,
    /// Of whom it is known that they granted, did not, or are not there.
    pub heard: BTreeSet<usize>,
    /// Who granted in answer to this round's own question.
    pub truly: BTreeSet<usize>,
    /// The shortest ttl for which one of them has promised to keep still.
    pub promised: Option<Duration>,
}
