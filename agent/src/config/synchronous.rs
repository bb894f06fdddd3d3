//! The keys of synchronous replication in the dynamic configuration.

use surus_core::sync::{Mode, Settings};

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
    }
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
