//! The turmoil world: a calm cluster comes up, and the same job gives the same bytes.
#![cfg(feature = "turmoil")]

use std::process::Command;

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
    let told: Vec<String> = outcome.lines().collect();
    assert_eq!(outcome.violation, None, "{}", told.join("\n"));
    outcome
}

#[test]
fn a_calm_cluster_comes_up() {
    let outcome = told("cluster n1 n2 n3\nend 30s\nexpect healthy within=60s\n");
    assert!(outcome.acks > 50, "{} writes", outcome.acks);
}

/// The leader is frozen, cut off, killed, loses power; so does etcd's: and all becomes well.
const ROUGH: &str = "\
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_rewind_failure=on remove_data_directory_on_diverged_timelines=on
at 12s freeze-agent leader for=9s
at 30s isolate leader for=12s
at 50s kill-agent leader back=3s
at 60s kill-postgres leader
at 70s kill-etcd leader back=5s
at 80s power-loss leader back=10s
end 100s
expect healthy within=100s
expect no-dual-primary
";

#[test]
fn a_rough_day_ends_well() {
    let outcome = told(ROUGH);
    assert!(outcome.promotions >= 2, "{} promotions", outcome.promotions);
}

#[test]
fn two_processes_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rough.story");
    std::fs::write(&file, format!("# A rough day\n{ROUGH}")).unwrap();
    let run = || {
        let output = Command::new(env!("CARGO_BIN_EXE_surus-sim"))
            .args(["replay", "--world", "turmoil", "--seed", "1"])
            .arg(&file)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let one = run();
    assert!(one.lines().count() > 100, "{one}");
    assert!(one == run(), "two processes differ");
}
