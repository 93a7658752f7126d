//! Times in text: RFC 3339 and its looser relatives, to and from nanoseconds since the Unix epoch.

use std::fmt;

const NS_PER_SEC: i64 = 1_000_000_000;
const SECS_PER_DAY: i64 = 86_400;

/// Why a text is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeError {
    /// The text does not have the form `2026-01-01T00:00:00Z`.
    Malformed,
    /// A month, day, hour, minute, second or offset does not exist.
    NoSuchTime,
    /// Nanoseconds of 64 bits reach from 1677-09-21 to 2262-04-11.
    OutOfRange,
}

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not of the form 2026-01-01T00:00:00Z",
            Self::NoSuchTime => "no such date or time",
            Self::OutOfRange => "outside of the years 1678 to 2261",
        })
    }
}

impl std::error::Error for TimeError {}

/// Reads `2026-01-01T00:00:00.123456789+01:00`. Digits beyond nanoseconds are dropped; `T` may be a space or small, `Z`
/// may be small; a leap second is the first of the next minute.
pub fn parse_rfc3339(text: &[u8]) -> Result<i64, TimeError> {
    let (local_sec, ns, rest) = parse_civil(text, Precision::Seconds)?;
    let offset_sec = match rest {
        [b'Z' | b'z'] => 0,
        &[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(h1, h2)?, two(m1, m2)?);
            if hours > 23 || minutes > 59 {
                return Err(TimeError::NoSuchTime);
            }
            let offset = i64::from(hours) * 3_600 + i64::from(minutes) * 60;
            if sign == b'-' { -offset } else { offset }
        }
        _ => return Err(TimeError::Malformed),
    };
    join(local_sec - offset_sec, ns)
}

/// Reads a time without an offset as UTC: `2014-03-07 03:41:00.5`, `2014-03-07T03:41`, `2014-03-07`.
pub fn parse_naive(text: &[u8]) -> Result<i64, TimeError> {
    match parse_civil(text, Precision::Days)? {
        (sec, ns, []) => join(sec, ns),
        _ => Err(TimeError::Malformed),
    }
}

/// Writes `2026-01-01T00:00:00.000000000Z`.
pub fn format_rfc3339(time_ns: i64) -> String {
    let sec = time_ns.div_euclid(NS_PER_SEC);
    let ns = time_ns.rem_euclid(NS_PER_SEC);
    let (year, month, day) = civil_from_days(sec.div_euclid(SECS_PER_DAY));
    let of_day = sec.rem_euclid(SECS_PER_DAY);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ns:09}Z")
}

/// The least that must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Precision {
    Days,
    Seconds,
}

/// Seconds since the epoch, nanoseconds, and what follows.
fn parse_civil(text: &[u8], least: Precision) -> Result<(i64, i64, &[u8]), TimeError> {
    let &[y1, y2, y3, y4, b'-', mo1, mo2, b'-', d1, d2, ref rest @ ..] = text else { return Err(TimeError::Malformed) };
    let year = i64::from(two(y1, y2)? * 100 + two(y3, y4)?);
    let (month, day) = (two(mo1, mo2)?, two(d1, d2)?);
    if month == 0 || month > 12 || day == 0 || day > days_in_month(year, month) {
        return Err(TimeError::NoSuchTime);
    }
    let days = days_from_civil(year, i64::from(month), i64::from(day));
    let (hour, minute, second, ns, rest) = match *rest {
        [b'T' | b't' | b' ', h1, h2, b':', m1, m2, b':', s1, s2, ref rest @ ..] => {
            let (ns, rest) = fraction(rest)?;
            (two(h1, h2)?, two(m1, m2)?, two(s1, s2)?, ns, rest)
        }
        [b'T' | b't' | b' ', h1, h2, b':', m1, m2] if least == Precision::Days => {
            (two(h1, h2)?, two(m1, m2)?, 0, 0, &[][..])
        }
        [] if least == Precision::Days => (0, 0, 0, 0, &[][..]),
        _ => return Err(TimeError::Malformed),
    };
    if hour > 23 || minute > 59 || second > 60 {
        return Err(TimeError::NoSuchTime);
    }
    let of_day = i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second);
    Ok((days * SECS_PER_DAY + of_day, ns, rest))
}

