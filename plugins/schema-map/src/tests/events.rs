//! What a user sees of events, and of patterns that read a field.

use super::{T, map, one};
use crate::SchemaMap;
use hb_sdk::Fault;
use hb_sdk::testkit::{NormalizerKit, RECEIVED_NS, TestFrame, assert_pure, host};

/// What becomes of the frames with all that a normalizer may do: samples, then events as
/// `kind @ns since new year {attributes} body`.
fn events(schema: &str, frames: &[TestFrame]) -> Vec<String> {
    let samples = map(schema, frames);
    host::reset();
    let report = assert_pure::<SchemaMap>(schema, frames);
    let show = |i: usize| {
        let events = report.events.iter().filter(|e| e.frame as usize == i).map(|e| {
            let attributes: Vec<_> = e.attributes.iter().map(|a| format!("{}={}", a.key, a.value)).collect();
            let body = String::from_utf8(e.body.clone()).unwrap();
            format!("{} @{} {{{}}} {body}", e.kind, e.time_ns - RECEIVED_NS, attributes.join(","))
        });
        // `map` knows only samples: a frame that is nothing but an event is ignored there.
        let sample = Some(samples[i].clone()).filter(|text| text != "ignored");
        sample.into_iter().chain(events).collect::<Vec<_>>().join(" | ")
    };
    (0..frames.len()).map(show).collect()
}

fn event(schema: &str, frame: &str) -> String {
    events(schema, &[frame.into()]).remove(0)
}

/// Messages of the plugin `syslog`, with the default policies: keep, and reject text.
const SYSLOG: &str = r#"{"version":1,"labels":{"asset":{"field":"host"}},
    "field_mapping":{"pressure":{"metric":"pressure","unit":"kPa","from":"bar"},"fields.temp":{"metric":"temperature"}},
    "events":{"kind":"syslog.message","body":"msg","attributes":["host","program","severity","pid"]},
    "sources":{"syslog":{"patterns":[
        {"field":"msg","match":"pressure[=:] ?(?<pressure>\\S+) ?bar"},
        {"field":"msg","match":"\"(?<door>open|shut)\""}]}}}"#;

