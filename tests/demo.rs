//! The demo as a stranger plays it, and its plant as a tool on a real broker, a real socket and in a file.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::hostile::copy_folder;
use crate::support::broker::Broker;
use crate::support::guests::publisher_key;
use crate::support::hb::{Hb, Output, Running, repository};

/// How long a datagram on loopback may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_demo_finds_six_faults_survives_a_kill_and_proves_it() {
    let said = demo("3", &[]);
    let rows: Vec<&str> = said.lines().filter(|l| l.contains("  case-") && l.ends_with("  ok")).collect();
    assert_eq!(rows.len(), 6, "{said}");
    for expected in
        ["samples lost     0  ok", "samples doubled  0  ok", "false alarms     0  ok", "reproduced: decision "]
    {
        assert!(said.contains(expected), "`{expected}` is not in\n{said}");
    }
    assert!(said.contains("error[policy]: Expected 'then'") && said.contains("All is right in"), "{said}");
}

#[test]
fn a_demo_without_faults_finds_none() {
    let said = demo("4", &["--expect-quiet"]);
    for expected in ["decisions FAIL   0  ok", "false alarms     0  ok", "samples lost     0  ok", "All is right in"] {
        assert!(said.contains(expected), "`{expected}` is not in\n{said}");
    }
}

/// Plays a demo as fast as it goes; what it said when it ended with 0.
fn demo(seed: &str, more: &[&str]) -> String {
    let hb = Hb::new();
    let dir = hb.path("demo");
    let args = ["demo", "--seed", seed, "--speed", "0", "--keep", dir.to_str().unwrap()];
    let args: Vec<&str> = args.iter().chain(more).copied().collect();
    let output = hb.run(&args);
    let log = fs::read_to_string(dir.join("daemon.log")).unwrap_or_default();
    let last: Vec<&str> = log.lines().rev().take(20).collect();
    assert_eq!(output.code, 0, "{}\n{}\nthe daemon said last:\n{}", output.stdout, output.stderr, last.join("\n"));
    output.stdout
}

#[test]
fn a_demo_says_what_it_needs() {
    let hb = Hb::new();
    hb.write("there/already.txt", "something");
    let full = hb.run(&["demo", "--keep", "there"]);
    assert_eq!(full.code, 64, "{}", full.stderr);
    assert!(full.stderr.contains("there is not empty"), "{}", full.stderr);
    assert_eq!(hb.run(&["demo", "--speed", "-1"]).code, 64);
    let nothing = Output::of(hb.command(&["demo"]).env("HB_PLUGINS_DIR", hb.path("none")));
    assert_eq!(nothing.code, 78, "{}", nothing.stderr);
    assert!(
        nothing.stderr.contains("no publisher's key") && nothing.stderr.contains("cargo xtask demo"),
        "{}",
        nothing.stderr
    );
}

#[test]
fn the_plant_on_a_real_broker_is_learned_and_its_fault_is_found() {
    let broker = Broker::start("max_queued_messages 0\nmax_inflight_messages 100\n");
    let hb = plant(&format!("tcp://127.0.0.1:{}", broker.port));
    hb.done(&["keys", "init"]);
    let mut running = Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=info"));
    running.wait_for("connected to the MQTT broker", 1);
    assert!(broker.says("Sending SUBACK"), "it does not subscribe");
    let url = format!("tcp://127.0.0.1:{}", broker.port);
    let day = ["--start", "2026-03-02", "--for", "24h", "--speed", "0"];
    let sent = hb.json(&[&["simulate", "--broker", &url][..], &day].concat());
    assert_eq!(sent["reports"], 24 * 60 * 20, "{sent}");
    stored(&hb, 24 * 60 * 20);
    hb.done(&["baseline", "create", "--window", "24h"]);
    hb.done(&["baseline", "promote", "--version", "1", "--tag", "golden"]);
    let next = ["--start", "2026-03-03", "--for", "2h", "--speed", "0", "--fault", "stuck:press-03:10m"];
    hb.done(&[&["simulate", "--broker", &url][..], &next].concat());
    stored(&hb, 26 * 60 * 20);
    let alerts = hb.json(&["alert", "list"]);
    let alerts: Vec<&Value> = alerts.as_array().unwrap().iter().collect();
    assert!(!alerts.is_empty() && alerts.iter().all(|a| a["asset"] == "press-03"), "{alerts:?}");
    assert!(alerts[0]["reason"].as_str().unwrap().contains("speed is stuck at"), "{alerts:?}");
    running.end();
}

