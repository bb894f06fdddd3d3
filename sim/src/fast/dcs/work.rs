//! An order to etcd under way, as a sequence of requests: as `agent/src/dcs/lock.rs` and `publish.rs` have it.
//!
//! Acquire and Renew: the lease is kept alive (or granted) first, then a transaction sees the key on it, both under one raft term;
//! or the pair is tried again.

use std::sync::Arc;
use std::time::Duration;

use surus_core::Order;
use surus_core::input::Outcome;
use surus_core::types::{ActionId, LeaseId, MonoTime, NodeName, Revision, Term};
use surus_core::view::{Initialize, Member};

use super::keys::{self, Answered, Asked, Held, Key, Kv};
use super::pool::{Failure, Kind, Round};
use super::txn::{absent, delete, get, not_locked, on, put, whole_seconds};
use crate::clock::Time;
use crate::model::etcd::api::Range;
use crate::model::etcd::{Compare, Header, Keys, Request, Response, Target, Txn};
use crate::zoo::Bug;

/// The lease of an agent's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnLease {
    id: i64,
    ttl: Duration,
}

impl OwnLease {
    /// Its number.
    pub fn id(self) -> LeaseId {
        LeaseId(self.id)
    }
}

/// The lease, seen alive.
#[derive(Debug, Clone, Copy)]
struct Living {
    id: i64,
    sent: MonoTime,
    /// When what was answered was truly sent.
    truly: MonoTime,
    term: u64,
}

/// Who works, and with what.
pub struct Worker<'a> {
    /// The member.
    pub node: usize,
    /// All members.
    pub names: &'a [NodeName],
    /// The process's lease.
    pub lease: &'a mut Option<OwnLease>,
    /// The planted bug.
    pub bug: Option<Bug>,
    /// The agent's clock.
    pub local: MonoTime,
}

/// What comes next.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it was made, and never kept"
)]
pub enum Next {
    /// Another request.
    Ask(Asked),
    /// The order has ended.
    End(Outcome),
}

/// An order under way.
#[derive(Debug, Clone)]
pub struct Work {
    /// Which.
    pub id: ActionId,
    order: Order,
    /// The member's key as the agent completes it.
    member: Option<Arc<Member>>,
    /// It ends by then.
    pub deadline: Time,
    /// Some request of it may have been carried out unknown to us.
    pub ambiguous: bool,
    /// The request under way.
    pub request: Asked,
    /// Where it is with the endpoints.
    pub round: Round,
    /// The attempt under way, by its number.
    pub attempt: u64,
    /// When that was sent.
    pub sent: MonoTime,
    /// It can have reached the endpoint.
    pub left: bool,
    /// All attempts, for a planted bug that takes the answer of one for another's; and when the one was sent that is answered so.
    pub attempts: Vec<(u64, MonoTime)>,
    /// See there.
    pub late: Option<MonoTime>,
    lease: Option<Living>,
    before: Option<OwnLease>,
    /// The lease that the leader key hangs on, if it is not ours.
    stray: Option<i64>,
    /// The revision of `status` that a renewal met.
    met: Option<i64>,
    /// The revision of a broken `initialize` that is to be overwritten.
    broken: Option<i64>,
    looking: bool,
    confirmed: bool,
}

impl Work {
    /// Begins an order.
    pub fn new(
        id: ActionId,
        order: Order,
        member: Option<Member>,
        deadline: Time,
        worker: &mut Worker<'_>,
    ) -> Self {
        let mut work = Self {
            id,
            order,
            member: member.map(Arc::new),
            deadline,
            ambiguous: false,
            request: Request::Status,
            round: Round::default(),
            attempt: 0,
            sent: MonoTime::ZERO,
            left: false,
            attempts: Vec::new(),
            late: None,
            lease: None,
            before: None,
            stray: None,
            met: None,
            broken: None,
            looking: false,
            confirmed: false,
        };
        work.request = work.open(worker);
        work
    }

    /// The life of the lease that the order needs.
    fn ttl(&self) -> Option<Duration> {
        match &self.order {
            Order::Acquire { ttl, .. } | Order::Renew { ttl, .. } => Some(*ttl),
            Order::WriteMember(record) => Some(record.ttl),
            _ => None,
        }
    }

