//! The time in front of an older message: `Oct 11 22:14:15`, which has no year, or RFC 3339 as rsyslog writes it.

use crate::message::{Reason, time_reason};
use hb_sdk::time::{TimeError, format_rfc3339, parse_naive, parse_rfc3339};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The time that a text begins with, if it does, and what follows it. `offset_ns` is how far a time without an offset
/// is ahead of UTC.
pub(crate) fn parse(text: &str, received_ns: i64, offset_ns: i64) -> Result<Option<(i64, &str)>, Reason> {
    let parsed = if looks_iso(text.as_bytes()) {
        let (time, rest) = text.split_once(' ').unwrap_or((text, ""));
        let parsed = match parse_rfc3339(time.as_bytes()) {
            Err(TimeError::Malformed) => parse_naive(time.as_bytes()).and_then(|local| to_utc(local, offset_ns)),
            parsed => parsed,
        };
        parsed.map(|ns| (ns, rest))
    } else if let Some((civil, rest)) = Civil::parse(text) {
        civil.nearest(received_ns, offset_ns).map(|ns| (ns, rest))
    } else {
        return Ok(None);
    };
    parsed.map(Some).map_err(time_reason)
}

/// Whether the text begins with `2026-01-01T`.
fn looks_iso(text: &[u8]) -> bool {
    let form = b"dddd-dd-ddT";
    text.len() > form.len()
        && form.iter().zip(text).all(|(&form, b)| if form == b'd' { b.is_ascii_digit() } else { form == *b })
}

/// A local time whose year may be missing.
struct Civil<'a> {
    year: Option<&'a str>,
    month: usize,
    day: &'a str,
    /// `22:14:15`, with or without a fraction.
    clock: &'a str,
}

/// A time this near is the nearest one: the same date of another year is farther away.
const HALF_YEAR_NS: u64 = 182 * 86_400 * 1_000_000_000;

/// Years around the time of receipt, the nearest ones first. A 29th of February is at most four years away, also around
/// 2100, which has none.
const YEARS: [i64; 9] = [0, -1, 1, -2, 2, -3, 3, -4, 4];

impl<'a> Civil<'a> {
    /// `Oct 11 22:14:15`, as routers write it also `Oct 11 2026 22:14:15.123:`; what follows a space or ends the text.
    fn parse(text: &'a str) -> Option<(Self, &'a str)> {
        let (month, rest) = text.split_at_checked(3)?;
        let month = MONTHS.iter().position(|name| *name == month)? + 1;
        let (day, rest) = rest.strip_prefix(' ')?.trim_start_matches(' ').split_once(' ')?;
        let is_number = |text: &str, len: std::ops::RangeInclusive<usize>| {
            len.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
        };
        if !is_number(day, 1..=2) {
            return None;
        }
        let (year, rest) = match rest.split_once(' ') {
            Some((year, clock)) if is_number(year, 4..=4) => (Some(year), clock),
            _ => (None, rest),
        };
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let clock = word.strip_suffix(':').unwrap_or(word);
        let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
        let form = seconds.split(':').map(|part| is_number(part, 2..=2)).collect::<Vec<_>>();
        let is_clock = form == [true; 3] && is_number(fraction, 1..=9);
        is_clock.then_some((Self { year, month, day, clock }, rest))
    }

    /// The time in its own year, or else in the year that puts it nearest to the time of receipt.
    fn nearest(&self, received_ns: i64, offset_ns: i64) -> Result<i64, TimeError> {
        if let Some(year) = self.year {
            return self.in_year(year, offset_ns);
        }
        let year: i64 = format_rfc3339(received_ns)[..4].parse().map_err(|_| TimeError::OutOfRange)?;
        let mut nearest = Err(TimeError::NoSuchTime);
        let mut distance_min = u64::MAX;
        for time in YEARS.iter().filter_map(|step| self.in_year(&format!("{:04}", year + step), offset_ns).ok()) {
            let distance = time.abs_diff(received_ns);
            if distance < distance_min {
                (nearest, distance_min) = (Ok(time), distance);
            }
            if distance <= HALF_YEAR_NS {
                break;
            }
        }
        nearest
    }

    fn in_year(&self, year: &str, offset_ns: i64) -> Result<i64, TimeError> {
        let Self { month, day, clock, .. } = self;
        to_utc(parse_naive(format!("{year}-{month:02}-{day:0>2}T{clock}").as_bytes())?, offset_ns)
    }
}

