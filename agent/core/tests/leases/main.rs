//! Every state that the lock and the rights that hang on it can reach with two to four members: the very [`Lease`](surus_core::lease::Lease)
//! and [`ForeignRight`](surus_core::lease::ForeignRight) of the core, and around them an etcd that loses the key whenever it likes, orders that
//! arrive late, answers that are lost, agents that crash, and time.
//!
//! In no state two members may write.

#![expect(
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "millions of states are looked up and never gone through; their number is the result"
)]

use std::collections::HashSet;

mod world;

use world::{Bounds, Doing, World};

/// What an exploration came to.
struct Explored {
    states: usize,
    /// The first state in which two may write, and how it came about, the last first.
    wrong: Option<(World, Doing)>,
}

fn explore(bounds: &Bounds) -> Explored {
    let first = World::new();
    let mut known = HashSet::from([first]);
    let mut ahead = vec![first];
    let mut wrong = None;
    while let Some(world) = ahead.pop()
        && wrong.is_none()
    {
        world.next(bounds, |doing, next| {
            if 1 < next.primaries() {
                wrong.get_or_insert((next, doing));
            } else if known.insert(next) {
                ahead.push(next);
            }
        });
    }
    Explored {
        states: known.len(),
        wrong,
    }
}

fn sound(bounds: &Bounds) {
    let explored = explore(bounds);
    println!("{bounds}: {} states", explored.states);
    assert!(explored.wrong.is_none(), "{:?}", explored.wrong);
}

#[test]
fn two_members() {
    for (ttl, strays) in [(1, 2), (2, 1), (3, 0)] {
        sound(&Bounds::new(2, ttl, strays));
    }
}

#[test]
fn three_members() {
    sound(&Bounds::new(3, 1, 0));
}

#[test]
fn three_members_and_strays() {
    sound(&Bounds::new(3, 1, 1));
}

/// Without the bound on orders it is 21,585,703 states, which take five minutes and are as sound.
#[test]
fn four_members() {
    sound(&Bounds::new(4, 1, 0).orders(1));
    sound(&Bounds::new(4, 1, 0).orders(2));
}

/// Each rule is needed.
#[test]
fn without_one_rule_there_are_two_primaries() {
    for rule in world::Rule::ALL {
        let bounds = Bounds::new(2, 2, 1).without(rule);
        let explored = explore(&bounds);
        println!(
            "without {rule:?}: {:?} after {} states",
            explored.wrong, explored.states
        );
        assert!(explored.wrong.is_some(), "{rule:?} is not needed");
    }
}

#[cfg(feature = "zoo")]
#[test]
fn each_flaw_of_the_core_is_found() {
    use surus_core::zoo::{Flaw, plant};

    for flaw in [
        Flaw::RightForever,
        Flaw::RenewalsUnseen,
        Flaw::NewcomerDoesNotWait,
        Flaw::OldRightIgnored,
    ] {
        let planted = plant(Some(flaw));
        let explored = explore(&Bounds::new(2, 2, 1));
        drop(planted);
        println!("{flaw:?}: {:?} after {} states", explored.wrong, explored.states);
        assert!(explored.wrong.is_some(), "{flaw:?} is not found");
    }
}
