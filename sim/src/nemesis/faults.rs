//! What each kind of fault is: its target, its length, its direction, drawn.

use surus_scenarios::{
    End, ErrorCode, EtcdFault, EtcdTarget, Fault, HostFault, Load, Lost, Name, Nanos, NetFault, Operator,
    PostgresFault, PostgresStep, Rpc, Shape, Step, Target, Way,
};

use super::swarm::Kind;
use crate::clock::{MS, SEC, Time};
use crate::rng::Rng;

/// A length: as often within a moment as within the time of a few leases.
pub(super) fn span(rng: &mut Rng) -> Nanos {
    Nanos(if rng.one_in(2) {
        rng.range(50 * MS, 3 * SEC)
    } else {
        rng.range(SEC, 15 * SEC)
    })
}

fn long(rng: &mut Rng) -> Nanos {
    Nanos(rng.range(SEC, 15 * SEC))
}

/// A member, by chance.
pub(super) fn node(rng: &mut Rng, shape: &Shape) -> Target {
    Target::Node(shape.members[rng.index(shape.members.len())].name.clone())
}

/// Whoever matters when it strikes, half of the time.
fn aimed(rng: &mut Rng, shape: &Shape) -> Target {
    match rng.below(8) {
        0..=3 => Target::Leader,
        4 => Target::Candidate,
        5 => Target::FormerLeader,
        _ => node(rng, shape),
    }
}

fn way(rng: &mut Rng) -> Way {
    [Way::Both, Way::Both, Way::There, Way::Back][rng.index(4)]
}

fn host(fault: HostFault) -> Step {
    Step::Fault(Fault::Host(fault))
}

fn postgres(fault: PostgresFault) -> Step {
    Step::Fault(Fault::Postgres(fault))
}

fn net(fault: NetFault) -> Step {
    Step::Fault(Fault::Net(fault))
}

fn etcd(fault: EtcdFault) -> Step {
    Step::Fault(Fault::Etcd(fault))
}

fn set(key: &str, value: &str) -> Step {
    Step::Operator(Operator::Set {
        key: Name::from(key),
        value: Name::from(value),
    })
}

/// One fault of this kind.
pub(super) fn of(kind: Kind, rng: &mut Rng, shape: &Shape) -> Step {
    match kind {
        Kind::KillAgent
        | Kind::FreezeAgent
        | Kind::SlowAgent
        | Kind::StopAgent
        | Kind::KillGuard
        | Kind::PowerLoss
        | Kind::PauseHost
        | Kind::ClockDrift => of_host(kind, rng, shape),
        Kind::KillPostgres | Kind::FreezePostgres | Kind::SlowStep | Kind::FailStep | Kind::Burst => {
            of_postgres(kind, rng, shape)
        }
        Kind::NoQuorum
        | Kind::NoSpace
        | Kind::SlowEtcd
        | Kind::Elect
        | Kind::LeaseEarly
        | Kind::LeaseLate
        | Kind::WatchGap
        | Kind::WatchRepeat
        | Kind::EtcdError
        | Kind::Lose
        | Kind::Delay => of_etcd(kind, rng, shape),
        Kind::CutEtcd
        | Kind::CutPeers
        | Kind::CutClients
        | Kind::CutReplicas
        | Kind::Isolate
        | Kind::Split
        | Kind::Bridge
        | Kind::SlowLink => of_net(kind, rng, shape),
        _ => of_people(kind, rng, shape),
    }
}

fn of_host(kind: Kind, rng: &mut Rng, shape: &Shape) -> Step {
    let node = aimed(rng, shape);
    let span = span(rng);
    host(match kind {
        Kind::KillAgent => HostFault::KillAgent { node, back: span },
        Kind::FreezeAgent => HostFault::FreezeAgent { node, span },
        Kind::SlowAgent => HostFault::SlowAgent {
            node,
            by: Nanos(rng.range(20 * MS, 2 * SEC)),
            span: long(rng),
        },
        Kind::StopAgent => HostFault::StopAgent { node, back: span },
        Kind::KillGuard => HostFault::KillGuard { node },
        Kind::PowerLoss => HostFault::PowerLoss {
            node,
            back: long(rng),
        },
        Kind::PauseHost => HostFault::PauseHost { node, span },
        // Within the bound that rights are counted with.
        _ => HostFault::ClockDrift {
            node,
            ppm: i64::try_from(rng.below(1800)).unwrap_or(0) - 900,
        },
    })
}

