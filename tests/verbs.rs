//! Verbs and sinks seen from outside: files they make, bytes they repeat, documents they deliver.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use hb_engine::decision::Decision;
use hb_log::hash::Hash;
use serde_json::Value;

use crate::support::hb::{Hb, PROGRAM, Plant, SCHEMA, config, telemetry};

/// Simulated seconds: something drifts, fails and is refused.
const SECONDS: u64 = 600;

/// Rows of the recording that is damaged, one a second.
const ROWS: usize = 400;

#[test]
fn keys_init_makes_a_key_pair_that_only_its_owner_may_read_and_never_another() {
    let hb = Hb::new();
    let made = hb.json(&["keys", "init", "--state", "state"]);
    let id = made["key_id"].as_str().unwrap();
    let public = fs::read_to_string(hb.path("state/keys/host.pub")).unwrap();
    assert!(id.len() == 16 && public.contains(id), "{made} and {public}");
    assert_eq!(made["public_key"], "state/keys/host.pub");
    let secret = hb.path("state/keys/host.key");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&secret).unwrap();
    let again = hb.run(&["keys", "init", "--state", "state"]);
    assert!(again.code == 78 && again.stderr.contains("never overwritten"), "{again:#?}");
    assert_eq!(fs::read(&secret).unwrap(), before);

    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    hb.write("hb.yaml", &config(Plant::default()));
    hb.write("telemetry_schema.yaml", SCHEMA);
    hb.write("telemetry.jsonl", "");
    let exposed = hb.run(&["daemon", "--once"]);
    assert!(exposed.code == 77 && exposed.stderr.contains("chmod 600"), "{exposed:#?}");
}

#[test]
fn log_show_counts_filters_and_names_every_decision_it_recorded() {
    let hb = Hb::plant(Plant::default(), &telemetry(3, SECONDS));
    hb.done(&["daemon", "--once"]);
    let entries = |args: &[&str]| -> Vec<Value> {
        let shown = hb.json(&[&["log", "show"], args].concat());
        shown.as_array().unwrap().clone()
    };
    let all = entries(&["--count", "1000000"]);
    let seqs: Vec<u64> = all.iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (0..all.len() as u64).collect::<Vec<_>>());
    assert_eq!(hb.json(&["status"])["log_entries"], all.len());
    let part = entries(&["--from", "3", "--count", "4"]);
    assert_eq!(part, all[3..7]);
    assert_eq!(entries(&[]).len(), all.len().min(50), "without a word it is one page");

    let decisions = entries(&["--kind", "decision", "--count", "1000000"]);
    assert!(decisions.iter().all(|e| e["kind"] == "decision") && decisions.len() > 5, "{} shown", decisions.len());
    let logged: Vec<String> = decisions.iter().map(|e| e["body"]["decision"].as_str().unwrap().to_owned()).collect();
    assert_eq!(logged, notable(&hb).into_iter().map(|(id, _)| id).collect::<Vec<_>>());
    let text = hb.done(&["log", "show", "--from", "3", "--count", "4"]).stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4);
    for (line, entry) in lines.iter().zip(&part) {
        let (time, kind) = (entry["time"].as_str().unwrap(), entry["kind"].as_str().unwrap());
        assert!(line.starts_with(&format!("{} {time} {kind} ", entry["seq"])), "{line}");
    }
}

#[test]
fn the_same_seed_does_the_same_damage() {
    let hb = recording();
    let inject = |out: &str, fault: &str, seed: &str, param: &str| {
        let args =
            ["inject", "--fault", fault, "--input", "clean.csv", "--output", out, "--seed", seed, "--param", param];
        hb.done(&args);
        fs::read(hb.path(out)).unwrap()
    };
    for (fault, param) in [("packet_loss", "rate=0.3"), ("value_corruption", "noise=2")] {
        let first = inject("a.csv", fault, "7", param);
        assert!(first == inject("b.csv", fault, "7", param), "{fault}: equal seeds give other bytes");
        assert!(first != inject("c.csv", fault, "8", param), "{fault}: another seed gives the same bytes");
    }
}

#[test]
fn packet_loss_loses_its_share_and_changes_nothing_else() {
    let hb = recording();
    let clean = rows(&hb, "clean.csv");
    let told = damage(&hb, "packet_loss", &["rate=0.25", "metric=flow"]);
    let left = rows(&hb, "hurt.csv");
    assert!(told.contains(&format!("{} records in, {} out", clean.len(), left.len())), "{told}");
    let of = |rows: &[Row], metric: &str| rows.iter().filter(|r| r.1 == metric).count();
    assert_eq!(of(&left, "level"), ROWS, "another metric is left alone");
    let lost = ROWS - of(&left, "flow");
    assert!((ROWS / 8..ROWS * 3 / 8).contains(&lost), "{lost} of {ROWS} are lost");
    assert!(left.iter().all(|row| clean.contains(row)), "what is left is as it was");
}

