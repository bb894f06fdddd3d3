//! Every state that synchronous replication can reach with a few members: the very plan of the core, and around it crashes, lost answers, late
//! writes, members that come and go, and elections, between any two steps.
//!
//! In each state whoever may be elected has every acknowledged commit; and from each, left alone, the leader comes to rest.

#![expect(
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "millions of states are looked up and never gone through; their number is the result"
)]

use std::collections::{BTreeSet, HashSet};

use surus_core::sync::{Mode, Settings};

mod world;

use world::{Bounds, World, Wrong};

/// What an exploration came to.
#[derive(Debug, Default)]
struct Explored {
    states: usize,
    /// Pairs of a key and a setting.
    sides: usize,
    /// The longest way to rest, in steps.
    steps: u32,
    wrong: Option<(Wrong, World)>,
    restless: Option<World>,
}

fn explore(bounds: &Bounds) -> Explored {
    let first = World::new();
    let mut known = HashSet::from([first]);
    let mut ahead = vec![first];
    let mut sides = BTreeSet::new();
    let mut explored = Explored::default();
    while let Some(world) = ahead.pop() {
        if sides.insert(world.sides()) || known.len() % 64 == 0 {
            for streaming in 0..1 << bounds.members {
                match world.settles(bounds, streaming) {
                    Some(steps) => explored.steps = explored.steps.max(steps),
                    None => explored.restless = Some(world),
                }
            }
        }
        world.next(bounds, |next| {
            match next.and_then(|next| next.check().map(|()| next)) {
                Ok(next) => {
                    if known.insert(next) {
                        ahead.push(next);
                    }
                }
                Err(wrong) => explored.wrong = Some((wrong, world)),
            }
        });
        if explored.wrong.is_some() {
            break;
        }
    }
    explored.states = known.len();
    explored.sides = sides.len();
    explored
}

fn settings(members: u8) -> Vec<Settings> {
    let mut all = Vec::new();
    for mode in [Mode::On, Mode::Quorum] {
        for strict in [false, true] {
            for count in 1..=usize::from(members - 1).min(2) {
                all.push(Settings {
                    mode,
                    strict,
                    count,
                    maximum_lag: None,
                    gate: None,
                });
            }
        }
    }
    all
}

fn sound(members: u8, settings: Vec<Settings>) {
    let bounds = Bounds::new(members, settings);
    let explored = explore(&bounds);
    println!(
        "{members} members, {:?}: {} states, {} pairs of key and setting, at rest after {} steps at most",
        bounds.settings, explored.states, explored.sides, explored.steps
    );
    assert_eq!(explored.wrong, None);
    assert_eq!(explored.restless, None);
}

#[test]
fn two_members() {
    sound(2, settings(2));
}

#[test]
fn three_members() {
    for settings in settings(3) {
        sound(3, vec![settings]);
    }
}

#[test]
fn three_members_and_somebody_who_changes_the_settings() {
    sound(3, settings(3));
}

#[test]
fn four_members() {
    for settings in settings(4) {
        sound(4, vec![settings]);
    }
}

/// Each ordering rule of the plan is needed.
#[cfg(feature = "zoo")]
#[test]
fn without_one_rule_a_commit_is_lost() {
    use surus_core::zoo::{Flaw, plant};

    let flaws = [
        Flaw::SyncNamesFirst,
        Flaw::SyncKeyFirst,
        Flaw::SyncUnconfirmed,
        Flaw::SyncDoubtIgnored,
        Flaw::PromotedUnnamed,
    ];
    for flaw in flaws {
        for mode in [Mode::On, Mode::Quorum] {
            let of_mode = settings(3).into_iter().filter(|settings| settings.mode == mode);
            let planted = plant(Some(flaw));
            let bounds = Bounds::new(3, of_mode.collect());
            let explored = explore(&bounds);
            drop(planted);
            println!(
                "{flaw:?} in {mode:?}: {:?} after {} states",
                explored.wrong, explored.states
            );
            assert!(explored.wrong.is_some(), "{flaw:?} does no harm in {mode:?}");
        }
    }
}
