//! Changes of policy, normalizer and config, good ones and broken ones, while telemetry comes on three transports.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::broker::{Broker, free_port};
use super::daemon::Daemon;
use super::ground::Ground;
use super::load::Lines;
use super::process;
use super::row::{Row, quantile};
use super::stored::Stored;

const SPAN: Duration = Duration::from_mins(2);

/// Changes altogether; one in five is broken.
const CHANGES: u32 = 50;

/// Lines a second on each of three transports.
const RATE: u64 = 6_667;

/// What all three together are promised to be.
const RATE_ALL: f64 = 20_000.0;

/// Messages on their way from the broker at a time: at this rate its own limit of 20 would be what is measured.
const IN_FLIGHT: u32 = 1_000;

/// A config that stays good, for questions: they read one too, and the daemon's may be broken just now.
const ASK: &str = "ask.yaml";

const RULE: &str = "policies/drift/robust_z.luau";

/// What a config says that changes.
#[derive(Default)]
struct Variant {
    warn: u32,
    spare: u32,
    commit_ms: u32,
}

/// What came of the changes.
#[derive(Default)]
struct Changed {
    /// Answers that were not the truth.
    lies: u64,
    /// From the file being written to the answer, ms.
    active_ms: Vec<f64>,
}

struct Plant<'g> {
    ground: &'g Ground,
    dir: &'g Path,
    broker_port: u16,
    port: u16,
}

pub(super) fn run(ground: &Ground) -> Result<Vec<Row>> {
    let dir = ground.dir("reload")?;
    let broker = Broker::start(&dir, IN_FLIGHT)?;
    let plant = Plant { ground, dir: &dir, broker_port: broker.port, port: free_port()? };
    fs::create_dir_all(dir.join("policies/drift"))?;
    fs::copy(ground.root.join("policies/drift/robust_z.luau"), dir.join(RULE))?;
    for name in ["hb.yaml", ASK] {
        fs::write(dir.join(name), plant.config(&Variant::default()))?;
    }
    let mut daemon = Daemon::start(ground, &dir, "hb=info", &[])?;
    daemon.wait_until_ready()?;

    let (publisher, enough, port) = (broker.publisher("plant/m")?, AtomicBool::new(false), plant.port);
    let lines = |field| Lines { field, rate: RATE, padding: 0 };
    let (changed, took, sent) = std::thread::scope(|threads| -> Result<_> {
        let tcp = threads.spawn(|| lines("tcp").to_tcp(port, &enough));
        let udp = threads.spawn(|| lines("udp").to_udp(port, &enough));
        let mqtt = threads.spawn(|| lines("mqtt").to_broker(publisher, &enough));
        let began = Instant::now();
        let changed = plant.change_often(began);
        let took = began.elapsed();
        enough.store(true, Ordering::Relaxed);
        let [tcp, udp, mqtt] = [tcp, udp, mqtt].map(|sender| sender.join().map_err(|_| anyhow::anyhow!("a sender")));
        Ok((changed?, took, [tcp??, udp??, mqtt??]))
    })?;
    let [tcp, udp, mqtt] = sent;
    let dropped = process::udp_drops(port)?;
    let last = daemon.wait_until("what was sent", |m| {
        m.sum("hb_samples_total") + m.sum("hb_rejects_total") >= tcp + mqtt + udp - dropped
            && m.sum("hb_queue_depth") == 0
    })?;
    let mut stalls_ms = Vec::new();
    for line in daemon.lines().iter().filter(|line| line.text("message") == "generation is active") {
        stalls_ms.push(line.number("stalled_us").context("stalled_us")? as f64 / 1e3);
    }
    daemon.end()?;

    let stored = Stored::read(ground, &dir)?;
    let of = |name: &str| stored.get(name).copied().unwrap_or_default();
    let mut active_ms = changed.active_ms;
    let good = u64::from(CHANGES - CHANGES / 5);
    let mut rows = vec![
        Row::at_least("records sent per second", (tcp + udp + mqtt) as f64 / took.as_secs_f64(), RATE_ALL * 0.99, ""),
        Row::told("sent over TCP, UDP, MQTT", format!("{tcp}, {udp}, {mqtt}")),
    ];
    rows.extend(of("tcp").rows("TCP", tcp));
    rows.extend(of("mqtt").rows("MQTT", mqtt));
    let (of_udp, rejected) = (of("udp"), last.of_source("hb_rejects_total", "u"));
    rows.push(Row::told("dropped by the kernel on UDP", dropped.to_string()));
    rows.push(Row::exactly(
        "UDP: stored + rejected + dropped by the kernel",
        of_udp.distinct + rejected + dropped,
        udp,
    ));
    rows.push(Row::exactly("doubled on UDP", of_udp.values - of_udp.distinct, 0));
    rows.push(Row::exactly("answers that were not true", changed.lies, 0));
    rows.push(Row::exactly("good changes that were active", stalls_ms.len() as u64, good));
    rows.push(Row::told("written to active, median", format!("{:.0} ms", quantile(&mut active_ms, 0.5))));
    rows.push(Row::below("written to active, longest", quantile(&mut active_ms, 1.0), 1_000.0, "ms"));
    rows.push(Row::told("stall, median", format!("{:.1} ms", quantile(&mut stalls_ms, 0.5))));
    rows.push(Row::below("stall, p99", quantile(&mut stalls_ms, 0.99), 20.0, "ms"));
    let name = |q: &str| format!("hb_commit_latency_quantile_seconds{{quantile=\"{q}\"}}");
    let [median, p99] = ["0.5", "0.99"].map(|q| last.of(&name(q)) * 1e3);
    rows.push(Row::told("any commit, median and p99", format!("{median:.1} and {p99:.1} ms")));
    ground.done(&dir, &["log", "verify", "--key", "state/keys/host.pub", "--config", ASK])?;
    Ok(rows)
}

