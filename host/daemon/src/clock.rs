//! The wall clock and the way times are written. Only faces and the record of commits read it; the engine never does.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Now, ns since the Unix epoch.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC with as many digits as are needed, as `2026-11-20T10:00:00Z`.
pub fn rfc3339(ns: i64) -> String {
    Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| ns.to_string(), |t| t.to_string())
}

/// Reads RFC 3339, with or without offset (then UTC), or a bare date.
///
/// # Errors
/// A sentence saying what was expected.
pub fn parse(text: &str) -> Result<i64, String> {
    let zoned = |t: &str| t.parse::<Timestamp>().ok();
    let time = zoned(text).or_else(|| zoned(&format!("{text}Z"))).or_else(|| zoned(&format!("{text}T00:00:00Z")));
    time.and_then(|t| i64::try_from(t.as_nanosecond()).ok())
        .ok_or_else(|| format!("`{text}` is no time; write it as 2026-11-20T10:00:00Z or 2026-11-20"))
}

/// Reads a span such as `90s`, `15m`, `24h`, `7d`; ns.
///
/// # Errors
/// A sentence saying what was expected.
pub fn parse_span(text: &str) -> Result<i64, String> {
    let split = text.len() - text.chars().next_back().map_or(0, char::len_utf8);
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 0,
    };
    let sec = number.parse::<i64>().ok().filter(|n| *n > 0 && factor > 0).and_then(|n| n.checked_mul(factor));
    sec.and_then(|s| s.checked_mul(hb_engine::NS_PER_SEC))
        .ok_or_else(|| format!("`{text}` is no span; write a whole number and s, m, h or d, as 24h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans_are_read_and_written() {
        let t = parse("2026-11-20T10:00:00Z").unwrap();
        assert_eq!(t, parse("2026-11-20T11:00:00+01:00").unwrap());
        assert_eq!(t, parse("2026-11-20T10:00:00").unwrap());
        assert_eq!(rfc3339(t), "2026-11-20T10:00:00Z");
        assert_eq!(parse("2026-11-20").unwrap() + 10 * 3_600_000_000_000, t);
        assert!(parse("yesterday").is_err());
        assert_eq!(parse_span("24h").unwrap(), 86_400_000_000_000);
        assert!(parse_span("24").is_err() && parse_span("-1h").is_err() && parse_span("").is_err());
    }
}
