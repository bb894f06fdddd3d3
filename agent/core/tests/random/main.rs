//! Random inputs against the state machine: nothing that can be said to it makes it panic, act without a right,
//! touch a paused PostgreSQL, or spin.
//!
//! Inputs are well-typed and otherwise unrestrained: views of any revision, answers to questions that were never
//! asked, clocks that jump back. What the core does with them need not be clever, only safe.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use surus_core::action::StopMode;
use surus_core::config::Config;
use surus_core::input::{Input, OperatorOrder, Outcome, RequestId};
use surus_core::node::{Boot, Node};
use surus_core::types::*;
use surus_core::view::*;
use surus_core::{Action, Lane, Order, Rule, Step};

mod dice;

use dice::Dice;

/// A node, what it has under way, and the checks after each of its steps.
struct Harness {
    node: Node,
    now: MonoTime,
    config: Config,
    outstanding: BTreeMap<Lane, Action>,
    given: BTreeMap<(u64, Lane), u32>,
    reinit_asked: bool,
    restart_asked: bool,
}

impl Harness {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let now = MonoTime::from_millis(1_000_000);
        let config = dice.config();
        let boot = Boot {
            guard_deadline: dice.maybe(2, |dice| MonoTime::from_millis(998_000 + dice.roll(6000))),
            generation: Generation(dice.roll(3)),
        };
        let (node, step) = Node::new(config.clone(), boot, now);
        let mut harness = Self {
            node,
            now,
            config,
            outstanding: BTreeMap::new(),
            given: BTreeMap::new(),
            reinit_asked: false,
            restart_asked: false,
        };
        harness.check(step);
        harness
    }

    fn step(&mut self, input: Input) {
        if let Input::Config(config) = &input {
            self.config = config.clone();
        }
        match &input {
            Input::Operator {
                order: OperatorOrder::Restart,
                ..
            } => self.restart_asked = true,
            Input::Operator { .. } => self.reinit_asked = true,
            _ => {}
        }
        let step = self.node.step(self.now, input);
        self.check(step);
    }

    fn done(&mut self, lane: Lane, outcome: Outcome) {
        let Some(action) = self.outstanding.remove(&lane) else {
            return;
        };
        self.step(Input::Done {
            id: action.id,
            outcome,
        });
    }

    fn check(&mut self, step: Step) {
        assert!(
            self.now < step.wake.at,
            "wake {:?} is not after {:?}",
            step.wake,
            self.now
        );
        let mut lanes = BTreeSet::new();
        for action in step.actions {
            let lane = action.order.lane();
            *self.given.entry((self.now.0 / 1_000_000_000, lane)).or_default() += 1;
            if lane == Lane::Reply {
                continue;
            }
            let stop = matches!(action.order, Order::Stop { .. });
            assert!(
                stop || !self.outstanding.contains_key(&lane),
                "{:?} given while {:?} is under way",
                action.order,
                self.outstanding.get(&lane)
            );
            assert!(lanes.insert(lane), "two orders of one lane in one step");
            self.check_right(&action.order);
            self.check_lifted(&action.order);
            if self.config.pause && lane == Lane::Postgres {
                self.check_pause(step.decision.rule, &action.order);
            }
            self.outstanding.insert(lane, action);
        }
    }

    fn check_right(&self, order: &Order) {
        let (guard_until, valid_until) = match order {
            Order::Promote {
                guard_until,
                valid_until,
                ..
            }
            | Order::StartPrimary {
                guard_until,
                valid_until,
                ..
            }
            | Order::Bootstrap {
                guard_until,
                valid_until,
            } => (*guard_until, *valid_until),
            Order::Restart {
                guard_until: Some(guard_until),
                ..
            } if !self.config.pause => (*guard_until, *guard_until),
            _ => return,
        };
        let lease = &self.node.explain().state.lease;
        assert!(lease.held || lease.by_failsafe, "{order:?} without the lock");
        assert!(lease.valid(self.now), "{order:?} without a right");
        assert!(
            self.now < valid_until,
            "{order:?} is valid no more at {:?}",
            self.now
        );
        assert!(self.now < guard_until, "{order:?} would be killed at once");
        assert!(valid_until <= lease.until, "{order:?} outlives the right");
        let exempt = self.config.pause && self.node.explain().state.unfenced;
        assert!(
            exempt || guard_until < lease.until,
            "the guard of {order:?} outlives the right"
        );
    }

    /// A deadline over a primary is lifted only when `status` is known to say so.
    fn check_lifted(&self, order: &Order) {
        let explanation = self.node.explain();
        let exempt = self.config.pause && explanation.state.unfenced;
        if *order == Order::SetDeadline(None) && !exempt {
            assert!(
                !explanation.facts.may_write(),
                "the deadline of a primary is lifted and nobody can know"
            );
        }
    }

    fn check_pause(&self, rule: Rule, order: &Order) {
        let explanation = self.node.explain();
        let failover = explanation.facts.view().and_then(|view| view.failover.as_ref());
        let named = failover.is_some_and(|key| key.candidate.is_some());
        let chosen = failover.is_some_and(|key| key.candidate.as_ref() == Some(&self.config.name));
        let empty = matches!(
            explanation.facts.data(),
            Some(DataDir::Empty | DataDir::Incomplete(_))
        );
        let allowed = match order {
            Order::Restart { .. } => self.restart_asked,
            Order::Stop { .. } => {
                rule == Rule::ObeyOperator && self.reinit_asked || rule == Rule::HandOver && named
            }
            Order::BaseBackup { .. } => empty || self.reinit_asked,
            Order::Promote { .. } | Order::Follow { upstream: None } => chosen,
            Order::AdoptPostmaster { .. } => true,
            _ => false,
        };
        assert!(allowed, "{order:?} by {rule:?} in a pause");
    }

    fn random_input(&mut self, kind: u8, seed: u64) {
        let mut dice = Dice(seed);
        match kind {
            0..=4 => {
                let lanes: Vec<Lane> = self.outstanding.keys().copied().collect();
                if let Some(lane) = lanes.get(dice.roll(lanes.len().max(1) as u64) as usize) {
                    let order = self.outstanding[lane].order.clone();
                    let outcome = dice.outcome(self.now, &order);
                    self.done(*lane, outcome);
                }
            }
            5 | 6 => {
                self.now = self.now.plus(Duration::from_millis(dice.roll(400)));
                self.step(Input::Tick);
            }
            7 => {
                self.now = self.now.plus(Duration::from_millis(dice.roll(9000)));
                self.step(Input::Tick);
            }
            8 | 9 => self.step(Input::Cluster(dice.view())),
            10 => {
                // A clock that goes back: the last time counts.
                let back = self.now.minus(Duration::from_millis(dice.roll(5000)));
                let step = self.node.step(back, Input::Tick);
                self.check(step);
            }
            11 => self.step(Input::PostgresExited),
            12 => self.step(if dice.one_in(3) {
                Input::GuardLost
            } else {
                Input::Config(dice.config())
            }),
            13 => self.step(Input::FailsafeAsked {
                request: RequestId(seed),
                leader: dice.name(),
                ttl: dice.one_in(2).then(|| Duration::from_secs(3 + dice.roll(9))),
            }),
            14 => self.step(Input::Operator {
                request: RequestId(seed),
                order: if dice.one_in(2) {
                    OperatorOrder::Restart
                } else {
                    OperatorOrder::Reinitialize {
                        force: dice.one_in(2),
                        from_leader: dice.one_in(2),
                    }
                },
            }),
            15 => {
                if dice.one_in(8) {
                    self.step(Input::Shutdown);
                }
            }
            16 | 17 => {
                let name = dice.name();
                let status = dice.maybe(3, Dice::peer);
                self.step(Input::Peer {
                    name,
                    asked: self.now.minus(Duration::from_millis(dice.roll(500))),
                    status,
                });
            }
            _ => {
                // An answer to something never asked, or long given up.
                let outcome = dice.outcome(
                    self.now,
                    &Order::Stop {
                        mode: StopMode::Immediate,
                        checkpoint_first: false,
                    },
                );
                self.step(Input::Done {
                    id: ActionId(1_000_000 + dice.roll(200)),
                    outcome,
                });
            }
        }
    }

    /// Lets every order end at once, as `answer` says, for three simulated seconds.
    fn storm(&mut self, seed: u64) {
        let mut dice = Dice(seed);
        let kind = dice.roll(4);
        let mut postgres = dice.postgres();
        self.now = MonoTime((self.now.0 / 1_000_000_000 + 1) * 1_000_000_000);
        let end = self.now.plus(Duration::from_secs(3));
        self.given.clear();
        while self.now < end {
            self.step(Input::Tick);
            for _ in 0..400 {
                let Some((lane, action)) = self.outstanding.pop_first() else {
                    break;
                };
                let outcome = match (lane, kind) {
                    (Lane::Probe, 0..=2) => {
                        if dice.one_in(50) {
                            postgres = dice.postgres();
                        }
                        Outcome::Probed {
                            at: self.now,
                            view: postgres.clone(),
                        }
                    }
                    (_, 0) => Outcome::Failed("no".to_owned()),
                    (_, 1) => Outcome::Refused("no".to_owned()),
                    (_, 2) => Outcome::Unknown("no".to_owned()),
                    _ => dice.outcome(self.now, &action.order),
                };
                self.step(Input::Done {
                    id: action.id,
                    outcome,
                });
            }
            let busiest = self.given.iter().max_by_key(|(_, count)| **count);
            if let Some(((_, lane), count)) = busiest {
                assert!(
                    *count < 150,
                    "{count} orders of {lane:?} in one second, the last decision: {}",
                    self.node.explain().decision.expect("there was a step")
                );
            }
            self.now = self.now.plus(Duration::from_millis(20));
        }
    }
}

fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(default),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn whatever_happens_it_acts_only_under_a_right(
        seed in any::<u64>(),
        inputs in proptest::collection::vec((0u8..19, any::<u64>()), 0..250),
    ) {
        let mut harness = Harness::new(seed);
        for (kind, seed) in inputs {
            harness.random_input(kind, seed);
        }
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn an_order_that_ends_at_once_is_not_repeated_without_end(
        seed in any::<u64>(),
        inputs in proptest::collection::vec((0u8..19, any::<u64>()), 0..60),
        storm in any::<u64>(),
    ) {
        let mut harness = Harness::new(seed);
        for (kind, seed) in inputs {
            harness.random_input(kind, seed);
        }
        harness.storm(storm);
    }
}
