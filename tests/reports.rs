//! Reports and explanations: their facts are those of the decisions, and they are found and told through a daemon too.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hb_engine::decision::{Decision, Status};
use hb_log::cbor;
use hb_log::hash::Hash;
use serde_json::{Value, json};

use crate::hostile::copy_folder;
use crate::support::guests::publisher_key;
use crate::support::hb::{CLEAN_SEC, Hb, Output, PROGRAM, Plant, Running, at, repository, telemetry};

/// Simulated seconds: something drifts, jumps and falls silent.
const SECONDS: u64 = 600;

/// Simulated seconds of a drift of so much a second: DRIFT begins at about 2,800 s, FAIL at 4,500 s.
const SLOW_SEC: u64 = 5_000;
const SLOW_DRIFT: f64 = 0.0025;

/// Exit code where there is nothing of the kind.
const DATA: i32 = 65;

/// A plant that was analyzed, and failed.
fn analyzed() -> Hb {
    let hb = Hb::plant(Plant { evidence: true, ..Plant::default() }, &telemetry(3, SECONDS));
    hb.done(&["analyze", "artifacts"]);
    hb
}

/// A plant that was watched, and failed; and the newest case of the pump that drifts.
fn watched() -> (Hb, String) {
    let hb = Hb::plant(Plant { evidence: true, ..Plant::default() }, &telemetry(3, SECONDS));
    hb.done(&["daemon", "--once"]);
    let cases = hb.json(&["cases", "list"]);
    let case = cases.as_array().unwrap().iter().rfind(|case| case["asset"] == "pump-1").unwrap();
    let id = case["case"].as_str().unwrap().to_owned();
    (hb, id)
}

