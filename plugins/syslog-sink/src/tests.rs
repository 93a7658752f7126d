//! Documents as hb sends them, and what the receiver gets.

use super::*;
use hb_sdk::testkit::{SinkKit, host};

const ALERT: &str = include_str!("../testdata/alert.json");
const DECISION: &str = include_str!("../testdata/decision.json");

/// What is sent of some documents, piece by piece.
fn sent(settings: &str, documents: &[(&str, &str, &str)]) -> Vec<String> {
    host::reset();
    let mut kit = SinkKit::<SyslogSink>::new(settings).unwrap();
    let answer = kit.deliver(documents, &[], &[]).unwrap();
    assert_eq!(format!("{:?}", answer.documents).matches("Delivered").count(), documents.len(), "{answer:?}");
    host::take_sent().into_iter().map(|(_, bytes)| String::from_utf8(bytes).unwrap()).collect()
}

fn alert(settings: &str) -> String {
    sent(settings, &[("a-1", "alert", ALERT.trim_end())]).remove(0)
}

/// An alert with some text replaced, over UDP.
fn changed(from: &str, to: &str) -> String {
    assert!(ALERT.contains(from), "{from}");
    let json = ALERT.trim_end().replace(from, to);
    sent(r#"{"address":"udp://127.0.0.1:514"}"#, &[("a-1", "alert", &json)]).remove(0)
}

#[test]
fn an_alert_is_one_message() {
    let message = "<26>1 2026-01-01T00:00:30.000000Z - hb - alert [hb@32473 id=\"a-1\" kind=\"alert\" \
                   fingerprint=\"f00d\" asset=\"pump-1\" check=\"quick\" status=\"firing\" severity=\"CRITICAL\" \
                   run_id=\"live\"] temperature is 11.5 deviations above its baseline";
    assert_eq!(alert(r#"{"address":"udp://127.0.0.1:514"}"#), message);
    assert_eq!(alert(r#"{"address":"unix:///dev/log"}"#), message);
    assert_eq!(alert(r#"{"address":"tcp://127.0.0.1:514"}"#), format!("{} {message}", message.len()));
    let newline = alert(r#"{"address":"unix-stream:///run/log","framing":"newline"}"#);
    assert_eq!(newline, format!("{message}\n"));
    let named = alert(
        r#"{"address":"udp://127.0.0.1:514","facility":"local7","hostname":"plant","app_name":"hb-1","message":"json"}"#,
    );
    assert!(named.starts_with("<186>1 2026-01-01T00:00:30.000000Z plant hb-1 - alert ["), "{named}");
    assert!(named.ends_with(&format!("] {}", ALERT.trim_end())), "{named}");
}

#[test]
fn a_decision_is_told_by_its_worst_finding() {
    let message = sent(r#"{"address":"udp://127.0.0.1:514"}"#, &[("d-1", "decision", DECISION.trim_end())]).remove(0);
    assert!(message.starts_with("<26>1 2026-01-01T00:00:30.000000Z "), "{message}");
    assert!(
        message.ends_with("] quick of pump-1 is FAIL: temperature is 11.5 deviations above its baseline"),
        "{message}"
    );
}

#[test]
fn the_severity_is_the_alerts() {
    for (from, to, priority) in [
        ("CRITICAL", "CRITICAL", 26),
        ("CRITICAL", "FAIL", 27),
        ("CRITICAL", "WARN", 28),
        ("firing", "resolved", 29),
        ("CRITICAL", "ODD", 29),
        ("\"severity\":\"CRITICAL\",\"status\":\"firing\"", "\"status\":\"FAIL\"", 27),
        ("\"severity\":\"CRITICAL\",\"status\":\"firing\"", "\"severity\":null,\"status\":\"NO_DATA\"", 28),
        ("\"severity\":\"CRITICAL\",\"status\":\"firing\"", "\"status\":\"PASS\"", 30),
        ("\"severity\":\"CRITICAL\"", "\"severity\":\"CRITICAL\",\"state\":\"resolved\"", 29),
    ] {
        let message = changed(from, to);
        assert!(message.starts_with(&format!("<{priority}>1 ")), "{to}: {message}");
    }
}

#[test]
fn the_sentence_says_what_and_why_and_whether_it_is_over() {
    for (from, to, sentence) in [
        (
            "\"report_path\"",
            "\"reason\":\"too hot\",\"report_path\"",
            "temperature is 11.5 deviations above its baseline: too hot",
        ),
        (
            "\"primary_issue\"",
            "\"state\":\"resolved\",\"reason\"",
            "resolved: temperature is 11.5 deviations above its baseline",
        ),
        ("\"primary_issue\"", "\"was\"", "quick of pump-1 is firing"),
    ] {
        let message = changed(from, to);
        assert!(message.ends_with(&format!("] {sentence}")), "{message}");
    }
}

#[test]
fn text_from_telemetry_forges_no_second_message() {
    let message = changed("temperature is", "hot\\n<0>1 - evil - - - - all is well\\u0000");
    assert!(!message.contains('\n') && !message.contains('\0'), "{message}");
    let message = changed("pump-1", "p\\\" ][x@1 a=\\\"\\n");
    assert!(message.contains(r#"asset="p\" \][x@1 a=\" ""#), "{message}");
    let message = changed("\"ts\":\"2026-01-01T00:00:30.000000000Z\"", "\"ts\":\"soon\"");
    assert!(message.starts_with("<26>1 - - hb "), "{message}");
}

#[test]
fn what_is_too_long_is_told_in_short() {
    let long = "x".repeat(10_000);
    let message = changed("deviations", &long);
    assert!(message.len() == 8_192 && message.ends_with("xx…"), "{}", message.len());
    let json = ALERT.trim_end().replace("[\"temperature\"]", &format!("[\"{long}\"]"));
    let settings = r#"{"address":"udp://127.0.0.1:514","message":"json"}"#;
    let message = sent(settings, &[("a-1", "alert", &json)]).remove(0);
    assert!(message.ends_with("] temperature is 11.5 deviations above its baseline"), "{message}");
    let message = sent(settings, &[("a-1", "other", "[1,2]")]).remove(0);
    assert!(message.ends_with("kind=\"other\"] [1,2]"), "{message}");
}

#[test]
fn who_is_not_there_is_spared_the_rest() {
    host::reset();
    let mut kit = SinkKit::<SyslogSink>::new(r#"{"address":"tcp://127.0.0.1:514"}"#).unwrap();
    host::set_answers([
        Ok(host::answer(200, &[], "")),
        Err(Failure::Refused("too long".into())),
        Err(Failure::Unreachable("nobody listens there".into())),
    ]);
    let documents = ["a", "b", "c", "d"].map(|id| (id, "alert", ALERT.trim_end()));
    let retry = r#"Outcome::RetryAfterMs((1000, "nobody listens there"))"#;
    let want = format!(r#"[Outcome::Delivered, Outcome::Rejected("too long"), {retry}, {retry}]"#);
    assert_eq!(format!("{:?}", kit.deliver(&documents, &[], &[]).unwrap().documents), want);
    assert_eq!(host::take_sent().len(), 3);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    host::reset();
    host::set_granted(&["udp://127.0.0.1:514"]);
    for (settings, why) in [
        (r#"{"address":"udp://127.0.0.1:515"}"#, "address: udp://127.0.0.1:515 is not granted"),
        (r#"{"address":"udp://127.0.0.1:514","facility":"local8"}"#, "facility: there is no `local8`"),
        (r#"{"address":"udp://127.0.0.1:514","hostname":"a b"}"#, "hostname: printable ASCII"),
        (r#"{"addres":"udp://127.0.0.1:514"}"#, "unknown field `addres`"),
    ] {
        match SinkKit::<SyslogSink>::new(settings).map(drop) {
            Err(Fault::BadSettings(text)) => assert!(text.contains(why), "{text}"),
            other => panic!("{settings}: {other:?}"),
        }
    }
}
