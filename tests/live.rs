//! A daemon on live telemetry: killed again and again while messages come, it takes each of them exactly once.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Child, ChildStdin, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hb::pipeline::journal::{self, Row};
use hb::state::{Options, State};

use crate::support::broker::Broker;
use crate::support::hb::{Dice, Hb, Running};

const PROGRAM: &str = "live";

/// Kills altogether at least.
const KILLS: usize = 100;

/// Kills in each place at least.
const KILLS_EACH: usize = 20;

/// Starts at most: the places are hit by chance, and a slow machine misses more often.
const STARTS_MAX: usize = 400;

/// Messages a second.
const RATE: u64 = 2_000;

/// How long the rest of the messages may take after the last kill.
const PATIENCE: Duration = Duration::from_mins(3);

/// A kill comes this long behind its line at most, us.
const DELAY_US_MAX: u64 = 1_500;

/// Where a child was when it was killed, by its last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// It was rebuilding its engine.
    Recovering,
    /// A commit had begun and is not acknowledged, nor known to be durable.
    BeforeCommit,
    /// A commit is durable and the broker does not know.
    BeforeAck,
}

const PLACES: [Place; 3] = [Place::Recovering, Place::BeforeCommit, Place::BeforeAck];

#[test]
fn a_hundred_kills_on_mqtt_lose_nothing_and_double_nothing() {
    // The broker's own limits are not what is tried here: it queues without end, and 1,000 are on their way at a time.
    let broker = Broker::start("max_queued_messages 0\nmax_inflight_messages 1000\n");
    let (calm, hb) = (subscriber(broker.port, "calm", 1_000), subscriber(broker.port, "hit", 1_000));
    // Both sessions are there before the first message.
    let mut calm_runs = run(&calm);
    calm_runs.wait_for("connected to the MQTT broker", 1);
    assert!(broker.says("Sending SUBACK to calm"), "calm does not subscribe");
    let mut first = run(&hb);
    first.wait_for("connected to the MQTT broker", 1);
    assert!(broker.says("Sending SUBACK to hit"), "hit does not subscribe");
    first.kill();

    let (enough, published) = (AtomicBool::new(false), AtomicU64::new(0));
    let publisher = broker.publisher("plant/m");
    let kills = std::thread::scope(|threads| {
        threads.spawn(|| publish(publisher, &enough, &published));
        let kills = kill_often(&hb);
        enough.store(true, Ordering::Relaxed);
        kills
    });
    let total = published.load(Ordering::Relaxed);
    println!("{total} messages, killed {kills:?}");

    let mut last = run(&hb);
    for (hb, running) in [(&calm, &mut calm_runs), (&hb, &mut last)] {
        wait_until_durable(running, total);
        running.end();
        let sequence: Vec<u64> = values(hb).into_iter().map(|v| v as u64).collect();
        assert_eq!(sequence, (0..total).collect::<Vec<u64>>(), "each message once, in order");
    }
    assert_eq!(calm.decisions(PROGRAM), hb.decisions(PROGRAM), "the kills changed decisions");
    assert!(!calm.decisions(PROGRAM).is_empty());
    hb.done(&["log", "verify", "--key", "state/keys/host.pub"]);
}

