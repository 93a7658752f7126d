//! The verbs as scripts and newcomers meet them: help, exit codes, files, JSON.

mod pages;
mod proof;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;

use crate::support::hb::{Hb, Output, at, repository, surround};

/// Columns of a terminal that nobody has resized: no line of a list of verbs is broken there.
const SCREEN_COLUMNS: usize = 80;

/// Lines of the list of all verbs and the flags of all of them: two looks at such a terminal, one at a larger one.
const SCREEN_LINES: usize = 40;

/// A child that says nothing for this long and does not end hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// Seconds of telemetry of [`instance`]: several windows of the shipped config's five minutes.
const SECONDS: u64 = 1_200;

#[test]
fn help_fits_a_screen_and_every_verb_shows_an_example() {
    let hb = Hb::new();
    let help = Output::of(hb.command(&["--help"]).env("COLUMNS", SCREEN_COLUMNS.to_string())).stdout;
    assert!(help.lines().count() <= SCREEN_LINES, "{help}");
    let long: Vec<&str> = help.lines().filter(|line| line.chars().count() > SCREEN_COLUMNS).collect();
    assert!(long.is_empty(), "{long:#?}");
    // And none was broken to fit: what goes on stands further right than any verb.
    let listed = help.lines().skip_while(|l| !l.starts_with("Commands:")).skip(1).take_while(|l| !l.is_empty());
    assert!(listed.clone().count() > 10 && listed.clone().all(|l| !l.starts_with("   ")), "{help}");
    let verbs = commands(&help);
    assert!(verbs.len() > 10, "{verbs:?}");
    // Verbs within verbs too, however deep.
    let mut left: Vec<Vec<String>> = verbs.into_iter().map(|verb| vec![verb]).collect();
    let mut nested = 0;
    while let Some(path) = left.pop() {
        let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = hb.done(&args).stdout;
        let verb = path.join(" ");
        assert!(help.contains("Example: ") && help.contains(&format!("hb {verb}")), "{verb}: {help}");
        for inner in commands(&help) {
            nested += 1;
            left.push(path.iter().cloned().chain([inner]).collect());
        }
    }
    assert!(nested > 10, "{nested}");
}