/// Nanoseconds of a `.5`, and what follows.
fn fraction(text: &[u8]) -> Result<(i64, &[u8]), TimeError> {
    let [b'.' | b',', digits @ ..] = text else { return Ok((0, text)) };
    let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if count == 0 {
        return Err(TimeError::Malformed);
    }
    let padded = digits[..count].iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let ns = padded.fold(0, |ns, digit| ns * 10 + i64::from(digit - b'0'));
    Ok((ns, &digits[count..]))
}

fn two(a: u8, b: u8) -> Result<u32, TimeError> {
    if a.is_ascii_digit() && b.is_ascii_digit() {
        Ok(u32::from(a - b'0') * 10 + u32::from(b - b'0'))
    } else {
        Err(TimeError::Malformed)
    }
}

fn join(sec: i64, ns: i64) -> Result<i64, TimeError> {
    sec.checked_mul(NS_PER_SEC).and_then(|n| n.checked_add(ns)).ok_or(TimeError::OutOfRange)
}

fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, by eras of 400 years that begin in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (text, ns) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-01-01T00:00:00Z", 1_767_225_600_000_000_000),
            ("2026-01-01T01:00:00+01:00", 1_767_225_600_000_000_000),
            ("2025-12-31t19:30:00-04:30", 1_767_225_600_000_000_000),
            ("2026-01-01 00:00:00.000000001z", 1_767_225_600_000_000_001),
            ("2026-01-01T00:00:00.1234567899Z", 1_767_225_600_123_456_789),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
            ("1969-12-31T23:59:59.5Z", -500_000_000),
            ("2024-02-29T12:00:00Z", 1_709_208_000_000_000_000),
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), Ok(ns), "{text}");
        }
    }

    #[test]
    fn naive_times_are_utc() {
        for text in ["2014-03-07 03:41:00", "2014-03-07T03:41:00.000", "2014-03-07 03:41"] {
            assert_eq!(parse_naive(text.as_bytes()), Ok(1_394_163_660_000_000_000), "{text}");
        }
        assert_eq!(parse_naive(b"1970-01-02"), Ok(86_400_000_000_000));
        assert_eq!(parse_naive(b"2014-03-07 03:41:00Z"), Err(TimeError::Malformed));
        assert_eq!(parse_rfc3339(b"2014-03-07 03:41:00"), Err(TimeError::Malformed));
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        for text in [
            "2025-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:61Z",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+00:60",
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), Err(TimeError::NoSuchTime), "{text}");
        }
        for text in [
            "",
            "2026",
            "2026-1-1T0:0:0Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00Z",
            "2026-01-01T00:00:00+0100",
            "2026-01-01T00:00:00Zx",
            "２０２６-01-01T00:00:00Z",
            "-026-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), Err(TimeError::Malformed), "{text}");
        }
    }

    #[test]
    fn the_range_is_checked() {
        assert_eq!(parse_rfc3339(b"2262-04-11T23:47:16.854775807Z"), Ok(i64::MAX));
        assert_eq!(parse_rfc3339(b"2262-04-11T23:47:16.854775808Z"), Err(TimeError::OutOfRange));
        assert_eq!(parse_rfc3339(b"9999-12-31T23:59:59Z"), Err(TimeError::OutOfRange));
        assert_eq!(parse_rfc3339(b"0000-01-01T00:00:00Z"), Err(TimeError::OutOfRange));
        assert!(parse_rfc3339(b"1677-09-22T00:00:00Z").is_ok());
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let step = 86_399_999_999_999_i64 * 13;
        let mut time = -9_000_000_000_000_000_000_i64;
        while let Some(next) = time.checked_add(step) {
            assert_eq!(parse_rfc3339(format_rfc3339(time).as_bytes()), Ok(time));
            time = next;
        }
        assert_eq!(format_rfc3339(1_767_225_600_000_000_001), "2026-01-01T00:00:00.000000001Z");
    }
}
