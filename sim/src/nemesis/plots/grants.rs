//! A leader that lives without etcd by grants of the others: who is asked, what each has promised, and what they have heard.

use surus_scenarios::{End, Fault, HostFault, Lost, Nanos, NetFault, Rpc, Shape, Target, Trigger, Way};

use super::{
    Steps, cut, cut_etcd, fault, freeze, host, isolate, kill, lease_early, lose, set, set_ttl, ttl, when, who,
};
use crate::clock::{MS, SEC, Time};
use crate::rng::Rng;

/// A leader that lives by grants hears of a longer ttl before those who grant, and is cut off just then.
pub(super) fn longer_ttl_by_grants(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let set = rng.range(4 * SEC, 7 * SEC);
    let apart = cut(leader.clone(), End::Peers, Way::Both, 40 * SEC);
    vec![
        fault(0, cut_etcd(leader, 60 * SEC)),
        set_ttl(set, 15),
        fault(set + rng.range(500 * MS, 2200 * MS), apart),
    ]
}

/// A reign begins with a longer ttl while the others are without etcd. They hear that it is short again before the leader does, and grant by
/// what they know; the leader stands still from then on.
pub(super) fn longer_ttl_asked_for(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let again = rng.range(2200 * MS, 2600 * MS);
    let deaf = again + rng.range(800 * MS, 1500 * MS);
    // A leader of a ttl of 15 s asks when it has heard nothing for 6 s.
    let short = deaf + rng.range(4500 * MS, 7 * SEC);
    let granted = rng.range(10 * MS, 30 * MS);
    let mut steps: Steps = (1..shape.members.len())
        .map(|index| fault(0, cut_etcd(who(shape, index), 60 * SEC)))
        .collect();
    steps.extend([
        set_ttl(50 * MS, 15),
        fault(again, lease_early(leader.clone())),
        fault(deaf, cut_etcd(leader.clone(), 60 * SEC)),
        set_ttl(short, 3),
        when(
            short + rng.range(500 * MS, SEC),
            Trigger::Granted,
            Target::Any,
            granted,
            freeze(leader, 20 * SEC),
        ),
    ]);
    steps
}

/// A leader lives by grants until its key has long expired, and then not even by these.
pub(super) fn promise(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let apart = ttl(shape) * rng.range(2, 3) + rng.below(2 * SEC);
    vec![
        fault(0, cut_etcd(leader.clone(), 60 * SEC)),
        fault(apart, cut(leader, End::Peers, Way::Both, 40 * SEC)),
    ]
}

/// A member returns; the leader writes the failsafe list with it, and hears of nothing from then on.
pub(super) fn list_in_flight(rng: &mut Rng, shape: &Shape) -> Steps {
    let (leader, last) = (who(shape, 0), who(shape, shape.members.len() - 1));
    let back = 2 * ttl(shape) + rng.range(2 * SEC, 5 * SEC);
    let (armed, written) = (back - 100 * MS, rng.range(50_000, 2 * MS));
    let apart = cut(leader.clone(), End::Node(last.clone()), Way::Both, 60 * SEC);
    let deaf = cut_etcd(leader.clone(), 60 * SEC);
    vec![
        fault(0, kill(last, back)),
        when(armed, Trigger::WriteFailsafe, leader.clone(), written, deaf),
        when(armed, Trigger::WriteFailsafe, leader, written, apart),
    ]
}

/// Grants take so long that each comes when its round is over.
pub(super) fn slow_grants(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let patience = (ttl(shape) / 3).max(500 * MS);
    // Question and answer each take a little more than half of the patience.
    let least = patience / 2 + rng.range(10 * MS, 150 * MS);
    let link = NetFault::SlowLink {
        a: End::Node(leader.clone()),
        b: End::Peers,
        by: Nanos(least + 100 * MS),
        least: Nanos(least),
        span: Nanos(4 * ttl(shape)),
    };
    vec![
        fault(0, Fault::Net(link)),
        fault(10 * MS, cut_etcd(leader, 3 * ttl(shape))),
    ]
}

