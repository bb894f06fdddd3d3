//! Who may take the free lock: members that the others have lost sight of, and replicas of which the keys in etcd do not tell the truth.

use surus_scenarios::{
    End, ErrorCode, EtcdFault, Fault, HostFault, Load, Nanos, NetFault, Rpc, Shape, Step, Target, Trigger,
    Way,
};

use super::{
    Steps, cut, cut_etcd, delay, fault, host, kill, lease_early, power_loss, set, ttl, two_replicas, when,
    who,
};
use crate::clock::{MS, SEC, Time};
use crate::rng::Rng;

/// For as long as a plot lasts.
const GONE: Time = 300 * SEC;

fn power_on(node: Target) -> Fault {
    host(HostFault::PowerOn { node })
}

/// The keys of the better replica and of the dead leader vanish at once.
pub(super) fn vanished_key(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let (better, worse) = two_replicas(rng, shape);
    let lost = rng.range(600 * MS, 3 * SEC);
    let free = lost + ttl(shape).max(4 * SEC) + rng.range(SEC, 2 * SEC);
    let late = Fault::Etcd(EtcdFault::LeaseLate {
        by: Nanos(rng.range(3 * SEC, 5 * SEC)),
    });
    let apart = cut(leader.clone(), End::Node(worse), Way::Both, lost + 10 * MS);
    vec![
        fault(0, apart),
        fault(lost, power_loss(leader.clone(), 60 * SEC)),
        fault(lost + 20 * MS, late),
        fault(free, lease_early(better)),
        fault(free + rng.below(100 * MS), lease_early(leader)),
    ]
}

/// The better replica has not been able to read for as long as a lease lives, and can again just after it was asked.
pub(super) fn stale_rival(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let (better, worse) = two_replicas(rng, shape);
    let armed = rng.range(600 * MS, 3 * SEC);
    let round = shape.settings.loop_wait * SEC;
    let dead = rng.range(20 * MS, 200 * MS);
    let free = ttl(shape) - rng.range(200 * MS, 450 * MS);
    let reads_again = free + rng.range(10 * MS, 80 * MS);
    let unread = |span: Time| {
        Fault::Etcd(EtcdFault::Error {
            node: better.clone(),
            code: ErrorCode::Unavailable,
            rpc: Rpc::Range,
            applied: false,
            count: 0,
            span: Nanos(span),
        })
    };
    let apart = cut(leader.clone(), End::Node(worse), Way::Both, armed + 2 * round);
    vec![
        fault(0, apart),
        fault(0, unread(armed + 2 * round)),
        when(armed, Trigger::Renew, leader.clone(), 0, unread(reads_again)),
        when(
            armed,
            Trigger::Renew,
            leader.clone(),
            dead,
            power_loss(leader.clone(), 60 * SEC),
        ),
        when(armed, Trigger::Renew, leader.clone(), free, lease_early(leader)),
    ]
}

/// A replica far behind is elected, dies before it has published a position, and may be no further behind any more when it is back.
pub(super) fn unpublished_reign(rng: &mut Rng, shape: &Shape) -> Steps {
    let (leader, next) = (who(shape, 0), who(shape, 1));
    let round = shape.settings.loop_wait * SEC;
    let lost = round + rng.range(500 * MS, SEC);
    let bytes = rng.range(3 << 20, 6 << 20);
    let elected = lost + ttl(shape) + 2 * SEC;
    let back = ttl(shape) + rng.range(3 * SEC, 6 * SEC);
    vec![
        fault(
            0,
            cut(leader.clone(), End::Node(next.clone()), Way::Both, lost + 10 * MS),
        ),
        (100 * MS, Step::Load(Load::Burst { bytes })),
        when(
            0,
            Trigger::Promoted,
            next,
            rng.below(400 * MS),
            kill(Target::Here, back),
        ),
        fault(lost, power_loss(leader, GONE)),
        set(elected, "maximum_lag_on_failover", "1048576"),
    ]
}

/// Two replicas were lost before the leader was, the first with the least. The others have their reigns in turn, each while all others are
/// gone: the third of them leaves the first timeline earlier than `history` says.
pub(super) fn unrecorded_fork(rng: &mut Rng, shape: &Shape) -> Steps {
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|index| who(shape, index));
    let mut at = 0;
    let mut steps: Steps = Vec::new();
    for node in [third.clone(), fourth.clone(), first] {
        steps.push(fault(at, power_loss(node, GONE)));
        at += rng.range(300 * MS, 1200 * MS);
    }
    for (leads, follows) in [(second, third.clone()), (third, fourth)] {
        let reign = rng.range(2500 * MS, 4 * SEC);
        let gone = power_loss(Target::Here, GONE);
        steps.push(when(0, Trigger::Promoted, leads.clone(), reign, gone));
        steps.push(when(
            0,
            Trigger::Promoted,
            leads,
            reign + 100 * MS,
            power_on(follows),
        ));
    }
    steps
}

/// What the first leader wrote last reaches a replica that missed the reign after it while that one's order to take the lock is under way:
/// more than the second leader had.
pub(super) fn past_the_fork(rng: &mut Rng, shape: &Shape) -> Steps {
    let [first, node, second] = [0, 1, 2].map(|index| who(shape, index));
    let lease = ttl(shape);
    let behind = rng.range(300 * MS, 800 * MS);
    let lost = behind + rng.range(300 * MS, 800 * MS);
    let ends = lost + lease + rng.range(3 * SEC, 4 * SEC);
    let heard = ends + lease + rng.range(2 * SEC, 3 * SEC);
    let late = rng.range(1200 * MS, 1800 * MS);
    let arrives = heard + lease + rng.range(200 * MS, SEC);
    let link = NetFault::SlowLink {
        a: End::Node(first.clone()),
        b: End::Node(node.clone()),
        by: Nanos(arrives - behind + 50 * MS),
        least: Nanos(arrives - behind),
        span: Nanos(lost + SEC),
    };
    vec![
        fault(0, Fault::Net(link)),
        fault(0, cut(second.clone(), End::Node(node.clone()), Way::Both, GONE)),
        fault(0, cut_etcd(node.clone(), heard)),
        fault(
            behind,
            cut(first.clone(), End::Node(second.clone()), Way::Both, GONE),
        ),
        fault(lost, power_loss(first, GONE)),
        fault(ends, power_loss(second, GONE)),
        when(
            heard,
            Trigger::Acquire,
            node.clone(),
            0,
            delay(node, Rpc::Txn, late, 8, late),
        ),
    ]
}
