//! The event time of a frame, from text or numbers.

use crate::json::{Number, Scanner, Value};
use crate::schema::TimeFormat;
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
