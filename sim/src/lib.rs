//! Simulated worlds for Surus: the production state machine, models of all it stands on, faults, and checkers.
//!
//! - [`fast`]: N cores and the models in one queue of events; time jumps
//! - [`model`]: etcd, PostgreSQL, the guard; [`net`], [`clock`]: what lies between
//! - [`nemesis`]: the faults, an explicit list made from the seed; [`check`]: what must never happen
//! - [`record`]: what happened, its hash, and who is told; [`coverage`]: what has fired; [`zoo`]: planted bugs that the sweep must find
//!
//! The same seed gives the same bytes: all chance is [`rng`], all maps are ordered, there is no other clock.
pub mod check;
pub mod clock;
pub mod coverage;
pub mod fast;
pub mod model;
pub mod nemesis;
pub mod net;
pub mod record;
pub mod rng;
pub mod zoo;

use crate::clock::{SEC, Time};
use crate::fast::world::World;
use crate::record::Keep;

/// After the last fault everything must be well within this time: the longest back-off of the core is 30 s, and a full
/// rejoin can need two of them.
const BOUND: Time = 100 * SEC;

/// When a run with mild faults takes note of its primary: the first fault comes later.
const SETTLED: Time = 19 * SEC;

/// How a run ended.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What must not happen and did.
    pub violation: Option<String>,
    /// The hash of the trace.
    pub hash: u64,
    /// The trace, if it was kept.
    pub lines: Vec<String>,
    /// World time at the end.
    pub simulated: Time,
    /// Events handled.
    pub events: u64,
    /// Writes acknowledged.
    pub acks: u64,
    /// Promotions.
    pub promotions: u64,
    /// From the end of the faults until all was well.
    pub recovered: Time,
}

/// Runs a seed: a phase with faults in which nothing unsafe may happen, and one without in which all must become well.
#[must_use]
pub fn run(seed: u64, keep_trace: bool) -> Report {
    run_with(seed, keep_trace, None)
}

/// Runs a seed with a planted bug.
#[must_use]
pub fn run_with(seed: u64, keep_trace: bool, bug: Option<zoo::Bug>) -> Report {
    let plan = nemesis::plan(seed);
    let keep = if keep_trace { Keep::Facts } else { Keep::Hash };
    let mut world = World::new(seed, plan, keep);
    world.bug = bug;
    let mild = world.plan.mild;
    let mut primary = None;
    if mild {
        world.run_until(SETTLED);
        primary = reign(&world);
    }
    let end = world.plan.end;
    world.run_until(end);
    world.heal();
    let mut recovered = 0;
    while world.record.checker.violation.is_none() {
        let Some(why) = world.unconverged() else { break };
        if BOUND <= recovered {
            world
                .record
                .checker
                .fail(format!("L3: {} s after the last fault {why}", recovered / SEC));
            break;
        }
        recovered += SEC;
        world.run_until(end + recovered);
    }
    if mild && primary.is_some() && world.record.checker.violation.is_none() && reign(&world) != primary {
        world
            .record
            .checker
            .fail("L2: faults shorter than the tolerance moved or stopped the primary".to_owned());
    }
    Report {
        seed,
        violation: world.record.checker.violation.clone(),
        hash: world.record.hash(),
        lines: world.record.lines(),
        simulated: world.now,
        events: world.events,
        acks: world.record.checker.acks,
        promotions: world.record.checker.promotions,
        recovered,
    }
}

/// The node that leads, and its server.
fn reign(world: &World) -> Option<(usize, u64)> {
    let key = world.etcd.view.leader.as_ref()?;
    let node = world.names.iter().position(|name| *name == key.name)?;
    let pg = &world.hosts[node].pg;
    pg.writable().then_some((node, pg.epoch))
}
