//! The event time of a frame, from text or numbers.

use crate::json::{Number, Scanner, Value};
use crate::schema::TimeFormat;
use crate::words::{behind, few_digits};
use hb_sdk::time::{TimeError, parse_naive, parse_rfc3339};

const OUT_OF_RANGE: &str = "outside of the years 1678 to 2261";

/// Reads a time; the error says what is wrong with it.
pub(crate) fn event_time(value: Value, bytes: &[u8], format: TimeFormat) -> Result<i64, &'static str> {
    match value {
        Value::Number(n) => from_number(n, bytes, format),
        Value::Text(text) if text.escaped => {
            let mut decoded = Vec::new();
            text.decode_into(bytes, &mut decoded);
            from_text(&decoded, format)
        }
        Value::Text(text) => from_text(text.span.of(bytes), format),
        _ => Err("neither text nor a number"),
    }
}

/// The minute of the last time that was read: what follows mostly lies in the same one.
#[derive(Default)]
pub(crate) struct Minute {
    /// `2026-01-01T00:00`, or nothing.
    text: Box<[u8]>,
    ns: i64,
}

/// Bytes of a time up to its minute.
const MINUTE_LEN: usize = 16;

impl Minute {
    /// The time at `at` in UTC and the place behind it, if it lies in this minute.
    #[inline]
    pub(crate) fn read(&self, bytes: &[u8], at: usize) -> Option<(i64, usize)> {
        if self.text.is_empty() {
            return None;
        }
        let (ns, end) = after_minute(bytes, behind(bytes, at, &self.text)?)?;
        Some((self.ns.checked_add(ns)?, end))
    }

    /// Takes the minute of a time that was read from this text.
    pub(crate) fn learn(&mut self, text: &[u8], ns: i64) {
        if let Some(minute) = text.get(..MINUTE_LEN)
            && let Some((after, end)) = after_minute(text, MINUTE_LEN)
            && let (Some(ns), true) = (ns.checked_sub(after), end == text.len())
        {
            *self = Minute { text: minute.into(), ns };
        }
    }
}

/// Nanoseconds of `:00.123Z`, and the place behind it. A leap second is none of this minute.
#[inline]
fn after_minute(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    const SCALES: [i64; 9] = [0, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10];
    let &[colon, s1, s2, mark] = bytes.get(at..)?.first_chunk()?;
    let (high, low) = (s1.wrapping_sub(b'0'), s2.wrapping_sub(b'0'));
    if colon != b':' || high > 5 || low > 9 {
        return None;
    }
    let whole = i64::from(high * 10 + low) * 1_000_000_000;
    if mark != b'.' {
        return (mark == b'Z').then_some((whole, at + 4));
    }
    let (digits, count) = few_digits(bytes, at + 4);
    let end = at + 4 + count;
    (count > 0 && bytes.get(end) == Some(&b'Z')).then(|| (whole + digits as i64 * SCALES[count], end + 1))
}

fn from_text(text: &[u8], format: TimeFormat) -> Result<i64, &'static str> {
    let text = text.trim_ascii();
    let parsed = match format {
        TimeFormat::Rfc3339 => parse_rfc3339(text),
        TimeFormat::Naive => parse_naive(text),
        TimeFormat::Auto => match parse_rfc3339(text) {
            Err(TimeError::Malformed) => match parse_naive(text) {
                Err(TimeError::Malformed) => return numeric_text(text, format),
                other => other,
            },
            other => other,
        },
        _ => return numeric_text(text, format),
    };
    parsed.map_err(|e| match e {
        TimeError::OutOfRange => OUT_OF_RANGE,
        TimeError::NoSuchTime => "no such date or time",
        TimeError::Malformed if format == TimeFormat::Naive => "not of the form 2014-03-07 03:41:00",
        TimeError::Malformed => "not of the form 2026-01-01T00:00:00Z",
    })
}

fn numeric_text(text: &[u8], format: TimeFormat) -> Result<i64, &'static str> {
    let mut scanner = Scanner::new(text);
    match text {
        [b'-' | b'0'..=b'9', ..] => match scanner.number() {
            Ok(number) if scanner.pos == text.len() => from_number(number, text, format),
            _ => Err("neither a date nor a number"),
        },
        _ => Err("neither a date nor a number"),
    }
}

/// Seconds below this (year 5138) are seconds; the same for the finer units, each a thousand times more.
const AUTO_LIMIT: f64 = 1e11;

