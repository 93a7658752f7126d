//! The priority in front of a message: `<28>` is facility 3, severity 4.

use crate::message::Reason;

/// The highest priority there is: facility 23, severity 7.
const MAX: u16 = 191;

/// As rsyslog writes them in configuration and output.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// The priority, if the text begins with one, and what follows it.
pub(crate) fn parse(text: &str) -> Result<Option<(u16, &str)>, Reason> {
    let Some((digits, rest)) = text.strip_prefix('<').and_then(|text| text.split_once('>')) else { return Ok(None) };
    // Anything else in angle brackets is the beginning of some text.
    if !(1..=3).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let leading_zero = digits.len() > 1 && digits.starts_with('0');
    match digits.parse() {
        Ok(priority) if priority <= MAX && !leading_zero => Ok(Some((priority, rest))),
        _ => Err("priority: not a number from 0 to 191"),
    }
}

/// The name of a priority's facility.
pub(crate) fn facility_of(priority: u16) -> Option<&'static str> {
    facility(usize::from(priority / 8))
}

/// The name of a priority's severity.
pub(crate) fn severity_of(priority: u16) -> Option<&'static str> {
    severity(usize::from(priority % 8))
}

/// The name of a facility.
pub(crate) fn facility(code: usize) -> Option<&'static str> {
    FACILITIES.get(code).copied()
}

/// The name of a severity.
pub(crate) fn severity(code: usize) -> Option<&'static str> {
    SEVERITIES.get(code).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_read_or_is_no_priority() {
        assert_eq!(parse("<0>x"), Ok(Some((0, "x"))));
        assert_eq!(parse("<191>"), Ok(Some((191, ""))));
        for text in ["", "x", "<>x", "<13", "<1a>x", "<-1>x", "<+1>x", "< 1>x", "<1234>x", "<a>", "13>"] {
            assert_eq!(parse(text), Ok(None), "{text}");
        }
        for text in ["<192>x", "<999>x", "<00>x", "<013>x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_follow_the_numbers() {
        assert_eq!((facility_of(28), severity_of(28)), (Some("daemon"), Some("warning")));
        assert_eq!((facility_of(0), severity_of(0)), (Some("kern"), Some("emerg")));
        assert_eq!((facility_of(MAX), severity_of(MAX)), (Some("local7"), Some("debug")));
        assert_eq!((facility(24), severity(8)), (None, None));
    }
}