/// An instance with a session of its own; `window` messages may be on their way to it.
pub(crate) fn subscriber(port: u16, client: &str, window: u32) -> Hb {
    let hb = Hb::new();
    hb.write(
        "hb.yaml",
        &format!(
            "program: {PROGRAM}
state: ./state
require_signed: false
sources:
  - name: s
    plugin: mqtt
    transport:
      mqtt:
        broker: tcp://127.0.0.1:{port}
        topics: [plant/#]
        client_id: {client}
        in_flight_window: {window}
    normalizer: n
normalizers:
  - name: n
    plugin: schema-map
    settings: {{ version: 1, timestamp: {{ field: t }}, labels: {{ asset: {{ field: a }} }}, layout: wide }}
checks:
  - {{ id: c, window_sec: 10, rules: [{{ rule: drift.missing }}] }}
evidence: {{ on_fail: false }}
"
        ),
    );
    hb
}

fn run(hb: &Hb) -> Running {
    Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=debug"))
}

/// Publishes numbered messages, two milliseconds of event time apart, until there were enough kills.
fn publish((mut child, mut stdin): (Child, ChildStdin), enough: &AtomicBool, published: &AtomicU64) {
    let (begin, mut n) = (Instant::now(), 0_u64);
    while !enough.load(Ordering::Relaxed) {
        let due = begin.elapsed().as_millis() as u64 * RATE / 1_000;
        while n < due {
            writeln!(stdin, "{{\"t\":{}.{:03},\"a\":\"m{}\",\"n\":{n}}}", 1_767_225_600 + n / 500, n % 500 * 2, n % 7)
                .unwrap();
            n += 1;
        }
        // Paced by the wall clock; the rate is the test's subject, not a wait for something.
        std::thread::park_timeout(Duration::from_millis(2));
    }
    drop(stdin);
    assert!(child.wait().unwrap().success(), "the broker did not take all messages");
    published.store(n, Ordering::Relaxed);
}

/// Starts and kills until each place was hit often enough.
fn kill_often(hb: &Hb) -> BTreeMap<Place, usize> {
    let mut dice = Dice(11);
    let mut kills: BTreeMap<Place, usize> = BTreeMap::new();
    let is_enough = |kills: &BTreeMap<Place, usize>| {
        kills.values().sum::<usize>() >= KILLS && PLACES.iter().all(|p| kills.get(p).is_some_and(|&n| n >= KILLS_EACH))
    };
    let mut starts = 0;
    while !is_enough(&kills) {
        starts += 1;
        assert!(starts <= STARTS_MAX, "{starts} starts, killed {kills:?}");
        let aim = *PLACES.iter().min_by_key(|p| kills.get(p).copied().unwrap_or(0)).unwrap();
        let mut running = run(hb);
        let (word, nth) = match aim {
            Place::Recovering => ("recovering lane", 1),
            Place::BeforeCommit => ("committing", 2 + dice.below(3) as usize),
            Place::BeforeAck => ("committed", 2 + dice.below(3) as usize),
        };
        running.wait_for(word, nth);
        running.wait_for_any(Duration::from_micros(dice.below(DELAY_US_MAX)));
        if let Some(place) = place(&running.kill()) {
            *kills.entry(place).or_default() += 1;
        }
    }
    kills
}

/// What the last telling line says of the moment of death; `None` when it was none of the three.
fn place(said: &[String]) -> Option<Place> {
    said.iter().rev().find_map(|line| match line {
        l if l.contains("acknowledged") => Some(None),
        l if l.contains("committing") => Some(Some(Place::BeforeCommit)),
        l if l.contains("committed") => Some(Some(Place::BeforeAck)),
        l if l.contains("lane recovered") => Some(None),
        l if l.contains("recovering lane") => Some(Some(Place::Recovering)),
        _ => None,
    })?
}

/// Follows the daemon's lines until everything is acknowledged.
fn wait_until_durable(running: &mut Running, total: u64) {
    let deadline = Instant::now() + PATIENCE;
    // A commit says up to which sample it goes.
    let mut newest = 0;
    while newest < total {
        assert!(Instant::now() < deadline, "{newest} of {total} after {PATIENCE:?}");
        running.wait_for_line(|line| {
            let seq = line.split("seq=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            // The generation was input 1; nothing else but samples is.
            newest = seq.map_or(newest, |seq| newest.max(seq - 1));
            seq.is_some()
        });
    }
}

/// The values of all stored samples, in order; one that is there twice shows.
fn values(hb: &Hb) -> Vec<f64> {
    let state = State::open(&hb.path("state"), Options::default()).unwrap();
    let mut all = Vec::new();
    for row in state.reader().unwrap().journal(PROGRAM, "live", 0).unwrap() {
        if let Some(Row::Samples(columns)) = journal::decode(&row.unwrap().bytes) {
            all.extend(columns.value);
        }
    }
    all
}

#[test]
fn real_syslog_clients_are_heard() {
    let hb = Hb::new();
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    hb.write(
        "hb.yaml",
        &format!(
            "program: {PROGRAM}
state: ./state
require_signed: false
sources:
  - {{ name: u, plugin: syslog, transport: {{ socket: {{ listen: \"udp://127.0.0.1:{port}\" }} }}, normalizer: n }}
  - {{ name: t, plugin: syslog, transport: {{ socket: {{ listen: \"tcp://127.0.0.1:{port}\" }} }}, normalizer: n }}
normalizers:
  - name: n
    plugin: schema-map
    settings:
      version: 1
      unmapped: ignore
      sources: {{ syslog: {{ patterns: [{{ match: 'temp=(?<temp>[0-9.]+)', field: msg }}] }} }}
      field_mapping: {{ temp: {{ metric: temperature, unit: degC }} }}
"
        ),
    );
    let mut running = run(&hb);
    running.wait_for("reading", 2);
    let port = port.to_string();
    for (kind, value) in [("--udp", 21), ("--tcp", 22), ("--udp", 23), ("--tcp", 24)] {
        let text = format!("temp={value}.5 all is well");
        let mut logger = Command::new("logger");
        logger.args(["--server", "127.0.0.1", "--port", &port, kind, "--tag", "pump", &text]);
        assert!(logger.status().unwrap().success(), "logger {kind}");
    }
    let mut samples = 0;
    while samples < 4 {
        running.wait_for_line(|line| {
            let n = line.split("samples=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            samples += n.filter(|_| line.contains("committing")).unwrap_or(0);
            n.is_some()
        });
    }
    running.end();
    let mut values = values(&hb);
    values.sort_by(f64::total_cmp);
    assert_eq!(values, [21.5, 22.5, 23.5, 24.5]);
}
