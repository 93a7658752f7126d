//! Corpora of bad input that others collected: a JSON test suite and a list of naughty strings.

use std::fs;

use serde_json::json;

use super::{BEGIN, Counts, counts, once, reading, rows};
use crate::support::corpora::corpus;
use crate::support::hb::Hb;

/// Frames without a time happen when they come: the suite's files have none.
const UNTIMED: &str = "{ version: 1, timestamp: { field: t, missing: received }, \
    labels: { asset: { field: a, default: d } }, layout: wide }";

/// Labels of the lines between the suite's.
const SENTINEL: &str = "asset=sentinel";

/// Longest name of a metric, label or asset, bytes.
const NAME_BYTES: usize = 256;

#[test]
fn the_json_suite_disturbs_nothing_around_it() {
    let Some(folder) = corpus("json/test_parsing") else { return };
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 300, "{} files", files.len());
    let (mut all, mut invalid) = (Vec::new(), Vec::new());
    let (mut sentinels, mut invalid_files) = (0, 0);
    for file in &files {
        let content = fs::read(file).unwrap();
        let sentinel = format!("\n{{\"a\":\"sentinel\",\"v\":{sentinels}}}\n");
        sentinels += 1;
        all.extend_from_slice(&content);
        all.extend_from_slice(sentinel.as_bytes());
        // Cut at its line feeds, an invalid text may have valid lines.
        let whole = !content.contains(&b'\n');
        if file.file_name().unwrap().to_string_lossy().starts_with("n_") && whole {
            invalid_files += 1;
            invalid.extend_from_slice(&content);
            invalid.extend_from_slice(sentinel.as_bytes());
        }
    }
    let hb = reading("in.jsonl", "jsonl", UNTIMED);
    fs::write(hb.path("in.jsonl"), &all).unwrap();
    let seen = once(&hb);
    assert_eq!((seen.faults, seen.refused), (0, 0), "no frame kills the plugin: {seen:?}");
    assert!(seen.samples >= sentinels && seen.rejects > 150, "{seen:?}");
    assert_harmless(&hb);
    hb.done(&["ingest", "in.jsonl", "--out", "all"]);
    let values = |dir: &str| rows(&hb, dir, SENTINEL).len() as u64;
    assert_eq!(values("all"), sentinels, "each line between is there");

    fs::write(hb.path("invalid.jsonl"), &invalid).unwrap();
    let meta = hb.json(&["ingest", "invalid.jsonl", "--out", "invalid"]);
    assert_eq!(values("invalid"), invalid_files);
    assert_eq!(meta["counts"]["samples"], invalid_files, "what is no JSON gives no sample: {meta}");
}

/// What the suite calls valid JSON is taken where it is a frame: an object on one line. Its texts mean nothing here and
/// its numbers are samples; only a name that is there twice, or none at all, is refused.
#[test]
fn the_valid_objects_of_the_json_suite_are_accepted() {
    let Some(folder) = corpus("json/test_parsing") else { return };
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let (mut text, mut objects, mut numbers) = (String::new(), 0, 0);
    let mut twice = 0;
    for file in files.iter().filter(|f| f.file_name().unwrap().to_string_lossy().starts_with("y_")) {
        let content = fs::read_to_string(file).unwrap();
        let Ok(serde_json::Value::Object(members)) = serde_json::from_str(&content) else { continue };
        let line = content.trim_end();
        if line.contains('\n') {
            continue;
        }
        objects += 1;
        // The suite's objects with a name twice say so in theirs.
        let doubled = file.file_name().unwrap().to_string_lossy().contains("duplicated");
        twice += u64::from(doubled);
        if !doubled {
            numbers += members.iter().filter(|(name, value)| value.is_number() && !name.is_empty()).count() as u64;
        }
        text.push_str(line);
        text.push('\n');
    }
    assert!(objects >= 10 && numbers >= 2 && twice == 2, "{objects} objects, {numbers} numbers, {twice} doubled");
    let settings = "{ version: 1, timestamp: { field: t, missing: received }, \
        labels: { asset: { field: none_of_these, default: d } }, layout: wide, unmapped_text: ignore }";
    let hb = reading("in.jsonl", "jsonl", settings);
    hb.write("in.jsonl", &text);
    assert_eq!(once(&hb), Counts { samples: numbers, rejects: twice + 1, refused: 0, faults: 0 });
    super::assert_quarantined(&hb, &[("is there twice", twice), ("the metric name is empty", 1)]);
}

#[test]
fn naughty_strings_are_only_names() {
    let Some(file) = corpus("strings/blns.json") else { return };
    let strings: Vec<String> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let settings = "{ version: 1, timestamp: { field: t }, labels: { asset: { field: a, default: d } } }";
    let hb = reading("in.jsonl", "jsonl", settings);
    let mut config = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    config.push_str("checks: [{ id: c, window_sec: 10, rules: [{ rule: drift.missing }] }]\n");
    config.push_str("evidence: { on_fail: false }\n");
    hb.write("hb.yaml", &config);
    let (mut text, mut second) = (String::new(), BEGIN);
    for s in &strings {
        // As an asset, as a label of a reading that names itself, and as that reading's metric.
        for row in [
            json!({ "t": second, "a": s, "v": 1 }),
            json!({ "t": second, "a": "m", "metric": "v", "value": 2, "note": s }),
            json!({ "t": second, "a": "m", "metric": s, "value": 3 }),
            json!({ "t": second, "a": "m", format!("x{s}"): 4 }),
        ] {
            text.push_str(&row.to_string());
            text.push('\n');
        }
        second += 1;
    }
    hb.write("in.jsonl", &text);
    let rows = 4 * strings.len() as u64;
    let Counts { samples, rejects, refused, faults } = once(&hb);
    assert_eq!((samples + rejects, refused, faults), (rows, 0, 0), "{:#?}", super::quarantine(&hb));
    // An empty name is no metric, and a name has a limit; nothing else about a string matters.
    let refusals = |s: &String| match s.len() {
        0 => 1,
        n if n > NAME_BYTES => 4,
        n => u64::from(n + "x".len() > NAME_BYTES),
    };
    assert_eq!(rejects, strings.iter().map(refusals).sum::<u64>(), "{:#?}", super::quarantine(&hb));
    assert_harmless(&hb);
    assert_eq!(counts(&hb).samples, samples, "looking changes nothing");
}

/// What an operator sees has no byte that does something to a terminal.
pub(crate) fn assert_harmless(hb: &Hb) {
    for verb in [&["status"][..], &["quarantine", "list"], &["baseline", "list"]] {
        for args in [verb.to_vec(), verb.iter().copied().chain(["--json"]).collect()] {
            let output = hb.done(&args);
            for text in [&output.stdout, &output.stderr] {
                let acts = text.chars().find(|c| c.is_control() && *c != '\n');
                assert_eq!(acts, None, "{args:?}");
            }
        }
    }
}
