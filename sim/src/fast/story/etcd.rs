//! Faults of etcd: what a story calls them, and which members they hit.

use surus_scenarios::{ErrorCode, EtcdFault, EtcdTarget, Keys, Lost, Nanos, Rpc, Taken, Target};

use super::{unable, void};
use crate::clock::{SEC, Time};
use crate::fast::dcs::keys::Key;
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::model::etcd::{Keys as Span, Mischief};

/// A shorter loss of the quorum is a loss of the network between the members: nobody is elected in it.
const BRIEF: Time = 3 * SEC / 2;

/// What befalls the requests of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mishap {
    /// What.
    pub kind: Befalls,
    /// Which requests.
    pub rpc: Rpc,
    /// So many yet; zero: all.
    pub count: u64,
    /// Until then.
    pub until: Time,
}

/// What can befall a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Befalls {
    /// An error; `true`: it had its effect all the same.
    Error(ErrorCode, bool),
    /// Something of it gets lost.
    Lost(Lost),
    /// It takes so much longer.
    Late(Time),
}

impl World {
    pub(super) fn etcd_fault(&mut self, fault: &EtcdFault) -> Taken {
        match fault {
            EtcdFault::Kill { member, back } => {
                for member in self.etcd_at(member) {
                    self.etcd_stop(member, back.0);
                }
                self.lasts(*back);
            }
            EtcdFault::Freeze { member, span } => {
                for member in self.etcd_at(member) {
                    self.etcd_freeze(member, span.0);
                }
                self.lasts(*span);
            }
            EtcdFault::Slow { member, by, span } => {
                let until = self.until(*span);
                for member in self.etcd_at(member) {
                    self.etcd.slow[member] = (until, by.0);
                }
                self.lasts(*span);
            }
            EtcdFault::Elect { outage: Nanos::ZERO } => self.etcd_elect(),
            EtcdFault::Elect { outage } => match self.etcd.cluster.leader() {
                Some(leader) => self.etcd_stop(leader, outage.0),
                None => return void("nobody leads etcd"),
            },
            EtcdFault::NoQuorum { span } => {
                self.no_quorum(*span);
                self.lasts(*span);
            }
            EtcdFault::Depose { span } => match self.etcd.cluster.leader() {
                Some(leader) => {
                    self.etcd_freeze(leader, span.0);
                    self.lasts(*span);
                }
                None => return void("nobody leads etcd"),
            },
            EtcdFault::LeaseEarly { node } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                let cluster = &self.etcd.cluster;
                let lease = |key| cluster.agreed(&key).map(|kv| kv.lease);
                let name = &self.names[node];
                let leads = self
                    .etcd
                    .view
                    .leader
                    .as_ref()
                    .is_some_and(|key| key.name == *name);
                let own = leads.then(|| lease(Key::Leader)).flatten();
                let Some(id) = own.or_else(|| lease(Key::Member(node))) else {
                    return void("it has no lease");
                };
                self.etcd_revoke(surus_core::types::LeaseId(id));
            }
            EtcdFault::LeaseLate { by } => self.etcd_prolong(by.0),
            EtcdFault::StaleReads { member, span } => {
                let until = self.until(*span);
                for member in self.etcd_at(member) {
                    self.etcd.cluster.plant(Mischief::StaleReads(member, until));
                }
                self.lasts(*span);
            }
            EtcdFault::ReadOnly { span } => {
                self.etcd_full(true);
                if *span != Nanos::FOREVER {
                    self.after(span.0, Event::EtcdSpace);
                }
                self.lasts(*span);
            }
            EtcdFault::Wipe { keys } => match span(*keys) {
                Some(keys) => self.etcd_delete(keys),
                None => return void("there is no such key"),
            },
            EtcdFault::Compact {} => self.etcd_compact(),
            _ => return self.client_fault(fault),
        }
        Taken::Done
    }

    /// Faults between one member of the cluster and etcd.
    fn client_fault(&mut self, fault: &EtcdFault) -> Taken {
        match fault {
            EtcdFault::WatchGap { node, span } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                self.hosts[node].deaf = self.until(*span);
                self.lasts(*span);
            }
            EtcdFault::WatchCancel { node } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                self.watch_cancelled(node);
            }
            EtcdFault::WatchRepeat { node } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                self.watch_repeats(node);
            }
            EtcdFault::PinWatch { node, member, span } => {
                let (node, member) = (self.member_at(node), self.etcd_at(member).first().copied());
                let (Some(node), Some(member)) = (node, member) else {
                    return void("nobody is meant by that now");
                };
                self.hosts[node].pinned = Some((member, self.until(*span)));
                self.lasts(*span);
            }
            EtcdFault::Error {
                node,
                code,
                rpc,
                applied,
                count,
                span,
            } => return self.befall(node, Befalls::Error(*code, *applied), *rpc, *count, *span),
            EtcdFault::Lose {
                node,
                part,
                rpc,
                count,
                span,
            } => return self.befall(node, Befalls::Lost(*part), *rpc, *count, *span),
            EtcdFault::Delay {
                node,
                by,
                rpc,
                count,
                span,
            } => return self.befall(node, Befalls::Late(by.0), *rpc, *count, *span),
            EtcdFault::ExpireToken { node } => {
                let error = Befalls::Error(ErrorCode::InvalidToken, false);
                return self.befall(node, error, Rpc::Any, 1, Nanos::FOREVER);
            }
            other => return unable(&format!("the model of etcd has no {}", other.word())),
        }
        Taken::Done
    }

    /// The members of etcd that are meant now.
    fn etcd_at(&mut self, target: &EtcdTarget) -> Vec<usize> {
        let all = 0..self.etcd.members();
        let leader = self.etcd.cluster.leader();
        match target {
            EtcdTarget::Member(name) => self.etcd_named(name).into_iter().collect(),
            EtcdTarget::Leader => leader.into_iter().collect(),
            EtcdTarget::Follower => {
                let followers: Vec<usize> = all.filter(|member| Some(*member) != leader).collect();
                let chosen = self.rng.index(followers.len().max(1));
                followers.get(chosen).copied().into_iter().collect()
            }
            EtcdTarget::Any => vec![self.rng.index(self.etcd.members())],
            EtcdTarget::All => all.collect(),
        }
    }

    /// The quorum is lost: the members do not reach each other, or too many of them are killed or stand still.
    fn no_quorum(&mut self, span: Nanos) {
        let way = if span.0 < BRIEF { 0 } else { self.rng.below(3) };
        if way == 0 {
            return self.etcd_split(span.0);
        }
        let members = self.etcd.members();
        let first = self.rng.index(members);
        for step in 0..=members / 2 {
            let member = (first + step) % members;
            if way == 1 {
                self.etcd_stop(member, span.0);
            } else {
                self.etcd_freeze(member, span.0);
            }
        }
    }

    fn befall(&mut self, node: &Target, kind: Befalls, rpc: Rpc, count: u64, span: Nanos) -> Taken {
        let Some(node) = self.member_at(node) else {
            return void("nobody is meant by that now");
        };
        let until = self.until(span);
        self.hosts[node].mishaps.push(Mishap {
            kind,
            rpc,
            count,
            until,
        });
        self.lasts(span);
        Taken::Done
    }

    /// What befalls a request of a member now.
    pub(crate) fn mishap(&mut self, node: usize, rpc: Rpc) -> Option<Befalls> {
        let now = self.now;
        let mishaps = &mut self.hosts[node].mishaps;
        if mishaps.is_empty() {
            return None;
        }
        mishaps.retain(|mishap| now < mishap.until);
        let index = mishaps
            .iter()
            .position(|mishap| mishap.rpc == Rpc::Any || mishap.rpc == rpc)?;
        let kind = mishaps[index].kind;
        match mishaps[index].count {
            0 => {}
            1 => {
                mishaps.remove(index);
            }
            _ => mishaps[index].count -= 1,
        }
        Some(kind)
    }
}

/// The keys that a story names.
fn span(keys: Keys) -> Option<Span<Key>> {
    Some(match keys {
        Keys::All => Span::From(Key::Config),
        Keys::Leader => Span::One(Key::Leader),
        Keys::Status => Span::One(Key::Status),
        Keys::Config => Span::One(Key::Config),
        Keys::Initialize => Span::One(Key::Initialize),
        Keys::Members => Span::Between(Key::Member(0), Key::Status),
        Keys::History => Span::One(Key::History),
        Keys::Failover => Span::One(Key::Failover),
        Keys::Failsafe => Span::One(Key::Failsafe),
        Keys::Sync => return None,
    })
}
