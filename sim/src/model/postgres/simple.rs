//! PostgreSQL: a data directory with a history of timelines, and a server on it.
//!
//! WAL is the list of timelines with where each begins, and the end. A timeline is named by its number *and* its beginning, so that
//! one history is a prefix of another exactly if the lists say so; what was written where follows from that.
//! Modelled: crash recovery, streaming along common histories only, the shutdown checkpoint, promotion that is finished after it was asked
//! for, the control file that shows the new timeline only after a checkpoint, hung servers (incidents.md, section I: 4, 5, 6, 7, 8).

use std::collections::{BTreeMap, BTreeSet};

use surus_core::types::{Lsn, SystemId, Timeline};
use surus_core::view::{
    ControlData, ControlState, DataDir, HistoryLine, PostgresView, Process, Server, ServerRole,
};

/// Bytes of one write, of a checkpoint, and of an end-of-recovery record.
pub const RECORD: u64 = 100;

/// A history of WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wal {
    /// Each timeline with the position where it begins, oldest first.
    pub segments: Vec<(u32, u64)>,
    /// The end of what is on disk.
    pub end: u64,
}

impl Wal {
    /// The last timeline.
    #[must_use]
    pub fn timeline(&self) -> u32 {
        self.segments.last().map_or(1, |(timeline, _)| *timeline)
    }

    /// The timeline that the byte before `position` belongs to.
    #[must_use]
    pub fn timeline_at(&self, position: u64) -> u32 {
        self.segments
            .iter()
            .rev()
            .find(|(_, start)| *start < position)
            .or(self.segments.first())
            .map_or(1, |(timeline, _)| *timeline)
    }

    /// All of `other` is in this one.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let common = other.segments.len();
        if self.segments.get(..common) != Some(&other.segments[..]) {
            return false;
        }
        let limit = self.segments.get(common).map_or(self.end, |(_, start)| *start);
        other.end <= limit
    }

    /// How far this history and the other are one.
    #[must_use]
    pub fn common(&self, other: &Self) -> u64 {
        let pairs = self.segments.iter().zip(&other.segments);
        let same = pairs.take_while(|(own, theirs)| own == theirs).count();
        if same == 0 {
            return 0;
        }
        let limit = |wal: &Self| wal.segments.get(same).map_or(wal.end, |(_, start)| *start);
        limit(self).min(limit(other))
    }

    /// The timelines that ended.
    #[must_use]
    pub fn history(&self) -> Vec<HistoryLine> {
        self.segments
            .windows(2)
            .map(|pair| HistoryLine {
                timeline: Timeline(pair[0].0),
                switch: Lsn(pair[1].1),
                reason: "no recovery target specified".to_owned(),
                at: None,
                leader: None,
            })
            .collect()
    }
}

/// A complete data directory.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Whose it is.
    pub system_id: SystemId,
    /// What was written.
    pub wal: Wal,
    /// How far a replica has replayed.
    pub replayed: u64,
    /// The control file's state.
    pub state: ControlState,
    /// The control file's timeline.
    pub checkpoint_timeline: u32,
    /// The control file's position.
    pub checkpoint: u64,
}

/// The data directory.
#[derive(Debug, Clone)]
pub enum Data {
    /// Nothing.
    Empty,
    /// Half of something.
    Incomplete,
    /// A cluster.
    Present(Cluster),
}

/// The server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server0 {
    /// None.
    Absent,
    /// On its way up.
    Starting {
        /// To accept writes.
        as_primary: bool,
    },
    /// In recovery.
    Replica,
    /// Accepts writes.
    Primary,
}

/// One node's PostgreSQL.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// On disk.
    pub data: Data,
    /// In memory.
    pub server: Server0,
    /// Stopped by SIGSTOP, or in a wait that does not end.
    pub hung: bool,
    /// A fast stop has cut off the clients.
    pub closing: bool,
    /// Counts servers, so that what was meant for an old one is known.
    pub epoch: u64,
    /// The node it follows.
    pub upstream: Option<usize>,
    /// A walreceiver streams.
    pub streaming: bool,
    /// Something was received since the start.
    pub received: bool,
    /// Physical slots.
    pub slots: BTreeSet<String>,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            data: Data::Empty,
            server: Server0::Absent,
            hung: false,
            closing: false,
            epoch: 0,
            upstream: None,
            streaming: false,
            received: false,
            slots: BTreeSet::new(),
        }
    }
}

