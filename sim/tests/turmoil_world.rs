//! The turmoil world, on both networks: a calm cluster comes up, a rough day and a dozen stories end well, and the same job gives the
//! same bytes.
#![cfg(feature = "turmoil")]

use std::process::Command;

use surus_scenarios::library;
use surus_sim::record::Keep;
use surus_sim::run::{Job, Kind, Outcome};
use surus_sim::story;

const NETWORKS: [Kind; 2] = [Kind::Turmoil, Kind::TurmoilTick];

fn told(world: Kind, text: &str) -> Outcome {
    let story = text.parse().expect("a story");
    let job = Job {
        world,
        seed: 1,
        story: Some(story),
        ..Job::default()
    };
    let outcome = job.run(Keep::Facts);
    let told: Vec<String> = outcome.lines().collect();
    assert_eq!(outcome.violation, None, "in {world}: {}", told.join("\n"));
    outcome
}

#[test]
fn a_calm_cluster_comes_up() {
    for world in NETWORKS {
        let outcome = told(world, "cluster n1 n2 n3\nend 30s\nexpect healthy within=60s\n");
        assert!(outcome.acks > 50, "{} writes in {world}", outcome.acks);
    }
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
    for world in NETWORKS {
        let outcome = told(world, ROUGH);
        assert!(
            outcome.promotions >= 2,
            "{} promotions in {world}",
            outcome.promotions
        );
    }
}

#[test]
fn what_the_end_of_the_faults_lets_go_is_told_before_it_acts() {
    for world in NETWORKS {
        let outcome = told(
            world,
            "cluster n1 n2 n3\nat 20s pause-host n1 for=60s\nat 20s freeze-agent n2 for=60s\nend 22s\nexpect healthy within=60s\n",
        );
        let lines: Vec<String> = outcome.lines().collect();
        let at = |text: &str| lines.iter().position(|line| line.contains(text));
        let (host, agent) = (at("n1    host goes on"), at("n2    agent goes on"));
        assert!(host.is_some() && agent.is_some(), "{}", lines.join("\n"));
        assert!(host < at("n1    PostgreSQL goes on"), "in {world}");
    }
}

/// Short ones, of each kind of trouble: cuts both ways and one way, lost packets, etcd, power, freezes, people.
const STORIES: [&str; 12] = [
    "B-003", "B-004", "B-016b", "B-032b", "B-061", "B-086", "B-097", "F-01", "F-12", "G-01", "G-07", "R3b",
];

fn stories_hold(world: Kind) {
    let stories = library::stories(&library::directory()).expect("the stories of the tree");
    for name in STORIES {
        let told = stories.iter().find(|told| told.story.name == name);
        let story = &told.unwrap_or_else(|| panic!("no story {name}")).story;
        let tale = story::tell(world, story, 0..1, None);
        assert!(tale.waits.is_empty(), "{name} waits in {world}: {:?}", tale.waits);
        assert!(
            tale.failures.is_empty(),
            "{name} fails in {world}: {:?}",
            tale.failures
        );
    }
}

#[test]
fn stories_hold_where_time_jumps() {
    stories_hold(Kind::Turmoil);
}

#[test]
fn stories_hold_where_time_ticks() {
    stories_hold(Kind::TurmoilTick);
}

#[test]
fn fixed_seeds_end_well() {
    // Where time ticks a seed takes ten times as long.
    for (world, seeds) in [(Kind::Turmoil, 0..4), (Kind::TurmoilTick, 0..1)] {
        let mut promotions = 0;
        for seed in seeds {
            let job = Job {
                world,
                seed,
                ..Job::default()
            };
            let outcome = job.run(Keep::Hash);
            assert_eq!(outcome.violation, None, "{}", job.replay());
            promotions += outcome.promotions;
        }
        assert!(promotions > 1, "{promotions} promotions in {world}");
    }
}

/// What the record says of it.
fn says(outcome: &Outcome, what: &str) -> bool {
    outcome.lines().any(|line| line.contains(what))
}

