//! Faults of etcd: its processes, and what people do to its keys. What needs somebody between an agent and etcd is not done here.

use surus_scenarios::{EtcdFault, Keys, Nanos, Taken};

use super::{World, nobody, unable, void};
use surus_ci::lock;

/// How long the leader of etcd is stopped so that the others elect another: more than twice their timeout of a second.
const DEPOSED: Nanos = Nanos::ms(2500);

impl World {
    pub(super) fn etcd_fault(&mut self, fault: &EtcdFault) -> Taken {
        match fault {
            EtcdFault::Kill { member, back } => {
                let members = self.etcd_at(member);
                self.kill_etcd(members, *back)
            }
            EtcdFault::NoQuorum { span } => {
                let count = self.etcd_hosts.len();
                let first = self.below(count);
                let members = (0..=count / 2).map(|step| (first + step) % count).collect();
                self.kill_etcd(members, *span)
            }
            EtcdFault::Freeze { member, span } => {
                let members = self.etcd_at(member);
                self.freeze_etcd(members, *span)
            }
            EtcdFault::Depose { span } => {
                let leader = self.etcd_leader().into_iter().collect();
                self.freeze_etcd(leader, *span)
            }
            EtcdFault::Elect { outage } if *outage == Nanos::ZERO => {
                match self.handle.block_on(self.etcd.hand_over()) {
                    Ok(()) => Taken::Done,
                    Err(why) => void(why),
                }
            }
            EtcdFault::Elect { .. } => {
                let leader = self.etcd_leader().into_iter().collect();
                self.freeze_etcd(leader, DEPOSED)
            }
            EtcdFault::Slow { member, by, span } => {
                let mut done = false;
                for member in self.etcd_at(member) {
                    let host = self.etcd_hosts[member];
                    done |= self.starve(host, "pgrep -x etcd", *by, *span);
                }
                if done {
                    Taken::Done
                } else {
                    void("no such member runs")
                }
            }
            EtcdFault::LeaseEarly { node } => {
                let Some(member) = self.member_at(node) else {
                    return nobody();
                };
                let lease = {
                    let seen = lock(&self.seen);
                    let of = |key: &str| {
                        seen.keys
                            .get(key)
                            .map(|key| key.lease)
                            .filter(|lease| *lease != 0)
                    };
                    of(&format!("members/{}", seen.name(member)))
                        .or_else(|| of("leader").filter(|_| seen.leader == Some(member)))
                };
                let Some(lease) = lease else {
                    return void("it has no lease");
                };
                let done = self.handle.block_on(self.etcd.revoke(lease));
                done.map_or_else(void, |()| Taken::Done)
            }
            EtcdFault::ReadOnly { span } => {
                let done = self.handle.block_on(self.etcd.alarm(true));
                self.lasts(*span, |world| {
                    if let Err(why) = world.handle.block_on(world.etcd.alarm(false)) {
                        world.broken.get_or_insert(format!("take the alarm away: {why}"));
                    }
                });
                done.map_or_else(void, |()| Taken::Done)
            }
            EtcdFault::Wipe { keys } => {
                let (name, below) = match keys {
                    Keys::All => ("", true),
                    Keys::Leader => ("leader", false),
                    Keys::Status => ("status", false),
                    Keys::Config => ("config", false),
                    Keys::Initialize => ("initialize", false),
                    Keys::Members => ("members/", true),
                    Keys::History => ("history", false),
                    Keys::Failover => ("failover", false),
                    Keys::Failsafe => ("failsafe", false),
                    Keys::Sync => ("sync", false),
                };
                let done = self.handle.block_on(self.etcd.delete(name, below));
                done.map_or_else(void, |()| Taken::Done)
            }
            EtcdFault::Compact {} => {
                let done = self.handle.block_on(self.etcd.compact());
                done.map_or_else(void, |()| Taken::Done)
            }
            other => unable(format!(
                "a real etcd does not do that when it is asked to: {}",
                other.word()
            )),
        }
    }

    fn kill_etcd(&mut self, members: Vec<usize>, back: Nanos) -> Taken {
        let mut killed = Vec::new();
        for member in members {
            if self.signal_etcd(member, "KILL") {
                self.tell(format!("  etcd member {}", self.shape.etcd[member].name));
                killed.push(member);
            }
        }
        if killed.is_empty() {
            return void("no such member runs");
        }
        self.lasts(back, move |world| {
            for member in killed {
                let done = world.start_etcd(member);
                world.outcome("start a member of etcd", done);
            }
        });
        Taken::Done
    }

    fn freeze_etcd(&mut self, members: Vec<usize>, span: Nanos) -> Taken {
        let mut frozen = Vec::new();
        for member in members {
            if self.signal_etcd(member, "STOP") {
                self.tell(format!("  etcd member {}", self.shape.etcd[member].name));
                frozen.push(member);
            }
        }
        if frozen.is_empty() {
            return void("no such member runs");
        }
        self.lasts(span, move |world| {
            for member in frozen {
                world.signal_etcd(member, "CONT");
            }
        });
        Taken::Done
    }
}