fn message(fields: &str) -> String {
    format!(r#"{{{T},"host":"m1","program":"plantd",{fields}}}"#)
}

#[test]
fn each_object_is_an_event_too() {
    for (fields, result) in [
        (r#""pid":"7","msg":"hello""#, "syslog.message @0 {host=m1,program=plantd,pid=7} hello"),
        (r#""severity":"err""#, "syslog.message @0 {host=m1,program=plantd,severity=err} "),
        (r#""severity":null,"pid":"","msg":"say \"hé\"""#, r#"syslog.message @0 {host=m1,program=plantd} say "hé""#),
        (r#""pid":7,"severity":true,"msg":5"#, "syslog.message @0 {host=m1,program=plantd,severity=true,pid=7} 5"),
        (r#""severity":["err"],"msg":"x""#, "syslog.message @0 {host=m1,program=plantd} x"),
        (
            r#""msg":"x","fields":{"temp":"21.5"}"#,
            "temperature{asset=m1}=21.5 @0 | syslog.message @0 {host=m1,program=plantd} x",
        ),
        (r#""msg":["x"]"#, "! events.body: field `msg`: an array is no text"),
        (r#""msg":"x","fields":{"temp":"hot"}"#, "! field `fields.temp`: `hot` is not a number"),
    ] {
        assert_eq!(event(SYSLOG, &message(fields)), result, "{fields}");
    }
    assert_eq!(event(SYSLOG, r#"{"msg":"x"}"#), "! timestamp: field `timestamp` is missing");
}

#[test]
fn what_is_unmapped_is_no_reason_to_reject_an_event() {
    let schema = r#"{"version":1,"events":{"kind":"e"}}"#;
    for fields in [r#""a":"text""#, r#""a":[1]"#, r#""a":"nan""#, r#""a":1e999"#, r#""a":null"#] {
        let frame = format!("{{{T},{fields}}}");
        assert!(one(r#"{"version":1}"#, &frame).starts_with('!') || fields.contains("null"), "{fields}");
        assert_eq!(event(schema, &frame), format!("e @0 {{}} {frame}"), "{fields}");
    }
    let frame = format!(" {{{T}, \"a\":2}}\n");
    assert_eq!(event(schema, &frame), format!("a{{}}=2 @0 | e @0 {{}} {}", frame.trim()), "the body is the frame");
    let strict = r#"{"version":1,"unmapped":"reject","events":{"kind":"e","body":"msg","attributes":["host"]}}"#;
    assert_eq!(event(strict, &format!(r#"{{{T},"host":"m1","msg":"x"}}"#)), "e @0 {host=m1} x");
    assert_eq!(event(strict, &format!(r#"{{{T},"host":"m1","pid":"7"}}"#)), "! field `pid` has no mapping");
}

#[test]
fn events_have_the_time_of_their_frame() {
    let schema = r#"{"version":1,"timestamp":{"field":"at","missing":"received"},"unmapped":"ignore",
        "events":{"kind":"e","body":"whole"}}"#;
    assert_eq!(event(schema, r#"{"at":1767225601}"#), r#"e @1000000000 {} {"at":1767225601}"#);
    assert_eq!(event(schema, r#"{"a":1}"#), r#"e @0 {} {"a":1}"#);
}

#[test]
fn long_values_are_cut_at_a_character() {
    let schema = r#"{"version":1,"events":{"kind":"e","body":"b","attributes":["a"]}}"#;
    for (value, kept) in [("x".repeat(1_024), 1_024), ("x".repeat(1_025), 1_024), ("é".repeat(600), 1_024)] {
        assert_eq!(event(schema, &format!(r#"{{{T},"a":"{value}"}}"#)), format!("e @0 {{a={}}} ", &value[..kept]));
    }
    let odd = format!("x{}", "é".repeat(600));
    assert_eq!(event(schema, &format!(r#"{{{T},"a":"{odd}"}}"#)), format!("e @0 {{a={}}} ", &odd[..1_023]));
}

#[test]
fn only_objects_are_events() {
    let schema = r#"{"version":1,"unmapped":"ignore","events":{"kind":"e","attributes":["host"]},
        "field_mapping":{"load":{"metric":"load"}},
        "sources":{"mqtt":{"topic_map":{"t":{"metric":"m"}}},"syslog":{"patterns":[{"match":"load=(?<load>\\S+)"}]}}}"#;
    let on = |topic: &str, text: &str| TestFrame::from_origin(text, topic);
    let frames = [
        on("t", "21.5"),
        on("t", r#"{"value":2,"host":"m1"}"#),
        on("t", r#"{"ts":1767225601,"host":"m1"}"#),
        on("u", "load=1"),
        on("u", "nothing"),
    ];
    assert_eq!(
        events(schema, &frames),
        [
            "m{}=21.5 @0",
            r#"m{}=2 @0 | e @0 {host=m1} {"value":2,"host":"m1"}"#,
            r#"e @1000000000 {host=m1} {"ts":1767225601,"host":"m1"}"#,
            "load{}=1 @0",
            "! no pattern of sources.syslog matches `nothing`",
        ]
    );
}

#[test]
fn a_line_between_events_is_held_to_the_policy() {
    let schema = r#"{"version":1,"events":{"kind":"e","body":"b"},
        "sources":{"syslog":{"patterns":[{"match":"door=(?<door>\\S+)"}]}}}"#;
    let object = format!(r#"{{{T},"door":"open"}}"#);
    let refused = "! field `door`: `open` is not a number; map it, make it a label, or set `unmapped_text: ignore`";
    assert_eq!(
        events(schema, &[object.as_str().into(), "door=open".into(), object.as_str().into()]),
        ["e @0 {} ", refused, "e @0 {} "]
    );
}

#[test]
fn rows_of_the_long_layout_are_events_too() {
    for layout in ["auto", "long"] {
        let schema = format!(
            r#"{{"version":1,"layout":"{layout}","field_mapping":{{"door":{{"metric":"door"}}}},
            "events":{{"kind":"e","body":"msg","attributes":["host"]}}}}"#
        );
        let row = |fields: &str| event(&schema, &format!(r#"{{{T},"host":"m1",{fields}}}"#));
        assert_eq!(row(r#""metric":"m","value":1,"rack":"r""#), "m{rack=r}=1 @0 | e @0 {host=m1} ");
        assert_eq!(row(r#""metric":"m","value":"open""#), "e @0 {host=m1} ");
        assert_eq!(row(r#""metric":"m","value":"nan""#), "e @0 {host=m1} ");
        assert_eq!(row(r#""metric":"door","value":"open""#), "! metric `door`: `open` is not a number");
        assert_eq!(row(r#""msg":"hello""#), "e @0 {host=m1} hello");
    }
}

#[test]
fn patterns_read_a_field_of_an_object() {
    for (fields, result) in [
        (
            r#""msg":"pressure=5.5 bar high""#,
            "pressure{asset=m1}=550kPa @0 | syslog.message @0 {host=m1,program=plantd} pressure=5.5 bar high",
        ),
        (
            r#""msg":"\u0070ressure: 5.5bar \"x\"""#,
            "pressure{asset=m1}=550kPa @0 | syslog.message @0 {host=m1,program=plantd} pressure: 5.5bar \"x\"",
        ),
        (r#""msg":"pressure=low bar""#, "! field `pressure`: `low` is not a number"),
        (r#""msg":"pressure=1 bar","pressure":2"#, "! field `pressure` is there twice"),
        (r#""msg":"it is \"open\"""#, "syslog.message @0 {host=m1,program=plantd} it is \"open\""),
        (r#""msg":"nothing""#, "syslog.message @0 {host=m1,program=plantd} nothing"),
    ] {
        assert_eq!(event(SYSLOG, &message(fields)), result, "{fields}");
    }
}

#[test]
fn a_text_that_no_pattern_explains_is_unmapped_text() {
    let schema = |policy: &str| {
        format!(
            r#"{{"version":1,{policy}"sources":{{"syslog":{{"patterns":[
            {{"field":"x","match":"a=(?<a>\\d+)"}},{{"field":"x","match":"b=(?<b>\\d+) (?<rest>.*)"}},
            {{"field":"rest","match":"c=(?<c>\\d+)"}},{{"match":"line=(?<line>\\d+)"}}]}}}}}}"#
        )
    };
    let keep = schema("");
    let frame = |text: &str| format!(r#"{{{T},"x":"{text}"}}"#);
    for (text, result) in [
        ("b=2 a=1", "a{}=1 @0"),
        ("b=2 c=3", "b{}=2 @0 | c{}=3 @0"),
        (r"\u0062=2 c=3", "b{}=2 @0 | c{}=3 @0"),
        ("b=2 d=3", "! field `rest`: no pattern of sources.syslog matches `d=3`"),
        ("line=1", "! field `x`: no pattern of sources.syslog matches `line=1`"),
    ] {
        assert_eq!(one(&keep, &frame(text)), result, "{text}");
    }
    assert_eq!(one(&keep, "line=1"), "line{}=1 @0");
    assert_eq!(one(&keep, "b=2 c=3"), "! no pattern of sources.syslog matches `b=2 c=3`");
    assert_eq!(one(&keep, &format!(r#"{{{T},"x":5,"y":1}}"#)), "y{}=1 @0", "only text is matched");
    for (policy, result) in [
        (r#""unmapped":"reject","#, "! field `x`: no pattern of sources.syslog matches `?`"),
        (r#""unmapped":"ignore","#, "ignored"),
        (r#""unmapped_text":"ignore","#, "ignored"),
    ] {
        assert_eq!(one(&schema(policy), &frame("?")), result, "{policy}");
    }
}

#[test]
fn wrong_settings_of_events_are_named() {
    let many: Vec<String> = (0..65).map(|i| format!("\"a{i}\"")).collect();
    let too_many = format!(r#"{{"kind":"e","attributes":[{}]}}"#, many.join(","));
    for (events, words) in [
        (r#"{"body":"whole"}"#, "kind"),
        (r#"{"kind":""}"#, "events.kind"),
        (r#"{"kind":"e","body":""}"#, "events.body"),
        (r#"{"kind":"e","attributes":["a","b","a"]}"#, "events.attributes[2]: `a` is there twice"),
        (r#"{"kind":"e","attributes":[""]}"#, "events.attributes[0]"),
        (r#"{"kind":"e","labels":[]}"#, "labels"),
        (too_many.as_str(), "events.attributes: 65 fields; at most 64"),
    ] {
        let schema = format!(r#"{{"version":1,"events":{events}}}"#);
        let fault = NormalizerKit::<SchemaMap>::new(&schema).map(|_| ()).unwrap_err();
        assert!(matches!(&fault, Fault::BadSettings(text) if text.contains(words)), "{events}: {fault:?}");
    }
    let pattern = r#"{"version":1,"sources":{"syslog":{"patterns":[{"match":"(?<a>x)","field":""}]}}}"#;
    let fault = NormalizerKit::<SchemaMap>::new(pattern).map(|_| ()).unwrap_err();
    assert!(
        matches!(&fault, Fault::BadSettings(text) if text.contains("sources.syslog.patterns[0].field")),
        "{fault:?}"
    );
}
