//! One message as RFC 5424 writes it.

use hb_sdk::time::format_rfc3339;

/// Names the structured data. 32473 is the number that RFC 5612 sets aside for what has none of its own.
const SD_ID: &str = "hb@32473";

/// Longest MSGID.
const MSGID_MAX: usize = 32;

/// What stands before the message.
pub(crate) struct Header<'a> {
    pub(crate) facility: u8,
    pub(crate) severity: u8,
    pub(crate) time_ns: Option<i64>,
    pub(crate) hostname: &'a str,
    pub(crate) app_name: &'a str,
    pub(crate) msgid: &'a str,
}

/// Writes a message of at most `max` bytes: its text is cut. It holds no control characters, so that a line feed can only
/// be its end.
pub(crate) fn write(header: &Header<'_>, data: &[(&str, &str)], text: &str, max: usize) -> String {
    let priority = header.facility * 8 + header.severity;
    let time = header.time_ns.map_or("-".to_owned(), micros);
    let msgid: String = header.msgid.chars().filter(char::is_ascii_graphic).take(MSGID_MAX).collect();
    let msgid = if msgid.is_empty() { "-" } else { &msgid };
    let mut out = format!("<{priority}>1 {time} {} {} - {msgid} [{SD_ID}", header.hostname, header.app_name);
    for (name, value) in data {
        out.push_str(&format!(" {name}=\""));
        for c in plain(value) {
            if matches!(c, '"' | '\\' | ']') {
                out.push('\\');
            }
            out.push(c);
        }
        out.push('"');
    }
    out.push_str("] ");
    // No byte order mark: most receivers show it, and none needs it.
    let head = out.len();
    out.extend(plain(text));
    if out.len() > max {
        const MORE: &str = "…";
        out.truncate(out.floor_char_boundary(max.saturating_sub(MORE.len()).max(head)));
        out.push_str(MORE);
    }
    out
}

/// RFC 5424 has no digits beyond microseconds.
fn micros(ns: i64) -> String {
    let mut text = format_rfc3339(ns);
    text.replace_range(text.len() - "000Z".len().., "Z");
    text
}

fn plain(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().map(|c| if c.is_control() { ' ' } else { c })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header<'_> = Header {
        facility: 16,
        severity: 3,
        time_ns: Some(1_767_225_600_123_456_789),
        hostname: "plant-1",
        app_name: "hb",
        msgid: "alert",
    };

    #[test]
    fn a_message_is_as_the_rfc_has_it() {
        assert_eq!(
            write(&HEADER, &[("id", "a-1"), ("asset", "m \"1\" [\\] ä")], "hot\nand\tloud", 8_192),
            "<131>1 2026-01-01T00:00:00.123456Z plant-1 hb - alert \
             [hb@32473 id=\"a-1\" asset=\"m \\\"1\\\" [\\\\\\] ä\"] hot and loud"
        );
        let bare = Header { time_ns: None, msgid: "ä b", hostname: "-", ..HEADER };
        assert_eq!(write(&bare, &[], "", 8_192), "<131>1 - - hb - b [hb@32473] ");
        let bare = Header { msgid: "", ..bare };
        assert_eq!(write(&bare, &[], "x", 8_192), "<131>1 - - hb - - [hb@32473] x");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        for max in 480..500 {
            let message = write(&HEADER, &[("id", "a-1")], &"ä".repeat(1_000), max);
            assert!(message.len() <= max && message.len() > max - 4 && message.ends_with('…'), "{max}: {message}");
        }
    }
}
