//! Golden scripts that a model and the real thing must agree on.
//!
//! Each script under `sim/conformance` is run against the model always, and against the real server when `SURUS_CONFORMANCE=real`. What a
//! script shows is what both can state: roles, timelines, how positions lie to each other, whether a command succeeded. After a change
//! that you understand: `UPDATE_GOLDENFILES=1`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests: a failure here is a failed test, and a skipped one must be seen"
)]

mod postgres;

use std::path::PathBuf;

/// The real servers are asked.
fn real() -> bool {
    std::env::var("SURUS_CONFORMANCE").is_ok_and(|value| value == "real")
}

/// The scripts for a store.
fn directory(store: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("conformance")
        .join(store)
}

/// Every script has its tests.
fn all_listed(store: &str, listed: &[&str]) {
    let mut found: Vec<String> = std::fs::read_dir(directory(store))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "script"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let mut listed = listed.to_vec();
    listed.sort_unstable();
    assert_eq!(
        found, listed,
        "the list in tests/conformance/{store} and the files differ"
    );
}
