//! The nemesis: a story made from a seed before the run, so that it can be printed, replayed and cut down.
//!
//! Swarm testing: each seed allows a random part of the kinds of faults, at a random pace.

use surus_scenarios::{
    Client, End, EtcdFault, EtcdTarget, Expectation, Fault, Health, HostFault, Name, Nanos, NetFault,
    Operator, Planned, PostgresFault, PostgresStep, Route, Router, Shape, Step, Story, Strike, Target, Trap,
    Trigger, Way,
};

use crate::clock::{MS, SEC, Time};
use crate::rng::Rng;

/// After the last fault everything must be well within this time: the longest back-off of the core is 30 s, and a full
/// rejoin can need two of them.
const BOUND: Nanos = Nanos::secs(100);

const KINDS: u64 = 22;

fn node(index: usize) -> Target {
    Target::Node(Name(format!("n{}", index + 1)))
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

/// A fault between an order of consequence and what the agent does about it.
fn in_act(on: Target, strike: HostFault) -> Step {
    Step::Trap(Trap {
        when: Trigger::AnyAct,
        on,
        skip: 0,
        after: Nanos::ZERO,
        strike: Strike::Fault(Fault::Host(strike)),
    })
}

fn fault(rng: &mut Rng, kind: u64, nodes: usize) -> Step {
    let index = rng.index(nodes);
    let aimed = if rng.one_in(2) {
        Target::Leader
    } else {
        node(index)
    };
    let other = (index + 1 + rng.index(nodes.saturating_sub(1).max(1))) % nodes.max(1);
    let short = rng.range(50 * MS, 3 * SEC);
    let long = rng.range(SEC, 15 * SEC);
    let chosen = if rng.one_in(2) { short } else { long };
    let (span, long) = (Nanos(chosen), Nanos(long));
    let way = [Way::Both, Way::There, Way::Back][rng.index(3)];
    match kind {
        0 => host(HostFault::KillAgent {
            node: aimed,
            back: span,
        }),
        1 => host(HostFault::FreezeAgent { node: aimed, span }),
        2 => postgres(PostgresFault::KillPostgres { node: aimed }),
        3 => postgres(PostgresFault::FreezePostgres { node: aimed, span }),
        4 => host(HostFault::KillGuard { node: aimed }),
        5 => host(HostFault::PowerLoss {
            node: aimed,
            back: long,
        }),
        6 => host(HostFault::StopAgent {
            node: aimed,
            back: span,
        }),
        7 => etcd(EtcdFault::NoQuorum {
            span: Nanos(chosen * 2),
        }),
        8 => etcd(EtcdFault::Slow {
            member: EtcdTarget::All,
            by: Nanos(rng.range(50 * MS, 7 * SEC)),
            span: long,
        }),
        9 => etcd(EtcdFault::Elect { outage: Nanos::ZERO }),
        10 => etcd(EtcdFault::LeaseEarly { node: Target::Leader }),
        11 => net(NetFault::Cut {
            a: End::Node(aimed),
            b: End::Etcd,
            way,
            span,
        }),
        12 => net(NetFault::Cut {
            a: End::Node(node(index)),
            b: End::Node(node(other)),
            way,
            span,
        }),
        13 => net(NetFault::Isolate {
            node: aimed,
            clients: true,
            span,
        }),
        14 => etcd(EtcdFault::WatchGap {
            node: node(index),
            span: long,
        }),
        15 => {
            let steps = [
                PostgresStep::Start,
                PostgresStep::Stop,
                PostgresStep::Promote,
                PostgresStep::Rewind,
                PostgresStep::BaseBackup,
            ];
            postgres(PostgresFault::Slow {
                node: node(index),
                step: steps[rng.index(steps.len())],
                by: span,
                count: 1,
            })
        }
        16 => Step::Operator(Operator::Switchover {
            to: rng.one_in(2).then(|| node(index)),
        }),
        17 => Step::Operator(Operator::Restart { node: aimed }),
        18 => Step::Operator(Operator::Reinit {
            node: aimed,
            force: false,
            from_leader: false,
        }),
        20 => in_act(
            aimed,
            HostFault::FreezeAgent {
                node: Target::Here,
                span,
            },
        ),
        21 => in_act(
            aimed,
            HostFault::KillAgent {
                node: Target::Here,
                back: span,
            },
        ),
        _ => Step::Operator(Operator::Set {
            key: Name::from("ttl"),
            value: Name::from(["3", "5", "8", "15"][rng.index(4)]),
        }),
    }
}

/// A fault that is over before anybody may notice: shorter than the tolerance for a ttl of 5 s.
fn mild_fault(rng: &mut Rng, nodes: usize) -> Step {
    let node = node(rng.index(nodes));
    let length = rng.range(50 * MS, 1200 * MS);
    let span = Nanos(length);
    match rng.below(8) {
        0 => host(HostFault::FreezeAgent { node, span }),
        1 => host(HostFault::KillAgent { node, back: span }),
        2 => etcd(EtcdFault::Elect { outage: Nanos::ZERO }),
        3 => etcd(EtcdFault::NoQuorum { span }),
        4 => net(NetFault::Cut {
            a: End::Node(node),
            b: End::Etcd,
            way: Way::Both,
            span,
        }),
        5 => etcd(EtcdFault::WatchGap {
            node,
            span: Nanos(5 * length),
        }),
        6 => etcd(EtcdFault::LeaseEarly { node: Target::Leader }),
        _ => net(NetFault::Isolate {
            node,
            clients: true,
            span,
        }),
    }
}

/// What happens in a cluster that is paused now and then: nothing that cuts a node off, for a primary that cannot hear of the end of a
/// pause is beyond help.
fn paused_fault(rng: &mut Rng, nodes: usize) -> Step {
    let index = rng.index(nodes);
    let aimed = if rng.one_in(2) {
        Target::Leader
    } else {
        node(index)
    };
    let span = Nanos(rng.range(200 * MS, 8 * SEC));
    match rng.below(10) {
        0..=2 => Step::Operator(Operator::Pause {
            span: Nanos(rng.range(2 * SEC, 25 * SEC)),
        }),
        3 => host(HostFault::KillAgent {
            node: aimed,
            back: span,
        }),
        4 => host(HostFault::StopAgent {
            node: aimed,
            back: span,
        }),
        5 => postgres(PostgresFault::KillPostgres { node: aimed }),
        6 => Step::Operator(Operator::Switchover {
            to: Some(node(index)),
        }),
        7 => Step::Operator(Operator::Restart { node: aimed }),
        8 => etcd(EtcdFault::LeaseEarly { node: Target::Leader }),
        _ => in_act(
            aimed,
            HostFault::KillAgent {
                node: Target::Here,
                back: span,
            },
        ),
    }
}

/// Members, a client with all hosts, and one behind a router such as the usual HAProxy.
fn shape(nodes: usize) -> Shape {
    let mut shape = Shape::of(nodes);
    shape.routers = vec![Router {
        name: Name::from("r1"),
        health: Health {
            poll: Nanos::secs(3),
            fall: 3,
            rise: 2,
            cut: true,
        },
    }];
    let route = Route {
        every: Nanos::ms(100),
        reads: true,
        ..Route::default()
    };
    let routed = Route {
        via: Some(Name::from("r1")),
        ..route.clone()
    };
    shape.clients = [("c1", route), ("c2", routed)]
        .map(|(name, route)| Client {
            name: Name::from(name),
            route,
        })
        .to_vec();
    shape
}

/// The story of a seed, with so many members if the seed shall not draw their number.
#[must_use]
pub fn story(seed: u64, nodes: Option<usize>) -> Story {
    let mut rng = Rng::new(seed, 1);
    let mild = seed % 10 == 9;
    let pauses = seed % 10 == 8;
    let drawn = [1, 2, 2, 3, 3, 3, 3, 4, 5, 3][rng.index(10)];
    let nodes = nodes.unwrap_or(drawn);
    let allowed: Vec<u64> = (0..KINDS)
        .filter(|kind| if *kind == 19 { rng.one_in(6) } else { rng.one_in(2) })
        .collect();
    let pace = rng.range(500 * MS, 12 * SEC);
    let end = rng.range(40, 120) * SEC;
    let mut at = if rng.one_in(5) { 0 } else { 15 * SEC };
    if mild {
        at = 20 * SEC;
    }
    let mut steps = Vec::new();
    let mut plan = |at: Time, step| steps.push(Planned { at: Nanos(at), step });
    loop {
        at += rng.range(50 * MS, 2 * pace) + if mild { 8 * SEC } else { 0 };
        if end <= at || allowed.is_empty() {
            break;
        }
        let step = if pauses {
            paused_fault(&mut rng, nodes)
        } else if mild {
            mild_fault(&mut rng, nodes)
        } else {
            let kind = allowed[rng.index(allowed.len())];
            fault(&mut rng, kind, nodes)
        };
        // Sometimes faults come in pairs, the second within the first's effects.
        let again = !mild && !pauses && rng.one_in(4);
        plan(at, step);
        if again {
            let kind = allowed[rng.index(allowed.len())];
            let at = at + rng.below(800 * MS);
            plan(at, fault(&mut rng, kind, nodes));
        }
    }
    let mut shape = shape(nodes);
    let settings = &mut shape.settings;
    settings.use_pg_rewind = rng.one_in(2);
    settings.remove_data_directory_on_diverged_timelines = true;
    settings.remove_data_directory_on_rewind_failure = true;
    settings.ttl = if mild { 5 } else { [5, 5, 5, 3, 10][rng.index(5)] };
    settings.failsafe_mode = !rng.one_in(4);
    let mut expectations = vec![Expectation::Healthy { within: BOUND }];
    if mild {
        expectations.push(Expectation::NoFailover {});
    }
    Story {
        name: format!("seed-{seed}"),
        title: "made from a seed".to_owned(),
        shape,
        steps,
        end: Nanos(end),
        expectations,
        ..Story::default()
    }
}