/// The verbs that a help lists.
fn commands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|l| !l.starts_with("Commands:"))
        .skip(1)
        .take_while(|l| l.starts_with("  "))
        .filter(|l| !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn exit_codes_tell_mistakes_apart() {
    let hb = instance();
    for (args, code, word) in [
        (&["nonsense"][..], 64, "nonsense"),
        (&["ingest"], 64, "--out"),
        (&["inject", "--fault", "rust", "--input", "a", "--output", "b"], 64, "rust"),
        (&["inject", "--fault", "packet_loss", "--input", "nowhere.csv", "--output", "b"], 74, "nowhere.csv"),
        (&["baseline", "create", "--window", "soon"], 64, "soon"),
        (&["analyze", "nowhere"], 65, "nowhere"),
        (&["baseline", "show", "--version", "9"], 65, "v9"),
        (&["baseline", "promote", "--version", "9"], 65, "v9"),
        (&["baseline", "promote", "--version", "9", "--tag", "a b"], 64, "a b"),
        (&["policy", "test", "nowhere"], 64, "nowhere"),
        (&["policy", "check", "nowhere", "telemetry.jsonl"], 64, "telemetry.jsonl"),
        (&["ingest", "telemetry.jsonl", "--out", "x", "--config-source", "plantt"], 64, "did you mean `plant`?"),
        (&["ingest", "telemetry.jsonl", "--out", "x", "--config-source", "plant", "--source", "jsonl"], 64, "jsonl"),
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
        &["inject", "--fault", "packet_loss", "--input", "clean/metrics.csv", "--output", "lost.csv"],
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

#[test]
fn a_stderr_that_takes_nothing_changes_no_exit_code() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let status = Hb::new().command(&["check", "--config", "nowhere.yaml"]).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(78));
}

#[test]
fn the_gate_refuses_what_it_cannot_judge() {
    let hb = judged();
    let unknown = Output::of(hb.command(&["analyze", "clean", "--baseline", "goldne"]).env("HB_GATE_FAIL_EXIT", "1"));
    assert_eq!((unknown.code, unknown.stdout.as_str()), (65, ""), "{unknown:#?}");
    assert!(unknown.stderr.contains("`goldne`") && unknown.stderr.contains("`golden`?"), "{}", unknown.stderr);

    let header = "timestamp,metric,value,unit,labels\n";
    fs::create_dir(hb.path("hurt")).unwrap();
    fs::copy(hb.path("clean/run_meta.json"), hb.path("hurt/run_meta.json")).unwrap();
    for (text, words) in [
        (String::new(), ["metrics.csv:1", "expected the header"]),
        ("\u{1}\u{2}PNG\n\u{3}".to_owned(), ["metrics.csv:1", "expected the header"]),
        (format!("{header}what is this\n"), ["metrics.csv:2", "5 are expected"]),
        (format!("{header}2026-01-01T00:00:00Z,flow,many,,\n"), ["metrics.csv:2", "`many` is no number"]),
        (header.to_owned(), ["metrics.csv", "no sample to judge"]),
        (format!("{header}2026-01-01T00:00:00Z,{},1,,\n", "long".repeat(999)), ["every row", "hb quarantine list"]),
    ] {
        hb.write("hurt/metrics.csv", &text);
        let output = gate(&hb, "hurt");
        assert_eq!((output.code, output.stdout.as_str()), (65, ""), "{text:?}: {output:#?}");
        assert!(words.iter().all(|w| output.stderr.contains(w)), "{text:?}: {}", output.stderr);
        assert!(output.stderr.contains("help: "), "{text:?}: {}", output.stderr);
    }
    fs::remove_file(hb.path("hurt/metrics.csv")).unwrap();
    assert_eq!(gate(&hb, "hurt").code, 65);
    assert_eq!(hb.json(&["runs", "list"]).as_array().map(Vec::len), Some(0), "nothing of it is a run");
}

#[test]
fn a_window_of_live_telemetry_ends_where_the_clock_stands() {
    let hb = instance();
    hb.done(&["daemon", "--once"]);
    let made = hb.json(&["baseline", "create", "--window", "5m"]);
    assert_eq!((&made["samples"], &made["series"]), (&600.into(), &2.into()), "{made}");
    let span = (made["start"].as_str().unwrap(), made["end"].as_str().unwrap());
    assert_eq!(span, (at(SECONDS - 300).as_str(), at(SECONDS - 1).as_str()));
    assert_eq!(hb.json(&["baseline", "create", "--window", "7d"])["samples"], SECONDS * 2);

    // One clock that is years ahead: the engine does not believe it, and no more does the window.
    let wild = instance();
    let telemetry = fs::read_to_string(wild.path("telemetry.jsonl")).unwrap();
    let (before, behind) = telemetry.split_at(telemetry.find(&at(SECONDS / 2)).unwrap() - "{\"timestamp\":\"".len());
    let far = "{\"timestamp\":\"2031-01-01T00:00:00Z\",\"asset\":\"p1\",\"flow\":10,\"level\":5}\n";
    wild.write("telemetry.jsonl", &format!("{before}{far}{behind}"));
    wild.done(&["daemon", "--once"]);
    let made_of_wild = wild.json(&["baseline", "create", "--window", "5m"]);
    for what in ["samples", "start", "end", "hash"] {
        assert_eq!(made_of_wild[what], made[what], "{what}: {made_of_wild}");
    }
}

#[test]
fn once_ends_where_the_file_ends_even_if_it_is_followed() {
    let hb = instance();
    let config = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    assert!(config.contains("follow: false"));
    hb.write("hb.yaml", &config.replace("follow: false", "follow: true"));
    assert_eq!(to_its_end(&mut hb.command(&["daemon", "--once"]), |_, _| {}), Some(0));
    assert_eq!(hb.json(&["status"])["counters"]["frames"], SECONDS);
}

#[test]
fn a_terminal_shows_that_long_work_goes_on_and_nothing_else_does() {
    let hb = failed();
    hb.done(&["daemon", "--once"]);
    let pack = fs::read_dir(hb.path("evidence_packs")).unwrap().next().unwrap().unwrap().path();
    let pack = pack.to_str().unwrap();
    let case = pack.rsplit("evidence_").next().unwrap();
    for (args, word) in [
        (&["ingest", "telemetry.jsonl", "--out", "again"][..], "ingest"),
        (&["baseline", "create", "--from", "again"], "baseline"),
        (&["analyze", "again"], "analyze"),
        (&["export", "evidence-pack", "--case", case, "--out", "packs"], "export"),
        (&["verify", pack], "verify"),
        (&["replay", pack], "replay"),
        (&["log", "verify"], "log verify"),
        (&["daemon", "--once", "--state", "fresh"], "daemon"),
    ] {
        // `script` gives it a terminal.
        let mut line = vec![env!("CARGO_BIN_EXE_hb")];
        line.extend(args);
        let mut script = Command::new("script");
        script.args(["-qec", &line.join(" "), "/dev/null"]).current_dir(hb.dir()).stdin(Stdio::null());
        surround(&mut script);
        let seen = Output::of(script.env("TERM", "xterm").env("COLUMNS", "120"));
        assert_eq!(seen.code, 0, "{args:?}: {seen:#?}");
        let turns = |c: char| ('\u{2800}'..'\u{2900}').contains(&c) || c == '█' || c == '░';
        let drawn = seen.stdout.split(['\r', '\n']).any(|l| l.contains(&format!("{word} ")) && l.contains(turns));
        assert!(drawn, "{args:?}: {}", seen.stdout);
        let plain = hb.run(args);
        assert_eq!(plain.code, 0, "{args:?}: {plain:#?}");
        assert!(!plain.stderr.contains(&format!("{word} ")), "{args:?}: {}", plain.stderr);
    }
}

#[test]
fn ingest_and_normalize_need_no_config() {
    let with = instance();
    let hb = Hb::new();
    for name in ["telemetry.jsonl", "telemetry_schema.yaml"] {
        fs::copy(with.path(name), hb.path(name)).unwrap();
    }
    let args = ["--schema", "telemetry_schema.yaml", "--input", "telemetry.jsonl", "--output", "metrics.csv"];
    hb.done(&[&["normalize"][..], &args].concat());
    let args = ["ingest", "telemetry.jsonl", "--out", "clean"];
    let meta = hb.json(&[&args[..], &["--schema", "telemetry_schema.yaml"]].concat());
    assert_eq!(meta["run_id"], with.json(&args)["run_id"], "the same telemetry");
    assert_eq!(fs::read(hb.path("metrics.csv")).unwrap(), fs::read(hb.path("clean/metrics.csv")).unwrap());
    let mut left: Vec<_> = fs::read_dir(hb.dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["clean", "metrics.csv", "telemetry.jsonl", "telemetry_schema.yaml"], "nothing else is left");

    let lost = hb.run(&args);
    assert!(lost.code == 78 && lost.stderr.contains("--schema"), "{lost:#?}");
    // One that is named must be there.
    assert_eq!(hb.run(&[&args[..], &["--config", "hb.yaml"]].concat()).code, 78);
}

#[test]
fn ingest_reads_as_the_source_of_the_config_does() {
    let hb = Hb::new();
    let normalizer = |name: &str, metric: &str| {
        format!(
            "  - {{ name: {name}, plugin: schema-map, settings: {{ version: 1, timestamp: {{ field: t }}, layout: wide,
      field_mapping: {{ v: {{ metric: {metric} }} }}, unmapped: ignore }} }}\n"
        )
    };
    let source = |name: &str, normalizer: &str, format: &str| {
        format!(
            "  - {{ name: {name}, plugin: file-replay, transport: {{ file: {{ path: in.txt }} }},
      settings: {{ format: {format} }}, normalizer: {normalizer} }}\n"
        )
    };
    hb.write(
        "hb.yaml",
        &format!(
            "require_signed: false\nsources:\n{}{}normalizers:\n{}{}",
            source("lines", "second", "jsonl"),
            source("table", "first", "csv"),
            normalizer("first", "one"),
            normalizer("second", "two"),
        ),
    );
    hb.write("in.txt", "{\"t\":\"2026-01-01T00:00:00Z\",\"v\":1}\n");
    let read = hb.done(&["ingest", "in.txt", "--out", "a"]);
    assert!(read.stderr.contains("as source `lines`"), "{}", read.stderr);
    let csv = |dir: &str| fs::read_to_string(hb.path(dir).join("metrics.csv")).unwrap();
    assert!(csv("a").contains(",two,1,"), "{}", csv("a"));

    // A first line of its own tells that it is read as a table.
    hb.write("in.txt", "t,v\n2026-01-01T00:00:00Z,1\n");
    let read = hb.done(&["ingest", "in.txt", "--out", "b", "--config-source", "table"]);
    assert!(!read.stderr.contains("as source"), "{}", read.stderr);
    assert!(csv("b").contains(",one,1,"), "{}", csv("b"));
    assert_eq!(hb.json(&["ingest", "in.txt", "--out", "c"])["counts"]["samples"], 0, "a table is no list of objects");
}

