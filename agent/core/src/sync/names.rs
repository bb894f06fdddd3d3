//! `synchronous_standby_names`: by whom PostgreSQL lets commits return.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::NodeName;

/// A name that no member has: with it commits wait. Patroni's, so that whoever looks at it finds it explained.
const NOBODY: &str = "__patroni_strict_sync_replica_placeholder__";

/// By whom commits are acknowledged beside the primary.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Names {
    /// By nobody: the primary acknowledges alone.
    #[default]
    Alone,
    /// By so many of these; by nobody at all, so that commits wait, if there are not so many.
    Some(Acknowledgers),
    /// Something that was not written by this program. It may mean anything.
    Foreign(String),
}

/// So many of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgers {
    /// Written as `ANY`: in quorum mode.
    pub any: bool,
    /// So many.
    pub number: usize,
    /// Of these.
    pub of: BTreeSet<NodeName>,
}

impl Names {
    /// Any `number` of these; [`Names::Alone`] for none of nobody.
    #[must_use]
    pub fn some(any: bool, number: usize, of: BTreeSet<NodeName>) -> Self {
        if number == 0 {
            Self::Alone
        } else {
            Self::Some(Acknowledgers { any, number, of })
        }
    }

    /// Nobody can acknowledge: commits wait.
    #[must_use]
    pub fn nobody(any: bool) -> Self {
        Self::some(any, 1, BTreeSet::new())
    }

    /// Who may acknowledge.
    pub fn members(&self) -> impl Iterator<Item = &NodeName> {
        let some = match self {
            Self::Some(some) => Some(&some.of),
            Self::Alone | Self::Foreign(_) => None,
        };
        some.into_iter().flatten()
    }

    /// Reads the setting, as [`fmt::Display`] writes it. Everything else is [`Names::Foreign`].
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Self::Alone;
        }
        let (any, rest) = match trimmed.strip_prefix("ANY ") {
            Some(rest) => (true, rest),
            None => (false, trimmed),
        };
        let parsed = match rest.split_once('(') {
            None if any => None,
            None => unquoted(rest).map(|names| (1, names)),
            Some((number, list)) => number
                .trim()
                .parse()
                .ok()
                .zip(list.strip_suffix(')').and_then(unquoted)),
        };
        let nobody = |names: &BTreeSet<NodeName>| names.iter().any(|name| name.as_str() == NOBODY);
        match parsed {
            Some((1, names)) if names.len() == 1 && nobody(&names) => Self::nobody(any),
            Some((number, of)) if 0 < number && number <= of.len() && (any || number == of.len()) => {
                Self::some(any, number, of)
            }
            _ => Self::Foreign(text.to_owned()),
        }
    }
}

/// A list of names, each plain or quoted. `None` if it is anything else, or one comes twice.
fn unquoted(list: &str) -> Option<BTreeSet<NodeName>> {
    let mut names = BTreeSet::new();
    let mut rest = list.trim();
    loop {
        let (name, left) = match rest.strip_prefix('"') {
            Some(quoted) => {
                // A quote within a name is doubled.
                let mut end = quoted.find('"')?;
                while quoted[end + 1..].starts_with('"') {
                    end += 2 + quoted[end + 2..].find('"')?;
                }
                (quoted[..end].replace("\"\"", "\""), &quoted[end + 1..])
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim().to_owned(), &rest[end..])
            }
        };
        let quoted = rest.starts_with('"');
        if !quoted && !plain(&name) || name.is_empty() || !names.insert(NodeName(name)) {
            return None;
        }
        let left = left.trim_start();
        if left.is_empty() {
            return Some(names);
        }
        rest = left.strip_prefix(',')?.trim_start();
    }
}

/// PostgreSQL reads this name without quotes as it is.
fn plain(name: &str) -> bool {
    let mut letters = name.chars();
    let begins = letters
        .next()
        .is_some_and(|first| first.is_ascii_lowercase() || first == '_');
    let goes_on =
        letters.all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
    begins && goes_on && !matches!(name, "any" | "first")
}

/// As the setting is written: Patroni's forms, for people who compare.
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = match self {
            Self::Alone => return Ok(()),
            Self::Foreign(text) => return f.write_str(text),
            Self::Some(some) => some,
        };
        let quoted = |name: &str| {
            if plain(name) {
                name.to_owned()
            } else {
                format!("\"{}\"", name.replace('"', "\"\""))
            }
        };
        let mut list: Vec<String> = some.of.iter().map(|name| quoted(name.as_str())).collect();
        if list.is_empty() {
            list.push(NOBODY.to_owned());
        }
        match (some.any, list.as_slice()) {
            (false, [one]) => f.write_str(one),
            (false, _) => write!(f, "{} ({})", some.number, list.join(",")),
            (true, _) => write!(f, "ANY {} ({})", some.number, list.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(any: bool, number: usize, names: &[&str]) -> Names {
        Names::some(
            any,
            number,
            names.iter().map(|name| NodeName::from(*name)).collect(),
        )
    }

    #[test]
    fn the_setting_is_read_as_it_is_written() {
        let cases = [
            (Names::Alone, ""),
            (some(false, 1, &["b"]), "b"),
            (some(false, 2, &["b", "c"]), "2 (b,c)"),
            (some(true, 1, &["b", "c"]), "ANY 1 (b,c)"),
            (some(true, 1, &["b"]), "ANY 1 (b)"),
            (some(false, 1, &["Node-1"]), "\"Node-1\""),
            (
                some(true, 2, &["any", "a\"b", "c,d"]),
                "ANY 2 (\"a\"\"b\",\"any\",\"c,d\")",
            ),
            (
                Names::nobody(false),
                "__patroni_strict_sync_replica_placeholder__",
            ),
            (
                Names::nobody(true),
                "ANY 1 (__patroni_strict_sync_replica_placeholder__)",
            ),
        ];
        for (names, text) in cases {
            assert_eq!(names.to_string(), text);
            assert_eq!(Names::parse(text), names, "{text}");
        }
    }

    #[test]
    fn what_others_write_is_foreign_unless_it_means_the_same() {
        assert_eq!(Names::parse("2 (\"b\", c)"), some(false, 2, &["b", "c"]));
        for text in [
            "*",
            "1 (b,c)",
            "FIRST 1 (b,c)",
            "b,c",
            "ANY 3 (b,c)",
            "ANY 1 (*)",
            "any 1 (b)",
            "B",
            "2 (b,b)",
            "1 (b",
            "\"b",
        ] {
            assert_eq!(Names::parse(text), Names::Foreign(text.to_owned()), "{text}");
        }
    }
}
