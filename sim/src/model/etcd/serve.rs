//! What becomes of a request at the member that it reaches.

use super::api::{Call, Ending, Error, Header, LeaseId, Op, Output, Range, Request, Response};
use super::mischief::{Fate, fate, stale};
use super::store::{Lease, well_formed};
use super::wait::{Waiting, What};
use super::{Etcd, raft};
use crate::clock::Time;

/// The longest life of a lease, in seconds.
const MOST_TTL: i64 = 9_000_000_000;

impl<K: Ord + Clone, V: Clone + PartialOrd> Etcd<K, V> {
    /// A request reaches a member. What it is answered comes out now or later; nothing, from a member that does not run.
    pub fn handle(
        &mut self,
        now: Time,
        member: usize,
        call: Call,
        request: Request<K, V>,
        out: &mut Vec<Output<K, V>>,
    ) {
        self.tick(now, out);
        let raft::Member {
            up, frozen, inbox, ..
        } = &mut self.members[member];
        if !*up {
            return;
        }
        if *frozen {
            inbox.push((call, request));
            return;
        }
        self.admit(now, member, call, request, out);
        if !self.waiting.is_empty() {
            self.settle(now, out);
        }
        self.pump(now, out);
        self.reschedule();
    }

    /// A request is looked at by a member that runs.
    pub(super) fn admit(
        &mut self,
        now: Time,
        member: usize,
        call: Call,
        request: Request<K, V>,
        out: &mut Vec<Output<K, V>>,
    ) {
        if self.mischief.is_empty() {
            return self.serve(now, member, call, request, out);
        }
        let error = match fate(&mut self.mischief, member, &request) {
            Fate::Usual => return self.serve(now, member, call, request, out),
            Fate::Refused(error) => return self.answer(now, member, call.id, Err(error), out),
            Fate::Fails(error) => Some(error),
            Fate::Swallowed => None,
        };
        let mut said = Vec::new();
        self.serve(now, member, call, request, &mut said);
        out.extend(
            said.into_iter()
                .filter(|output| !matches!(output, Output::Answer { call: of, .. } if *of == call.id)),
        );
        self.cancel(member, call.id);
        if let Some(error) = error {
            self.answer(now, member, call.id, Err(error), out);
        }
    }

    fn serve(
        &mut self,
        now: Time,
        member: usize,
        call: Call,
        mut request: Request<K, V>,
        out: &mut Vec<Output<K, V>>,
    ) {
        if let Err(error) = self.refusal(member, call, &request) {
            return self.answer(now, member, call.id, Err(error), out);
        }
        if let Request::Grant { id, .. } = &mut request
            && *id == 0
        {
            self.last_lease += 1;
            *id = self.last_lease;
        }
        let deadline = now + self.settings.request_timeout();
        let waiting = |what| Waiting {
            member,
            caller: Some(call.id),
            since: now,
            deadline,
            what,
        };
        match request {
            Request::Status => {
                let this = &self.members[member];
                let status = Response::Status {
                    leader: this.leader,
                    term: this.term,
                    index: this.applied.index,
                };
                self.answer(now, member, call.id, Ok(status), out);
            }
            Request::Authenticate => {
                let result = self.token.map(Response::Token).ok_or(Error::AuthOldRevision);
                self.answer(now, member, call.id, result, out);
            }
            Request::Leases => {
                let all = Response::Leases(self.store.leases.keys().copied().collect());
                self.answer(now, member, call.id, Ok(all), out);
            }
            Request::MoveLeader(to) => {
                let result = if self.leads(member) {
                    self.move_leader(now, member, to, out);
                    Ok(Response::MoveLeader)
                } else {
                    Err(Error::NotLeader)
                };
                self.answer(now, member, call.id, result, out);
            }
            Request::KeepAlive(_) | Request::TimeToLive(..) => {
                let header = self.header(member);
                self.ask_leader(now, waiting(What::Forward { request, header }), out);
            }
            request if request.proposes() => self.propose(now, waiting(What::Leader(request)), out),
            request if serializable(&request) => {
                let result = self.look(member, &request);
                self.answer(now, member, call.id, result, out);
            }
            request => {
                if stale(&self.mischief, member, now) {
                    let result = self.look(member, &request);
                    return self.answer(now, member, call.id, result, out);
                }
                let seen = self.members[member].leader;
                self.read(now, waiting(What::Read { request, seen }), out);
            }
        }
    }

