//! What the plugin asks of the host, and what it makes of the answers.

use super::*;
use hb_sdk::testkit::{SinkKit, host};

const SETTINGS: &str = r#"{"url":"https://hooks.example/hb","headers":{"X-Site":"plant 1"}}"#;

/// A document as the host sends it.
const DOCUMENT: &str = include_str!("../testdata/decision.json");

fn deliver(ids: &[&str]) -> String {
    let mut kit = SinkKit::<Webhook>::new(SETTINGS).unwrap();
    let documents: Vec<_> = ids.iter().map(|id| (*id, "decision", DOCUMENT.trim_end())).collect();
    format!("{:?}", kit.deliver(&documents, &[], &[]).unwrap().documents)
}

#[test]
fn a_document_is_sent_as_it_is() {
    host::reset();
    assert_eq!(deliver(&["id-1"]), "[Outcome::Delivered]");
    let requests = host::take_requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!((request.method.as_str(), request.url.as_str()), ("POST", "https://hooks.example/hb"));
    assert_eq!(String::from_utf8_lossy(&request.body), DOCUMENT.trim_end());
    let headers: Vec<_> = request.headers.iter().map(|h| (h.name.as_str(), h.value.as_str())).collect();
    assert_eq!(headers, [("Content-Type", "application/json"), ("Idempotency-Key", "id-1"), ("X-Site", "plant 1")]);
    assert_eq!((request.timeout_ms, request.sign_with.as_deref()), (5_000, Some("signing")));
}

#[test]
fn after_a_refusal_to_take_more_the_rest_is_not_sent() {
    host::reset();
    let full = host::answer(503, &[("retry-after", "2")], "full");
    host::set_answers([Ok(host::answer(200, &[], "")), Ok(host::answer(422, &[], "odd")), Ok(full)]);
    let retry = r#"Outcome::RetryAfterMs((2000, "HTTP 503: full"))"#;
    let want = format!(r#"[Outcome::Delivered, Outcome::Rejected("HTTP 422: odd"), {retry}, {retry}]"#);
    assert_eq!(deliver(&["a", "b", "c", "d"]), want);
    assert_eq!(host::take_requests().len(), 3);
}

#[test]
fn a_receiver_that_is_not_there_is_tried_again() {
    host::reset();
    host::set_answers([Err(Failure::Unreachable("no answer".into()))]);
    let retry = r#"Outcome::RetryAfterMs((1000, "no answer"))"#;
    assert_eq!(deliver(&["a", "b"]), format!("[{retry}, {retry}]"));
    host::set_answers([Err(Failure::Refused("too long".into()))]);
    assert_eq!(deliver(&["a"]), r#"[Outcome::Rejected("too long")]"#);
}

#[test]
fn it_signs_with_what_is_granted() {
    host::reset();
    let url = "https://hooks.example/hb";
    let sign_with = |granted: &[&str], setting: &str| {
        host::set_granted(granted);
        let made = Webhook::configure(&format!(r#"{{"url":"{url}"{setting}}}"#));
        made.map(|w| w.sign_with).map_err(|e| format!("{e:?}"))
    };
    assert_eq!(sign_with(&[url], ""), Ok(None));
    assert_eq!(sign_with(&[url, "signing"], ""), Ok(Some("signing".into())));
    assert_eq!(sign_with(&[url, "signing", "other"], r#","sign_with":"other""#), Ok(Some("other".into())));
    let missing = sign_with(&[url, "signing"], r#","sign_with":"other""#).unwrap_err();
    assert!(missing.contains("sign_with: other is not granted"), "{missing}");
    let missing = sign_with(&["signing"], "").unwrap_err();
    assert!(missing.contains("url: https://hooks.example/hb is not granted"), "{missing}");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    host::reset();
    for (settings, why) in [
        ("{}", "missing field `url`"),
        (r#"{"url":"https://h/","hedaers":{}}"#, "unknown field `hedaers`"),
        (r#"{"url":"https://h/","headers":{"content-TYPE":"x"}}"#, "`content-TYPE` is set by the plugin itself"),
    ] {
        match SinkKit::<Webhook>::new(settings).map(drop) {
            Err(Fault::BadSettings(text)) => assert!(text.contains(why), "{text}"),
            other => panic!("{settings}: {other:?}"),
        }
    }
}
