//! PostgreSQL promoted by hand, past its agent: what it makes counts for nothing, and comes back.

use surus_scenarios::{HostFault, Operator, Shape, Target};

use super::{Steps, act, fault, host, isolate, kill, power_loss, ttl, who};
use crate::clock::{MS, SEC, Time};
use crate::rng::Rng;

fn promote(at: Time, node: Target) -> (Time, surus_scenarios::Step) {
    act(at, Operator::PromoteByHand { node })
}

/// The leader writes on and is lost before the one that was promoted has come back behind it; somebody else has more.
pub(super) fn and_the_leader_lost(rng: &mut Rng, shape: &Shape) -> Steps {
    let (leader, node) = (who(shape, 0), who(shape, 1 + rng.index(2)));
    let lost = rng.range(100 * MS, 4 * SEC);
    let back = ttl(shape) + rng.range(2 * SEC, 15 * SEC);
    vec![promote(0, node), fault(lost, power_loss(leader, back))]
}

/// Nobody leads, and a person is quicker than the race, on whichever replica there is.
pub(super) fn in_a_race(rng: &mut Rng, shape: &Shape) -> Steps {
    let (leader, node) = (who(shape, 0), who(shape, 1));
    let by_hand = rng.below(ttl(shape) + 2 * SEC);
    let back = 3 * ttl(shape) + rng.range(2 * SEC, 15 * SEC);
    vec![fault(0, power_loss(leader, back)), promote(by_hand, node)]
}

/// A replica that is cut off, its agent ended, is promoted by hand; nobody hears of it, and the others make the same number later, elsewhere.
pub(super) fn where_nobody_hears(rng: &mut Rng, shape: &Shape) -> Steps {
    let (leader, node) = (who(shape, 0), who(shape, 2));
    let cut_off = ttl(shape) * 2 + rng.range(5 * SEC, 15 * SEC);
    let by_hand = rng.range(300 * MS, 2 * SEC);
    let lost = rng.range(SEC, 3 * SEC);
    let agent = if rng.one_in(2) {
        kill(node.clone(), cut_off + rng.below(2 * SEC))
    } else {
        host(HostFault::StopAgent {
            node: node.clone(),
            back: surus_scenarios::Nanos(cut_off),
        })
    };
    let mut steps = vec![
        fault(0, isolate(node.clone(), cut_off)),
        promote(by_hand, node),
        fault(lost, power_loss(leader, cut_off)),
    ];
    if rng.one_in(2) {
        steps.push(fault(by_hand + rng.below(200 * MS), agent));
    }
    steps
}
