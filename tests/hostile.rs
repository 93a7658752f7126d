//! Bad input of every kind through the real binary: named or counted and quarantined, and nothing innocent is lost.

mod config;
pub(crate) mod corpora;
mod guests;
mod input;

use std::path::Path;

use serde_json::Value;

use crate::support::hb::Hb;

/// First second of the telemetry made here: 2026-01-01.
const BEGIN: u64 = 1_767_225_600;

/// A tenant's name for all configs made here.
const PROGRAM: &str = "hostile";

/// Settings of the normalizer: each field is a metric, `a` names the asset.
const WIDE: &str = "{ version: 1, timestamp: { field: t }, labels: { asset: { field: a, default: d } }, layout: wide }";

/// An instance that reads `input` in `format` and judges nothing.
fn reading(input: &str, format: &str, settings: &str) -> Hb {
    let hb = Hb::new();
    hb.write("hb.yaml", &config(input, format, "schema-map", settings));
    hb
}

/// The config of [`reading`].
fn config(input: &str, format: &str, normalizer: &str, settings: &str) -> String {
    format!(
        "program: {PROGRAM}
state: ./state
require_signed: false
sources:
  - name: s
    plugin: file-replay
    transport: {{ file: {{ path: {input} }} }}
    settings: {{ format: {format} }}
    normalizer: n
normalizers:
  - name: n
    plugin: {normalizer}
    settings: {settings}
"
    )
}

/// What was taken and what was not.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    /// Samples the engine took.
    samples: u64,
    /// Frames and lines that transport or plugins refused.
    rejects: u64,
    /// Samples the engine refused.
    refused: u64,
    /// Frames a plugin died of.
    faults: u64,
}

/// Reads everything once, which must succeed.
fn once(hb: &Hb) -> Counts {
    hb.done(&["daemon", "--once"]);
    counts(hb)
}

/// The counters as `hb status` shows them.
fn counts(hb: &Hb) -> Counts {
    let status = hb.json(&["status"]);
    let n = |name: &str| status["counters"][name].as_u64().unwrap_or(0);
    Counts { samples: n("samples") - n("refused"), rejects: n("rejects"), refused: n("refused"), faults: n("faults") }
}

/// Reasons in quarantine with their counts, in the order of `hb quarantine list`.
fn quarantine(hb: &Hb) -> Vec<(String, u64)> {
    let list = hb.json(&["quarantine", "list"]);
    let lines = list["refused"].as_array().unwrap().iter();
    lines.map(|r| (r["reason"].as_str().unwrap().to_owned(), r["count"].as_u64().unwrap())).collect()
}

/// Asserts that each text is part of a reason with this count, and that there are no others.
fn assert_quarantined(hb: &Hb, expected: &[(&str, u64)]) {
    let found = quarantine(hb);
    for (text, count) in expected {
        let n: u64 = found.iter().filter(|(reason, _)| reason.contains(text)).map(|r| r.1).sum();
        assert_eq!(n, *count, "`{text}` in {found:#?}");
    }
    let (all, named) = (found.iter().map(|r| r.1).sum::<u64>(), expected.iter().map(|e| e.1).sum::<u64>());
    assert_eq!(all, named, "{found:#?}");
}

/// One good line.
fn line(second: u64, value: u64) -> String {
    format!("{{\"t\":{},\"a\":\"p\",\"v\":{value}}}\n", BEGIN + second)
}

/// A start that fails: the message, for exit code 78.
fn refused_start(hb: &Hb, verb: &[&str]) -> String {
    let output = hb.run(verb);
    assert_eq!(output.code, 78, "{verb:?}: {output:#?}");
    output.stderr
}

/// Copies a folder of files.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

/// The rows of an artifact directory's metrics.csv whose labels are `labels`.
fn rows(hb: &Hb, dir: &str, labels: &str) -> Vec<String> {
    let csv = std::fs::read_to_string(hb.path(dir).join("metrics.csv")).unwrap();
    csv.lines().skip(1).filter(|row| row.ends_with(labels)).map(str::to_owned).collect()
}

/// Reads JSON that must be an object with this list.
fn list<'a>(json: &'a Value, key: &str) -> &'a [Value] {
    json[key].as_array().unwrap()
}
