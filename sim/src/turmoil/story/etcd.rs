//! Faults of etcd.

use surus_scenarios::{ErrorCode, EtcdFault, Keys, Lost, Rpc, Taken};

use super::super::world::World;
use super::{nobody, unable, void};
use crate::clock::{MS, SEC, Time};
use crate::model::etcd::{Delete, Error, Keys as Range, Kind, Mischief, Request};

fn kind(rpc: Rpc) -> Kind {
    match rpc {
        Rpc::Range => Kind::Read,
        Rpc::Put | Rpc::Txn => Kind::Write,
        Rpc::Grant => Kind::Grant,
        Rpc::KeepAlive => Kind::KeepAlive,
        _ => Kind::Any,
    }
}

impl World {
    /// etcd has space again, as soon as there is a leader who can be told so: what is asked of an etcd without one comes to nothing.
    pub(super) fn etcd_space(&mut self) {
        self.etcd.order(Request::Alarm(false));
        if self.etcd.model(|_, model| model.leader()).is_none() {
            self.after(SEC, Self::etcd_space);
        }
    }

    pub(super) fn etcd_fault(&mut self, fault: &EtcdFault) -> Taken {
        match fault {
            EtcdFault::Kill { member, back } => {
                let members = self.etcd_at(member);
                for member in &members {
                    self.etcd.kill(*member);
                }
                self.lasts(*back, move |world| {
                    for member in members {
                        world.etcd.revive(member);
                    }
                });
            }
            EtcdFault::Freeze { member, span } => {
                let members = self.etcd_at(member);
                for member in &members {
                    self.etcd.freeze(*member, true);
                }
                self.lasts(*span, move |world| {
                    for member in members {
                        world.etcd.freeze(member, false);
                    }
                });
            }
            EtcdFault::Depose { span } => {
                let Some(leader) = self.etcd.model(|_, model| model.leader()) else {
                    return void("etcd has no leader");
                };
                self.etcd.freeze(leader, true);
                self.lasts(*span, move |world| world.etcd.freeze(leader, false));
            }
            EtcdFault::NoQuorum { span } => {
                let count = self.machines.etcd.len();
                let down: Vec<usize> = (0..count / 2 + 1)
                    .map(|step| (step + self.steps) % count)
                    .collect();
                for member in &down {
                    self.etcd.kill(*member);
                }
                self.lasts(*span, move |world| {
                    for member in down {
                        world.etcd.revive(member);
                    }
                });
            }
            EtcdFault::Elect { .. } => {
                let Some(leader) = self.etcd.model(|_, model| model.leader()) else {
                    return void("etcd has no leader");
                };
                self.etcd.freeze(leader, true);
                let span = self.rng.range(2 * SEC, 3 * SEC);
                self.after(span, move |world| world.etcd.freeze(leader, false));
            }
            EtcdFault::Slow { member, by, span } => {
                let members = self.etcd_at(member);
                let (lag, all) = (by.0, members.clone());
                self.etcd_links(&members, lag);
                self.lasts(*span, move |world| world.etcd_links(&all, 0));
            }
            EtcdFault::LeaseEarly { node } => {
                let Some(host) = self.member_at(node) else {
                    return nobody();
                };
                let key = self.key(&format!("members/{}", self.hub.hosts[host].name));
                let leader = self.key("leader");
                let lease = self.etcd.model(|_, model| {
                    let of = |key| model.agreed(key).map(|kv| kv.lease).filter(|lease| *lease != 0);
                    of(&key).or_else(|| of(&leader))
                });
                let Some(lease) = lease else {
                    return void("it has no lease");
                };
                self.etcd.order(Request::Revoke(lease));
            }
            EtcdFault::StaleReads { member, span } => {
                let until = self.time().saturating_add(span.0);
                for member in self.etcd_at(member) {
                    self.etcd
                        .model(|_, model| model.plant(Mischief::StaleReads(member, until)));
                }
            }
            EtcdFault::ReadOnly { span } => {
                self.etcd.order(Request::Alarm(true));
                self.lasts(*span, Self::etcd_space);
            }
            EtcdFault::Wipe { keys } => self.wipe(*keys),
            EtcdFault::Compact {} => {
                let revision = self.etcd.model(|_, model| model.revision());
                self.etcd.order(Request::Compact(revision));
            }
            EtcdFault::WatchGap { node, span } => {
                let Some(_) = self.member_at(node) else {
                    return nobody();
                };
                let until = self.time().saturating_add(span.0);
                self.each_member(|model, member| model.hold_watches(member, until));
            }
            EtcdFault::WatchRepeat { .. } => {
                self.each_member(|model, member| model.plant(Mischief::RepeatEvents(member)));
            }
            EtcdFault::WatchCancel { .. } => self.etcd.end_watches(Error::Stopped),
            EtcdFault::Error {
                code,
                rpc,
                applied,
                count,
                ..
            } => {
                let Some(error) = error(*code) else {
                    return unable("the model of etcd has no such error");
                };
                let (kind, applied) = (kind(*rpc), *applied);
                for _ in 0..*count {
                    self.each_member(|model, member| {
                        model.plant(if applied {
                            Mischief::DoAndFail(member, kind, error)
                        } else {
                            Mischief::Refuse(member, kind, error)
                        });
                    });
                }
            }
            EtcdFault::Lose {
                part: Lost::Reply,
                rpc,
                count,
                ..
            } => {
                let kind = kind(*rpc);
                for _ in 0..*count {
                    self.each_member(|model, member| model.plant(Mischief::DoAndSwallow(member, kind)));
                }
            }
            EtcdFault::Delay { node, by, span, .. } => {
                let Some(host) = self.member_at(node) else {
                    return nobody();
                };
                let here = self.machines.hosts[host];
                for member in self.machines.etcd.clone() {
                    self.net.slow(member, here, by.0);
                }
                let span = if span.0 == Time::MAX {
                    surus_scenarios::Nanos(5 * SEC)
                } else {
                    *span
                };
                self.lasts(span, move |world| {
                    for member in world.machines.etcd.clone() {
                        world.net.slow(member, here, 0);
                    }
                });
            }
            other => return unable(&format!("not done to the served etcd: {}", other.word())),
        }
        Taken::Done
    }

