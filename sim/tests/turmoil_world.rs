//! The turmoil world: a calm cluster comes up, and the same job gives the same bytes.
#![cfg(feature = "turmoil")]
#![expect(clippy::print_stderr, reason = "tests")]

use surus_sim::record::Keep;
use surus_sim::run::{Job, Kind, Outcome};

fn told(text: &str) -> Outcome {
    let story = text.parse().expect("a story");
    let job = Job {
        world: Kind::Turmoil,
        seed: 1,
        story: Some(story),
        ..Job::default()
    };
    let outcome = job.run(Keep::Facts);
    if let Some(violation) = &outcome.violation {
        for line in outcome.lines() {
            eprintln!("{line}");
        }
        eprintln!("{violation}");
    }
    outcome
}

#[test]
fn a_calm_cluster_comes_up() {
    let outcome = told("cluster n1 n2 n3\nend 30s\nexpect healthy within=60s\n");
    assert!(outcome.violation.is_none());
    assert!(outcome.acks > 50, "{} writes", outcome.acks);
}
