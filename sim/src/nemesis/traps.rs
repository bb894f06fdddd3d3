//! Faults that wait for their moment: inside an order, after a fact, just before a deadline; and a second failover inside the first.

use surus_scenarios::{End, Lost, Way};
use surus_scenarios::{
    EtcdFault, Fault, HostFault, Nanos, NetFault, Operator, PostgresFault, Rpc, Shape, Step, Strike, Target,
    Trap, Trigger,
};

use super::faults::{node, span};
use crate::clock::{MS, SEC, Time};
use crate::rng::Rng;

/// Orders inside which a second fault may strike.
const ACTS: &[Trigger] = &[
    Trigger::AnyAct,
    Trigger::AnyAct,
    Trigger::Promote,
    Trigger::Promote,
    Trigger::Stop,
    Trigger::Start,
    Trigger::Restart,
    Trigger::Rewind,
    Trigger::BaseBackup,
    Trigger::Bootstrap,
    Trigger::Acquire,
    Trigger::Acquire,
    Trigger::Renew,
    Trigger::Release,
    Trigger::Release,
    Trigger::Failsafe,
    Trigger::WriteFailsafe,
    Trigger::History,
    Trigger::Follow,
    Trigger::Checkpoint,
    Trigger::Deadline,
];

/// Facts after which it may.
const FACTS: &[Trigger] = &[
    Trigger::LockLost,
    Trigger::LockTaken,
    Trigger::LockReleased,
    Trigger::Promoted,
    Trigger::Stopped,
    Trigger::Started,
    Trigger::Rewound,
    Trigger::Cloned,
    Trigger::Granted,
];

fn trap(when: Trigger, on: Target, after: Time, strike: Fault) -> Step {
    Step::Trap(Trap {
        when,
        on,
        skip: 0,
        after: Nanos(after),
        strike: Strike::Fault(strike),
    })
}

/// What strikes where the trap springs.
fn strike(rng: &mut Rng) -> Fault {
    let here = || Target::Here;
    let span = span(rng);
    let parts = [Lost::Request, Lost::Reply, Lost::Twice];
    match rng.below(12) {
        0 | 1 => Fault::Host(HostFault::KillAgent {
            node: here(),
            back: span,
        }),
        2 | 3 => Fault::Host(HostFault::FreezeAgent { node: here(), span }),
        4 => Fault::Postgres(PostgresFault::KillPostgres { node: here() }),
        5 => Fault::Postgres(PostgresFault::FreezePostgres { node: here(), span }),
        6 => Fault::Host(HostFault::KillGuard { node: here() }),
        7 => Fault::Host(HostFault::PowerLoss {
            node: here(),
            back: span,
        }),
        8 => Fault::Net(NetFault::Cut {
            a: End::Node(here()),
            b: End::Etcd,
            way: [Way::Both, Way::There, Way::Back][rng.index(3)],
            span,
        }),
        9 => Fault::Etcd(EtcdFault::Lose {
            node: here(),
            part: parts[rng.index(3)],
            rpc: Rpc::Any,
            count: rng.range(1, 3),
            span: Nanos::secs(5),
        }),
        10 => Fault::Etcd(EtcdFault::Delay {
            node: here(),
            by: Nanos(rng.range(200 * MS, 6 * SEC)),
            rpc: Rpc::Any,
            count: rng.range(1, 4),
            span: Nanos::secs(10),
        }),
        _ => Fault::Net(NetFault::Isolate {
            node: here(),
            clients: true,
            span,
        }),
    }
}

/// Between an order and what is done about it.
pub(super) fn in_act(rng: &mut Rng, shape: &Shape) -> Step {
    let when = ACTS[rng.index(ACTS.len())];
    let on = match rng.below(4) {
        0 => Target::Leader,
        1 => node(rng, shape),
        _ => Target::Any,
    };
    let after = if rng.one_in(2) { 0 } else { rng.below(100 * MS) };
    let strike = strike(rng);
    trap(when, on, after, strike)
}

/// Just after something came true.
pub(super) fn after_fact(rng: &mut Rng, shape: &Shape) -> Step {
    let when = FACTS[rng.index(FACTS.len())];
    let on = if rng.one_in(3) {
        node(rng, shape)
    } else {
        Target::Any
    };
    let after = [0, rng.below(5 * MS), rng.below(300 * MS)][rng.index(3)];
    let strike = strike(rng);
    trap(when, on, after, strike)
}

/// The leader cannot renew; within 50 ms of the end of its right, by the clock of etcd or by its own, it comes back, or its agent stands still
/// for a moment.
pub(super) fn near_deadline(rng: &mut Rng, shape: &Shape) -> Vec<(Time, Step)> {
    let ttl = shape.settings.ttl * SEC;
    let margin = [0, (1500 * MS).min(ttl * 3 / 10), (500 * MS).min(ttl / 10)][rng.index(3)];
    let near = (ttl - margin + rng.below(100 * MS)).saturating_sub(50 * MS);
    let way = [Way::Both, Way::There, Way::Back][rng.index(3)];
    let cut = Step::Fault(Fault::Net(NetFault::Cut {
        a: End::Node(Target::Leader),
        b: End::Etcd,
        way,
        span: Nanos(near),
    }));
    let moment = Step::Fault(Fault::Host(HostFault::FreezeAgent {
        node: Target::Leader,
        span: Nanos(rng.range(20 * MS, 2 * SEC)),
    }));
    match rng.below(3) {
        0 => vec![(0, cut)],
        1 => vec![(0, cut), (near.saturating_sub(rng.below(300 * MS)), moment)],
        _ => vec![(
            0,
            Step::Fault(Fault::Host(HostFault::FreezeAgent {
                node: Target::Leader,
                span: Nanos(near),
            })),
        )],
    }
}

/// The leader goes, and as soon as there is another, that one goes too; sometimes the first comes back in between.
pub(super) fn second_failover(rng: &mut Rng, shape: &Shape) -> Vec<(Time, Step)> {
    let ttl = shape.settings.ttl * SEC;
    let back = Nanos(rng.range(ttl / 2, 4 * ttl));
    let first = match rng.below(4) {
        0 => Step::Fault(Fault::Host(HostFault::PowerLoss {
            node: Target::Leader,
            back,
        })),
        1 => Step::Fault(Fault::Net(NetFault::Isolate {
            node: Target::Leader,
            clients: !rng.one_in(3),
            span: back,
        })),
        2 => Step::Operator(Operator::Switchover { to: None }),
        _ => Step::Fault(Fault::Host(HostFault::FreezeAgent {
            node: Target::Leader,
            span: back,
        })),
    };
    let when = [Trigger::LockTaken, Trigger::Promoted, Trigger::Promote][rng.index(3)];
    let after = [0, rng.below(200 * MS), rng.below(3 * SEC)][rng.index(3)];
    let strike = strike(rng);
    vec![(0, trap(when, Target::Any, after, strike)), (MS, first)]
}
