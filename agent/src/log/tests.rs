use super::*;
use std::collections::BTreeMap;
use surus_core::types::MonoTime;

struct Noon;

impl Clock for Noon {
    fn now(&self) -> MonoTime {
        MonoTime::ZERO
    }

    fn wall(&self) -> Duration {
        Duration::from_millis(1_795_168_800_123)
    }
}

fn settings(dir: &Path) -> Log {
    Log {
        json: false,
        level: "INFO".to_owned(),
        dir: Some(dir.to_owned()),
        file_size: 25_000_000,
        file_num: 4,
        mode: None,
        loggers: BTreeMap::new(),
    }
}

/// Runs `body` with a log in a directory of its own; gives what was written.
fn logged(change: impl FnOnce(&mut Log), body: impl FnOnce(&Logging, &Log)) -> (String, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut log = settings(dir.path());
    change(&mut log);
    let (subscriber, logging) = build(&log, Arc::new(Noon)).expect("a log");
    tracing::subscriber::with_default(subscriber, || body(&logging, &log));
    logging.flush();
    let text = std::fs::read_to_string(dir.path().join(FILE_NAME)).expect("a file");
    (text, dir)
}

#[test]
fn times_are_printed_as_python_does() {
    assert_eq!(stamp(Noon.wall(), &TimeZone::UTC), "2026-11-20 10:00:00,123");
}

#[test]
fn a_line_has_time_level_message_and_fields() {
    let (text, _dir) = logged(
        |_| {},
        |_, _| {
            tracing::info!(timeline = 4, why = "lock acquired", ok = true, "promoted");
            tracing::warn!("first\nsecond");
            tracing::debug!("not wanted");
        },
    );
    let lines: Vec<&str> = text
        .lines()
        .map(|line| &line["2026-11-20 10:00:00".len()..])
        .collect();
    assert_eq!(
        lines,
        [
            ",123 INFO: promoted timeline=4 why=\"lock acquired\" ok=true",
            ",123 WARNING: first\\nsecond"
        ]
    );
}

#[test]
fn json_has_the_names_of_patroni() {
    let (text, _dir) = logged(
        |log| log.json = true,
        |_, _| {
            tracing::error!(lag = 7, "too \"far\" behind");
        },
    );
    let object: Value = serde_json::from_str(&text).expect("one object");
    assert_eq!(object["levelname"], "ERROR");
    assert_eq!(object["message"], "too \"far\" behind");
    assert_eq!(object["lag"], 7);
}

#[test]
fn levels_are_set_by_logger() {
    let (text, _dir) = logged(
        |log| {
            log.level = "WARNING".to_owned();
            log.loggers
                .insert("patroni.postgresql".to_owned(), "DEBUG".to_owned());
            log.loggers.insert("hyper".to_owned(), "CRITICAL".to_owned());
        },
        |_, _| {
            tracing::info!(target: "surus::dcs", "no 1");
            tracing::debug!(target: "surus::postgres::probe", "yes 1");
            tracing::warn!(target: "hyper::client", "no 2");
            tracing::info!(target: "h2", "no 3");
            tracing::warn!(target: "h2", "yes 2");
        },
    );
    assert!(
        !text.contains("no ") && text.contains("yes 1") && text.contains("yes 2"),
        "{text}"
    );
}

#[test]
fn a_reload_changes_level_and_format_and_opens_the_file_anew() {
    let (text, dir) = logged(
        |_| {},
        |logging, log| {
            tracing::debug!("before");
            tracing::info!("old file");
            logging.flush();
            let dir = log.dir.clone().expect("set");
            std::fs::rename(dir.join(FILE_NAME), dir.join("moved")).expect("moved");
            let log = Log {
                level: "DEBUG".to_owned(),
                json: true,
                ..log.clone()
            };
            logging.apply(&log).expect("applied");
            tracing::debug!("after");
            let wrong = Log {
                dir: Some("/dev/null/x".into()),
                ..log
            };
            assert!(logging.apply(&wrong).is_err());
            tracing::debug!("still");
        },
    );
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("\"after\"") && text.contains("\"still\""));
    let moved = std::fs::read_to_string(dir.path().join("moved")).expect("there");
    assert!(moved.contains("old file") && !moved.contains("before"));
}

#[test]
fn files_are_rotated_by_size_and_have_their_mode() {
    let (text, dir) = logged(
        |log| {
            log.file_size = 200;
            log.file_num = 2;
            log.mode = Some(0o640);
        },
        |_, _| (0..20).for_each(|n| tracing::info!(n, "a line of some length")),
    );
    assert!(text.contains("n=19"));
    let names: Vec<_> = ["patroni.log", "patroni.log.1", "patroni.log.2", "patroni.log.3"]
        .map(|name| std::fs::metadata(dir.path().join(name)).ok())
        .into_iter()
        .collect();
    assert!(names[..3].iter().all(|file| {
        file.as_ref()
            .is_some_and(|file| file.len() <= 200 && file.permissions().mode() & 0o777 == 0o640)
    }));
    assert!(names[3].is_none());
    let first = std::fs::read_to_string(dir.path().join("patroni.log.1")).expect("there");
    assert!(first.contains("n=17") || first.contains("n=16"), "{first}");
}

#[test]
fn a_stuck_writer_costs_lines_and_not_time() {
    let (sender, receiver) = sync_channel(2);
    let queue = Queue {
        sender,
        lost: Arc::default(),
    };
    (0..10).for_each(|n| queue.push(format!("{n}\n")));
    assert_eq!(queue.lost.load(Ordering::Relaxed), 8);
    drop(receiver);
    queue.push("nobody reads\n".to_owned());
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let error = build(&settings(Path::new("/dev/null/log")), Arc::new(Noon))
        .map(|_| ())
        .expect_err("no directory");
    assert!(error.to_string().contains("/dev/null/log/patroni.log"), "{error}");
}
