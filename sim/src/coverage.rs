//! What has fired in a run, so that a sweep can say what it never reached.
//!
//! Rules and guards of the core, orders and how they ended, faults, and what came of all that ([`OUTCOMES`]). A figure says how often;
//! [`Coverage::tables`] puts beside each group what never was: a check that never had anything to check proves nothing.

use std::collections::BTreeMap;

use surus_core::Rule;
use surus_scenarios::{Fault, Load, Operator};

use crate::record::{Deed, End, Fate, LeaseEnd, OrderEnd, Rebuild, RightBy, Seen};

macro_rules! outcomes {
    ($($name:literal = $pattern:pat $(if $cond:expr)?,)*) => {
        /// What can come of faults and orders, in words.
        pub const OUTCOMES: &[&str] = &[$($name,)*];

        /// Which of [`OUTCOMES`] this is.
        fn outcome(seen: &Seen) -> Option<usize> {
            let mut index = 0;
            $(
                if matches!(seen, $pattern $(if $cond)?) {
                    return Some(index);
                }
                index += 1;
            )*
            let _ = index;
            None
        }
    };
}

outcomes! {
    "lock taken by a replica" = Seen::LockTaken { primary: false, .. },
    "lock taken by a primary" = Seen::LockTaken { primary: true, .. },
    "lock released" = Seen::LockReleased { .. },
    "lock lost: lease expired" = Seen::LockLost { why: LeaseEnd::Expired, .. },
    "lock lost: lease revoked" = Seen::LockLost { why: LeaseEnd::Revoked, .. },
    "lock lost: taken away" = Seen::LockLost { why: LeaseEnd::Deposed, .. },
    "next timeline reserved" = Seen::StatusWritten { next: Some(_), .. },
    "status says vacated" = Seen::StatusWritten { vacated: true, .. },
    "failover key written" = Seen::FailoverWritten { .. },
    "failover key cleared" = Seen::FailoverCleared,
    "member key vanished" = Seen::MemberKey { present: false },
    "etcd elected a leader" = Seen::EtcdLeader { member: Some(_), .. },
    "etcd had no leader" = Seen::EtcdLeader { member: None, .. },
    "etcd compacted" = Seen::Compacted { .. },
    "right by failsafe grants" = Seen::Right { by: RightBy::Grants, .. },
    "failsafe granted" = Seen::Granted { .. },
    "cluster created" = Seen::Bootstrapped { .. },
    "promoted" = Seen::Promoted { .. },
    "started as primary" = Seen::Starting { as_primary: true, .. },
    "ended by a fast stop" = Seen::Ended { how: End::FastStop, .. },
    "ended by an immediate stop" = Seen::Ended { how: End::ImmediateStop, .. },
    "killed by a fault" = Seen::Ended { how: End::Killed, .. },
    "killed by the guard" = Seen::Ended { how: End::ByGuard, .. },
    "killed because the guard died" = Seen::Ended { how: End::GuardDied, .. },
    "ended by power loss" = Seen::Ended { how: End::PowerLoss, .. },
    "walreceiver lost" = Seen::StreamLost { .. },
    "unflushed WAL lost" = Seen::WalLost { .. },
    "rewound" = Seen::Rebuilt { how: Rebuild::Rewind, .. },
    "cloned" = Seen::Rebuilt { how: Rebuild::Clone, .. },
    "data discarded that nobody else had" = Seen::Discarded { alone: Some(_), .. },
    "data directory half of something" = Seen::DataBroken,
    "data directory gone" = Seen::DataGone { .. },
    "guard disarmed" = Seen::Lifted,
    "agent ended by itself" = Seen::AgentEnded { .. },
    "order of unknown end" = Seen::OrderEnded { end: OrderEnd::Unknown, .. },
    "order refused at execution" = Seen::OrderEnded { end: OrderEnd::Refused, .. },
    "write failed" = Seen::WriteEnded { fate: Fate::Failed, .. },
    "write of unknown fate" = Seen::WriteEnded { fate: Fate::Unknown, .. },
    "read answered" = Seen::ReadEnded { fate: Fate::Ok, .. },
    "router sent clients to another node" = Seen::Routed { up: true, .. },
    "cluster paused" = Seen::Configured(settings) if settings.pause,
}

