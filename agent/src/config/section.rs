//! Reading one mapping of the tree with expectations: what is missing, mistyped, out of range or unknown becomes a
//! [`Problem`](super::problem::Problem) with its line, and a default takes the value's place so that reading goes on.
//!
//! A section learns its known keys from what is asked of it, so the list of keys for "did you mean" is never out of date:
//! [`Section::finish`] reports what nobody asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;

use super::problem::{Mark, Report};
use super::scalar;
use super::yaml::{Data, Entry, Node};

/// A mapping (or its absence) that is being read.
pub(super) struct Section<'a> {
    /// From the top: `postgresql.authentication`; empty for the top itself.
    pub(super) path: String,
    /// Where it begins, or where it would have to be.
    pub(super) mark: Mark,
    /// True if it was written, be it empty.
    pub(super) present: bool,
    entries: &'a [Entry],
    asked: RefCell<Vec<&'a str>>,
    pub(super) report: &'a Report,
}

/// Keys that are often found one level too high or too low, and where they belong.
const BELONGS: &[(&str, &str)] = &[
    ("authentication", "postgresql.authentication"),
    ("callbacks", "postgresql.callbacks"),
    ("data_dir", "postgresql.data_dir"),
    ("bin_dir", "postgresql.bin_dir"),
    ("pgpass", "postgresql.pgpass"),
    ("parameters", "postgresql.parameters"),
    ("recovery_conf", "postgresql.recovery_conf"),
    ("pg_hba", "postgresql.pg_hba"),
    ("use_pg_rewind", "postgresql.use_pg_rewind"),
    ("use_slots", "bootstrap.dcs.postgresql.use_slots"),
    ("initdb", "bootstrap.initdb"),
    ("dcs", "bootstrap.dcs"),
    ("users", "bootstrap.users"),
    ("maximum_lag_on_failover", "bootstrap.dcs.maximum_lag_on_failover"),
    ("synchronous_mode", "bootstrap.dcs.synchronous_mode"),
    ("failsafe_mode", "bootstrap.dcs.failsafe_mode"),
    ("nofailover", "tags.nofailover"),
    ("noloadbalance", "tags.noloadbalance"),
    ("clonefrom", "tags.clonefrom"),
    ("nosync", "tags.nosync"),
];

impl<'a> Section<'a> {
    /// Reads `node`; anything but a mapping or nothing is an error.
    pub(super) fn new(path: &str, node: &'a Node, report: &'a Report) -> Self {
        let entries: &[Entry] = match &node.data {
            Data::Map(entries) => entries,
            _ if node.is_null() => &[],
            _ => {
                report.error(
                    path,
                    &node.mark,
                    format!("expected a mapping, found {}", node.kind()),
                    "write `key: value` lines below it, indented deeper than the section's name",
                );
                &[]
            }
        };
        Self {
            path: path.to_owned(),
            mark: node.mark.clone(),
            present: true,
            entries,
            asked: RefCell::new(Vec::new()),
            report,
        }
    }

    fn absent(path: String, mark: Mark, report: &'a Report) -> Self {
        Self {
            path,
            mark,
            present: false,
            entries: &[],
            asked: RefCell::new(Vec::new()),
            report,
        }
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The value of `key` if it is written and not null. From now on the key is known.
    pub(super) fn node(&self, key: &'a str) -> Option<&'a Node> {
        self.written(key).filter(|node| !node.is_null())
    }

    /// The value of `key` if it is written, null included.
    pub(super) fn written(&self, key: &'a str) -> Option<&'a Node> {
        self.asked.borrow_mut().push(key);
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.value)
    }

    /// Where `key` is written, or where its section begins.
    pub(super) fn mark_of(&self, key: &str) -> Mark {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.map_or_else(|| self.mark.clone(), |entry| entry.value.mark.clone())
    }

    /// The tree's own copy of a key, if it is written.
    pub(super) fn key(&self, name: &str) -> Option<&'a str> {
        self.entries
            .iter()
            .find(|entry| entry.key == name)
            .map(|entry| entry.key.as_str())
    }

    /// Every key with its value; all of them count as known.
    pub(super) fn entries(&self) -> &'a [Entry] {
        self.asked
            .borrow_mut()
            .extend(self.entries.iter().map(|entry| entry.key.as_str()));
        self.entries
    }

    /// The section below `key`.
    pub(super) fn section(&self, key: &'a str) -> Self {
        let path = self.path_of(key);
        match self.written(key) {
            Some(node) => {
                let mut section = Self::new(&path, node, self.report);
                // The key's own line is what a reader looks for when something is missing below it.
                if let Some(entry) = self.entries.iter().find(|entry| entry.key == key) {
                    section.mark = entry.mark.clone();
                }
                section
            }
            None => Self::absent(path, self.mark.clone(), self.report),
        }
    }

