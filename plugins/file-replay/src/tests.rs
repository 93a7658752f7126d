//! What a user sees of a replayed file.

use super::FileReplay;
use hb_sdk::testkit::{PollReport, SourceKit, TestFrame};

fn lines(text: &str) -> Vec<TestFrame> {
    text.split('\n').map(|l| TestFrame::from_origin(l, "/data/run.txt")).collect()
}

fn replay(settings: &str, text: &str) -> PollReport {
    SourceKit::<FileReplay>::new(settings, None).unwrap().poll(&lines(text)).unwrap()
}

#[test]
fn lines_of_json_stay_as_they_are() {
    let report = replay("{}", "{\"a\":1}\n\n  \r\n {\"b\": 2} \r\nnot json\r");
    assert_eq!(report.texts(), ["{\"a\":1}", " {\"b\": 2} ", "not json"]);
    assert_eq!((report.taken, report.rejects.len(), report.next_poll_ms), (5, 0, 0));
}

#[test]
fn the_fast_path_yields_what_the_slow_one_does() {
    let text = "{\"a\":1}\n{\"b\":\"é\"}\n{\"c\":3}";
    let mut kit = SourceKit::<FileReplay>::new("{}", None).unwrap();
    let slow = kit.poll(&lines(text)).unwrap();
    let fast = kit.poll(&lines(text)).unwrap();
    assert_eq!(slow.frames, fast.frames);
    assert_eq!((slow.taken, fast.taken), (3, 3));
    assert!(slow.cursor.is_some() && fast.cursor.is_none(), "the second poll learned nothing new");
}

#[test]
fn halves_of_a_character_in_two_lines_are_rejected() {
    let mut kit = SourceKit::<FileReplay>::new(r#"{"format":"jsonl"}"#, None).unwrap();
    kit.poll(&lines("{}")).unwrap();
    let halves: Vec<TestFrame> = [&b"{\xC3"[..], b"\xA9}"].map(|b| TestFrame::from_origin(b, "/data/run.txt")).into();
    let report = kit.poll(&halves).unwrap();
    assert_eq!(
        report.rejects.iter().map(|r| r.reason.as_str()).collect::<Vec<_>>(),
        ["not UTF-8 at byte 1", "not UTF-8 at byte 0"]
    );
}

#[test]
fn rows_of_csv_become_objects() {
    let report =
        replay("{}", "\u{feff}timestamp,a,b\r\n2026-01-01 00:00:00,1.50,nan\r\n1,2\r\ntimestamp,a,b\r\n3,4,\"x\r");
    assert_eq!(report.texts(), [r#"{"timestamp":"2026-01-01 00:00:00","a":1.50,"b":"nan"}"#]);
    let rejects: Vec<_> = report.rejects.iter().map(|r| (r.frame, r.reason.as_str())).collect();
    assert_eq!(
        rejects,
        [(2, "csv row: 2 cells, but the header names 3 columns"), (4, "csv: the quote at byte 4 is not closed")]
    );
    assert_eq!(report.taken, 5);
}

#[test]
fn a_resume_in_mid_file_knows_the_header() {
    let cursor = replay("{}", "t,a\n1,2").cursor.unwrap();
    let mut kit = SourceKit::<FileReplay>::new("{}", Some(&cursor)).unwrap();
    assert_eq!(kit.poll(&lines("3,4")).unwrap().texts(), [r#"{"t":3,"a":4}"#]);
    assert!(SourceKit::<FileReplay>::new("{}", Some(b"junk")).is_err());
}

#[test]
fn each_file_has_its_own_header() {
    let mut kit = SourceKit::<FileReplay>::new("{}", None).unwrap();
    let of = |line: &str, file: &str| TestFrame::from_origin(line, file);
    let report =
        kit.poll(&[of("a,b", "1"), of("{\"x\":1}", "2"), of("c,d", "3"), of("1,2", "1"), of("3,4", "3")]).unwrap();
    assert_eq!(report.texts(), ["{\"x\":1}", r#"{"a":1,"b":2}"#, r#"{"c":3,"d":4}"#]);
    assert_eq!(report.frames[2].origin, "3");
}

#[test]
fn a_file_without_a_usable_header_is_rejected_line_by_line() {
    let report = replay(r#"{"format":"csv"}"#, "a,a\n1,2");
    assert_eq!(report.rejects[0].reason, "csv header: column \"a\" is there twice");
    assert_eq!(report.rejects[1].reason, "no usable header: csv header: column \"a\" is there twice");
}

#[test]
fn the_rate_limits_lines_per_poll() {
    let mut kit = SourceKit::<FileReplay>::new(r#"{"rate_lines_per_sec":1}"#, None).unwrap();
    let text = "\n{\"a\":1}\n{\"b\":2}\n{\"c\":3}";
    let first = kit.poll(&lines(text)).unwrap();
    assert_eq!((first.texts(), first.taken, first.next_poll_ms), (vec!["{\"a\":1}"], 2, 1_000));
    let mut kit = SourceKit::<FileReplay>::new(r#"{"rate_lines_per_sec":50}"#, None).unwrap();
    let report = kit.poll(&lines(text)).unwrap();
    assert_eq!((report.taken, report.next_poll_ms), (4, 60));
}

#[test]
fn limits_leave_lines_in_the_inbox() {
    let mut kit = SourceKit::<FileReplay>::new("{}", None).unwrap();
    let text = "{\"a\":1}\n{\"b\":2}\n{\"c\":3}";
    assert_eq!(kit.poll_limited(&lines(text), 2, u32::MAX).unwrap().taken, 2);
    assert_eq!(kit.poll_limited(&lines(text), 10, 15).unwrap().taken, 2);
    assert_eq!(kit.poll_limited(&lines(text), 10, 1).unwrap().taken, 1, "the first one always goes");
}

#[test]
fn wrong_settings_are_named() {
    for (settings, word) in [
        (r#"{"format":"xml"}"#, "format"),
        (r#"{"rate_lines_per_sec":0}"#, "rate_lines_per_sec"),
        (r#"{"layout":"tall"}"#, "layout"),
        (r#"{"delimiter":"x"}"#, "delimiter"),
        (r#"{"formt":"csv"}"#, "formt"),
    ] {
        let fault = SourceKit::<FileReplay>::new(settings, None).map(|_| ()).unwrap_err();
        assert!(matches!(&fault, hb_sdk::Fault::BadSettings(text) if text.contains(word)), "{fault:?}");
    }
}

#[test]
fn the_recorded_examples_replay_in_full() {
    let wide = replay("{}", include_str!("../testdata/wide.csv").trim_end());
    assert_eq!((wide.frames.len(), wide.rejects.len()), (3, 0));
    let long = replay("{}", include_str!("../testdata/long.csv").trim_end());
    assert_eq!((long.frames.len(), long.rejects.len()), (4, 0));
    assert!(long.texts()[0].contains(r#""unit":"W","host":"m1"}"#));
}
