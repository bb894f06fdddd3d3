//! The watch of an agent: a read, then events from the revision after it; as `agent/src/dcs/watch.rs` does it.

use std::sync::Arc;

use surus_core::Order;
use surus_core::input::{Input, Outcome};
use surus_core::types::{Revision, Term};
use surus_core::view::ClusterView;

use super::keys::{self, Held, Key};
use super::{WATCHS_READ, Watching};
use crate::clock::{MS, SEC, Time};
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::model::etcd::{Header, Keys, Told, Watch};
use crate::net::Place;
use crate::zoo::Bug;

/// Silence after which an endpoint is asked for its progress, and again after which it is left; and how long opening may take.
const SILENCE: Time = SEC;
/// For the read, which may try several endpoints.
const READ_LIMIT: Time = 2 * SEC;
/// Pause after a failure, unless the stream had worked until then.
const PAUSE: Time = 200 * MS;

/// Where a watch is.
#[derive(Debug, Default)]
pub(super) struct Follower {
    /// What it has told last; nothing before the first read, and where what came between is lost.
    view: Option<ClusterView>,
    /// The stream, and the member it hangs on.
    stream: Option<(u64, usize)>,
    /// When it was heard last.
    heard: Time,
    /// It is open.
    open: bool,
    /// It was asked for its progress since.
    asked: bool,
    /// It has worked since it was begun.
    worked: bool,
}

impl World {
    /// An agent begins to follow, or goes on.
    pub(crate) fn follow(&mut self, node: usize) {
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let (epoch, follower) = (agent.epoch, &mut agent.dcs.follower);
        follower.stream = None;
        follower.open = false;
        follower.worked = false;
        let Some(view) = &follower.view else {
            return self.begin_work(node, WATCHS_READ, Order::ReadCluster, None, READ_LIMIT);
        };
        let start = view.revision.0 + 1;
        let usual = agent.dcs.pool.round(self.now, 0).at();
        let pinned = self.hosts[node].pinned.filter(|(_, until)| self.now < *until);
        let Some(member) = pinned.map(|(member, _)| member).or(usual) else {
            return;
        };
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let follower = &mut agent.dcs.follower;
        self.counter += 1;
        let watch = self.counter;
        follower.stream = Some((watch, member));
        follower.heard = self.now;
        follower.asked = true;
        match self.etcd_connect(node, member) {
            Ok(true) => {
                let delay = self
                    .net
                    .delay(self.now, Place::Node(node), Place::Etcd(member), &mut self.rng);
                let process = self.etcd.process[member];
                let opened = Event::EtcdWatch(node, epoch, member, watch, start, process);
                self.after(delay, opened);
                self.after(SILENCE, Event::EtcdSilence(node, epoch, watch));
            }
            Ok(false) | Err(false) => self.after(SILENCE, Event::EtcdSilence(node, epoch, watch)),
            Err(true) => {
                let delay = self.rng.range(MS / 5, 2 * MS);
                self.after(delay, Event::EtcdSilence(node, epoch, watch));
            }
        }
    }

    /// The read before the watch is done, or is not.
    pub(super) fn watch_read(&mut self, node: usize, outcome: Outcome) {
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let epoch = agent.epoch;
        if let Outcome::Read { view, .. } = outcome {
            agent.dcs.follower.view = Some(view.clone());
            self.step(node, Input::Cluster(view));
            self.follow(node);
        } else {
            self.after(PAUSE, Event::EtcdFollow(node, epoch));
        }
    }

    /// A watch reaches a member's process.
    pub(crate) fn etcd_watch(
        &mut self,
        node: usize,
        epoch: u64,
        member: usize,
        watch: u64,
        start: i64,
        process: u64,
    ) {
        if self.etcd.process[member] != process {
            return;
        }
        let watching = Watching {
            node,
            epoch,
            member,
            last: 0,
        };
        self.etcd.watches.insert(watch, watching);
        let asked = Watch {
            keys: Keys::From(Key::Config),
            start,
            previous: false,
            require_leader: true,
        };
        let (now, etcd) = (self.now, &mut self.etcd);
        etcd.cluster.watch(now, member, watch, asked, &mut etcd.out);
        self.etcd_follow();
    }

    /// A watch tells something.
    pub(crate) fn etcd_told(&mut self, node: usize, watch: u64, header: Header, told: Told<Key, Held>) {
        let now = self.now;
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let follower = &mut agent.dcs.follower;
        let Some((_, member)) = follower.stream.filter(|(own, _)| *own == watch) else {
            return;
        };
        follower.heard = now;
        follower.asked = false;
        if let Told::Compacted(_) = told {
            follower.view = None;
            return self.leave(node, watch, None);
        }
        if matches!(told, Told::Ended(_)) || !agent.dcs.pool.admit(header.term, now) {
            return self.leave(node, watch, Some(member));
        }
        follower.open = true;
        follower.worked = true;
        let (Told::Events(events), Some(view)) = (told, &mut follower.view) else {
            return;
        };
        let before = view.revision.0;
        view.term = Term(header.term);
        for event in &events {
            if event.kv.modified <= before {
                continue;
            }
            view.revision = Revision(view.revision.0.max(event.kv.modified));
            let kv = event.kv.value.is_some().then_some(&event.kv);
            keys::apply(view, &event.kv.key, kv, &self.names);
        }
        if before < view.revision.0 {
            let mut view = view.clone();
            self.doctor(&mut view);
            self.step(node, Input::Cluster(view));
        }
    }

    /// A stream has been silent for a while, or did not open.
    pub(crate) fn etcd_silence(&mut self, node: usize, watch: u64) {
        let now = self.now;
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let (epoch, follower) = (agent.epoch, &mut agent.dcs.follower);
        let Some((_, member)) = follower.stream.filter(|(own, _)| *own == watch) else {
            return;
        };
        let quiet = now - follower.heard;
        if follower.open && quiet < SILENCE {
            return self.after(SILENCE - quiet, Event::EtcdSilence(node, epoch, watch));
        }
        if follower.asked {
            return self.leave(node, watch, Some(member));
        }
        follower.asked = true;
        self.after(SILENCE, Event::EtcdSilence(node, epoch, watch));
        let (here, there) = (Place::Node(node), Place::Etcd(member));
        if self.net.up(now, here, there) && self.etcd.watches.contains_key(&watch) {
            let etcd = &mut self.etcd;
            etcd.cluster.progress(now, watch, &mut etcd.out);
            self.etcd_follow();
        }
    }

    /// The stream is given up, and its member avoided if that is to blame.
    fn leave(&mut self, node: usize, watch: u64, blamed: Option<usize>) {
        let now = self.now;
        self.etcd.watches.remove(&watch);
        self.etcd.cluster.unwatch(watch);
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        if let Some(member) = blamed {
            agent.dcs.pool.avoid(member, now);
            agent.dcs.pool.connect(member, None);
        }
        agent.dcs.follower.stream = None;
        if agent.dcs.follower.worked {
            self.follow(node);
        } else {
            let epoch = agent.epoch;
            self.after(PAUSE, Event::EtcdFollow(node, epoch));
        }
    }

    /// What an agent is told, by the planted bug.
    pub(super) fn shown(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Read { sent, mut view } => {
                self.doctor(&mut view);
                Outcome::Read { sent, view }
            }
            other => other,
        }
    }

    fn doctor(&self, view: &mut ClusterView) {
        if self.bug == Some(Bug::NoOldRight)
            && view.leader.is_none()
            && let Some(status) = &mut view.status
        {
            Arc::make_mut(status).vacated = Some("anybody".into());
        }
    }
}