    pub(super) fn error(&self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.report
            .error(&self.path_of(key), &self.mark_of(key), message, remedy);
    }

    pub(super) fn warning(&self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.report
            .warning(&self.path_of(key), &self.mark_of(key), message, remedy);
    }

    /// Says that `key` is missing, and how to write it.
    pub(super) fn missing(&self, key: &str, remedy: &str) {
        self.report
            .error(&self.path_of(key), &self.mark, "is missing", remedy);
    }

    /// The scalar of `key`, and whether it was quoted.
    fn scalar(&self, key: &'a str, expected: &str) -> Option<(&'a str, bool)> {
        let node = self.node(key)?;
        match &node.data {
            Data::Scalar { text, quoted } => Some((text, *quoted)),
            Data::List(_) | Data::Map(_) => {
                self.error(
                    key,
                    format!("expected {expected}, found {}", node.kind()),
                    format!("write `{key}: …` with one value"),
                );
                None
            }
        }
    }

    /// Text; a number or a boolean is taken as it is written. Empty text counts as not written.
    pub(super) fn text(&self, key: &'a str) -> Option<String> {
        self.scalar(key, "text")
            .map(|(text, _)| text.to_owned())
            .filter(|text| !text.is_empty())
    }

    pub(super) fn boolean(&self, key: &'a str) -> Option<bool> {
        let (text, _) = self.scalar(key, "on or off")?;
        let value = scalar::boolean(text);
        if value.is_none() {
            self.error(
                key,
                format!("expected on or off, found `{text}`"),
                "write on, off, true, false, yes or no",
            );
        }
        value
    }

    pub(super) fn integer(&self, key: &'a str, range: RangeInclusive<i64>) -> Option<i64> {
        let (text, quoted) = self.scalar(key, "a whole number")?;
        let bounds = match (*range.start(), *range.end()) {
            (low, i64::MAX) => format!("a whole number, {low} or more"),
            (low, high) => format!("a whole number from {low} to {high}"),
        };
        match scalar::integer(text, quoted) {
            Some(number) if range.contains(&number) => Some(number),
            Some(number) => {
                self.error(
                    key,
                    format!("{number} is out of range"),
                    format!("write {bounds}"),
                );
                None
            }
            None => {
                self.error(
                    key,
                    format!("expected a whole number, found `{text}`"),
                    format!("write {bounds}"),
                );
                None
            }
        }
    }

    /// A duration; a number alone counts seconds.
    pub(super) fn seconds(&self, key: &'a str) -> Option<Duration> {
        let (text, _) = self.scalar(key, "a number of seconds")?;
        let value = scalar::duration(text, Duration::from_secs(1));
        if value.is_none() {
            self.error(
                key,
                format!("expected a number of seconds, 0 or more, found `{text}`"),
                "write seconds, or a number with one of the units ms, s, min, h, d",
            );
        }
        value
    }

    /// A size in bytes.
    pub(super) fn size(&self, key: &'a str) -> Option<u64> {
        let (text, _) = self.scalar(key, "a size")?;
        let value = scalar::size(text);
        if value.is_none() {
            self.error(
                key,
                format!("expected a size, 0 or more, found `{text}`"),
                "write bytes, or a number with one of the units kB, MB, GB, TB",
            );
        }
        value
    }