impl Postgres {
    /// The cluster on disk.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        match &self.data {
            Data::Present(cluster) => Some(cluster),
            Data::Empty | Data::Incomplete => None,
        }
    }

    /// The cluster on disk.
    pub fn cluster_mut(&mut self) -> Option<&mut Cluster> {
        match &mut self.data {
            Data::Present(cluster) => Some(cluster),
            Data::Empty | Data::Incomplete => None,
        }
    }

    /// A postmaster exists.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.server != Server0::Absent
    }

    /// It answers queries.
    #[must_use]
    pub fn answers(&self) -> bool {
        !self.hung && !self.closing && matches!(self.server, Server0::Replica | Server0::Primary)
    }

    /// It accepts writes.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.server == Server0::Primary && !self.hung && !self.closing
    }

    /// The server is gone, whatever it was doing.
    pub fn kill(&mut self) {
        self.server = Server0::Absent;
        self.hung = false;
        self.closing = false;
        self.streaming = false;
        self.received = false;
        self.epoch += 1;
    }

    /// A postmaster begins.
    pub fn start(&mut self, as_primary: bool, upstream: Option<usize>) {
        self.epoch += 1;
        self.server = Server0::Starting { as_primary };
        self.hung = false;
        self.closing = false;
        self.streaming = false;
        self.received = false;
        self.upstream = upstream;
        if let Data::Present(cluster) = &mut self.data {
            let was_clean_primary = cluster.state == ControlState::ShutDown;
            cluster.state = match (as_primary, was_clean_primary) {
                (true, _) => ControlState::InCrashRecovery,
                (false, _) => ControlState::InArchiveRecovery,
            };
        }
    }

    /// Recovery is over (or, for a replica, consistent).
    pub fn ready(&mut self) {
        let Server0::Starting { as_primary } = self.server else {
            return;
        };
        self.server = if as_primary {
            Server0::Primary
        } else {
            Server0::Replica
        };
        if let Data::Present(cluster) = &mut self.data {
            cluster.replayed = cluster.wal.end;
            if as_primary {
                cluster.state = ControlState::InProduction;
                cluster.checkpoint = cluster.wal.end;
                cluster.checkpoint_timeline = cluster.wal.timeline();
                cluster.wal.end += RECORD;
                cluster.replayed = cluster.wal.end;
            }
        }
    }

    /// The end of a fast stop.
    pub fn stopped_fast(&mut self) {
        let primary = self.server == Server0::Primary;
        let starting = matches!(self.server, Server0::Starting { .. });
        if let Data::Present(cluster) = &mut self.data
            && !starting
        {
            cluster.checkpoint_timeline = cluster.wal.timeline_at(cluster.replayed);
            if primary {
                cluster.state = ControlState::ShutDown;
                cluster.checkpoint_timeline = cluster.wal.timeline();
            } else {
                cluster.state = ControlState::ShutDownInRecovery;
                cluster.checkpoint = cluster.replayed;
            }
        }
        self.kill();
    }

    /// A primary writes its shutdown checkpoint; the position is its start.
    pub fn shutdown_checkpoint(&mut self) {
        if let Data::Present(cluster) = &mut self.data {
            cluster.checkpoint = cluster.wal.end;
            cluster.wal.end += RECORD;
            cluster.replayed = cluster.wal.end;
        }
    }

    /// A checkpoint: the control file shows the present timeline.
    pub fn checkpoint(&mut self) {
        if let Data::Present(cluster) = &mut self.data {
            cluster.checkpoint_timeline = cluster.wal.timeline();
            cluster.checkpoint = cluster.wal.end;
            cluster.wal.end += RECORD;
            cluster.replayed = cluster.wal.end;
        }
    }

    /// What a probe sees.
    #[must_use]
    pub fn look(
        &self,
        names: &[surus_core::types::NodeName],
        streaming_to: BTreeSet<String>,
    ) -> PostgresView {
        let data = match &self.data {
            Data::Empty => DataDir::Empty,
            Data::Incomplete => DataDir::Incomplete("half a copy".to_owned()),
            Data::Present(cluster) => DataDir::Present(ControlData {
                system_id: cluster.system_id,
                state: cluster.state,
                timeline: Timeline(cluster.checkpoint_timeline),
                position: Lsn(cluster.checkpoint),
                rewindable: true,
            }),
        };
        let process = match self.server {
            Server0::Absent => Process::Absent,
            Server0::Starting { as_primary } if !self.hung => Process::Starting { as_primary },
            Server0::Starting { as_primary } => Process::Unresponsive {
                may_write: as_primary,
            },
            Server0::Primary | Server0::Replica if self.hung || self.closing => Process::Unresponsive {
                may_write: self.server == Server0::Primary,
            },
            Server0::Primary | Server0::Replica => match self.cluster() {
                Some(cluster) => Process::Running(self.describe(cluster, names, streaming_to)),
                None => Process::Absent,
            },
        };
        PostgresView { data, process }
    }

    fn describe(
        &self,
        cluster: &Cluster,
        names: &[surus_core::types::NodeName],
        streaming_to: BTreeSet<String>,
    ) -> Server {
        let primary = self.server == Server0::Primary;
        let (role, timeline) = if primary {
            let written = Lsn(cluster.wal.end);
            (ServerRole::Primary { written }, cluster.wal.timeline())
        } else {
            let role = ServerRole::Replica {
                received: self.received.then_some(Lsn(cluster.wal.end)),
                replayed: Lsn(cluster.replayed),
                streaming: self.streaming,
            };
            (role, cluster.wal.timeline_at(cluster.replayed))
        };
        Server {
            role,
            timeline: Timeline(timeline),
            system_id: cluster.system_id,
            version: 150_018,
            guarded: true,
            streaming_to,
            slots: self
                .slots
                .iter()
                .map(|slot| (slot.clone(), Lsn(cluster.replayed)))
                .collect::<BTreeMap<_, _>>(),
            history: cluster.wal.history(),
            upstream: self
                .upstream
                .filter(|_| !primary)
                .map(|node| format!("{}:5432", names[node])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_contains_its_prefixes_only() {
        let wal = |segments: &[(u32, u64)], end| Wal {
            segments: segments.to_vec(),
            end,
        };
        let long = wal(&[(1, 0), (2, 500)], 900);
        assert!(long.contains(&wal(&[(1, 0)], 500)));
        assert!(!long.contains(&wal(&[(1, 0)], 600)), "it went on past the fork");
        assert!(long.contains(&wal(&[(1, 0), (2, 500)], 700)));
        assert!(
            !long.contains(&wal(&[(1, 0), (2, 400)], 450)),
            "the same number, another timeline"
        );
        assert_eq!((long.timeline_at(500), long.timeline_at(501)), (1, 2));
    }
}
