//! Faults of etcd.

use surus_scenarios::{ErrorCode, EtcdFault, EtcdTarget, Keys, Lost, Nanos, Rpc, Taken, Target};

use super::{unable, void};
use crate::clock::{MS, SEC, Time};
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::net::Place;
use crate::record::{LeaseEnd, Seen};

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
        let now = self.now;
        match fault {
            EtcdFault::NoQuorum { span } => {
                self.etcd_down = self.etcd_down.max(self.until(*span));
                self.lasts(*span);
            }
            EtcdFault::Slow {
                member: EtcdTarget::All,
                by,
                span,
            } => {
                self.etcd_slow = (self.until(*span), by.0);
                self.lasts(*span);
            }
            EtcdFault::Elect { outage } => {
                // An election takes one to two of etcd's election timeouts of a second, unless the leader hands over.
                let outage = match *outage {
                    Nanos::ZERO => self.rng.range(200 * MS, 1500 * MS),
                    outage => outage.0,
                };
                self.etcd_down = self.etcd_down.max(now + outage);
                self.etcd.elect(now + outage);
                let term = self.etcd.view.term;
                self.see(
                    None,
                    Seen::EtcdLeader {
                        term,
                        member: Some(0),
                    },
                );
            }
            EtcdFault::LeaseEarly { node } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                let lease = self.etcd.lease_of(&self.names[node]);
                let Some(lease) = lease else {
                    return void("it has no lease");
                };
                self.revoke(lease, LeaseEnd::Revoked);
            }
            EtcdFault::LeaseLate { by } => self.etcd.prolong(by.0),
            EtcdFault::Wipe { keys } => {
                let before = self.etcd.view.leader.clone();
                self.etcd.wipe(*keys);
                if let (Some(key), None) = (before, &self.etcd.view.leader) {
                    let lease = key.lease.unwrap_or(surus_core::types::LeaseId(0));
                    let holder = self.index(&key.name);
                    let why = LeaseEnd::Revoked;
                    self.see(holder, Seen::LockLost { lease, why });
                }
                if matches!(keys, Keys::All | Keys::Initialize) {
                    self.see(None, Seen::InitializeWritten { to: None });
                }
                self.changed();
            }
            EtcdFault::WatchGap { node, span } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                self.hosts[node].deaf = self.until(*span);
                self.lasts(*span);
            }
            EtcdFault::WatchRepeat { node } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                self.watch(node);
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
            EtcdFault::Kill { member, back } => return self.member_down(member, *back),
            EtcdFault::Freeze { member, span } => return self.member_down(member, *span),
            other => return unable(&format!("the model of etcd has no {}", other.word())),
        }
        Taken::Done
    }

    /// A member is lost: as long as the others are a quorum, clients go to them; a leader takes an election with it.
    fn member_down(&mut self, member: &EtcdTarget, span: Nanos) -> Taken {
        if *member != EtcdTarget::Leader && *member != EtcdTarget::All {
            return unable("the model of etcd has one store and no members");
        }
        let outage = if *member == EtcdTarget::All {
            span
        } else {
            Nanos(self.rng.range(SEC, 2 * SEC))
        };
        self.etcd_down = self.etcd_down.max(self.until(outage));
        if *member == EtcdTarget::Leader {
            let at = self.until(outage);
            self.etcd.elect(at);
        }
        self.lasts(span);
        Taken::Done
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

    /// A request that was sent twice comes a second time.
    pub(crate) fn again(&mut self, rpc: &crate::fast::host::Rpc) {
        let delay = self
            .net
            .delay(self.now, Place::Node(rpc.node), Place::Etcd(0), &mut self.rng);
        self.after(delay, Event::EtcdRequest(Box::new(rpc.clone())));
    }
}
