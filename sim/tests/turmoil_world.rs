//! The turmoil world: a calm cluster comes up, and the same job gives the same bytes.
#![cfg(feature = "turmoil")]
#![expect(clippy::unwrap_used, reason = "tests")]

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
    assert!(outcome.violation.is_none());
    assert!(outcome.promotions >= 2, "{} promotions", outcome.promotions);
}

#[test]
#[ignore = "run by `two_processes_give_the_same_bytes`"]
fn prints_what_two_processes_must_agree_on() {
    let outcome = told(ROUGH);
    for line in outcome.lines() {
        println!("{line}");
    }
    println!("{:016x} {} packets", outcome.hash, outcome.events);
}

#[test]
fn two_processes_give_the_same_bytes() {
    let run = || {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "prints_what_two_processes_must_agree_on",
                "--ignored",
                "--nocapture",
            ])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // The last line says how long it took.
        let lines = text.lines().filter(|line| !line.starts_with("test result"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (one, two) = (run(), run());
    assert!(one.len() > 100);
    assert_eq!(one, two);
}
