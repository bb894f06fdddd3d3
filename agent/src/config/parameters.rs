//! `postgresql.parameters`: which come from the cluster, which from the node, and how each is written into `postgresql.conf`.
//!
//! Some settings must be the same on every member, or a replica could not replay what the primary writes. They are taken only
//! from the dynamic configuration ([`cluster_wide`]); a local value is ignored, with a warning where it says something else.

use std::collections::BTreeMap;

use serde_json::Value;

use super::problem::{Mark, Report};
use super::scalar;
use super::yaml::{Data, Entry, Node};

/// Largest value of the parameters below: PostgreSQL's MAX_BACKENDS.
const MOST: i64 = 262_143;
/// PostgreSQL's size of a WAL segment, in megabytes.
const SEGMENT_MB: u64 = 16;
/// `wal_keep_size` where the cluster says nothing: Patroni's eight segments.
const WAL_KEEP_MB: u64 = 8 * SEGMENT_MB;

/// How a cluster-wide parameter is checked.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// A whole number of at least this.
    AtLeast(i64),
    /// on or off.
    Switch,
    /// replica or logical.
    WalLevel,
    /// Always on.
    On,
}

/// Parameters that come from the dynamic configuration only, with their default; contract 3.5.
const CLUSTER: &[(&str, &str, Rule)] = &[
    ("max_connections", "100", Rule::AtLeast(25)),
    ("max_locks_per_transaction", "64", Rule::AtLeast(32)),
    ("max_worker_processes", "8", Rule::AtLeast(2)),
    ("max_prepared_transactions", "0", Rule::AtLeast(0)),
    ("max_wal_senders", "10", Rule::AtLeast(3)),
    ("max_replication_slots", "10", Rule::AtLeast(4)),
    ("wal_level", "replica", Rule::WalLevel),
    ("track_commit_timestamp", "off", Rule::Switch),
    ("wal_log_hints", "on", Rule::Switch),
    ("hot_standby", "on", Rule::On),
];

/// Set from `postgresql.listen` and `scope`.
const OURS: &[(&str, &str)] = &[
    ("listen_addresses", "postgresql.listen"),
    ("port", "postgresql.listen"),
    ("cluster_name", "scope"),
];

/// One value as PostgreSQL reads it: booleans as on and off, lists joined by commas. `None` for nothing and for mappings.
fn text_of(node: &Node) -> Option<String> {
    match &node.data {
        Data::Scalar { text, quoted: true } => Some(text.clone()),
        Data::Scalar { text, quoted: false } => match scalar::resolve(text) {
            Value::Null => None,
            Value::Bool(true) => Some("on".to_owned()),
            Value::Bool(false) => Some("off".to_owned()),
            Value::Number(number) => Some(number.to_string()),
            Value::String(_) | Value::Array(_) | Value::Object(_) => Some(text.clone()),
        },
        Data::List(items) => items
            .iter()
            .map(text_of)
            .collect::<Option<Vec<_>>>()
            .map(|items| items.join(", ")),
        Data::Map(_) => None,
    }
}

/// Entries of a `parameters` or `recovery_conf` mapping as text, by lower-case name. A null removes nothing and sets nothing.
pub(super) fn texts(path: &str, entries: &[Entry], report: &Report) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    for entry in entries {
        let path = format!("{path}.{}", entry.key);
        let mark = &entry.value.mark;
        let named = !entry.key.is_empty()
            && entry
                .key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$'));
        if !named {
            report.error(
                &path,
                &entry.mark,
                format!("`{}` is not the name of a PostgreSQL parameter", entry.key),
                "use letters, digits, underscores, and a dot after an extension's name",
            );
        } else if let Some(text) = text_of(&entry.value) {
            if text.contains(['\n', '\r', '\0']) {
                report.error(
                    &path,
                    mark,
                    "the value has more than one line",
                    "write it in one line",
                );
                continue;
            }
            let name = entry.key.to_ascii_lowercase();
            let text = known_unit(&path, &name, text, mark, report);
            texts.insert(name, text);
        } else if !entry.value.is_null() {
            report.error(
                &path,
                mark,
                format!("expected one value, found {}", entry.value.kind()),
                "write `name: value`",
            );
        }
    }
    texts
}

