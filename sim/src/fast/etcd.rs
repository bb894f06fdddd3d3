//! The agent's conversations with etcd, in one or two round trips, and its watch.
//!
//! A request can be lost before or after it had its effect, be late by seconds and still have it, or be refused at once; the agent
//! waits for `retry_timeout` and then says that it does not know.

use std::time::Duration;

use surus_core::input::{Input, Outcome};
use surus_core::types::{ActionId, LeaseId, Lsn, MonoTime, NodeName, Term};
use surus_core::view::{ClusterView, Member};
use surus_core::{Action, Lane, Order};
use surus_scenarios::{ErrorCode, Lost};

use crate::clock::{MS, SEC, Time};
use crate::fast::event::Event;
use crate::fast::host::{Fate, Rpc};
use crate::fast::story::Befalls;
use crate::fast::world::World;
use crate::model::etcd::single::{Request, Response};
use crate::net::Place;
use crate::record::{LeaseEnd, RightBy, Seen};
use crate::zoo::Bug;

/// How long the agent waits for etcd: `retry_timeout`.
const PATIENCE: Time = 2 * SEC;

/// How long it waits for an answer about the lock, of which a second attempt must fit into the right: a fifth of the default ttl.
const LOCK_PATIENCE: Time = SEC;

/// How long etcd keeps a proposal that finds no quorum.
const LIMBO: Time = 7 * SEC;

impl World {
    /// Begins an order to etcd.
    pub(crate) fn begin_rpc(&mut self, node: usize, action: Action) {
        let local = self.local(node);
        let tags = &self.hosts[node].tags;
        let member = match &action.order {
            Order::WriteMember(record) => Some(Box::new(Member {
                conn_url: format!("postgres://{}:5432/postgres", self.names[node]),
                api_url: format!("http://{}:8008/patroni", self.names[node]),
                state: record.state.to_owned(),
                role: record.role.to_owned(),
                position: record.position,
                timeline: record.timeline,
                checkpoint_after_promote: record.checkpoint_after_promote,
                nofailover: tags.nofailover,
                failover_priority: tags.failover_priority,
                clonefrom: tags.clonefrom,
                replicatefrom: tags.replicatefrom.as_ref().map(|name| NodeName(name.0.clone())),
                nostream: tags.nostream,
                surus: true,
                pause: record.pause,
                ..Member::default()
            })),
            _ => None,
        };
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let epoch = agent.epoch;
        let name = self.names[node].clone();
        let id = action.id;
        agent.rpcs.insert(id);
        let request = match &action.order {
            Order::Acquire { ttl, .. } | Order::Renew { ttl, .. } => Request::KeepAlive {
                lease: agent.lease,
                ttl: *ttl,
            },
            order @ Order::Release { .. } => Request::Lock {
                name,
                lease: agent.lease.unwrap_or(surus_core::types::LeaseId(0)),
                order: order.clone(),
            },
            Order::ReadCluster => Request::Read,
            order => Request::Publish {
                name,
                lease: agent.lease,
                order: order.clone(),
                member,
            },
        };
        let patience = if action.order.lane() == Lane::Lock {
            LOCK_PATIENCE
        } else {
            PATIENCE
        };
        let rpc = Rpc {
            node,
            epoch,
            id,
            order: action.order,
            request,
            sent: local,
            term: Term(0),
            fate: Fate::Usual,
        };
        self.send_rpc(rpc);
        self.after(patience, Event::EtcdTimeout(node, epoch, id));
    }

