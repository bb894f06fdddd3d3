//! What has fired in a run, so that a sweep can say what it never reached.

use std::collections::BTreeMap;

use surus_core::Rule;

use crate::record::{Deed, Seen};

/// Counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// How often each rule came to fire.
    pub rules: BTreeMap<Rule, u64>,
    /// How often each guard came to stop a rule: by the rule and the guard's code.
    pub guards: BTreeMap<(Rule, &'static str), u64>,
    /// Orders begun.
    pub orders: BTreeMap<Deed, u64>,
    /// Steps begun, by the first word of their text.
    pub steps: BTreeMap<String, u64>,
}

impl Coverage {
    /// Counts what happened.
    pub fn see(&mut self, seen: &Seen) {
        match seen {
            Seen::Decided(decision) => {
                *self.rules.entry(decision.rule).or_default() += 1;
                for (rule, guard) in &decision.blocked {
                    *self.guards.entry((*rule, guard.code())).or_default() += 1;
                }
            }
            Seen::OrderBegan { order, .. } => *self.orders.entry(*order).or_default() += 1,
            Seen::StepBegan { text, .. } => {
                let word = text.split_whitespace().next().unwrap_or_default();
                *self.steps.entry(word.to_owned()).or_default() += 1;
            }
            _ => {}
        }
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.rules {
            *self.rules.entry(*key).or_default() += count;
        }
        for (key, count) in &other.guards {
            *self.guards.entry(*key).or_default() += count;
        }
        for (key, count) in &other.orders {
            *self.orders.entry(*key).or_default() += count;
        }
        for (key, count) in &other.steps {
            *self.steps.entry(key.clone()).or_default() += count;
        }
    }
}