/// A duration in a unit that PostgreSQL does not know, in one that it does.
fn known_unit(path: &str, name: &str, text: String, mark: &Mark, report: &Report) -> String {
    let timed = ["_timeout", "_delay", "_interval", "_naptime", "_duration"]
        .iter()
        .any(|end| name.ends_with(end));
    match timed.then(|| scalar::postgres_duration(&text)).flatten() {
        Some(better) => {
            report.warning(
                path,
                mark,
                format!("PostgreSQL does not know the unit in `{text}`; taken as `{better}`"),
                "write one of PostgreSQL's units: us, ms, s, min, h, d",
            );
            better
        }
        None => text,
    }
}

/// The canonical text of a cluster-wide parameter, or what it would have to be.
fn check(text: &str, rule: Rule) -> Result<String, String> {
    match rule {
        Rule::AtLeast(least) => match text.trim().parse::<i64>() {
            Ok(number) if (least..=MOST).contains(&number) => Ok(number.to_string()),
            Ok(_) | Err(_) => Err(format!("a whole number from {least} to {MOST}")),
        },
        Rule::Switch => {
            let value = scalar::boolean(text).ok_or("on or off")?;
            Ok(if value { "on" } else { "off" }.to_owned())
        }
        Rule::WalLevel => match text.to_ascii_lowercase().as_str() {
            // The names of old: PostgreSQL itself still accepts them as replica.
            "replica" | "hot_standby" | "archive" => Ok("replica".to_owned()),
            "logical" => Ok("logical".to_owned()),
            _ => Err("replica or logical".to_owned()),
        },
        Rule::On => match scalar::boolean(text) {
            Some(true) => Ok("on".to_owned()),
            _ => Err("on: a replica that cannot be queried cannot be managed".to_owned()),
        },
    }
}

fn rule_of(name: &str) -> Option<(&'static str, Rule)> {
    CLUSTER
        .iter()
        .find(|(known, ..)| *known == name)
        .map(|(_, default, rule)| (*default, *rule))
}

/// True for parameters that a local file cannot set.
fn is_cluster_wide(name: &str) -> bool {
    rule_of(name).is_some() || matches!(name, "wal_keep_segments" | "wal_keep_size")
}

/// The cluster-wide parameters, all of them, from the dynamic configuration's `parameters`. An invalid value gives way to the
/// default with a warning, as in Patroni.
pub(super) fn cluster_wide(path: &str, entries: &[Entry], report: &Report) -> BTreeMap<String, String> {
    let written = |name: &str| {
        entries
            .iter()
            .find(|entry| entry.key.eq_ignore_ascii_case(name))
            .and_then(|entry| Some((text_of(&entry.value)?, &entry.value.mark)))
    };
    let mut all = BTreeMap::new();
    for (name, default, rule) in CLUSTER {
        let value = written(name).and_then(|(text, mark)| match check(&text, *rule) {
            Ok(value) => Some(value),
            Err(expected) => {
                report.warning(
                    &format!("{path}.{name}"),
                    mark,
                    format!("`{text}` cannot be used; {default} is used instead"),
                    format!("write {expected}"),
                );
                None
            }
        });
        all.insert((*name).to_owned(), value.unwrap_or_else(|| (*default).to_owned()));
    }
    let megabytes = keep_megabytes("wal_keep_size", path, &written, report)
        .or_else(|| keep_megabytes("wal_keep_segments", path, &written, report))
        .unwrap_or(WAL_KEEP_MB);
    all.insert("wal_keep_size".to_owned(), format!("{megabytes}MB"));
    all
}

/// `wal_keep_size`, or `wal_keep_segments` of PostgreSQL 12 and older, in megabytes.
fn keep_megabytes<'e>(
    name: &str,
    path: &str,
    written: &dyn Fn(&str) -> Option<(String, &'e Mark)>,
    report: &Report,
) -> Option<u64> {
    let (text, mark) = written(name)?;
    let megabytes = if name == "wal_keep_segments" {
        text.trim()
            .parse::<u64>()
            .ok()
            .and_then(|segments| segments.checked_mul(SEGMENT_MB))
    } else if let Ok(number) = text.trim().parse::<u64>() {
        // PostgreSQL counts this parameter in megabytes.
        Some(number)
    } else {
        scalar::size(&text).map(|bytes| bytes.div_ceil(1 << 20))
    };
    // PostgreSQL's own limit, 2^31 - 1 MB.
    let megabytes = megabytes.filter(|megabytes| (SEGMENT_MB..=2_147_483_647).contains(megabytes));
    if megabytes.is_none() {
        let least = if name == "wal_keep_segments" {
            "1 or more"
        } else {
            "16MB or more"
        };
        report.warning(
            &format!("{path}.{name}"),
            mark,
            format!("`{text}` cannot be used; {WAL_KEEP_MB}MB is used instead"),
            format!("write {least}"),
        );
    }
    megabytes
}

