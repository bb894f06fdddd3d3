//! What an agent's probe makes of its PostgreSQL: the answer to its one query if there is one, else files and processes.

use surus_core::sync::Names;
use surus_core::types::{Generation, Lsn, MonoTime, SystemId, Timeline};
use surus_core::view::{ControlData, ControlState, DataDir, Fork, PostgresView, Process, Server, ServerRole};

use crate::clock::{MS, SEC, Time};
use crate::fast::world::World;
use crate::model::postgres::probe::Probe;
use crate::model::postgres::timeline::Histories;
use crate::model::postgres::{self, Refusal};

/// How long a look at a server that does not answer takes.
pub(crate) const UNANSWERED: Time = SEC;

/// Between two questions for the timeline that a server without a walreceiver replays, as in the adapter.
const ASKED_AGAIN: Time = 5 * SEC;

/// What an agent remembers of its server between two looks; it dies with the agent.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Whether it was a primary when it was last seen, started or promoted.
    pub primary: Option<bool>,
    /// The furthest that was received, of this cluster and timeline.
    pub received: Option<(SystemId, Timeline, Lsn)>,
    /// The deadline that the agent set last, and in which reign.
    pub deadline: Option<(MonoTime, Generation)>,
    /// The server that was asked last for the timeline it replays, and when.
    asked: Option<(u64, Time)>,
}

impl Memory {
    /// The timeline that is remembered is still the standby's own: it comes to no other without that one's history file.
    fn stays(&self, probe: &Probe, files: &Histories) -> bool {
        self.received.is_some_and(|(system_id, timeline, _)| {
            system_id == probe.control.system_id && !files.has(timeline.0 + 1)
        })
    }

    /// The standby is said to be on a timeline that goes back to less of an older one than it has replayed: it has diverged.
    fn strayed(&self, probe: &Probe, files: &Histories) -> bool {
        let control = &probe.control;
        let remembered = self
            .received
            .filter(|(system_id, ..)| *system_id == control.system_id);
        let said = probe
            .receiver_timeline
            .max(remembered.map(|(_, timeline, _)| timeline));
        let recovered = Timeline(control.min_recovery_timeline);
        said.filter(|said| recovered < *said).is_some_and(|said| {
            let mut left = files.lines(said.0).into_iter();
            left.any(|line| line.timeline == recovered && line.switch < Lsn(control.min_recovery))
        })
    }

    /// Role and timeline, with what is remembered added.
    fn learn(&mut self, probe: &Probe) -> (ServerRole, Timeline) {
        if let Some((written, timeline)) = probe.written {
            self.primary = Some(true);
            self.received = None;
            return (ServerRole::Primary { written }, timeline);
        }
        self.primary = Some(false);
        let control = &probe.control;
        let replayed = probe.replayed.unwrap_or_default();
        let known = Timeline(control.timeline.max(control.min_recovery_timeline));
        let mut timeline = known.max(probe.receiver_timeline.unwrap_or_default());
        let mut received = probe.received;
        if let Some((system_id, then, furthest)) = self.received
            && system_id == control.system_id
            && timeline <= then
        {
            timeline = then;
            received = received.max(Some(furthest));
        }
        let furthest = received.unwrap_or_default().max(replayed);
        self.received = Some((control.system_id, timeline, furthest));
        let role = ServerRole::Replica {
            received,
            replayed,
            streaming: probe.receiver == Some("streaming"),
        };
        (role, timeline)
    }
}

impl World {
    /// What the node's agent sees of PostgreSQL, with what it remembers of earlier looks.
    pub(crate) fn look(&self, node: usize, memory: &mut Memory) -> PostgresView {
        let pg = &self.hosts[node].pg;
        if pg.disk.gone {
            return PostgresView {
                data: DataDir::Empty,
                process: gone(pg, memory),
            };
        }
        // Who has asked before keeps his connection.
        let let_in = !pg.ills.crowded || memory.primary.is_some();
        match pg.probe() {
            Ok(_) if !let_in => PostgresView {
                data: self.directory(node),
                process: silent(pg, &Refusal::Silent, memory),
            },
            Ok(probe) => self.answered_look(node, pg, probe, memory),
            Err(refusal) => PostgresView {
                data: self.directory(node),
                process: silent(pg, &refusal, memory),
            },
        }
    }

