//! The state keeps within its cap, decides as if it had none, and learns by itself.

use std::os::unix::fs::MetadataExt as _;

use crate::support::hb::{CLEAN_SEC, Hb, PROGRAM, Plant, telemetry};

/// Simulated seconds until a case is pinned, and of the whole run: many times the cap.
const PINNED_SEC: u64 = 480;
const SECONDS: u64 = 12_000;

/// Cap of the small state, MiB.
const CAP_MB: u64 = 4;

/// Unit of the blocks of a file.
const BLOCK_BYTES: u64 = 512;

#[test]
fn a_small_cap_holds_and_changes_no_decision() {
    let small = long_run(&format!("max_state_mb: {CAP_MB}, max_audit_log_mb: 1"));
    let bytes = std::fs::metadata(small.hb.path("state/hb.redb")).unwrap().blocks() * BLOCK_BYTES;
    assert!(bytes <= (CAP_MB << 20) * 11 / 10, "{bytes} bytes on disk");
    let usage = &small.hb.json(&["status"])["usage"];
    assert!(usage["state_bytes"].as_u64().unwrap() <= CAP_MB << 20, "{usage:#}");
    let kept = small.hb.decisions(PROGRAM);

    let large = long_run("max_state_mb: 4096");
    let all = large.hb.decisions(PROGRAM);
    assert!(kept.len() < all.len() / 2, "{} of {} decisions prove little", kept.len(), all.len());
    assert!(kept.iter().all(|decision| all.contains(decision)), "a decision was made that should not be");
    assert_eq!(kept.last(), all.last());
    let decided = |hb: &Hb| -> Vec<(String, u64)> {
        hb.counters(PROGRAM).into_iter().filter(|c| c.0.starts_with("decisions.") || c.0 == "sheds").collect()
    };
    assert_eq!(decided(&small.hb), decided(&large.hb));

    let log = small.hb.json(&["log", "verify", "--key", "state/keys/host.pub"]);
    assert!(log["pruned"].as_u64().unwrap() > 0, "{log:#}");
    let (ours, theirs) = (small.export(), large.export());
    for file in ["data/decision.cbor", "data/journal.cbor", "data/frames.cbor", "data/drift_report.json"] {
        let read = |run: &Run, pack: &str| std::fs::read(run.hb.path("packs").join(pack).join(file)).unwrap();
        assert_eq!(read(&small, &ours), read(&large, &theirs), "{file}");
    }
    // One that is not pinned went with its time, and says so.
    let listed = small.hb.json(&["cases", "list"]);
    assert!(
        listed.as_array().unwrap().iter().any(|line| line["case"] == small.case.as_str() && line["pinned"] == true)
    );
    let gone = large.hb.json(&["cases", "list"]).as_array().unwrap().len() - listed.as_array().unwrap().len();
    assert!(gone > 0, "{listed:#}");
}

#[test]
fn what_no_longer_fits_is_shed_and_told() {
    // Cases wait for their packs until the end of the run, and keep everything: there is nothing that may go.
    let hb = Hb::plant(
        Plant { evidence: true, commit_samples: 500, batch_frames: 200, ..Plant::default() },
        &telemetry(4, SECONDS),
    );
    let config = std::fs::read_to_string(hb.path("hb.yaml")).unwrap();
    let limits = format!("limits: {{ max_state_mb: {CAP_MB}, max_audit_log_mb: 1, ");
    hb.write("hb.yaml", &config.replace("limits: { ", &limits));
    hb.done(&["daemon", "--once"]);
    let count = |name: &str| hb.counters(PROGRAM).iter().find(|c| c.0 == name).map_or(0, |c| c.1);
    assert!(count("sheds") > 0 && count("shed_frames") > 0, "{:?}", hb.counters(PROGRAM));
    let lines = telemetry(4, SECONDS).lines().filter(|line| !line.is_empty()).count() as u64;
    assert_eq!(count("frames") + count("shed_frames"), lines, "each line was taken or shed");
    assert!(kinds(&hb).contains(&"shed.begin".to_owned()));
    // What is recorded beside telemetry goes on: packs, their seals and the log take from the last twentieth.
    let usage = hb.json(&["status"])["usage"].clone();
    let bytes = std::fs::metadata(hb.path("state/hb.redb")).unwrap().blocks() * BLOCK_BYTES;
    println!("{usage}, {bytes} bytes on disk");
    assert!(usage["state_bytes"].as_u64().unwrap() <= CAP_MB << 20, "{usage:#}");
    hb.done(&["log", "verify"]);
    let packs = std::fs::read_dir(hb.path("evidence_packs")).unwrap();
    for pack in packs.map(|entry| entry.unwrap().path()).take(2) {
        hb.done(&["verify", pack.to_str().unwrap(), "--key", "state/keys/host.pub"]);
        hb.done(&["replay", pack.to_str().unwrap()]);
    }
}