#[test]
fn a_name_that_has_no_place_in_a_line_is_refused_and_counted() {
    let hb = instance();
    hb.write("odd.jsonl", "{\"timestamp\":\"2026-01-01T00:00:00Z\",\"asset\":\"p\\n1\",\"fl\\now\":1,\"level\":5}\n");
    let meta = hb.json(&["ingest", "odd.jsonl", "--out", "odd"]);
    assert_eq!((&meta["counts"]["samples"], &meta["counts"]["rejects"]), (&1.into(), &1.into()), "{meta}");
    let reason = "a metric or unit with a line break has no place in metrics.csv";
    assert_eq!(meta["refused"][reason], 1, "{meta}");
    let csv = fs::read_to_string(hb.path("odd/metrics.csv")).unwrap();
    assert_eq!(csv.lines().nth(1), Some("2026-01-01T00:00:00Z,level,5,,asset=p%0A1"));
    hb.done(&["baseline", "create", "--from", "odd"]);
}

#[test]
fn the_same_run_again_keeps_its_cases() {
    let hb = failed();
    let first = hb.json(&["analyze", "bad"]);
    assert!(first["cases"].as_array().is_some_and(|c| !c.is_empty()), "{first}");
    let again = hb.json(&["analyze", "bad"]);
    assert_eq!((&again["run_id"], &again["cases"]), (&first["run_id"], &first["cases"]));
    assert_eq!(hb.json(&["runs", "list"])[0]["cases"], first["cases"]);
}

