//! From a window's end to its decision being durable, and from there to the alert arriving at a receiver.
//!
//! Event time is the time of this machine. Each machine of the plant is well for a second and ill for the next, so that
//! each of its windows is a change and begins or ends an alert. Some fall silent in the middle of an ill window, which
//! then closes by the clock.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use serde_json::Value;

use super::broker::Broker;
use super::daemon::{Daemon, Line};
use super::ground::Ground;
use super::load::{noise, paced};
use super::receiver::{self, Heard};
use super::row::{Row, quantile};

/// Machines that go on.
const ASSETS: u64 = 5;

/// Machines that fall silent, one every other second.
const QUIET: u64 = 15;

/// Readings of each machine per second.
const HZ: u64 = 20;

/// Seconds from which the baseline is learned, and until the faults begin.
const LEARN_SEC: u64 = 15;
const CLEAN_SEC: u64 = 20;

/// Seconds of faults.
const FAULTS_SEC: u64 = 60;

/// How long a machine that is silent is waited for.
const IDLE_SEC: u64 = 1;

/// Alerts that must be there to speak of a 99th percentile.
const ALERTS: f64 = 100.0;

const ALERT_MS: f64 = 50.0;

/// A step of the daemon's grid of ticks.
const TICK_MS: f64 = 1_000.0;

pub(super) fn run(ground: &Ground) -> Result<Vec<Row>> {
    let dir = ground.dir("latency")?;
    let broker = Broker::start(&dir, 1_000)?;
    let (sink, heard) = receiver::start()?;
    fs::write(dir.join("hb.yaml"), config(broker.port, sink))?;
    let mut daemon = Daemon::start(ground, &dir, "hb=info,hb::pipeline::record=debug", &[])?;
    daemon.wait_until_ready()?;

    let (mut publisher, enough) = (broker.publisher("plant/m")?, AtomicBool::new(false));
    std::thread::scope(|threads| {
        let sender = threads.spawn(|| {
            use std::io::Write as _;
            let plant = Plant::begin()?;
            let stdin = publisher.lines()?;
            paced(HZ * (ASSETS + QUIET), &enough, |due| {
                let text: String = due.filter_map(|n| plant.line(n)).collect();
                stdin.write_all(text.as_bytes()).context("mosquitto_pub")
            })
        });
        std::thread::sleep(Duration::from_secs(CLEAN_SEC + FAULTS_SEC));
        enough.store(true, Ordering::Relaxed);
        sender.join().map_err(|_| anyhow!("the sender"))?
    })?;
    publisher.end()?;
    daemon.wait_until("the last alert", |m| m.sum("hb_outbox_depth") == 0)?;
    let lines = daemon.lines();
    daemon.end()?;
    rows(&Decided::of(&lines)?, &heard.try_iter().collect::<Vec<_>>())
}

/// A plant whose time began now.
struct Plant {
    begin_ms: u64,
}

impl Plant {
    fn begin() -> Result<Plant> {
        Ok(Plant { begin_ms: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64 })
    }

    /// The `n`th reading, unless its machine is silent.
    fn line(&self, n: u64) -> Option<String> {
        let machine = n % (ASSETS + QUIET);
        let at_ms = self.begin_ms + n * 1_000 / (HZ * (ASSETS + QUIET));
        let since_sec = (at_ms / 1_000).saturating_sub(self.begin_ms / 1_000);
        let (is_ill, name) = if machine < ASSETS {
            (since_sec >= CLEAN_SEC && at_ms / 1_000 % 2 == machine % 2, format!("m{machine}"))
        } else {
            // Ill in the first half of one second, then never heard of again.
            let last_sec = CLEAN_SEC + 2 * (machine - ASSETS) + 1;
            if since_sec > last_sec || (since_sec == last_sec && at_ms % 1_000 >= 500) {
                return None;
            }
            (since_sec == last_sec, format!("quiet{machine}"))
        };
        let temp = 70.0 + noise(n) + if is_ill { 50.0 } else { 0.0 };
        let (sec, ms) = (at_ms / 1_000, at_ms % 1_000);
        Some(format!("{{\"t\":{sec}.{ms:03},\"a\":\"{name}\",\"temp\":{temp:.2}}}\n"))
    }
}

/// What the daemon said of its decisions.
struct Decided {
    /// When each decision was durable, by its hash.
    durable: HashMap<String, Timestamp>,
    /// From the end of each window to its decision, ms: of machines that report, and of silent ones.
    flowing_ms: Vec<f64>,
    silent_ms: Vec<f64>,
}

