//! A node that is told everything by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use surus_core::config::Config;
use surus_core::input::{Input, Outcome};
use surus_core::node::{Boot, Node};
use surus_core::sync::Names;
use surus_core::types::*;
use surus_core::view::*;
use surus_core::{Action, Lane, Order, Step};

/// A node whose orders are answered by hand, and the last order of each lane.
pub(crate) struct Story {
    pub(crate) node: Node,
    pub(crate) now: u64,
    pub(crate) orders: BTreeMap<Lane, Action>,
    pub(crate) given: Vec<Order>,
}

impl Story {
    pub(crate) fn new(config: Config) -> Self {
        Self::begun(config, Boot::default())
    }

    /// With what the guard told.
    pub(crate) fn begun(config: Config, boot: Boot) -> Self {
        let (node, step) = Node::new(config, boot, MonoTime::from_millis(100_000));
        let mut story = Self {
            node,
            now: 100_000,
            orders: BTreeMap::new(),
            given: Vec::new(),
        };
        story.note(step);
        story
    }

    pub(crate) fn note(&mut self, step: Step) {
        for action in step.actions {
            self.given.push(action.order.clone());
            self.orders.insert(action.order.lane(), action);
        }
    }

    pub(crate) fn hear(&mut self, input: Input) {
        let step = self.node.step(MonoTime::from_millis(self.now), input);
        self.note(step);
    }

    pub(crate) fn later(&mut self, millis: u64) {
        self.now += millis;
        self.hear(Input::Tick);
    }

    pub(crate) fn done(&mut self, lane: Lane, outcome: Outcome) {
        let id = self
            .orders
            .remove(&lane)
            .expect("an order of this lane is under way")
            .id;
        self.hear(Input::Done { id, outcome });
    }

    pub(crate) fn probed(&mut self, process: Process, state: ControlState) {
        if !self.orders.contains_key(&Lane::Probe) {
            self.later(1000);
        }
        let view = PostgresView {
            data: DataDir::Present(ControlData {
                system_id: SystemId(1),
                state,
                timeline: Timeline(1),
                position: Lsn(1000),
                rewindable: true,
                fork: None,
            }),
            process,
        };
        let at = MonoTime::from_millis(self.now);
        self.done(Lane::Probe, Outcome::Probed { at, view });
    }

    pub(crate) fn read(&mut self, view: ClusterView) {
        if !self.orders.contains_key(&Lane::Read) {
            self.later(1000);
        }
        let sent = MonoTime::from_millis(self.now);
        self.done(Lane::Read, Outcome::Read { sent, view });
    }

    pub(crate) fn locked(&mut self, revision: i64) {
        let sent = MonoTime::from_millis(self.now);
        let outcome = Outcome::Locked {
            sent,
            lease: LeaseId(7),
            term: Term(1),
            revision: Revision(revision),
            written: Some(Revision(revision)),
        };
        self.done(Lane::Lock, outcome);
    }

    /// Answers a renewal, if one is under way.
    pub(crate) fn locked_if_asked(&mut self, revision: i64) {
        if self.orders.contains_key(&Lane::Lock) {
            self.locked(revision);
        }
    }

    /// Answers what is under way in this lane, if anything is.
    pub(crate) fn finish(&mut self, lane: Lane) {
        if self.orders.contains_key(&lane) {
            self.done(lane, Outcome::Ok);
        }
    }

    /// The stop that was ordered has ended, with this shutdown checkpoint.
    pub(crate) fn stopped(&mut self, checkpoint: u64) {
        let checkpoint = Some(Lsn(checkpoint));
        self.done(Lane::Postgres, Outcome::Stopped { checkpoint });
        self.probed(Process::Absent, ControlState::ShutDown);
    }

    pub(crate) fn right_left(&self) -> Duration {
        self.node
            .explain()
            .right_until()
            .since(MonoTime::from_millis(self.now))
    }