#[test]
fn check_leaves_no_file_behind_where_a_sink_would_write() {
    let hb = instance();
    let config = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    let to =
        |path: &str| hb.write("hb.yaml", &config.replace("output: stdout", &format!("output: {{ file: {path} }}")));
    to("alerts.jsonl");
    hb.done(&["check"]);
    assert!(!hb.path("alerts.jsonl").exists());
    hb.write("alerts.jsonl", "kept\n");
    hb.done(&["check"]);
    assert_eq!(fs::read_to_string(hb.path("alerts.jsonl")).unwrap(), "kept\n");
    for path in ["no/such/folder.jsonl", "evidence"] {
        fs::create_dir_all(hb.path("evidence")).unwrap();
        to(path);
        let refused = hb.run(&["check"]);
        assert_eq!(refused.code, 78, "{path}: {refused:#?}");
        assert!(refused.stderr.contains("the output of sink `out` cannot be opened"), "{path}: {}", refused.stderr);
    }
}

#[test]
fn check_warns_of_a_rule_that_is_asked_about_nothing() {
    let hb = instance();
    let rule = "return { id = \"drift.hot\", version = \"1.0.0\", kind = \"rule\", about = \"Heat.\", \
                applies_to = { \"temp*\" }, params = {}, judge = function(_w, _b, _ctx) return nil end }\n";
    hb.write("mine/drift/hot.luau", rule);
    let config = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    let (before, _) = config.split_once("checks:\n").unwrap();
    let of = |metrics: &str| {
        let check = format!("{{ id: hot, window_sec: 10, metrics: [{metrics}], rules: [{{ rule: drift.hot }}] }}");
        hb.write("hb.yaml", &format!("{before}checks: [{check}]\npolicies_dir: ./mine\n"));
        hb.done(&["check"]).stderr
    };
    let warned = of("rpm, speed");
    assert!(warned.contains("rule `drift.hot` judges nothing here: it applies to `temp*` alone"), "{warned}");
    assert!(warned.contains("hb.yaml:"), "it has a place: {warned}");
    let content = of("rpm, \"*_inlet\"");
    assert!(!content.contains("judges nothing"), "{content}");
}

