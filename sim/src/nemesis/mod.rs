//! Faults: an explicit list with times, made from a seed before the run, so that it can be printed, replayed and cut down.
//!
//! Swarm testing: each seed allows a random part of the kinds of faults, at a random pace.

use surus_core::input::{Input, OperatorOrder, RequestId};
use surus_core::types::NodeName;

use crate::clock::{MS, SEC, Time};
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::net::Place;
use crate::record::{End, LeaseEnd, Seen};
use crate::rng::Rng;

/// What goes wrong (or what a person does).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to the agent; its supervisor starts it again after this.
    KillAgent(usize, Time),
    /// SIGSTOP to the agent for this long.
    FreezeAgent(usize, Time),
    /// SIGKILL to the postmaster.
    KillPostgres(usize),
    /// SIGSTOP to PostgreSQL for this long.
    HangPostgres(usize, Time),
    /// SIGKILL to the guard.
    KillGuard(usize),
    /// The host loses power for this long.
    PowerOff(usize, Time),
    /// The agent is asked to end, and started again after this.
    StopAgent(usize, Time),
    /// etcd has no quorum for this long.
    EtcdDown(Time),
    /// etcd answers late, by up to the second figure, for this long.
    EtcdSlow(Time, Time),
    /// etcd elects a leader.
    EtcdElection,
    /// etcd revokes the leader's lease early.
    LeaseEarly,
    /// Cut between a node and etcd: (requests, answers).
    CutEtcd(usize, Time, bool, bool),
    /// Cut between two nodes: (there, back).
    CutPeers(usize, usize, Time, bool, bool),
    /// The node is alone with its own clients.
    Isolate(usize, Time),
    /// The node's watch is silent for this long.
    WatchGap(usize, Time),
    /// The next promotion, stop or start here takes this much longer.
    Sluggish(usize, Time),
    /// A person asks for a switchover.
    Switchover(Option<usize>),
    /// A person restarts PostgreSQL.
    Restart(usize),
    /// A person rebuilds a member.
    Reinitialize(usize),
    /// SIGSTOP to the agent for this long, between an order that its core gives next and what it does about it.
    FreezeInAct(usize, Time),
    /// SIGKILL to the agent there; it is started again after this.
    KillInAct(usize, Time),
    /// A person pauses the cluster for this long; each node hears of both in its own time.
    Pause(Time),
    /// A person changes the ttl, in seconds; each node hears of it in its own time.
    Ttl(u64),
}

impl Fault {
    fn node_mut(&mut self) -> Option<&mut usize> {
        match self {
            Self::KillAgent(node, _)
            | Self::FreezeAgent(node, _)
            | Self::KillPostgres(node)
            | Self::HangPostgres(node, _)
            | Self::KillGuard(node)
            | Self::PowerOff(node, _)
            | Self::StopAgent(node, _)
            | Self::CutEtcd(node, ..)
            | Self::Isolate(node, _)
            | Self::WatchGap(node, _)
            | Self::Sluggish(node, _)
            | Self::Restart(node)
            | Self::Reinitialize(node)
            | Self::FreezeInAct(node, _)
            | Self::KillInAct(node, _) => Some(node),
            _ => None,
        }
    }
}

/// A fault that waits for the node's next act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// See [`Fault::FreezeInAct`].
    Freeze(Time),
    /// See [`Fault::KillInAct`].
    Kill(Time),
}

/// A fault and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// When.
    pub at: Time,
    /// What.
    pub fault: Fault,
}

/// How the world of a seed is made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Members.
    pub nodes: usize,
    /// pg_rewind is allowed.
    pub rewind: bool,
    /// Diverged data may be cloned anew.
    pub reclone: bool,
    /// The ttl at first, in seconds.
    pub ttl: u64,
    /// Failsafe mode.
    pub failsafe: bool,
    /// The faults, by time.
    pub faults: Vec<Planned>,
    /// When the last fault may begin; all is healed then.
    pub end: Time,
    /// Only faults that must not move the primary.
    pub mild: bool,
}

