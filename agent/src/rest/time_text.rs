//! Points in time as text: how people may write them, and the three notations in which they are shown.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// `2026-11-20 09:22:40.696997+00:00`, as PostgreSQL's times are shown.
pub(super) fn plain(since_epoch: Duration) -> String {
    format(
        since_epoch,
        if since_epoch.subsec_micros() == 0 {
            "%F %T+00:00"
        } else {
            "%F %T.%6f+00:00"
        },
    )
}

/// `2026-11-24T10:33:00+00:00`, as schedules are kept in the DCS.
pub(super) fn iso(since_epoch: Duration) -> String {
    format(
        since_epoch,
        if since_epoch.subsec_micros() == 0 {
            "%FT%T+00:00"
        } else {
            "%FT%T.%6f+00:00"
        },
    )
}

/// `Fri, 20 Nov 2026 09:22:40 GMT`, as HTTP has it.
pub(super) fn http(since_epoch: Duration) -> String {
    format(since_epoch, "%a, %d %b %Y %T GMT")
}

fn format(since_epoch: Duration, layout: &str) -> String {
    let nanoseconds = i128::try_from(since_epoch.as_nanos()).unwrap_or(i128::MAX);
    Timestamp::from_nanosecond(nanoseconds)
        .unwrap_or(Timestamp::MAX)
        .strftime(layout)
        .to_string()
}

/// Why a text is no point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoTime {
    /// A date and time whose zone is not said.
    ZoneMissing,
    /// Not understood, or before 1970.
    Garbage,
}

/// Reads ISO 8601 with an offset, `Z` or `UTC`, and the form of e-mail headers.
pub(super) fn parse(text: &str) -> Result<Duration, NoTime> {
    let text = text.trim();
    let utc = ["UTC", "GMT", "utc", "Z", "z"]
        .iter()
        .find_map(|zone| text.strip_suffix(zone))
        .map(|time| format!("{}Z", time.trim_end()));
    let spaceless = text
        .rsplit_once(' ')
        .filter(|(_, zone)| zone.starts_with(['+', '-']))
        .map(|(time, zone)| format!("{}{zone}", time.trim_end()));
    let timestamp = [utc.as_deref(), spaceless.as_deref(), Some(text)]
        .into_iter()
        .flatten()
        .find_map(|text| text.parse::<Timestamp>().ok())
        .or_else(|| rfc2822::DateTimeParser::new().parse_timestamp(text).ok());
    match timestamp {
        Some(timestamp) => Duration::try_from(timestamp.as_duration()).map_err(|_| NoTime::Garbage),
        None if text.parse::<jiff::civil::DateTime>().is_ok() => Err(NoTime::ZoneMissing),
        None => Err(NoTime::Garbage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown() {
        let expected = Duration::from_secs(1_795_166_400);
        for text in [
            "2026-11-20T10:20:00+01:00",
            "2026-11-20T09:20:00Z",
            "2026-11-20 09:20:00 UTC",
            "2026-11-20T09:20Z",
            "2026-11-20 11:20+02",
            "2026-11-20 11:20:00 +0200",
            "20261120T092000Z",
            "Fri, 20 Nov 2026 09:20:00 GMT",
            "Fri, 20 Nov 2026 10:20:00 +0100",
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for text in ["2026-11-20T10:00:00", "2026-11-20 10:00", "2026-11-20"] {
            assert_eq!(parse(text), Err(NoTime::ZoneMissing), "{text}");
        }
        for text in ["", "tomorrow", "2026-13-40T10:00:00Z", "12", "Z", "\u{0}"] {
            assert_eq!(parse(text), Err(NoTime::Garbage), "{text}");
        }
        let time = parse("2026-11-20T09:22:40.696997Z").unwrap();
        assert_eq!(plain(time), "2026-11-20 09:22:40.696997+00:00");
        assert_eq!(
            iso(Duration::from_secs(time.as_secs())),
            "2026-11-20T09:22:40+00:00"
        );
        assert_eq!(http(time), "Fri, 20 Nov 2026 09:22:40 GMT");
        assert_eq!(iso(Duration::MAX).len(), "9999-12-30T22:00:00.999999+00:00".len());
    }
}