    /// One of `choices`, in any case.
    pub(super) fn choice(&self, key: &'a str, choices: &[&'static str]) -> Option<&'static str> {
        let (text, _) = self.scalar(key, "one word")?;
        let found = choices.iter().find(|choice| choice.eq_ignore_ascii_case(text));
        if found.is_none() {
            let near = nearest(text, choices.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
            self.error(
                key,
                format!("`{text}` is not a choice here{}", near.unwrap_or_default()),
                format!("write one of {}", choices.join(", ")),
            );
        }
        found.copied()
    }

    /// A list of texts. One text alone counts as a list of one.
    pub(super) fn texts(&self, key: &'a str) -> Option<Vec<(String, Mark)>> {
        let node = self.node(key)?;
        match &node.data {
            Data::Scalar { text, .. } => Some(vec![(text.clone(), node.mark.clone())]),
            Data::List(items) => Some(
                items
                    .iter()
                    .enumerate()
                    .filter_map(|(index, item)| self.item_text(key, index, item))
                    .collect(),
            ),
            Data::Map(_) => {
                self.error(
                    key,
                    "expected a list, found a mapping",
                    "begin each item with a dash and a space: `- item`",
                );
                None
            }
        }
    }

    fn item_text(&self, key: &str, index: usize, item: &Node) -> Option<(String, Mark)> {
        match &item.data {
            Data::Scalar { text, .. } if !item.is_null() => Some((text.clone(), item.mark.clone())),
            _ => {
                self.report.error(
                    &format!("{}[{index}]", self.path_of(key)),
                    &item.mark,
                    format!("expected text, found {}", item.kind()),
                    "write one line of text per item, in quotes if it contains a colon followed by a space",
                );
                None
            }
        }
    }

    /// A mapping from names to texts.
    pub(super) fn text_map(&self, key: &'a str) -> BTreeMap<String, String> {
        let section = self.section(key);
        let mut map = BTreeMap::new();
        for entry in section.entries() {
            if let Some(text) = section.text(&entry.key) {
                map.insert(entry.key.clone(), text);
            }
        }
        map
    }

    /// Command line options: a list of flags and one-pair mappings (`- encoding: UTF8`, `- data-checksums`), or a mapping.
    pub(super) fn options(&self, key: &'a str) -> Vec<(String, Option<String>)> {
        let Some(node) = self.node(key) else {
            return Vec::new();
        };
        let path = self.path_of(key);
        let mut options = Vec::new();
        match &node.data {
            Data::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.option_item(&format!("{path}[{index}]"), item, &mut options);
                }
            }
            Data::Map(entries) => entries
                .iter()
                .for_each(|entry| self.option(&path, entry, &mut options)),
            Data::Scalar { .. } => self.error(
                key,
                format!("expected a list of options, found {}", node.kind()),
                "write `- name: value` or `- flag` lines below it",
            ),
        }
        options
    }

    fn option_item(&self, path: &str, item: &Node, options: &mut Vec<(String, Option<String>)>) {
        match &item.data {
            Data::Scalar { text, .. } if !item.is_null() => match text.split_once('=') {
                Some((name, value)) => options.push((dashless(name), Some(value.to_owned()))),
                None => options.push((dashless(text), None)),
            },
            Data::Map(entries) if entries.len() == 1 => self.option(path, &entries[0], options),
            Data::Map(_) => self.report.error(
                path,
                &item.mark,
                "several options in one item of the list",
                "begin each option with a dash of its own, in the same column",
            ),
            Data::Scalar { .. } | Data::List(_) => self.report.error(
                path,
                &item.mark,
                format!("expected an option, found {}", item.kind()),
                "write `- name: value` or `- flag`",
            ),
        }
    }

    fn option(&self, path: &str, entry: &Entry, options: &mut Vec<(String, Option<String>)>) {
        let name = dashless(&entry.key);
        match &entry.value.data {
            Data::Scalar { text, quoted } => match (scalar::resolve(text), quoted) {
                (Value::Null | Value::Bool(true), false) => options.push((name, None)),
                (Value::Bool(false), false) => {}
                _ => options.push((name, Some(text.clone()))),
            },
            Data::List(_) | Data::Map(_) => self.report.error(
                &format!("{path}.{}", entry.key),
                &entry.value.mark,
                format!("expected one value, found {}", entry.value.kind()),
                format!("write `{name}: value`"),
            ),
        }
    }

    /// Accepts keys of Patroni that change nothing here.
    pub(super) fn without_effect(&self, keys: &[&'a str]) {
        self.asked.borrow_mut().extend(keys);
    }

    /// Accepts keys of Patroni that are not obeyed, and says so if one is set.
    pub(super) fn not_obeyed(&self, keys: &[&'a str], remedy: &str) {
        for key in keys {
            if self.node(key).is_some() {
                self.warning(key, "is known from Patroni but has no effect here", remedy);
            }
        }
    }

    /// Reports each key that nothing asked for.
    pub(super) fn finish(&self) {
        let asked = self.asked.borrow();
        for entry in self.entries {
            if asked.contains(&entry.key.as_str()) {
                continue;
            }
            let place = BELONGS
                .iter()
                .find(|(key, place)| *key == entry.key && *place != self.path_of(key));
            let remedy = match (place, nearest(&entry.key, asked.iter().copied())) {
                (Some((_, place)), _) => {
                    format!("`{}` belongs at {place}: check the indentation", entry.key)
                }
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => "remove it, or check the indentation".to_owned(),
            };
            self.report.warning(
                &self.path_of(&entry.key),
                &entry.mark,
                format!("unknown key `{}`; it has no effect", entry.key),
                remedy,
            );
        }
    }
}

/// An option's name without dashes before it.
fn dashless(name: &str) -> String {
    name.trim().trim_start_matches('-').to_owned()
}

/// The candidate that a typing error most likely meant, if any is near enough.
pub(super) fn nearest<'n>(name: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let name = name.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&name, &candidate.to_ascii_lowercase()),
                candidate,
            )
        })
        // A third of the letters may be wrong; more is another word.
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(name.len()) / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_named_only_if_it_is_near() {
        let keys = ["connect_address", "listen", "data_dir", "pg_hba"];
        assert_eq!(nearest("conect_adress", keys), Some("connect_address"));
        assert_eq!(nearest("Listen", keys), Some("listen"));
        assert_eq!(nearest("datadir", keys), Some("data_dir"));
        assert_eq!(nearest("zookeeper", keys), None);
    }
}