/// The names of the members.
#[must_use]
pub fn names(nodes: usize) -> Vec<NodeName> {
    (1..=nodes).map(|n| NodeName(format!("n{n}"))).collect()
}

/// Stands for whoever leads when the fault begins.
pub const LEADER: usize = usize::MAX;

const KINDS: u64 = 22;

fn fault(rng: &mut Rng, kind: u64, nodes: usize) -> Fault {
    let node = rng.index(nodes);
    let aimed = if rng.one_in(2) { LEADER } else { node };
    let other = (node + 1 + rng.index(nodes.saturating_sub(1).max(1))) % nodes.max(1);
    let short = rng.range(50 * MS, 3 * SEC);
    let long = rng.range(SEC, 15 * SEC);
    let span = if rng.one_in(2) { short } else { long };
    let (there, back) = [(true, true), (true, false), (false, true)][rng.index(3)];
    match kind {
        0 => Fault::KillAgent(aimed, span),
        1 => Fault::FreezeAgent(aimed, span),
        2 => Fault::KillPostgres(aimed),
        3 => Fault::HangPostgres(aimed, span),
        4 => Fault::KillGuard(aimed),
        5 => Fault::PowerOff(aimed, long),
        6 => Fault::StopAgent(aimed, span),
        7 => Fault::EtcdDown(span * 2),
        8 => Fault::EtcdSlow(long, rng.range(50 * MS, 7 * SEC)),
        9 => Fault::EtcdElection,
        10 => Fault::LeaseEarly,
        11 => Fault::CutEtcd(aimed, span, there, back),
        12 => Fault::CutPeers(node, other, span, there, back),
        13 => Fault::Isolate(aimed, span),
        14 => Fault::WatchGap(node, long),
        15 => Fault::Sluggish(node, span),
        16 => Fault::Switchover(rng.one_in(2).then_some(node)),
        17 => Fault::Restart(aimed),
        18 => Fault::Reinitialize(aimed),
        20 => Fault::FreezeInAct(aimed, span),
        21 => Fault::KillInAct(aimed, span),
        _ => Fault::Ttl([3, 5, 8, 15][rng.index(4)]),
    }
}

/// A fault that is over before anybody may notice: shorter than the tolerance for a ttl of 5 s.
fn mild_fault(rng: &mut Rng, nodes: usize) -> Fault {
    let node = rng.index(nodes);
    let span = rng.range(50 * MS, 1200 * MS);
    match rng.below(8) {
        0 => Fault::FreezeAgent(node, span),
        1 => Fault::KillAgent(node, span),
        2 => Fault::EtcdElection,
        3 => Fault::EtcdDown(span),
        4 => Fault::CutEtcd(node, span, true, true),
        5 => Fault::WatchGap(node, 5 * span),
        6 => Fault::LeaseEarly,
        _ => Fault::Isolate(node, span),
    }
}

/// What happens in a cluster that is paused now and then: nothing that cuts a node off, for a primary that cannot hear of the end of a
/// pause is beyond help.
fn paused_fault(rng: &mut Rng, nodes: usize) -> Fault {
    let node = rng.index(nodes);
    let aimed = if rng.one_in(2) { LEADER } else { node };
    let span = rng.range(200 * MS, 8 * SEC);
    match rng.below(10) {
        0..=2 => Fault::Pause(rng.range(2 * SEC, 25 * SEC)),
        3 => Fault::KillAgent(aimed, span),
        4 => Fault::StopAgent(aimed, span),
        5 => Fault::KillPostgres(aimed),
        6 => Fault::Switchover(Some(node)),
        7 => Fault::Restart(aimed),
        8 => Fault::LeaseEarly,
        _ => Fault::KillInAct(aimed, span),
    }
}

