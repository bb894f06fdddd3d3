//! etcd: keys with revisions, leases, transactions. One logical store; members show as terms, outages and delays.
//!
//! Modelled: keep-alive and transaction as two requests that may meet two terms; leases that expire up to half a second late,
//! all of them extended when etcd changes its leader, and revoked early by a leader that the cluster left behind
//! (incidents.md B-095, B-097). What is lost, late or doubled is the network's business (`executor.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use surus_core::action::{Order, StatusRecord};
use surus_core::types::{LeaseId, NodeName, Revision, Term};
use surus_core::view::{ClusterView, FailoverKey, Initialize, LeaderKey, Member, Status};

use surus_scenarios::Keys;

use crate::clock::Time;
use crate::zoo::Bug;

/// A request of one round trip.
#[derive(Debug, Clone)]
pub enum Request {
    /// Keeps this lease alive, or grants one of `ttl` if it is gone or has another ttl.
    KeepAlive {
        /// The lease the agent knows.
        lease: Option<LeaseId>,
        /// The ttl wanted.
        ttl: Duration,
    },
    /// The transaction of a lock order, on this lease.
    Lock {
        /// Who.
        name: NodeName,
        /// The lease to bind the key to.
        lease: LeaseId,
        /// Acquire, Renew or Release.
        order: Order,
    },
    /// A linearizable read of everything.
    Read,
    /// Another write.
    Publish {
        /// Who.
        name: NodeName,
        /// The lease the agent knows.
        lease: Option<LeaseId>,
        /// What, with the member's key if it is that.
        order: Order,
        /// The member's key as the agent completes it.
        member: Option<Box<Member>>,
    },
}

/// An answer.
#[derive(Debug, Clone)]
pub enum Response {
    /// The lease lives.
    Lease(LeaseId, Term),
    /// The key is the caller's.
    Locked(Revision, Term),
    /// It is not.
    NotLocked(Option<NodeName>),
    /// Everything.
    View(Box<ClusterView>),
    /// Done, with the lease used if any.
    Ok(Option<LeaseId>),
    /// A condition did not hold.
    Conflict,
    /// There is no quorum: certainly not done.
    Unavailable,
    /// An error that a fault put there.
    Error(surus_scenarios::ErrorCode),
}

/// A lease.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// Its life.
    pub ttl: Duration,
    /// It expires then, or a little later.
    pub expires: Time,
}

/// The store.
#[derive(Debug, Clone, Default)]
pub struct Etcd {
    /// What the keys hold.
    pub view: ClusterView,
    /// The leases that live.
    pub leases: BTreeMap<LeaseId, Lease>,
    /// A condition that the client forgets to put into its transactions.
    pub careless: Option<Bug>,
    members: BTreeMap<NodeName, LeaseId>,
    last_lease: i64,
}

impl Etcd {
    /// Everything, as of now.
    #[must_use]
    pub fn read(&self) -> ClusterView {
        self.view.clone()
    }

    fn bump(&mut self) -> Revision {
        self.view.revision.0 += 1;
        self.view.revision
    }

    fn keep(&mut self, now: Time, lease: Option<LeaseId>, ttl: Duration) -> LeaseId {
        let expires = now + u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        let known = lease.filter(|id| self.leases.get(id).is_some_and(|lease| lease.ttl == ttl));
        let id = known.unwrap_or_else(|| {
            self.last_lease += 1;
            LeaseId(self.last_lease)
        });
        self.leases.insert(id, Lease { ttl, expires });
        id
    }

    /// Carries out a request.
    pub fn handle(&mut self, now: Time, request: &Request) -> Response {
        match request {
            Request::KeepAlive { lease, ttl } => {
                let id = self.keep(now, *lease, *ttl);
                Response::Lease(id, self.view.term)
            }
            Request::Lock { name, lease, order } => self.lock(name, *lease, order),
            Request::Read => Response::View(Box::new(self.read())),
            Request::Publish {
                name,
                lease,
                order,
                member,
            } => self.publish(now, name, *lease, order, member.as_deref()),
        }
    }

    fn holder(&self) -> Option<NodeName> {
        self.view.leader.as_ref().map(|key| key.name.clone())
    }

    fn lock(&mut self, name: &NodeName, lease: LeaseId, order: &Order) -> Response {
        let mine = self.holder().as_ref() == Some(name);
        match order {
            Order::Acquire {
                config,
                failsafe,
                seen,
                status,
                ..
            } => {
                let unchanged = self.view.config_revision == *config
                    && self.view.failsafe_revision == *failsafe
                    && (self.view.status_revision == *seen || self.careless == Some(Bug::AcquireUnseenReign));
                if self.view.leader.is_some() || !unchanged || !self.leases.contains_key(&lease) {
                    return Response::NotLocked(self.holder());
                }
                let revision = self.bump();
                self.view.leader = Some(LeaderKey {
                    name: name.clone(),
                    lease: Some(lease),
                    created: revision,
                });
                self.put_status(name, status);
                Response::Locked(revision, self.view.term)
            }
            Order::Renew { status, .. } => {
                if !mine || !self.leases.contains_key(&lease) {
                    return Response::NotLocked(self.holder());
                }
                let revision = self.bump();
                if let Some(key) = &mut self.view.leader {
                    key.lease = Some(lease);
                }
                self.put_status(name, status);
                Response::Locked(revision, self.view.term)
            }
            Order::Release { seen, status } => {
                let bound = self.careless != Some(Bug::ReleaseAnyReign);
                if !mine || bound && self.view.status_revision != *seen {
                    return Response::NotLocked(self.holder());
                }
                self.bump();
                self.view.leader = None;
                self.put_status(name, status);
                Response::Ok(None)
            }
            other => unreachable!("{other:?} is no lock order"),
        }
    }