    /// Why a request is refused at the door.
    fn refusal(&self, member: usize, call: Call, request: &Request<K, V>) -> Result<(), Error> {
        let free = match request {
            Request::Authenticate | Request::Status => true,
            Request::KeepAlive(_) => !self.settings.lease_auth,
            _ => false,
        };
        if !free && self.token.is_some_and(|token| token != call.token) {
            return Err(Error::InvalidToken);
        }
        if call.require_leader && self.members[member].leader.is_none() {
            return Err(Error::NoLeader);
        }
        match request {
            Request::Txn(txn) => well_formed(txn),
            Request::Grant { ttl, .. } if MOST_TTL < *ttl => Err(Error::LeaseTtlTooLarge),
            _ => Ok(()),
        }
    }

    /// A proposal of a member that may know of a leader.
    pub(super) fn propose(&mut self, now: Time, mut waiting: Waiting<K, V>, out: &mut Vec<Output<K, V>>) {
        let What::Leader(request) = waiting.what else {
            return;
        };
        let member = waiting.member;
        let Some(leader) = self.members[member].leader else {
            waiting.what = What::Leader(request);
            return self.waiting.push(waiting);
        };
        let reached = leader == member || self.members[leader].up && self.links.up(member, leader);
        waiting.what = if reached {
            What::Proposed {
                leader,
                request,
                logged: false,
            }
        } else {
            What::Lost
        };
        self.decide(now, waiting, out);
    }

    /// A proposal that has reached a leader, or one that was.
    pub(super) fn decide(&mut self, now: Time, mut waiting: Waiting<K, V>, out: &mut Vec<Output<K, V>>) {
        let What::Proposed {
            leader,
            request,
            logged,
        } = waiting.what
        else {
            return self.waiting.push(waiting);
        };
        let holder = &self.members[leader];
        let by = if !holder.up {
            waiting.what = What::Lost;
            return self.waiting.push(waiting);
        } else if self.commits(leader) {
            Some(leader)
        } else {
            // One that is no leader any more sends on to the one that is.
            let next = holder.leader.filter(|next| *next != leader && holder.live());
            next.filter(|next| self.commits(*next) && self.links.up(leader, *next))
        };
        let Some(by) = by else {
            let logged = logged || self.leads(leader) && holder.live() && holder.asleep == 0;
            waiting.what = What::Proposed {
                leader,
                request,
                logged,
            };
            return self.waiting.push(waiting);
        };
        let result = self.commit(now, by, request);
        waiting.what = What::Applied {
            index: self.committed.index,
            result,
        };
        self.finish(now, waiting, out);
    }

    /// An entry is agreed.
    pub(super) fn commit(
        &mut self,
        now: Time,
        leader: usize,
        request: Request<K, V>,
    ) -> Result<Response<K, V>, Error> {
        let compacts = matches!(request, Request::Compact(_));
        let result = self.apply(now, leader, request);
        self.agree(now, leader);
        if compacts {
            let slowest = self.members.iter().map(|member| member.applied.revision).min();
            self.store
                .prune(self.store.compacted.min(slowest.unwrap_or_default()));
        }
        result
    }

    /// The leader's count says that a lease is over.
    pub(super) fn expire(&mut self, now: Time, leader: usize, id: LeaseId) {
        if let Some(lessor) = &mut self.members[leader].lessor {
            lessor.revoke(id);
        }
        if self.store.revoke(id, Ending::Expired).is_ok() {
            self.agree(now, leader);
        }
    }

    fn agree(&mut self, now: Time, leader: usize) {
        self.committed.index += 1;
        self.committed.term = self.members[leader].term;
        self.committed.revision = self.store.revision;
        self.committed.compacted = self.store.compacted;
        self.spread(now, leader);
    }

    fn apply(&mut self, now: Time, leader: usize, request: Request<K, V>) -> Result<Response<K, V>, Error> {
        match request {
            Request::Put(put) => self.store.put(put),
            Request::Delete(delete) => Ok(self.store.delete(&delete)),
            Request::Txn(txn) => self.store.txn(txn),
            Request::Compact(revision) => self.store.compact(revision),
            Request::Grant { id, ttl } => {
                if self.store.full {
                    return Err(Error::NoSpace);
                }
                if self.store.leases.contains_key(&id) {
                    return Err(Error::LeaseExists);
                }
                let ttl = ttl.max(self.settings.least_ttl());
                let keys = std::collections::BTreeSet::new();
                self.store.leases.insert(id, Lease { ttl, keys });
                if let Some(lessor) = &mut self.members[leader].lessor {
                    lessor.grant(now, id, ttl);
                }
                Ok(Response::Grant { id, ttl })
            }
            Request::Revoke(id) => {
                if let Some(lessor) = &mut self.members[leader].lessor {
                    lessor.revoke(id);
                }
                self.store.revoke(id, Ending::Revoked)
            }
            Request::Alarm(on) => {
                self.store.full = on;
                Ok(Response::Alarm)
            }
            // Never proposed.
            _ => Err(Error::ProposalDropped),
        }
    }

