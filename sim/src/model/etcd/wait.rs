//! Requests that wait: for a leader, for a quorum, for a member to catch up, for a lease to end; and what becomes of a proposal that
//! nobody waits for any more.

use super::Etcd;
use super::api::{Error, Header, LeaseId, Output, Request, Response};
use crate::clock::Time;

/// A request that is not answered yet.
#[derive(Debug, Clone)]
pub(super) struct Waiting<K, V> {
    /// The member that will answer.
    pub(super) member: usize,
    /// Whom; nobody, if the client went away or was told that it took too long.
    pub(super) caller: Option<u64>,
    /// Since when.
    pub(super) since: Time,
    /// Until when.
    pub(super) deadline: Time,
    /// For what.
    pub(super) what: What<K, V>,
}

/// What a request waits for.
#[derive(Debug, Clone)]
pub(super) enum What<K, V> {
    /// A proposal: for the member to know of a leader. Not made if the client goes away.
    Leader(Request<K, V>),
    /// A proposal: for this leader's quorum (`logged`), or for it to do anything at all. It may be agreed long after the client
    /// was told that it timed out.
    Proposed {
        leader: usize,
        request: Request<K, V>,
        logged: bool,
    },
    /// A proposal that nobody has any more.
    Lost,
    /// An entry: for the member to apply it.
    Applied {
        index: u64,
        result: Result<Response<K, V>, Error>,
    },
    /// A linearizable read: for the leader to show that it is one.
    Read {
        request: Request<K, V>,
        seen: Option<usize>,
    },
    /// A linearizable read: for the member to have applied as much.
    Caught { index: u64, request: Request<K, V> },
    /// Something for the leader's count of leases: for a leader in reach.
    Forward { request: Request<K, V>, header: Header },
    /// The keep-alive of a lease that has expired: for its revocation to be agreed.
    Ending {
        id: LeaseId,
        leader: usize,
        header: Header,
    },
}

impl<K: Ord + Clone, V: Clone + PartialOrd> Etcd<K, V> {
    /// The client waits no longer (its stream was reset, its connection broke).
    pub fn cancel(&mut self, member: usize, call: u64) {
        self.members[member].inbox.retain(|(waits, _)| waits.id != call);
        self.waiting.retain_mut(|waiting| {
            if waiting.member != member || waiting.caller != Some(call) {
                return true;
            }
            waiting.caller = None;
            waiting.lives_on()
        });
        self.reschedule();
    }

    /// The member is gone, and with it all who waited there.
    pub(super) fn forget_waiting(&mut self, member: usize) {
        self.waiting.retain_mut(|waiting| {
            if waiting.member == member {
                waiting.caller = None;
                waiting.lives_on()
            } else {
                true
            }
        });
    }

    /// The leader is one no longer: what it alone had in its log is overwritten.
    pub(super) fn lose_proposals(&mut self, member: usize) {
        for waiting in &mut self.waiting {
            if matches!(&waiting.what, What::Proposed { leader, logged: true, .. } if *leader == member) {
                waiting.what = What::Lost;
            }
        }
    }

    /// A request of the member's own, in its hands when it awakes.
    pub(super) fn wait_in_inbox(&mut self, member: usize, request: Request<K, V>) {
        self.waiting.push(Waiting {
            member,
            caller: None,
            since: 0,
            deadline: Time::MAX,
            what: What::Proposed {
                leader: member,
                request,
                logged: false,
            },
        });
    }

    /// Whatever can go on, goes on.
    pub(super) fn settle(&mut self, now: Time, out: &mut Vec<Output<K, V>>) {
        for _ in 0..4 {
            if self.waiting.is_empty() {
                return;
            }
            let before = self.waiting.len();
            for waiting in std::mem::take(&mut self.waiting) {
                if self.members[waiting.member].live() {
                    self.resume(now, waiting, out);
                } else {
                    self.waiting.push(waiting);
                }
            }
            if self.waiting.len() == before {
                return;
            }
        }
    }