/// The plan of a seed, for so many members or as many as the seed draws.
#[must_use]
pub fn plan(seed: u64, members: Option<usize>) -> Plan {
    let mut rng = Rng::new(seed, 1);
    let mild = seed % 10 == 9;
    let pauses = seed % 10 == 8;
    let drawn = [1, 2, 2, 3, 3, 3, 3, 4, 5, 3][rng.index(10)];
    let nodes = members.unwrap_or(drawn);
    let allowed: Vec<u64> = (0..KINDS)
        .filter(|kind| if *kind == 19 { rng.one_in(6) } else { rng.one_in(2) })
        .collect();
    let pace = rng.range(500 * MS, 12 * SEC);
    let end = rng.range(40, 120) * SEC;
    let mut at = if rng.one_in(5) { 0 } else { 15 * SEC };
    if mild {
        at = 20 * SEC;
    }
    let mut faults = Vec::new();
    loop {
        at += rng.range(50 * MS, 2 * pace) + if mild { 8 * SEC } else { 0 };
        if end <= at || allowed.is_empty() {
            break;
        }
        let fault = if pauses {
            paused_fault(&mut rng, nodes)
        } else if mild {
            mild_fault(&mut rng, nodes)
        } else {
            let kind = allowed[rng.index(allowed.len())];
            fault(&mut rng, kind, nodes)
        };
        // Sometimes faults come in pairs, the second within the first's effects.
        let again = !mild && !pauses && rng.one_in(4);
        faults.push(Planned { at, fault });
        if again {
            let kind = allowed[rng.index(allowed.len())];
            let at = at + rng.below(800 * MS);
            faults.push(Planned {
                at,
                fault: self::fault(&mut rng, kind, nodes),
            });
        }
    }
    let rewind = rng.one_in(2);
    Plan {
        nodes,
        rewind,
        reclone: true,
        ttl: if mild { 5 } else { [5, 5, 5, 3, 10][rng.index(5)] },
        failsafe: !rng.one_in(4),
        faults,
        end,
        mild,
    }
}

