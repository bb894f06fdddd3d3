//! Servers and what is on their disks: promotions, hand-overs, diverged histories, clusters half made and rebuilds at the wrong moment.

use surus_scenarios::{
    End, EtcdFault, EtcdTarget, Fault, HostFault, Keys, Nanos, Operator, PostgresFault, PostgresStep, Shape,
    Target, Trigger, Way,
};

use super::{
    Steps, act, cut, cut_etcd, fail, fault, host, isolate, kill, kill_postgres, lease_early, power_loss,
    slow, ttl, when, when_act, who,
};
use crate::clock::{MS, SEC};
use crate::rng::Rng;

/// The primary is gone in the middle of a long pause, and whoever is left has time.
pub(super) fn gone_in_a_pause(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let gone = rng.range(14 * SEC, 18 * SEC);
    let span = Nanos::secs(60);
    let mut steps = vec![
        act(0, Operator::Pause { span }),
        fault(gone, kill_postgres(leader.clone())),
    ];
    if rng.one_in(2) {
        let back = Nanos::secs(60);
        steps.push(fault(
            gone + 2 * SEC,
            host(HostFault::StopAgent { node: leader, back }),
        ));
    }
    steps
}

/// A leader goes past the fork while it is isolated, and when it returns all others are gone.
pub(super) fn diverged_and_last(rng: &mut Rng, shape: &Shape) -> Steps {
    let alone = 2 * ttl(shape) + rng.range(3 * SEC, 8 * SEC);
    let mut steps = vec![fault(0, isolate(who(shape, 0), alone))];
    for index in 1..shape.members.len() {
        let lost = power_loss(who(shape, index), 4 * ttl(shape) + 20 * SEC);
        steps.push(fault(alone - rng.range(10 * MS, 300 * MS), lost));
    }
    steps
}

/// One replica has lost its stream shortly before the leader is lost: another has more.
pub(super) fn better_replica(rng: &mut Rng, shape: &Shape) -> Steps {
    let (leader, behind) = (who(shape, 0), who(shape, 1 + rng.index(2)));
    let lost = rng.range(600 * MS, 3 * SEC);
    let apart = cut(leader.clone(), End::Node(behind), Way::Both, lost + 10 * MS);
    vec![fault(0, apart), fault(lost, power_loss(leader, 60 * SEC))]
}

/// A promotion takes long, and the agent that asked for it is killed meanwhile; the next one may be without etcd.
pub(super) fn promotion_outlives_agent(rng: &mut Rng, shape: &Shape) -> Steps {
    let here = || Target::Here;
    let (takes, killed) = (rng.range(200 * MS, 4 * SEC), rng.range(5 * MS, 40 * MS));
    let mut steps = vec![
        when(
            0,
            Trigger::Acquire,
            Target::Any,
            0,
            slow(here(), PostgresStep::Promote, takes),
        ),
        when(
            0,
            Trigger::Promote,
            Target::Any,
            killed,
            kill(here(), rng.range(50 * MS, 1500 * MS)),
        ),
    ];
    if !rng.one_in(3) {
        let deaf = cut_etcd(here(), rng.range(3 * SEC, 15 * SEC));
        steps.push(when(0, Trigger::Promote, Target::Any, killed + MS, deaf));
    }
    steps.push(fault(MS, power_loss(who(shape, 0), 60 * SEC)));
    steps
}

/// A promotion hangs, and a pause lifts the deadline over it; the agent is killed, and the next one has looked when the server goes on.
pub(super) fn promotion_hangs_in_a_pause(rng: &mut Rng, shape: &Shape) -> Steps {
    let promoting = |after, strike| when(0, Trigger::Promote, Target::Any, after, strike);
    let round = shape.settings.loop_wait * SEC;
    let paused = rng.range(100 * MS, 2 * SEC);
    let killed = paused + 2 * round + rng.range(SEC, 2 * SEC);
    let back = rng.range(50 * MS, 1500 * MS);
    let still = killed + back + 2 * round + rng.range(2 * SEC, 4 * SEC);
    let node = Target::Here;
    let hangs = Fault::Postgres(PostgresFault::FreezePostgres {
        node,
        span: Nanos(still),
    });
    let span = Nanos(still + rng.range(2 * SEC, 8 * SEC));
    vec![
        promoting(rng.range(MS, 5 * MS), hangs),
        when_act(0, Trigger::Promote, Target::Any, paused, Operator::Pause { span }),
        promoting(killed, kill(Target::Here, back)),
        fault(MS, power_loss(who(shape, 0), 90 * SEC)),
    ]
}