    fn send_rpc(&mut self, mut rpc: Rpc) {
        let here = Place::Node(rpc.node);
        if self.net.refuses(self.now, here, Place::Etcd(0)) {
            let answer = Event::EtcdAnswer(Box::new(rpc), Box::new(Response::Unavailable));
            self.after(MS, answer);
            return;
        }
        let mut late = 0;
        match self.mishap(rpc.node, kind(&rpc)) {
            Some(Befalls::Lost(Lost::Request)) => return,
            Some(Befalls::Lost(Lost::Twice)) => self.again(&rpc),
            Some(Befalls::Lost(Lost::Reply)) => rpc.fate = Fate::Mute,
            Some(Befalls::Late(by)) => late = by,
            Some(Befalls::Error(code, true)) => rpc.fate = Fate::Error(code),
            Some(Befalls::Error(code, false)) => {
                let answer = Response::Error(code);
                self.after(2 * MS, Event::EtcdAnswer(Box::new(rpc), Box::new(answer)));
                return;
            }
            None => {}
        }
        if self.net.up(self.now, here, Place::Etcd(0)) {
            let mut delay = self.net.delay(self.now, here, Place::Etcd(0), &mut self.rng) + late;
            if self.now < self.etcd_slow.0 {
                delay += self.rng.below(self.etcd_slow.1);
            }
            self.after(delay, Event::EtcdRequest(Box::new(rpc)));
        }
    }

    /// A request reaches etcd.
    pub(crate) fn etcd_request(&mut self, rpc: Rpc) {
        if self.now < self.etcd_down {
            match self.rng.below(3) {
                0 => {
                    let delay = self.rng.range(MS, 3 * MS);
                    self.after(
                        delay,
                        Event::EtcdAnswer(Box::new(rpc), Box::new(Response::Unavailable)),
                    );
                }
                1 => {
                    let wait = self.etcd_down - self.now;
                    if wait < LIMBO {
                        let delay = wait + self.rng.below(500 * MS);
                        self.after(delay, Event::EtcdRequest(Box::new(rpc)));
                    }
                }
                _ => {}
            }
            return;
        }
        let before = self.etcd.view.revision;
        let optime = self.etcd.view.status.as_ref().map(|status| status.optime);
        self.etcd.careless = self.bug;
        let mut response = self.etcd.handle(self.now, &rpc.request);
        if let (Some(Bug::NoOldRight), Response::View(view)) = (self.bug, &mut response)
            && view.leader.is_none()
            && let Some(status) = &mut view.status
        {
            status.vacated = Some("anybody".into());
        }
        if self.etcd.view.revision != before {
            self.tell_write(&rpc, &response, optime);
            self.changed();
        }
        let here = Place::Node(rpc.node);
        match rpc.fate {
            Fate::Mute => return,
            Fate::Error(code) => response = Response::Error(code),
            Fate::Usual => {}
        }
        if self.net.up(self.now, Place::Etcd(0), here) {
            let mut delay = self.net.delay(self.now, Place::Etcd(0), here, &mut self.rng);
            if self.now < self.etcd_slow.0 && self.rng.one_in(2) {
                delay += self.rng.below(self.etcd_slow.1);
            }
            self.after(delay, Event::EtcdAnswer(Box::new(rpc), Box::new(response)));
        }
    }

    /// What a request changed, for the record.
    fn tell_write(&mut self, rpc: &Rpc, response: &Response, optime: Option<Lsn>) {
        let node = rpc.node;
        let lease = self.etcd.view.leader.as_ref().and_then(|key| key.lease);
        let lease = lease.unwrap_or(surus_core::types::LeaseId(0));
        let revision = self.etcd.view.revision;
        let status = match (&rpc.order, response) {
            (Order::Acquire { status, .. }, Response::Locked(revision, term)) => {
                let taken = Seen::LockTaken {
                    lease,
                    revision: *revision,
                    term: *term,
                    primary: self.hosts[node].pg.primary(),
                    standing: self.standing(node),
                    optime,
                };
                self.see(node, taken);
                status
            }
            (Order::Renew { status, .. }, Response::Locked(revision, term)) => {
                let (revision, term) = (*revision, *term);
                self.see(
                    node,
                    Seen::LockRenewed {
                        lease,
                        revision,
                        term,
                    },
                );
                status
            }
            (Order::Release { status, .. }, Response::Ok(_)) => {
                self.see(node, Seen::LockReleased { revision });
                status
            }
            (order, Response::Ok(_)) => {
                let seen = match order {
                    Order::ClaimInitialize | Order::WriteInitialize { .. } | Order::UnclaimInitialize => {
                        Seen::InitializeWritten {
                            to: self.etcd.view.initialize,
                        }
                    }
                    Order::WriteFailsafe { list, .. } => Seen::FailsafeWritten {
                        list: list.keys().filter_map(|name| self.index(name)).collect(),
                    },
                    Order::ClearFailover(_) => Seen::FailoverCleared,
                    Order::WriteMember(_) => Seen::MemberKey { present: true },
                    _ => return,
                };
                self.see(node, seen);
                return;
            }
            _ => return,
        };
        let seen = Seen::StatusWritten {
            optime: status.optime,
            timeline: status.timeline,
            next: status.next,
            vacated: status.vacated,
            unfenced: status.unfenced,
        };
        self.see(node, seen);
    }

