//! Real telemetry: what is labelled as wrong is found, by the commands of the example as they stand in its README.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hb_engine::decision::{Decision, Status};

use crate::support::hb::{Hb, Output, note, repository, surround};

/// Recordings, by their place below the data folder.
const SERIES: [(&str, &str); 4] = [
    ("ec2_request_latency_system_failure", "nab/realKnownCause"),
    ("valve1-0", "skab"),
    ("valve1-1", "skab"),
    ("anomaly-free", "skab"),
];

/// Flagged windows of one series that overlap no label, at most.
const FALSE_MAX: usize = 5;

#[test]
fn labelled_anomalies_are_found_in_real_telemetry() {
    let data = data();
    if !data.join("labels.json").is_file() {
        note(
            "skipped: labelled anomalies in real telemetry: HB_DATA is absent, and no data lies beside the repository",
        );
        return;
    }
    let hb = Hb::new();
    let example = repository().join("examples/yardstick");
    for file in ["hb.yaml", "telemetry_schema.yaml"] {
        std::fs::copy(example.join(file), hb.path(file)).unwrap();
    }
    for (name, family) in SERIES {
        let text = std::fs::read_to_string(data.join("data").join(family).join(format!("{name}.csv"))).unwrap();
        hb.write(&format!("data/{name}.csv"), &text);
    }
    run_readme(&hb, &std::fs::read_to_string(example.join("README.md")).unwrap());

    let labels: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(data.join("labels.json")).unwrap()).unwrap();
    let decisions: Vec<Decision> =
        hb.decisions("yardstick").iter().map(|bytes| hb_log::cbor::decode(bytes).unwrap()).collect();
    let mut wrong = Vec::new();
    for (name, family) in SERIES {
        let judged: Vec<&Decision> = decisions.iter().filter(|d| d.asset.starts_with(name)).collect();
        assert!(!judged.is_empty(), "nothing was judged of {name}");
        let times = times(&hb.path(&format!("data/{name}.csv")));
        let labelled = intervals(&labels[format!("{family}/{name}")], &times);
        let flagged: Vec<&&Decision> =
            judged.iter().filter(|d| matches!(d.status, Status::Drift | Status::Fail)).collect();
        let overlaps = |d: &Decision, (from, to): (i64, i64)| d.start_ns <= to && from < d.end_ns;
        let missed = labelled.iter().filter(|&&l| !flagged.iter().any(|d| overlaps(d, l))).count();
        let astray: Vec<String> = flagged
            .iter()
            .filter(|d| !labelled.iter().any(|&l| overlaps(d, l)))
            .map(|d| format!("{} {} to {}", d.status, hb::clock::rfc3339(d.start_ns), hb::clock::rfc3339(d.end_ns)))
            .collect();
        let fails = judged.iter().filter(|d| d.status == Status::Fail).count();
        let (windows, hits, spans) = (judged.len(), flagged.len(), labelled.len());
        println!("{name}: {windows} windows, {hits} flagged, {fails} FAIL, {spans} labelled, {missed} missed");
        let shown = if astray.is_empty() { String::new() } else { format!(": {}", astray.join(", ")) };
        note(&format!("false windows: {name}: {} of {hits} flagged in {windows} judged{shown}", astray.len()));
        if missed > 0 || astray.len() > FALSE_MAX || (labelled.is_empty() && fails > 0) {
            wrong.push(format!("{name}: {missed} missed, {} false, {fails} FAIL", astray.len()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Runs the commands of the README one by one.
fn run_readme(hb: &Hb, readme: &str) {
    let block = readme.split("```sh\n").nth(1).and_then(|b| b.split("```").next()).expect("commands");
    let hb_dir = Path::new(env!("CARGO_BIN_EXE_hb")).parent().unwrap();
    let path = format!("{}:{}", hb_dir.display(), std::env::var("PATH").unwrap_or_default());
    for line in block.lines() {
        let mut command = Command::new("sh");
        command.args(["-e", "-c", line]).current_dir(hb.dir()).env("PATH", &path).stdin(Stdio::null());
        surround(&mut command);
        let output = Output::of(&mut command);
        assert_eq!(output.code, 0, "{line}: {output:#?}");
    }
}

/// Where the recordings are: `HB_DATA`, or a folder beside the repository.
fn data() -> PathBuf {
    std::env::var_os("HB_DATA").map_or_else(|| repository().join("../shared/data"), PathBuf::from)
}

/// The time of each row.
fn times(csv: &Path) -> Vec<i64> {
    let text = std::fs::read_to_string(csv).unwrap();
    let stamps = text.lines().skip(1).map(|l| l.split(',').next().unwrap().replacen(' ', "T", 1));
    stamps.map(|s| hb::clock::parse(&format!("{}Z", s.trim_end_matches('Z'))).unwrap()).collect()
}

/// Labelled intervals as times, both ends included: windows of rows, or rows one by one that are joined.
fn intervals(labels: &serde_json::Value, times: &[i64]) -> Vec<(i64, i64)> {
    let row = |v: &serde_json::Value| v.as_u64().unwrap() as usize;
    let mut spans: Vec<(usize, usize)> =
        labels["windows"].as_array().into_iter().flatten().map(|w| (row(&w[0]), row(&w[1]))).collect();
    for at in labels["anomaly"].as_array().into_iter().flatten().map(row) {
        match spans.last_mut() {
            Some(span) if span.1 + 1 == at => span.1 = at,
            _ => spans.push((at, at)),
        }
    }
    spans.into_iter().map(|(from, to)| (times[from], times[to])).collect()
}
