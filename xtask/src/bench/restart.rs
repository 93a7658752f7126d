//! A daemon that is killed under load, again and again: how long until it stores new telemetry.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::broker::Broker;
use super::daemon::Daemon;
use super::ground::Ground;
use super::load::{BEGIN_SEC, noise, publish};
use super::row::{Row, quantile};

const KILLS: usize = 20;

/// Messages a second, each with three samples.
const RATE: u64 = 2_000;

/// Machines that report in turn.
const ASSETS: u64 = 20;

/// Messages on their way from the broker at a time.
const IN_FLIGHT: u32 = 1_000;

/// The first life, and how long the others are: from little to replay to nearly as much as there can be.
const FIRST: Duration = Duration::from_secs(20);
const LIFE_MS: std::ops::Range<u64> = 500..9_000;

/// From exec to the first new record stored.
const RESUME_MS: f64 = 2_000.0;

pub(super) fn run(ground: &Ground) -> Result<Vec<Row>> {
    let dir = ground.dir("restart")?;
    let broker = Broker::start(&dir, IN_FLIGHT)?;
    fs::write(dir.join("hb.yaml"), config(broker.port))?;
    let mut daemon = Daemon::start(ground, &dir, TALK, &[])?;
    daemon.wait_until_ready()?;
    let (publisher, enough) = (broker.publisher("plant/m")?, AtomicBool::new(false));
    std::thread::scope(|threads| {
        let sender = threads.spawn(|| publish(publisher, RATE, &enough, message));
        std::thread::sleep(FIRST);
        let lives = lives(ground, &dir, daemon);
        enough.store(true, Ordering::Relaxed);
        let sent = sender.join().map_err(|_| anyhow!("the sender"))??;
        let (mut resumed_ms, last) = lives?;
        last.wait_until("what was sent", |m| {
            m.sum("hb_queue_depth") == 0 && m.sum("hb_transport_unacknowledged") == 0
        })?;
        last.end()?;
        ground.done(&dir, &["log", "verify", "--key", "state/keys/host.pub"])?;
        let frames = ground.json(&dir, &["status"])?["counters"]["frames"].as_u64().unwrap_or(0);
        Ok(vec![
            Row::exactly("messages stored of those sent", frames, sent),
            Row::told(
                "exec to the first new record stored, median",
                format!("{:.0} ms", quantile(&mut resumed_ms, 0.5)),
            ),
            Row::below(
                &format!("exec to the first new record stored, longest of {KILLS}"),
                quantile(&mut resumed_ms, 1.0),
                RESUME_MS,
                "ms",
            ),
        ])
    })
}

const TALK: &str = "hb=info,hb::pipeline::record=debug";

/// Kills and starts; the times it took, ms, and the last daemon.
fn lives(ground: &Ground, dir: &std::path::Path, mut daemon: Daemon) -> Result<(Vec<f64>, Daemon)> {
    let mut resumed_ms = Vec::new();
    for n in 0..KILLS {
        daemon.kill()?;
        daemon = Daemon::start(ground, dir, TALK, &[])?;
        let samples = |line: &super::daemon::Line| line.number("samples").filter(|n| *n > 0);
        daemon
            .wait_for("a commit with samples", |line| samples(line).filter(|_| line.text("message") == "committing"))?;
        let stored = daemon.wait_for_message("committed")?;
        resumed_ms.push((stored - daemon.began).as_secs_f64() * 1e3);
        let span = LIFE_MS.end - LIFE_MS.start;
        std::thread::sleep(Duration::from_millis(LIFE_MS.start + (noise(n as u64) * span as f64) as u64));
    }
    Ok((resumed_ms, daemon))
}

fn message(n: u64) -> String {
    let (sec, ms) = (BEGIN_SEC + n / RATE, n % RATE * 1_000 / RATE);
    let (temp, rpm, kw) = (70.0 + noise(n), 2_950.0 + 20.0 * noise(n + 1), 1.2 + noise(n + 2) / 8.0);
    format!("{{\"t\":{sec}.{ms:03},\"a\":\"m{:02}\",\"temp\":{temp:.2},\"rpm\":{rpm:.1},\"kw\":{kw:.3}}}", n % ASSETS)
}

fn config(broker_port: u16) -> String {
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
        client_id: killed
        in_flight_window: {IN_FLIGHT}
    normalizer: n
normalizers:
  - name: n
    plugin: schema-map
    settings: {{ version: 1, timestamp: {{ field: t }}, labels: {{ asset: {{ field: a }} }}, layout: wide }}
checks:
  - {{ id: c, window_sec: 60, every_sec: 10, rules: [{{ rule: drift.missing }}] }}
evidence: {{ on_fail: false }}
"
    )
}
