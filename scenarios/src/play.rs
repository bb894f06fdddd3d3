//! Plays a story in a world: steps at their times, expectations until they hold or cannot.

use crate::expect::Expectation;
use crate::story::{Planned, Step, Story};
use crate::text::Nanos;
use crate::world::{Taken, Verdict, World};

/// How often a world is asked whether an expectation has come true.
const POLL: Nanos = Nanos::ms(50);

/// How a story ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All that was expected holds.
    Holds,
    /// The world lacks something; each says what.
    Waits(Vec<String>),
    /// Something does not hold.
    Fails(Failure),
}

/// What did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The expectation as written, or `invariant`.
    pub expectation: String,
    /// When it was given up.
    pub at: Nanos,
    /// What was seen.
    pub seen: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            expectation,
            at,
            seen,
        } = self;
        write!(f, "at {at}: expected {expectation}; seen: {seen}")
    }
}

/// What a play gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    /// How it ended.
    pub outcome: Outcome,
    /// Steps that had no effect, with the reason.
    pub void: Vec<(Planned, String)>,
    /// Expectations that had to come true, and how long each took.
    pub took: Vec<(Expectation, Nanos)>,
}

/// Plays `story` in `world`, which was made of its shape and is at its beginning.
pub fn play<W: World + ?Sized>(world: &mut W, story: &Story) -> Played {
    let lacking = story
        .requires
        .iter()
        .filter(|feature| !world.has(feature.as_str()))
        .map(|feature| format!("requires {feature}"));
    let mut lacks: Vec<String> = lacking.collect();
    let mut void = Vec::new();
    let began = story.steps.iter().map(|planned| planned.at).min();
    let mut player = Player::new(world, began.unwrap_or(story.end));
    let told = if lacks.is_empty() {
        tell(&mut player, story, &mut void)
    } else {
        Ok(())
    };
    lacks.append(&mut player.lacks);
    let outcome = match told {
        _ if !lacks.is_empty() => Outcome::Waits(lacks),
        Err(failure) => Outcome::Fails(failure),
        Ok(()) => Outcome::Holds,
    };
    Played {
        outcome,
        void,
        took: player.took,
    }
}

/// The steps in their order, the end of all faults, and what is expected then. Ends early at a step that the world cannot do.
fn tell<W: World + ?Sized>(
    player: &mut Player<'_, W>,
    story: &Story,
    void: &mut Vec<(Planned, String)>,
) -> Result<(), Failure> {
    let mut steps: Vec<&Planned> = story
        .steps
        .iter()
        .filter(|planned| planned.at <= story.end)
        .collect();
    steps.sort_by_key(|planned| planned.at);
    for planned in steps {
        player.run_until(planned.at)?;
        if let Taken::Void(why) = player.step(&planned.step)? {
            void.push((planned.clone(), why));
        }
        if !player.lacks.is_empty() {
            return Ok(());
        }
    }
    player.run_until(story.end)?;
    player.world.heal();
    let (polled, whole): (Vec<_>, Vec<_>) = story
        .expectations
        .iter()
        .cloned()
        .partition(|expectation| expectation.within() != Nanos::ZERO);
    for expectation in polled {
        player.expect(expectation)?;
    }
    player.settle()?;
    for expectation in whole {
        player.expect(expectation)?;
    }
    Ok(())
}

/// Who tells a world a story, a step at a time.
#[derive(Debug)]
pub struct Player<'a, W: ?Sized> {
    /// The world.
    pub world: &'a mut W,
    /// Expectations that may yet come true: since when they are judged, and until when they may.
    pending: Vec<(Expectation, Nanos, Nanos)>,
    /// What the world cannot do or tell.
    lacks: Vec<String>,
    took: Vec<(Expectation, Nanos)>,
    /// What is expected of the whole run counts from then on.
    began: Nanos,
}