    /// The right that was truly confirmed, `status` telling of it: since when, and for how long.
    pub fn earned(&self) -> Option<(MonoTime, Duration)> {
        let ttl = match &self.order {
            Order::Acquire { ttl, .. } | Order::Renew { ttl, .. } => *ttl,
            _ => return None,
        };
        self.lease
            .filter(|_| self.confirmed)
            .map(|living| (living.truly, ttl))
    }

    /// The first request, or the first again.
    fn open(&mut self, worker: &mut Worker<'_>) -> Asked {
        let Some(ttl) = self.ttl() else {
            return self.transaction(worker);
        };
        self.before = *worker.lease;
        match worker.lease.filter(|own| own.ttl == ttl) {
            Some(own) => Request::KeepAlive(own.id),
            None => Request::Grant {
                id: 0,
                ttl: whole_seconds(ttl),
            },
        }
    }

    /// The verdict on an order that did not get done.
    fn error(&self, text: &str, worker: &Worker<'_>) -> Outcome {
        if self.ambiguous
            && worker.bug == Some(Bug::UnknownIsSuccess)
            && matches!(self.order, Order::Renew { .. })
        {
            let (id, sent, term) = self
                .lease
                .map_or((0, self.sent, 0), |living| (living.id, living.sent, living.term));
            return Outcome::Locked {
                sent,
                lease: LeaseId(id),
                term: Term(term),
                revision: Revision(0),
                written: Some(Revision(0)),
            };
        }
        if self.ambiguous && worker.bug != Some(Bug::UnknownIsFailure) {
            Outcome::Unknown(text.to_owned())
        } else {
            Outcome::Failed(text.to_owned())
        }
    }

    /// No endpoint did it.
    pub fn failed(&mut self, failure: Failure, worker: &mut Worker<'_>) -> Next {
        match failure.kind {
            Kind::LeaseGone if self.ttl().is_some() => {
                self.forget(worker);
                self.stray = None;
                Next::Ask(self.open(worker))
            }
            Kind::NoSpace if matches!(self.order, Order::Renew { .. }) && !self.looking => {
                self.looking = true;
                Next::Ask(Request::Range(Range::new(Keys::One(Key::Leader))))
            }
            Kind::NoSpace => Next::End(self.error("etcd has no space", worker)),
            _ => Next::End(self.error("no answer from etcd", worker)),
        }
    }

    fn forget(&mut self, worker: &mut Worker<'_>) {
        if let Some(living) = self.lease.take()
            && worker.lease.is_some_and(|own| own.id == living.id)
        {
            *worker.lease = None;
        }
    }

    /// An endpoint answered.
    pub fn heard(&mut self, header: Header, answer: Answered, worker: &mut Worker<'_>) -> Next {
        match answer {
            Response::KeepAlive { id, ttl } if 0 < ttl => {
                self.lease = Some(Living {
                    id,
                    sent: self.sent,
                    truly: self.late.take().unwrap_or(self.sent),
                    term: header.term,
                });
                if worker.bug == Some(Bug::RenewWithoutTransaction)
                    && matches!(self.order, Order::Renew { .. })
                {
                    return Next::End(self.held(header, Some(header.revision), worker));
                }
                Next::Ask(self.transaction(worker))
            }
            Response::KeepAlive { id, .. } => {
                if worker.lease.is_some_and(|own| own.id == id) {
                    *worker.lease = None;
                }
                Next::Ask(self.open(worker))
            }
            Response::Grant { id, .. } => {
                let ttl = self.ttl().unwrap_or_default();
                // The other lane may have been faster.
                if *worker.lease != self.before {
                    return Next::Ask(self.open(worker));
                }
                *worker.lease = Some(OwnLease { id, ttl });
                self.lease = Some(Living {
                    id,
                    sent: self.sent,
                    truly: self.late.take().unwrap_or(self.sent),
                    term: header.term,
                });
                Next::Ask(self.transaction(worker))
            }
            Response::Range { kvs, .. } if self.looking => self.looked(kvs.first(), header, worker),
            Response::Range { kvs, .. } => Next::End(Outcome::Read {
                sent: self.sent,
                view: keys::read(&kvs, header, worker.names),
            }),
            Response::Txn { succeeded, responses } => {
                let gets: Vec<Option<Kv>> = responses
                    .into_iter()
                    .filter_map(|response| match response {
                        Response::Range { kvs, .. } => Some(kvs.into_iter().next()),
                        _ => None,
                    })
                    .collect();
                self.found(succeeded, &gets, header, worker)
            }
            _ => Next::End(self.error("etcd answered something else", worker)),
        }
    }