    /// A lease ends in etcd, with the keys on it.
    pub(crate) fn revoke(&mut self, lease: LeaseId, why: LeaseEnd) {
        let members: Vec<NodeName> = self.etcd.view.members.keys().cloned().collect();
        let leader = self.etcd.view.leader.clone();
        self.etcd.revoke(lease);
        let gone = |name: &&NodeName| !self.etcd.view.members.contains_key(*name);
        let gone: Vec<usize> = members
            .iter()
            .filter(gone)
            .filter_map(|name| self.index(name))
            .collect();
        if let Some(key) = leader.filter(|_| self.etcd.view.leader.is_none()) {
            let holder = self.index(&key.name);
            self.see(holder, Seen::LockLost { lease, why });
        }
        for node in gone {
            self.see(node, Seen::MemberKey { present: false });
        }
        self.changed();
    }

    /// Its answer reaches the agent: the order is done, or its second half begins.
    pub(crate) fn etcd_answer(&mut self, mut rpc: Rpc, response: Response) {
        let name = self.names[rpc.node].clone();
        let local = self.local(rpc.node);
        if let (Response::Locked(_, term), Order::Acquire { ttl, .. } | Order::Renew { ttl, .. }) =
            (&response, &rpc.order)
            && *term == rpc.term
        {
            self.earn(rpc.node, rpc.sent, *ttl, RightBy::Lock);
        }
        let Some(agent) = &mut self.hosts[rpc.node].agent else {
            return;
        };
        if !agent.rpcs.contains(&rpc.id) {
            return;
        }
        let locking = matches!(rpc.order, Order::Acquire { .. } | Order::Renew { .. });
        let outcome = match response {
            Response::Lease(lease, term)
                if self.bug == Some(Bug::RenewWithoutTransaction)
                    && matches!(rpc.order, Order::Renew { .. })
                    && agent.lease == Some(lease) =>
            {
                Outcome::Locked {
                    sent: rpc.sent,
                    lease,
                    term,
                    revision: surus_core::types::Revision(0),
                }
            }
            Response::Lease(lease, term) if locking => {
                agent.lease = Some(lease);
                rpc.term = term;
                rpc.request = Request::Lock {
                    name,
                    lease,
                    order: rpc.order.clone(),
                };
                self.send_rpc(rpc);
                return;
            }
            Response::Locked(revision, term) if term == rpc.term => Outcome::Locked {
                sent: if self.bug == Some(Bug::RightFromReceiveTime) {
                    local
                } else {
                    rpc.sent
                },
                lease: agent.lease.unwrap_or(surus_core::types::LeaseId(0)),
                term,
                revision,
            },
            Response::Locked(..) => Outcome::Unknown("etcd changed its leader in between".to_owned()),
            Response::NotLocked(holder) => Outcome::NotLocked { holder },
            Response::View(view) => Outcome::Read {
                sent: rpc.sent,
                view: *view,
            },
            Response::Ok(lease) => {
                agent.lease = lease.or(agent.lease);
                Outcome::Ok
            }
            Response::Lease(..) => Outcome::Ok,
            Response::Conflict => Outcome::Failed("a condition did not hold".to_owned()),
            Response::Unavailable => Outcome::Failed("etcd has no leader".to_owned()),
            Response::Error(code) if certain(code) => Outcome::Failed(format!("etcd: {}", code.word())),
            Response::Error(code) => Outcome::Unknown(format!("etcd: {}", code.word())),
        };
        agent.rpcs.remove(&rpc.id);
        self.step(rpc.node, Input::Done { id: rpc.id, outcome });
    }

