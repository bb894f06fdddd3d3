//! When things happen: at a pace of the seed's own, sometimes in pairs, the second within the first's effects, sometimes in bursts.

use surus_scenarios::{Nanos, Operator, Planned, Shape, Step};

use super::Temper;
use super::swarm::Swarm;
use crate::clock::{MS, SEC, Time};
use crate::rng::Rng;

/// A cluster stands by then: created, cloned, streaming.
pub(super) const STANDS: Time = 15 * SEC;

/// Mild faults begin later, and leave time between them: each must be borne from a state of rest.
const MILD: (Time, Time) = (20 * SEC, 8 * SEC);

/// The steps of a seed, by time, and when all is healed.
pub(super) fn steps(rng: &mut Rng, temper: Temper, swarm: &Swarm, shape: &Shape) -> (Vec<Planned>, Time) {
    let pace = rng.range(500 * MS, 12 * SEC);
    let end = rng.range(120, 180) * SEC;
    let (mut at, rest) = match temper {
        Temper::Birth => (0, 0),
        Temper::Mild => MILD,
        Temper::Rough | Temper::Paused | Temper::Aimed | Temper::Planned => (STANDS, 0),
    };
    let mut steps: Vec<(Time, Step)> = Vec::new();
    while {
        at += rng.range(50 * MS, 2 * pace) + rest;
        at < end
    } {
        let again = match rng.below(12) {
            // The second fault within the effects of the first; now and then a burst.
            0..=2 => 1,
            3 => rng.range(2, 4),
            _ => 0,
        };
        let again = if temper == Temper::Mild { 0 } else { again };
        let mut also = at;
        for _ in 0..=again {
            let drawn = swarm.draw(rng, shape);
            steps.extend(drawn.into_iter().map(|(after, step)| (also + after, step)));
            also += rng.below(800 * MS);
        }
    }
    steps.retain(|(at, _)| *at < end);
    steps.sort_by_key(|(at, _)| *at);
    // A second promotion by hand soon makes a number that the first one, or the cluster, has already: nothing could tell them apart.
    let by_hand = |step: &Step| matches!(step, Step::Operator(Operator::PromoteByHand { .. }));
    let mut before = false;
    steps.retain(|(_, step)| !by_hand(step) || !std::mem::replace(&mut before, true));
    let planned = |(at, step)| Planned { at: Nanos(at), step };
    (steps.into_iter().map(planned).collect(), end)
}