impl<'a, W: World + ?Sized> Player<'a, W> {
    /// Of a world at its beginning. What is expected of the whole run counts from `began` on.
    pub const fn new(world: &'a mut W, began: Nanos) -> Self {
        Self {
            world,
            pending: Vec::new(),
            lacks: Vec::new(),
            took: Vec::new(),
            began,
        }
    }

    /// What is expected of the whole run counts from `at` on.
    pub const fn begin(&mut self, at: Nanos) {
        self.began = at;
    }

    /// A step happens now.
    ///
    /// # Errors
    /// It is an expectation, and cannot hold any more.
    pub fn step(&mut self, step: &Step) -> Result<Taken, Failure> {
        let taken = match step {
            Step::Fault(fault) => self.world.strike(fault),
            Step::Operator(act) => self.world.operate(act),
            Step::Load(load) => self.world.load(load),
            Step::Trap(trap) => self.world.trap(trap),
            Step::Expect(expectation) => return self.expect(expectation.clone()),
            Step::Heal => {
                self.world.heal();
                Taken::Done
            }
        };
        if let Taken::Unable(why) = &taken {
            self.lacks.push(format!("`{step}`: {why}"));
        }
        Ok(taken)
    }

    /// Lets time pass until all that may yet come true has, or has not.
    ///
    /// # Errors
    /// As [`Self::run_until`].
    pub fn settle(&mut self) -> Result<(), Failure> {
        while let Some(last) = self.pending.iter().map(|(_, _, until)| *until).max() {
            self.run_until(last.min(self.world.now().plus(POLL)))?;
        }
        Ok(())
    }

    /// Lets time pass; what is pending is asked for on the way.
    ///
    /// # Errors
    /// An invariant is broken, or what was expected has not come true in its time.
    pub fn run_until(&mut self, time: Nanos) -> Result<(), Failure> {
        while self.world.now() < time {
            let next = if self.pending.is_empty() {
                time
            } else {
                time.min(self.world.now().plus(POLL))
            };
            self.world.run_until(next);
            if let Some(seen) = self.world.violated() {
                let at = self.world.now();
                return Err(Failure {
                    expectation: "invariant".to_owned(),
                    at,
                    seen,
                });
            }
            for (expectation, since, until) in std::mem::take(&mut self.pending) {
                self.ask(expectation, since, until)?;
            }
        }
        Ok(())
    }

    fn expect(&mut self, expectation: Expectation) -> Result<Taken, Failure> {
        let within = expectation.within();
        let now = self.world.now();
        let since = if within == Nanos::ZERO { self.began } else { now };
        self.ask(expectation, since, now.plus(within))
    }

