//! The verbs as scripts and newcomers meet them: help, exit codes, files, JSON.

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use crate::support::hb::{Hb, Output, at, repository};

/// Lines of a terminal nobody has resized.
const SCREEN_LINES: usize = 40;

/// Seconds of telemetry of [`instance`]: several windows of the shipped config's five minutes.
const SECONDS: u64 = 1_200;

#[test]
fn help_fits_a_screen_and_every_verb_shows_an_example() {
    let hb = Hb::new();
    let help = hb.done(&["--help"]).stdout;
    assert!(help.lines().count() <= SCREEN_LINES, "{help}");
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|l| !l.starts_with("Commands:"))
        .skip(1)
        .take_while(|l| l.starts_with("  "))
        .filter(|l| !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() > 10, "{verbs:?}");
    for verb in verbs {
        let help = hb.done(&[verb, "--help"]).stdout;
        assert!(help.contains("Example: ") && help.contains(&format!("hb {verb}")), "{verb}: {help}");
    }
}

#[test]
fn exit_codes_tell_mistakes_apart() {
    let hb = instance();
    for (args, code, word) in [
        (&["nonsense"][..], 64, "nonsense"),
        (&["ingest"], 64, "--out"),
        (&["inject", "--fault", "rust", "--input", "a", "--output", "b"], 64, "rust"),
        (&["baseline", "create", "--window", "soon"], 64, "soon"),
        (&["analyze", "nowhere"], 65, "nowhere"),
        (&["baseline", "show", "--version", "9"], 65, "v9"),
        (&["baseline", "promote", "--version", "9"], 65, "v9"),
        (&["ingest", "nowhere.jsonl", "--out", "x"], 74, "nowhere.jsonl"),
        (&["check", "--config", "nowhere.yaml"], 78, "nowhere.yaml"),
        (&["status", "--state", "nowhere"], 78, "nowhere"),
    ] {
        let output = hb.run(args);
        assert_eq!(output.code, code, "{args:?}: {output:#?}");
        assert!(output.stderr.contains(word), "{args:?} does not name {word}: {}", output.stderr);
        assert_eq!(output.stdout, "", "{args:?}: talk goes to stderr");
    }
}

#[test]
fn init_writes_a_config_that_check_accepts_and_overwrites_nothing() {
    let hb = Hb::new();
    hb.done(&["init"]);
    let config = fs::read(hb.path("hb.yaml")).unwrap();
    let checked = hb.done(&["check"]);
    assert!(checked.stdout.contains("hb.yaml: ok"), "{checked:#?}");
    assert_eq!(checked.stderr, "", "a fresh config has no warnings");

    let again = hb.run(&["init"]);
    assert_eq!(again.code, 78, "{again:#?}");
    assert!(again.stderr.contains("hb.yaml is there already"), "{}", again.stderr);
    assert_eq!(fs::read(hb.path("hb.yaml")).unwrap(), config);
    // A schema alone is enough to stop it.
    hb.write("other/telemetry_schema.yaml", "version: 1\n");
    assert_eq!(hb.run(&["init", "--dir", "other"]).code, 78);
    assert!(!hb.path("other/hb.yaml").exists());
}

#[test]
fn ingest_writes_an_artifact_directory() {
    let hb = instance();
    let meta = hb.json(&["ingest", "telemetry.jsonl", "--out", "clean"]);
    assert_eq!(meta["counts"]["samples"], SECONDS * 2);
    assert_eq!(meta["counts"]["rejects"], 0);
    let written: Value = serde_json::from_slice(&fs::read(hb.path("clean/run_meta.json")).unwrap()).unwrap();
    assert_eq!(written, meta);
    let csv = fs::read_to_string(hb.path("clean/metrics.csv")).unwrap();
    assert_eq!(csv.lines().next(), Some("timestamp,metric,value,unit,labels"));
    assert_eq!(csv.lines().count() as u64, 1 + SECONDS * 2);
    // The same bytes give the same run.
    assert_eq!(hb.json(&["ingest", "telemetry.jsonl", "--out", "again"])["run_id"], meta["run_id"]);
}

