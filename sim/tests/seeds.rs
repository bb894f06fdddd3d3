//! Fixed seeds of the fast world, and the planted bugs that it must find.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use surus_sim::campaign::{self, Tally};
use surus_sim::run::Job;
use surus_sim::zoo::{self, Bug, Clean};

/// Two: what the smallest machine of CI has.
const THREADS: usize = 2;

#[test]
fn nothing_unsafe_happens_and_all_becomes_well() {
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    campaign::sweep(0..500, THREADS, &AtomicBool::new(false), Job::seed, |run| {
        tally.add(&run);
        failures.extend(
            run.outcome
                .violation
                .map(|violation| format!("{}: {violation}", run.job.replay())),
        );
        ControlFlow::Continue(())
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // A world in which nothing happens would pass as well.
    assert!(100 < tally.promotions, "only {} promotions", tally.promotions);
    assert!(100_000 < tally.acks, "only {} writes", tally.acks);
    let unfired = |name: &str| {
        tally
            .coverage
            .tables()
            .iter()
            .find(|table| table.name == name)
            .map_or(0, |table| table.never().count())
    };
    assert!(unfired("rules that fired") <= 12, "{:#?}", tally.coverage.rules);
}

/// Of those that `sim/ZOO.md` says are soon found, with room for what changes the schedules.
const SOON: &[(Bug, u64)] = &[
    (Bug::NoOldRight, 150),
    (Bug::RenewWithoutTransaction, 150),
    (Bug::FailsafeWithoutGrants, 150),
    (Bug::GrantWithoutPromise, 300),
    (Bug::ReleaseBeforeStop, 100),
    (Bug::GuardAsleep, 100),
    (Bug::GuardSlow, 100),
    (Bug::PostgresOutlivesGuard, 100),
    (Bug::DeadlineSaidTooSoon, 100),
    (Bug::PromoteUnguarded, 100),
    (Bug::TimelineNotReserved, 200),
    (Bug::UnknownIsSuccess, 200),
    (Bug::AcquireWithoutStatus, 100),
    (Bug::LookOfBefore, 500),
];

#[test]
fn planted_bugs_are_found() {
    let clean = Clean::default();
    for (bug, seeds) in SOON {
        let jobs = (0..*seeds).map(|seed| Job {
            bug: Some(*bug),
            ..Job::seed(seed)
        });
        assert!(
            zoo::hunt(jobs, &clean).is_some(),
            "{bug} was not found in {seeds} seeds"
        );
    }
}
