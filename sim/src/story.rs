//! Stories as tests: one story in many worlds, and what it showed there.
//!
//! ```text
//!   scenarios/stories/**.story ──┐
//!                                ├─ tell ──▶ Tale { failures, waits, fired }
//!   seeds, a planted bug ────────┘
//! ```
//!
//! A story must hold in every world of [`SEEDS`]. What it says it is stopped by must have fired in some of them, and with each bug
//! that it says it returns with it must fail in some of them: a story that cannot fail tells nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use surus_scenarios::{Course, Name, Outcome as Ending, Story};

use crate::check::Violation;
use crate::clock::Time;
use crate::record::{Entry, Keep, Seen};
use crate::run::{Job, Kind};
use crate::zoo::Bug;

/// The worlds of a test: seeds for the delays of the network, the phases of the agents' rounds, and the clocks.
pub const SEEDS: Range<u64> = 0..20;

/// In how many worlds a planted bug may take to bring an incident back.
pub const PATIENCE: Range<u64> = 0..200;

/// A world in which a story failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What was expected, when it was given up, and what was seen; or the invariant.
    pub violation: Violation,
}

/// What a story showed in several worlds.
#[derive(Debug, Clone, Default)]
pub struct Tale {
    /// Worlds in which it was played to its end or failed.
    pub played: u64,
    /// Where it failed.
    pub failures: Vec<Failure>,
    /// What the world lacks; the story waits for it.
    pub waits: Vec<String>,
    /// Steps that had no effect anywhere, with the reason given last.
    pub void: Vec<(String, String)>,
    /// Codes of the rules that fired and of the guards that stopped one, after the first step.
    pub fired: BTreeSet<&'static str>,
    /// The longest time from the end of the faults until all was well.
    pub recovered: Time,
    /// Who took writes, one after the other, and in how many worlds it was so.
    pub courses: BTreeMap<Course, u64>,
}

impl Tale {
    /// What the story says it is stopped by and that never fired.
    pub fn unconfirmed<'a>(&'a self, story: &'a Story) -> impl Iterator<Item = &'a Name> {
        story
            .stopped_by
            .iter()
            .filter(|name| !self.fired.contains(name.as_str()))
    }

    /// The outlines of its courses, a line of `scenarios/OUTLINES` each.
    #[must_use]
    pub fn outlines(&self, story: &Story) -> BTreeSet<String> {
        let outlines = self.courses.keys().map(Course::outline);
        outlines
            .map(|outline| format!("{} {outline}", story.name))
            .collect()
    }
}

/// Plays `story` in the worlds of these seeds; a failure does not end it.
#[must_use]
pub fn tell(world: Kind, story: &Story, seeds: Range<u64>, bug: Option<Bug>) -> Tale {
    let mut tale = Tale::default();
    let mut void: Vec<(String, String, u64)> = Vec::new();
    for seed in seeds {
        let keep = if bug.is_some() { Keep::Hash } else { Keep::Facts };
        let outcome = job(world, story, seed, bug).run(keep);
        fired(&outcome.entries, &mut tale.fired);
        if outcome.violation.is_none() {
            *tale.courses.entry(course(&outcome.entries)).or_default() += 1;
        }
        tale.recovered = tale.recovered.max(outcome.recovered);
        if let Some(played) = &outcome.played {
            if let Ending::Waits(lacks) = &played.outcome {
                tale.waits.clone_from(lacks);
                return tale;
            }
            for (planned, why) in &played.void {
                let step = planned.to_string();
                match void.iter_mut().find(|(known, ..)| *known == step) {
                    Some((_, reason, times)) => {
                        why.clone_into(reason);
                        *times += 1;
                    }
                    None => void.push((step, why.clone(), 1)),
                }
            }
        }
        tale.played += 1;
        if let Some(violation) = outcome.violation {
            tale.failures.push(Failure { seed, violation });
        }
    }
    let always = void.into_iter().filter(|(_, _, times)| *times == tale.played);
    tale.void = always.map(|(step, why, _)| (step, why)).collect();
    tale
}

/// The first of these worlds in which the story fails with the planted bug.
#[must_use]
pub fn returns(world: Kind, story: &Story, bug: Bug, seeds: Range<u64>) -> Option<Failure> {
    seeds.into_iter().find_map(|seed| {
        let violation = job(world, story, seed, Some(bug)).run(Keep::Hash).violation?;
        Some(Failure { seed, violation })
    })
}

/// The run of a story in the world of a seed.
#[must_use]
pub fn job(world: Kind, story: &Story, seed: u64, bug: Option<Bug>) -> Job {
    // The seed of a test decides, not the one that a story was found with.
    let story = Story {
        seed: None,
        ..story.clone()
    };
    Job {
        world,
        seed,
        story: Some(story),
        file: None,
        nodes: None,
        synchronous: false,
        bug,
    }
}

/// Who took writes since the first step, with whoever did just before it.
fn course(entries: &[Entry]) -> Course {
    let first = entries
        .iter()
        .position(|entry| matches!(entry.seen, Seen::StepBegan { .. }));
    let reign = |entry: &Entry| match &entry.seen {
        Seen::Up {
            primary: true,
            standing,
        }
        | Seen::Promoted { standing, .. } => entry.node.map(|node| (node, standing.timeline.0)),
        _ => None,
    };
    let (before, after) = entries.split_at(first.unwrap_or(0));
    Course::of(
        before
            .iter()
            .filter_map(reign)
            .next_back()
            .into_iter()
            .chain(after.iter().filter_map(reign)),
    )
}

/// Adds what has fired since the first step: what each node decided last before it, and all that came after.
fn fired(entries: &[Entry], codes: &mut BTreeSet<&'static str>) {
    let first = entries
        .iter()
        .position(|entry| matches!(entry.seen, Seen::StepBegan { .. }));
    let (before, after) = entries.split_at(first.unwrap_or(entries.len()));
    let decided = |entry: &Entry| match &entry.seen {
        Seen::Decided(decision) => Some((entry.node, decision.clone())),
        _ => None,
    };
    let standing: BTreeMap<_, _> = before.iter().filter_map(decided).collect();
    for (_, decision) in standing.into_iter().chain(after.iter().filter_map(decided)) {
        codes.insert(decision.rule.code());
        codes.extend(decision.blocked.iter().map(|(_, guard)| guard.code()));
    }
}