/// The one standby is lost for a moment while the leader stops for it.
pub(super) fn hasty_hand_over(rng: &mut Rng, shape: &Shape) -> Steps {
    let (leader, standby) = (who(shape, 0), who(shape, 1));
    let lost = if rng.one_in(2) {
        kill_postgres(standby)
    } else {
        cut(
            leader.clone(),
            End::Node(standby),
            Way::Both,
            rng.range(SEC, 8 * SEC),
        )
    };
    let begin = if rng.one_in(2) {
        act(MS, Operator::Switchover { to: None })
    } else {
        let back = Nanos::secs(20);
        fault(
            MS,
            host(HostFault::StopAgent {
                node: leader.clone(),
                back,
            }),
        )
    };
    vec![when(0, Trigger::Stop, leader, rng.range(0, 60 * MS), lost), begin]
}

/// A person wipes the cluster's identity while its primary is gone, and a member with an empty directory joins.
pub(super) fn identity_wiped(rng: &mut Rng, shape: &Shape) -> Steps {
    let keys = Keys::Initialize;
    vec![
        fault(0, power_loss(who(shape, 0), 60 * SEC)),
        fault(rng.range(SEC, 5 * SEC), Fault::Etcd(EtcdFault::Wipe { keys })),
    ]
}

/// Whoever creates the cluster is cut off before it can say so, and another creates one.
pub(super) fn half_a_cluster(rng: &mut Rng, shape: &Shape) -> Steps {
    let span = 3 * ttl(shape) + rng.range(5 * SEC, 15 * SEC);
    let after = rng.below(300 * MS);
    vec![when(
        0,
        Trigger::Bootstrap,
        Target::Any,
        after,
        cut_etcd(Target::Here, span),
    )]
}

fn rebuild(rng: &mut Rng, node: Target, force: bool) -> Operator {
    Operator::Reinit {
        node,
        force,
        from_leader: rng.one_in(2),
    }
}

/// A rebuild is asked for just before the lock is lost, the member wins the lock, and then its server crashes.
pub(super) fn rebuilt_and_elected(rng: &mut Rng, shape: &Shape) -> Steps {
    let (leader, node) = (who(shape, 0), who(shape, 1));
    let (asked, lost) = (rng.range(300 * MS, SEC), rng.range(2 * MS, 60 * MS));
    let crash = ttl(shape) + rng.range(6 * SEC, 12 * SEC);
    vec![
        fault(0, power_loss(leader.clone(), 60 * SEC)),
        act(asked, rebuild(rng, node.clone(), false)),
        fault(asked + lost, lease_early(leader)),
        fault(crash, kill_postgres(node.clone())),
        fault(crash + 15 * SEC, kill_postgres(node)),
    ]
}

/// A leader with WAL of its own returns just when the next one has the lock and is no primary yet.
pub(super) fn history_of_a_replica(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let lost = rng.range(300 * MS, 1500 * MS);
    let takes = slow(Target::Here, PostgresStep::Promote, rng.range(SEC, 1900 * MS));
    let node = leader.clone();
    let returns = host(HostFault::PowerOn { node });
    vec![
        fault(0, cut(leader.clone(), End::Replicas, Way::Both, lost + 10 * MS)),
        when(MS, Trigger::Acquire, Target::Any, 0, takes),
        when(MS, Trigger::LockTaken, Target::Any, rng.below(600 * MS), returns),
        fault(lost, power_loss(leader, 60 * SEC)),
    ]
}

