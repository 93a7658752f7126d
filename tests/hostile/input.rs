//! Bad telemetry.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{BEGIN, Counts, PROGRAM, WIDE, assert_quarantined, counts, line, once, quarantine, reading};
use crate::support::broker::Broker;
use crate::support::hb::{Hb, Output, Running, surround};

/// Bytes of a line nobody can want.
const HUGE_LINE: usize = 100 << 20;

/// Most memory hb may take for it, kB.
const HUGE_LINE_MEMORY_KB: u64 = 150 << 10;

/// Longest message and datagram where too long ones are sent, bytes.
const SHORT_LIMIT: usize = 1_024;

/// How long what was sent may take to be counted.
const PATIENCE: Duration = Duration::from_mins(1);

/// A year, seconds.
const YEAR: u64 = 365 * 86_400;

#[test]
fn bad_json_is_quarantined_line_by_line() {
    let hb = reading("in.jsonl", "jsonl", WIDE);
    let mut bytes = line(0, 1).into_bytes();
    bytes.extend_from_slice(b"{broken\n{\"t\":1767225601,\"v\":NaN}\n{\"t\":1767225602,\"v\":1e999}\n");
    bytes.extend_from_slice(b"{\"t\":1767225603,\"v\":\"NaN\"}\n{\"t\":1767225603,\"v\":\"-inf\"}\n");
    bytes.extend_from_slice(b"{\"t\":1767225604,\"v\":\"\xff\xfe\"}\n[1]\n5\n{\"v\":1}\n{\"t\":\"noon\",\"v\":1}\n");
    bytes.extend_from_slice(b"{\"t\":1767225605,\"v\":1,\"v\":2}\n");
    bytes.extend_from_slice(line(6, 2).as_bytes());
    std::fs::write(hb.path("in.jsonl"), bytes).unwrap();
    assert_eq!(once(&hb), Counts { samples: 2, rejects: 11, refused: 0, faults: 0 }, "{:#?}", quarantine(&hb));
    for reason in [
        "not JSON: a key in quotes expected at byte 1",
        "not JSON: no value begins like this at byte 20",
        "field `v`: `1e999` is too large",
        "field `v`: `NaN` is not a finite number",
        "field `v`: `-inf` is not a finite number",
        "not UTF-8",
        "a JSON array",
        "a bare value",
        "`t`",
        "`noon`",
        "twice",
    ] {
        assert!(quarantine(&hb).iter().any(|r| r.0.contains(reason)), "{reason}: {:#?}", quarantine(&hb));
    }
}

#[test]
fn bad_csv_is_quarantined_row_by_row() {
    let hb = reading("in.csv", "csv", WIDE);
    let rows = [",p,1", ",p", ",p,nan", ",p,inf", ",p,-Infinity", ",p,2,9", ",p,\"3", ",p,4"];
    let mut text = "t,a,v\n".to_owned();
    rows.iter().enumerate().for_each(|(i, row)| text.push_str(&format!("{}{row}\n", BEGIN + i as u64)));
    hb.write("in.csv", &text);
    assert_eq!(once(&hb), Counts { samples: 2, rejects: 6, refused: 0, faults: 0 });
    assert_quarantined(
        &hb,
        &[
            ("csv row: 2 cells, but the header names 3 columns", 1),
            ("csv row: 4 cells, but the header names 3 columns", 1),
            ("the quote at byte 13 is not closed", 1),
            ("`nan` is not a finite number", 1),
            ("`inf` is not a finite number", 1),
            ("`-Infinity` is not a finite number", 1),
        ],
    );
}

#[test]
fn a_row_with_an_unknown_unit_is_refused_with_the_units_that_would_do() {
    let settings = "{ version: 1, timestamp: { field: t }, layout: long, field_mapping: { p: { metric: power, unit: kW, from: W } } }";
    let hb = reading("in.jsonl", "jsonl", settings);
    let row =
        |s: u64, unit: &str| format!("{{\"t\":{},\"metric\":\"p\",\"value\":1,\"unit\":\"{unit}\"}}\n", BEGIN + s);
    hb.write("in.jsonl", &(row(0, "W") + &row(1, "furlong") + &row(2, "degC") + &row(3, "kW")));
    assert_eq!(once(&hb), Counts { samples: 2, rejects: 2, refused: 0, faults: 0 });
    let found = quarantine(&hb);
    assert!(
        found.iter().any(|r| r.0.contains("unknown unit `furlong`; known units of power: W, mW, kW")),
        "{found:#?}"
    );
    assert!(found.iter().any(|r| r.0.contains("degC")), "{found:#?}");
}

