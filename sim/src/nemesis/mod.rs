//! The nemesis: a story made from a seed before the run, so that it can be printed, replayed and cut down.
//!
//! ```text
//!   seed ──► temper   what kind of days: rough, mild, paused, at the cluster's birth, aimed, planned
//!        ──► cast     members, tags, settings, where etcd lives, clients and routers
//!        ──► swarm    which kinds of faults this seed has, and how often each
//!        ──► rhythm   when: single, in pairs, in bursts; and failovers one after another
//! ```
//!
//! Swarm testing: a seed that has everything at once tests less than many that have a few things each, for one fault hides another. So
//! each seed draws a part of the kinds and a weight for each.
//!
//! What chance brings about too seldom has a plot (`plots`): two seeds of ten are aimed, each at one situation. Which of the planted
//! bugs need one, `surus-sim zoo` shows.
//!
//! A story has a phase in which faults strike and nothing unsafe may happen, then all is healed, and everything must become well within
//! a bound. Whatever a kind of fault needs is in the steps themselves: a world needs nothing of the seed to play it.

mod cast;
mod faults;
mod planned;
mod plots;
mod rhythm;
mod swarm;
mod traps;

use surus_scenarios::{Expectation, Nanos, Planned, Shape, Story};

use crate::check::liveness::return_within;
use crate::clock::SEC;
use crate::rng::Rng;

pub use swarm::Kind;

/// After the last fault everything must be well within this time.
fn healthy(shape: &Shape) -> Expectation {
    Expectation::Healthy {
        within: Nanos(return_within(shape.settings.ttl * SEC)),
    }
}

/// Plots there may be: one more takes seeds from few others.
const PLACES: usize = 64;

/// What kind of bad days a seed has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Temper {
    /// Anything, once the cluster stands.
    Rough,
    /// Only what is over before anybody may notice: the primary must stay where it is.
    Mild,
    /// The cluster is paused now and then, and what happens meanwhile must not come back to it.
    Paused,
    /// Anything, from the first moment on: while the cluster is being created.
    Birth,
    /// One situation that chance finds too seldom.
    Aimed,
    /// Nothing fails, and people do what they plan: clients hardly notice.
    Planned,
}

impl Temper {
    /// That of a seed, by its last digit: so a range of seeds has its share of each.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        match seed % 10 {
            9 => Self::Mild,
            8 => Self::Paused,
            7 => Self::Birth,
            5 | 6 => Self::Aimed,
            4 => Self::Planned,
            _ => Self::Rough,
        }
    }
}

/// What the chance of synchronous modes is drawn for, apart from all else: so a seed's faults are the same with them and without.
const SYNCHRONOUS: u64 = 4;

/// And what the paces that most people leave as they are.
const PACES: u64 = 5;

/// What a seed shall not draw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fixed {
    /// So many members.
    pub nodes: Option<usize>,
    /// Synchronous replication, if no plot says otherwise.
    pub synchronous: bool,
}

/// The story of a seed.
#[must_use]
pub fn story(seed: u64, fixed: Fixed) -> Story {
    let mut rng = Rng::new(seed, 1);
    let mut temper = Temper::of(seed);
    if temper == Temper::Aimed {
        let plot = &plots::PLOTS[rng.index(PLACES) % plots::PLOTS.len()];
        if fixed.nodes.is_none_or(|nodes| plot.nodes <= nodes) {
            return aimed(seed, plot, fixed.nodes, &mut rng);
        }
        // A plot names members that so small a cluster does not have.
        temper = Temper::Rough;
    }
    let mut shape = cast::shape(&mut rng, temper, fixed.nodes);
    cast::synchronous(&mut Rng::new(seed, SYNCHRONOUS), &mut shape, fixed.synchronous);
    cast::paces(&mut Rng::new(seed, PACES), &mut shape, temper);
    let mut expectations = vec![healthy(&shape)];
    let (steps, end) = if temper == Temper::Planned {
        planned::cast(&mut rng, &mut shape);
        expectations.extend(planned::expectations());
        planned::steps(&mut rng, &shape)
    } else {
        let swarm = swarm::Swarm::new(&mut rng, temper, &shape);
        rhythm::steps(&mut rng, temper, &swarm, &shape)
    };
    if temper == Temper::Mild {
        expectations.push(Expectation::NoFailover {});
    }
    Story {
        name: format!("seed-{seed}"),
        title: "made from a seed".to_owned(),
        shape,
        steps,
        end: Nanos(end),
        expectations,
        ..Story::default()
    }
}