#[test]
fn who_is_alone_on_the_failsafe_list_goes_on_without_etcd() {
    let outcome = told(
        Kind::Turmoil,
        "cluster n1\nclient c1 every=250ms\nat 12s cut n1 etcd for=20s\nend 40s\nexpect healthy within=60s\nexpect no-failover\n",
    );
    assert!(outcome.acks > 100, "{} writes", outcome.acks);
}

#[test]
fn who_cannot_renew_for_want_of_space_goes_on_by_grants() {
    let outcome = told(
        Kind::Turmoil,
        "cluster n1 n2 n3\nclient c1 every=250ms\nat 12s etcd-error leader no-space rpc=txn count=20 for=20s\nend 40s\nexpect healthy within=60s\nexpect no-failover\n",
    );
    assert!(outcome.acks > 100, "{} writes", outcome.acks);
}

#[test]
fn a_pause_ends_with_the_faults() {
    told(
        Kind::Turmoil,
        "cluster n1 n2\nat 12s pause for=200s\nat 15s kill-agent leader back=1s\nat 16s kill-postgres leader\nend 20s\nexpect healthy within=60s\n",
    );
}

#[test]
fn a_trap_springs_within_the_order_it_waits_for() {
    let outcome = told(
        Kind::Turmoil,
        "cluster n1 n2 n3\nat 12s when promote do kill-agent here back=2s\nat 15s power-loss leader back=20s\nend 50s\nexpect healthy within=100s\n",
    );
    assert!(says(&outcome, "step 3: kill-agent here"));
    assert!(says(&outcome, "agent killed"));
}

#[test]
fn clients_come_to_the_primary_through_a_router() {
    let outcome = told(
        Kind::Turmoil,
        "cluster n1 n2 n3\nrouter r1 poll=1s fall=2 rise=1\nclient c1 via=r1 every=250ms\nat 15s power-loss leader back=20s\nend 50s\n\
         expect healthy within=100s\n",
    );
    assert!(outcome.acks > 60, "{} writes", outcome.acks);
}

#[test]
fn members_go_by_the_file_that_the_story_has() {
    let outcome = told(
        Kind::Turmoil,
        "cluster n1 n2\nrouter lb\n| scope: main\n| namespace: /db/\n| name: $name\n| etcd:\n|   host: $balancer\n| restapi:\n\
         |   listen: 0.0.0.0:8008\n|   connect_address: $address:8008\n| postgresql:\n|   listen: 0.0.0.0:5432\n\
         |   connect_address: $address:5432\n|   data_dir: $data\n|   bin_dir: $bin\n|   authentication:\n\
         |     superuser: {username: postgres, password: $password}\n|     replication: {username: r, password: $password}\n\
         | bootstrap:\n|   dcs:\n|     ttl: 17\nat 15s switchover\nend 40s\nexpect healthy within=60s\n",
    );
    assert!(says(&outcome, "configured: ttl 17"));
    assert_eq!(outcome.promotions, 1);
}

#[test]
fn the_cores_decisions_are_in_the_record() {
    let outcome = told(
        Kind::Turmoil,
        "cluster n1 n2 n3\nend 20s\nexpect healthy within=60s\n",
    );
    assert!(!outcome.coverage.rules.is_empty() && !outcome.coverage.orders.is_empty());
}

#[test]
fn two_processes_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rough.story");
    std::fs::write(&file, format!("# A rough day\n{ROUGH}")).unwrap();
    let run = |network: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_surus-sim"))
            .args([
                "replay",
                "--world",
                "turmoil",
                "--network",
                network,
                "--seed",
                "1",
            ])
            .arg(&file)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let [jump, tick] = ["jump", "tick"].map(|network| {
        let one = run(network);
        assert!(one.lines().count() > 100, "{one}");
        assert!(one == run(network), "two processes differ on {network}");
        one
    });
    assert!(jump != tick, "both networks are one");
}