    fn ask(&mut self, expectation: Expectation, since: Nanos, until: Nanos) -> Result<Taken, Failure> {
        let at = self.world.now();
        let failure = |seen| Failure {
            expectation: expectation.to_string(),
            at,
            seen,
        };
        match self.world.judge(&expectation, since) {
            Verdict::Holds if expectation.within() != Nanos::ZERO => {
                self.took.push((expectation, at.minus(since)))
            }
            Verdict::Holds => {}
            Verdict::NotYet(_) if at < until => self.pending.push((expectation, since, until)),
            Verdict::NotYet(seen) | Verdict::Broken(seen) => return Err(failure(seen)),
            Verdict::Unable(why) => {
                self.lacks.push(format!("expect {expectation}: {why}"));
                return Ok(Taken::Unable(why));
            }
        }
        Ok(Taken::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fault, Load, Operator, Trap};

    /// Is healthy from `healthy` on, and keeps a list of what it was told.
    #[derive(Default)]
    struct Fake {
        now: Nanos,
        healthy: Nanos,
        violated: Option<Nanos>,
        told: Vec<String>,
    }

    impl Fake {
        fn note(&mut self, what: &dyn std::fmt::Display) -> Taken {
            self.told.push(format!("{} {what}", self.now));
            Taken::Done
        }
    }

    impl World for Fake {
        fn now(&self) -> Nanos {
            self.now
        }
        fn run_until(&mut self, time: Nanos) {
            assert!(self.now < time);
            self.now = time;
        }
        fn strike(&mut self, fault: &Fault) -> Taken {
            self.note(fault)
        }
        fn operate(&mut self, act: &Operator) -> Taken {
            self.note(act)
        }
        fn load(&mut self, load: &Load) -> Taken {
            Taken::Unable(format!("no load, {load}"))
        }
        fn trap(&mut self, trap: &Trap) -> Taken {
            self.note(trap)
        }
        fn heal(&mut self) {
            self.note(&"heal");
        }
        fn judge(&mut self, expectation: &Expectation, since: Nanos) -> Verdict {
            match expectation {
                Expectation::Healthy { .. } if self.healthy <= self.now => Verdict::Holds,
                Expectation::Healthy { .. } => Verdict::NotYet("ill".to_owned()),
                Expectation::Lost { .. } => Verdict::Broken(format!("lost since {since}")),
                _ => Verdict::Unable("blind".to_owned()),
            }
        }
        fn violated(&self) -> Option<String> {
            self.violated
                .filter(|time| *time <= self.now)
                .map(|_| "S1".to_owned())
        }
        fn has(&self, feature: &str) -> bool {
            feature == "writers"
        }
    }

    fn told(world: &mut Fake, text: &str) -> Played {
        play(world, &format!("cluster n1\n{text}").parse().expect("a story"))
    }

    #[test]
    fn steps_happen_at_their_times_and_expectations_may_come_true() {
        let mut world = Fake {
            healthy: Nanos::ms(10_120),
            ..Fake::default()
        };
        let text = "at 9s restart n1\nat 5s kill-agent n1\nat 6s heal\nend 10s\nexpect healthy within=1s\n";
        let played = told(&mut world, text);
        assert_eq!(played.outcome, Outcome::Holds);
        assert_eq!(
            world.told,
            ["5s kill-agent n1", "6s heal", "9s restart n1", "10s heal"]
        );
        assert_eq!(played.took.first().map(|(_, took)| *took), Some(Nanos::ms(150)));
    }

    #[test]
    fn a_failure_names_the_expectation_and_the_time() {
        let fails = |world: &mut Fake, text| match told(world, text).outcome {
            Outcome::Fails(failure) => failure.to_string(),
            other => panic!("{other:?}"),
        };
        let ill = || Fake {
            healthy: Nanos::FOREVER,
            ..Fake::default()
        };
        let late = fails(&mut ill(), "at 5s expect healthy within=2s\nend 10s\n");
        assert_eq!(late, "at 7s: expected healthy within=2s; seen: ill");
        let after = fails(&mut ill(), "at 5s heal\nend 10s\nexpect healthy within=2s\n");
        assert_eq!(after, "at 12s: expected healthy within=2s; seen: ill");
        let lost = fails(&mut Fake::default(), "at 5s heal\nend 10s\nexpect lost=0\n");
        assert_eq!(lost, "at 10s: expected lost=0; seen: lost since 5s");
        let mut split = Fake {
            violated: Some(Nanos::secs(3)),
            ..Fake::default()
        };
        assert_eq!(
            fails(&mut split, "at 5s heal\nend 10s\n"),
            "at 5s: expected invariant; seen: S1"
        );
    }

    #[test]
    fn what_a_world_lacks_makes_a_story_wait() {
        let waits = |text| match told(&mut Fake::default(), text).outcome {
            Outcome::Waits(lacks) => lacks.join("; "),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            waits("requires writers synchronous_mode\nend 1s\n"),
            "requires synchronous_mode"
        );
        assert_eq!(
            waits("at 1s burst bytes=7\nend 2s\n"),
            "`burst bytes=7`: no load, burst bytes=7"
        );
        assert_eq!(waits("end 1s\nexpect no-failover\n"), "expect no-failover: blind");
    }
}
