//! A daemon with one source and one sink that waits: its first start, which compiles its plugins, and the next one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::broker::Broker;
use super::daemon::Daemon;
use super::ground::Ground;
use super::process;
use super::receiver;
use super::row::Row;

/// After the start, until it counts as idle; and for how long it is looked at then.
const SPAN: Duration = Duration::from_mins(1);

/// Resident memory, MB.
const MEMORY_MB: f64 = 60.0;

/// Share of one core, percent.
const CPU_PERCENT: f64 = 1.0;

pub(super) fn run(ground: &Ground) -> Result<Vec<Row>> {
    let dir = ground.dir("idle")?;
    let broker = Broker::start(&dir, 20)?;
    let (sink, _heard) = receiver::start()?;
    fs::write(dir.join("hb.yaml"), config(broker.port, sink))?;
    let mut rows = Vec::new();
    for start in ["first start", "next start"] {
        rows.extend(look(ground, &dir, start)?);
    }
    Ok(rows)
}

fn look(ground: &Ground, dir: &Path, start: &str) -> Result<Vec<Row>> {
    let mut daemon = Daemon::start(ground, dir, "hb=info", &[])?;
    daemon.wait_until_ready()?;
    std::thread::sleep(SPAN.saturating_sub(daemon.began.elapsed()));
    let (pid, memory_mb) = (daemon.pid(), process::resident_mb(daemon.pid())?);
    let (cpu_sec, switches) = (process::cpu_sec(pid)?, process::wake_ups(pid)?);
    std::thread::sleep(SPAN);
    let span_sec = SPAN.as_secs_f64();
    let percent = (process::cpu_sec(pid)? - cpu_sec) / span_sec * 100.0;
    let wake_ups = (process::wake_ups(pid)? - switches) as f64 / span_sec;
    let memory_mb = memory_mb.max(process::resident_mb(pid)?);
    daemon.end()?;
    Ok(vec![
        Row::below(&format!("{start}: resident memory"), memory_mb, MEMORY_MB, "MB"),
        Row::below(&format!("{start}: share of one core"), percent, CPU_PERCENT, "%"),
        Row::told(&format!("{start}: wake-ups per second"), format!("{wake_ups:.0}")),
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
    transport: {{ mqtt: {{ broker: \"tcp://127.0.0.1:{broker_port}\", topics: [plant/#], client_id: idle }} }}
    normalizer: n
normalizers:
  - name: n
    plugin: schema-map
    settings: {{ version: 1, timestamp: {{ field: t }}, labels: {{ asset: {{ field: a }} }}, layout: wide }}
sinks:
  - name: pager
    plugin: webhook
    settings: {{ url: \"http://127.0.0.1:{sink_port}/\" }}
    grants: {{ http: [{{ url: \"http://127.0.0.1:{sink_port}/\", methods: [POST] }}] }}
checks:
  - {{ id: c, window_sec: 10, rules: [{{ rule: drift.missing }}] }}
severity: {{ rule: alert.severity }}
"
    )
}