#[test]
fn a_first_baseline_comes_by_itself_and_its_progress_is_shown() {
    let hb = learner("first_baseline_after_sec: 200", &telemetry(4, 100));
    hb.done(&["daemon", "--once"]);
    let status = hb.json(&["status"]);
    let percent = status["first_baseline"]["percent"].as_i64().unwrap();
    // It begins where the clock stood when it was looked at first, behind the first batch.
    assert!((40..=50).contains(&percent), "{:#}", status["first_baseline"]);
    assert_eq!(status["tags"].as_object().unwrap().len(), 0);

    let hb = learner("first_baseline_after_sec: 200", &telemetry(4, CLEAN_SEC));
    hb.done(&["daemon", "--once"]);
    let status = hb.json(&["status"]);
    assert_eq!(status["tags"]["golden"], 1, "{:#}", status["tags"]);
    assert!(status["first_baseline"].is_null(), "{:#}", status["first_baseline"]);
    assert!(status["counters"]["decisions.pass"].as_u64().unwrap() > 0, "{:#}", status["counters"]);
    let kinds: Vec<String> = kinds(&hb);
    let at = |kind: &str| kinds.iter().position(|k| k == kind).unwrap_or_else(|| panic!("no {kind} in {kinds:?}"));
    assert!(at("baseline.created") < at("baseline.promoted") && at("baseline.promoted") < at("baseline.active"));
    hb.done(&["log", "verify"]);
}

#[test]
fn a_rolling_baseline_is_what_checks_without_one_compare_with() {
    let hb = learner("rolling_baseline: { window_sec: 100, every_sec: 50 }", &telemetry(4, 1_000));
    hb.done(&["daemon", "--once"]);
    let tags = hb.json(&["status"])["tags"].clone();
    let newest = tags["rolling"].as_u64().unwrap();
    assert!(newest >= 15, "{tags}");
    let versions = hb.json(&["baseline", "list"]);
    let versions = versions.as_array().unwrap();
    let last = versions.last().unwrap();
    assert_eq!(last["version"].as_u64(), Some(newest));
    let compared = hb.counters(PROGRAM).iter().any(|(name, n)| name == "decisions.pass" && *n > 0);
    assert!(compared, "{:?}", hb.counters(PROGRAM));
}

#[test]
fn a_check_left_to_the_schedule_takes_its_interval_and_tag() {
    let hb = learner("interval_sec: 15, baseline_tag: normal, first_baseline_after_sec: 200", &telemetry(4, CLEAN_SEC));
    hb.done(&["daemon", "--once"]);
    assert_eq!(hb.json(&["status"])["tags"]["normal"], 1);
    let config = std::fs::read_to_string(hb.path("hb.yaml")).unwrap();
    hb.write("hb.yaml", &config.replace("interval_sec: 15", "interval_sec: 7"));
    let refused = hb.run(&["check"]);
    assert_eq!(refused.code, 78, "{refused:#?}");
    assert!(refused.stderr.contains("not a multiple of `schedule.interval_sec` 7"), "{}", refused.stderr);
}