    pub(crate) fn etcd_timeout(&mut self, node: usize, id: ActionId) {
        if let Some(agent) = &mut self.hosts[node].agent
            && agent.rpcs.remove(&id)
        {
            let text = "no answer from etcd".to_owned();
            let outcome = if self.bug == Some(Bug::UnknownIsFailure) {
                Outcome::Failed(text)
            } else {
                Outcome::Unknown(text)
            };
            self.step(node, Input::Done { id, outcome });
        }
    }

    /// etcd revokes leases up to half a second after they expired.
    pub(crate) fn etcd_expiry(&mut self) {
        if self.etcd_down <= self.now {
            let expired: Vec<_> = self
                .etcd
                .leases
                .iter()
                .filter(|(_, lease)| lease.expires <= self.now)
                .map(|(id, _)| *id)
                .collect();
            for id in expired {
                self.revoke(id, LeaseEnd::Expired);
            }
        }
        let delay = self.rng.range(20 * MS, 500 * MS);
        self.after(delay, Event::EtcdExpiry);
    }

    /// A node's right was confirmed, or granted by all.
    pub(crate) fn earn(&mut self, node: usize, sent: MonoTime, ttl: Duration, by: RightBy) {
        let host = &mut self.hosts[node];
        let sent = host.clock.world(sent);
        let until = sent + u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        host.right = host.right.max(until);
        self.see(node, Seen::Right { sent, until, by });
    }

    /// Sends what etcd holds down the node's watch, if that works.
    pub fn watch(&mut self, node: usize) {
        let now = self.now;
        let up = self.net.up(now, Place::Etcd(0), Place::Node(node)) && self.hosts[node].deaf <= now;
        let Some(agent) = &self.hosts[node].agent else {
            return;
        };
        let epoch = agent.epoch;
        self.hosts[node].missed = !up;
        if up {
            let view = self.shown();
            let delay = self
                .net
                .delay(now, Place::Etcd(0), Place::Node(node), &mut self.rng);
            self.after(delay, Event::Input(node, epoch, Box::new(Input::Cluster(view))));
        }
    }

    /// What an agent is shown of etcd.
    fn shown(&self) -> ClusterView {
        let mut view = self.etcd.read();
        if self.bug == Some(Bug::NoOldRight)
            && view.leader.is_none()
            && let Some(status) = &mut view.status
        {
            status.vacated = Some("anybody".into());
        }
        view
    }

    /// Every watcher hears of a change.
    pub fn changed(&mut self) {
        for node in 0..self.hosts.len() {
            self.watch(node);
        }
    }
}

/// The kind of a request, in etcd's words. What the agent sends as one order may be two of them.
fn kind(rpc: &Rpc) -> surus_scenarios::Rpc {
    match rpc.request {
        Request::KeepAlive { lease: None, .. } => surus_scenarios::Rpc::Grant,
        Request::KeepAlive { .. } => surus_scenarios::Rpc::KeepAlive,
        Request::Lock { .. } | Request::Publish { .. } => surus_scenarios::Rpc::Txn,
        Request::Read => surus_scenarios::Rpc::Range,
    }
}

/// Errors after which the request certainly had no effect (`agent/src/dcs/fault.rs`); after all others nobody knows.
fn certain(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NoLeader
            | ErrorCode::NotLeader
            | ErrorCode::TooManyRequests
            | ErrorCode::NoSpace
            | ErrorCode::TooLarge
            | ErrorCode::LeaseNotFound
            | ErrorCode::LeaseExists
            | ErrorCode::Compacted
            | ErrorCode::FutureRevision
            | ErrorCode::InvalidToken
            | ErrorCode::PermissionDenied
            | ErrorCode::AuthOld
    )
}
