//! A daemon on live telemetry: killed again and again while messages come, it takes each of them exactly once.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write as _;
use std::process::{Child, ChildStdin, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hb::pipeline::journal::{self, Row};
use hb::state::{Options, State};
use hb_engine::series::{SeriesDef, SeriesKind};

use crate::crash::commits;
use crate::support::broker::Broker;
use crate::support::hb::{Dice, Hb, Running};

pub(crate) const PROGRAM: &str = "live";

/// Kills altogether at least.
const KILLS: usize = 100;

/// Kills in each place at least.
const KILLS_EACH: usize = 20;

/// Starts at most: the places are hit by chance, and a slow machine misses more often.
const STARTS_MAX: usize = 400;

/// Messages a second that are published, and that the broker has to acknowledge over the whole run, kills included.
const RATE: u64 = 2_500;
const RATE_MIN: f64 = 2_000.0;

/// Machines that send in turn.
const ASSETS: u64 = 7;

/// Event time between two messages, and of the first, ns.
const STEP_NS: i64 = 2_000_000;
const BEGIN_NS: i64 = 1_767_225_600_000_000_000;

/// Differences that are shown.
const SHOWN: usize = 5;

/// How long the rest of the messages may take after the last kill.
const PATIENCE: Duration = Duration::from_mins(3);

/// A kill comes this long behind its line at most, us.
const DELAY_US_MAX: u64 = 1_500;

/// Where a child was when it was killed, by its last line and by what was durable then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// It was rebuilding its engine.
    Recovering,
    /// A commit had begun and is not durable.
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
    let (publisher, begin) = (broker.publisher("plant/m"), Instant::now());
    let (kills, took) = std::thread::scope(|threads| {
        let publisher = threads.spawn(|| publish(publisher, &enough, &published));
        let kills = kill_often(&hb);
        enough.store(true, Ordering::Relaxed);
        publisher.join().unwrap();
        (kills, begin.elapsed())
    });
    let total = published.load(Ordering::Relaxed);
    let rate = total as f64 / took.as_secs_f64();
    println!("{total} messages acknowledged in {took:?}, {rate:.0} a second; killed {kills:?}");
    assert!(rate >= RATE_MIN, "the broker acknowledged {rate:.0} messages a second");

    let mut last = run(&hb);
    for (hb, running) in [(&calm, &mut calm_runs), (&hb, &mut last)] {
        wait_until_durable(running, total);
        running.end();
        assert_same(&samples(hb), &(0..total).map(Sample::of_message).collect::<Vec<_>>());
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
            let Sample { series, time_ns, .. } = Sample::of_message(n);
            let (sec, ms) = (time_ns / 1_000_000_000, time_ns / 1_000_000 % 1_000);
            writeln!(stdin, "{{\"t\":{sec}.{ms:03},\"a\":\"{}\",\"n\":{n}}}", series.labels["asset"]).unwrap();
            n += 1;
        }
        // Paced by the wall clock; the rate is the test's subject, not a wait for something.
        std::thread::park_timeout(Duration::from_millis(2));
    }
    drop(stdin);
    assert!(child.wait().unwrap().success(), "the broker did not take all messages");
    published.store(n, Ordering::Relaxed);
}

/// One sample as it is to be found, by content.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    series: SeriesDef,
    time_ns: i64,
    value: f64,
}

impl Sample {
    /// What becomes of the message with this number.
    fn of_message(n: u64) -> Sample {
        let labels = [("asset".to_owned(), format!("m{}", n % ASSETS))].into();
        let series = SeriesDef { metric: "n".to_owned(), unit: String::new(), kind: SeriesKind::Gauge, labels };
        Sample { series, time_ns: BEGIN_NS + n as i64 * STEP_NS, value: n as f64 }
    }
}

/// Compares long lists and shows where they begin to differ.
fn assert_same<T: Debug + PartialEq>(found: &[T], expected: &[T]) {
    let at = found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
    let part = |all: &[T]| format!("{:#?}", all[at.min(all.len())..].iter().take(SHOWN).collect::<Vec<_>>());
    let (is, should) = (part(found), part(expected));
    assert!(found == expected, "{} of {}; from {at} on {is} and not {should}", found.len(), expected.len());
}

/// Starts and kills until each place was hit often enough. How soon a start goes on under load is measured by
/// `cargo xtask bench restart`, which holds it to 2 s: here many tests may share the machine.
fn kill_often(hb: &Hb) -> BTreeMap<Place, usize> {
    let mut dice = Dice(11);
    let mut kills: BTreeMap<Place, usize> = BTreeMap::new();
    let is_enough = |kills: &BTreeMap<Place, usize>| {
        kills.values().sum::<usize>() >= KILLS && PLACES.iter().all(|p| kills.get(p).is_some_and(|&n| n >= KILLS_EACH))
    };
    // Looked at in a copy, its log verified each time: the next start finds the state exactly as the kill left it.
    let (mut starts, mut before) = (0, commits(hb));
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
        let said = running.kill();
        let after = commits(hb);
        if let Some(place) = place(&said, before, after) {
            *kills.entry(place).or_default() += 1;
        }
        before = after;
    }
    kills
}

/// Where a child was that has said this, given the commits that were durable before it started and after it died;
/// `None` when it was none of the three.
fn place(said: &[String], before: u64, after: u64) -> Option<Place> {
    let number = |line: &String| line.split("txn=").nth(1).and_then(|n| n.split_whitespace().next()?.parse().ok());
    let reported = said.iter().rev().filter(|line| line.contains("committed")).find_map(number);
    let known: u64 = reported.unwrap_or(before);
    assert!(after >= known && after <= known + 1, "{after} commits are durable, {known} were reported");
    said.iter().rev().find_map(|line| match line {
        l if l.contains("acknowledged") => Some(None),
        l if l.contains("committing") && after > known => Some(Some(Place::BeforeAck)),
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

/// All stored samples, in order; one that is there twice shows.
fn samples(hb: &Hb) -> Vec<Sample> {
    let reader = State::open(&hb.path("state"), Options::default()).unwrap().reader().unwrap();
    let defs = reader.series(PROGRAM).unwrap();
    let defs: BTreeMap<u32, SeriesDef> =
        defs.into_iter().map(|(id, bytes)| (id, hb_log::cbor::decode(&bytes).unwrap())).collect();
    let mut all = Vec::new();
    for row in reader.journal(PROGRAM, "live", 0).unwrap() {
        if let Some(Row::Samples(c)) = journal::decode(&row.unwrap().bytes) {
            let sample =
                |i: usize| Sample { series: defs[&c.series[i]].clone(), time_ns: c.time_ns[i], value: c.value[i] };
            all.extend((0..c.len()).map(sample));
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
    let mut taken = 0;
    while taken < 4 {
        running.wait_for_line(|line| {
            let n = line.split("samples=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            taken += n.filter(|_| line.contains("committing")).unwrap_or(0);
            n.is_some()
        });
    }
    running.end();
    let mut values: Vec<f64> = samples(&hb).into_iter().map(|sample| sample.value).collect();
    values.sort_by(f64::total_cmp);
    assert_eq!(values, [21.5, 22.5, 23.5, 24.5]);
}
