//! RFC 5424: `<34>1 2003-10-11T22:14:15.003Z host program pid msgid [sdid key="value"] msg`, and `-` for what is absent.

mod structured_data;

use crate::message::{Message, Reason, part, time_reason};
use crate::priority;
use hb_sdk::time::parse_rfc3339;

/// How closely a message is held to the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Letter {
    /// To the letter: lengths and characters of the header, times to the microsecond, no name twice.
    Strict,
    /// What can be understood without doubt is taken; names of containers are longer than the RFC foresaw.
    Lenient,
}

/// Lengths of the header's parts, by RFC 5424 section 6.
const HOST_MAX: usize = 255;
const PROGRAM_MAX: usize = 48;
const PID_MAX: usize = 128;
const MSGID_MAX: usize = 32;

/// A message may begin so to say that it is UTF-8, which it has to be anyway.
const BOM: char = '\u{feff}';

/// Whether a version and a time or its absence follow the priority: no text begins like this by chance.
pub(crate) fn looks_like(text: &str) -> bool {
    let Ok(Some((_, rest))) = priority::parse(text) else { return false };
    let Some(Ok(rest)) = rest.split_once(' ').map(|(number, rest)| version(number).map(|()| rest)) else {
        return false;
    };
    let year = rest.bytes().take_while(u8::is_ascii_digit).count();
    match rest.as_bytes() {
        [b'-'] | [b'-', b' ', ..] => true,
        time => year == 4 && time.get(4) == Some(&b'-'),
    }
}

/// Reads a message.
pub(crate) fn parse(text: &str, received_ns: i64, letter: Letter) -> Result<Message<'_>, Reason> {
    let (priority, rest) = priority::parse(text)?.ok_or("priority: missing")?;
    let (number, rest) = rest.split_once(' ').ok_or(ENDS_EARLY)?;
    version(number)?;
    let mut header = Header { rest, letter };
    let time_ns = match header.next(usize::MAX)? {
        None => received_ns,
        Some(time) if letter == Letter::Strict && !is_time_by_the_letter(time.as_bytes()) => {
            return Err("timestamp: not as RFC 5424 has it");
        }
        Some(time) => parse_rfc3339(time.as_bytes()).map_err(time_reason)?,
    };
    let host = header.next(HOST_MAX)?;
    let program = header.next(PROGRAM_MAX)?;
    let pid = header.next(PID_MAX)?;
    let msgid = header.next(MSGID_MAX)?;
    let mut message = Message {
        time_ns,
        host: host.and_then(part),
        program: program.and_then(part),
        pid: pid.and_then(part),
        msgid: msgid.and_then(part),
        facility: priority::facility_of(priority),
        severity: priority::severity_of(priority),
        ..Message::default()
    };
    let rest = structured_data::parse(header.rest, letter, &mut message.fields)?;
    let msg =
        if rest.is_empty() { rest } else { rest.strip_prefix(' ').ok_or("structured data: no space behind it")? };
    message.msg = part(msg.strip_prefix(BOM).unwrap_or(msg));
    Ok(message)
}

const ENDS_EARLY: Reason = "header: ends early";

/// Only version 1 exists; the grammar provides for 999.
fn version(number: &str) -> Result<(), Reason> {
    let is_number = (1..=3).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    if is_number && !number.starts_with('0') { Ok(()) } else { Err("version: not a number from 1 to 999") }
}

/// The parts of the header, each with a space behind it.
struct Header<'a> {
    rest: &'a str,
    letter: Letter,
}

impl<'a> Header<'a> {
    /// The next part; none when it is `-`.
    fn next(&mut self, max: usize) -> Result<Option<&'a str>, Reason> {
        let (part, rest) = self.rest.split_once(' ').ok_or(ENDS_EARLY)?;
        self.rest = rest;
        if part.is_empty() {
            return Err("header: two spaces in a row");
        }
        if self.letter == Letter::Strict && part.len() > max {
            return Err("header: a part is too long");
        }
        if self.letter == Letter::Strict && !part.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("header: not printable ASCII");
        }
        Ok((part != "-").then_some(part))
    }
}