/// A member that the leader need not ask is there again while that lives by grants.
pub(super) fn listener_returns(rng: &mut Rng, shape: &Shape) -> Steps {
    let (leader, last) = (who(shape, 0), who(shape, shape.members.len() - 1));
    let away = 2 * ttl(shape) + rng.range(2 * SEC, 4 * SEC);
    let apart = cut(leader.clone(), End::Node(last.clone()), Way::Both, 60 * SEC);
    vec![
        fault(0, kill(last, away)),
        fault(away - rng.range(100 * MS, 2 * SEC), cut_etcd(leader, 60 * SEC)),
        fault(away - 50 * MS, apart),
    ]
}

/// A leader without etcd asks, and on one member's host nobody is there to answer.
pub(super) fn nobody_there(rng: &mut Rng, shape: &Shape) -> Steps {
    let absent = who(shape, 1 + rng.index(2));
    let back = [ttl(shape) + rng.below(4 * SEC), 60 * SEC][rng.index(2)];
    vec![
        fault(0, kill(absent, back)),
        fault(rng.range(10 * MS, SEC), cut_etcd(who(shape, 0), 40 * SEC)),
    ]
}

/// The mode is turned off while a leader lives by grants, and there is a member that it need not ask.
pub(super) fn mode_off(rng: &mut Rng, shape: &Shape) -> Steps {
    let (leader, last) = (who(shape, 0), who(shape, shape.members.len() - 1));
    let away = unlisted(shape) + rng.range(SEC, 2 * SEC);
    let apart = cut(leader.clone(), End::Node(last.clone()), Way::Both, 90 * SEC);
    // A member that begins waits for a ttl, whoever led.
    let off = away + ttl(shape) + rng.range(1500 * MS, 3 * SEC);
    vec![
        fault(0, kill(last, away)),
        fault(away - rng.range(100 * MS, SEC), cut_etcd(leader, 90 * SEC)),
        fault(away - 50 * MS, apart),
        set(off, "failsafe_mode", "false"),
    ]
}

/// A leader that cannot renew, and reads and writes all the same, finds a new member while it lives by grants of the others.
pub(super) fn named_on_grants(rng: &mut Rng, shape: &Shape) -> Steps {
    let (leader, last) = (who(shape, 0), who(shape, shape.members.len() - 1));
    let unable_for = |node: Target, span| lose(node, Lost::Request, Rpc::KeepAlive, 0, span);
    let unable = unlisted(shape) + rng.range(SEC, 2 * SEC);
    let back = unable + rng.range(ttl(shape) / 2, ttl(shape) * 3 / 4);
    let apart = cut(leader.clone(), End::Node(last.clone()), Way::Both, 60 * SEC);
    vec![
        fault(0, unable_for(last, back)),
        fault(unable, unable_for(leader.clone(), 60 * SEC)),
        fault(unable, apart),
        when(
            unable,
            Trigger::WriteFailsafe,
            leader,
            rng.range(50 * MS, 500 * MS),
            cut_etcd(Target::Here, 60 * SEC),
        ),
    ]
}

/// A member whose key cannot be renewed any more is off the failsafe list after so long: a ttl, and while it is remembered.
fn unlisted(shape: &Shape) -> Time {
    ttl(shape) + 10 * SEC + 2 * shape.settings.loop_wait * SEC
}

/// A leader that lives by grants stands still while its guard dies; the next grants come just after it has ordered to start again, and
/// are the last.
pub(super) fn granted_in_a_start(rng: &mut Rng, shape: &Shape) -> Steps {
    let leader = who(shape, 0);
    let round = shape.settings.loop_wait * SEC;
    let still = ttl(shape) / 2 + rng.range(round, 3 * round);
    let span = round + rng.range(500 * MS, 1500 * MS);
    let dies = HostFault::KillGuard { node: leader.clone() };
    let woken = still + span;
    vec![
        fault(0, cut_etcd(leader.clone(), 60 * SEC)),
        fault(still, freeze(leader.clone(), span)),
        fault(still + span / 2, host(dies)),
        fault(woken + rng.range(10 * MS, round / 2), isolate(leader, 40 * SEC)),
    ]
}
