//! JSON values as YAML text, the way operators of Patroni know it: block style, sorted keys, quotes only where needed.
//!
//! The dynamic configuration is JSON in the DCS and YAML in the editor. What is written here reads back as the same
//! value under YAML 1.1 and 1.2 alike, so that `on`, `1e5` or `10:30` written as text stays text.

use serde_json::{Map, Value};

/// Block style, with a line break at the end.
#[must_use]
pub fn block(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut text, map, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut text, items, 0),
        other => {
            text.push_str(&flow(other));
            text.push('\n');
        }
    }
    text
}

/// Flow style, on one line without a line break.
#[must_use]
pub fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries = sorted(map).map(|(key, value)| format!("{}: {}", scalar(key, true), flow(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) => scalar(text, true),
        other => other.to_string(),
    }
}

fn sorted(map: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| key.as_str());
    entries.into_iter()
}

fn mapping(text: &mut String, map: &Map<String, Value>, indent: usize) {
    for (nth, (key, value)) in sorted(map).enumerate() {
        // The first line follows the dash of a sequence when there is one.
        if nth > 0 || text.is_empty() || text.ends_with('\n') {
            text.push_str(&" ".repeat(indent));
        }
        text.push_str(&scalar(key, false));
        text.push(':');
        nested(text, value, indent, indent);
    }
}

fn sequence(text: &mut String, items: &[Value], indent: usize) {
    for (nth, item) in items.iter().enumerate() {
        if nth > 0 || text.is_empty() || text.ends_with('\n') {
            text.push_str(&" ".repeat(indent));
        }
        text.push('-');
        match item {
            Value::Object(map) if !map.is_empty() => {
                text.push(' ');
                mapping(text, map, indent + 2);
            }
            Value::Array(items) if !items.is_empty() => {
                text.push(' ');
                sequence(text, items, indent + 2);
            }
            other => leaf(text, other),
        }
    }
}

/// What follows a key: sequences stay at the key's own indentation.
fn nested(text: &mut String, value: &Value, indent: usize, sequence_indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            mapping(text, map, indent + 2);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            sequence(text, items, sequence_indent);
        }
        other => leaf(text, other),
    }
}

fn leaf(text: &mut String, value: &Value) {
    text.push(' ');
    match value {
        Value::String(string) => text.push_str(&scalar(string, false)),
        other => text.push_str(&flow(other)),
    }
    text.push('\n');
}

/// Text as a scalar: plain where that reads back as the same text.
fn scalar(text: &str, in_flow: bool) -> String {
    if text
        .chars()
        .any(|c| c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}'))
    {
        // JSON's escapes are a subset of those of YAML's double quotes.
        return Value::String(text.to_owned()).to_string();
    }
    if is_plain(text, in_flow) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

fn is_plain(text: &str, in_flow: bool) -> bool {
    let Some(first) = text.chars().next() else {
        return false;
    };
    let second = text.chars().nth(1);
    let opens = match first {
        '-' | '?' | ':' => second.is_some_and(|c| c != ' ' && !(in_flow && ",[]{}".contains(c))),
        _ => !",[]{}#&*!|>'\"%@`=".contains(first),
    };
    opens
        && !text.starts_with("---")
        && !text.starts_with("...")
        && text.trim() == text
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with(':')
        && !(in_flow && text.contains([',', '[', ']', '{', '}', ':']))
        && !means_something_else(text)
}

/// Read as a null, a boolean, a number or a date by some version of YAML.
fn means_something_else(text: &str) -> bool {
    let word = text.to_ascii_lowercase();
    if matches!(
        word.as_str(),
        "~" | "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "<<"
    ) {
        return true;
    }
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(&word).replace('_', "");
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    let based = ["0x", "0o", "0b"].iter().any(|base| {
        unsigned
            .strip_prefix(base)
            .is_some_and(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()))
    });
    let sexagesimal = unsigned.contains(':')
        && unsigned
            .chars()
            .all(|c| c.is_ascii_digit() || c == ':' || c == '.');
    let bytes = unsigned.as_bytes();
    let dated = bytes.len() >= 8 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-';
    based
        || sexagesimal
        || dated
        || matches!(unsigned.as_str(), ".inf" | ".nan")
        || unsigned.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn block_style_is_what_patronictl_users_know() {
        let value = json!({
            "ttl": 30,
            "postgresql": {
                "parameters": {"max_connections": 100, "wal_level": "replica", "archive_mode": "on"},
                "pg_hba": ["host all all 0.0.0.0/0 md5", "local all all trust"],
                "use_slots": true,
            },
            "slots": {},
            "ignore_slots": [{"type": "logical", "name": "a"}, []],
            "nothing": null,
        });
        let expected = "\
ignore_slots:
- name: a
  type: logical
- []
nothing: null
postgresql:
  parameters:
    archive_mode: 'on'
    max_connections: 100
    wal_level: replica
  pg_hba:
  - host all all 0.0.0.0/0 md5
  - local all all trust
  use_slots: true
slots: {}
ttl: 30
";
        assert_eq!(block(&value), expected);
    }

    #[test]
    fn text_that_means_something_else_is_quoted() {
        let quoted = [
            "",
            "on",
            "No",
            "null",
            "~",
            "1",
            "-1",
            "1e5",
            "0x1F",
            "1_000",
            "10:30",
            "2026-11-24",
            "2026-11-24T10:33:00Z",
            " a",
            "a ",
            "a: b",
            "a #b",
            "a:",
            "-",
            "- a",
            "[a",
            "{a",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "'a",
            "\"a",
            "#a",
            ".5",
            ".inf",
            "---",
            "=",
        ];
        for text in quoted {
            assert_eq!(
                block(&json!(text)),
                format!("'{}'\n", text.replace('\'', "''")),
                "{text:?}"
            );
        }
        let plain = [
            "replica",
            "128MB",
            "/bin/true %f",
            "a:b",
            "-v",
            "30min",
            "0/4000060",
            "x y",
            "10.0.0.1/32",
            "inf",
        ];
        for text in plain {
            assert_eq!(scalar(text, false), text);
        }
        assert_eq!(block(&json!("a\nb\t")), "\"a\\nb\\t\"\n");
        assert_eq!(
            flow(&json!({"b": "x,y", "a": [1, "on"]})),
            "{a: [1, 'on'], b: 'x,y'}"
        );
    }
}