impl Decided {
    fn of(lines: &[Line]) -> Result<Decided> {
        let commits: BTreeMap<u64, Timestamp> = lines
            .iter()
            .filter(|line| line.text("message") == "committed")
            .filter_map(|line| Some((line.number("txn")?, line.text("timestamp").parse().ok()?)))
            .collect();
        let mut decided = Decided { durable: HashMap::new(), flowing_ms: Vec::new(), silent_ms: Vec::new() };
        let (mut silent, mut begun) = (std::collections::HashSet::new(), None);
        for line in lines.iter().filter(|line| line.text("message") == "decided") {
            let durable = *line.number("txn").and_then(|txn| commits.get(&txn)).context("a commit of a decision")?;
            let end: Timestamp = line.text("end").parse().context("the end of a window")?;
            decided.durable.insert(line.text("decision").to_owned(), durable);
            // What was decided of the first seconds waited for the baseline to be made.
            let begun = *begun.get_or_insert(end);
            if end.duration_since(begun).as_secs() < CLEAN_SEC as i64 - 1 {
                continue;
            }
            let late_ms = durable.duration_since(end).as_secs_f64() * 1e3;
            let asset = line.text("asset");
            if !asset.starts_with("quiet") {
                decided.flowing_ms.push(late_ms);
            } else if line.text("status") != "PASS" && silent.insert(asset.to_owned()) {
                // Its window closes when it was waited for.
                decided.silent_ms.push(late_ms - IDLE_SEC as f64 * 1e3);
            }
        }
        Ok(decided)
    }
}

fn rows(decided: &Decided, heard: &[Heard]) -> Result<Vec<Row>> {
    let mut alert_ms = Vec::new();
    for heard in heard {
        let alert: Value = serde_json::from_slice(&heard.body).context("an alert")?;
        let durable = alert["decision"].as_str().and_then(|hash| decided.durable.get(hash)).context("its decision")?;
        alert_ms.push(Timestamp::try_from(heard.at)?.duration_since(*durable).as_secs_f64() * 1e3);
    }
    let (mut flowing_ms, mut silent_ms) = (decided.flowing_ms.clone(), decided.silent_ms.clone());
    let median = |name: &str, ms: &mut [f64]| Row::told(name, format!("{:.1} ms", quantile(ms, 0.5)));
    Ok(vec![
        Row::at_least("alerts", alert_ms.len() as f64, ALERTS, ""),
        median("decision durable to alert received, median", &mut alert_ms),
        Row::below("decision durable to alert received, p99", quantile(&mut alert_ms, 0.99), ALERT_MS, "ms"),
        Row::told("decision durable to alert received, longest", format!("{:.1} ms", quantile(&mut alert_ms, 1.0))),
        Row::told("windows of machines that report", flowing_ms.len().to_string()),
        median("end of window to decision durable, median", &mut flowing_ms),
        Row::below("end of window to decision durable, longest", quantile(&mut flowing_ms, 1.0), TICK_MS, "ms"),
        Row::exactly("windows of machines that fell silent", silent_ms.len() as u64, QUIET),
        median("closed by the clock to decision durable, median", &mut silent_ms),
        Row::below("closed by the clock to decision durable, longest", quantile(&mut silent_ms, 1.0), TICK_MS, "ms"),
    ])
}

fn config(broker_port: u16, sink_port: u16) -> String {
    format!(
        "program: bench
state: ./state
require_signed: false
http: {{ listen: \"127.0.0.1:0\" }}
sources:
  - name: m
    plugin: mqtt
    transport:
      mqtt:
        broker: tcp://127.0.0.1:{broker_port}
        topics: [plant/#]
        client_id: latency
        in_flight_window: 1000
    normalizer: n
normalizers:
  - name: n
    plugin: schema-map
    settings: {{ version: 1, timestamp: {{ field: t }}, labels: {{ asset: {{ field: a }} }}, layout: wide }}
sinks:
  - name: pager
    plugin: webhook
    deliver: [alerts]
    settings: {{ url: \"http://127.0.0.1:{sink_port}/\" }}
    grants: {{ http: [{{ url: \"http://127.0.0.1:{sink_port}/\", methods: [POST] }}] }}
checks:
  - id: c
    window_sec: 1
    rules: [{{ rule: drift.robust_z, params: {{ warn: 6, fail: 10, k: 1, n: 1 }} }}]
schedule: {{ baseline_tag: golden, first_baseline_after_sec: {LEARN_SEC} }}
event_time: {{ idle_sec: {IDLE_SEC} }}
severity: {{ rule: alert.severity }}
evidence: {{ on_fail: false }}
"
    )
}
