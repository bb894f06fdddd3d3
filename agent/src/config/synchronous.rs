//! The keys of synchronous replication in the dynamic configuration.

use std::time::Duration;

use surus_core::sync::{Gate, Mode, Settings};

use super::scalar;
use super::section::Section;
use super::yaml::Data;

/// Reads and checks the keys. What is not written is as the core has it by default.
pub(super) fn read(section: &Section<'_>) -> Settings {
    let default = Settings::default();
    let number = |key, range| section.integer(key, range);
    Settings {
        mode: mode(section).unwrap_or(default.mode),
        strict: section
            .boolean("synchronous_mode_strict")
            .unwrap_or(default.strict),
        count: number("synchronous_node_count", 1..=i64::MAX)
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(default.count),
        // As in Patroni, zero is no limit either: commits in flight are a lag as well.
        maximum_lag: number("maximum_lag_on_syncnode", -1..=i64::MAX)
            .and_then(|bytes| u64::try_from(bytes).ok())
            .filter(|bytes| *bytes > 0),
        gate: gate(section),
    }
}

/// Zero seconds, or none, are no gate.
fn gate(section: &Section<'_>) -> Option<Gate> {
    let hold = section.boolean("synchronous_gate_hold").unwrap_or(false);
    let seconds = section.integer("synchronous_gate_timeout", 0..=i64::from(i32::MAX))?;
    let bound = u64::try_from(seconds).ok().filter(|seconds| 0 < *seconds)?;
    Some(Gate {
        bound: Duration::from_secs(bound),
        hold,
    })
}

fn mode(section: &Section<'_>) -> Option<Mode> {
    const KEY: &str = "synchronous_mode";
    let node = section.node(KEY)?;
    let Data::Scalar { text, .. } = &node.data else {
        let found = node.kind();
        section.error(
            KEY,
            format!("expected one word, found {found}"),
            "write off, on or quorum",
        );
        return None;
    };
    let mode = match scalar::boolean(text) {
        Some(true) => Some(Mode::On),
        Some(false) => Some(Mode::Off),
        None => text.eq_ignore_ascii_case("quorum").then_some(Mode::Quorum),
    };
    if mode.is_none() {
        section.error(
            KEY,
            format!("`{text}` is not a choice here"),
            "write off, on or quorum",
        );
    }
    mode
}