#[test]
fn a_policy_path_without_policies_is_a_mistake() {
    let hb = Hb::new();
    fs::create_dir(hb.path("empty")).unwrap();
    hb.write("types/hb.d.luau", "export type Nothing = nil\n");
    for verb in ["test", "check"] {
        for path in ["empty", "types"] {
            let refused = hb.run(&["policy", verb, path]);
            assert_eq!(refused.code, 64, "{verb} {path}: {refused:#?}");
            assert!(refused.stderr.contains(&format!("in {path}")), "{verb} {path}: {}", refused.stderr);
        }
    }
    // A test that tests nothing has not passed.
    hb.write("alone/rule.test.luau", "return {}\n");
    let alone = hb.run(&["policy", "test", "alone"]);
    assert_eq!(alone.code, 65, "{alone:#?}");
    assert!(alone.stderr.contains("there is no policy"), "{}", alone.stderr);
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
    hb.write("telemetry.jsonl", &telemetry(&[("p1", SECONDS)]));
    hb
}

/// Telemetry of machines of which each is well up to its second.
fn telemetry(machines: &[(&str, u64)]) -> String {
    let mut text = String::new();
    for second in 0..SECONDS {
        let (a, b) = ((second as f64 * 1.7).sin(), (second as f64 * 2.1).cos());
        for (asset, well) in machines {
            let (time, level) = (at(second), 5.0 + b);
            let flow = if second < *well { 10.0 + a } else { 60.0 + a };
            writeln!(text, "{{\"timestamp\":\"{time}\",\"asset\":\"{asset}\",\"flow\":{flow},\"level\":{level}}}")
                .unwrap();
        }
    }
    text
}

/// An instance with artifacts in `clean` and their baseline promoted.
fn judged() -> Hb {
    let hb = instance();
    hb.done(&["ingest", "telemetry.jsonl", "--out", "clean"]);
    hb.done(&["baseline", "create", "--from", "clean"]);
    hb.done(&["baseline", "promote", "--version", "1"]);
    hb
}

/// An instance that knows two machines as they are when all is well, a damaged recording of them in `bad`, and
/// telemetry in which both fail, one after the other.
fn failed() -> Hb {
    let hb = instance();
    hb.write("clean.jsonl", &telemetry(&[("p1", SECONDS), ("p2", SECONDS)]));
    hb.done(&["ingest", "clean.jsonl", "--out", "clean"]);
    hb.done(&["baseline", "create", "--from", "clean"]);
    hb.done(&["baseline", "promote", "--version", "1"]);
    damage(&hb, "bad", &["--fault", "value_corruption", "--param", "metric=flow", "--param", "offset=50"]);
    hb.write("telemetry.jsonl", &telemetry(&[("p1", SECONDS / 4), ("p2", SECONDS / 2)]));
    hb
}

/// Runs a command to its end, which must come; `each` gets its lines on stderr and its process id, and may act.
fn to_its_end(command: &mut Command, mut each: impl FnMut(&str, u32)) -> Option<i32> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (sender, lines) = channel();
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => each(&line, child.id()),
            Err(RecvTimeoutError::Disconnected) => return child.wait().unwrap().code(),
            Err(RecvTimeoutError::Timeout) => {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("it does not end");
            }
        }
    }
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