/// The new primary's first checkpoint takes long, and the old one, which is to be rewound, waits for it.
pub(super) fn slow_checkpoint(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let lost = rng.range(300 * MS, 1500 * MS);
    let takes = slow(
        Target::Here,
        PostgresStep::Checkpoint,
        rng.range(25 * SEC, 40 * SEC),
    );
    vec![
        fault(0, cut(leader.clone(), End::Replicas, Way::Both, lost + 10 * MS)),
        when(MS, Trigger::Acquire, Target::Any, 0, takes),
        fault(lost, power_loss(leader, ttl(shape) + rng.range(2 * SEC, 6 * SEC))),
    ]
}

/// PostgreSQL cannot be stopped, and its agent is to end.
pub(super) fn failing_stop(rng: &mut Rng, shape: &Shape) -> Steps {
    let node = who(shape, rng.index(2));
    let back = Nanos::secs(10);
    vec![
        fault(0, fail(node.clone(), PostgresStep::Stop, 0)),
        fault(MS, host(HostFault::StopAgent { node, back })),
    ]
}

/// A member that has compared its history with the leader's comes to the next timeline with the replica that it streams from, and has not
/// heard of the election. Then it loses its stream: by what it knows, what it holds is no part of the cluster's.
pub(super) fn given_up_by_hearsay(rng: &mut Rng, shape: &Shape) -> Steps {
    let [upstream, leader, node] = [0, 1, 2].map(|index| who(shape, index));
    let elected = ttl(shape) + rng.range(3 * SEC, 5 * SEC);
    let back = elected + rng.range(0, 2 * SEC);
    let deaf = back + rng.range(8 * SEC, 10 * SEC);
    let lost = deaf + rng.range(7 * SEC, 10 * SEC);
    let span = 60 * SEC;
    let to = |node: &Target| Operator::Switchover {
        to: Some(node.clone()),
    };
    let gone = cut(upstream.clone(), End::Node(node.clone()), Way::Both, span);
    let apart = cut(leader.clone(), End::Node(upstream.clone()), Way::Both, span);
    vec![
        fault(0, power_loss(node.clone(), back)),
        act(rng.range(SEC, 2 * SEC), to(&leader)),
        fault(deaf, cut_etcd(node, span)),
        when(deaf, Trigger::Start, leader, 0, apart),
        act(deaf + 100 * MS, to(&upstream)),
        fault(lost, kill_postgres(upstream)),
        fault(lost + 10 * MS, gone),
    ]
}

/// The member reaches one member of etcd only, which stands still meanwhile and answers with what it has as it goes on. The
/// agent has begun anew, its server cannot be started at once, and so nobody has looked at what that holds when the person asks.
pub(super) fn rebuilt_by_an_old_etcd(rng: &mut Rng, shape: &Shape) -> Steps {
    let [leader, next, node] = [0, 1, 2].map(|index| who(shape, index));
    // An agent that begins asks the member of its own place first.
    let only = 2 % shape.etcd.len();
    let end = |index: usize| End::EtcdMember(shape.etcd[index].name.clone());
    let anew = ttl(shape) + rng.range(3 * SEC, 5 * SEC);
    let back = rng.range(200 * MS, SEC);
    let answers = anew + back + rng.range(50 * MS, 500 * MS);
    let apart = 2 * ttl(shape) + 30 * SEC;
    let still = EtcdFault::Freeze {
        member: EtcdTarget::Member(shape.etcd[only].name.clone()),
        span: Nanos(answers),
    };
    let rebuild = rebuild(rng, node.clone(), true);
    let mut steps = vec![
        fault(0, Fault::Etcd(still)),
        fault(0, cut_etcd(leader.clone(), apart)),
        fault(500 * MS, cut(leader, End::Node(next), Way::Both, apart)),
        fault(anew, fail(node.clone(), PostgresStep::Start, 3)),
        fault(anew, kill(node.clone(), back)),
        fault(anew + 10 * MS, kill_postgres(node.clone())),
        fault(
            answers + rng.range(100_000, 3 * MS),
            cut_etcd(node.clone(), apart),
        ),
        act(answers + rng.range(300 * MS, 2 * SEC), rebuild),
    ];
    let others = (0..shape.etcd.len()).filter(|index| *index != only);
    steps.extend(others.map(|index| fault(0, cut(node.clone(), end(index), Way::Both, apart))));
    steps
}