fn of_postgres(kind: Kind, rng: &mut Rng, shape: &Shape) -> Step {
    let node = aimed(rng, shape);
    let steps = [
        PostgresStep::Start,
        PostgresStep::Stop,
        PostgresStep::Promote,
        PostgresStep::Rewind,
        PostgresStep::BaseBackup,
        PostgresStep::Checkpoint,
        PostgresStep::Probe,
    ];
    postgres(match kind {
        Kind::KillPostgres => PostgresFault::KillPostgres { node },
        Kind::FreezePostgres => PostgresFault::FreezePostgres {
            node,
            span: span(rng),
        },
        Kind::SlowStep => PostgresFault::Slow {
            node,
            step: steps[rng.index(steps.len())],
            by: span(rng),
            count: rng.range(1, 2),
        },
        Kind::FailStep => PostgresFault::Fail {
            node,
            // A promotion that fails, a start that fails, half a copy.
            step: steps[rng.index(5)],
            count: rng.range(1, 3),
        },
        _ => {
            return Step::Load(Load::Burst {
                bytes: rng.range(100_000, 4 << 20),
            });
        }
    })
}

fn of_etcd(kind: Kind, rng: &mut Rng, shape: &Shape) -> Step {
    let node = aimed(rng, shape);
    let rpcs = [Rpc::Any, Rpc::Txn, Rpc::KeepAlive, Rpc::Range, Rpc::Grant];
    let rpc = rpcs[rng.index(rpcs.len())];
    etcd(match kind {
        Kind::NoQuorum => EtcdFault::NoQuorum {
            span: Nanos(span(rng).0 * 2),
        },
        Kind::NoSpace => EtcdFault::ReadOnly {
            span: Nanos(span(rng).0 * 2),
        },
        Kind::SlowEtcd => EtcdFault::Slow {
            member: EtcdTarget::All,
            by: Nanos(rng.range(50 * MS, 7 * SEC)),
            span: long(rng),
        },
        Kind::Elect => EtcdFault::Elect { outage: Nanos::ZERO },
        Kind::LeaseEarly => EtcdFault::LeaseEarly {
            node: if rng.one_in(5) { node } else { Target::Leader },
        },
        Kind::LeaseLate => EtcdFault::LeaseLate { by: span(rng) },
        Kind::WatchGap => EtcdFault::WatchGap {
            node,
            span: long(rng),
        },
        Kind::WatchRepeat => EtcdFault::WatchRepeat { node },
        Kind::EtcdError => {
            let codes = [
                ErrorCode::Unavailable,
                ErrorCode::NoLeader,
                ErrorCode::LeaderChanged,
                ErrorCode::Timeout,
                ErrorCode::TooManyRequests,
                ErrorCode::NoSpace,
                ErrorCode::LeaseNotFound,
                ErrorCode::Unknown,
                ErrorCode::DeadlineExceeded,
            ];
            EtcdFault::Error {
                node,
                code: codes[rng.index(codes.len())],
                rpc,
                applied: rng.one_in(3),
                count: rng.range(1, 5),
                span: long(rng),
            }
        }
        Kind::Lose => EtcdFault::Lose {
            node,
            part: [Lost::Request, Lost::Reply, Lost::Twice][rng.index(3)],
            rpc,
            count: rng.range(1, 5),
            span: long(rng),
        },
        _ => EtcdFault::Delay {
            node,
            by: Nanos(rng.range(100 * MS, 7 * SEC)),
            rpc,
            count: rng.range(1, 5),
            span: long(rng),
        },
    })
}

fn of_net(kind: Kind, rng: &mut Rng, shape: &Shape) -> Step {
    let (a, way, span) = (aimed(rng, shape), way(rng), span(rng));
    let a = End::Node(a);
    net(match kind {
        Kind::CutEtcd => NetFault::Cut {
            a,
            b: End::Etcd,
            way,
            span,
        },
        Kind::CutPeers => {
            let first = rng.index(shape.members.len());
            let other = (first + 1 + rng.index(shape.members.len() - 1)) % shape.members.len();
            let end = |index: usize| End::Node(Target::Node(shape.members[index].name.clone()));
            let (a, b) = (end(first), end(other));
            NetFault::Cut { a, b, way, span }
        }
        Kind::CutClients => NetFault::Cut {
            a,
            b: End::Clients,
            way,
            span,
        },
        Kind::CutReplicas => {
            let a = End::Node(Target::Leader);
            let b = End::Replicas;
            NetFault::Cut { a, b, way, span }
        }
        Kind::Isolate => NetFault::Isolate {
            node: aimed(rng, shape),
            clients: !rng.one_in(3),
            span,
        },
        Kind::Split | Kind::Bridge => split(rng, shape, kind == Kind::Bridge, way, span),
        _ => {
            let by = Nanos(rng.range(50 * MS, 4 * SEC));
            let least = if rng.one_in(3) { by } else { Nanos::ZERO };
            let b = if rng.one_in(2) { End::Etcd } else { End::Peers };
            NetFault::SlowLink {
                a,
                b,
                by,
                least,
                span,
            }
        }
    })
}

