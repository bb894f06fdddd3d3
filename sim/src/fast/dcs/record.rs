//! What is agreed in etcd, as it comes to be, for the record.

use std::time::Duration;

use surus_core::types::{LeaseId, MonoTime, Revision, Term};

use super::keys::{self, Held, Key};
use crate::fast::world::World;
use crate::model::etcd::api::Ending;
use crate::record::{LeaseEnd, RightBy, Seen};

impl World {
    /// The record learns of everything that has been agreed since, revision by revision.
    pub(super) fn record_agreed(&mut self) {
        let leader = self.etcd.cluster.leader();
        let known = (self.etcd.cluster.term(), leader);
        if self.etcd.told != Some(known) {
            self.etcd.told = Some(known);
            self.etcd.view.term = Term(known.0);
            let term = Term(known.0);
            self.see(None, Seen::EtcdLeader { term, member: leader });
        }
        while self.etcd.seen < self.etcd.cluster.revision() {
            self.etcd.seen += 1;
            let revision = self.etcd.seen;
            let changes: Vec<_> = self.etcd.cluster.changes(revision).collect();
            self.record_revision(revision, &changes);
        }
    }

    fn record_revision(&mut self, revision: i64, changes: &[(Key, Ending)]) {
        let before = self.etcd.view.leader.clone();
        let optime = self.etcd.view.status.as_ref().map(|status| status.optime);
        let mut written = None;
        for (key, _) in changes {
            let kv = self.etcd.cluster.agreed_at(key, revision);
            if let Some(Held::Status(by, status)) = kv.and_then(|kv| kv.value.as_ref()) {
                written = Some((*by, status.clone()));
            }
            keys::apply(&mut self.etcd.view, key, kv, &self.names);
        }
        self.etcd.view.revision = Revision(revision);
        for (key, _) in changes {
            self.record_change(revision, *key);
        }
        let term = self.etcd.view.term;
        let leader = self.etcd.view.leader.clone();
        let lease = leader.as_ref().and_then(|key| key.lease).unwrap_or(LeaseId(0));
        let revision = Revision(revision);
        let Some((node, status)) = written else {
            let lost = before.filter(|_| leader.is_none());
            if let Some(key) = lost {
                let ended = changes.iter().find(|(key, _)| *key == Key::Leader);
                let why = match ended {
                    Some((_, Ending::Expired)) => LeaseEnd::Expired,
                    Some((_, Ending::Deleted)) => LeaseEnd::Deposed,
                    _ => LeaseEnd::Revoked,
                };
                let lease = key.lease.unwrap_or(LeaseId(0));
                self.see(self.index(&key.name), Seen::LockLost { lease, why });
            }
            return;
        };
        let seen = match &leader {
            None => Seen::LockReleased { revision },
            Some(key) if key.created == revision => Seen::LockTaken {
                lease,
                revision,
                term,
                primary: self.hosts[node].pg.primary(),
                standing: self.standing(node),
                optime,
            },
            Some(_) => Seen::LockRenewed {
                lease,
                revision,
                term,
            },
        };
        let beside = match &seen {
            Seen::LockTaken { .. } => self.outdone(node),
            Seen::LockReleased { .. } => self.left_unsent(node),
            _ => None,
        };
        self.see(node, seen);
        if let Some(beside) = beside {
            self.see(node, beside);
        }
        let seen = Seen::StatusWritten {
            optime: status.optime,
            timeline: status.timeline,
            next: status.next,
            vacated: status.vacated.is_some(),
            unfenced: status.unfenced.is_some(),
        };
        self.see(node, seen);
    }

    fn record_change(&mut self, revision: i64, key: Key) {
        let present = self.etcd.cluster.agreed_at(&key, revision).is_some();
        let holder = self
            .etcd
            .view
            .leader
            .as_ref()
            .and_then(|key| self.index(&key.name));
        match key {
            Key::Member(node) => self.see(node, Seen::MemberKey { present }),
            Key::Initialize => {
                let to = self.etcd.view.initialize;
                self.see(holder, Seen::InitializeWritten { to });
            }
            Key::Failsafe => {
                let list = self.etcd.view.failsafe.iter().flat_map(|list| list.keys());
                let list = list.filter_map(|name| self.index(name)).collect();
                self.see(holder, Seen::FailsafeWritten { list });
            }
            Key::Sync => {
                let key = self.etcd.view.sync.clone();
                let voters = key.iter().flat_map(|key| &key.voters);
                let members = voters.filter_map(|name| self.index(name)).collect();
                let quorum = key.as_ref().map_or(0, |key| key.quorum + 1);
                self.see(holder, Seen::SyncWritten { members, quorum });
            }
            Key::Failover => match self.etcd.view.failover.clone() {
                Some(wish) => {
                    let named = |name: &Option<_>| name.as_ref().and_then(|name| self.index(name));
                    let (leader, candidate) = (named(&wish.leader), named(&wish.candidate));
                    self.see(None, Seen::FailoverWritten { leader, candidate });
                }
                None => self.see(holder, Seen::FailoverCleared),
            },
            _ => {}
        }
    }

    /// A node's right was confirmed, or granted by all.
    pub(crate) fn earn(&mut self, node: usize, sent: MonoTime, ttl: Duration, by: RightBy) {
        let host = &mut self.hosts[node];
        let sent = host.clock.world(sent);
        let until = sent + u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        host.right = host.right.max(until);
        self.see(node, Seen::Right { sent, until, by });
    }
}