impl World {
    /// A fault of the plan begins.
    pub(crate) fn fault(&mut self, index: usize) {
        let mut fault = self.plan.faults[index].fault.clone();
        let leader = self.etcd.view.leader.as_ref().map(|key| key.name.clone());
        let leader = self.names.iter().position(|name| Some(name) == leader.as_ref());
        if let Some(node) = fault.node_mut()
            && *node == LEADER
        {
            *node = leader.unwrap_or(index % self.hosts.len());
        }
        let text = format!("{fault:?}").into();
        self.see(None, Seen::StepBegan { step: index, text });
        let now = self.now;
        match fault {
            Fault::KillAgent(node, back) => {
                self.kill_agent(node);
                self.after(back, Event::Boot(node));
            }
            Fault::FreezeAgent(node, span) => self.freeze(node, span),
            Fault::KillPostgres(node) => self.kill_postgres(node, End::Killed),
            Fault::HangPostgres(node, span) => {
                let pg = &mut self.hosts[node].pg;
                pg.hung = pg.alive();
                let epoch = pg.epoch;
                if pg.hung {
                    self.see(node, Seen::Hung { hung: true });
                }
                self.after(span, Event::PgThaw(node, epoch));
            }
            Fault::KillGuard(node) => {
                if self.hosts[node].guard.take().is_some() {
                    // PR_SET_PDEATHSIG.
                    self.see(node, Seen::GuardDied);
                    self.kill_postgres(node, End::GuardDied);
                    self.hear(node, Input::GuardLost);
                }
            }
            Fault::PowerOff(node, span) => {
                self.see(node, Seen::Power { on: false });
                self.kill_agent(node);
                let standing = self.standing(node);
                if self.hosts[node].pg.alive() {
                    let how = End::PowerLoss;
                    self.see(node, Seen::Ended { how, standing });
                }
                let host = &mut self.hosts[node];
                host.powered = false;
                host.guard = None;
                host.frozen = 0;
                host.pg.kill();
                self.after(span, Event::PowerOn(node));
            }
            Fault::StopAgent(node, back) => {
                self.hosts[node].again = Some(back);
                self.hear(node, Input::Shutdown);
            }
            Fault::EtcdDown(span) => self.etcd_down = self.etcd_down.max(now + span),
            Fault::EtcdSlow(span, most) => self.etcd_slow = (now + span, most),
            Fault::EtcdElection => {
                let outage = self.rng.range(200 * MS, 1500 * MS);
                self.etcd_down = self.etcd_down.max(now + outage);
                self.etcd.elect(now + outage);
            }
            Fault::LeaseEarly => {
                if let Some(lease) = self.etcd.view.leader.as_ref().and_then(|key| key.lease) {
                    self.revoke(lease, LeaseEnd::Revoked);
                }
            }
            Fault::CutEtcd(node, span, there, back) => {
                let here = Place::Node(node);
                if there {
                    self.net.cut(here, Place::Etcd(0), now + span);
                }
                if back {
                    self.net.cut(Place::Etcd(0), here, now + span);
                }
            }
            Fault::CutPeers(a, b, span, there, back) => {
                let (a, b) = (Place::Node(a), Place::Node(b));
                if there {
                    self.net.cut(a, b, now + span);
                }
                if back {
                    self.net.cut(b, a, now + span);
                }
            }
            Fault::Isolate(node, span) => {
                let here = Place::Node(node);
                let others = (0..self.hosts.len())
                    .filter(|other| *other != node)
                    .map(Place::Node);
                for other in others.chain([Place::Etcd(0)]) {
                    self.net.cut(here, other, now + span);
                    self.net.cut(other, here, now + span);
                }
            }
            Fault::WatchGap(node, span) => self.hosts[node].deaf = now + span,
            Fault::Sluggish(node, more) => self.hosts[node].sluggish = more,
            Fault::Switchover(candidate) => {
                let leader = self.etcd.view.leader.as_ref().map(|key| key.name.clone());
                let candidate = candidate.map(|node| self.names[node].clone());
                if leader.is_some() && self.etcd_down <= now {
                    let seen = Seen::FailoverWritten {
                        leader: leader.as_ref().and_then(|name| self.index(name)),
                        candidate: candidate.as_ref().and_then(|name| self.index(name)),
                    };
                    self.see(None, seen);
                    self.etcd.put_failover(leader, candidate);
                    self.changed();
                }
            }
            Fault::Restart(node) => self.operator(node, OperatorOrder::Restart),
            Fault::Reinitialize(node) => self.operator(
                node,
                OperatorOrder::Reinitialize {
                    force: false,
                    from_leader: false,
                },
            ),
            Fault::FreezeInAct(node, span) => self.hosts[node].trap = Some(Trap::Freeze(span)),
            Fault::KillInAct(node, back) => self.hosts[node].trap = Some(Trap::Kill(back)),
            Fault::Pause(span) => {
                self.spread_config(None, Some(true), 0);
                self.spread_config(None, Some(false), span);
            }
            Fault::Ttl(ttl) => self.spread_config(Some(ttl), None, 0),
        }
    }

    fn freeze(&mut self, node: usize, span: Time) {
        self.see(node, Seen::AgentFrozen { frozen: true });
        let host = &mut self.hosts[node];
        host.frozen = host.frozen.max(self.now + span);
        let wait = host.frozen - self.now;
        self.after(wait, Event::Thaw(node));
    }

    /// The core has given an order of consequence: a fault that waited for this comes in the midst of it.
    pub(crate) fn spring(&mut self, node: usize) {
        match self.hosts[node].trap.take() {
            Some(Trap::Freeze(span)) => {
                self.freeze(node, span);
            }
            Some(Trap::Kill(back)) => {
                self.kill_agent(node);
                self.after(back, Event::Boot(node));
            }
            None => {}
        }
    }

    fn operator(&mut self, node: usize, order: OperatorOrder) {
        self.counter += 1;
        let request = RequestId(self.counter);
        self.hear(node, Input::Operator { request, order });
    }
}
