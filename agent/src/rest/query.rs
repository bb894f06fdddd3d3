//! The query part of a request, and the units that it (and JSON bodies) may use.

use serde_json::Value;

/// The items of a query in order, decoded. An item without a value counts only for [`Query::names`].
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part after the `?`.
    pub(super) fn parse(text: &str) -> Self {
        let items = text.split('&').map(|item| {
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            (decode(key), decode(value))
        });
        Self(items.collect())
    }

    /// The first value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// All items that have a value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let items = self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        items.filter(|(_, value)| !value.is_empty())
    }

    /// The key is there, with a value or without.
    pub(super) fn names(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(escaped) => {
                decoded.push(escaped);
                at += 3;
            }
            None => {
                decoded.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Bytes, as `16MB`, `1.5 GB` or a bare number.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let factor = |unit: &str| match unit {
        "" | "B" => Some(1.0),
        "kB" => Some(1024.0),
        "MB" => Some(1024.0 * 1024.0),
        "GB" => Some(1024.0 * 1024.0 * 1024.0),
        "TB" => Some(1024.0 * 1024.0 * 1024.0 * 1024.0),
        _ => None,
    };
    scaled(text, factor).map(|bytes| bytes.round() as u64)
}

/// Seconds, as a JSON number, or a text such as `90`, `90s`, `1.5min`.
pub(super) fn seconds(value: &Value) -> Option<f64> {
    let factor = |unit: &str| match unit {
        "" | "s" => Some(1.0),
        "ms" => Some(0.001),
        "min" => Some(60.0),
        "h" => Some(3600.0),
        "d" => Some(86400.0),
        _ => None,
    };
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => scaled(text, factor),
        _ => None,
    }
}

fn scaled(text: &str, factor: impl Fn(&str) -> Option<f64>) -> Option<f64> {
    let text = text.trim();
    let end = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some(number.parse::<f64>().ok()? * factor(unit.trim())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("lag=16MB&tag_key=va%6Cue+x&empty=&flag&lag=1&bad=%zz%4");
        assert_eq!(query.get("lag"), Some("16MB"));
        assert_eq!(query.get("tag_key"), Some("value x"));
        assert_eq!(query.get("empty"), None);
        assert_eq!(query.get("flag"), None);
        assert!(query.names("flag") && query.names("lag") && !query.names("other"));
        assert_eq!(query.get("bad"), Some("%zz%4"));
        assert!(Query::parse("%=%&=&&&é=%ff").get("x").is_none());
    }

    #[test]
    fn units_are_read() {
        for (text, expected) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("10B", Some(10)),
            ("16MB", Some(16 << 20)),
            ("1.5 kB", Some(1536)),
            ("1TB", Some(1 << 40)),
            ("x", None),
            ("10mb", None),
            ("-1", None),
            ("1.2.3", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
        assert_eq!(seconds(&serde_json::json!("2min")), Some(120.0));
        assert_eq!(seconds(&serde_json::json!(3)), Some(3.0));
        assert_eq!(seconds(&serde_json::json!(true)), None);
    }
}
