//! A run of the fast world, from its first event to the verdict.

use std::sync::Arc;

use surus_scenarios::{Expectation, Nanos, Outcome as Ending, Played, Story, play as tell};

use crate::check::{Charter, Checker, Invariant, Violation};
use crate::clock::Time;
use crate::fast::world::World;
use crate::record::{Keep, Seen};
use crate::run::{Job, Outcome, caught};

/// Plays the job.
#[must_use]
pub fn play(job: &Job, keep: Keep) -> Outcome {
    let story = job.story();
    let mut world = World::new(story.seed.unwrap_or(job.seed), &story.shape, keep);
    world.bug = job.bug;
    world.record.checker = Checker::new(Charter::of(&story));
    let played = caught(|| tell(&mut world, &story));
    if let Err(text) = &played {
        let text = Arc::from(text.as_str());
        world.see(None, Seen::Broken { text });
    }
    let played = played.ok();
    let violation = broken(&mut world).or_else(|| failed(&world, &story, played.as_ref()));
    Outcome {
        violation,
        hash: world.record.hash(),
        entries: world.record.take_entries(),
        coverage: std::mem::take(&mut world.record.coverage),
        simulated: world.now,
        events: world.events,
        acks: world.record.checker.acks,
        promotions: world.record.checker.promotions,
        recovered: played.as_ref().map_or(0, recovered),
        played,
        story,
        names: world.names,
    }
}

/// An invariant that was broken.
fn broken(world: &mut World) -> Option<Violation> {
    let checker = &mut world.record.checker;
    checker.finish(world.now);
    checker.violation.take()
}

/// An expectation that did not hold. Two of them are invariants: that all becomes well, and that faults which are over soon move nobody.
fn failed(world: &World, story: &Story, played: Option<&Played>) -> Option<Violation> {
    let Ending::Fails(failure) = &played?.outcome else {
        return None;
    };
    let is = |expectation: &&Expectation| expectation.to_string() == failure.expectation;
    let expectation = story.expectations.iter().find(is);
    let invariant = match expectation {
        Some(Expectation::Healthy { .. }) => Invariant::L3,
        Some(Expectation::NoFailover {}) => Invariant::L2,
        _ => Invariant::Story,
    };
    Some(Violation {
        invariant,
        text: failure.to_string(),
        at: world.now,
        node: None,
        facts: world.record.last().into_iter().collect(),
    })
}

/// From the end of the faults until all was well.
fn recovered(played: &Played) -> Time {
    let healthy =
        |(expectation, _): &&(Expectation, Nanos)| matches!(expectation, Expectation::Healthy { .. });
    played
        .took
        .iter()
        .rev()
        .find(healthy)
        .map_or(0, |(_, took)| took.0)
}