    pub(crate) fn under_way(&self, lane: Lane) -> Option<&Order> {
        self.orders.get(&lane).map(|action| &action.order)
    }
}

/// `a`, with the paces that most people have.
pub(crate) fn usual_paces() -> Config {
    Config {
        loop_wait: Duration::from_secs(10),
        ttl: Duration::from_secs(30),
        ..Config::new("a".into())
    }
}

pub(crate) fn member(name: &str, role: &str) -> (NodeName, Arc<Member>) {
    let member = Member {
        conn_url: format!("postgres://{name}:5432/postgres"),
        api_url: format!("http://{name}:8008/patroni"),
        state: "running".to_owned(),
        role: role.to_owned(),
        timeline: Some(Timeline(1)),
        ..Member::default()
    };
    (name.into(), Arc::new(member))
}

/// The cluster of `a` (this node) and `b`, led by `leader`.
pub(crate) fn view(revision: i64, leader: Option<&str>, status_revision: i64) -> ClusterView {
    ClusterView {
        revision: Revision(revision),
        initialize: Some(Initialize::Done(SystemId(1))),
        config_revision: Some(Revision(1)),
        leader: leader.map(|name| LeaderKey {
            name: name.into(),
            lease: Some(LeaseId(7)),
            created: Revision(5),
        }),
        members: BTreeMap::from([member("a", "replica"), member("b", "primary")]),
        status: Some(Arc::new(Status {
            ttl: Some(Duration::from_secs(5)),
            timeline: Some(Timeline(1)),
            ..Status::default()
        })),
        status_revision: Revision(status_revision),
        ..ClusterView::default()
    }
}

/// What `status` says, and nobody is a member of Patroni.
pub(crate) fn said(mut view: ClusterView, change: impl FnOnce(&mut Status)) -> ClusterView {
    for member in view.members.values_mut() {
        Arc::make_mut(member).surus = true;
    }
    if let Some(status) = &mut view.status {
        change(Arc::make_mut(status));
    }
    view
}

pub(crate) fn server(role: ServerRole) -> Process {
    Process::Running(Server {
        role,
        timeline: Timeline(1),
        system_id: SystemId(1),
        version: 150_018,
        guarded: true,
        standbys: BTreeMap::new(),
        synchronous: Names::Alone,
        managed: false,
        gated: false,
        slots: BTreeMap::new(),
        history: Vec::new(),
        upstream: Some("b:5432".to_owned()),
        slot: Some("a".to_owned()),
        heard_of: None,
    })
}

pub(crate) fn replica() -> Process {
    server(ServerRole::Replica {
        received: Some(Lsn(1000)),
        replayed: Lsn(1000),
        streaming: true,
    })
}

pub(crate) fn primary() -> Process {
    server(ServerRole::Primary { written: Lsn(1000) })
}

/// A primary with the standby `b` at this position.
pub(crate) fn serves(position: u64, change: impl FnOnce(&mut Server)) -> Process {
    let Process::Running(mut server) = primary() else {
        unreachable!()
    };
    let standby = Standby {
        streaming: true,
        position: Lsn(position),
        doubled: false,
    };
    server.standbys.insert("b".to_owned(), standby);
    change(&mut server);
    Process::Running(server)
}

/// What the agent of a running replica answers.
pub(crate) fn answers(timeline: u32, position: u64, can_take_lock: Option<bool>) -> PeerStatus {
    PeerStatus {
        running: true,
        primary: false,
        position: Some(Lsn(position)),
        timeline: Some(Timeline(timeline)),
        nofailover: false,
        failover_priority: 1,
        stands: None,
        can_take_lock,
    }
}

/// A line of history: where that timeline was left.
pub(crate) fn line(timeline: u32, switch: u64) -> HistoryLine {
    HistoryLine {
        timeline: Timeline(timeline),
        switch: Lsn(switch),
        reason: String::new(),
        at: None,
        leader: None,
    }
}