/// The codes of all guards of the core. A test holds them against its source.
pub const GUARDS: &[&str] = &[
    "lock-held",
    "old-right",
    "failsafe-promise",
    "not-in-failsafe",
    "nofailover",
    "lag-too-high",
    "diverged",
    "timeline-behind",
    "peer-unheard",
    "peer-ahead",
    "peer-is-primary",
    "peer-preferred",
    "reserved",
    "just-left",
    "cooldown",
    "succession",
    "may-yet-follow",
    "postgres-not-ready",
    "pause-on",
    "receiving",
    "leader-older",
    "usurped",
    "unfenced",
    "view-stale",
    "etcd-returned",
    "unrenewed",
    "no-right",
    "no-reservation",
    "commits-wait",
    "sync-key-not-written",
    "still-named",
    "not-synchronous",
    "votes-missing",
    "no-candidate",
    "candidate-unfit",
    "candidate-behind",
    "candidate-before-fork",
    "candidate-unlisted",
    "not-due",
    "unannounced",
    "may-not-bootstrap",
    "somebody-bootstraps",
    "leader-not-ready",
    "leader-checkpoint",
    "may-not-rewind",
    "last-attempt",
    "system-id-mismatch",
];

/// Counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// How often each rule came to fire.
    pub rules: BTreeMap<Rule, u64>,
    /// How often each guard came to stop a rule: by the rule and the guard's code.
    pub guards: BTreeMap<(Rule, &'static str), u64>,
    /// Orders begun.
    pub orders: BTreeMap<Deed, u64>,
    /// Orders that did not end well.
    pub ends: BTreeMap<(Deed, OrderEnd), u64>,
    /// Steps begun, by the first word of their text.
    pub steps: BTreeMap<String, u64>,
    /// What came of it, by the place in [`OUTCOMES`].
    pub outcomes: BTreeMap<usize, u64>,
}

