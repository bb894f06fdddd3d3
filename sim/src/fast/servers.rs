//! What PostgreSQL and the guards do by themselves, and the clients beside each server.

use std::collections::BTreeSet;
use std::time::Duration;

use surus_core::input::Input;
use surus_core::types::{Lsn, Timeline};

use crate::clock::MS;
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::model::postgres::simple::{RECORD, Server0};
use crate::net::Place;
use crate::record::{End, Rebuild, Seen, Standing};
use crate::zoo::Bug;

impl World {
    /// The members that stream from a node, as it sees it.
    pub(crate) fn streaming_to(&self, node: usize) -> BTreeSet<String> {
        let streams = |other: &usize| {
            let pg = &self.hosts[*other].pg;
            *other != node && pg.streaming && pg.upstream == Some(node) && pg.server == Server0::Replica
        };
        (0..self.hosts.len())
            .filter(streams)
            .map(|other| self.names[other].0.clone())
            .collect()
    }

    /// The server of a node is gone; its guard says so.
    pub(crate) fn pg_exited(&mut self, node: usize, how: End) {
        let standing = self.standing(node);
        self.see(node, Seen::Ended { how, standing });
        self.cut_sessions(node);
        let input = if self.hosts[node].guard.is_some() {
            Input::PostgresExited
        } else {
            Input::GuardLost
        };
        self.hear(node, input);
    }

    /// What is in a node's data directory, if that is complete.
    #[must_use]
    pub fn standing(&self, node: usize) -> Option<Standing> {
        self.hosts[node].pg.cluster().map(|cluster| Standing {
            system_id: cluster.system_id,
            timeline: Timeline(cluster.wal.timeline()),
            position: Lsn(cluster.wal.end),
        })
    }

    /// From where on no other member's disk has this node's WAL.
    fn alone(&self, node: usize) -> Option<Lsn> {
        let own = self.hosts[node].pg.cluster()?;
        let others = (0..self.hosts.len()).filter(|other| *other != node);
        let shared = others
            .filter_map(|other| self.hosts[other].pg.cluster())
            .filter(|other| other.system_id == own.system_id)
            .map(|other| own.wal.common(&other.wal))
            .max()
            .unwrap_or(0);
        (shared < own.wal.end).then_some(Lsn(shared))
    }

    /// A data directory is about to be given up for another's.
    pub(crate) fn tell_discard(&mut self, node: usize, source: Option<usize>, how: Rebuild) {
        let theirs = source.and_then(|source| self.standing(source));
        if let Some(own) = self.standing(node) {
            let alone = self.alone(node);
            let seen = Seen::Discarded {
                how,
                source,
                own,
                theirs,
                alone,
            };
            self.see(node, seen);
        }
    }

    /// The control file shows a checkpoint.
    pub(crate) fn tell_checkpoint(&mut self, node: usize) {
        if let Some(cluster) = self.hosts[node].pg.cluster() {
            let (timeline, position) = (Timeline(cluster.checkpoint_timeline), Lsn(cluster.checkpoint));
            self.see(node, Seen::Checkpointed { timeline, position });
        }
    }

    /// Kills the server of a node.
    pub(crate) fn kill_postgres(&mut self, node: usize, how: End) {
        if self.hosts[node].pg.alive() {
            self.hosts[node].pg.kill();
            self.pg_exited(node, how);
        }
    }

    pub(crate) fn pg_ready(&mut self, node: usize, server: u64) {
        let pg = &mut self.hosts[node].pg;
        if pg.epoch != server {
            return;
        }
        if pg.hung {
            self.after(100 * MS, Event::PgReady(node, server));
            return;
        }
        pg.ready();
        let primary = pg.server == Server0::Primary;
        if primary {
            self.unpark(node);
        }
        if let Some(standing) = self.standing(node) {
            self.see(node, Seen::Up { primary, standing });
        }
    }

    /// A server that was stopped goes on.
    pub(crate) fn pg_thaw(&mut self, node: usize, server: u64) {
        let pg = &mut self.hosts[node].pg;
        if pg.epoch == server && pg.hung {
            pg.hung = false;
            self.see(node, Seen::Hung { hung: false });
            self.serve_waiting(node);
            self.unpark(node);
        }
    }

    /// A checkpoint that nobody asked for is done.
    pub(crate) fn pg_checkpoint(&mut self, node: usize, server: u64) {
        let pg = &mut self.hosts[node].pg;
        if pg.epoch == server && pg.server == Server0::Primary {
            pg.checkpoint();
            self.tell_checkpoint(node);
        }
    }

    /// A replica has replayed what it has.
    pub(crate) fn pg_replay(&mut self, node: usize, server: u64) {
        let pg = &mut self.hosts[node].pg;
        if pg.epoch == server
            && !pg.hung
            && pg.server == Server0::Replica
            && let Some(cluster) = pg.cluster_mut()
        {
            cluster.replayed = cluster.wal.end;
        }
    }

