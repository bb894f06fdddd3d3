//! What one written value means: booleans, numbers, durations and sizes.
//!
//! A plain (unquoted) value is typed as YAML 1.1 types it, as PyYAML does for Patroni, with one exception: `10:30` stays text
//! instead of being a number in base 60. Where a boolean or a number is *expected*, a quoted one is accepted as well.

use std::time::Duration;

use serde_json::Value;

/// True for the ways to write nothing.
pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// The type of a plain scalar.
pub(super) fn resolve(text: &str) -> Value {
    if is_null(text) {
        return Value::Null;
    }
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    if let Some(number) = plain_integer(text) {
        return number.into();
    }
    if let Some(number) = plain_float(text) {
        return number.into();
    }
    Value::String(text.to_owned())
}

/// A whole number as YAML 1.1 writes it (`0644` is octal), and YAML 1.2's `0o644`.
pub(super) fn plain_integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let clean = digits.replace('_', "");
    // from_str_radix would take a second sign.
    if !digits.starts_with(|first: char| first.is_ascii_digit()) || digits.contains(['+', '-']) {
        return None;
    }
    let value = if let Some(hex) = clean.strip_prefix("0x") {
        i64::from_str_radix(hex, 16).ok()?
    } else if let Some(octal) = clean.strip_prefix("0o") {
        i64::from_str_radix(octal, 8).ok()?
    } else if let Some(binary) = clean.strip_prefix("0b") {
        i64::from_str_radix(binary, 2).ok()?
    } else if clean.len() > 1 && clean.starts_with('0') {
        i64::from_str_radix(&clean[1..], 8).ok()?
    } else {
        clean.parse().ok()?
    };
    Some(sign * value)
}

/// A fraction. As in YAML 1.1 it needs a point, and its exponent a sign: `1e3` is text.
fn plain_float(text: &str) -> Option<f64> {
    let clean = text.replace('_', "");
    let digits = clean.trim_start_matches(['-', '+']);
    let number = text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '.' | '-' | '+'))
        && digits.contains('.')
        && digits
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        && digits
            .find(['e', 'E'])
            .is_none_or(|at| digits[at + 1..].starts_with(['+', '-']));
    if number {
        clean.parse().ok().filter(|value: &f64| value.is_finite())
    } else {
        None
    }
}

/// The ways in which Patroni's users write a boolean.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// A whole number, plain or quoted.
pub(super) fn integer(text: &str, quoted: bool) -> Option<i64> {
    if quoted {
        text.trim().parse().ok()
    } else {
        plain_integer(text)
    }
}

/// A number with an optional unit: `16`, `16MB`, `1.5 h`.
fn split_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+')))
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    number.is_finite().then_some((number, text[end..].trim()))
}

/// A duration in PostgreSQL's units (`us ms s min h d`), and the longer words that people write for them. A number alone counts
/// in `unit`. `None` if it is neither or negative.
pub(super) fn duration(text: &str, unit: Duration) -> Option<Duration> {
    let (number, suffix) = split_unit(text)?;
    let unit = match suffix {
        "" => unit,
        "us" => Duration::from_micros(1),
        "ms" => Duration::from_millis(1),
        "s" | "sec" | "secs" | "second" | "seconds" => Duration::from_secs(1),
        "min" | "m" | "mins" | "minute" | "minutes" => Duration::from_secs(60),
        "h" | "hr" | "hrs" | "hour" | "hours" => Duration::from_secs(3600),
        "d" | "day" | "days" => Duration::from_secs(86400),
        _ => return None,
    };
    let seconds = number * unit.as_secs_f64();
    // A century: far beyond use, far below what overflows.
    if (0.0..=3.2e9).contains(&seconds) {
        Duration::try_from_secs_f64(seconds).ok()
    } else {
        None
    }
}

/// A size in bytes with PostgreSQL's units (`B kB MB GB TB`, any case). A number alone counts bytes. `None` if it is neither or
/// negative.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, suffix) = split_unit(text)?;
    let power = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "kb" | "k" => 10,
        "mb" | "m" => 20,
        "gb" | "g" => 30,
        "tb" | "t" => 40,
        _ => return None,
    };
    let bytes = number * (1_u64 << power) as f64;
    // 2^53: exact in a double, and eight petabytes.
    if (0.0..=9_007_199_254_740_992.0).contains(&bytes) {
        Some(bytes as u64)
    } else {
        None
    }
}

/// Rewrites a duration whose unit PostgreSQL does not know (`1hr`, `5 minutes`) into one that it does. `None` if nothing is to
/// be done, or nothing can.
///
/// PostgreSQL 15 refuses to start with `recovery_min_apply_delay = '1hr'`, and articles about Patroni recommend exactly that.
pub(super) fn postgres_duration(text: &str) -> Option<String> {
    let (_, suffix) = split_unit(text)?;
    let unit = match suffix {
        "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "mins" | "minute" | "minutes" => "min",
        "hr" | "hrs" | "hour" | "hours" => "h",
        "day" | "days" => "d",
        _ => return None,
    };
    Some(format!("{}{unit}", text.trim().trim_end_matches(suffix).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_pyyaml() {
        // What PyYAML 6 answers, but for 0o17, which YAML 1.2 added.
        for (text, number) in [
            ("07", 7.0),
            ("010", 8.0),
            ("0x1f", 31.0),
            ("0b101", 5.0),
            ("1_000", 1000.0),
            ("+5", 5.0),
            ("-0x10", -16.0),
            ("0o17", 15.0),
            ("1.", 1.0),
            ("-1.5", -1.5),
            ("1.0e+3", 1000.0),
            ("1_0.5", 10.5),
        ] {
            assert_eq!(resolve(text).as_f64(), Some(number), "{text}");
        }
        for text in [
            "08", "1.5e3", "1.2.3", "1-2", "y", "tRue", "1800s", "-", ".", "_1", "10:30",
        ] {
            assert_eq!(resolve(text), Value::String(text.to_owned()));
        }
    }

    #[test]
    fn durations_with_units() {
        let seconds = |text| duration(text, Duration::from_secs(1)).map(|d| d.as_secs_f64());
        assert_eq!(seconds("30"), Some(30.0));
        assert_eq!(seconds("30min"), Some(1800.0));
        assert_eq!(seconds("1hr"), Some(3600.0));
        assert_eq!(seconds("1.5 h"), Some(5400.0));
        assert_eq!(seconds("500ms"), Some(0.5));
        for bad in ["", "min", "-1", "1 fortnight", "1e400", "nan", "99999999999999"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_with_units() {
        assert_eq!(size("1048576"), Some(1 << 20));
        assert_eq!(size("16MB"), Some(16 << 20));
        assert_eq!(size("1 GB"), Some(1 << 30));
        for bad in ["", "MB", "-1", "1 apple", "1e30TB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn units_that_postgres_does_not_know_are_rewritten() {
        assert_eq!(postgres_duration("1hr"), Some("1h".to_owned()));
        assert_eq!(postgres_duration("5 minutes"), Some("5min".to_owned()));
        assert_eq!(postgres_duration("1h"), None);
        assert_eq!(postgres_duration("3600000"), None);
    }
}