    fn held(&self, header: Header, written: Option<i64>, worker: &Worker<'_>) -> Outcome {
        let (id, sent) = self
            .lease
            .map_or((0, self.sent), |living| (living.id, living.sent));
        Outcome::Locked {
            sent: if worker.bug == Some(Bug::RightFromReceiveTime) {
                worker.local
            } else {
                sent
            },
            lease: LeaseId(id),
            term: Term(header.term),
            revision: Revision(header.revision),
            written: written.map(Revision),
        }
    }

    /// Whether the answer is of the term in which the lease was seen alive.
    fn one_term(&mut self, header: Header, worker: &Worker<'_>) -> bool {
        let any_term = worker.bug == Some(Bug::KeepAliveOfAnyTerm);
        self.confirmed = self.lease.is_some_and(|living| living.term == header.term);
        self.confirmed || any_term
    }

    /// The leader key, read in place of a transaction while etcd has no space.
    fn looked(&mut self, leader: Option<&Kv>, header: Header, worker: &mut Worker<'_>) -> Next {
        self.looking = false;
        let mine = leader.filter(|kv| kv.value == Some(Held::Name(worker.node)));
        let Some(kv) = mine else {
            return Next::End(not_locked(leader, worker));
        };
        if self.lease.is_some_and(|living| living.id != kv.lease) {
            return Next::End(self.error("etcd has no space", worker));
        }
        if self.one_term(header, worker) {
            self.confirmed = false;
            return Next::End(self.held(header, None, worker));
        }
        Next::Ask(self.open(worker))
    }