impl Plant<'_> {
    /// Makes all changes, spread over the span.
    fn change_often(&self, began: Instant) -> Result<Changed> {
        let mut changed = Changed::default();
        for n in 1..=CHANGES {
            let due = began + SPAN * n / (CHANGES + 1);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.change(n, &mut changed).with_context(|| format!("change {n}"))?;
        }
        std::thread::sleep((began + SPAN).saturating_duration_since(Instant::now()));
        Ok(changed)
    }

    /// Makes the `n`th change and looks whether the answer is the truth.
    fn change(&self, n: u32, changed: &mut Changed) -> Result<()> {
        let before = self.active()?;
        let good = |variant: &Variant| self.config(variant);
        let text = match n % 5 {
            0 => {
                let plain = good(&Variant::default());
                let broken = match n / 5 % 5 {
                    0 => "program: [".to_owned(),
                    1 => plain.replace("plugin: schema-map", "plugin: no-such"),
                    2 => plain.replace("warn:", "wran:"),
                    3 => plain.replace("unmapped: ignore", "unmapped: what"),
                    _ => plain.replace("window_sec: 10", "window_sec: -1"),
                };
                fs::write(self.dir.join("hb.yaml"), broken)?;
                let answer = self.ground.hb(self.dir).args(["reload", "--state", "state"]).output()?;
                let has_place = String::from_utf8_lossy(&answer.stderr).contains("--> ");
                let is_true = answer.status.code() == Some(78) && has_place && self.active()? == before;
                changed.lies += u64::from(!is_true);
                return Ok(());
            }
            1 => good(&Variant { warn: n, ..Variant::default() }),
            2 => good(&Variant { spare: n, ..Variant::default() }),
            3 => {
                let rule = self.dir.join(RULE);
                let changed_rule = format!("{}-- Change {n}.\n", fs::read_to_string(&rule)?);
                fs::write(rule, changed_rule)?;
                good(&Variant::default())
            }
            _ => good(&Variant { commit_ms: n, warn: n, spare: n }),
        };
        fs::write(self.dir.join("hb.yaml"), text)?;
        let began = Instant::now();
        let answer = self.ground.json(self.dir, &["reload", "--state", "state", "--reason", &format!("change {n}")])?;
        changed.active_ms.push(began.elapsed().as_secs_f64() * 1e3);
        let now = self.active()?;
        changed.lies += u64::from(answer["generation"].as_str() != Some(&now) || now == before);
        Ok(())
    }

    /// The name of what runs, as the daemon says it.
    fn active(&self) -> Result<String> {
        let list = self.ground.json(self.dir, &["generation", "list", "--config", ASK])?;
        let active = list.as_array().and_then(|lines| lines.iter().find(|line| line["active"] == true));
        let name = active.and_then(|line| line["generation"].as_str()).context("nothing is active")?;
        ensure!(!name.is_empty(), "the active generation has no name");
        Ok(name.to_owned())
    }

    fn config(&self, variant: &Variant) -> String {
        let Plant { broker_port, port, .. } = self;
        let Variant { warn, spare, commit_ms } = variant;
        let (warn, commit_ms) = (6 + warn, 100 + commit_ms);
        format!(
            "program: bench
state: ./state
require_signed: false
policies_dir: ./policies
http: {{ listen: \"127.0.0.1:0\" }}
sources:
  - {{ name: u, plugin: syslog, transport: {{ socket: {{ listen: \"udp://127.0.0.1:{port}\" }} }}, normalizer: n }}
  - {{ name: t, plugin: syslog, transport: {{ socket: {{ listen: \"tcp://127.0.0.1:{port}\" }} }}, normalizer: n }}
  - name: m
    plugin: mqtt
    transport:
      mqtt:
        broker: tcp://127.0.0.1:{broker_port}
        topics: [plant/#]
        client_id: changing
        in_flight_window: {IN_FLIGHT}
    normalizer: n
normalizers:
  - name: n
    plugin: schema-map
    settings:
      version: 1
      unmapped: ignore
      sources:
        syslog:
          patterns:
            - {{ match: 'tcp=(?<tcp>[0-9]+)', field: msg }}
            - {{ match: 'udp=(?<udp>[0-9]+)', field: msg }}
      field_mapping:
        tcp: {{ metric: tcp }}
        udp: {{ metric: udp }}
        mqtt: {{ metric: mqtt }}
        spare{spare}: {{ metric: spare }}
checks:
  - {{ id: c, window_sec: 10, baseline: golden, rules: [{{ rule: drift.robust_z, params: {{ warn: {warn}, fail: 1000 }} }}] }}
limits: {{ commit_ms: {commit_ms} }}
evidence: {{ on_fail: false }}
"
        )
    }
}
