//! The same seed gives the same bytes: in one process, in two, and from the story that was printed.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use surus_sim::record::Keep;
use surus_sim::run::Job;

fn tool(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_surus-sim"))
        .args(args)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn two_processes_print_the_same_bytes() {
    for seed in ["1", "2", "8", "9"] {
        let one = tool(&["replay", seed]);
        assert!(1000 < one.lines().count(), "seed {seed} has hardly any events");
        assert!(
            one == tool(&["replay", seed]),
            "seed {seed} differs between two processes"
        );
    }
    let verdict = tool(&["determinism", "--seeds", "20..40"]);
    assert!(
        verdict.contains("every byte of the traces is the same"),
        "{verdict}"
    );
}

#[test]
fn one_process_gives_the_same_entries_twice() {
    for seed in 0..12 {
        let [one, two] = [0, 1].map(|_| Job::seed(seed).run(Keep::Facts));
        assert_eq!(one.hash, two.hash, "seed {seed}");
        assert_eq!(one.entries, two.entries, "seed {seed}");
        let quiet = Job::seed(seed).run(Keep::Hash);
        assert_eq!(
            one.hash, quiet.hash,
            "seed {seed}: what is kept changes what happens"
        );
        let wordy = Job::seed(seed).run(Keep::Messages);
        assert_eq!(one.hash, wordy.hash, "seed {seed}: messages change what happens");
    }
}

#[test]
fn the_story_of_a_seed_gives_the_bytes_of_the_seed() {
    for seed in 0..12 {
        let job = Job::seed(seed);
        let told = Job {
            story: Some(job.text().parse().unwrap()),
            ..Job::seed(seed)
        };
        assert_eq!(job.run(Keep::Hash).hash, told.run(Keep::Hash).hash, "seed {seed}");
    }
}

#[cfg(feature = "turmoil")]
#[test]
fn the_turmoil_world_gives_the_same_bytes_in_two_processes() {
    for (network, seeds) in [("jump", "0..3"), ("tick", "0..1")] {
        let of = ["--world", "turmoil", "--network", network, "--seeds", seeds];
        let verdict = tool(&[&["determinism"][..], &of].concat());
        assert!(
            verdict.contains("every byte of the traces is the same"),
            "on {network}: {verdict}"
        );
    }
}
