//! RFC 3164 as it is found in the wild: `<34>Oct 11 22:14:15 host program[pid]: msg`, where everything may be missing.

use crate::local_time;
use crate::message::{Message, Reason, part};
use crate::priority;

/// Reads a message. There is no text that is none; only a priority or a date that does not exist is refused.
pub(crate) fn parse(text: &str, received_ns: i64, offset_ns: i64) -> Result<Message<'_>, Reason> {
    let (priority, rest) = match priority::parse(text)? {
        Some((priority, rest)) => (Some(priority), rest),
        None => (None, text),
    };
    let (time_ns, host, rest) = match local_time::parse(rest, received_ns, offset_ns)? {
        Some((time_ns, rest)) => {
            let (host, rest) = split_host(rest);
            (time_ns, host, rest)
        }
        // A host stands behind a time only.
        None => (received_ns, None, rest),
    };
    let tag = Tag::parse(rest);
    Ok(Message {
        time_ns,
        host: host.and_then(part),
        program: tag.program.and_then(part),
        pid: tag.pid.and_then(part),
        facility: priority.and_then(priority::facility_of),
        severity: priority.and_then(priority::severity_of),
        msg: part(tag.msg),
        ..Message::default()
    })
}

/// The host, if the next word is one. On a local socket the program stands in its place, and it ends in a colon.
fn split_host(text: &str) -> (Option<&str>, &str) {
    let Some((word, rest)) = text.split_once(' ') else { return (None, text) };
    let is_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'/' | b'@');
    if !word.is_empty() && !word.ends_with(':') && word.bytes().all(is_host) {
        (Some(word), rest.trim_start_matches(' '))
    } else {
        (None, text)
    }
}

/// Who says it, and what.
struct Tag<'a> {
    program: Option<&'a str>,
    pid: Option<&'a str>,
    msg: &'a str,
}

impl<'a> Tag<'a> {
    /// `program: msg`, `program[pid]: msg`, `program[pid] msg`; anything else is all message.
    fn parse(text: &'a str) -> Self {
        let word = text.split(' ').next().unwrap_or(text);
        let behind = |len: usize| text[len..].strip_prefix(' ').unwrap_or(&text[len..]);
        if let Some((program, rest)) = word.split_once('[')
            && let Some((pid, rest)) = rest.split_once(']')
            && is_program(program)
            && (rest.is_empty() || rest.starts_with(':'))
        {
            let len = program.len() + pid.len() + 2 + usize::from(rest.starts_with(':'));
            return Self { program: Some(program), pid: Some(pid), msg: behind(len) };
        }
        match word.strip_suffix(':').filter(|program| is_program(program)) {
            Some(program) => Self { program: Some(program), pid: None, msg: behind(word.len()) },
            None => Self { program: None, pid: None, msg: text },
        }
    }
}

/// Names of programs hold nearly anything, such as `(sd-pam)`, `postfix/smtpd` and `%ASA-6-106100`; what JSON, XML and
/// quotations begin with is none.
fn is_program(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_control() || "\"'`{}[]<>=,;".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `host|program|pid|msg` of a message received at the epoch.
    fn read(text: &str) -> String {
        let message = parse(text, 0, 0).unwrap();
        let show = |part: &Option<std::borrow::Cow<'_, str>>| part.clone().unwrap_or("-".into()).into_owned();
        [&message.host, &message.program, &message.pid, &message.msg].map(show).join("|")
    }

    #[test]
    fn everything_may_be_missing() {
        for (text, expected) in [
            ("<34>Oct 11 22:14:15 mymachine su: 'su root' failed", "mymachine|su|-|'su root' failed"),
            ("<34>Oct 11 22:14:15 su: 'su root' failed", "-|su|-|'su root' failed"),
            ("<34>Oct 11 22:14:15 app[12]: hello", "-|app|12|hello"),
            ("Oct 11 22:14:15 m1 app[12]: hello", "m1|app|12|hello"),
            ("<34>su: hello", "-|su|-|hello"),
            ("<34>hello there", "-|-|-|hello there"),
            ("hello", "-|-|-|hello"),
            ("<34>", "-|-|-|-"),
            ("<34>Oct 11 22:14:15", "-|-|-|-"),
            ("<34>Oct 11 22:14:15 hello", "-|-|-|hello"),
            ("<34>Oct 11 22:14:15 m1 last message repeated 2 times", "m1|-|-|last message repeated 2 times"),
            ("<34>Oct 11 22:14:15 m1 su:", "m1|su|-|-"),
            ("<34>2026-01-01T00:00:00.5+01:00 m1 su: hello", "m1|su|-|hello"),
            ("<34>2026-01-01T00:00:00 su: hello", "-|su|-|hello"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn hosts_and_programs_have_many_forms() {
        for (text, expected) in [
            ("m-1.example.org a/b[c]: x", "m-1.example.org|a/b|c|x"),
            ("2001:db8::1 a: x", "2001:db8::1|a|-|x"),
            ("m1   a:  x", "m1|a|-| x"),
            ("m1 (sd-pam)[7]: x", "m1|(sd-pam)|7|x"),
            ("m1 %ASA-6-106100: x", "m1|%ASA-6-106100|-|x"),
            ("m1 Foo::Bar: x", "m1|Foo::Bar|-|x"),
            ("m1 a[1] x", "m1|a|1|x"),
            ("m1 a[1]:x", "m1|a|1|x"),
            ("m1 a[]: x", "m1|a|-|x"),
            ("m1 a[1: x", "m1|-|-|a[1: x"),
            ("m1 a[1]b: x", "m1|-|-|a[1]b: x"),
            ("m1 a:x y", "m1|-|-|a:x y"),
            ("m1 [1]: x", "m1|-|-|[1]: x"),
            ("m1 : x", "m1|-|-|: x"),
            ("(root) CMD x", "-|-|-|(root) CMD x"),
            ("{\"a\": 1}", "-|-|-|{\"a\": 1}"),
            ("CEF:0|v|p 1|x", "-|-|-|CEF:0|v|p 1|x"),
            ("größe: 1", "-|größe|-|1"),
        ] {
            assert_eq!(read(&format!("Oct 11 22:14:15 {text}")), expected, "{text}");
        }
    }

    #[test]
    fn only_what_does_not_exist_is_refused() {
        assert!(parse("<192>x", 0, 0).is_err());
        assert!(parse("<13>Oct 32 22:14:15 x", 0, 0).is_err());
        let plain = parse("<html> x", 5, 0).unwrap();
        assert_eq!((plain.time_ns, plain.facility, plain.severity), (5, None, None));
    }
}
