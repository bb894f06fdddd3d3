//! A run of the fast world, from its first event to the verdict.

use std::sync::Arc;

use crate::check::{Invariant, Violation};
use crate::clock::{SEC, Time};
use crate::fast::world::World;
use crate::record::{Keep, Seen};
use crate::run::{Job, Outcome, caught};

/// After the last fault everything must be well within this time: the longest back-off of the core is 30 s, and a full
/// rejoin can need two of them.
const BOUND: Time = 100 * SEC;

/// When a run with mild faults takes note of its primary: the first fault comes later.
const SETTLED: Time = 19 * SEC;

/// Plays the job.
#[must_use]
pub fn play(job: &Job, keep: Keep) -> Outcome {
    let plan = job.plan();
    let mut world = World::new(job.seed, plan, keep);
    world.bug = job.bug;
    let recovered = caught(|| phases(&mut world));
    if let Err(text) = &recovered {
        let text = Arc::from(text.as_str());
        world.see(None, Seen::Broken { text });
    }
    let violation = world.record.checker.violation.take().map(|text| {
        let (code, rest) = text.split_once(": ").unwrap_or(("", &text));
        Violation {
            invariant: Invariant::from_code(code).unwrap_or(Invariant::S12),
            text: rest.to_owned(),
            at: world.now,
            node: None,
            facts: world.record.last().into_iter().collect(),
        }
    });
    Outcome {
        violation,
        hash: world.record.hash(),
        entries: world.record.take_entries(),
        coverage: std::mem::take(&mut world.record.coverage),
        simulated: world.now,
        events: world.events,
        acks: world.record.checker.acks,
        promotions: world.record.checker.promotions,
        recovered: recovered.unwrap_or_default(),
        plan: world.plan,
        names: world.names,
    }
}

/// The phase with faults, and the one without; how long the second took.
fn phases(world: &mut World) -> Time {
    let mild = world.plan.mild;
    let mut primary = None;
    if mild {
        world.run_until(SETTLED);
        primary = reign(world);
    }
    let end = world.plan.end;
    world.run_until(end);
    world.heal();
    let mut recovered = 0;
    while world.record.checker.violation.is_none() {
        let Some(why) = world.unconverged() else { break };
        if BOUND <= recovered {
            let text = format!("L3: {} s after the last fault {why}", recovered / SEC);
            world.record.checker.fail(text);
            break;
        }
        recovered += SEC;
        world.run_until(end + recovered);
    }
    if mild && primary.is_some() && world.record.checker.violation.is_none() && reign(world) != primary {
        let text = "L2: faults shorter than the tolerance moved or stopped the primary";
        world.record.checker.fail(text.to_owned());
    }
    recovered
}

/// The node that leads, and its server.
fn reign(world: &World) -> Option<(usize, u64)> {
    let key = world.etcd.view.leader.as_ref()?;
    let node = world.names.iter().position(|name| *name == key.name)?;
    let pg = &world.hosts[node].pg;
    pg.writable().then_some((node, pg.epoch))
}