    /// A linearizable read: the leader must have shown that it is one since it was asked.
    pub(super) fn read(&mut self, now: Time, mut waiting: Waiting<K, V>, out: &mut Vec<Output<K, V>>) {
        let What::Read { request, seen } = waiting.what else {
            return;
        };
        let member = waiting.member;
        let leader = self.members[member]
            .leader
            .filter(|leader| self.commits(*leader) && (*leader == member || self.together(member, *leader)));
        waiting.what = if leader.is_some() {
            What::Caught {
                index: self.committed.index,
                request,
            }
        } else {
            What::Read { request, seen }
        };
        if leader.is_some() {
            self.finish(now, waiting, out);
        } else {
            self.waiting.push(waiting);
        }
    }

    /// Something that only the leader's count of leases can answer. It does not ask the others whether it still leads.
    pub(super) fn ask_leader(&mut self, now: Time, waiting: Waiting<K, V>, out: &mut Vec<Output<K, V>>) {
        let What::Forward { request, header } = &waiting.what else {
            return;
        };
        let (member, header) = (waiting.member, *header);
        let leader = self.members[member]
            .leader
            .filter(|leader| *leader == member || self.together(member, *leader));
        let Some((leader, lessor)) = leader.and_then(|leader| {
            self.members[leader]
                .lessor
                .as_mut()
                .map(|lessor| (leader, lessor))
        }) else {
            return self.waiting.push(waiting);
        };
        let response = match request {
            Request::KeepAlive(id) => match lessor.expired(now, *id) {
                None => Response::KeepAlive { id: *id, ttl: 0 },
                Some(true) => {
                    let what = What::Ending {
                        id: *id,
                        leader,
                        header,
                    };
                    return self.waiting.push(Waiting { what, ..waiting });
                }
                Some(false) => Response::KeepAlive {
                    id: *id,
                    ttl: lessor.renew(now, *id),
                },
            },
            Request::TimeToLive(id, keys) => {
                let (ttl, granted) = lessor.remaining(now, *id).unwrap_or((-1, 0));
                let lease = self.store.leases.get(id).filter(|_| *keys && 0 <= ttl);
                Response::TimeToLive {
                    id: *id,
                    ttl,
                    granted,
                    keys: lease.map_or_else(Vec::new, |lease| lease.keys.iter().cloned().collect()),
                }
            }
            _ => return,
        };
        // etcd writes the header before it asks.
        self.send(now, header, waiting.caller, Ok(response), out);
    }

    /// What a member finds in what it has.
    pub(super) fn look(&self, member: usize, request: &Request<K, V>) -> Result<Response<K, V>, Error> {
        let applied = self.members[member].applied;
        match request {
            Request::Range(range) => self.store.range(range, applied.revision, applied.compacted),
            Request::Txn(txn) => self.store.read_txn(txn, applied.revision, applied.compacted),
            _ => Err(Error::ProposalDropped),
        }
    }

    pub(super) fn answer(
        &mut self,
        now: Time,
        member: usize,
        call: u64,
        result: Result<Response<K, V>, Error>,
        out: &mut Vec<Output<K, V>>,
    ) {
        let header = self.header(member);
        self.send(now, header, Some(call), result, out);
    }

    pub(super) fn send(
        &mut self,
        now: Time,
        header: Header,
        caller: Option<u64>,
        result: Result<Response<K, V>, Error>,
        out: &mut Vec<Output<K, V>>,
    ) {
        if let Some(call) = caller {
            let at = now + self.latency();
            out.push(Output::Answer {
                at,
                call,
                header,
                result,
            });
        }
    }
}

/// A read that asks for what the member has.
fn serializable<K, V>(request: &Request<K, V>) -> bool {
    let is = |range: &Range<K>| range.serializable;
    match request {
        Request::Range(range) => is(range),
        Request::Txn(txn) => txn
            .then
            .iter()
            .chain(&txn.otherwise)
            .all(|op| matches!(op, Op::Range(range) if is(range))),
        _ => false,
    }
}
