//! A million messages as fast as they go, half of them over a stream and half from a broker, and a disk that is slow.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::broker::{Broker, free_port};
use super::daemon::Daemon;
use super::ground::Ground;
use super::load::Lines;
use super::process;
use super::row::{Row, grouped};
use super::stored::Stored;

/// Messages on each of the two ways.
const MESSAGES: u64 = 500_000;

/// What else stands in a line, bytes: lines are as long as those of real systems.
const PADDING: usize = 150;

/// How long each sync takes more, ms: a worn memory card.
const SYNC_MS: &str = "100";

/// Messages on their way from the broker at a time: with its own limit of 20 it would take an hour.
const IN_FLIGHT: u32 = 2_000;

/// Most memory ever used, MB.
const PEAK_MB: f64 = 200.0;

/// Lines that are written at once.
const CHUNK: u64 = 100;

/// Messages of one publisher: mosquitto_pub takes an acknowledgement for that of its last message when that one's number
/// of 16 bits was used before.
const PUBLISHED: u64 = 50_000;

/// How long nothing is to be done any more before it is over: a broker that holds more sends it meanwhile. Counts alone
/// say too little, as a message that came twice stands for one that has not come.
const QUIET: Duration = Duration::from_secs(1);

pub(super) fn run(ground: &Ground) -> Result<Vec<Row>> {
    let dir = ground.dir("burst")?;
    let (broker, port) = (Broker::start(&dir, IN_FLIGHT)?, free_port()?);
    fs::write(dir.join("hb.yaml"), config(broker.port, port))?;
    let library = ground.slow_disk(&dir)?;
    let library = library.to_str().context("a path that is no text")?;
    let slow = [("LD_PRELOAD", library), ("HB_TEST_SYNC_MS", SYNC_MS)];
    let mut daemon = Daemon::start(ground, &dir, "hb=info", &slow)?;
    daemon.wait_until_ready()?;

    let began = Instant::now();
    std::thread::scope(|threads| -> Result<()> {
        let lines = threads.spawn(|| stream(port));
        let messages = threads.spawn(|| publish(&broker));
        for sender in [lines, messages] {
            sender.join().map_err(|_| anyhow!("a sender"))??;
        }
        Ok(())
    })?;
    let sent_sec = began.elapsed().as_secs_f64();
    let mut quiet_since = None;
    daemon.wait_until("the burst", |m| {
        let of_broker = |name: &str| m.of_source(name, "m");
        let is_idle = of_broker("hb_transport_unacknowledged") == 0 && m.sum("hb_queue_depth") == 0;
        let has_all = m.sum("hb_samples_total") >= 2 * MESSAGES && of_broker("hb_transport_connected") == 1;
        quiet_since = (has_all && is_idle).then(|| quiet_since.unwrap_or_else(Instant::now));
        quiet_since.is_some_and(|since| since.elapsed() >= QUIET)
    })?;
    let durable_sec = quiet_since.map_or(0.0, |since| since.duration_since(began).as_secs_f64());
    let peak_mb = process::peak_mb(daemon.pid())?;
    daemon.end()?;

    let stored = Stored::read(ground, &dir)?;
    let of = |name: &str| stored.get(name).copied().unwrap_or_default();
    ground.done(&dir, &["log", "verify", "--key", "state/keys/host.pub"])?;
    let mut rows = vec![
        Row::told("messages", grouped(2 * MESSAGES)),
        Row::told("taken by stream and broker after", format!("{sent_sec:.0} s")),
        Row::told("durable after", format!("{durable_sec:.0} s")),
        Row::below("most memory", peak_mb, PEAK_MB, "MB"),
    ];
    rows.extend(of("tcp").rows("TCP", MESSAGES));
    rows.extend(of("mqtt").rows("MQTT", MESSAGES));
    Ok(rows)
}

/// Writes all lines as fast as they are taken.
fn stream(port: u16) -> Result<()> {
    let (mut stream, lines) = (TcpStream::connect(("127.0.0.1", port))?, lines("tcp"));
    for first in (0..MESSAGES).step_by(CHUNK as usize) {
        let text: String = (first..first + CHUNK).map(|n| lines.syslog(n) + "\n").collect();
        stream.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Publishes all messages as fast as the broker acknowledges them.
fn publish(broker: &Broker) -> Result<()> {
    let lines = lines("mqtt");
    for begin in (0..MESSAGES).step_by(PUBLISHED as usize) {
        let mut publisher = broker.publisher("plant/m")?;
        let stdin = publisher.lines()?;
        for first in (begin..begin + PUBLISHED).step_by(CHUNK as usize) {
            let text: String = (first..first + CHUNK).map(|n| lines.json(n) + "\n").collect();
            stdin.write_all(text.as_bytes())?;
        }
        publisher.end()?;
    }
    Ok(())
}

fn lines(field: &'static str) -> Lines {
    Lines { field, rate: 500, padding: PADDING }
}

fn config(broker_port: u16, port: u16) -> String {
    format!(
        "program: bench
state: ./state
require_signed: false
http: {{ listen: \"127.0.0.1:0\" }}
sources:
  - {{ name: t, plugin: syslog, transport: {{ socket: {{ listen: \"tcp://127.0.0.1:{port}\" }} }}, normalizer: n }}
  - name: m
    plugin: mqtt
    transport:
      mqtt:
        broker: tcp://127.0.0.1:{broker_port}
        topics: [plant/#]
        client_id: burst
        in_flight_window: {IN_FLIGHT}
    normalizer: n
normalizers:
  - name: n
    plugin: schema-map
    settings:
      version: 1
      unmapped: ignore
      sources: {{ syslog: {{ patterns: [{{ match: 'tcp=(?<tcp>[0-9]+)', field: msg }}] }} }}
      field_mapping: {{ tcp: {{ metric: tcp }}, mqtt: {{ metric: mqtt }} }}
checks:
  - {{ id: c, window_sec: 10, rules: [{{ rule: drift.missing }}] }}
evidence: {{ on_fail: false }}
"
    )
}