#[test]
fn normalize_converts_units() {
    let hb = instance();
    hb.write(
        "schema.yaml",
        "version: 1
timestamp: { field: ts }
labels: { asset: { field: host } }
field_mapping:
  cpu_w: { metric: cpu_power, unit: kW, from: W }
  lat_ms: { metric: latency, unit: s, from: ms }
",
    );
    hb.write("raw.jsonl", "{\"ts\":\"2026-01-01T00:00:00Z\",\"host\":\"m1\",\"cpu_w\":120.5,\"lat_ms\":3}\n");
    let args = ["normalize", "--schema", "schema.yaml", "--input", "raw.jsonl", "--output", "metrics.csv"];
    assert_eq!(hb.json(&args)["counts"]["samples"], 2);
    let csv = fs::read_to_string(hb.path("metrics.csv")).unwrap();
    assert!(csv.contains(",cpu_power,0.1205,kW,asset=m1"), "{csv}");
    assert!(csv.contains(",latency,0.003,s,asset=m1"), "{csv}");
}

#[test]
fn baselines_are_made_listed_shown_and_promoted() {
    let hb = instance();
    hb.done(&["ingest", "telemetry.jsonl", "--out", "clean"]);
    let made = hb.json(&["baseline", "create", "--from", "clean"]);
    assert_eq!((&made["version"], &made["series"], &made["samples"]), (&1.into(), &2.into(), &(SECONDS * 2).into()));
    let half = format!("clean@..{}", at(SECONDS / 2));
    assert_eq!(hb.json(&["baseline", "create", "--from", &half])["samples"], SECONDS);
    hb.done(&["baseline", "promote", "--version", "2"]);

    let list = hb.json(&["baseline", "list"]);
    let tags: Vec<&Value> = list.as_array().unwrap().iter().map(|b| &b["tags"]).collect();
    assert_eq!(tags, [&serde_json::json!([]), &serde_json::json!(["golden"])]);
    hb.done(&["baseline", "promote", "--version", "1"]);
    let text = hb.done(&["baseline", "list"]).stdout;
    assert!(text.starts_with("v1 [golden]: 2 series"), "a tag moves: {text}");
    let shown = hb.json(&["baseline", "show", "--version", "1"]);
    assert_eq!(shown["series"].as_array().map(Vec::len), Some(2));
    assert_eq!(shown["series"][0]["values"][0], SECONDS as f64);

    let empty = hb.run(&["baseline", "create", "--from", "clean@2030-01-01.."]);
    assert_eq!(empty.code, 65, "{empty:#?}");
    assert!(empty.stderr.contains("there is no sample"), "{}", empty.stderr);
}

#[test]
fn a_clean_run_passes_and_a_damaged_one_fails_the_gate() {
    let hb = judged();
    let clean = hb.json(&["analyze", "clean"]);
    assert_eq!(clean["status"], "PASS", "{clean}");

    damage(&hb, "bad", &["--fault", "value_corruption", "--param", "metric=flow", "--param", "offset=50"]);
    let gated = gate(&hb, "bad");
    assert_eq!(gated.code, 1, "{gated:#?}");
    let run: Value = serde_json::from_str(&gated.stdout).unwrap();
    assert_eq!(run["status"], "FAIL");
    assert!(run["sentence"].as_str().unwrap().contains("flow{asset=p1}"), "{run}");
    assert_eq!(hb.run(&["analyze", "bad"]).code, 0, "without the gate a FAIL is a result, not an error");
    assert_eq!(gate(&hb, "clean").code, 0);

    let report: Value = serde_json::from_slice(&fs::read(hb.path("bad/drift_report.json")).unwrap()).unwrap();
    assert_eq!((&report["status"], &report["primary_issue"]), (&"FAIL".into(), &"flow".into()));
    let html = fs::read_to_string(hb.path("bad/drift_report.html")).unwrap();
    assert!(html.to_ascii_lowercase().starts_with("<!doctype html>") && html.contains("flow"));
    let runs = hb.json(&["runs", "list"]);
    assert_eq!(runs.as_array().map(Vec::len), Some(2), "the same run is stored once: {runs}");
    assert!(hb.done(&["runs", "list"]).stdout.contains("FAIL"));
}