    /// The request after the lease is known to live, or the first where none is needed.
    fn transaction(&self, worker: &Worker<'_>) -> Asked {
        let node = worker.node;
        let lease = self.lease.map_or(0, |living| living.id);
        let mine = || Compare::equal(Key::Leader, Target::Value(Held::Name(node)));
        let at = |key, revision: Revision| Compare::equal(key, Target::Mod(revision.0));
        let txn = match &self.order {
            Order::ReadCluster => {
                let mut range = Range::new(Keys::From(Key::Config));
                range.serializable = worker.bug == Some(Bug::StaleReads);
                return Request::Range(range);
            }
            Order::Acquire {
                grounds,
                seen,
                status,
                ..
            } => {
                let mut when = vec![absent(Key::Leader)];
                when.extend(on(grounds).map(|(key, revision)| at(key, revision)));
                if worker.bug != Some(Bug::AcquireUnseenReign) {
                    when.push(at(Key::Status, *seen));
                }
                let mut then = vec![put(Key::Leader, Held::Name(node), lease)];
                if worker.bug != Some(Bug::AcquireWithoutStatus) {
                    then.push(put(Key::Status, keys::status(node, status, worker.names), 0));
                }
                Txn {
                    when,
                    then,
                    otherwise: [Key::Leader, Key::Config, Key::Failover, Key::Failsafe, Key::Sync]
                        .map(get)
                        .to_vec(),
                }
            }
            Order::Renew { seen, status, .. } => {
                let hangs_on = self.stray.unwrap_or(lease);
                let seen = self.met.map_or(*seen, Revision);
                let mut then = vec![put(Key::Status, keys::status(node, status, worker.names), 0)];
                if worker.bug == Some(Bug::RenewWithoutStatus) {
                    then.clear();
                }
                if hangs_on != lease {
                    then.push(put(Key::Leader, Held::Name(node), lease));
                }
                let mut when = vec![mine(), Compare::equal(Key::Leader, Target::Lease(hangs_on))];
                if worker.bug != Some(Bug::RenewAnyStatus) {
                    when.push(at(Key::Status, seen));
                }
                Txn {
                    when,
                    then,
                    otherwise: vec![get(Key::Leader), get(Key::Status)],
                }
            }
            Order::Release { seen, status } => {
                let mut when = vec![mine()];
                if worker.bug != Some(Bug::ReleaseAnyReign) {
                    when.push(at(Key::Status, *seen));
                }
                Txn {
                    when,
                    then: vec![
                        put(Key::Status, keys::status(node, status, worker.names), 0),
                        delete(Key::Leader),
                    ],
                    otherwise: vec![get(Key::Leader), get(Key::Status)],
                }
            }
            Order::EndReign { created, seen } => {
                let mut when = vec![Compare::equal(Key::Leader, Target::Create(created.0))];
                if worker.bug != Some(Bug::EndAnyStatus) {
                    when.push(at(Key::Status, *seen));
                }
                Txn {
                    when,
                    then: vec![delete(Key::Leader)],
                    otherwise: vec![get(Key::Leader)],
                }
            }
            Order::ClaimInitialize => Txn {
                when: vec![absent(Key::Initialize)],
                then: vec![
                    put(Key::Initialize, Held::Initialize(Initialize::InProgress), 0),
                    put(Key::Claim, Held::Name(node), 0),
                ],
                otherwise: vec![get(Key::Initialize), get(Key::Claim)],
            },
            Order::WriteInitialize {
                system_id,
                bootstrapped,
            } => {
                let condition = match self.broken {
                    Some(revision) => Compare::equal(Key::Initialize, Target::Mod(revision)),
                    None if *bootstrapped => mine(),
                    None => absent(Key::Initialize),
                };
                Txn {
                    when: vec![condition],
                    then: vec![
                        put(Key::Initialize, Held::Initialize(Initialize::Done(*system_id)), 0),
                        delete(Key::Claim),
                    ],
                    otherwise: vec![get(Key::Initialize)],
                }
            }
            Order::UnclaimInitialize => {
                let in_progress = Held::Initialize(Initialize::InProgress);
                Txn {
                    when: vec![
                        Compare::equal(Key::Initialize, Target::Value(in_progress)),
                        Compare::equal(Key::Claim, Target::Value(Held::Name(node))),
                    ],
                    then: vec![delete(Key::Initialize), delete(Key::Claim)],
                    otherwise: Vec::new(),
                }
            }
            Order::WriteConfig => Txn {
                when: vec![absent(Key::Config)],
                then: vec![put(Key::Config, Held::Empty, 0)],
                otherwise: Vec::new(),
            },
            Order::WriteMember(_) => {
                let key = Key::Member(node);
                let held = Held::Member(self.member.clone().unwrap_or_default());
                Txn {
                    when: vec![
                        Compare::equal(key, Target::Value(held.clone())),
                        Compare::equal(key, Target::Lease(lease)),
                    ],
                    then: Vec::new(),
                    otherwise: vec![put(key, held, lease)],
                }
            }
            Order::WriteHistory(lines) => Txn {
                when: vec![mine()],
                then: vec![put(Key::History, Held::History(Arc::new(lines.clone())), 0)],
                otherwise: vec![get(Key::History)],
            },
            Order::WriteFailsafe { seen, list } => Txn {
                when: vec![at(Key::Failsafe, *seen), mine()],
                then: vec![put(Key::Failsafe, Held::Failsafe(Arc::new(list.clone())), 0)],
                otherwise: vec![get(Key::Failsafe)],
            },
            Order::WriteSync { seen, key } => Txn {
                when: vec![at(Key::Sync, *seen), mine()],
                then: vec![key.as_ref().map_or_else(
                    || delete(Key::Sync),
                    |key| put(Key::Sync, Held::Sync(Arc::new(key.clone())), 0),
                )],
                otherwise: vec![get(Key::Sync)],
            },
            Order::ClearFailover(revision) => Txn {
                when: vec![at(Key::Failover, *revision)],
                then: vec![put(Key::Failover, Held::Empty, 0)],
                otherwise: vec![get(Key::Failover)],
            },
            _ => Txn::default(),
        };
        Request::Txn(txn)
    }

