//! What kind of cluster its `config` and `sync` keys make it: how it replicates, and whether it follows another one.
//!
//! For whoever shows the cluster. The core obeys the merged configuration instead (`config::effective`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::snapshot::RawCluster;

/// `synchronous_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// Asynchronous replication.
    Off,
    /// Named standbys, each of which acknowledges.
    On,
    /// Any of a set of standbys.
    Quorum,
}

impl Synchronous {
    /// What the `config` key says; off if it says nothing that can be understood.
    #[must_use]
    pub fn of(config: &Value) -> Self {
        match config.get("synchronous_mode") {
            Some(Value::String(mode)) if mode.eq_ignore_ascii_case("quorum") => Self::Quorum,
            Some(mode) if truthy(mode) => Self::On,
            _ => Self::Off,
        }
    }
}

/// The `config` key has a `standby_cluster` that names another cluster.
#[must_use]
pub fn follows_another(config: &Value) -> bool {
    config.get("standby_cluster").is_some_and(|section| {
        ["host", "port", "restore_command"]
            .iter()
            .any(|key| section.get(key).is_some_and(is_set))
    })
}

/// The members named in the `sync` key.
#[must_use]
pub fn sync_standbys(raw: &RawCluster) -> BTreeSet<String> {
    let sync = raw.json("sync").unwrap_or(Value::Null);
    listed(&sync).map(str::to_owned).collect()
}

/// The members that a `sync` key lists.
pub(super) fn listed(sync: &Value) -> impl Iterator<Item = &str> {
    let names = sync.get("sync_standby").and_then(Value::as_str);
    let names = names.unwrap_or_default().split(',').map(str::trim);
    names.filter(|name| !name.is_empty())
}

/// A value that means yes, as YAML and Patroni write it.
#[must_use]
pub fn truthy(value: &Value) -> bool {
    match value {
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => {
            matches!(
                text.trim().to_ascii_lowercase().as_str(),
                "on" | "true" | "yes" | "1" | "t" | "y"
            )
        }
        _ => false,
    }
}

/// Patroni's sense of a value that says something.
#[must_use]
pub fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn modes_are_read_as_people_write_them() {
        let of = |mode: Value| Synchronous::of(&json!({ "synchronous_mode": mode }));
        assert_eq!(of(json!("Quorum")), Synchronous::Quorum);
        assert_eq!(of(json!(true)), Synchronous::On);
        assert_eq!(of(json!("on")), Synchronous::On);
        assert_eq!(of(json!("sometimes")), Synchronous::Off);
        assert_eq!(Synchronous::of(&Value::Null), Synchronous::Off);
        assert!(follows_another(&json!({"standby_cluster": {"host": "x"}})));
        assert!(!follows_another(
            &json!({"standby_cluster": {"host": "", "slot": "x"}})
        ));
    }
}