/// Waits until so many reports are stored.
fn stored(hb: &Hb, reports: u64) {
    let end = std::time::Instant::now() + Duration::from_mins(2);
    while hb.json(&["status"])["sources"]["machines"]["frames"].as_u64() != Some(reports) {
        assert!(std::time::Instant::now() < end, "not all reports came: {}", hb.done(&["status"]).stdout);
    }
}

/// `examples/plant` as it lies there, at this broker.
fn plant(broker: &str) -> Hb {
    let hb = Hb::new();
    let example = repository().join("examples/plant");
    let config = fs::read_to_string(example.join("hb.yaml")).unwrap();
    hb.write("hb.yaml", &config.replace("tcp://127.0.0.1:1883", broker));
    fs::copy(example.join("telemetry_schema.yaml"), hb.path("telemetry_schema.yaml")).unwrap();
    hb.write("publisher.pub", &publisher_key());
    copy_folder(&repository().join("policies"), &hb.path("policies"));
    hb
}

#[test]
fn a_file_is_the_same_each_time_and_a_reader_may_stop_early() {
    let hb = Hb::new();
    let simulate = |name: &str, seed: &str| {
        hb.done(&["simulate", "--seed", seed, "--machines", "3", "--for", "10m", "--output", name]);
        fs::read_to_string(hb.path(name)).unwrap()
    };
    let (one, again, other) = (simulate("a.jsonl", "1"), simulate("b.jsonl", "1"), simulate("c.jsonl", "2"));
    assert_eq!((one.lines().count(), &one), (30, &again));
    assert_ne!(one, other);
    assert!(one.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{one}");
    let piped = format!("{} simulate --for 24h | head -n 2", Path::new(env!("CARGO_BIN_EXE_hb")).display());
    let output = Output::of(std::process::Command::new("bash").args(["-o", "pipefail", "-c", &piped]));
    assert_eq!((output.code, output.stdout.lines().count()), (0, 2), "{}", output.stderr);
}

#[test]
fn a_syslog_receiver_gets_a_message_of_each_machine() {
    let hb = Hb::new();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let url = format!("udp://{}", receiver.local_addr().unwrap());
    hb.done(&[
        "simulate",
        "--syslog",
        &url,
        "--machines",
        "3",
        "--for",
        "60s",
        "--speed",
        "0",
        "--start",
        "2026-03-02",
    ]);
    let mut buffer = [0_u8; 1_024];
    let mut message = || {
        let length = receiver.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let messages = [message(), message(), message()];
    assert!(messages[0].starts_with("<134>1 2026-03-02T00:00:00Z press-01 acme - - - {\"ts\":"), "{messages:?}");
    assert!(messages[2].contains(" mill-03 corvus - - - ts=2026-03-02T00:00:00Z seq=0 MOT_T="), "{messages:?}");
}

#[test]
fn a_wrong_word_is_answered_with_the_right_one() {
    let hb = Hb::new();
    let wrong = |args: &[&str]| {
        let output = hb.run(&[&["simulate"][..], args].concat());
        (output.code, output.stderr)
    };
    for (args, code, words) in [
        (&["--fault", "rust:press-01:1h"][..], 64, "there are drift, spike, stuck"),
        (&["--fault", "drift:press-77:1h"], 64, "there is no machine `press-77`; there are press-01"),
        (&["--fault", "drift:press-01"], 64, "KIND:MACHINE:FROM"),
        (&["--step", "soon"], 64, "`soon` is no span"),
        (&["--speed", "-1"], 64, "is no speed"),
        (&["--machines", "100"], 64, "1 to 99 machines"),
        (&["--syslog", "ftp://x"], 64, "udp://"),
        (&["--broker", "tcp://127.0.0.1:1"], 74, "no connection to 127.0.0.1:1"),
        (&["--output", "/nowhere/x.jsonl"], 74, "/nowhere/x.jsonl"),
    ] {
        let (got, said) = wrong(args);
        assert!(got == code && said.contains(words), "{args:?}: {got} {said}");
    }
}