    pub(crate) fn pg_promoted(&mut self, node: usize, server: u64, above: u32) {
        let careless = self.bug == Some(Bug::TimelineNotReserved);
        let pg = &mut self.hosts[node].pg;
        if pg.epoch != server || pg.server != Server0::Replica || pg.closing {
            return;
        }
        if pg.hung {
            self.after(100 * MS, Event::PgPromoted(node, server, above));
            return;
        }
        let Some(cluster) = pg.cluster_mut() else { return };
        let parent = cluster.wal.timeline();
        let timeline = if careless { parent } else { parent.max(above) } + 1;
        let start = cluster.wal.end;
        cluster.wal.segments.push((timeline, start));
        cluster.wal.end += RECORD;
        cluster.replayed = cluster.wal.end;
        cluster.state = surus_core::view::ControlState::InProduction;
        let system_id = cluster.system_id;
        pg.server = Server0::Primary;
        pg.streaming = false;
        pg.upstream = None;
        let checkpoint = self.rng.range(20, 60) * 1000 * MS;
        self.after(checkpoint, Event::PgCheckpoint(node, server));
        self.record.checker.promoted(node, system_id, timeline);
        self.unpark(node);
        if let Some(standing) = self.standing(node) {
            let (from, switch) = (Timeline(parent), Lsn(start));
            let seen = Seen::Promoted {
                from,
                switch,
                standing,
            };
            self.see(node, seen);
        }
    }

    pub(crate) fn pg_stopped(&mut self, node: usize, server: u64, fast: bool) {
        let pg = &mut self.hosts[node].pg;
        if pg.epoch != server {
            return;
        }
        if !fast {
            self.kill_postgres(node, End::ImmediateStop);
            return;
        }
        if pg.hung {
            self.after(100 * MS, Event::PgStopped(node, server, fast));
            return;
        }
        if pg.server == Server0::Primary {
            pg.shutdown_checkpoint();
            // A fast stop waits until the standbys that are connected have everything.
            for other in 0..self.hosts.len() {
                if self.hosts[other].pg.upstream == Some(node) && !self.rng.one_in(10) {
                    self.stream(other);
                }
            }
        }
        self.hosts[node].pg.stopped_fast();
        self.pg_exited(node, End::FastStop);
    }

    /// A replica takes what its upstream has, if both are on one history.
    pub(crate) fn stream(&mut self, node: usize) {
        let pg = &self.hosts[node].pg;
        let Some(upstream) = pg.upstream.filter(|_| pg.server == Server0::Replica && !pg.hung) else {
            return;
        };
        let connected = self
            .net
            .connected(self.now, Place::Node(node), Place::Node(upstream));
        if !connected || upstream == node {
            // Nobody tells a walreceiver that the other end is gone.
            return;
        }
        let source = &self.hosts[upstream].pg;
        let still = self.now < self.hosts[upstream].still;
        let serves = matches!(source.server, Server0::Primary | Server0::Replica) && !source.hung && !still;
        let known = match (source.cluster(), pg.cluster()) {
            (Some(theirs), Some(own)) => {
                serves && theirs.system_id == own.system_id && theirs.wal.contains(&own.wal)
            }
            _ => false,
        };
        let wal = source
            .cluster()
            .filter(|_| known)
            .map(|theirs| theirs.wal.clone());
        let delay = self.rng.range(MS / 2, 15 * MS);
        let pg = &mut self.hosts[node].pg;
        let news = pg.streaming != known;
        pg.streaming = known;
        if let Some(wal) = wal {
            pg.received = true;
            if let Some(own) = pg.cluster_mut() {
                own.wal = wal;
            }
            let epoch = pg.epoch;
            self.after(delay, Event::Replay(node, epoch));
        }
        if news {
            let seen = match self.standing(node).filter(|_| known) {
                Some(standing) => Seen::Streaming { upstream, standing },
                None => Seen::StreamLost,
            };
            self.see(node, seen);
        }
    }

    /// The guard's deadline has passed.
    pub(crate) fn guard_due(&mut self, node: usize, version: u64) {
        let frozen = self.hosts[node].guard_frozen;
        if self.now < frozen {
            self.after(frozen - self.now + 1, Event::GuardDue(node, version));
            return;
        }
        let due = self.hosts[node]
            .guard
            .as_ref()
            .is_some_and(|guard| guard.version == version && guard.deadline.is_some());
        let local = self.local(node);
        let host = &self.hosts[node];
        if due
            && self.bug.is_none()
            && host.frozen <= self.now
            && !host.settings.pause
            && host.pg.alive()
            && let Some(agent) = &host.agent
            && local.plus(Duration::from_secs(1)) < agent.core.explain().right_until()
            && agent
                .core
                .explain()
                .decision
                .is_some_and(|last| Duration::from_millis(50) < local.since(last.at))
        {
            let name = host.name.clone();
            self.record.checker.fail(format!(
                "L2: the guard of {name} kills although the right runs for another second"
            ));
        }
        if due && self.bug != Some(Bug::GuardAsleep) {
            self.kill_postgres(node, End::ByGuard);
        }
    }
}
