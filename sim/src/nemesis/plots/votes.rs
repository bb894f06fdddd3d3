//! Elections by votes: what a voter said of itself, and what it acknowledges all the same.

use surus_scenarios::{End, Operator, PostgresStep, Shape, Trigger, Way};

use super::{
    Steps, act, cut, cut_etcd, fault, freeze, kill, kill_postgres, lease_early, slow, ttl, when, who,
};
use crate::clock::{MS, SEC};
use crate::rng::Rng;

/// The key vanishes shortly before the right ends, and the others have asked each other at once. The leader stands still, and its server
/// acknowledges on with one of them, until its guard kills it.
pub(super) fn before_the_end(rng: &mut Rng, shape: &Shape) -> Steps {
    let [leader, next, voter] = [0, 1, 2].map(|index| who(shape, index));
    let renewed = |after, strike| when(0, Trigger::Renew, leader.clone(), after, strike);
    let killed = ttl(shape) - 500 * MS;
    let vanishes = killed - rng.range(250 * MS, 650 * MS);
    let apart = cut(leader.clone(), End::Node(next), Way::Both, 20 * SEC);
    vec![
        renewed(
            rng.range(50 * MS, 300 * MS),
            freeze(leader.clone(), ttl(shape) + 10 * SEC),
        ),
        renewed(vanishes - rng.range(10 * MS, SEC), cut_etcd(voter, 20 * SEC)),
        renewed(vanishes, lease_early(leader.clone())),
        renewed(vanishes + rng.range(5 * MS, 40 * MS), apart),
    ]
}

/// A voter's agent has not looked since before the timeline changed, and when it is asked its server receives nothing any more: it says how
/// far that has come, and calls it the timeline before.
pub(super) fn of_the_past(rng: &mut Rng, shape: &Shape) -> Steps {
    let [former, leader, voter] = [0, 1, 2].map(|index| who(shape, index));
    let promoted = |after, strike| when(0, Trigger::Promoted, leader.clone(), after, strike);
    let behind = rng.range(8 * SEC, 12 * SEC);
    let lost = behind + rng.range(300 * MS, SEC);
    let apart = cut(leader.clone(), End::Node(former), Way::Both, 60 * SEC);
    // By then the look that hangs is under way.
    let asked = shape.settings.loop_wait * SEC + rng.range(100 * MS, SEC);
    let to = Some(leader.clone());
    vec![
        fault(0, slow(voter, PostgresStep::Probe, 60 * SEC)),
        promoted(behind, apart),
        promoted(lost, kill(leader.clone(), 60 * SEC)),
        promoted(lost + MS, kill_postgres(leader.clone())),
        act(asked, Operator::Switchover { to }),
    ]
}
