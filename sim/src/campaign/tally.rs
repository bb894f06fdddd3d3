//! What many runs add up to.

use std::collections::BTreeMap;
use std::time::Duration;

use surus_scenarios::{Outcome as Ending, Played};

use crate::check::Invariant;
use crate::clock::Time;
use crate::coverage::Coverage;

use super::Run;

/// Sums over runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Runs.
    pub runs: u64,
    /// World time.
    pub simulated: Time,
    /// Events handled.
    pub events: u64,
    /// Processor time that the process spent on all of it; whoever adds runs sets it.
    pub cpu: Duration,
    /// Writes acknowledged.
    pub acks: u64,
    /// Promotions.
    pub promotions: u64,
    /// The longest time from the last fault until all was well.
    pub slowest: Time,
    /// Runs whose story asked for something that the world cannot do, and that were not played to the end.
    pub waited: u64,
    /// Violations.
    pub violations: BTreeMap<Invariant, u64>,
    /// What has fired.
    pub coverage: Coverage,
}

impl Tally {
    /// Adds a run.
    pub fn add(&mut self, run: &Run) {
        let outcome = &run.outcome;
        self.runs += 1;
        self.simulated += outcome.simulated;
        self.events += outcome.events;
        self.acks += outcome.acks;
        self.promotions += outcome.promotions;
        self.slowest = self.slowest.max(outcome.recovered);
        let waits = |played: &Played| matches!(played.outcome, Ending::Waits(_));
        self.waited += u64::from(outcome.played.as_ref().is_some_and(waits));
        if let Some(violation) = &outcome.violation {
            *self.violations.entry(violation.invariant).or_default() += 1;
        }
        self.coverage.add(&outcome.coverage);
    }

    /// Runs with a violation.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.violations.values().sum()
    }

    /// How many times faster than real time one processor runs the world; zero before anything ran.
    #[must_use]
    pub fn speed(&self) -> f64 {
        let cpu = self.cpu.as_secs_f64();
        if cpu == 0.0 {
            0.0
        } else {
            self.simulated as f64 / 1e9 / cpu
        }
    }

    /// Events that one processor handles in a second.
    #[must_use]
    pub fn events_per_second(&self) -> f64 {
        let cpu = self.cpu.as_secs_f64();
        if cpu == 0.0 { 0.0 } else { self.events as f64 / cpu }
    }
}