fn to_utc(local_ns: i64, offset_ns: i64) -> Result<i64, TimeError> {
    local_ns.checked_sub(offset_ns).ok_or(TimeError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_NS: i64 = 3_600_000_000_000;

    /// Reads a time received at another: the time and what follows, `-` for none, or `! reason`.
    fn read_at(received: &str, offset_hours: i64, text: &str) -> String {
        let received_ns = parse_rfc3339(received.as_bytes()).unwrap();
        match parse(text, received_ns, offset_hours * HOUR_NS) {
            Ok(Some((ns, rest))) => format!("{}|{rest}", format_rfc3339(ns).replace(".000000000", "")),
            Ok(None) => "-".to_owned(),
            Err(reason) => format!("! {reason}"),
        }
    }

    #[test]
    fn the_year_is_the_one_nearest_to_the_receipt() {
        for (received, text, time) in [
            ("2026-10-11T22:14:16Z", "Oct 11 22:14:15 x", "2026-10-11T22:14:15Z|x"),
            ("2026-01-01T00:00:00Z", "Dec 31 23:59:59 x", "2025-12-31T23:59:59Z|x"),
            ("2025-12-31T23:59:59Z", "Jan  1 00:00:01 x", "2026-01-01T00:00:01Z|x"),
            ("2026-01-01T00:00:00Z", "Jun 30 00:00:00 x", "2026-06-30T00:00:00Z|x"),
            ("2026-01-01T00:00:00Z", "Jul  4 00:00:00 x", "2025-07-04T00:00:00Z|x"),
            ("2026-07-02T12:00:00Z", "Jan  1 00:00:00 x", "2026-01-01T00:00:00Z|x"),
            ("2026-07-02T12:00:00Z", "Dec 31 23:00:00 x", "2026-12-31T23:00:00Z|x"),
            ("2024-03-01T00:00:00Z", "Feb 29 12:00:00 x", "2024-02-29T12:00:00Z|x"),
            ("2026-02-01T00:00:00Z", "Feb 29 12:00:00 x", "2024-02-29T12:00:00Z|x"),
            ("2026-04-01T00:00:00Z", "Feb 29 12:00:00 x", "2028-02-29T12:00:00Z|x"),
            ("2100-02-28T00:00:00Z", "Feb 29 12:00:00 x", "2096-02-29T12:00:00Z|x"),
            ("2100-06-01T00:00:00Z", "Feb 29 12:00:00 x", "2104-02-29T12:00:00Z|x"),
        ] {
            assert_eq!(read_at(received, 0, text), time, "{text} received {received}");
        }
    }

    #[test]
    fn the_nearest_year_is_right_for_every_day() {
        let day = 24 * HOUR_NS;
        let received = parse_rfc3339(b"2025-03-15T12:00:00Z").unwrap();
        for days in -182..=182 {
            let time = received + days * day;
            let written = format_rfc3339(time);
            let month = MONTHS[written[5..7].parse::<usize>().unwrap() - 1];
            let text = format!("{month} {:>2} {}", written[8..10].trim_start_matches('0'), &written[11..19]);
            assert_eq!(parse(&text, received, 0), Ok(Some((time, ""))), "{text}");
        }
    }

    #[test]
    fn local_times_are_brought_to_utc() {
        let read = |text| read_at("2026-01-01T00:00:00Z", 2, text);
        assert_eq!(read("Jan  1 01:00:00 x"), "2025-12-31T23:00:00Z|x");
        assert_eq!(read("2026-01-01T01:00:00 x"), "2025-12-31T23:00:00Z|x");
        assert_eq!(read("2026-01-01T01:00:00Z x"), "2026-01-01T01:00:00Z|x");
        assert_eq!(read("2026-01-01T01:00:00.5+01:00 x"), "2026-01-01T00:00:00.500000000Z|x");
    }

    #[test]
    fn variants_of_routers_are_read() {
        let read = |text| read_at("2026-01-01T00:00:00Z", 0, text);
        assert_eq!(read("Jan 1 00:00:00"), "2026-01-01T00:00:00Z|");
        assert_eq!(read("Jan 01 00:00:00.250 x"), "2026-01-01T00:00:00.250000000Z|x");
        assert_eq!(read("Oct 11 2003 22:14:15: x"), "2003-10-11T22:14:15Z|x");
    }

    #[test]
    fn what_is_no_time_is_text_and_a_wrong_one_is_refused() {
        let read = |text| read_at("2026-01-01T00:00:00Z", 0, text);
        for text in [
            "",
            "Oct",
            "Oct ",
            "Oct 11",
            "Oct 11 22",
            "oct 11 22:14:15",
            "Oct 111 22:14:15",
            "Oct 11 2:14:15",
            "Oct 11 22:14",
            "Oct 11 22:14:15x",
            "Oct 11 22:14:15.",
            "Oct x 22:14:15",
            "Öct 11 22:14:15",
            "é",
            "2026-01-01",
            "2026-01-01 00:00:00 x",
        ] {
            assert_eq!(read(text), "-", "{text}");
        }
        for (text, reason) in [
            ("Oct 32 22:14:15 x", "timestamp: no such date or time"),
            ("Feb 30 22:14:15 x", "timestamp: no such date or time"),
            ("Oct 11 24:14:15 x", "timestamp: no such date or time"),
            ("Oct 11 9999 22:14:15 x", "timestamp: outside of the years 1678 to 2261"),
            ("2026-13-01T00:00:00Z x", "timestamp: no such date or time"),
            ("2026-01-01T0:00:00Z x", "timestamp: not of the form 2026-01-01T00:00:00Z"),
            ("9999-01-01T00:00:00Z x", "timestamp: outside of the years 1678 to 2261"),
        ] {
            assert_eq!(read(text), format!("! {reason}"), "{text}");
        }
    }
}
