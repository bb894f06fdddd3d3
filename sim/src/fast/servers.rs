//! What PostgreSQL and the guards do by themselves, and the clients beside each server.

use std::collections::BTreeSet;
use std::time::Duration;

use surus_core::input::Input;

use crate::clock::{MS, Time};
use crate::fast::world::{Event, World};
use crate::model::postgres::{RECORD, Server0};
use crate::net::Place;
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
    pub(crate) fn pg_exited(&mut self, node: usize, why: &str) {
        self.say(Some(node), format_args!("PostgreSQL ended: {why}"));
        let input = if self.hosts[node].guard.is_some() {
            Input::PostgresExited
        } else {
            Input::GuardLost
        };
        self.hear(node, input);
    }

    /// Kills the server of a node.
    pub(crate) fn kill_postgres(&mut self, node: usize, why: &str) {
        if self.hosts[node].pg.alive() {
            self.hosts[node].pg.kill();
            self.pg_exited(node, why);
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
        let now = pg.server;
        self.say(Some(node), format_args!("PostgreSQL is up: {now:?}"));
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
        self.checker.promoted(node, system_id, timeline);
        self.say(
            Some(node),
            format_args!("PostgreSQL: promoted to timeline {timeline} at {start}"),
        );
    }

    pub(crate) fn pg_stopped(&mut self, node: usize, server: u64, fast: bool) {
        let pg = &mut self.hosts[node].pg;
        if pg.epoch != server {
            return;
        }
        if !fast {
            self.kill_postgres(node, "immediate stop");
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
        self.pg_exited(node, "fast stop");
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
        let serves = matches!(source.server, Server0::Primary | Server0::Replica) && !source.hung;
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
        pg.streaming = known;
        if let Some(wal) = wal {
            pg.received = true;
            if let Some(own) = pg.cluster_mut() {
                own.wal = wal;
            }
            let epoch = pg.epoch;
            self.after(delay, Event::Replay(node, epoch));
        }
    }

    /// The guard's deadline has passed.
    pub(crate) fn guard_due(&mut self, node: usize, version: u64) {
        let due = self.hosts[node]
            .guard
            .as_ref()
            .is_some_and(|guard| guard.version == version && guard.deadline.is_some());
        let local = self.local(node);
        let host = &self.hosts[node];
        if due
            && self.bug.is_none()
            && host.frozen <= self.now
            && !host.pause
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
            self.checker.fail(format!(
                "L2: the guard of {name} kills although the right runs for another second"
            ));
        }
        if due && self.bug != Some(Bug::GuardAsleep) {
            self.kill_postgres(node, "killed by the guard");
        }
    }

    /// A client beside each server writes, if that lets it.
    pub(crate) fn clients(&mut self) {
        for node in 0..self.hosts.len() {
            if !self.hosts[node].pg.writable() {
                continue;
            }
            if let Some(cluster) = self.hosts[node].pg.cluster_mut() {
                cluster.wal.end += RECORD;
                cluster.replayed = cluster.wal.end;
            }
            let local = self.local(node);
            self.checker.acked(self.now, local, node, &self.hosts);
            for other in 0..self.hosts.len() {
                let pg = &self.hosts[other].pg;
                if pg.streaming && pg.upstream == Some(node) {
                    let epoch = pg.epoch;
                    let (from, to) = (Place::Node(node), Place::Node(other));
                    let delay = self.net.delay(self.now, from, to, &mut self.rng);
                    self.after(delay, Event::Replicate(other, epoch));
                }
            }
        }
        let delay: Time = self.rng.range(10 * MS, 40 * MS);
        self.after(delay, Event::Clients);
    }
}
