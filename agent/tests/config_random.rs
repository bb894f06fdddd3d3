//! Random input: whatever a file or the cluster's `config` key holds, reading it ends with settings or problems, never a panic.

use proptest::prelude::*;
use serde_json::Value;
use surus::config::{Problem, Surroundings, effective, load};

const SEEDS: &[&str] = &[
    include_str!("seeds/000-delayed.yml"),
    include_str!("seeds/001.yml"),
    include_str!("seeds/002.yml"),
    include_str!("seeds/003.yml"),
    include_str!("seeds/004.yml"),
];

/// Pieces that mean something to YAML or to us.
const PIECES: &[&str] = &[
    ":",
    ": ",
    "- ",
    "\n",
    "  ",
    "\t",
    "'",
    "\"",
    "{",
    "}",
    "[",
    "]",
    "*",
    "&a ",
    "*a",
    "<<: *a",
    "|",
    ">",
    "#",
    "~",
    "null",
    "on",
    "0644",
    "-1",
    "9223372036854775808",
    "-0x-8000000000000000",
    "1e999",
    "::1:5432",
    "*:5432",
    "%",
    "é",
    "\u{0}",
    "---\n",
    "!!str ",
    "1hr",
    "0.0.0.0",
    "99999999999999999999h",
];

fn surroundings(text: String) -> Surroundings {
    Surroundings {
        environment: [("PATRONI_CONFIGURATION".to_owned(), text)].into(),
        current_dir: "/tmp".into(),
    }
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(PIECES).prop_map(Value::from),
        "[a-z0-9:.*/ -]{0,12}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        prop::sample::select(vec![
            "ttl",
            "loop_wait",
            "retry_timeout",
            "maximum_lag_on_failover",
            "primary_start_timeout",
            "member_slots_ttl",
            "slots",
            "ignore_slots",
            "postgresql",
            "parameters",
            "max_connections",
            "wal_keep_size",
            "wal_keep_segments",
            "wal_level",
            "pg_hba",
            "recovery_conf",
            "recovery_min_apply_delay",
            "basebackup",
            "create_replica_methods",
            "synchronous_mode",
            "type",
            "pause",
        ])
        .prop_map(str::to_owned),
        "[a-zA-Z_.-]{0,8}",
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every problem must be of use: a message, a remedy, and a place within the text.
fn check(problems: &[Problem], lines: usize) -> Result<(), TestCaseError> {
    for problem in problems {
        prop_assert!(
            !problem.message.is_empty() && !problem.remedy.is_empty(),
            "{problem:?}"
        );
        prop_assert!(problem.line <= lines + 1, "{problem:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_damaged_file_is_read_to_the_end(
        seed in 0..SEEDS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3_usize, prop::sample::select(PIECES)), 1..6),
    ) {
        let mut text: Vec<char> = SEEDS[seed].chars().collect();
        for (place, remove, piece) in edits {
            let at = place.index(text.len() + 1);
            let end = (at + remove).min(text.len());
            text.splice(at..end, piece.chars());
        }
        let text: String = text.into_iter().collect();
        let lines = text.lines().count();
        match load(None, &surroundings(text)) {
            Ok((_, problems)) => {
                prop_assert!(!problems.iter().any(Problem::is_error));
                check(&problems, lines)?;
            }
            Err(problems) => {
                prop_assert!(problems.iter().any(Problem::is_error));
                check(&problems, lines)?;
            }
        }
    }

    #[test]
    fn any_dynamic_configuration_is_obeyed_or_refused(dynamic in json()) {
        let (settings, _) = load(None, &surroundings(SEEDS[1].to_owned())).expect("a seed");
        match effective(&settings, &dynamic) {
            Ok((effective, problems)) => {
                check(&problems, 0)?;
                let core = &effective.core;
                prop_assert!(core.ttl.as_secs() >= 2 && core.ttl.subsec_nanos() == 0, "{core:?}");
                prop_assert!(core.loop_wait + 2 * core.retry_timeout <= core.ttl, "{core:?}");
                prop_assert!(!core.retry_timeout.is_zero() && core.loop_wait.as_secs() >= 1, "{core:?}");
                // What a dynamic configuration must never reach.
                prop_assert_eq!(&effective.postgres.data_dir, &settings.postgresql.data_dir);
                prop_assert_eq!(effective.postgres.port, settings.postgresql.port);
                prop_assert_eq!(&effective.postgres.superuser, &settings.postgresql.superuser);
                prop_assert_eq!(effective.postgres.parameters["hot_standby"].as_str(), "on");
                prop_assert!(effective.postgres.parameters.values().all(|value| !value.contains('\n')));
            }
            Err(problems) => {
                prop_assert!(problems.iter().any(Problem::is_error));
                check(&problems, 0)?;
            }
        }
    }
}