/// The story of a plot, drawn by the seed.
fn aimed(seed: u64, plot: &plots::Plot, nodes: Option<usize>, rng: &mut Rng) -> Story {
    let mut shape = cast::shape(rng, Temper::Aimed, Some(nodes.unwrap_or(plot.nodes)));
    cast::plain(&mut shape, plot.birth);
    (plot.cast)(rng, &mut shape);
    let begin = if plot.birth {
        0
    } else {
        rhythm::STANDS + rng.range(5 * SEC, 7 * SEC)
    };
    let mut steps = (plot.steps)(rng, &shape);
    steps.sort_by_key(|(at, _)| *at);
    let last = steps.last().map_or(0, |(at, _)| *at);
    let planned = |(at, step)| Planned {
        at: Nanos(begin + at),
        step,
    };
    Story {
        name: format!("seed-{seed}"),
        title: "made from a seed".to_owned(),
        end: Nanos(begin + last + 4 * shape.settings.ttl * SEC + 20 * SEC),
        steps: steps.into_iter().map(planned).collect(),
        expectations: vec![healthy(&shape)],
        shape,
        ..Story::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use surus_scenarios::{Step, SyncMode};

    use super::*;

    #[test]
    fn a_cluster_of_any_size_names_only_its_own_members() {
        for nodes in [1, 2, 3, 5, 7] {
            let fixed = Fixed {
                nodes: Some(nodes),
                ..Fixed::default()
            };
            for seed in 0..300 {
                let shape = story(seed, fixed).shape;
                assert_eq!(shape.members.len(), nodes, "seed {seed}");
                let bites = |member: &surus_scenarios::Member| {
                    member.tags.replicatefrom.as_ref() == Some(&member.name)
                };
                assert!(!shape.members.iter().any(bites), "seed {seed}, {nodes} members");
            }
        }
    }

    #[test]
    fn a_story_reads_as_it_prints() {
        for seed in 0..300 {
            let story = story(seed, Fixed::default());
            let text = story.to_string();
            assert_eq!(text.parse::<Story>().as_ref(), Ok(&story), "seed {seed}:\n{text}");
        }
    }

    #[test]
    fn steps_come_in_order_and_before_the_end() {
        for seed in 0..300 {
            let story = story(seed, Fixed::default());
            assert!(story.steps.is_sorted_by_key(|step| step.at), "seed {seed}");
            assert!(story.steps.iter().all(|step| step.at < story.end), "seed {seed}");
        }
    }

    #[test]
    fn each_world_replicates_synchronously_if_asked_with_the_same_faults() {
        let fixed = Fixed {
            synchronous: true,
            ..Fixed::default()
        };
        let usual = |seed| story(seed, Fixed::default());
        let mut drawn = 0;
        for seed in (0..300).filter(|seed| !matches!(Temper::of(*seed), Temper::Aimed | Temper::Planned)) {
            let (asked, usual) = (story(seed, fixed), usual(seed));
            let off = |story: &Story| story.shape.settings.synchronous_mode == SyncMode::Off;
            assert!(!off(&asked), "seed {seed}");
            drawn += usize::from(!off(&usual));
            assert_eq!(asked.steps, usual.steps, "seed {seed}");
        }
        assert!((40..120).contains(&drawn), "{drawn} of about 240 by themselves");
    }

    #[test]
    fn every_kind_of_fault_is_drawn_by_some_seed() {
        let mut words = BTreeSet::new();
        for seed in 0..2000 {
            for planned in story(seed, Fixed::default()).steps {
                words.insert(planned.step.word());
                if let Step::Trap(trap) = planned.step {
                    words.insert(trap.strike.word());
                }
            }
        }
        assert!(25 < words.len(), "{words:?}");
        for word in [
            "when",
            "kill-agent",
            "split",
            "pause-host",
            "clock-drift",
            "failover",
            "lose",
        ] {
            assert!(words.contains(word), "no {word} in {words:?}");
        }
    }

    #[test]
    fn a_cascade_has_no_circle_and_somebody_may_lead() {
        for seed in 0..500 {
            let shape = story(seed, Fixed::default()).shape;
            assert!(
                shape.members.iter().any(|member| !member.tags.nofailover),
                "seed {seed}"
            );
            for (index, member) in shape.members.iter().enumerate() {
                let upstream = member
                    .tags
                    .replicatefrom
                    .as_ref()
                    .and_then(|name| shape.member(name));
                assert!(upstream.is_none_or(|upstream| upstream < index), "seed {seed}");
            }
        }
    }
}