/// What RFC 5424 asks of a time beyond RFC 3339: large letters, at most microseconds, no leap seconds.
fn is_time_by_the_letter(time: &[u8]) -> bool {
    let fraction = time.split(|&b| b == b'.').nth(1).unwrap_or_default();
    let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
    let leap = time.get(17..19) == Some(b"60");
    digits <= 6 && !leap && !time.iter().any(|b| matches!(b, b't' | b'z' | b','))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, letter: Letter) -> String {
        match parse(text, 0, letter) {
            Ok(message) => serde_json::to_string(&message).unwrap(),
            Err(reason) => format!("! {reason}"),
        }
    }

    /// Both ways of reading agree.
    fn check(text: &str, expected: &str) {
        assert_eq!(read(text, Letter::Strict), expected, "{text}");
        assert_eq!(read(text, Letter::Lenient), expected, "{text}");
        assert!(looks_like(text), "{text}");
    }

    /// Only a lenient reader takes it.
    fn check_lenient(text: &str, reason: &str, expected: &str) {
        assert_eq!(read(text, Letter::Strict), format!("! {reason}"), "{text}");
        let read = read(text, Letter::Lenient);
        assert!(read.contains(expected), "{text}: {read}");
    }

    #[test]
    fn the_examples_of_the_rfc() {
        check(
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed on /dev/pts/8",
            r#"{"timestamp":"2003-10-11T22:14:15.003000000Z","host":"mymachine.example.com","program":"su","msgid":"ID47","facility":"auth","severity":"crit","msg":"'su root' failed on /dev/pts/8"}"#,
        );
        check(
            "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
            r#"{"timestamp":"2003-08-24T12:14:15.000003000Z","host":"192.0.2.1","program":"myproc","pid":"8710","facility":"local4","severity":"notice","msg":"%% It's time to make the do-nuts."}"#,
        );
        check(
            "<165>1 2003-10-11T22:14:15Z h evntslog - ID47 [a@32473 iut=\"3\" eventSource=\"App\"][b@32473 class=\"high\"]",
            r#"{"timestamp":"2003-10-11T22:14:15.000000000Z","host":"h","program":"evntslog","msgid":"ID47","facility":"local4","severity":"notice","fields":{"a@32473.iut":"3","a@32473.eventSource":"App","b@32473.class":"high"}}"#,
        );
    }

    #[test]
    fn what_is_absent_is_left_out() {
        let nothing = r#"{"timestamp":"1970-01-01T00:00:00.000000000Z","facility":"user","severity":"notice"}"#;
        check("<13>1 - - - - - -", nothing);
        check("<13>1 - - - - - - ", nothing);
        check("<13>1 - - - - - - \u{feff}", nothing);
        check("<13>999 - - - - - -  two", &nothing.replace('}', r#","msg":" two"}"#));
    }

    #[test]
    fn a_lenient_reader_takes_what_is_clear() {
        let long = "x".repeat(256);
        let too_long = "header: a part is too long";
        check_lenient(&format!("<1>1 - {long} - - - -"), too_long, "xxx");
        check_lenient(&format!("<1>1 - - {} - - -", &long[..49]), too_long, "xxx");
        check_lenient(&format!("<1>1 - - - {} - -", &long[..129]), too_long, "xxx");
        check_lenient(&format!("<1>1 - - - - {} -", &long[..33]), too_long, "xxx");
        check_lenient("<1>1 - hé - - - -", "header: not printable ASCII", "hé");
        let time = "timestamp: not as RFC 5424 has it";
        check_lenient("<1>1 2026-01-01T00:00:00.1234567Z - - - - -", time, "00.123456700Z");
        check_lenient("<1>1 2016-12-31T23:59:60Z - - - - -", time, "2017-01-01T00:00:00");
        check_lenient("<1>1 2026-01-01t00:00:00z - - - - -", time, "2026-01-01T00:00:00");
        check(
            &format!("<1>1 - {} - - - -", &long[..255]),
            &read(&format!("<1>1 - {} - - - -", &long[..255]), Letter::Lenient),
        );
    }

    #[test]
    fn what_makes_no_sense_says_why() {
        for (text, reason) in [
            ("no priority", "priority: missing"),
            ("<192>1 - - - - - -", "priority: not a number from 0 to 191"),
            ("<13>1", "header: ends early"),
            ("<13>0 - - - - - -", "version: not a number from 1 to 999"),
            ("<13>01 - - - - - -", "version: not a number from 1 to 999"),
            ("<13>1000 - - - - - -", "version: not a number from 1 to 999"),
            ("<13>1 ", "header: ends early"),
            ("<13>1 - - - - -", "header: ends early"),
            ("<13>1 -  - - - -", "header: two spaces in a row"),
            ("<13>1 2026-01-01 - - - - -", "timestamp: not of the form 2026-01-01T00:00:00Z"),
            ("<13>1 2026-01-01T00:00:00 - - - - -", "timestamp: not of the form 2026-01-01T00:00:00Z"),
            ("<13>1 2026-02-30T00:00:00Z - - - - -", "timestamp: no such date or time"),
            ("<13>1 9999-01-01T00:00:00Z - - - - -", "timestamp: outside of the years 1678 to 2261"),
            ("<13>1 - - - - - msg", "structured data: neither `-` nor `[`"),
            ("<13>1 - - - - - -msg", "structured data: no space behind it"),
            ("<13>1 - - - - - [a]msg", "structured data: no space behind it"),
        ] {
            assert_eq!(parse(text, 0, Letter::Strict).unwrap_err(), reason, "{text}");
            assert_eq!(parse(text, 0, Letter::Lenient).unwrap_err(), reason, "{text}");
        }
    }

    #[test]
    fn other_messages_do_not_look_like_it() {
        for text in [
            "<13>Oct 11 22:14:15 h a: b",
            "<13>1",
            "<13>1 time",
            "<13>1 2 3",
            "<13>10 -1 dB",
            "<13>2026-01-01T00:00:00Z h a: b",
            "1 - -",
            "<13>1 12345-",
        ] {
            assert!(!looks_like(text), "{text}");
        }
    }
}