    fn put_status(&mut self, name: &NodeName, record: &StatusRecord) {
        self.view.status_revision = self.view.revision;
        self.view.status = Some(Status {
            optime: record.optime,
            slots: record.slots.clone(),
            retain_slots: record.retain_slots.clone(),
            ttl: Some(record.ttl),
            timeline: record.timeline,
            next: record.next,
            vacated: record.vacated.then(|| name.clone()),
            unfenced: record.unfenced.then(|| name.clone()),
        });
    }

    fn publish(
        &mut self,
        now: Time,
        name: &NodeName,
        lease: Option<LeaseId>,
        order: &Order,
        member: Option<&Member>,
    ) -> Response {
        let leads = self.holder().as_ref() == Some(name);
        let allowed = match order {
            Order::ClaimInitialize => self.view.initialize.is_none(),
            Order::WriteInitialize {
                bootstrapped: true, ..
            } => leads,
            Order::WriteInitialize { .. } => {
                matches!(self.view.initialize, None | Some(Initialize::Garbage))
            }
            Order::UnclaimInitialize => self.view.initialize == Some(Initialize::InProgress),
            Order::WriteConfig => leads && self.view.config_revision.is_none(),
            Order::WriteHistory(_) => leads,
            Order::WriteFailsafe { seen, .. } => leads && self.view.failsafe_revision == *seen,
            Order::ClearFailover(revision) => self
                .view
                .failover
                .as_ref()
                .is_some_and(|key| key.revision == *revision),
            _ => true,
        };
        if !allowed {
            return Response::Conflict;
        }
        let revision = self.bump();
        let mut used = None;
        match order {
            Order::ClaimInitialize => self.view.initialize = Some(Initialize::InProgress),
            Order::WriteInitialize { system_id, .. } => {
                self.view.initialize = Some(Initialize::Done(*system_id));
            }
            Order::UnclaimInitialize => self.view.initialize = None,
            Order::WriteConfig => self.view.config_revision = Some(revision),
            Order::WriteMember(record) => {
                let id = self.keep(now, lease, record.ttl);
                self.members.insert(name.clone(), id);
                if let Some(member) = member {
                    self.view.members.insert(name.clone(), member.clone());
                }
                used = Some(id);
            }
            Order::WriteHistory(lines) => self.view.history = lines.clone(),
            Order::WriteFailsafe { list, .. } => {
                self.view.failsafe = Some(list.clone());
                self.view.failsafe_revision = revision;
            }
            Order::ClearFailover(_) => self.view.failover = None,
            _ => {}
        }
        Response::Ok(used)
    }

    /// A person writes the `failover` key.
    pub fn put_failover(&mut self, leader: Option<NodeName>, candidate: Option<NodeName>) {
        let revision = self.bump();
        self.view.failover = Some(FailoverKey {
            leader,
            candidate,
            due: surus_core::view::Due::Now,
            revision,
        });
    }

    /// A person takes the `failover` key away.
    pub fn clear_failover(&mut self) {
        self.bump();
        self.view.failover = None;
    }

    /// The lease that a member's keys hang on.
    #[must_use]
    pub fn lease_of(&self, name: &NodeName) -> Option<LeaseId> {
        let leader = self.view.leader.as_ref().filter(|key| key.name == *name);
        leader
            .and_then(|key| key.lease)
            .or_else(|| self.members.get(name).copied())
    }

    /// No lease ends before its time and this.
    pub fn prolong(&mut self, by: Time) {
        for lease in self.leases.values_mut() {
            lease.expires = lease.expires.saturating_add(by);
        }
    }

    /// Somebody deletes keys.
    pub fn wipe(&mut self, keys: Keys) {
        let revision = self.bump();
        let view = &mut self.view;
        let all = keys == Keys::All;
        if all || keys == Keys::Leader {
            view.leader = None;
        }
        if all || keys == Keys::Status {
            view.status = None;
            view.status_revision = Revision(0);
        }
        if all || keys == Keys::Config {
            view.config_revision = None;
        }
        if all || keys == Keys::Initialize {
            view.initialize = None;
        }
        if all || keys == Keys::Members {
            view.members.clear();
            self.members.clear();
        }
        if all || keys == Keys::History {
            view.history.clear();
        }
        if all || keys == Keys::Failover {
            view.failover = None;
        }
        if all || keys == Keys::Failsafe {
            view.failsafe = None;
            view.failsafe_revision = revision;
        }
    }

    /// Revokes a lease, with the keys on it.
    pub fn revoke(&mut self, id: LeaseId) {
        if self.leases.remove(&id).is_none() {
            return;
        }
        let gone: BTreeSet<NodeName> = self
            .members
            .iter()
            .filter(|(_, lease)| **lease == id)
            .map(|(name, _)| name.clone())
            .collect();
        self.members.retain(|_, lease| *lease != id);
        self.view.members.retain(|name, _| !gone.contains(name));
        if self.view.leader.as_ref().is_some_and(|key| key.lease == Some(id)) {
            self.view.leader = None;
        }
        self.bump();
    }

    /// A new leader of etcd: a new term, and every lease lives anew.
    pub fn elect(&mut self, now: Time) {
        self.view.term.0 += 1;
        for lease in self.leases.values_mut() {
            lease.expires = now + u64::try_from(lease.ttl.as_nanos()).unwrap_or(u64::MAX);
        }
    }
}
