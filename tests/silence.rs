//! A source that falls silent is found by the clock, whatever happened to the daemon meanwhile; and what is down anyway
//! stands in nobody's way.

use std::time::{Duration, Instant};

use crate::support::hb::{Hb, PROGRAM, Running};

/// How long what must come may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Seconds of telemetry, one line in each.
const SECONDS: u64 = 9;

/// A followed file whose windows of 2 s close by the clock a second after the last line.
const CONFIG: &str = "program: plant
state: ./state
require_signed: false
sources:
  - { name: s, plugin: file-replay, transport: { file: { path: ./app.log, follow: true } }, settings: { format: jsonl }, normalizer: n }
normalizers:
  - name: n
    plugin: schema-map
    settings: { version: 1, timestamp: { field: t }, layout: wide }
checks:
  - { id: c, window_sec: 2, every_sec: 1, rules: [{ rule: drift.missing }] }
event_time: { idle_sec: 1 }
evidence: { on_fail: false }
";

fn start(hb: &Hb) -> Running {
    let mut running = Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=info,hb::pipeline=debug"));
    running.wait_for("reading", 1);
    running
}

fn telemetry() -> String {
    (0..SECONDS).map(|n| format!("{{\"t\":{},\"n\":{n}}}\n", 1_767_225_600 + n)).collect()
}

fn wait_for(hb: &Hb, counter: &str, at_least: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = hb.json(&["status"]);
        if status["counters"][counter].as_u64().unwrap_or(0) >= at_least {
            return;
        }
        assert!(Instant::now() < deadline, "no {at_least} {counter} after {PATIENCE:?}: {status:#}");
    }
}

#[test]
fn a_source_that_falls_silent_is_found_also_when_the_daemon_was_killed_meanwhile() {
    for is_killed in [false, true] {
        let hb = Hb::new();
        // Killed, the first daemon has no time to find it; the second one reads nothing at all.
        let first = if is_killed { CONFIG.replace("idle_sec: 1", "idle_sec: 3600") } else { CONFIG.to_owned() };
        hb.write("hb.yaml", &first);
        hb.write("app.log", &telemetry());
        let mut running = start(&hb);
        wait_for(&hb, "samples", SECONDS);
        if is_killed {
            running.kill();
            let counters = hb.counters(PROGRAM);
            assert!(counters.iter().all(|(name, _)| name != "decisions.fail"), "{counters:?}");
            hb.write("hb.yaml", CONFIG);
            running = start(&hb);
        }
        wait_for(&hb, "decisions.fail", 1);
        let log = hb.json(&["log", "show", "--kind", "decision"]);
        let is_missed = |entry: &serde_json::Value| entry["body"]["status"] == "FAIL";
        assert!(log.as_array().unwrap().iter().any(is_missed), "{log:#}");
        running.end();
        hb.done(&["log", "verify"]);
    }
}

#[test]
fn a_source_that_is_down_anyway_does_not_take_a_new_generation_back() {
    let hb = Hb::new();
    let dead = "sources:\n  - { name: dead, plugin: file-replay, transport: { file: { path: ./no-such-file } }, \
                settings: { format: jsonl }, normalizer: n }\n";
    let config = CONFIG.replace("sources:\n", dead);
    hb.write("hb.yaml", &config);
    hb.write("app.log", &telemetry());
    let mut running = start(&hb);
    wait_for(&hb, "samples", SECONDS);
    for (from, to) in [("layout: wide", "layout: wide, unmapped: ignore"), ("window_sec: 2", "window_sec: 4")] {
        hb.write("hb.yaml", &config.replace(from, to));
        let answer = hb.done(&["reload", "--json"]);
        let active: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
        // It is started anew, fails as before, and says so.
        running.wait_for("the source failed", 1);
        let list = hb.json(&["generation", "list"]);
        let line = list.as_array().unwrap().iter().find(|line| line["active"] == true).unwrap();
        assert_eq!(line["generation"], active["generation"], "{list:#}");
    }
    running.end();
}