#[test]
fn a_renamed_metric_is_missing_and_its_new_name_is_told() {
    let hb = judged();
    damage(&hb, "renamed", &["--fault", "schema_change", "--param", "metric=flow", "--param", "rename_to=flux"]);
    let run = hb.json(&["analyze", "renamed"]);
    assert_eq!(run["status"], "FAIL", "{run}");
    let report = fs::read_to_string(hb.path("renamed/drift_report.json")).unwrap();
    assert!(report.contains("flow is missing; flux looks like it under another name"), "{report}");
}

#[test]
fn json_is_json_for_every_verb_that_shows_something() {
    let hb = judged();
    hb.done(&["daemon", "--once"]);
    for args in [
        &["check"][..],
        &["status"],
        &["baseline", "list"],
        &["runs", "list"],
        &["quarantine", "list"],
        &["log", "verify"],
        &["daemon", "--once"],
    ] {
        let shown = hb.json(args);
        assert!(shown.is_object() || shown.is_array(), "{args:?}: {shown}");
    }
}

#[test]
fn the_shipped_policies_pass_their_tests() {
    assert_eq!(policies(&Hb::new(), &["policy", "check"])["ok"], true);
    let tested = policies(&Hb::new(), &["policy", "test"]);
    assert_eq!((&tested["failed"], &tested["untested"]), (&0.into(), &serde_json::json!([])), "{tested}");
    assert!(tested["passed"].as_u64() > Some(10), "{tested}");
}

/// A policy verb on the shipped policies.
fn policies(hb: &Hb, verb: &[&str]) -> Value {
    let dir = repository().join("policies");
    let args: Vec<&str> = verb.iter().copied().chain([dir.to_str().unwrap()]).collect();
    hb.json(&args)
}

/// What `hb init` makes, and clean telemetry of two metrics.
fn instance() -> Hb {
    let hb = Hb::new();
    hb.done(&["init"]);
    let mut text = String::new();
    for second in 0..SECONDS {
        let (a, b) = ((second as f64 * 1.7).sin(), (second as f64 * 2.1).cos());
        let time = at(second);
        writeln!(text, "{{\"timestamp\":\"{time}\",\"asset\":\"p1\",\"flow\":{},\"level\":{}}}", 10.0 + a, 5.0 + b)
            .unwrap();
    }
    hb.write("telemetry.jsonl", &text);
    hb
}

/// An instance with artifacts in `clean` and their baseline promoted.
fn judged() -> Hb {
    let hb = instance();
    hb.done(&["ingest", "telemetry.jsonl", "--out", "clean"]);
    hb.done(&["baseline", "create", "--from", "clean"]);
    hb.done(&["baseline", "promote", "--version", "1"]);
    hb
}

/// Makes a damaged copy of `clean`.
fn damage(hb: &Hb, to: &str, fault: &[&str]) {
    fs::create_dir(hb.path(to)).unwrap();
    fs::copy(hb.path("clean/run_meta.json"), hb.path(to).join("run_meta.json")).unwrap();
    let output = format!("{to}/metrics.csv");
    let args: Vec<&str> =
        ["inject", "--input", "clean/metrics.csv", "--output", &output].iter().chain(fault).copied().collect();
    hb.done(&args);
}

/// `hb analyze` as a gate of CI.
fn gate(hb: &Hb, dir: &str) -> Output {
    Output::of(hb.command(&["analyze", dir, "--json"]).env("HB_GATE_FAIL_EXIT", "1"))
}