    /// What the transaction found.
    fn found(
        &mut self,
        succeeded: bool,
        gets: &[Option<Kv>],
        header: Header,
        worker: &mut Worker<'_>,
    ) -> Next {
        let got = |index: usize| gets.get(index).and_then(Option::as_ref);
        let lease = self.lease.map_or(0, |living| living.id);
        let mine = |kv: &Kv| kv.value == Some(Held::Name(worker.node));
        let outcome = match &self.order {
            Order::Acquire { grounds, .. } => {
                let at = |kv: Option<&Kv>| Revision(kv.map_or(0, |kv| kv.modified));
                // An attempt of ours that was not answered, or was answered under another term, has created it: of this order, or of one
                // before it, which may have written another `status`.
                let ours = got(0).is_some_and(|kv| mine(kv) && kv.lease == lease);
                let unchanged = (1..)
                    .zip(on(grounds))
                    .all(|(index, (_, seen))| at(got(index)) == seen);
                let written = succeeded.then_some(header.revision);
                let written = written.or((worker.bug == Some(Bug::AcquireTakesAll)).then(|| at(got(0)).0));
                if !(succeeded || ours && unchanged) {
                    not_locked(got(0), worker)
                } else if self.one_term(header, worker) {
                    self.confirmed &= succeeded;
                    self.held(header, written, worker)
                } else {
                    return Next::Ask(self.open(worker));
                }
            }
            Order::Renew { .. } => {
                if succeeded && self.one_term(header, worker) {
                    self.held(header, Some(header.revision), worker)
                } else if succeeded {
                    (self.stray, self.met) = (None, Some(header.revision));
                    return Next::Ask(self.open(worker));
                } else if let Some(kv) = got(0).filter(|kv| mine(kv)) {
                    // A `status` that has moved was written by a renewal of ours that came late.
                    (self.stray, self.met) = (Some(kv.lease), Some(got(1).map_or(0, |kv| kv.modified)));
                    return Next::Ask(self.open(worker));
                } else {
                    not_locked(got(0), worker)
                }
            }
            Order::Release { status, .. } => {
                let written = keys::status(worker.node, status, worker.names);
                let before = self.ambiguous && got(1).is_some_and(|kv| kv.value.as_ref() == Some(&written));
                if succeeded || before && got(0).is_none() {
                    Outcome::Ok
                } else {
                    not_locked(got(0), worker)
                }
            }
            Order::EndReign { .. } => {
                if succeeded {
                    Outcome::Ok
                } else {
                    not_locked(got(0), worker)
                }
            }
            Order::ClaimInitialize => {
                let own = got(0).zip(got(1)).is_some_and(|(initialize, claim)| {
                    initialize.value == Some(Held::Initialize(Initialize::InProgress))
                        && mine(claim)
                        && claim.modified == initialize.modified
                });
                if succeeded || own {
                    Outcome::Ok
                } else {
                    Outcome::Failed("somebody else creates the cluster, or has".to_owned())
                }
            }
            Order::WriteInitialize {
                system_id,
                bootstrapped,
            } => {
                let present = got(0);
                let id = match present.and_then(|kv| kv.value.as_ref()) {
                    Some(Held::Initialize(Initialize::Done(id))) => Some(*id),
                    _ => None,
                };
                if succeeded || id == Some(*system_id) {
                    Outcome::Ok
                } else if *bootstrapped {
                    Outcome::Failed("the lock is not this node's".to_owned())
                } else if id.is_some() {
                    Outcome::Failed("the key holds another identity".to_owned())
                } else {
                    self.broken = present.map(|kv| kv.modified);
                    return Next::Ask(self.transaction(worker));
                }
            }
            Order::WriteHistory(lines) => {
                let written = Held::History(Arc::new(lines.clone()));
                self.written(succeeded, got(0), &written, worker)
            }
            Order::WriteFailsafe { list, .. } => {
                let written = Held::Failsafe(Arc::new(list.clone()));
                self.written(succeeded, got(0), &written, worker)
            }
            Order::WriteSync { seen, key } => {
                let wanted = key.as_ref().map(|key| Held::Sync(Arc::new(key.clone())));
                let moved = got(0).filter(|kv| Revision(kv.modified) != *seen);
                let revision = if succeeded {
                    Some(header.revision)
                } else if self.ambiguous && wanted.is_none() {
                    // A key that is gone tells of no revision.
                    None
                } else {
                    moved.filter(|kv| kv.value == wanted).map(|kv| kv.modified)
                };
                match revision {
                    Some(revision) => Outcome::Written {
                        revision: Revision(revision),
                    },
                    None => self.error("the key has changed, or the lock is not this node's", worker),
                }
            }
            Order::ClearFailover(_) => self.written(succeeded, got(0), &Held::Empty, worker),
            _ => Outcome::Ok,
        };
        Next::End(outcome)
    }

    /// An attempt of ours that was not answered may have written it.
    fn written(&self, succeeded: bool, kv: Option<&Kv>, held: &Held, worker: &Worker<'_>) -> Outcome {
        if succeeded || kv.is_some_and(|kv| kv.value.as_ref() == Some(held)) {
            Outcome::Ok
        } else {
            self.error("a condition did not hold", worker)
        }
    }
}
