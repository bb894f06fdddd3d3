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

/// A small generator (splitmix64): one number from proptest becomes a whole fact.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }

    fn name(&mut self) -> NodeName {
        ["a", "b", "c"][self.roll(3) as usize].into()
    }

    fn lsn(&mut self) -> Lsn {
        Lsn(self.roll(6) * 100)
    }

    fn timeline(&mut self) -> Timeline {
        Timeline(1 + self.roll(3) as u32)
    }

    fn maybe<T>(&mut self, n: u64, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (!self.one_in(n)).then(|| make(self))
    }

    fn history(&mut self) -> Vec<HistoryLine> {
        (0..self.roll(3) as u32)
            .map(|n| HistoryLine {
                timeline: Timeline(n + 1),
                switch: self.lsn(),
                reason: String::new(),
                at: None,
                leader: None,
            })
            .collect()
    }

    fn member(&mut self, name: &NodeName) -> Member {
        Member {
            conn_url: if self.one_in(9) {
                String::new()
            } else {
                format!("postgres://{name}:5432/postgres")
            },
            api_url: if self.one_in(9) {
                String::new()
            } else {
                format!("http://{name}:8008/patroni")
            },
            state: ["running", "stopped", "crashed", "starting"][self.roll(4) as usize].to_owned(),
            role: ["primary", "replica", "uninitialized"][self.roll(3) as usize].to_owned(),
            position: self.maybe(4, Self::lsn),
            timeline: self.maybe(4, Self::timeline),
            checkpoint_after_promote: if self.one_in(4) { Some(false) } else { None },
            nofailover: self.one_in(6),
            failover_priority: 1,
            clonefrom: self.one_in(6),
            replicatefrom: None,
            nostream: self.one_in(9),
            surus: true,
            pause: false,
        }
    }

    fn view(&mut self) -> ClusterView {
        let members: BTreeSet<NodeName> = (0..self.roll(4)).map(|_| self.name()).collect();
        let members = members
            .into_iter()
            .map(|name| {
                let member = self.member(&name);
                (name, member)
            })
            .collect();
        ClusterView {
            revision: Revision(self.roll(60) as i64),
            term: Term(self.roll(3)),
            initialize: match self.roll(8) {
                0 => None,
                1 => Some(Initialize::InProgress),
                2 => Some(Initialize::Garbage),
                3 => Some(Initialize::Done(SystemId(2))),
                _ => Some(Initialize::Done(SystemId(1))),
            },
            config_revision: self.maybe(5, |dice| Revision(dice.roll(5) as i64)),
            leader: self.maybe(2, |dice| LeaderKey {
                name: dice.name(),
                lease: dice.maybe(5, |dice| LeaseId(dice.roll(4) as i64)),
                created: Revision(dice.roll(9) as i64),
            }),
            members,
            status: self.maybe(5, |dice| Status {
                optime: dice.lsn(),
                slots: BTreeMap::new(),
                retain_slots: BTreeSet::new(),
                ttl: dice.maybe(2, |dice| Duration::from_secs(1 + dice.roll(9))),
                timeline: dice.maybe(2, Self::timeline),
                next: dice.maybe(2, Self::timeline),
                vacated: dice.maybe(2, Self::name),
                unfenced: if dice.one_in(5) { Some(dice.name()) } else { None },
            }),
            status_revision: Revision(self.roll(9) as i64),
            failover: self.maybe(2, |dice| FailoverKey {
                leader: dice.maybe(2, Self::name),
                candidate: dice.maybe(2, Self::name),
                due: match dice.roll(5) {
                    0 => Due::In(Duration::from_secs(3)),
                    1 => Due::Stale,
                    _ => Due::Now,
                },
                revision: Revision(dice.roll(5) as i64),
            }),
            history: self.history(),
            failsafe: self.maybe(2, |dice| {
                let names: BTreeSet<NodeName> = (0..dice.roll(4)).map(|_| dice.name()).collect();
                names
                    .into_iter()
                    .map(|name| (name, "http://x".to_owned()))
                    .collect()
            }),
            failsafe_revision: Revision(self.roll(5) as i64),
        }
    }

    fn server(&mut self) -> Server {
        Server {
            role: if self.one_in(2) {
                ServerRole::Primary { written: self.lsn() }
            } else {
                ServerRole::Replica {
                    received: self.maybe(3, Self::lsn),
                    replayed: self.lsn(),
                    streaming: self.one_in(2),
                }
            },
            timeline: self.timeline(),
            system_id: SystemId(1),
            version: 150_018,
            guarded: !self.one_in(4),
            streaming_to: (0..self.roll(3)).map(|_| self.name().0).collect(),
            slots: BTreeMap::new(),
            history: self.history(),
            upstream: self.maybe(2, |dice| format!("{}:5432", dice.name())),
        }
    }

    fn postgres(&mut self) -> PostgresView {
        let states = [
            ControlState::ShutDown,
            ControlState::ShutDownInRecovery,
            ControlState::InProduction,
            ControlState::InArchiveRecovery,
            ControlState::InCrashRecovery,
            ControlState::ShuttingDown,
        ];
        PostgresView {
            data: match self.roll(9) {
                0 => DataDir::Empty,
                1 => DataDir::Incomplete("half a base backup".to_owned()),
                2 => DataDir::Unusable("no permission".to_owned()),
                _ => DataDir::Present(ControlData {
                    system_id: SystemId(if self.one_in(20) { 2 } else { 1 }),
                    state: states[self.roll(6) as usize],
                    timeline: self.timeline(),
                    position: self.lsn(),
                    rewindable: self.one_in(2),
                }),
            },
            process: match self.roll(6) {
                0 | 1 => Process::Absent,
                2 => Process::Starting {
                    as_primary: self.one_in(2),
                },
                3 => Process::Unresponsive {
                    may_write: self.one_in(2),
                },
                _ => Process::Running(self.server()),
            },
        }
    }

    fn peer(&mut self) -> PeerStatus {
        PeerStatus {
            running: !self.one_in(4),
            primary: self.one_in(4),
            position: self.maybe(4, Self::lsn),
            timeline: self.maybe(4, Self::timeline),
            nofailover: self.one_in(6),
            failover_priority: 1,
            can_take_lock: self.maybe(3, |dice| dice.one_in(2)),
        }
    }

    fn config(&mut self) -> Config {
        Config {
            ttl: Duration::from_secs([2, 5, 30][self.roll(3) as usize]),
            pause: self.one_in(3),
            nofailover: self.one_in(8),
            use_pg_rewind: self.one_in(2),
            reclone_on_divergence: self.one_in(2),
            reclone_on_rewind_failure: self.one_in(2),
            primary_start_timeout: Duration::from_secs([0, 10, 300][self.roll(3) as usize]),
            failsafe_mode: !self.one_in(3),
            ..Config::new("a".into())
        }
    }

    /// An answer of the right kind for `order`, or none, or one of the wrong kind.
    fn outcome(&mut self, now: MonoTime, order: &Order) -> Outcome {
        let sent = now.minus(Duration::from_millis(self.roll(3000)));
        match self.roll(12) {
            0 => return Outcome::Failed("no".to_owned()),
            1 => return Outcome::Unknown("perhaps".to_owned()),
            2 => return Outcome::Refused("too old".to_owned()),
            3 => return Outcome::Ok,
            4 => {
                return Outcome::NotLocked {
                    holder: self.maybe(2, Self::name),
                };
            }
            _ => {}
        }
        match order {
            Order::Acquire { .. } | Order::Renew { .. } => Outcome::Locked {
                sent,
                lease: LeaseId(self.roll(4) as i64),
                term: Term(1),
                revision: Revision(self.roll(70) as i64),
            },
            Order::ReadCluster => Outcome::Read {
                sent,
                view: self.view(),
            },
            Order::Probe => Outcome::Probed {
                at: now.minus(Duration::from_millis(self.roll(50))),
                view: self.postgres(),
            },
            Order::Stop { .. } => Outcome::Stopped {
                checkpoint: self.maybe(2, Self::lsn),
            },
            Order::Bootstrap { .. } => Outcome::Bootstrapped {
                system_id: SystemId(1 + self.roll(2)),
            },
            Order::CompareHistory { .. } => Outcome::Ancestry {
                timeline: self.timeline(),
                history: self.history(),
            },
            Order::AskFailsafe(asked) => Outcome::Failsafe {
                sent,
                granted: asked.keys().filter(|_| !self.one_in(4)).cloned().collect(),
                refused: BTreeSet::new(),
            },
            _ => Outcome::Ok,
        }
    }
}

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
            }
            | Order::Bootstrap {
                guard_until,
                valid_until,
            } => (*guard_until, *valid_until),
            Order::Restart {
                guard_until: Some(guard_until),
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
            Order::Promote { .. } => chosen,
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