#[test]
fn a_line_of_100_megabytes_costs_little_memory_and_only_itself() {
    let hb = reading("in.jsonl", "jsonl", WIDE);
    let mut file = File::create(hb.path("in.jsonl")).unwrap();
    file.write_all(line(0, 1).as_bytes()).unwrap();
    file.write_all(b"{\"t\":1767225601,\"x\":\"").unwrap();
    let chunk = vec![b'x'; 1 << 20];
    (0..HUGE_LINE / chunk.len()).for_each(|_| file.write_all(&chunk).unwrap());
    file.write_all(b"\"}\n").unwrap();
    file.write_all(line(2, 2).as_bytes()).unwrap();
    drop(file);

    let kb = measured(&hb, &["daemon", "--once"]);
    assert!(kb < HUGE_LINE_MEMORY_KB, "{kb} kB");
    assert_eq!(once(&hb), Counts { samples: 2, rejects: 1, refused: 0, faults: 0 });
    assert_quarantined(&hb, &[("line longer than 1048576 bytes", 1)]);
}

#[test]
fn one_row_from_last_year_is_refused_alone() {
    let hb = reading("in.jsonl", "jsonl", WIDE);
    let text: String =
        (0..10).map(|i| if i == 5 { line(i, i).replace("17672", "17356") } else { line(i, i) }).collect();
    hb.write("in.jsonl", &text);
    assert_eq!(once(&hb), Counts { samples: 9, rejects: 0, refused: 1, faults: 0 });
    assert_quarantined(&hb, &[("time_jump", 1)]);
}

#[test]
fn a_clock_that_stays_in_last_year_is_followed() {
    let hb = reading("in.jsonl", "jsonl", WIDE);
    let back = |i: u64| format!("{{\"t\":{},\"a\":\"p\",\"v\":{i}}}\n", BEGIN + i - YEAR);
    let text: String = (0..10).map(|i| line(i, i)).chain((10..100).map(back)).collect();
    hb.write("in.jsonl", &text);
    let seen = once(&hb);
    assert_eq!((seen.samples + seen.refused, seen.rejects, seen.faults), (100, 0, 0));
    assert!(seen.samples >= 95, "at most a few are needed to believe it: {seen:?}");
}

#[test]
fn an_empty_file_is_an_end_and_no_error() {
    for format in ["jsonl", "csv", "auto"] {
        let hb = reading("in", format, WIDE);
        hb.write("in", "");
        assert_eq!(once(&hb), Counts { samples: 0, rejects: 0, refused: 0, faults: 0 }, "{format}");
        assert_eq!(quarantine(&hb), []);
    }
}

#[test]
fn a_truncated_file_that_grows_is_read_on() {
    let hb = Hb::new();
    let good: String = (0..120).map(|i| line(i, i % 7)).collect();
    hb.write("clean.jsonl", &good);
    let config = super::config("in.jsonl, follow: true", "jsonl", "schema-map", WIDE)
        + "limits: { commit_ms: 100 }
checks:
  - id: c
    window_sec: 10
    baseline: golden
    min_samples: 1
    rules: [{ rule: drift.robust_z, params: { warn: 5, fail: 9, k: 1, n: 1 } }]
evidence: { on_fail: false }
";
    hb.write("hb.yaml", &config);
    hb.done(&["ingest", "clean.jsonl", "--out", "clean"]);
    hb.done(&["baseline", "create", "--from", "clean"]);
    hb.done(&["baseline", "promote", "--version", "1"]);

    let bad = line(0, 900);
    let all: String = good.clone() + &(120..200).map(|i| line(i, 900)).collect::<String>();
    let cut = good.len() - bad.len() / 2;
    hb.write("in.jsonl", &all[..cut]);
    let mut daemon = Running::start(&mut hb.command(&["daemon"]));
    let mut file = OpenOptions::new().append(true).open(hb.path("in.jsonl")).unwrap();
    file.write_all(&all.as_bytes()[cut..]).unwrap();
    daemon.wait_for("asset=\"p\" status=\"FAIL\"", 1);
    daemon.kill();

    // What was not committed before the end is read by the next start: nothing is lost, nothing counts twice.
    hb.write("hb.yaml", &config.replace("follow: true", "follow: false"));
    hb.done(&["daemon", "--once"]);
    assert_eq!(counts(&hb), Counts { samples: 200, rejects: 0, refused: 0, faults: 0 });
}