    fn resume(&mut self, now: Time, waiting: Waiting<K, V>, out: &mut Vec<Output<K, V>>) {
        let leader = self.members[waiting.member].leader;
        match &waiting.what {
            What::Leader(_) => self.propose(now, waiting, out),
            What::Proposed { .. } => self.decide(now, waiting, out),
            What::Lost if waiting.caller.is_none() => {}
            What::Lost => self.waiting.push(waiting),
            What::Applied { .. } | What::Caught { .. } => self.finish(now, waiting, out),
            What::Read { seen, .. } if leader.is_some() && leader != *seen => {
                self.answer_to(now, &waiting, Err(Error::LeaderChanged), out);
            }
            What::Read { .. } => self.read(now, waiting, out),
            What::Forward { .. } => self.ask_leader(now, waiting, out),
            What::Ending { id, leader, header } => {
                let (id, header) = (*id, *header);
                match &self.members[*leader].lessor {
                    Some(lessor) if lessor.expired(now, id).is_some() => self.waiting.push(waiting),
                    Some(_) => {
                        let gone = Response::KeepAlive { id, ttl: 0 };
                        self.send(now, header, waiting.caller, Ok(gone), out);
                    }
                    None => self.send(now, header, waiting.caller, Err(Error::NotPrimary), out),
                }
            }
        }
    }

    /// An answer that is known, once the member has applied what it rests on.
    pub(super) fn finish(&mut self, now: Time, waiting: Waiting<K, V>, out: &mut Vec<Output<K, V>>) {
        let applied = self.members[waiting.member].applied.index;
        match &waiting.what {
            What::Applied { index, result } if *index <= applied => {
                let result = result.clone();
                self.answer_to(now, &waiting, result, out);
            }
            What::Caught { index, request } if *index <= applied => {
                let result = self.look(waiting.member, request);
                self.answer_to(now, &waiting, result, out);
            }
            _ if waiting.caller.is_some() => self.waiting.push(waiting),
            _ => {}
        }
    }

    fn answer_to(
        &mut self,
        now: Time,
        waiting: &Waiting<K, V>,
        result: Result<Response<K, V>, Error>,
        out: &mut Vec<Output<K, V>>,
    ) {
        let header = self.header(waiting.member);
        self.send(now, header, waiting.caller, result, out);
    }

    /// Members tell those who have waited too long.
    pub(super) fn give_up(&mut self, now: Time, out: &mut Vec<Output<K, V>>) {
        if self.waiting.iter().all(|waiting| now < waiting.deadline) {
            return;
        }
        for mut waiting in std::mem::take(&mut self.waiting) {
            if now < waiting.deadline || !self.members[waiting.member].live() {
                self.waiting.push(waiting);
                continue;
            }
            let error = self.lateness(&waiting);
            self.answer_to(now, &waiting, Err(error), out);
            waiting.caller = None;
            waiting.deadline = Time::MAX;
            if waiting.lives_on() {
                self.waiting.push(waiting);
            }
        }
    }

    /// In which words.
    fn lateness(&self, waiting: &Waiting<K, V>) -> Error {
        let member = &self.members[waiting.member];
        let suspect = member.elected.saturating_sub(2 * self.settings.election);
        match &waiting.what {
            What::Leader(_) => Error::DeadlineExceeded,
            What::Read { .. } | What::Caught { .. } | What::Forward { .. } | What::Ending { .. } => {
                Error::Timeout
            }
            _ if suspect < waiting.since && waiting.since < member.elected => Error::TimeoutLeaderFail,
            _ => match member.leader {
                Some(leader) if leader != waiting.member && !self.together(waiting.member, leader) => {
                    Error::TimeoutConnectionLost
                }
                _ => Error::Timeout,
            },
        }
    }
}

impl<K, V> Waiting<K, V> {
    /// Something may come of it although nobody waits.
    fn lives_on(&self) -> bool {
        matches!(self.what, What::Proposed { .. })
    }
}
