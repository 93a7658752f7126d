//! What a user sees of a message.

mod outside;

use super::Syslog;
use hb_sdk::Fault;
use hb_sdk::testkit::{PollReport, SourceKit, TestFrame};
use proptest::prelude::*;

fn poll(settings: &str, frames: &[TestFrame]) -> PollReport {
    SourceKit::<Syslog>::new(settings, None).unwrap().poll(frames).unwrap()
}

/// The object of one message, or `! reason`.
fn one(settings: &str, message: impl AsRef<[u8]>) -> String {
    let report = poll(settings, &[TestFrame::from_origin(message, "10.0.0.7:514")]);
    assert_eq!((report.taken, report.frames.len() + report.rejects.len()), (1, 1));
    report.rejects.first().map_or_else(|| report.texts()[0].to_owned(), |reject| format!("! {}", reject.reason))
}

fn lines(text: &str) -> Vec<TestFrame> {
    text.lines().map(TestFrame::from).collect()
}

#[test]
fn messages_of_both_forms_become_objects() {
    let report = poll(r#"{"fields":"kv"}"#, &lines(include_str!("../testdata/mixed.log")));
    assert_eq!(
        report.texts(),
        [
            r#"{"timestamp":"2026-01-01T00:00:00.250000000Z","host":"pump-7","program":"plantd","pid":"412","msgid":"VALVE","facility":"daemon","severity":"info","msg":"valve moved","fields":{"valve@32473.id":"v3","valve@32473.position":"0.62"}}"#,
            r#"{"timestamp":"2025-12-31T23:59:59.000000000Z","host":"pump-7","program":"plantd","pid":"412","facility":"daemon","severity":"warning","msg":"pressure=5.1 unit=\"bar\" above limit","fields":{"pressure":"5.1","unit":"bar"}}"#,
            r#"{"timestamp":"2026-01-01T00:00:01.000000000Z","program":"kernel","facility":"kern","severity":"info","msg":"[ 12.5] eth0: link up"}"#,
            r#"{"timestamp":"2026-01-01T00:00:02.123456000Z","host":"pump-7","program":"operator","facility":"user","severity":"notice","msg":"\"quoted\" text"}"#,
            r#"{"timestamp":"2026-01-01T00:00:00.000000000Z","msg":"plain text without anything"}"#,
        ]
    );
    assert_eq!((report.taken, report.rejects.len(), report.cursor, report.next_poll_ms), (5, 0, None, 0));
}

#[test]
fn entries_of_the_journal_become_objects() {
    let settings = r#"{"format":"journald","fields":"kv"}"#;
    let report = poll(settings, &lines(include_str!("../testdata/journal.jsonl")));
    assert_eq!(
        report.texts(),
        [
            r#"{"timestamp":"2026-01-01T00:00:00.250000000Z","host":"pump-7","program":"plantd","pid":"412","facility":"daemon","severity":"warning","msg":"pressure=5.1 above limit","fields":{"pressure":"5.1"}}"#,
            r#"{"timestamp":"2026-01-01T00:00:01.000000000Z","host":"pump-7","program":"kernel","facility":"kern","severity":"info","msg":"eth0: \u001b[1mup"}"#,
        ]
    );
}

#[test]
fn origin_and_time_of_receipt_stay() {
    let frame = TestFrame { received_ns: 42, ..TestFrame::from_origin("<13>a: b", "unix:log") };
    let report = poll("{}", &[frame]);
    assert_eq!((report.frames[0].origin.as_str(), report.frames[0].received_ns), ("unix:log", 42));
    assert!(report.texts()[0].starts_with(r#"{"timestamp":"1970-01-01T00:00:00.000000042Z","#));
}

#[test]
fn an_end_of_line_is_no_part_of_a_message() {
    let plain = one("{}", "<13>a: b");
    for ended in ["<13>a: b\n", "<13>a: b\r\n", "<13>a: b\0", "<13>a: b\n\0"] {
        assert_eq!(one("{}", ended), plain, "{ended:?}");
    }
    assert!(one("{}", "<13>a: b\0c").ends_with(r#""msg":"b\u0000c"}"#));
    let blank = poll("{}", &["".into(), "\n".into(), " \0".into(), "\0\0".into(), " \t ".into()]);
    assert_eq!((blank.taken, blank.frames.len(), blank.rejects.len()), (5, 0, 0));
}

#[test]
fn the_format_decides_how_a_message_is_read() {
    let new = "<13>1 2026-01-01T00:00:00Z h a - - - b";
    assert!(one("{}", new).ends_with(r#""host":"h","program":"a","facility":"user","severity":"notice","msg":"b"}"#));
    assert_eq!(one("{}", new), one(r#"{"format":"rfc5424"}"#, new));
    assert!(one(r#"{"format":"rfc3164"}"#, new).ends_with(r#""msg":"1 2026-01-01T00:00:00Z h a - - - b"}"#));
    assert_eq!(one(r#"{"format":"rfc5424"}"#, "<13>a: b"), "! version: not a number from 1 to 999");
    assert_eq!(one(r#"{"format":"journald"}"#, "<13>a: b"), "! not an entry of the journal in JSON");
    let long = format!("<13>1 - h {} - - -", "a".repeat(49));
    assert!(one("{}", &long).contains("aaa"));
    assert_eq!(one(r#"{"format":"rfc5424"}"#, &long), "! header: a part is too long");
}

#[test]
fn local_times_follow_the_setting() {
    let message = "<13>Jan  1 01:30:00 h a: b";
    assert!(one(r#"{"utc_offset_minutes":90}"#, message).contains("2026-01-01T00:00:00.000000000Z"));
    assert!(one("{}", message).contains("2026-01-01T01:30:00.000000000Z"));
}

#[test]
fn what_is_not_text_is_refused() {
    for message in [&b"<13>a: \xFF"[..], b"\xC3", b"<13>1 - \xFF - - - - x"] {
        assert_eq!(one("{}", message), "! not UTF-8");
    }
}

#[test]
fn limits_leave_messages_in_the_inbox() {
    let frames = lines(include_str!("../testdata/mixed.log"));
    let mut kit = SourceKit::<Syslog>::new("{}", None).unwrap();
    assert_eq!(kit.poll_limited(&frames, 2, u32::MAX).unwrap().taken, 2);
    assert_eq!(kit.poll_limited(&frames, 9, 1).unwrap().taken, 1, "the first one always goes");
    let whole = kit.poll(&frames).unwrap();
    let mut bytes = Vec::new();
    let mut rest = &frames[..];
    while !rest.is_empty() {
        let part = kit.poll_limited(rest, 9, 400).unwrap();
        rest = &rest[part.taken..];
        bytes.extend(part.frames);
    }
    assert_eq!(bytes, whole.frames);
}

#[test]
fn wrong_settings_are_named() {
    for (settings, word) in [
        (r#"{"format":"gelf"}"#, "gelf"),
        (r#"{"utc_offset_minutes":900}"#, "utc_offset_minutes"),
        (r#"{"fields":"all"}"#, "all"),
        (r#"{"fromat":"auto"}"#, "fromat"),
    ] {
        let fault = SourceKit::<Syslog>::new(settings, None).map(|_| ()).unwrap_err();
        assert!(matches!(&fault, Fault::BadSettings(text) if text.contains(word)), "{fault:?}");
    }
}

const ALL_SETTINGS: [&str; 4] = [
    r#"{"fields":"kv"}"#,
    r#"{"format":"rfc5424","fields":"kv"}"#,
    r#"{"format":"rfc3164","fields":"kv","utc_offset_minutes":-720}"#,
    r#"{"format":"journald","fields":"kv"}"#,
];

/// Whatever arrives, at whatever time, becomes one line of JSON with a time, or a reject with a short reason, and does
/// so again.
fn check_any(message: &[u8], received_ns: i64) {
    let frame = TestFrame { received_ns, ..TestFrame::from_origin(message, "peer") };
    for settings in ALL_SETTINGS {
        let report = poll(settings, std::slice::from_ref(&frame));
        assert_eq!(report.taken, 1);
        for text in report.texts() {
            assert!(!text.contains('\n'));
            let object: serde_json::Value = serde_json::from_str(text).unwrap();
            assert!(object["timestamp"].is_string());
        }
        assert!(report.rejects.iter().all(|reject| reject.reason.len() < 80));
        assert!(report.frames.len() + report.rejects.len() <= 1);
        assert_eq!(report, poll(settings, std::slice::from_ref(&frame)));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(message: Vec<u8>, received_ns: i64) {
        check_any(&message, received_ns);
    }

    /// Made of the pieces that parsers look for, so that they are met in every wrong order.
    #[test]
    fn no_order_of_pieces_panics(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..24), received_ns: i64) {
        check_any(pieces.concat().as_bytes(), received_ns);
    }

    #[test]
    fn any_text_arrives_as_it_is(text in "[^\\s\\x00][^\\x00]{0,40}[^\\s\\x00]") {
        for head in ["<13>1 2026-01-01T00:00:00Z h a - - - ", "<13>Jan  1 00:00:00 h a: "] {
            let object: serde_json::Value = serde_json::from_str(&one("{}", format!("{head}{text}"))).unwrap();
            // Only RFC 5424 has a mark in front of the message.
            let msg = text.strip_prefix('\u{feff}').filter(|_| head.contains("- -")).unwrap_or(&text);
            prop_assert_eq!(object["msg"].as_str(), Some(msg));
        }
    }
}

const PIECES: &[&str] = &[
    "<13>",
    "<191>",
    "<",
    ">",
    "1 ",
    "- ",
    "-",
    " ",
    "[",
    "]",
    "id",
    "=",
    "\"",
    "\\",
    "é",
    "\u{feff}",
    "Feb 29 ",
    "Oct 11 ",
    "22:14:15",
    "2026-01-01T00:00:00",
    ".5",
    "Z",
    "+01:00",
    ":",
    "host ",
    "a[1]: ",
    "{",
    "}",
    "\"MESSAGE\":",
    "\"__REALTIME_TIMESTAMP\":",
    "[1,2]",
    "\"1767225600000000\"",
    ",",
    "\n",
    "\0",
    "k=v",
    "k=\"v",
];