#[test]
fn exports_say_what_the_state_says() {
    let hb = Hb::plant(Plant::default(), &telemetry(4, PINNED_SEC));
    hb.done(&["daemon", "--once"]);
    let read = |name: &str| std::fs::read_to_string(hb.path("state").join(name)).unwrap();
    let export: serde_json::Value = serde_json::from_str(&read("daemon_checkpoint.json")).unwrap();
    let status = hb.json(&["status"]);
    for field in ["program", "lane", "host_id", "generation", "sources"] {
        assert_eq!(export[field], status["checkpoint"][field], "{field}");
    }
    assert_eq!(export["sources"]["plant"]["ended"], true, "{export:#}");
    assert!(export["sources"]["plant"]["says"].as_str().unwrap().starts_with("ended behind "), "{export:#}");
    let history = read("checkpoints.jsonl");
    let last: serde_json::Value = serde_json::from_str(history.lines().last().unwrap()).unwrap();
    assert_eq!(last["size"], export["log_size"], "{last:#}");
    // A head of the history is proven by the key alone.
    let body = last["body"].as_str().unwrap();
    let key = hb_log::sign::PublicKey::parse(&read("keys/host.pub")).unwrap();
    hb_log::sign::verify(&key, body.as_bytes(), last["signature"].as_str().unwrap()).unwrap();
}

/// A plant after a long run, and its pinned case.
struct Run {
    hb: Hb,
    case: String,
}

impl Run {
    /// Exports the pinned case, verifies and replays its pack; returns its name.
    fn export(&self) -> String {
        self.hb.done(&["export", "evidence-pack", "--case", &self.case, "--out", "packs"]);
        let name = format!("evidence_{}", self.case);
        let pack = format!("packs/{name}");
        self.hb.done(&["verify", &pack, "--key", "state/keys/host.pub"]);
        let replayed = self.hb.done(&["replay", &pack]);
        assert!(replayed.stdout.starts_with("reproduced"), "{replayed:#?}");
        name
    }
}

/// Runs until the first case, pins it, and goes on until its time is long gone.
fn long_run(limits: &str) -> Run {
    let whole = telemetry(4, SECONDS);
    let lines = whole.lines().position(|line| line.contains(&crate::support::hb::at(PINNED_SEC))).unwrap();
    let begin: String = whole.lines().take(lines).map(|line| format!("{line}\n")).collect();
    let hb = Hb::plant(Plant { commit_samples: 500, batch_frames: 200, ..Plant::default() }, &begin);
    let config = std::fs::read_to_string(hb.path("hb.yaml")).unwrap();
    hb.write("hb.yaml", &config.replace("limits: { ", &format!("limits: {{ {limits}, ")));
    hb.done(&["daemon", "--once"]);
    let case = hb.json(&["cases", "list"])[0]["case"].as_str().unwrap().to_owned();
    hb.done(&["cases", "pin", &case]);
    hb.write("telemetry.jsonl", &whole);
    hb.done(&["daemon", "--once"]);
    Run { hb, case }
}

/// A plant without a baseline, whose check leaves it to the schedule.
fn learner(schedule: &str, telemetry: &str) -> Hb {
    let hb = Hb::new();
    hb.write("telemetry.jsonl", telemetry);
    hb.write("telemetry_schema.yaml", crate::support::hb::SCHEMA);
    let config = crate::support::hb::config(Plant { batch_frames: 64, ..Plant::default() });
    let is_golden = schedule.contains("first") && !schedule.contains("tag");
    let config = if is_golden { config } else { config.replace("    baseline: golden\n", "") };
    let config = if schedule.contains("interval") { config.replace("    every_sec: 10\n", "") } else { config };
    hb.write("hb.yaml", &format!("{config}schedule: {{ {schedule} }}\n"));
    hb
}

/// Kinds of the log's entries, in order.
fn kinds(hb: &Hb) -> Vec<String> {
    let entries = hb.json(&["log", "show", "--count", "10000"]);
    entries.as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap().to_owned()).collect()
}