/// Two parts: a minority of the members, sometimes with the majority of etcd; sometimes with one member that both still reach.
fn split(rng: &mut Rng, shape: &Shape, bridged: bool, way: Way, span: Nanos) -> NetFault {
    let count = shape.members.len();
    let first = rng.index(count);
    let size = rng.range(1, (count as u64 - 1).max(1));
    let chosen = |offset: u64| {
        let index = (first + usize::try_from(offset).unwrap_or(0)) % count;
        End::Node(Target::Node(shape.members[index].name.clone()))
    };
    let mut part: Vec<End> = (0..size).map(chosen).collect();
    if rng.one_in(4) {
        part[0] = End::Node(Target::Leader);
    }
    let bridge = if bridged && size < count as u64 {
        vec![chosen(size)]
    } else {
        Vec::new()
    };
    NetFault::Split {
        part,
        bridge,
        way,
        span,
    }
}

fn of_people(kind: Kind, rng: &mut Rng, shape: &Shape) -> Step {
    let target = aimed(rng, shape);
    let act = match kind {
        Kind::Switchover => Operator::Switchover {
            to: rng.one_in(2).then(|| node(rng, shape)),
        },
        Kind::Failover => Operator::Failover { to: node(rng, shape) },
        Kind::Restart => Operator::Restart { node: target },
        Kind::Reinit => Operator::Reinit {
            node: target,
            force: rng.one_in(3),
            from_leader: rng.one_in(2),
        },
        Kind::PromoteByHand => Operator::PromoteByHand {
            node: if rng.one_in(2) { Target::Replica } else { target },
        },
        Kind::SetTtl => return set("ttl", ["3", "5", "8", "15"][rng.index(4)]),
        Kind::SetOther => {
            let settings = [
                ("failsafe_mode", "true"),
                ("failsafe_mode", "false"),
                ("maximum_lag_on_failover", "1048576"),
                ("loop_wait", "1"),
                ("loop_wait", "2"),
            ];
            let (key, value) = settings[rng.index(settings.len())];
            return set(key, value);
        }
        _ => Operator::Pause {
            span: Nanos(rng.range(2 * SEC, 25 * SEC)),
        },
    };
    Step::Operator(act)
}

/// A pause, and the leader cut off, dead or without power at its beginning or at its end.
pub(super) fn pause_and_cut(rng: &mut Rng, shape: &Shape) -> Vec<(Time, Step)> {
    let length = rng.range(3 * SEC, 20 * SEC);
    let pause = Step::Operator(Operator::Pause { span: Nanos(length) });
    let around = if rng.one_in(3) { 0 } else { length };
    let at = (around + rng.below(4 * SEC)).saturating_sub(2 * SEC);
    let kinds = [Kind::Isolate, Kind::CutEtcd, Kind::PowerLoss, Kind::KillAgent];
    let kind = kinds[rng.index(kinds.len())];
    vec![(0, pause), (at, of(kind, rng, shape))]
}

/// A fault that is over before anybody may notice: shorter than the tolerance for a ttl of 5 s.
pub(super) fn mild(rng: &mut Rng, shape: &Shape) -> Step {
    let node = node(rng, shape);
    let length = rng.range(50 * MS, 1200 * MS);
    let span = Nanos(length);
    match rng.below(10) {
        0 => host(HostFault::FreezeAgent { node, span }),
        1 => host(HostFault::KillAgent { node, back: span }),
        2 => etcd(EtcdFault::Elect { outage: Nanos::ZERO }),
        // An election of up to 2 s follows.
        3 => etcd(EtcdFault::NoQuorum {
            span: Nanos(length / 4),
        }),
        // A member of etcd that lives there and hears no leader for a second asks for votes when it is back, and an election of up to 2 s
        // follows: here and below.
        4 => net(NetFault::Cut {
            a: End::Node(node),
            b: End::Etcd,
            way: way(rng),
            span: Nanos(length / 2),
        }),
        5 => etcd(EtcdFault::WatchGap {
            node,
            span: Nanos(5 * length),
        }),
        6 => etcd(EtcdFault::LeaseEarly { node: Target::Leader }),
        7 => etcd(EtcdFault::Lose {
            node,
            part: [Lost::Request, Lost::Reply, Lost::Twice][rng.index(3)],
            rpc: Rpc::Any,
            count: 1,
            span: Nanos::secs(3),
        }),
        8 => etcd(EtcdFault::Error {
            node,
            code: [
                ErrorCode::Unavailable,
                ErrorCode::LeaderChanged,
                ErrorCode::Unknown,
            ][rng.index(3)],
            rpc: Rpc::Any,
            applied: false,
            count: 1,
            span: Nanos::secs(3),
        }),
        _ => net(NetFault::Isolate {
            node,
            clients: true,
            span: Nanos(length / 2),
        }),
    }
}
