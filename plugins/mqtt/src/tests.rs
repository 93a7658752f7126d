//! What a user sees of a payload.

use super::Mqtt;
use hb_sdk::Fault;
use hb_sdk::testkit::{PollReport, SourceKit, TestFrame};
use proptest::prelude::*;

fn poll(settings: &str, frames: &[TestFrame]) -> PollReport {
    SourceKit::<Mqtt>::new(settings, None).unwrap().poll(frames).unwrap()
}

fn payload(bytes: impl AsRef<[u8]>) -> TestFrame {
    TestFrame::from_origin(bytes, "plant/m1/temp")
}

/// What a payload becomes, or `! reason`.
fn one(settings: &str, bytes: impl AsRef<[u8]>) -> String {
    let report = poll(settings, &[payload(bytes)]);
    assert_eq!((report.taken, report.frames.len() + report.rejects.len()), (1, 1));
    report.rejects.first().map_or_else(|| report.texts()[0].to_owned(), |reject| format!("! {}", reject.reason))
}

const AUTO: &str = "{}";
const JSON: &str = r#"{"payload":"json"}"#;
const KV: &str = r#"{"payload":"kv"}"#;

/// Payloads of pairs, with what they become.
const PAIRS: [(&str, &str); 12] = [
    ("temp=21.5", r#"{"temp":21.5}"#),
    ("temp=21.5 on=true off=false", r#"{"temp":21.5,"on":true,"off":false}"#),
    ("a=1,b=-2e3;c=0.10", r#"{"a":1,"b":-2e3,"c":0.10}"#),
    (" a=1 ;\r\n b=2;\n", r#"{"a":1,"b":2}"#),
    (r#"state="door open", n="5" q="say \"hi\" \\ \n""#, r#"{"state":"door open","n":"5","q":"say \"hi\" \\ \\n"}"#),
    (
        "a=007 b=+1 c=nan d=null e=True f=0x1F g=.5",
        r#"{"a":"007","b":"+1","c":"nan","d":"null","e":"True","f":"0x1F","g":".5"}"#,
    ),
    ("a= b=", r#"{"a":"","b":""}"#),
    ("token=YWI= x=a=b", r#"{"token":"YWI=","x":"a=b"}"#),
    ("température/°C=21 w=a\\b\"c", r#"{"température/°C":21,"w":"a\\b\"c"}"#),
    ("lat=1e999", r#"{"lat":1e999}"#),
    ("e=\"\u{1b}[1m\"", r#"{"e":"\u001b[1m"}"#),
    ("q=\"two\nlines\"", r#"{"q":"two\u000alines"}"#),
];

#[test]
fn pairs_become_an_object() {
    for (text, object) in PAIRS {
        assert_eq!(one(AUTO, text), object, "{text}");
        assert_eq!(one(KV, text), object, "{text}");
        assert_eq!(one(JSON, text), text);
        assert!(serde_json::from_str::<serde::de::IgnoredAny>(object).is_ok(), "{object}");
    }
    assert_eq!(one(KV, "1=2"), r#"{"1":2}"#);
}

#[test]
fn what_is_not_all_pairs_stays_as_it_is() {
    for text in [
        r#"{"a": 1}"#,
        r#" {"q":"a=b"}"#,
        "[1, 2]",
        r#""a=b""#,
        "21.5",
        "-3",
        "ON",
        "door open",
        "   ",
        "temp = 21.5",
        "temp=21,5",
        "state=door open",
        "meas,tag=v field=1 1767225600",
        "=1",
        "a=1,=2",
        "a=\"open",
        "a=\"b\"c",
        "a=\"b\\",
        "a=1\0",
        "\"a\"=1",
        "http://x/?a=b",
        "<a b=\"c\">",
        "f(a=1)",
        "YWJjZA==",
    ] {
        assert_eq!(one(AUTO, text), text);
        assert_eq!(one(JSON, text), text);
        assert_eq!(one(KV, text), "! not key=value pairs", "{text}");
    }
    for text in ["1=2", "-a=1"] {
        assert_eq!(one(AUTO, text), text, "it begins like a number");
    }
    let binary = b"a=\xFF";
    assert_eq!(poll(AUTO, &[payload(binary)]).frames, [payload(binary)]);
    assert_eq!(one(KV, binary), "! not key=value pairs");
}

#[test]
fn pairs_that_do_not_fit_one_object_are_refused() {
    let pairs = |n: usize| (0..n).map(|i| format!("k{i}=1 ")).collect::<String>();
    for settings in [AUTO, KV] {
        assert_eq!(one(settings, "a=1 b=2 a=3"), "! a key is there twice");
        assert_eq!(one(settings, pairs(1_025)), "! more than 1024 pairs");
        assert!(one(settings, pairs(1_024)).ends_with(r#""k1023":1}"#));
    }
}

#[test]
fn an_empty_payload_is_refused() {
    for settings in [AUTO, JSON, KV] {
        let report = poll(settings, &[payload("a=1"), payload(""), payload("b=1")]);
        let rejects: Vec<_> = report.rejects.iter().map(|r| (r.frame, r.reason.as_str())).collect();
        assert_eq!(rejects, [(1, "an empty payload: it clears a retained message and carries no reading")]);
        assert_eq!((report.taken, report.frames.len()), (3, 2));
    }
}

#[test]
fn topic_and_time_of_receipt_stay() {
    let on = |topic: &str, bytes: &str, received_ns| TestFrame { received_ns, ..TestFrame::from_origin(bytes, topic) };
    let copied = poll(AUTO, &[on("a/1", "x=1", 1), on("a/2", "2", 2), on("a/1", "{}", 3)]);
    assert_eq!(copied.frames, [on("a/1", r#"{"x":1}"#, 1), on("a/2", "2", 2), on("a/1", "{}", 3)]);
    let passed = [on("a/1", "1", 1), on("a/2", "2", 2), on("a/1", "{}", 3)];
    assert_eq!(poll(AUTO, &passed).frames, passed);
    assert_eq!(copied.cursor, None);
}

#[test]
fn limits_leave_payloads_in_the_inbox() {
    let mut kit = SourceKit::<Mqtt>::new(AUTO, None).unwrap();
    for bytes in ["{\"a\":1}", "a=1"] {
        let frames = [payload(bytes), payload(bytes), payload(bytes)];
        assert_eq!(kit.poll_limited(&frames, 2, u32::MAX).unwrap().taken, 2);
        assert_eq!(kit.poll_limited(&frames, 9, 15).unwrap().taken, 2);
        assert_eq!(kit.poll_limited(&frames, 9, 1).unwrap().taken, 1, "the first one always goes");
        assert_eq!(kit.poll_limited(&frames, 3, 21).unwrap().taken, 3);
    }
    assert_eq!(kit.poll(&[]).unwrap().taken, 0);
}

#[test]
fn wrong_settings_are_named() {
    for (settings, word) in [(r#"{"payload":"xml"}"#, "xml"), (r#"{"paylod":"kv"}"#, "paylod")] {
        let fault = SourceKit::<Mqtt>::new(settings, None).map(|_| ()).unwrap_err();
        assert!(matches!(&fault, Fault::BadSettings(text) if text.contains(word)), "{fault:?}");
    }
}

/// Whatever arrives is refused, or passes as it is, or is an object of JSON; alone as in company.
fn check_any(bytes: &[u8]) {
    for settings in [AUTO, JSON, KV] {
        let alone = poll(settings, &[payload(bytes)]);
        assert_eq!((alone.taken, alone.frames.len() + alone.rejects.len()), (1, 1));
        for frame in alone.frames.iter().filter(|frame| frame.bytes != bytes) {
            assert!(settings != JSON);
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&frame.bytes).unwrap();
            assert!(!object.is_empty());
        }
        let company = poll(settings, &[payload("a=1"), payload(bytes)]);
        assert_eq!(company.frames.get(1), alone.frames.first());
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        check_any(&bytes);
    }

    #[test]
    fn no_order_of_pieces_panics(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..12)) {
        check_any(pieces.concat().as_bytes());
    }

    /// A value in quotes arrives as it was, whatever is in it.
    #[test]
    fn any_text_arrives_as_it_is(text: String) {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        let object: serde_json::Value = serde_json::from_str(&one(KV, format!("k=\"{quoted}\""))).unwrap();
        prop_assert_eq!(object["k"].as_str(), Some(text.as_str()));
    }
}

/// What the reader of pairs looks for. Numbers stay within what the test's own reader of JSON takes.
const PIECES: &[&str] = &[
    "a", "b=", "=", "c=1", " ", ",", ";", "\"", "\\", "\"x\"", "1.5", "-", "e3", "true", "{", "}", "é", "\u{1}", "\n",
];
