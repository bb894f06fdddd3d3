//! The stories that make up the suite, and what its runs need of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use surus_ci::error::{Error, Result};
use surus_ci::tool;
use tokio::runtime::Runtime;

/// The suite: stories that containers can act out in about a minute each. All measured faults, and of the others those that are short,
/// the most unlike first: what bit others (`B`), what the guards of the core are for (`G`), what simulation has found in our own core
/// (`F`), and recipes (`R`); and what articles build (`A`), by their own configuration files.
#[rustfmt::skip]
pub const NAMES: &[&str] = &[
    "A-1", "A-1b", "A-2", "A-3", "A-4", "A-5", "A-5b",
    "M-01", "M-02", "M-03", "M-04", "M-05", "M-06", "M-07", "M-08", "M-09", "M-10", "M-11", "M-12", "M-14",
    "B-001", "B-001b", "B-002", "B-002b", "B-004", "B-016", "B-016b", "B-020", "B-029", "B-030", "B-030b", "B-031", "B-032b", "B-033",
    "B-047", "B-056", "B-059", "B-061", "B-072", "B-073", "B-074", "B-082", "B-083", "B-085", "B-095",
    "G-01", "G-02", "G-05", "G-06", "G-13", "G-20",
    "F-08", "F-13", "F-51", "F-52", "F-53", "F-54", "F-55", "F-56",
    "R2b", "R3b",
];

/// A few of it, for `cargo test`: a clean end, a crash, a partition.
pub const FEW: &[&str] = &["M-02", "M-03", "M-08"];

/// Flaws of the core, by their names in `surus_core::zoo`, and for each a story of the suite that must fail by it.
#[rustfmt::skip]
pub const FLAWS: &[(&str, &str)] = &[
    ("RightForever", "B-001"), ("GuardTooLate", "B-001"), ("OldRightIgnored", "G-01"), ("RenewalsUnseen", "G-01"),
    ("NewcomerDoesNotWait", "G-02"), ("OwnTtlForOthers", "G-13"), ("PromiseForgotten", "M-09"), ("NofailoverUnheeded", "G-05"),
    ("PauseUnheeded", "G-06"), ("NumberForAncestry", "B-004"), ("ForkIgnored", "B-004"),
];

/// What waits runs on it; stories themselves have a thread each.
///
/// # Errors
/// The system gives no threads.
pub fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::io(|| "start a runtime"))
}

/// The agent that was built beside this program, or beside the tests.
///
/// # Errors
/// It is not there; the text says the remedy.
pub fn agent() -> Result<PathBuf> {
    let me = std::env::current_exe().map_err(Error::io(|| "find this program"))?;
    // Tests are one directory below programs.
    let places = me.ancestors().skip(1).take(2);
    let found = places
        .map(|place| place.join("surus"))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        let place = me.parent().map_or_else(PathBuf::new, PathBuf::from);
        Error::Unable(format!(
            "no agent beside {}: run `cargo build -p surus`, with `--release` if this is",
            place.display()
        ))
    })
}

/// An agent can have its flaws planted.
///
/// # Errors
/// It was built without them; the text says the remedy.
pub fn flawed(agent: &Path) -> Result<()> {
    let version = tool::output(Command::new(agent).arg("--version"))?;
    if version.trim_end().ends_with("with planted flaws") {
        return Ok(());
    }
    Err(Error::Unable(format!(
        "{} has no planted flaws: run `cargo build --release -p surus --features zoo --target-dir target/flawed`, and give --agent \
         target/flawed/release/surus",
        agent.display()
    )))
}