    fn answered_look(
        &self,
        node: usize,
        pg: &postgres::Server,
        mut probe: Probe,
        memory: &mut Memory,
    ) -> PostgresView {
        let histories = pg.cluster().map(|cluster| &cluster.histories);
        let ignorant = probe.written.is_none() && probe.receiver_timeline.is_none();
        let stays = histories.is_some_and(|files| memory.stays(&probe, files));
        let lately = |(epoch, at): (u64, Time)| epoch == pg.epoch() && self.now < at + ASKED_AGAIN;
        if ignorant && !stays && !memory.asked.is_some_and(lately) {
            memory.asked = Some((pg.epoch(), self.now));
            probe.receiver_timeline = pg.identify().ok().map(|(_, timeline, _)| timeline);
        }
        if probe.written.is_none() && histories.is_some_and(|files| memory.strayed(&probe, files)) {
            probe.receiver_timeline = None;
            memory.received = None;
        }
        let (role, timeline) = memory.learn(&probe);
        let control = &probe.control;
        let data = match role {
            // Of a primary only the checkpoint counts: it is what pg_rewind looks at.
            ServerRole::Primary { .. } => ControlData {
                state: ControlState::InProduction,
                timeline: Timeline(control.timeline),
                position: Lsn(control.checkpoint),
                ..control.data()
            },
            ServerRole::Replica { .. } => ControlData {
                state: ControlState::InArchiveRecovery,
                ..control.data()
            },
        };
        let upstream = probe.conninfo.as_ref().map(|conninfo| conninfo.to.0 as usize);
        let idle = matches!(role, ServerRole::Replica { streaming: false, .. });
        let server = Server {
            role,
            timeline,
            system_id: probe.control.system_id,
            version: 150_018,
            guarded: true,
            standbys: probe.standbys,
            synchronous: Names::parse(&probe.synchronous),
            managed: self.hosts[node].managed,
            gated: self.hosts[node].gate.is_some(),
            slots: probe.slots,
            history: histories.map_or_else(Vec::new, |files| files.lines(timeline.0)),
            upstream: upstream
                .filter(|_| matches!(role, ServerRole::Replica { .. }))
                .and_then(|upstream| self.names.get(upstream))
                .map(|name| format!("{name}:5432")),
            slot: probe.slot,
            heard_of: histories.filter(|_| idle).and_then(|files| {
                let known = (timeline.0 + 1..).take_while(|next| files.has(*next));
                known.last().map(Timeline)
            }),
        };
        PostgresView {
            data: self.half_made(node).unwrap_or(DataDir::Present(data)),
            process: Process::Running(server),
        }
    }

    /// A cluster in the making is nobody's, whatever is in the directory.
    fn half_made(&self, node: usize) -> Option<DataDir> {
        let made = "a bootstrap";
        self.hosts[node]
            .making
            .then(|| DataDir::Incomplete(made.to_owned()))
    }

    /// The files of a server that does not answer.
    fn directory(&self, node: usize) -> DataDir {
        self.half_made(node)
            .unwrap_or_else(|| directory(&self.hosts[node].pg))
    }

    /// When a look began whose answer comes now.
    pub(crate) fn look_began(&self, node: usize) -> MonoTime {
        let took = if self.hosts[node].pg.hung() {
            UNANSWERED
        } else {
            MS / 2
        };
        self.local(node).minus(std::time::Duration::from_nanos(took))
    }
}

/// What is in a directory without a mark.
fn directory(pg: &postgres::Server) -> DataDir {
    match &pg.dir {
        postgres::DataDir::Empty => DataDir::Empty,
        postgres::DataDir::Incomplete(what) => DataDir::Incomplete(what.name().to_owned()),
        postgres::DataDir::Cluster(cluster) => {
            let data = cluster.control.data();
            let history = cluster.histories.lines(data.timeline.0);
            let fork = Fork::of(data.timeline, &history);
            let data = ControlData { fork, ..data };
            DataDir::Present(if cluster.backup_label.is_some() {
                ControlData {
                    state: ControlState::InArchiveRecovery,
                    ..data
                }
            } else {
                data
            })
        }
    }
}

fn gone(pg: &postgres::Server, memory: &Memory) -> Process {
    if pg.alive() {
        Process::Unresponsive {
            may_write: memory.primary != Some(false),
        }
    } else {
        Process::Absent
    }
}

/// What a server is doing that does not answer.
fn silent(pg: &postgres::Server, refusal: &Refusal, memory: &Memory) -> Process {
    let as_primary = pg.cluster().is_some_and(|cluster| !cluster.standby_signal);
    if !pg.alive() {
        return Process::Absent;
    }
    if *refusal == Refusal::StartingUp {
        return Process::Starting { as_primary };
    }
    // Once a stop has begun in earnest, every backend is gone.
    let closed = pg.cluster().is_some_and(|cluster| {
        matches!(
            cluster.control.state,
            ControlState::ShutDown | ControlState::ShutDownInRecovery | ControlState::ShuttingDown
        )
    });
    Process::Unresponsive {
        may_write: !closed && memory.primary.unwrap_or(as_primary),
    }
}
