//! A day of telemetry goes by faster than time, with caps that a day exceeds many times.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::broker::Broker;
use super::daemon::Daemon;
use super::ground::Ground;
use super::load::{BEGIN_SEC, noise, publish};
use super::process;
use super::row::{Row, grouped};

/// How much faster than time by default: a day in a quarter of an hour.
pub(super) const SPEED: u32 = 100;

/// What can be asked for: below, a day takes a day; above, the broker is what is measured.
pub(super) const SPEEDS: RangeInclusive<u32> = 1..=2_000;

const DAY_SEC: u64 = 86_400;

/// Machines; each reports three numbers every ten seconds.
const ASSETS: u64 = 20;
const RECORDS_PER_SEC: u64 = 2;

/// In each hour one machine is ill for so long, s.
const ILL_SEC: u64 = 600;

/// Caps, MiB.
const STATE_MB: u64 = 16;
const REPORTS_MB: u64 = 4;
const LOG_MB: u64 = 2;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Growth of resident memory over the last three quarters, MB per hour of the day: at most 12 MB a day more would be
/// seen within a week, and less is the allocator's noise.
const SLOPE_MB: f64 = 0.5;

/// How much larger than its rows a file may be: pages in use by readers, and those that wait to be used again.
const FILE_SHARE: f64 = 1.1;

/// A look at the daemon.
struct Look {
    /// Hour of the day.
    hour: f64,
    memory_mb: f64,
}

/// The largest of what has a cap, bytes.
#[derive(Default)]
struct Largest {
    state: u64,
    file: u64,
    log: u64,
    reports: u64,
}

pub(super) fn run(ground: &Ground, speed: u32) -> Result<Vec<Row>> {
    let dir = ground.dir("day")?;
    let broker = Broker::start(&dir, 1_000)?;
    fs::write(dir.join("hb.yaml"), config(broker.port))?;
    let mut daemon = Daemon::start(ground, &dir, "hb=warn", &[])?;
    daemon.wait_until_ready()?;

    let (publisher, enough) = (broker.publisher("plant/m")?, AtomicBool::new(false));
    let (mut looks, mut largest, began) = (Vec::new(), Largest::default(), Instant::now());
    let sent = std::thread::scope(|threads| {
        let sender = threads.spawn(|| publish(publisher, RECORDS_PER_SEC * u64::from(speed), &enough, record));
        let looked = watch(ground, &dir, &daemon, speed, began, &mut looks, &mut largest);
        enough.store(true, Ordering::Relaxed);
        let sent = sender.join().map_err(|_| anyhow!("the sender"))?;
        looked.and(sent)
    })?;
    let last = daemon
        .wait_until("the end of the day", |m| m.sum("hb_frames_total") >= sent && m.sum("hb_queue_depth") == 0)?;
    let took = began.elapsed();
    largest.look(ground, &dir)?;
    daemon.lines();
    daemon.end()?;
    let verified = ground.json(&dir, &["log", "verify", "--key", "state/keys/host.pub"])?;

    let slope = slope(looks.iter().filter(|look| look.hour >= 6.0));
    let peak = looks.iter().map(|look| look.memory_mb).fold(0.0, f64::max);
    let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(vec![
        Row::told("speed reached", format!("{:.0}", DAY_SEC as f64 / took.as_secs_f64())),
        Row::told("records", grouped(sent)),
        Row::told("decisions", grouped(last.sum("hb_decisions_total"))),
        Row::told("cases", grouped(last.sum("hb_cases_total"))),
        Row::told("most memory", format!("{peak:.0} MB")),
        Row::below("growth of memory over the last 18 hours, per hour of the day", slope, SLOPE_MB, "MB"),
        Row::below("largest state", mb(largest.state), STATE_MB as f64, "MiB"),
        Row::below("largest file of the state", mb(largest.file), STATE_MB as f64 * FILE_SHARE, "MiB"),
        Row::below("largest log", mb(largest.log), LOG_MB as f64, "MiB"),
        Row::below("largest directory of packs", mb(largest.reports), REPORTS_MB as f64, "MiB"),
        Row::exactly("samples shed", last.sum("hb_shed_samples_total"), 0),
        Row::told("entries of the log, all verified", grouped(verified["size"].as_u64().context("size")?)),
        Row::told("of them pruned", grouped(verified["pruned"].as_u64().unwrap_or(0))),
    ])
}

