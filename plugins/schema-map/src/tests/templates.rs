//! A frame means the same whether it is read by a template or for itself.

use super::*;
use hb_sdk::Normalizer;
use hb_sdk::testkit::columns;

/// Reads `frame` alone, and behind `before` by an instance that has learned from them.
fn check(schema: &str, before: &[TestFrame], frames: impl IntoIterator<Item = TestFrame>) -> Vec<String> {
    host::reset();
    let fresh = || NormalizerKit::<SchemaMap>::new(schema).unwrap();
    let mut learned = fresh();
    for _ in 0..10 {
        learned.run(before);
    }
    let mut shown = vec![];
    for frame in frames {
        learned.run(before);
        let (alone, with) = (fresh().run(std::slice::from_ref(&frame)), learned.run(std::slice::from_ref(&frame)));
        let bits = |report: &Report| report.samples.iter().map(|row| row.value.to_bits()).collect::<Vec<_>>();
        let text = String::from_utf8_lossy(&frame.bytes).into_owned();
        assert_eq!((bits(&alone), alone), (bits(&with), with.clone()), "{text}");
        shown.push(show(&with, 0));
    }
    shown
}

fn line(time: &str, host: &str, values: [&str; 3]) -> String {
    let [temp, power, jobs] = values;
    format!(r#"{{"timestamp":"{time}","host":"{host}","temp_f":{temp},"power_w":{power},"jobs":{jobs}}}"#)
}

const USUAL: [&str; 3] = ["212.5", "-1234.5", "17"];

fn usual() -> Vec<TestFrame> {
    vec![line("2026-01-01T00:00:00.250Z", "m1", USUAL).as_str().into()]
}

#[test]
fn one_form_is_one_template_whatever_its_labels() {
    host::reset();
    let mut plugin = SchemaMap::configure(PLANT).unwrap();
    let mut run = |frames: Vec<TestFrame>| {
        hb_sdk::glue::normalizer_run(&mut plugin, &columns(&frames));
        plugin.mapper.templates.len()
    };
    let hosts = |n: usize| line("2026-01-01T00:00:00Z", &format!("m{n}"), USUAL).as_str().into();
    assert_eq!(run((0..100).map(hosts).collect()), 1);
    let forms = |n: usize| format!(r#"{{{T},"x{}":1}}"#, n / 8).as_str().into();
    assert_eq!(run((0..80).map(forms).collect()), 4);
}

#[test]
fn no_changed_byte_is_read_past() {
    let whole = line("2026-01-01T00:00:01.5Z", "m1", USUAL).into_bytes();
    let bytes = b"\"\\{}[],:019.-+eE \t\n\0\x1f\x7f/\xc3\xa9\xffTZnt";
    let places = (0..whole.len()).flat_map(|place| bytes.iter().map(move |&byte| (place, byte)));
    let mut frames = vec![];
    for (place, byte) in places {
        let mut changed = whole.clone();
        changed[place] = byte;
        frames.push(TestFrame::from_origin(&changed, "test"));
        changed[place] = whole[place];
        changed.insert(place, byte);
        frames.push(TestFrame::from_origin(&changed, "test"));
    }
    for place in 0..whole.len() {
        let cut = [&whole[..place], &whole[place + 1..]].concat();
        frames.push(TestFrame::from_origin(&cut, "test"));
        frames.push(TestFrame::from_origin(&whole[..place], "test"));
    }
    let shown = check(PLANT, &usual(), frames);
    let rejects = shown.iter().filter(|text| text.starts_with('!')).count();
    assert!(rejects > 1_000 && shown.len() - rejects > 1_000, "{rejects} of {}", shown.len());
}

#[test]
fn values_of_all_forms_mean_the_same() {
    let numbers = [
        "0",
        "-0",
        "0.0",
        "1e3",
        "1E-3",
        "12345678",
        "123456789",
        "0.12345678",
        "0.123456789",
        "00",
        "01",
        "1.",
        ".5",
        "-",
        "--1",
        "1.7976931348623157e308",
        "1e999",
        "-1e999",
        "99999999.99999999",
        "3.141592653589793238",
        "null",
        "true",
        "\"12.5\"",
        "\"x\"",
        "\"\"",
        "[1]",
        "{}",
        "{\"a\":1}",
        " 5",
        "5 ",
        "NaN",
        "0x10",
        "1_0",
    ];
    let times = [
        "2026-01-01T00:00:59.999Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00:01:00Z",
        "2026-01-01 00:00:00Z",
        "2026-01-01T00:00:00.123456789Z",
        "2026-01-01T00:00:00.1234567891Z",
        "2026-01-01T00:00:00z",
        ":00Z",
        "",
        "2026-01-01T00:00:00+01:00",
        "2026-01-01T00:00",
        "2026-02-30T00:00:00Z",
        "9999-01-01T00:00:00Z",
        "1767225600",
        "1750-01-01T00:00:00Z",
        "2261-12-31T00:00:00Z",
        "2026-01-01T00:00:0\\u0030Z",
        " 2026-01-01T00:00:00Z",
    ];
    let hosts = ["m1", "m2", "", "m\\u0031", "mä", "a b", "m1\\n", "a\\\"b", "0123456789012345678901234567890"];
    let mut lines = vec![];
    for number in numbers {
        for place in 0..3 {
            let mut values = USUAL;
            values[place] = number;
            lines.push(line("2026-01-01T00:00:02Z", "m1", values));
        }
    }
    lines.extend(times.iter().map(|time| line(time, "m1", USUAL)));
    lines.extend(hosts.iter().map(|host| line("2026-01-01T00:00:03Z", host, USUAL)));
    let frames: Vec<TestFrame> = lines.iter().map(|text| text.as_str().into()).collect();
    check(PLANT, &usual(), frames.clone());
    map(PLANT, &frames);
}

#[test]
fn many_forms_of_frames_take_turns() {
    let form = |n: usize, value: usize| -> TestFrame {
        let second = value % 60;
        let text = match n {
            0 => format!(r#"{{"timestamp":"2026-01-01T00:00:{second:02}Z","host":"m{value}","x":{value}}}"#),
            1 => format!(r#"{{ "x" : {value}.5 , "timestamp" : 17672256{second:02} }}"#),
            2 => format!(r#"{{"a":{{"b":{value},"c":{{"d":-{value}}}}},{T}}}"#),
            3 => format!("{{{T},\"größe\":{value}}}\r"),
            4 => format!(r#"{{{T},"door":"open","x":{value}}}"#),
            5 => format!(r#"{{{T},"x":{value},"x":1}}"#),
            n => format!(r#"{{{T},"x{n}":{value}}}"#),
        };
        text.as_str().into()
    };
    let frames: Vec<TestFrame> = (0..2_000).map(|i| form(i / 7 * i % 11, i % 13)).collect();
    map(PLANT, &frames);
    check(PLANT, &[], frames);
}

#[test]
fn other_mappings_mean_the_same() {
    for schema in [
        r#"{"version":1,"unmapped":"ignore","field_mapping":{"x":{"metric":"x","unit":"s","from":"ms"}}}"#,
        r#"{"version":1,"timestamp":{"missing":"received"},"labels":{"from":{"origin":true}}}"#,
        r#"{"version":1,"labels":{"a":{"field":"n","required":true},"b":{"field":"s"}},"unmapped_text":"ignore"}"#,
        r#"{"version":1,"labels":{"s":{"field":"x"}},"timestamp":{"field":"t","format":"unix_ms"}}"#,
        r#"{"version":1,"layout":"long"}"#,
        r#"{"version":1,"field_mapping":{"x":{"metric":"x","kind":"counter"},"s":{"metric":"s","kind":"state"}}}"#,
        r#"{"version":1,"events":{"kind":"test"}}"#,
    ] {
        let text = |i: usize| match i % 3 {
            0 => format!(r#"{{{T},"t":17672256000{i:02},"s":"text","n":{i},"x":{i}.25}}"#),
            1 => format!(r#"{{{T},"metric":"m","value":{i},"x":-1,"n":"a{i}"}}"#),
            _ => format!(r#"{{"x":{i},"n":"n","s":{i}}}"#),
        };
        let frames: Vec<TestFrame> = (0..99).map(|i| TestFrame::from_origin(text(i), ["p", "q"][i / 50])).collect();
        map(schema, &frames);
        check(schema, &frames[..3], frames.clone());
    }
}