#[test]
fn reports_are_as_their_schema_says() {
    let hb = analyzed();
    hb.done(&["daemon", "--once"]);
    let schema = fs::read_to_string(repository().join("docs/reference/drift_report.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let listed = hb.json(&["report", "list"]);
    let (mut runs, mut cases) = (0, 0);
    for line in listed.as_array().unwrap() {
        let page = Path::new(line["path"].as_str().unwrap());
        let report: Value = serde_json::from_slice(&fs::read(page.with_extension("json")).unwrap()).unwrap();
        let wrong: Vec<String> = schema.iter_errors(&report).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", page.display());
        *if line["kind"] == "run" { &mut runs } else { &mut cases } += 1;
        assert_eq!(report["run_id"], line["id"]);
        let series = report["series"].as_array().unwrap();
        assert_eq!(
            (report["series_flagged"].as_u64(), &report["status"]),
            (Some(series.len() as u64), &line["status"])
        );
        assert!(series.iter().all(|s| s["case"].is_string() || s["status"] != "FAIL"), "{report:#}");
        assert!(report["baseline"]["age_sec"].as_i64() > Some(0), "{}", report["baseline"]);
        let sum: f64 = series.iter().map(|s| s["contribution"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }
    assert!(runs == 1 && cases > 1, "{runs} runs and {cases} cases in {listed:#}");
    let mut strange: Value =
        serde_json::from_slice(&fs::read(hb.path("artifacts/drift_report.json")).unwrap()).unwrap();
    strange["statuss"] = "FAIL".into();
    assert!(!schema.is_valid(&strange), "the schema takes anything");
}

#[test]
fn a_report_shares_its_correlation_id_with_the_lines_of_its_decision() {
    let hb = Hb::plant(Plant { evidence: true, ..Plant::default() }, &telemetry(3, SECONDS));
    let mut daemon = hb.command(&["daemon", "--once", "--log-format", "json"]);
    let said = Output::of(daemon.env("RUST_LOG", "hb=info"));
    assert_eq!(said.code, 0, "{said:#?}");
    let lines: Vec<Value> = said.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let listed = hb.json(&["report", "list"]);
    assert!(!listed.as_array().unwrap().is_empty());
    for line in listed.as_array().unwrap() {
        let report = facts(line);
        let decision = &report["cases"][0]["decision"];
        let shared: Vec<&str> = lines
            .iter()
            .filter(|l| l["decision"] == *decision && l["correlation_id"] == report["correlation_id"])
            .filter_map(|l| l["message"].as_str())
            .collect();
        assert!(["decided", "case opened"].iter().all(|what| shared.contains(what)), "{shared:?} of {report:#}");
    }
    let alerts = lines.iter().filter(|l| l["message"] == "alert fires").count();
    assert!(alerts > 0, "{}", said.stderr);
}

#[test]
fn a_fault_that_began_before_what_a_pack_holds_is_told_so() {
    let hb = Hb::plant(Plant { evidence: true, ..Plant::default() }, &slow_telemetry());
    hb.done(&["daemon", "--once"]);
    let all: Vec<Decision> = hb.decisions(PROGRAM).iter().map(|bytes| cbor::decode(bytes).unwrap()).collect();
    let (mut before, mut seen) = (0, 0);
    for line in hb.json(&["report", "list"]).as_array().unwrap() {
        let report = facts(line);
        let (start, end) = (time(&report["span"]["start"]), time(&report["span"]["end"]));
        for s in report["series"].as_array().unwrap() {
            let of =
                |d: &&Decision| s["check"] == d.check.as_str() && s["asset"] == d.asset.as_str() && d.end_ns <= end;
            let is_flagged = |d: &&Decision| {
                d.findings.iter().any(|f| s["label"] == f.series.to_string().as_str() && f.status != Status::NoData)
            };
            // The whole of it, as the log has it: its last time in a row.
            let began = all.iter().filter(of).rev().take_while(is_flagged).last().map(|d| d.start_ns);
            let Some(began) = began else { continue };
            let said = s["began_before"] == true;
            if began < start {
                assert!(said && s["onset"].is_null(), "{s:#}");
                assert!(report["status_sentence"].as_str().unwrap().contains(" since before "), "{report:#}");
                before += 1;
            } else {
                assert!(!said, "{s:#}");
                seen += 1;
            }
        }
    }
    assert!(before > 0 && seen > 0, "{before} began before, {seen} did not");
}

#[test]
fn the_faults_of_a_plant_get_hints_that_fit_them() {
    let hb = simulated(&["stuck:press-01:1h", "spike:pump-03:1h", "latency:mill-04:1h"]);
    let listed = hb.json(&["report", "list"]);
    let reports: Vec<Value> = listed.as_array().unwrap().iter().map(facts).collect();
    let hints = |machine: &str| -> String {
        let of =
            reports.iter().filter(|r| r["assets"][0] == machine).filter_map(|r| r["investigation_hints"].as_array());
        of.flatten().map(|hint| format!("{}\n", hint.as_str().unwrap())).collect()
    };
    for (machine, series, fits) in [
        ("press-01", "speed", "does not move at all"),
        ("pump-03", "vibration", "has single readings far out"),
        ("mill-04", "response_time", "jumped within one window"),
    ] {
        let hints = hints(machine);
        assert!(hints.lines().any(|h| h.starts_with(series) && h.contains(fits)), "{machine}: {hints}");
        assert!(!hints.contains("moved away"), "{machine}: {hints}");
    }
    assert!(reports.iter().all(|r| r["investigation_hints"] != json!([])), "a report without a hint: {reports:#?}");
}

/// The tour's plant, judged by the checks of `examples/plant`: a day in which all is well, and four hours with faults.
fn simulated(faults: &[&str]) -> Hb {
    let hb = Hb::new();
    let read = |name: &str| fs::read_to_string(repository().join("examples").join(name)).unwrap();
    let (tour, plant) = (read("tour/hb.yaml"), read("plant/hb.yaml"));
    let checks = |text: &str| {
        let from = text.find("\nchecks:").unwrap();
        from..text.find("\nseverity:").unwrap()
    };
    hb.write("hb.yaml", &tour.replace(&tour[checks(&tour)], &plant[checks(&plant)]));
    hb.write("telemetry_schema.yaml", &read("plant/telemetry_schema.yaml"));
    hb.write("publisher.pub", &publisher_key());
    copy_folder(&repository().join("policies"), &hb.path("policies"));
    let simulate = |start: &str, span: &str, output: &str, faults: &[&str]| {
        let args = ["simulate", "--machines", "4", "--start", start, "--for", span, "--output", output];
        let faults: Vec<&str> = faults.iter().flat_map(|fault| ["--fault", fault]).collect();
        hb.done(&[&args[..], &faults].concat());
    };
    hb.done(&["keys", "init"]);
    simulate("2026-03-02", "24h", "clean.jsonl", &[]);
    hb.done(&["ingest", "clean.jsonl", "--out", "clean"]);
    hb.done(&["baseline", "create", "--from", "clean"]);
    hb.done(&["baseline", "promote", "--version", "1", "--tag", "golden"]);
    simulate("2026-03-03", "4h", "today.jsonl", faults);
    hb.done(&["daemon", "--once"]);
    hb
}

#[test]
fn a_pack_says_what_lies_beside_its_page() {
    let (hb, case) = watched();
    let page = hb.done(&["report", "open", "--print", &case]).stdout;
    let page = Path::new(page.trim_end());
    let text = fs::read_to_string(page).unwrap();
    let report: Value = serde_json::from_slice(&fs::read(page.with_extension("json")).unwrap()).unwrap();
    for file in report["files"].as_array().unwrap() {
        let name = file["path"].as_str().unwrap();
        assert!(page.with_file_name(name).is_file(), "{name} does not lie beside the page");
        assert!(text.contains(&format!("<a href=\"{name}\">")), "{name}");
    }
    // Its commands are typed in the folder that holds the pack, and do what they say.
    let commands = report["cases"][0]["commands"].as_array().unwrap();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for command in commands {
        let args: Vec<String> = command.as_str().unwrap().split(' ').skip(1).map(str::to_owned).collect();
        let key = hb.path("state/keys/host.pub");
        let args: Vec<&str> =
            args.iter().map(|a| if a == "hb.pub" { key.to_str().unwrap() } else { a.as_str() }).collect();
        let done = Output::of(hb.command(&args).current_dir(hb.path("evidence_packs")));
        assert_eq!(done.code, 0, "{command}: {done:#?}");
        assert!(!done.stdout.contains("hb export"), "a pack need not be exported again: {}", done.stdout);
    }
}

#[test]
fn the_limits_of_a_chart_lie_where_the_rule_has_them() {
    let hb = analyzed();
    let report: Value = serde_json::from_slice(&fs::read(hb.path("artifacts/drift_report.json")).unwrap()).unwrap();
    let mut seen = 0;
    for s in report["series"].as_array().unwrap().iter().filter(|s| s["worst"]["rule"] == "drift.robust_z") {
        let [value, limit, observed] = ["value", "limit", "observed"].map(|k| s["worst"][k].as_f64().unwrap());
        let Some(range) = s["limits"]["fail"].as_object() else { continue };
        let [low, high] = ["low", "high"].map(|k| range[k].as_f64().unwrap());
        // The rule is z = (mean - centre) / spread.
        let (centre, spread) = (f64::midpoint(low, high), (high - low) / 2.0 / limit);
        assert!(((observed - centre) / spread - value).abs() < 1e-3 * value.abs(), "{s:#}");
        seen += 1;
    }
    assert!(seen > 1, "{report:#}");
}

#[test]
fn reports_are_listed_newest_first_and_found_by_the_beginning_of_their_names() {
    let hb = analyzed();
    let lines = hb.json(&["report", "list"]);
    let lines = lines.as_array().unwrap();
    let text = hb.done(&["report", "list"]).stdout;
    assert_eq!(text.lines().count(), lines.len() * 2, "{text}");
    let written: Vec<&str> = lines.iter().map(|l| l["written_at"].as_str().unwrap()).collect();
    assert!(written.is_sorted_by(|a, b| a >= b), "{written:?}");
    let open = |args: &[&str]| hb.done(&[&["report", "open", "--print"], args].concat()).stdout;
    assert_eq!(open(&[]).trim_end(), lines[0]["path"].as_str().unwrap());
    for line in lines {
        let (id, path) = (line["id"].as_str().unwrap(), line["path"].as_str().unwrap());
        let (_, digits) = id.split_once('-').unwrap();
        for name in [id, &digits[..10], digits] {
            assert_eq!(open(&[name]).trim_end(), path, "{name}");
        }
        assert!(Path::new(path).is_absolute() && Path::new(path).is_file());
    }

    let unknown = hb.run(&["report", "open", "run-ffffffffffff"]);
    assert!(unknown.code == DATA && unknown.stderr.contains("hb report list"), "{unknown:#?}");
    let many = hb.run(&["report", "open", "case-"]);
    assert!(many.code == 64 && many.stderr.contains("write more of it"), "{many:#?}");
    // A report that is gone is listed no more; its case says how to get one.
    let case = lines.iter().find(|l| l["kind"] == "case").unwrap()["id"].as_str().unwrap();
    fs::remove_dir_all(hb.path("evidence_packs")).unwrap();
    let gone = hb.run(&["report", "open", case]);
    assert!(gone.code == DATA && gone.stderr.contains("hb export evidence-pack --case"), "{gone:#?}");
    fs::remove_file(hb.path("artifacts/drift_report.html")).unwrap();
    assert_eq!(hb.json(&["report", "list"]), json!([]));
    let none = hb.run(&["report", "open"]);
    assert!(none.code == DATA && none.stderr.contains("hb analyze DIR"), "{none:#?}");
    assert_eq!(none.stdout, "");
}

#[test]
fn a_report_is_opened_where_there_is_a_display() {
    let hb = analyzed();
    let lines = hb.json(&["report", "list"]);
    let run = lines.as_array().unwrap().iter().find(|l| l["kind"] == "run").unwrap();
    let (id, page) = (run["id"].as_str().unwrap(), run["path"].as_str().unwrap());
    let tools = hb.path("tools");
    let opener = |body: &str| {
        hb.write("tools/xdg-open", &format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(tools.join("xdg-open"), fs::Permissions::from_mode(0o755)).unwrap();
    };
    opener("printf '%s' \"$1\" > opened");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let open = |display: &str, args: &[&str]| {
        let mut command = hb.command(&[&["report", "open", id], args].concat());
        command.env("PATH", &path).env_remove("WAYLAND_DISPLAY").env("DISPLAY", display);
        let output = Output::of(&mut command);
        let opened = fs::read_to_string(hb.path("opened")).unwrap_or_default();
        let _ = fs::remove_file(hb.path("opened"));
        (output, opened)
    };
    for (display, args, want) in [(":0", &[][..], page), ("", &[], ""), (":0", &["--print"], "")] {
        let (output, opened) = open(display, args);
        assert_eq!((output.code, output.stdout.trim_end(), opened.as_str()), (0, page, want), "{output:#?}");
    }
    let mut live = daemon(&hb);
    let (output, opened) = open(":0", &[]);
    assert_eq!((output.code, output.stdout.trim_end(), opened.as_str()), (0, page, page), "{output:#?}");
    live.end();
    // An opener that cannot is no reason to fail: the path was printed.
    opener("exit 3");
    let (output, _) = open(":0", &[]);
    assert!(output.code == 0 && output.stdout.trim_end() == page && output.stderr.contains("xdg-open"), "{output:#?}");
}

#[test]
fn a_decision_is_explained_with_what_it_was_made_from() {
    let (hb, case) = watched();
    let told = hb.json(&["explain", &case]);
    let id = told["decision"].as_str().unwrap();
    assert_eq!(case, format!("case-{}", &id[..12]));
    assert_eq!(hb.json(&["explain", id]), told, "by its id");
    assert_eq!((&told["status"], &told["case"]["packed"]), (&"FAIL".into(), &true.into()), "{told:#}");
    let entry = told["log"]["entry"].as_u64().unwrap();
    let logged = &hb.json(&["log", "show", "--from", &entry.to_string(), "--count", "1"])[0];
    assert_eq!((&logged["seq"], &logged["body"]["decision"]), (&entry.into(), &id.into()));
    let frames = &told["inputs"]["frames"]["plant"];
    let [first, last, count] = ["first", "last", "count"].map(|k| frames[k].as_u64().unwrap());
    // One frame a second of 30 s, and those of three other pumps between them.
    assert!(count == 30 && last - first >= 29 * 4, "{frames}");
    assert!(told["alert"]["fingerprint"].is_string(), "{told:#}");

    let finding = &told["findings"][0];
    assert_eq!(finding["rule_version"], "1.0.0", "{finding:#}");
    let points = finding["points"].as_array().unwrap();
    let newest = points.last().unwrap();
    assert_eq!((&newest["end"], &newest["mean"]), (&told["window"]["end"], &finding["observed"]), "{finding:#}");
    assert_eq!(newest["status"], finding["status"]);

    // Its pack tells the same.
    let pack = hb.path("evidence_packs").join(format!("evidence_{case}"));
    let packed = hb.json(&["explain", "--pack", pack.to_str().unwrap()]);
    for key in ["decision", "findings", "inputs", "generations", "baseline", "window"] {
        assert_eq!(packed[key], told[key], "{key}");
    }
    assert_eq!(packed["log"]["entry"], told["log"]["entry"]);
    let other = hb.run(&["explain", "--pack", pack.to_str().unwrap(), "ffff"]);
    assert!(other.code == DATA && other.stderr.contains(id), "{other:#?}");

    for (args, code, word) in
        [(&["explain", "ffffffffffff"][..], DATA, "hb status"), (&["explain"], 64, "<ID>"), (&["explain", ""], 64, "")]
    {
        let output = hb.run(args);
        assert!(output.code == code && output.stderr.contains(word), "{args:?}: {output:#?}");
    }
}

#[test]
fn explanations_are_as_their_schema_says() {
    let (hb, case) = watched();
    let schema = fs::read_to_string(repository().join("docs/reference/explained.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let pack = format!("evidence_packs/evidence_{case}");
    let mut told: Vec<Value> = vec![hb.json(&["explain", "--pack", &pack])];
    for decision in hb.decisions(PROGRAM).iter().step_by(17) {
        told.push(hb.json(&["explain", &Hash::of(decision).to_string()]));
    }
    let has = |key: &str| told.iter().any(|t| !t[key].is_null()) && told.iter().any(|t| t[key].is_null());
    assert!(["log", "case", "alert", "severity"].into_iter().all(has), "both ways of each are wanted");
    for told in &mut told {
        let wrong: Vec<String> = schema.iter_errors(told).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(wrong.is_empty(), "{wrong:#?} in {told:#}");
        told["statuss"] = "FAIL".into();
        assert!(!schema.is_valid(told), "the schema takes anything");
    }
}

#[test]
fn an_explanation_fits_its_screen_and_has_colours_only_there() {
    let (hb, id) = watched();
    let explained = |columns: &str, color: &str| {
        let mut command = hb.command(&["explain", &id, "--color", color]);
        command.env("COLUMNS", columns).env_remove("NO_COLOR");
        let output = Output::of(&mut command);
        assert_eq!(output.code, 0, "{output:#?}");
        output.stdout
    };
    for columns in [50, 80, 120] {
        let text = explained(&columns.to_string(), "auto");
        let longest = text.lines().map(|l| l.chars().count()).max().unwrap();
        assert!(longest <= columns, "{longest} of {columns}:\n{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }
    let text = explained("100", "auto");
    let line = |name: &str| {
        text.lines().find(|l| l.trim_start().starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"))
    };
    assert!(text.starts_with("FAIL    check quick on pump-"), "{text}");
    assert!(line("values").contains('█') && line("flagged").trim_end().ends_with('^'), "{text}");
    let widths = [line("values"), line("flagged")].map(|l| l.trim_end().chars().count());
    assert_eq!(widths[0], widths[1], "the last window is the flagged one: {text}");
    assert!(line("why").contains("robust deviations"), "{text}");
    let painted = explained("100", "always");
    assert!(painted.contains("\x1b[31m"), "{painted}");
    let plain: String =
        painted.split('\x1b').map(|p| p.split_once('m').filter(|_| p.starts_with('[')).map_or(p, |s| s.1)).collect();
    assert_eq!(plain, text, "colours change nothing else");

    // The log grows by the start of the daemon.
    let but_log = |text: &str| text.lines().filter(|l| !l.contains("hb log verify")).collect::<Vec<_>>().join("\n");
    let mut live = daemon(&hb);
    assert_eq!(but_log(&explained("100", "auto")), but_log(&text), "the daemon tells the same");
    assert_eq!(but_log(&explained("100", "always")), but_log(&painted), "and knows the screen");
    live.end();
}

#[test]
fn a_decision_without_a_case_is_explained_from_the_journal() {
    let (hb, _) = watched();
    let shown = hb.json(&["log", "show", "--kind", "decision", "--count", "1000"]);
    let cases = hb.json(&["cases", "list"]);
    let case_of = |id: &str| cases.as_array().unwrap().iter().any(|c| c["case"] == format!("case-{}", &id[..12]));
    let ids = shown.as_array().unwrap().iter().map(|e| e["body"]["decision"].as_str().unwrap());
    let id = ids.clone().find(|id| !case_of(id)).unwrap();
    let told = hb.json(&["explain", id]);
    assert!(told["case"].is_null() && told["no_values"].is_null(), "{told:#}");
    assert!(told["findings"].as_array().unwrap().iter().all(|f| f["points"].as_array().unwrap().len() > 1), "{told:#}");
}

/// Four pumps. The first drifts so slowly that the asset was checkpointed twice between its first DRIFT and its FAIL;
/// the second is too fast all at once.
fn slow_telemetry() -> String {
    let mut text = String::new();
    for second in 0..SLOW_SEC {
        for pump in 1..=4_u32 {
            let noise = ((second as f64 + f64::from(pump)) * 1.7).sin();
            let drift = if pump == 1 { second.saturating_sub(CLEAN_SEC) as f64 * SLOW_DRIFT } else { 0.0 };
            let jump = if pump == 2 && second > SLOW_SEC - 100 { 900.0 } else { 0.0 };
            let (time, temp, rpm) = (at(second), 140.0 + noise + drift, 2_950.0 + 10.0 * noise + jump);
            let line = json!({ "timestamp": time, "asset": format!("pump-{pump}"), "temp_f": temp, "rpm": rpm });
            text.push_str(&format!("{line}\n"));
        }
    }
    text
}

/// The JSON of a report that is listed.
fn facts(line: &Value) -> Value {
    let page = Path::new(line["path"].as_str().unwrap());
    serde_json::from_slice(&fs::read(page.with_extension("json")).unwrap()).unwrap()
}

fn time(text: &Value) -> i64 {
    hb::clock::parse(text.as_str().unwrap()).unwrap()
}

/// A daemon on the plant that goes on.
fn daemon(hb: &Hb) -> Running {
    let config = fs::read_to_string(hb.path("hb.yaml")).unwrap();
    hb.write("hb.yaml", &config.replace("path: telemetry.jsonl }", "path: telemetry.jsonl, follow: true }"));
    let mut live = Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=warn,hb::pipeline=debug"));
    live.wait_for("reading", 1);
    live
}