impl Coverage {
    /// Counts what happened.
    pub fn see(&mut self, seen: &Seen) {
        match seen {
            Seen::Committed { .. } | Seen::WriteAsked { .. } => return,
            Seen::Decided(decision) => {
                *self.rules.entry(decision.rule).or_default() += 1;
                for (rule, guard) in &decision.blocked {
                    *self.guards.entry((*rule, guard.code())).or_default() += 1;
                }
                return;
            }
            Seen::OrderBegan { order, .. } => {
                *self.orders.entry(*order).or_default() += 1;
                return;
            }
            Seen::OrderEnded { order, end, .. } if *end != OrderEnd::Done => {
                *self.ends.entry((*order, *end)).or_default() += 1;
            }
            Seen::StepBegan { text, .. } => *self.steps.entry(kind(text).to_owned()).or_default() += 1,
            _ => {}
        }
        if let Some(outcome) = outcome(seen) {
            *self.outcomes.entry(outcome).or_default() += 1;
        }
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        fn sum<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            for (key, count) in from {
                match into.get_mut(key) {
                    Some(sum) => *sum += count,
                    None => {
                        into.insert(key.clone(), *count);
                    }
                }
            }
        }
        let Self {
            rules,
            guards,
            orders,
            ends,
            steps,
            outcomes,
        } = self;
        sum(rules, &other.rules);
        sum(guards, &other.guards);
        sum(orders, &other.orders);
        sum(ends, &other.ends);
        sum(steps, &other.steps);
        sum(outcomes, &other.outcomes);
    }

    /// All of it, and what never was.
    #[must_use]
    pub fn tables(&self) -> Vec<Table> {
        let count = |map: &BTreeMap<&str, u64>, name: &str| map.get(name).copied().unwrap_or(0);
        let mut guards = BTreeMap::new();
        for ((_, code), count) in &self.guards {
            *guards.entry(*code).or_default() += count;
        }
        let steps: BTreeMap<&str, u64> = self
            .steps
            .iter()
            .map(|(word, count)| (word.as_str(), *count))
            .collect();
        let mut kinds: Vec<&str> = Fault::verbs()
            .chain(Operator::VERBS)
            .chain(Load::VERBS)
            .map(|verb| verb.word)
            .collect();
        kinds.extend(
            steps
                .keys()
                .filter(|word| !kinds.contains(word))
                .copied()
                .collect::<Vec<_>>(),
        );
        let rows = |rows: Vec<(String, u64)>, name| Table { name, rows };
        vec![
            rows(
                Rule::ALL
                    .iter()
                    .map(|rule| {
                        (
                            format!("{} {}", rule.code(), rule.name()),
                            self.rules.get(rule).copied().unwrap_or(0),
                        )
                    })
                    .collect(),
                "rules that fired",
            ),
            rows(
                GUARDS
                    .iter()
                    .map(|code| ((*code).to_owned(), count(&guards, code)))
                    .collect(),
                "guards that stopped a rule",
            ),
            rows(
                Deed::ALL
                    .iter()
                    .map(|deed| {
                        (
                            deed.name().to_owned(),
                            self.orders.get(deed).copied().unwrap_or(0),
                        )
                    })
                    .collect(),
                "orders",
            ),
            rows(
                kinds
                    .iter()
                    .map(|word| ((*word).to_owned(), count(&steps, word)))
                    .collect(),
                "faults, operators and loads",
            ),
            rows(
                OUTCOMES
                    .iter()
                    .enumerate()
                    .map(|(index, name)| {
                        (
                            (*name).to_owned(),
                            self.outcomes.get(&index).copied().unwrap_or(0),
                        )
                    })
                    .collect(),
                "what came of it",
            ),
        ]
    }
}

/// Counts of one group, those that never were included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What is counted.
    pub name: &'static str,
    /// Each with its count.
    pub rows: Vec<(String, u64)>,
}

impl Table {
    /// What never was.
    pub fn never(&self) -> impl Iterator<Item = &str> {
        self.rows
            .iter()
            .filter(|(_, count)| *count == 0)
            .map(|(name, _)| name.as_str())
    }
}

/// The kind of a step, from its text: its verb, which for a trap is that of what strikes.
fn kind(text: &str) -> &str {
    let strike = if text.starts_with("when ") {
        text.split_once(" do ").map_or(text, |(_, strike)| strike)
    } else {
        text
    };
    strike.split([' ', '(']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guards_are_those_of_the_core() {
        let source = include_str!("../../agent/core/src/decision.rs");
        let (_, code) = source.split_once("pub fn code(&self) -> &'static str").unwrap();
        let (body, _) = code.split_once("\n    }\n").unwrap();
        let codes: Vec<&str> = body.lines().filter_map(|line| line.split('"').nth(1)).collect();
        assert_eq!(codes, GUARDS);
    }

    #[test]
    fn what_never_was_is_listed() {
        let mut coverage = Coverage::default();
        coverage.see(&Seen::StepBegan {
            step: 0,
            text: "when promote on=n2 do kill-agent here".into(),
        });
        coverage.see(&Seen::Lifted);
        coverage.see(&Seen::Lifted);
        let tables = coverage.tables();
        let row = |name: &str| {
            let mut rows = tables.iter().flat_map(|table| &table.rows);
            rows.find(|row| row.0 == name).unwrap().1
        };
        assert_eq!(
            (row("kill-agent"), row("guard disarmed"), row("promoted")),
            (1, 2, 0)
        );
        assert!(tables[4].never().any(|name| name == "promoted"));
        assert!(!tables[4].never().any(|name| name == "guard disarmed"));
    }
}
