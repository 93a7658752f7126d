//! `hb top` on a running daemon: what it says is what other verbs say, and a daemon that hangs does not hold it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::hb::{Hb, Plant, Running, config, telemetry};
use crate::support::terminal::Terminal;

/// Simulated seconds: something drifts and fires.
const SECONDS: u64 = 450;

/// How long the daemon may take to read them, and the screen to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// Sent at the end: the terminal is again as it was.
const LEAVES_SCREEN: &str = "\u{1b}[?1049l";

/// Begins a colour.
const COLOUR: &str = "\u{1b}[38;5;";

/// A daemon that has read all there is, and waits for more.
fn daemon() -> (Hb, Running) {
    let hb = Hb::plant(Plant::default(), &telemetry(3, SECONDS));
    let frames = hb.json(&["ingest", "telemetry.jsonl", "--out", "whole"])["counts"]["frames"].as_u64().unwrap();
    hb.write("hb.yaml", &live());
    let running = Running::start(&mut hb.command(&["daemon"]));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = hb.run(&["top", "--once", "--json"]);
        let now: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let source = &now["daemon"]["sources"]["plant"];
        if source["taken"]["frames"] == frames && source["queue_depth"] == 0 {
            return (hb, running);
        }
        assert!(Instant::now() < deadline, "{frames} frames: {output:#?}");
    }
}

/// The plant's config with a file that grows.
fn live() -> String {
    let plant = Plant { commit_samples: 500, ..Plant::default() };
    let config = config(plant).replace("path: telemetry.jsonl", "path: telemetry.jsonl, follow: true");
    config.replace("commit_ms: 60000", "commit_ms: 100")
}

#[test]
fn one_look_says_what_other_verbs_say() {
    let (hb, mut running) = daemon();
    hb.write("hb.yaml", &live().replace("warn: 6", "warn: 5"));
    hb.done(&["reload", "--reason", "a tighter limit"]);
    let (top, status) = (hb.json(&["top", "--once"]), hb.json(&["status"]));
    let (alerts, generations) = (hb.json(&["alert", "list"]), hb.json(&["generation", "list"]));

    let source = &top["daemon"]["sources"]["plant"];
    assert_eq!(source["taken"]["frames"], status["sources"]["plant"]["frames"]);
    assert_eq!(source["taken"]["samples"], status["counters"]["samples"]);
    assert_eq!(source["taken"]["rejects"], status["counters"]["rejects"]);
    assert!(source["lag_sec"].is_f64() && source["queue_depth"] == 0, "{source}");
    let without_age = |alert: &Value| {
        let mut alert = alert.clone();
        alert.as_object_mut().unwrap().remove("age_sec").unwrap();
        alert
    };
    let fire: Vec<Value> =
        alerts.as_array().unwrap().iter().filter(|a| a["state"] == "firing").map(without_age).collect();
    assert_eq!(top["alerts"].as_array().unwrap().iter().map(without_age).collect::<Vec<_>>(), fire);
    assert!(!fire.is_empty(), "{alerts}");
    let active = generations.as_array().unwrap().iter().find(|g| g["active"] == true).unwrap();
    assert!(active["generation"].as_str().unwrap().starts_with(top["generation"]["name"].as_str().unwrap()));
    // It may have been the watch of files that saw the change first.
    assert_eq!([&top["generation"]["reason"], &top["generation"]["by"]], [&active["reason"], &active["author"]]);
    let window = &top["windows"][0];
    let shown = ["end", "status", "check", "asset", "decision"].map(|key| window[key].as_str().unwrap()).join(" ");
    let last: Vec<&str> = status["last_decisions"].as_array().unwrap().iter().map(|d| d.as_str().unwrap()).collect();
    assert!(last.contains(&shown.as_str()), "{shown} is none of {last:?}");

    // The same in words.
    let said = hb.done(&["top", "--once"]).stdout;
    let number = |key: &str| source["taken"][key].as_u64().unwrap();
    for expected in [
        format!("{} frames, {} samples, {} rejects", number("frames"), number("samples"), number("rejects")),
        format!("program plant, generation {}, ", top["generation"]["name"].as_str().unwrap()),
        format!("alert {} {} quick", fire[0]["severity"].as_str().unwrap(), fire[0]["asset"].as_str().unwrap()),
        format!("window {shown}"),
    ] {
        assert!(said.contains(&expected), "`{expected}` is not in\n{said}");
    }
    running.end();
}

#[test]
fn a_screen_outlives_a_daemon_that_hangs_and_ends_with_q() {
    let (hb, mut running) = daemon();
    let mut terminal = Terminal::start(&hb, &["top", "--every-ms", "200"], 24, 100);
    for expected in ["program plant, generation ", "sources: 1", "firing alerts: ", "windows with findings", "q ends"] {
        terminal.wait_for(expected, PATIENCE);
    }
    for _ in 0..2 {
        running.signal("STOP");
        terminal.wait_for("no answer for ", PATIENCE);
        assert!(terminal.screen().contains("program plant, generation "), "what was seen last stays");
        running.signal("CONT");
        terminal.wait_for("q ends", PATIENCE);
    }
    running.signal("STOP");
    terminal.wait_for("no answer for ", PATIENCE);
    terminal.press("q");
    assert_eq!(terminal.ended(PATIENCE), 0, "{}", terminal.screen());
    assert!(terminal.raw().contains(LEAVES_SCREEN) && terminal.raw().contains(COLOUR), "{}", terminal.raw());
    running.signal("CONT");
    running.end();
}

#[test]
fn a_screen_ends_with_its_daemon_and_has_colours_only_when_asked_to() {
    let (hb, running) = daemon();
    let mut terminal = Terminal::start(&hb, &["top", "--color", "never", "--every-ms", "200"], 24, 100);
    terminal.wait_for("q ends", PATIENCE);
    running.kill();
    assert_eq!(terminal.ended(PATIENCE), 74, "{}", terminal.screen());
    assert!(terminal.screen().contains("no daemon runs on the state"), "{}", terminal.screen());
    assert!(terminal.raw().contains(LEAVES_SCREEN) && !terminal.raw().contains(COLOUR), "{}", terminal.raw());
}
