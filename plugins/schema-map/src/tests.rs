//! What a user sees of a mapping file.

#[path = "../../../tests/support/corpora.rs"]
mod corpora;
mod events;
mod templates;

use super::SchemaMap;
use hb_sdk::testkit::{NormalizerKit, RECEIVED_NS, Report, TestFrame, assert_pure, host};
use hb_sdk::{Fault, SeriesKind};

/// Runs the frames in all kinds of batches and writes what became of each:
/// `metric{labels}=value unit @ns since new year`.
fn map(schema: &str, frames: &[TestFrame]) -> Vec<String> {
    host::reset();
    let report = assert_pure::<SchemaMap>(schema, frames);
    (0..frames.len()).map(|i| show(&report, i as u32)).collect()
}

fn show(report: &Report, frame: u32) -> String {
    if let Some(reject) = report.rejects.iter().find(|r| r.frame == frame) {
        return format!("! {}", reject.reason);
    }
    let rows = report.samples.iter().filter(|r| r.frame == frame).map(|r| {
        let at = r.time_ns - RECEIVED_NS;
        format!("{}{{{}}}={}{} @{at}", r.metric, r.labels, r.value, r.unit)
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() { "ignored".to_owned() } else { rows.join(" | ") }
}

fn one(schema: &str, frame: &str) -> String {
    map(schema, &[frame.into()]).remove(0)
}

/// A wide schema with everything usual.
const PLANT: &str = r#"{"version":1,
    "labels":{"asset":{"field":"host"},"site":{"const":"lab"}},
    "field_mapping":{
        "temp_f":{"metric":"temperature","unit":"degC","from":"degF"},
        "power_w":{"metric":"power","unit":"kW","from":"W"},
        "lat_ms":{"metric":"latency","unit":"s","from":"ms","kind":"gauge"},
        "jobs":{"metric":"jobs","kind":"counter"},
        "door":{"metric":"door","kind":"state"},
        "on":{"metric":"running","kind":"boolean"}},
    "unmapped":"keep"}"#;

const T: &str = r#""timestamp":"2026-01-01T00:00:00Z""#;

#[test]
fn vendor_names_become_canonical_metrics() {
    let line =
        r#"{"timestamp":"2026-01-01T00:00:00.000Z","host":"m0042","temp_f":212,"power_w":1234.5,"lat_ms":12.25}"#;
    assert_eq!(
        one(PLANT, line),
        "temperature{asset=m0042,site=lab}=100degC @0 | power{asset=m0042,site=lab}=1.2345kW @0 \
         | latency{asset=m0042,site=lab}=0.01225s @0"
    );
}

#[test]
fn a_known_series_costs_no_call() {
    host::reset();
    let mut kit = NormalizerKit::<SchemaMap>::new(PLANT).unwrap();
    let line = format!(r#"{{{T},"host":"m1","power_w":1,"x":2}}"#);
    for _ in 0..10 {
        kit.run(&[line.as_str().into(), line.as_str().into()]);
    }
    assert_eq!(host::define_calls(), 2);
}

#[test]
fn values_are_read_by_their_kind() {
    let read = |fields: &str| one(PLANT, &format!("{{{T},{fields}}}"));
    for (fields, result) in [
        (r#""x":true"#, "x{site=lab}=1 @0"),
        (r#""x":"12.5""#, "x{site=lab}=12.5 @0"),
        (r#""x":null"#, "ignored"),
        (r#""x":"""#, "ignored"),
        (r#""x":null,"y":1"#, "y{site=lab}=1 @0"),
        (r#""on":"True""#, "running{site=lab}=1 @0"),
        (r#""on":0"#, "running{site=lab}=0 @0"),
        (r#""on":2"#, "! field `on`: 2 is neither 0 nor 1"),
        (r#""on":"maybe""#, "! field `on`: `maybe` is neither true nor false"),
        (r#""door":"open""#, "door{site=lab}=0 @0"),
        (r#""jobs":5"#, "jobs{site=lab}=5 @0"),
        (r#""jobs":-1"#, "! field `jobs`: -1 is below zero, but a counter only counts up"),
        (r#""power_w":"hot""#, "! field `power_w`: `hot` is not a number"),
        (r#""power_w":"NaN""#, "! field `power_w`: `NaN` is not a finite number"),
        (r#""x":"-inf""#, "! field `x`: `-inf` is not a finite number"),
        (r#""x":1e999"#, "! field `x`: `1e999` is too large"),
        (r#""x":"1e999""#, "! field `x`: `1e999` is too large"),
        (r#""power_w":[1]"#, "! field `power_w`: an array is no reading"),
        (r#""x":"ok""#, "! field `x`: `ok` is not a number; map it, make it a label, or set `unmapped_text: ignore`"),
        (r#""temp_f":1.7e308"#, "! field `temp_f`: the converted value is too large"),
        (r#""a":{"b":{"c":1},"d":2}"#, "a.b.c{site=lab}=1 @0 | a.d{site=lab}=2 @0"),
        (r#""x":1,"x":2"#, "! field `x` is there twice"),
        (r#""x":1,"\u0078":2"#, "! field `x` is there twice"),
        (r#""a":{"b":1},"a.b":2"#, "! field `a.b` is there twice"),
        (r#""":1"#, "! series ``: a metric needs a name"),
        (r#""n\u00e9":1"#, "né{site=lab}=1 @0"),
    ] {
        assert_eq!(read(fields), result, "{fields}");
    }
}

#[test]
fn a_rejected_field_takes_back_the_whole_frame() {
    assert_eq!(one(PLANT, &format!(r#"{{{T},"x":1,"power_w":"?"}}"#)), "! field `power_w`: `?` is not a number");
}

#[test]
fn kinds_and_states_reach_the_host() {
    host::reset();
    let mut kit = NormalizerKit::<SchemaMap>::new(PLANT).unwrap();
    let line = format!(r#"{{{T},"door":"open","on":true,"jobs":1,"x":1,"y":false}}"#);
    let again = line.replace("open", "shut");
    let report = kit.run(&[line.as_str().into(), again.as_str().into(), line.as_str().into()]);
    let kinds: Vec<_> = report.samples.iter().take(5).map(|r| r.kind).collect();
    use SeriesKind::{Boolean, Counter, Gauge, State};
    assert_eq!(kinds, [State, Boolean, Counter, Gauge, Boolean]);
    let doors: Vec<_> = report.samples.iter().filter(|r| r.metric == "door").map(|r| r.value).collect();
    assert_eq!(doors, [0.0, 1.0, 0.0]);
}

#[test]
fn unmapped_fields_follow_the_policy() {
    let with = |policy: &str, fields: &str| one(&format!(r#"{{"version":1,{policy}}}"#), &format!("{{{T},{fields}}}"));
    assert_eq!(with(r#""unmapped":"ignore""#, r#""x":"text","y":1"#), "ignored");
    assert_eq!(with(r#""unmapped":"reject""#, r#""x":1"#), "! field `x` has no mapping");
    assert_eq!(with(r#""unmapped_text":"ignore""#, r#""x":"text","y":1,"z":[]"#), "y{}=1 @0");
    assert!(with(r#""unmapped_text":"ignore""#, r#""x":"nan""#).contains("not a finite number"));
}

#[test]
fn the_time_is_checked() {
    let schema = r#"{"version":1}"#;
    for (frame, result) in [
        (r#"{"timestamp":1767225601.5,"x":1}"#, "x{}=1 @1500000000"),
        (r#"{"timestamp":"2026-01-01 00:00:01","x":1}"#, "x{}=1 @1000000000"),
        (r#"{"x":1,"timestamp":"2026-01-01T00:00:01Z"}"#, "x{}=1 @1000000000"),
        (r#"{"x":1}"#, "! timestamp: field `timestamp` is missing"),
        (r#"{"timestamp":null,"x":1}"#, "! timestamp: field `timestamp` is missing"),
        (r#"{"timestamp":"soon","x":1}"#, "! timestamp: field `timestamp`: `soon`: neither a date nor a number"),
        (r#"{"timestamp":1e30,"x":1}"#, "! timestamp: field `timestamp`: `1e30`: outside of the years 1678 to 2261"),
        (r"{}", "ignored"),
    ] {
        assert_eq!(one(schema, frame), result, "{frame}");
    }
    let received = r#"{"version":1,"timestamp":{"field":"t.at","format":"unix_ms","missing":"received"}}"#;
    assert_eq!(one(received, r#"{"t":{"at":1767225600001},"x":1}"#), "x{}=1 @1000000");
    assert_eq!(one(received, r#"{"x":1}"#), "x{}=1 @0");
}

#[test]
fn labels_come_from_fields_constants_and_origins() {
    let schema = r#"{"version":1,"labels":{
        "asset":{"field":"meta.host","required":true},"rack":{"field":"rack","default":"none"},
        "file":{"origin":true},"unit":{"field":"slot"}}}"#;
    let frame = |fields: &str| TestFrame::from_origin(format!("{{{T},{fields},\"x\":1}}"), "run.csv");
    let results = map(
        schema,
        &[
            frame(r#""meta":{"host":"m\u0031"},"slot":7"#),
            frame(r#""meta":{"host":"m1"},"rack":"r2","slot":null"#),
            frame(r#""rack":"r2""#),
            frame(r#""meta":{"host":["m1"]}"#),
            frame(r#""meta":{"host":""},"slot":"""#),
        ],
    );
    assert_eq!(
        results,
        [
            "x{asset=m1,file=run.csv,rack=none,unit=7}=1 @0",
            "x{asset=m1,file=run.csv,rack=r2}=1 @0",
            "! label `asset`: field `meta.host` is missing",
            "! label `asset`: an array",
            "x{file=run.csv,rack=none}=1 @0",
        ]
    );
}

#[test]
fn the_long_layout_converts_by_the_rows_own_unit() {
    let schema = r#"{"version":1,"labels":{"asset":{"field":"host"}},"field_mapping":{
        "cpu_w":{"metric":"cpu_power","unit":"kW","from":"W"}}}"#;
    let row = |metric: &str, value: &str, unit: &str| {
        format!(r#"{{{T},"metric":"{metric}","value":{value},"unit":{unit},"host":"m1","rack":"r1"}}"#)
    };
    for (frame, result) in [
        (row("cpu_w", "1500", "\"W\""), "cpu_power{asset=m1,rack=r1}=1.5kW @0"),
        (row("cpu_w", "1.5", "\"kW\""), "cpu_power{asset=m1,rack=r1}=1.5kW @0"),
        (row("cpu_w", "1500", "null"), "cpu_power{asset=m1,rack=r1}=1.5kW @0"),
        (row("other", "5", "\"widgets\""), "other{asset=m1,rack=r1}=5widgets @0"),
        (row("other", "\"nan\"", "\"\""), "! metric `other`: `nan` is not a finite number"),
        (row("other", "null", "\"\""), "ignored"),
        (row("", "1", "\"\""), "! field `metric` is not a name"),
        (row("other", "\"x\"", "\"\""), "! metric `other`: `x` is not a number"),
    ] {
        assert_eq!(one(schema, &frame), result, "{frame}");
    }
    let unknown = one(schema, &row("cpu_w", "1", "\"furlong\""));
    assert!(unknown.starts_with("! metric `cpu_w`: unknown unit `furlong`; known units of power"), "{unknown}");
}

#[test]
fn hbs_own_export_reads_back() {
    let schema = r#"{"version":1,"layout":"hb"}"#;
    let row = |labels: &str| format!(r#"{{{T},"metric":"power","value":1.5,"unit":"kW","labels":{labels}}}"#);
    assert_eq!(one(schema, &row("\"asset=m1;site=a%3Bb\"")), "power{asset=m1,site=a;b}=1.5kW @0");
    assert_eq!(one(schema, &row("null")), "power{}=1.5kW @0");
    assert_eq!(one(schema, &row("\"asset\"")), "! labels: `asset` has no `=`");
    assert_eq!(
        one(schema, &format!(r#"{{{T},"metric":"p","value":1,"more":2}}"#)),
        "! field `more` has no place in this layout"
    );
    assert_eq!(one(r#"{"version":1}"#, &row("\"asset=m1\"")), "power{asset=m1}=1.5kW @0", "auto knows it too");
}

#[test]
fn topics_give_meaning_to_bare_values() {
    let schema = r#"{"version":1,"sources":{"mqtt":{"topic_map":{
        "plant/+/temp":{"metric":"temperature","unit":"degC","from":"degF","labels":{"asset":"$1"}},
        "plant/+/door":{"metric":"door","kind":"state","labels":{"asset":"$1"}},
        "fleet/+/#":{"labels":{"asset":"$1","path":"$2"}}}}}}"#;
    let on = |topic: &str, payload: &str| TestFrame::from_origin(payload, topic);
    let results = map(
        schema,
        &[
            on("plant/m1/temp", "212"),
            on("plant/m1/temp", " 32.0\n"),
            on("plant/m2/temp", r#"{"value":32,"ts":1767225601}"#),
            on("plant/m2/temp", r#"{"value":"32","timestamp":"2026-01-01T00:00:02Z"}"#),
            on("plant/m2/temp", r#"{"val":32}"#),
            on("plant/m2/temp", "warm"),
            on("plant/m2/temp", "[32]"),
            on("plant/m1/door", "OPEN"),
            on("plant/m1/door", "\"OPEN\""),
            on("fleet/m3/a/b", r#"{"timestamp":1767225600,"x":1}"#),
            on("elsewhere", "21"),
        ],
    );
    assert_eq!(
        results,
        [
            "temperature{asset=m1}=100degC @0",
            "temperature{asset=m1}=0degC @0",
            "temperature{asset=m2}=0degC @1000000000",
            "temperature{asset=m2}=0degC @2000000000",
            "! topic `plant/m2/temp`: an object without the field `value`",
            "! topic `plant/m2/temp`: `warm` is not a number",
            "! topic `plant/m2/temp`: an array is no reading",
            "door{asset=m1}=0 @0",
            "door{asset=m1}=0 @0",
            "x{asset=m3,path=a/b}=1 @0",
            "! a bare value; expected an object, or an entry for `elsewhere` in sources.mqtt.topic_map",
        ]
    );
}

#[test]
fn patterns_read_lines_of_text() {
    let schema = r#"{"version":1,"labels":{"asset":{"field":"host"}},
        "field_mapping":{"temperature":{"metric":"temperature","unit":"degC","from":"degF"}},
        "sources":{"syslog":{"patterns":[
            {"match":"^(?<timestamp>\\S+) (?<host>\\S+) .*temp=(?<temperature>[0-9.]+)"},
            {"match":"load=(?<load>\\S+)"}]}}}"#;
    let results = map(
        schema,
        &[
            "2026-01-01T00:00:01Z m1 sensor: temp=212 fan=3".into(),
            "load=0.5 ok".into(),
            "load=high".into(),
            "nothing here".into(),
            (&b"load=\xFF"[..]).into(),
            r#"{"timestamp":1767225600,"x":1}"#.into(),
        ],
    );
    assert_eq!(
        results,
        [
            "temperature{asset=m1}=100degC @1000000000",
            "load{}=0.5 @0",
            "! field `load`: `high` is not a number; map it, make it a label, or set `unmapped_text: ignore`",
            "! no pattern of sources.syslog matches `nothing here`",
            "! not UTF-8 at byte 5",
            "x{}=1 @0",
        ]
    );
}

#[test]
fn a_cap_on_series_rejects_and_spares_the_known_ones() {
    host::reset();
    host::set_max_series(1);
    let mut kit = NormalizerKit::<SchemaMap>::new(r#"{"version":1}"#).unwrap();
    let report = kit.run(&[
        r#"{"timestamp":1,"a":1}"#.into(),
        r#"{"timestamp":1,"b":1}"#.into(),
        r#"{"timestamp":1,"a":2}"#.into(),
    ]);
    assert_eq!((report.samples.len(), report.rejects.len()), (2, 1));
    assert_eq!(report.rejects[0].reason, "series `b`: more than 1 series");
}

#[test]
fn shapes_that_change_mean_the_same() {
    let mut frames: Vec<TestFrame> = Vec::new();
    for i in 0..60 {
        let line = match i % 4 {
            0 => format!(r#"{{"timestamp":{i},"a":1,"b":2,"c":3}}"#),
            1 => format!(r#"{{ "timestamp" : {i}, "b": 2, "a": 1 }}"#),
            2 => format!(r#"{{"c":3,"timestamp":{i},"a":{{"b":1}}}}"#),
            _ => format!(r#"{{"a":1,"timestamp":{i},"a":2}}"#),
        };
        frames.push(line.as_str().into());
    }
    let results = map(r#"{"version":1}"#, &frames);
    assert!(results.iter().skip(3).step_by(4).all(|r| r == "! field `a` is there twice"));
    assert!(results[57].starts_with("b{}=2 @") && results[57].contains("a{}=1"), "{}", results[57]);
}

#[test]
fn many_names_and_fields_stay_bounded() {
    let many: Vec<String> = (0..1_025).map(|i| format!("\"f{i}\":1")).collect();
    assert_eq!(one(PLANT, &format!("{{{}}}", many.join(","))), "! more than 1024 fields");
    let long = "x".repeat(300);
    assert!(one(PLANT, &format!(r#"{{"{long}":1}}"#)).contains("the name is longer than 256 bytes"));
    // Enough names to make the plugin forget, in frames that are rejected and so define nothing.
    let frames: Vec<TestFrame> = (0..20)
        .map(|batch| {
            let fields: Vec<String> = (0..1_000).map(|i| format!("\"f{}\":1", batch * 1_000 + i)).collect();
            TestFrame::from_origin(format!("{{{}}}", fields.join(",")), "test")
        })
        .chain([format!(r#"{{{T},"power_w":1000}}"#).as_str().into()])
        .collect();
    assert_eq!(map(PLANT, &frames)[20], "power{site=lab}=1kW @0");
}

#[test]
fn wrong_settings_are_named() {
    for (schema, words) in [
        (r"{}", "version"),
        (r#"{"version":2}"#, "version: 2 is not known"),
        (r#"{"version":1,"unmaped":"keep"}"#, "unmaped"),
        (
            r#"{"version":1,"field_mapping":{"a":{"metric":"m","unit":"degC","from":"W"}}}"#,
            "field_mapping.a.from: `W` is power and `degC` is temperature; known units of temperature: degC",
        ),
        (
            r#"{"version":1,"field_mapping":{"a":{"metric":"m","unit":"zz","from":"W"}}}"#,
            "unknown unit `zz`; known units of power",
        ),
        (r#"{"version":1,"field_mapping":{"a":{"metric":""}}}"#, "field_mapping.a.metric"),
        (
            r#"{"version":1,"field_mapping":{"a":{"metric":"m","from":"s","unit":"s","kind":"state"}}}"#,
            "has no unit to convert from",
        ),
        (r#"{"version":1,"labels":{"a":{}}}"#, "labels.a: exactly one of"),
        (r#"{"version":1,"labels":{"a":{"const":"x","origin":true}}}"#, "labels.a: exactly one of"),
        (r#"{"version":1,"sources":{"syslog":{"patterns":[{"match":"("}]}}}"#, "sources.syslog.patterns[0].match"),
        (r#"{"version":1,"sources":{"syslog":{"patterns":[{"match":"x"}]}}}"#, "needs a named group"),
        (r#"{"version":1,"sources":{"mqtt":{"topic_map":{"a/#/b":{"metric":"m"}}}}}"#, "`#` must be the last level"),
    ] {
        let fault = NormalizerKit::<SchemaMap>::new(schema).map(|_| ()).unwrap_err();
        assert!(matches!(&fault, Fault::BadSettings(text) if text.contains(words)), "{schema}: {fault:?}");
    }
}

#[test]
fn what_is_no_json_is_said_to_be_none() {
    for (frame, reason) in [
        ("", "! not JSON: ends where a value should be at byte 0"),
        (r#"{"a":1"#, "! not JSON: `,` or `}` expected at byte 6"),
        (r#"{"a":1,"a":2,}"#, "! not JSON: a key in quotes expected at byte 13"),
        (r#"{"a":01}"#, "! not JSON: a number may not begin with 0 at byte 7"),
        (r#"{"a":1}x"#, "! not JSON: something follows the value at byte 7"),
        ("[1,2]", "! a JSON array; expected an object"),
    ] {
        assert_eq!(one(r#"{"version":1}"#, frame), reason, "{frame}");
    }
    let invalid = TestFrame::from_origin(b"{\"a\":\"\xFF\"}", "test");
    assert_eq!(map(r#"{"version":1}"#, &[invalid]), ["! not JSON: not UTF-8 at byte 6"]);
    let deep = "{\"a\":".repeat(100_000);
    assert!(one(r#"{"version":1}"#, &deep).starts_with("! not JSON: nested deeper than 64"));
}

/// The public JSON test suite: y_ must parse, n_ must not, i_ may; none may panic.
#[test]
fn the_json_test_suite_agrees() {
    let Some(folder) = corpora::corpus("json/test_parsing") else { return };
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let frame = TestFrame::from_origin(std::fs::read(&path).unwrap(), "test");
        let result = map(r#"{"version":1,"unmapped":"ignore"}"#, &[frame]).remove(0);
        let refused = result.starts_with("! not JSON: ");
        match name.as_bytes()[0] {
            b'y' => assert!(!refused, "{name}: {result}"),
            b'n' => assert!(refused && result.contains(" at byte "), "{name}: {result}"),
            _ => {}
        }
        count += 1;
    }
    assert!(count > 300, "only {count} files in {}", folder.display());
}