/// The node's own parameters: all that are neither cluster-wide nor ours.
pub(super) fn own(texts: BTreeMap<String, String>) -> BTreeMap<String, String> {
    texts
        .into_iter()
        .filter(|(name, _)| !is_cluster_wide(name) && OURS.iter().all(|(ours, _)| ours != name))
        .collect()
}

/// Warns of local parameters that are ignored: ours, and cluster-wide ones unless the file's own `bootstrap.dcs` says the same.
pub(super) fn warn_ignored(path: &str, local: &[Entry], bootstrap: &[Entry], report: &Report) {
    let silent = Report::default();
    let wanted = cluster_wide("", bootstrap, &silent);
    for entry in local {
        let name = entry.key.to_ascii_lowercase();
        let path = format!("{path}.{}", entry.key);
        let Some(text) = text_of(&entry.value) else {
            continue;
        };
        if let Some((_, from)) = OURS.iter().find(|(ours, _)| *ours == name) {
            report.warning(
                &path,
                &entry.mark,
                "is ignored",
                format!("remove it: it is set from `{from}`"),
            );
        } else if is_cluster_wide(&name) {
            let local = cluster_wide("", std::slice::from_ref(entry), &silent);
            let key = if name.starts_with("wal_keep") {
                "wal_keep_size"
            } else {
                name.as_str()
            };
            if local.get(key) != wanted.get(key) {
                report.warning(
                    &path,
                    &entry.mark,
                    format!("`{text}` is ignored here: this parameter must be the same on all members"),
                    "set it for the cluster: `surus edit-config`, or `bootstrap.dcs.postgresql.parameters` before the first start",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    fn wide(text: &str) -> (BTreeMap<String, String>, usize) {
        let report = Report::default();
        let node = yaml::parse(text, "test", &report).expect("valid YAML");
        let Data::Map(entries) = &node.data else {
            panic!("a mapping")
        };
        let all = cluster_wide("parameters", entries, &report);
        (all, report.take().len())
    }

    #[test]
    fn every_cluster_wide_parameter_has_a_value() {
        let (all, problems) = wide("{}");
        assert_eq!(problems, 0);
        assert_eq!(all.len(), CLUSTER.len() + 1);
        assert_eq!(all["wal_keep_size"], "128MB");
        assert_eq!(all["wal_log_hints"], "on");
    }

    #[test]
    fn segments_become_a_size() {
        assert_eq!(wide("wal_keep_segments: 20").0["wal_keep_size"], "320MB");
        assert_eq!(wide("wal_keep_size: 1GB").0["wal_keep_size"], "1024MB");
        assert_eq!(wide("wal_keep_size: 64").0["wal_keep_size"], "64MB");
        assert_eq!(wide("{wal_keep_size: '1kB'}"), {
            let (mut all, _) = wide("{}");
            all.insert("wal_keep_size".to_owned(), "128MB".to_owned());
            (all, 1)
        });
    }

    #[test]
    fn what_cannot_be_used_gives_way_to_the_default() {
        for (text, name, expected) in [
            ("max_connections: 5", "max_connections", "100"),
            ("max_wal_senders: many", "max_wal_senders", "10"),
            ("wal_level: minimal", "wal_level", "replica"),
            ("hot_standby: off", "hot_standby", "on"),
            ("wal_log_hints: maybe", "wal_log_hints", "on"),
        ] {
            let (all, problems) = wide(text);
            assert_eq!((all[name].as_str(), problems), (expected, 1), "{text}");
        }
    }

    #[test]
    fn names_of_old_are_understood() {
        assert_eq!(wide("wal_level: hot_standby"), wide("WAL_LEVEL: replica"));
    }
}