/// Exact to the nanosecond: the decimal digits are scaled, not a float.
fn from_number(number: Number, bytes: &[u8], format: TimeFormat) -> Result<i64, &'static str> {
    let power = match format {
        TimeFormat::UnixS => 9,
        TimeFormat::UnixMs => 6,
        TimeFormat::UnixUs => 3,
        TimeFormat::UnixNs => 0,
        TimeFormat::Auto => match number.to_f64(bytes).abs() {
            x if x < AUTO_LIMIT => 9,
            x if x < AUTO_LIMIT * 1e3 => 6,
            x if x < AUTO_LIMIT * 1e6 => 3,
            _ => 0,
        },
        TimeFormat::Rfc3339 | TimeFormat::Naive => return Err("a number, but the format asks for text"),
    };
    let shift = number.exponent + power;
    let magnitude = if number.mantissa == 0 {
        0
    } else if shift >= 0 {
        // More than 18 places overflow whatever the digits are.
        let factor = 10_i64.checked_pow(shift.unsigned_abs()).ok_or(OUT_OF_RANGE)?;
        i64::try_from(number.mantissa).ok().and_then(|m| m.checked_mul(factor)).ok_or(OUT_OF_RANGE)?
    } else {
        // Below a nanosecond digits are dropped, as in text.
        let divisor = 10_u64.checked_pow(shift.unsigned_abs());
        divisor.map_or(0, |d| (number.mantissa / d) as i64)
    };
    Ok(if number.negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(json: &str, format: TimeFormat) -> Result<i64, &'static str> {
        let mut scanner = Scanner::new(json.as_bytes());
        event_time(scanner.flat_value(0).unwrap(), json.as_bytes(), format)
    }

    const NEW_YEAR: i64 = 1_767_225_600_000_000_000;

    #[test]
    fn auto_reads_what_is_usual() {
        for json in [
            "\"2026-01-01T00:00:00Z\"",
            "\"2026-01-01T00:00:00.000Z\"",
            "\"2026-01-01T01:00:00+01:00\"",
            "\"2026-01-01 00:00:00\"",
            "\"2026-01-01\"",
            "1767225600",
            "1767225600.0",
            "1.7672256e9",
            "1767225600000",
            "1767225600000000",
            "1767225600000000000",
            "\"1767225600\"",
            "\"2026-01-01T00:00:00\\u005a\"",
        ] {
            assert_eq!(time(json, TimeFormat::Auto), Ok(NEW_YEAR), "{json}");
        }
    }

    #[test]
    fn numbers_are_exact_to_the_nanosecond() {
        assert_eq!(time("1767225600.123456789", TimeFormat::UnixS), Ok(NEW_YEAR + 123_456_789));
        assert_eq!(time("1767225600123.456789", TimeFormat::UnixMs), Ok(NEW_YEAR + 123_456_789));
        assert_eq!(time("1767225600123456789", TimeFormat::UnixNs), Ok(NEW_YEAR + 123_456_789));
        assert_eq!(time("1767225600123456.7891234", TimeFormat::UnixUs), Ok(NEW_YEAR + 123_456_789));
        assert_eq!(time("-1.5", TimeFormat::UnixS), Ok(-1_500_000_000));
        assert_eq!(time("0", TimeFormat::Auto), Ok(0));
    }

    #[test]
    fn a_minute_reads_what_the_calendar_reads_or_nothing() {
        let read = |minute: &Minute, text: &str| minute.read(text.as_bytes(), 0).filter(|found| found.1 == text.len());
        for (date, end) in [("2026-01-01T00:01", "Z"), ("1969-12-31 23:59", "Z"), ("2262-04-11T23:47", "Z")] {
            let mut minute = Minute::default();
            assert_eq!(read(&minute, &format!("{date}:00{end}")), None);
            assert_eq!(read(&minute, ":07Z"), None);
            let text = format!("{date}:07.25{end}");
            minute.learn(text.as_bytes(), parse_rfc3339(text.as_bytes()).unwrap());
            for second in ["00", "09", "16", "59"] {
                for fraction in ["", ".5", ".123", ".000001", ".85477580", ".8"] {
                    let text = format!("{date}:{second}{fraction}{end}");
                    let parsed = parse_rfc3339(text.as_bytes()).ok();
                    assert_eq!(read(&minute, &text).map(|found| found.0), parsed, "{text}");
                }
            }
            for rest in [":60Z", ":5Z", ":07", ":07.Z", ":07.123456789Z", ":07z", ":07+01:00", ":0aZ", ".07Z", ""] {
                assert_eq!(read(&minute, &format!("{date}{rest}")), None, "{rest}");
            }
            assert_eq!(read(&minute, "2026-01-01T00:02:00Z"), None);
        }
        let mut minute = Minute::default();
        for text in ["2026-01-01T00:00:60Z", "2026-01-01T00:00:00+01:00", "2026-01-01", "1767225600"] {
            minute.learn(text.as_bytes(), 0);
            assert!(minute.text.is_empty(), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_says_why() {
        for (json, format, why) in [
            ("\"soon\"", TimeFormat::Auto, "neither a date nor a number"),
            ("\"2026-02-30T00:00:00Z\"", TimeFormat::Auto, "no such date or time"),
            ("\"9999-01-01T00:00:00Z\"", TimeFormat::Auto, OUT_OF_RANGE),
            ("1e30", TimeFormat::UnixS, OUT_OF_RANGE),
            ("99999999999999", TimeFormat::UnixS, OUT_OF_RANGE),
            ("18446744073709551615", TimeFormat::UnixNs, OUT_OF_RANGE),
            ("true", TimeFormat::Auto, "neither text nor a number"),
            ("\"2026-01-01 00:00:00\"", TimeFormat::Rfc3339, "not of the form 2026-01-01T00:00:00Z"),
            ("\"2026-01-01T00:00:00Z\"", TimeFormat::Naive, "not of the form 2014-03-07 03:41:00"),
            ("5", TimeFormat::Naive, "a number, but the format asks for text"),
        ] {
            assert_eq!(time(json, format), Err(why), "{json}");
        }
    }
}
