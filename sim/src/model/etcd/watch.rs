//! Watches: what a member tells of the changes that it has applied.

use super::Etcd;
use super::api::{Error, Event, Output, Revision, Told, Watch};
use super::mischief::Mischief;
use crate::clock::Time;

/// After so many election timeouts without a leader a member ends the watches that require one.
const PATIENCE: Time = 3;

/// A watch at a member.
#[derive(Debug, Clone)]
pub(super) struct Watcher<K> {
    pub(super) id: u64,
    pub(super) member: usize,
    watch: Watch<K>,
    /// The first revision that it has not told of.
    next: Revision,
    /// When its last message left.
    sent: Time,
    /// It tells nothing until then.
    held: Time,
    /// The member was frozen when it was asked for.
    opening: bool,
}

impl<K: Ord + Clone, V: Clone + PartialOrd> Etcd<K, V> {
    /// A watch, numbered by the caller (and by no other watch of this cluster), reaches a member.
    pub fn watch(&mut self, now: Time, member: usize, id: u64, watch: Watch<K>, out: &mut Vec<Output<K, V>>) {
        self.tick(now, out);
        if !self.members[member].up {
            return;
        }
        self.watchers.push(Watcher {
            id,
            member,
            next: watch.start,
            watch,
            sent: 0,
            held: 0,
            opening: true,
        });
        self.pump(now, out);
        self.reschedule();
    }

    /// Nobody listens any more.
    pub fn unwatch(&mut self, id: u64) {
        self.watchers.retain(|watcher| watcher.id != id);
    }

    /// A watch is asked how far it has come. As in etcd 3.4, the answer may name a revision whose events have not been told yet.
    pub fn progress(&mut self, now: Time, id: u64, out: &mut Vec<Output<K, V>>) {
        self.tick(now, out);
        if let Some(index) = self.watchers.iter().position(|watcher| watcher.id == id)
            && self.members[self.watchers[index].member].live()
        {
            self.tell(now, index, Told::Progress, out);
        }
    }

    /// All watches of a member are slow: they tell nothing until then.
    pub fn hold_watches(&mut self, member: usize, until: Time) {
        for watcher in &mut self.watchers {
            if watcher.member == member {
                watcher.held = until;
            }
        }
        self.reschedule();
    }

    /// Tells what there is to tell.
    pub(super) fn pump(&mut self, now: Time, out: &mut Vec<Output<K, V>>) {
        let mut index = 0;
        while let Some(watcher) = self.watchers.get(index) {
            let member = &self.members[watcher.member];
            if !member.live() || now < watcher.held {
                index += 1;
                continue;
            }
            if watcher.opening {
                if self.open(now, index, out) {
                    self.watchers.remove(index);
                }
                continue;
            }
            let over = if watcher.next < member.applied.compacted {
                let compacted = member.applied.compacted;
                self.tell(now, index, Told::Compacted(compacted), out);
                true
            } else {
                false
            };
            if over {
                self.watchers.remove(index);
                continue;
            }
            let watcher = &self.watchers[index];
            if watcher.next <= self.members[watcher.member].applied.revision {
                self.tell_changes(now, index, out);
            }
            index += 1;
        }
    }

    /// A watch begins. Says whether it is over at once.
    fn open(&mut self, now: Time, index: usize, out: &mut Vec<Output<K, V>>) -> bool {
        let watcher = &mut self.watchers[index];
        watcher.opening = false;
        let member = &self.members[watcher.member];
        if watcher.watch.require_leader && member.leader.is_none() {
            self.tell(now, index, Told::Ended(Error::NoLeader), out);
            return true;
        }
        if watcher.next == 0 {
            watcher.next = member.applied.revision + 1;
        }
        self.tell(now, index, Told::Created, out);
        false
    }