/// Looks again and again until the day is over.
fn watch(
    ground: &Ground,
    dir: &Path,
    daemon: &Daemon,
    speed: u32,
    began: Instant,
    looks: &mut Vec<Look>,
    largest: &mut Largest,
) -> Result<()> {
    loop {
        let hour = began.elapsed().as_secs_f64() * f64::from(speed) / 3_600.0;
        if hour >= 24.0 {
            return Ok(());
        }
        looks.push(Look { hour, memory_mb: process::resident_mb(daemon.pid())? });
        largest.look(ground, dir)?;
        std::thread::sleep(LOOK);
    }
}

impl Largest {
    fn look(&mut self, ground: &Ground, dir: &Path) -> Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let usage = &ground.json(dir, &["status"])?["usage"];
        let bytes = |key: &str| usage[key].as_u64().with_context(|| key.to_owned());
        self.state = self.state.max(bytes("state_bytes")?);
        self.log = self.log.max(bytes("log_bytes")?);
        // What it takes on the disk, in blocks of 512 bytes.
        self.file = self.file.max(fs::metadata(dir.join("state/hb.redb"))?.blocks() * 512);
        self.reports = self.reports.max(size_of_dir(&dir.join("evidence_packs")));
        Ok(())
    }
}

/// Bytes of all files below a directory; one that goes meanwhile has none.
fn size_of_dir(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let each = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size_of_dir(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    each.sum()
}

/// MB per hour, by least squares.
fn slope<'l>(looks: impl Iterator<Item = &'l Look> + Clone) -> f64 {
    let n = looks.clone().count() as f64;
    let mean = |of: &dyn Fn(&Look) -> f64| looks.clone().map(of).sum::<f64>() / n;
    let (hour, memory) = (mean(&|l| l.hour), mean(&|l| l.memory_mb));
    let along = looks.clone().map(|l| (l.hour - hour) * (l.memory_mb - memory)).sum::<f64>();
    along / looks.clone().map(|l| (l.hour - hour).powi(2)).sum::<f64>()
}

/// The `n`th record of the day.
fn record(n: u64) -> String {
    let (sec, ms) = (n / RECORDS_PER_SEC, n % RECORDS_PER_SEC * 1_000 / RECORDS_PER_SEC);
    let asset = n % ASSETS;
    let is_ill = sec / 3_600 % ASSETS == asset && (1_800..1_800 + ILL_SEC).contains(&(sec % 3_600));
    let temp = 70.0 + noise(n) + if is_ill { 30.0 } else { 0.0 };
    let (rpm, kw) = (2_950.0 + 20.0 * noise(n + 1), 1.2 + noise(n + 2) / 8.0);
    let sec = BEGIN_SEC + sec;
    format!("{{\"t\":{sec}.{ms:03},\"a\":\"m{asset:02}\",\"temp\":{temp:.2},\"rpm\":{rpm:.1},\"kw\":{kw:.3}}}")
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
        client_id: day
        in_flight_window: 1000
    normalizer: n
normalizers:
  - name: n
    plugin: schema-map
    settings: {{ version: 1, timestamp: {{ field: t }}, labels: {{ asset: {{ field: a }} }}, layout: wide }}
sinks:
  - {{ name: out, plugin: jsonl, output: {{ file: /dev/null }} }}
checks:
  - id: minute
    window_sec: 60
    rules:
      - {{ rule: drift.robust_z, params: {{ warn: 6, fail: 10, k: 2, n: 3 }} }}
      - rule: drift.missing
  - {{ id: hour, window_sec: 3600, every_sec: 300, rules: [{{ rule: drift.robust_z }}] }}
schedule: {{ rolling_baseline: {{ window_sec: 3600, every_sec: 1800 }} }}
severity: {{ rule: alert.severity }}
limits: {{ max_state_mb: {STATE_MB}, max_report_dir_mb: {REPORTS_MB}, max_audit_log_mb: {LOG_MB} }}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_growth_per_hour() {
        let looks: Vec<Look> =
            (0..10).map(|i| Look { hour: f64::from(i), memory_mb: 40.0 + 0.25 * f64::from(i) }).collect();
        assert!((slope(looks.iter()) - 0.25).abs() < 1e-9);
    }

    #[test]
    fn one_machine_is_ill_in_each_hour() {
        let ill = |sec: u64, asset: u64| record(sec * RECORDS_PER_SEC + asset).contains("\"temp\":10");
        // Second 1,800 begins with machine 0.
        assert!(ill(1_800, 0) && !ill(1_800, 1) && !ill(1_790, 0) && !ill(2_400, 0));
    }
}