    fn each_member(&self, mut what: impl FnMut(&mut crate::model::etcd::Etcd<Vec<u8>, Vec<u8>>, usize)) {
        for member in 0..self.machines.etcd.len() {
            self.etcd.model(|_, model| what(model, member));
        }
    }

    /// What members say comes later by up to this.
    fn etcd_links(&self, members: &[usize], most: Time) {
        for member in members {
            let machine = self.machines.etcd[*member];
            for host in &self.machines.hosts {
                if *host != machine {
                    self.net.slow(machine, *host, most.max(MS) - MS);
                }
            }
        }
    }

    fn wipe(&mut self, keys: Keys) {
        let one = |name: &str| Range::One(self.key(name));
        let keys = match keys {
            Keys::All => {
                let from = self.key("");
                let mut end = from.clone();
                if let Some(last) = end.last_mut() {
                    *last += 1;
                }
                Range::Between(from, end)
            }
            Keys::Leader => one("leader"),
            Keys::Initialize => one("initialize"),
            Keys::Config => one("config"),
            _ => one("status"),
        };
        self.etcd.order(Request::Delete(Delete {
            keys,
            previous: false,
        }));
    }
}

/// The model's error for a story's.
fn error(code: ErrorCode) -> Option<Error> {
    Some(match code {
        ErrorCode::NoLeader => Error::NoLeader,
        ErrorCode::LeaderChanged => Error::LeaderChanged,
        ErrorCode::Timeout => Error::Timeout,
        ErrorCode::TimeoutLeaderFail => Error::TimeoutLeaderFail,
        ErrorCode::TimeoutConnectionLost => Error::TimeoutConnectionLost,
        ErrorCode::Stopped => Error::Stopped,
        ErrorCode::TooManyRequests => Error::TooManyRequests,
        ErrorCode::NoSpace => Error::NoSpace,
        ErrorCode::LeaseNotFound => Error::LeaseNotFound,
        _ => return None,
    })
}