    fn tell_changes(&mut self, now: Time, index: usize, out: &mut Vec<Output<K, V>>) {
        let member = self.watchers[index].member;
        let rewound = self.mischief.iter().find_map(|mischief| match mischief {
            Mischief::Rewind(at, revision) if *at == member => Some(*revision),
            _ => None,
        });
        let watcher = &mut self.watchers[index];
        let applied = self.members[member].applied.revision;
        let from = rewound.map_or(watcher.next, |back| back.min(watcher.next));
        watcher.next = applied + 1;
        let mut events = Vec::new();
        for change in self.store.changes_since(from) {
            if applied < change.revision {
                break;
            }
            if !watcher.watch.keys.contain(&change.key) {
                continue;
            }
            let [now, before] = self.store.change(&change.key, change.revision);
            if let Some(kv) = now {
                events.push(Event {
                    kv: kv.clone(),
                    previous: before.filter(|_| watcher.watch.previous).cloned(),
                });
            }
        }
        if events.is_empty() {
            return;
        }
        if self.mischief.is_empty() {
            return self.tell(now, index, Told::Events(events), out);
        }
        self.mischief
            .retain(|mischief| !matches!(mischief, Mischief::Rewind(at, _) if *at == member));
        if self.misbehaves(Mischief::LoseEvents(member)) {
            return;
        }
        if self.misbehaves(Mischief::RepeatEvents(member)) {
            self.tell(now, index, Told::Events(events.clone()), out);
        }
        self.tell(now, index, Told::Events(events), out);
    }

    fn misbehaves(&mut self, how: Mischief) -> bool {
        let found = self.mischief.iter().position(|mischief| *mischief == how);
        found.map(|index| self.mischief.remove(index)).is_some()
    }

    fn tell(&mut self, now: Time, index: usize, told: Told<K, V>, out: &mut Vec<Output<K, V>>) {
        let delay = self.latency();
        let header = self.header(self.watchers[index].member);
        let watcher = &mut self.watchers[index];
        watcher.sent = watcher.sent.max(now + delay);
        out.push(Output::Watch {
            at: watcher.sent,
            watch: watcher.id,
            header,
            told,
        });
    }

    /// When [`Self::tick_watches`] is wanted.
    pub(super) fn watches_due(&self) -> Time {
        let patience = PATIENCE * self.settings.election;
        let due = self.watchers.iter().map(|watcher| {
            let member = &self.members[watcher.member];
            let ends = member
                .leaderless
                .filter(|_| watcher.watch.require_leader)
                .map_or(Time::MAX, |since| since + patience);
            let held = if watcher.held == 0 {
                Time::MAX
            } else {
                watcher.held
            };
            if member.live() { ends.min(held) } else { Time::MAX }
        });
        due.min().unwrap_or(Time::MAX)
    }

    /// Ends watches of members that have had no leader for long, and lets slow ones go on.
    pub(super) fn tick_watches(&mut self, now: Time, out: &mut Vec<Output<K, V>>) {
        let patience = PATIENCE * self.settings.election;
        let mut slow = false;
        for index in (0..self.watchers.len()).rev() {
            let watcher = &mut self.watchers[index];
            let member = &self.members[watcher.member];
            if !member.live() {
                continue;
            }
            if watcher.held != 0 && watcher.held <= now {
                watcher.held = 0;
                slow = true;
            }
            if watcher.watch.require_leader && member.leaderless.is_some_and(|since| since + patience <= now)
            {
                self.tell(now, index, Told::Ended(Error::NoLeader), out);
                self.watchers.remove(index);
            }
        }
        if slow {
            self.pump(now, out);
        }
    }

    /// For a member whose token is refused, or whatever else the caller knows: every watch of the member ends.
    pub fn end_watches(&mut self, now: Time, member: usize, error: Error, out: &mut Vec<Output<K, V>>) {
        for index in (0..self.watchers.len()).rev() {
            if self.watchers[index].member == member {
                self.tell(now, index, Told::Ended(error), out);
                self.watchers.remove(index);
            }
        }
    }
}
