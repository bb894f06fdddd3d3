//! A run of the turmoil world, from its first event to the verdict.

use std::io;
use std::sync::Arc;

use surus_core::types::NodeName;
use surus_scenarios::{Expectation, Nanos, Outcome as Ending, Played, Story, play as tell};

use super::net::jump::Jumping;
use super::net::tick::Ticking;
use super::net::{Driver, Net};
use super::world::{Machines, World};
use crate::check::{Charter, Checker, Invariant, Violation};
use crate::clock::Time;
use crate::record::{Keep, Seen};
use crate::run::{Job, Kind, Outcome, caught};

/// Bytes of the stack of a run's thread: what the agent has in production.
const STACK: usize = 8 << 20;

/// Plays the job, on a thread of its own.
///
/// # Panics
/// When the machine has no threads or file descriptors left.
#[must_use]
pub fn play(job: &Job, keep: Keep) -> Outcome {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, || {
                // The flaw that is planted is this thread's.
                let _planted = surus_core::zoo::plant(job.bug.and_then(crate::zoo::Bug::flaw));
                run(job, keep)
            });
        match thread.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => panic!("no thread for a run: {error}"),
        }
    })
}

fn build(job: &Job, story: &Story, keep: Keep) -> io::Result<World> {
    let machines = Machines::of(&story.shape);
    let seed = story.seed.unwrap_or(job.seed);
    let driver: Box<dyn Driver> = match job.world {
        Kind::TurmoilTick => Box::new(Ticking::new(seed, &machines.names)),
        _ => Box::new(Jumping::new(seed, &machines.names)?),
    };
    World::new(seed, &story.shape, keep, machines, driver)
}

fn run(job: &Job, keep: Keep) -> Outcome {
    let story = job.story();
    let mut world = match build(job, &story, keep) {
        Ok(world) => world,
        Err(error) => panic!("no world: {error}"),
    };
    world.lenient = job.story.is_none();
    world.hub.record().checker = Checker::new(Charter::of(&story));
    let played = caught(|| tell(&mut world, &story));
    if let Err(text) = &played {
        let text = Arc::from(text.as_str());
        world.see(None, Seen::Broken { text });
    }
    let played = played.ok();
    let violation = broken(&world).or_else(|| failed(&world, &story, played.as_ref()));
    let (simulated, events, packets) = (world.time(), world.net.packets(), Net::hash(world.net.as_ref()));
    let mut record = world.hub.record();
    let entries = record.take_entries();
    Outcome {
        violation,
        hash: record.hash() ^ packets,
        entries,
        coverage: std::mem::take(&mut record.coverage),
        simulated,
        events,
        acks: record.checker.acks,
        promotions: record.checker.promotions,
        recovered: played.as_ref().map_or(0, recovered),
        played,
        names: story
            .shape
            .members
            .iter()
            .map(|member| NodeName(member.name.as_str().to_owned()))
            .collect(),
        story: story.clone(),
    }
}

/// An invariant that was broken.
fn broken(world: &World) -> Option<Violation> {
    let at = world.time();
    let mut record = world.hub.record();
    record.checker.finish(at);
    record.checker.violation.take()
}

/// An expectation that did not hold.
fn failed(world: &World, story: &Story, played: Option<&Played>) -> Option<Violation> {
    let Ending::Fails(failure) = &played?.outcome else {
        return None;
    };
    let is = |expectation: &&Expectation| expectation.to_string() == failure.expectation;
    let invariant = match story.expectations.iter().find(is) {
        Some(Expectation::Healthy { .. }) => Invariant::L3,
        Some(Expectation::NoFailover {}) => Invariant::L2,
        _ => Invariant::Story,
    };
    Some(Violation {
        invariant,
        text: failure.to_string(),
        at: world.time(),
        node: None,
        facts: world.hub.record().last().into_iter().collect(),
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