#[test]
fn a_latency_spike_moves_times_and_keeps_the_rest_in_order() {
    let hb = recording();
    let clean = rows(&hb, "clean.csv");
    damage(&hb, "latency_spike", &["delay_ms=2500", "metric=flow", "from=0.5"]);
    let late = rows(&hb, "hurt.csv");
    assert_eq!(late.len(), clean.len(), "nothing is lost");
    assert!(late.is_sorted_by_key(|row| row.0), "a recording is in order of its times");
    let times = |rows: &[Row], metric: &str| -> BTreeMap<String, i64> {
        rows.iter().filter(|r| r.1 == metric).map(|r| (r.2.clone(), r.0)).collect()
    };
    assert_eq!(times(&late, "level"), times(&clean, "level"));
    // Each value is there once, so that it tells which row it was.
    let (before, after) = (times(&clean, "flow"), times(&late, "flow"));
    let moved = before.iter().filter(|(value, time)| after[*value] == **time + 2_500_000_000).count();
    let kept = before.iter().filter(|(value, time)| after[*value] == **time).count();
    assert_eq!((moved, kept), (ROWS / 2, ROWS / 2));
}

#[test]
fn a_sink_gets_every_notable_decision_once() {
    let hb = Hb::plant(Plant { commit_samples: 500, ..Plant::default() }, &telemetry(3, SECONDS));
    let sinks = "sinks: [{ name: out, plugin: jsonl, output: { file: decisions.jsonl }, deliver: [decisions] }]\n";
    hb.write("hb.yaml", &(config(Plant { commit_samples: 500, ..Plant::default() }) + sinks));
    hb.done(&["daemon", "--once"]);
    let delivered = || -> Vec<(String, Value)> {
        let text = fs::read_to_string(hb.path("decisions.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .map(|line| {
                assert_eq!((&line["type"], &line["kind"]), (&"document".into(), &"decision".into()));
                (line["id"].as_str().unwrap().to_owned(), line["document"].clone())
            })
            .collect()
    };
    let expected = notable(&hb);
    assert!(expected.len() > 10 && expected.len() < hb.decisions(PROGRAM).len(), "{} are notable", expected.len());
    assert_eq!(delivered(), expected);
    // A second run has nothing new to say.
    hb.done(&["daemon", "--once"]);
    assert_eq!(delivered(), expected);
}

/// The live decisions that are not an unchanged PASS, by id, as they are told to the outside.
fn notable(hb: &Hb) -> Vec<(String, Value)> {
    let decisions = hb.decisions(PROGRAM).into_iter();
    let decoded = decisions.map(|bytes| (Hash::of(&bytes), hb_log::cbor::decode::<Decision>(&bytes).unwrap()));
    decoded.filter(|(_, d)| d.is_notable()).map(|(id, d)| (id.to_string(), serde_json::to_value(&d).unwrap())).collect()
}

/// Time, metric and value of a row of metrics.csv; the value as it is written.
type Row = (i64, String, String);

fn rows(hb: &Hb, name: &str) -> Vec<Row> {
    let text = fs::read_to_string(hb.path(name)).unwrap();
    let read = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        (hb::clock::parse(cells[0]).unwrap(), cells[1].to_owned(), cells[2].to_owned())
    };
    text.lines().skip(1).map(read).collect()
}

/// Two metrics with a row each second, no value twice.
fn recording() -> Hb {
    let hb = Hb::new();
    let mut text = "timestamp,metric,value,unit,labels\n".to_owned();
    for second in 0..ROWS {
        let time = crate::support::hb::at(second as u64);
        text.push_str(&format!("{time},flow,{second}.5,l/min,asset=p1\n{time},level,{second}.25,m,asset=p1\n"));
    }
    hb.write("clean.csv", &text);
    hb
}

/// Damages the recording and returns what was said of it.
fn damage(hb: &Hb, fault: &str, params: &[&str]) -> String {
    let mut args = vec!["inject", "--fault", fault, "--input", "clean.csv", "--output", "hurt.csv"];
    for param in params {
        args.extend(["--param", param]);
    }
    hb.done(&args).stdout
}