/// Runs `hb` and says how much memory it took at most, kB.
fn measured(hb: &Hb, args: &[&str]) -> u64 {
    let mut command = Command::new("time");
    command.arg("-v").arg(env!("CARGO_BIN_EXE_hb")).args(args).current_dir(hb.dir());
    surround(&mut command);
    let output = Output::of(&mut command);
    assert_eq!(output.code, 0, "{output:#?}");
    let line = output.stderr.lines().find(|l| l.contains("Maximum resident set size")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_message_or_datagram_that_is_too_long_is_refused_once_and_by_its_name() {
    let (broker, hb) = (Broker::start(""), Hb::new());
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    hb.write(
        "hb.yaml",
        &format!(
            "program: {PROGRAM}
state: ./state
require_signed: false
sources:
  - {{ name: u, plugin: mqtt, transport: {{ socket: {{ listen: \"udp://127.0.0.1:{port}\" }} }}, normalizer: n }}
  - name: m
    plugin: mqtt
    transport: {{ mqtt: {{ broker: \"tcp://127.0.0.1:{}\", topics: [plant/#], client_id: long }} }}
    normalizer: n
normalizers:
  - {{ name: n, plugin: schema-map, settings: {WIDE} }}
limits: {{ max_line_bytes: {SHORT_LIMIT}, commit_ms: 50 }}
",
            broker.port
        ),
    );
    let mut running = Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=debug"));
    running.wait_for("reading", 2);
    assert!(broker.says("Sending SUBACK to long"), "it does not subscribe");
    let until = |expected: Counts| {
        let deadline = Instant::now() + PATIENCE;
        while counts(&hb) != expected {
            assert!(Instant::now() < deadline, "{:?} and not {expected:?}: {:#?}", counts(&hb), quarantine(&hb));
        }
    };
    let publish = |lines: &[&str]| {
        let (mut child, mut stdin) = broker.publisher("plant/m");
        for line in lines {
            writeln!(stdin, "{line}").unwrap();
        }
        drop(stdin);
        assert!(child.wait().unwrap().success(), "the broker did not take all messages");
    };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |text: &str| assert!(socket.send_to(text.as_bytes(), ("127.0.0.1", port)).unwrap() > 0);

    // Each is counted and, where somebody waits for it, acknowledged, also when nothing else comes.
    let long = "x".repeat(SHORT_LIMIT + 1);
    publish(&[&long]);
    until(Counts { samples: 0, rejects: 1, refused: 0, faults: 0 });
    assert!(broker.says("Received PUBACK from long"), "a message that is too long is not acknowledged");
    send(&long);
    until(Counts { samples: 0, rejects: 2, refused: 0, faults: 0 });
    // And it takes nothing from those before and behind it.
    let good = [line(0, 1), line(1, 2), line(2, 3)].map(|line| line.trim_end().to_owned());
    publish(&[&good[0], &long, &good[1], &long]);
    for text in [&good[0], &long, &good[1], &good[2], &long] {
        send(text);
    }
    until(Counts { samples: 5, rejects: 6, refused: 0, faults: 0 });
    running.end();
    let (message, datagram) = ("message longer than 1024 bytes", "datagram longer than 1024 bytes");
    assert_quarantined(&hb, &[(message, 3), (datagram, 3)]);
    let list = hb.json(&["quarantine", "list"]);
    let samples: Vec<&str> =
        super::list(&list, "refused").iter().map(|r| r["sample"].as_str().unwrap_or_default()).collect();
    assert!(samples.iter().any(|s| s.starts_with("1025 bytes from plant/m: xxx")), "{samples:#?}");
    assert!(samples.iter().any(|s| s.starts_with("from 127.0.0.1: xxx")), "{samples:#?}");
}
