//! What can be done to etcd: its members stop, freeze and lag, do not reach each other, are full or forgetful.

use surus_core::types::{LeaseId, Revision};

use super::keys::{Held, Key};
use crate::clock::{MS, Time};
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::model::etcd::{Delete, Keys, Links, Mischief, Put, Request, Told};
use crate::net::Place;
use crate::record::Seen;

impl World {
    /// The network has changed: which members of etcd reach each other now, and when to look again.
    pub(crate) fn etcd_links(&mut self) {
        let (now, members) = (self.now, self.etcd.members());
        let split = now < self.etcd.split;
        let links = Links::of(|from, to| {
            members <= from.max(to) || !split && self.net.up(now, Place::Etcd(from), Place::Etcd(to))
        });
        let etcd = &mut self.etcd;
        etcd.cluster.set_links(now, links, &mut etcd.out);
        self.etcd_follow();
        let again = self.net.next_end(now).into_iter();
        let again = again
            .chain((now < self.etcd.split).then_some(self.etcd.split))
            .min();
        if let Some(at) = again.filter(|at| self.etcd.relink <= now || *at < self.etcd.relink) {
            self.etcd.relink = at;
            self.after(at - now, Event::EtcdLinks);
        }
    }

    /// The members do not reach each other for so long: soon there is no leader.
    pub(crate) fn etcd_split(&mut self, span: Time) {
        self.etcd.split = self.etcd.split.max(self.now.saturating_add(span));
        self.etcd_links();
    }

    /// SIGKILL to a member, which is started again after `back`.
    pub(crate) fn etcd_stop(&mut self, member: usize, back: Time) {
        if !self.etcd.cluster.runs(member) {
            return;
        }
        let (now, etcd) = (self.now, &mut self.etcd);
        etcd.cluster.stop(now, member, &mut etcd.out);
        self.see(None, Seen::EtcdMember { member, up: false });
        self.etcd_reset(member);
        self.etcd_follow();
        self.after(back, Event::EtcdStart(member));
    }

    /// A member is started again, if its host lets it.
    pub(crate) fn etcd_start(&mut self, member: usize) {
        if self.etcd.cluster.runs(member) || !self.etcd_powered(member) {
            return;
        }
        let (now, etcd) = (self.now, &mut self.etcd);
        etcd.cluster.start(now, member, &mut etcd.out);
        self.see(None, Seen::EtcdMember { member, up: true });
        self.etcd_follow();
    }

    /// SIGSTOP to a member for so long.
    pub(crate) fn etcd_freeze(&mut self, member: usize, span: Time) {
        let (now, etcd) = (self.now, &mut self.etcd);
        if etcd.cluster.frozen(member) || !etcd.cluster.runs(member) {
            return;
        }
        etcd.cluster.freeze(now, member, &mut etcd.out);
        self.etcd_follow();
        self.after(span, Event::EtcdThaw(member));
    }

    /// SIGCONT to a member.
    pub(crate) fn etcd_thaw(&mut self, member: usize) {
        let (now, etcd) = (self.now, &mut self.etcd);
        etcd.cluster.thaw(now, member, &mut etcd.out);
        self.etcd_follow();
    }

    /// A host has lost its power, or has it again; a member of etcd may run there.
    pub(crate) fn etcd_power(&mut self, node: usize, on: bool) {
        for member in self.etcd.on(node) {
            if on {
                self.after(200 * MS, Event::EtcdStart(member));
            } else {
                self.etcd_stop(member, Time::MAX);
            }
        }
    }

    /// A host stands still for so long.
    pub(crate) fn etcd_stands_still(&mut self, node: usize, span: Time) {
        for member in self.etcd.on(node) {
            self.etcd_freeze(member, span);
        }
    }

    /// A member's watch is told once more what it was told of late.
    pub(crate) fn watch_repeats(&mut self, node: usize) {
        let watching = self.etcd.watches.values().find(|watching| watching.node == node);
        if let Some(member) = watching.map(|watching| watching.member) {
            let back = self.etcd.cluster.revision() - 3;
            self.etcd.cluster.plant(Mischief::Rewind(member, back.max(1)));
        }
    }

    /// A member's watch is cancelled by compaction, and the stream left open.
    pub(crate) fn watch_cancelled(&mut self, node: usize) {
        let found = self
            .etcd
            .watches
            .iter()
            .find(|(_, watching)| watching.node == node);
        let Some((watch, watching)) = found.map(|(watch, watching)| (*watch, *watching)) else {
            return;
        };
        self.etcd.watches.remove(&watch);
        self.etcd.cluster.unwatch(watch);
        let header = self.etcd.cluster.header(watching.member);
        let told = Box::new(Told::Compacted(header.revision));
        self.after(MS, Event::EtcdTold(node, watching.epoch, watch, header, told));
    }

    /// No lease ends before its time and this.
    pub(crate) fn etcd_prolong(&mut self, by: Time) {
        self.etcd.cluster.prolong(by);
    }

    /// Another member is made the leader.
    pub(crate) fn etcd_elect(&mut self) {
        if let Some(leader) = self.etcd.cluster.leader() {
            let to = (leader + 1 + self.rng.index(self.etcd.members())) % self.etcd.members();
            self.ask_leader_of_etcd(Request::MoveLeader(to));
        }
    }

    /// Somebody revokes a lease.
    pub(crate) fn etcd_revoke(&mut self, lease: LeaseId) {
        self.ask_leader_of_etcd(Request::Revoke(lease.0));
    }

    /// Somebody compacts the history of revisions up to now.
    pub(crate) fn etcd_compact(&mut self) {
        let revision = self.etcd.cluster.revision();
        if self.ask_leader_of_etcd(Request::Compact(revision)) {
            let revision = Revision(revision);
            self.see(None, Seen::Compacted { revision });
        }
    }

    /// The database is full, or is not any more.
    pub(crate) fn etcd_full(&mut self, full: bool) {
        self.ask_leader_of_etcd(Request::Alarm(full));
    }

    /// The database is not full any more, as soon as there is a leader who can be told so.
    pub(crate) fn etcd_space(&mut self) {
        if self.etcd.cluster.full() {
            self.etcd_full(false);
            self.after(500 * MS, Event::EtcdSpace);
        }
    }

    /// A person writes a key.
    pub(crate) fn etcd_put(&mut self, key: Key, held: Held) -> bool {
        self.ask_leader_of_etcd(Request::Put(Put {
            key,
            value: Some(held),
            lease: Some(0),
            previous: false,
        }))
    }

    /// Somebody deletes keys.
    pub(crate) fn etcd_delete(&mut self, keys: Keys<Key>) {
        let previous = false;
        self.ask_leader_of_etcd(Request::Delete(Delete { keys, previous }));
    }

    /// All faults of etcd end.
    pub(crate) fn etcd_heal(&mut self) {
        self.etcd.split = 0;
        self.etcd.cluster.behave();
        for member in 0..self.etcd.members() {
            self.etcd_thaw(member);
            self.etcd_start(member);
            self.etcd.slow[member] = (0, 0);
        }
        self.etcd_links();
        self.etcd_space();
    }
}
