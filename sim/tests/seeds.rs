//! Fixed seeds of the fast world, the determinism of it, and the planted bugs that it must find.

use surus_sim::record::Keep;
use surus_sim::run::Job;
use surus_sim::zoo::{self, Bug};

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 0..12 {
        let [one, two] = [0, 1].map(|_| Job::seed(seed).run(Keep::Facts));
        assert_eq!(one.hash, two.hash, "seed {seed}");
        assert_eq!(one.entries, two.entries, "seed {seed}");
    }
}

#[test]
fn nothing_unsafe_happens_and_all_becomes_well() {
    let (mut promotions, mut acks) = (0, 0);
    for seed in 0..500 {
        let report = Job::seed(seed).run(Keep::Hash);
        assert_eq!(report.violation, None, "surus-sim replay {seed}");
        promotions += report.promotions;
        acks += report.acks;
    }
    // A world in which nothing happens would pass as well.
    assert!(100 < promotions, "only {promotions} promotions");
    assert!(100_000 < acks, "only {acks} writes");
}

#[test]
fn planted_bugs_are_found() {
    for (bug, seeds) in [
        (Bug::NoOldRight, 150),
        (Bug::RenewWithoutTransaction, 150),
        (Bug::FailsafeWithoutGrants, 150),
        (Bug::GrantWithoutPromise, 300),
        (Bug::ReleaseBeforeStop, 100),
        (Bug::GuardAsleep, 100),
        (Bug::TimelineNotReserved, 200),
    ] {
        assert!(
            zoo::hunt(bug, 0..seeds).is_some(),
            "{bug} was not found in {seeds} seeds"
        );
    }
}
