//! Measures the way of telemetry inside one process; `cargo xtask bench` runs each case in a process of its own.
//!
//! `bench prepare DIR` writes telemetry and a config; `bench wasm|durable|native DIR` runs one case and prints one
//! line of JSON. What is loaded and learned before the first record is not measured. `bench stored DIR` says what numbers
//! the state of a live case holds.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hb::config::{ConfigFile, FileTransportConfig, Surroundings, TransportConfig};
use hb::generation::{Generation, policies_of};
use hb::keys::Signer;
use hb::pipeline::PipelineError;
use hb::pipeline::feed::{Feed, FeedLimits, Next};
use hb::pipeline::journal::{self, Row};
use hb::pipeline::once;
use hb::pipeline::record::{CommitLimits, Outcome, Recorder};
use hb::pipeline::series::SeriesBook;
use hb::pipeline::source::Watch;
use hb::policy::PolicySet;
use hb::state::{BaselineRow, Commit, Options, State};
use hb_engine::baseline::{Baseline, Builder};
use hb_engine::engine::{Effect, Engine, Input, Samples};
use hb_engine::series::{SeriesDef, SeriesKind};

/// Records of one run.
const RECORDS: u64 = 1_000_000;

/// Records the baseline is learned from: one minute.
const LEARN: u64 = 60_000;

/// Machines that report in turn.
const HOSTS: u64 = 100;

/// Records per second of event time: each machine reports ten times a second.
const RECORDS_PER_SEC: u64 = 1_000;

/// Clock ticks per second in `/proc/self/stat`; the kernel shows 100 on every machine.
const TICKS_PER_SEC: f64 = 100.0;

const CONFIG: &str = "\
program: bench
state: ./state
require_signed: false
asset_label: host
sources:
  - name: plant
    plugin: file-replay
    transport: { file: { path: records.jsonl } }
    settings: { format: jsonl }
    normalizer: plant
normalizers:
  - name: plant
    plugin: schema-map
    schema: telemetry_schema.yaml
checks:
  - id: drift
    window_sec: 60
    every_sec: 10
    baseline: golden
    metrics: [\"*\"]
    rules:
      - rule: drift.robust_z
";

const SCHEMA: &str = "\
version: 1
timestamp: { field: timestamp, format: rfc3339 }
labels:
  host: { field: host }
field_mapping:
  temp_f: { metric: temperature, unit: degC, from: degF }
  power_w: { metric: power, unit: kW, from: W }
  lat_ms: { metric: latency, unit: s, from: ms }
unmapped: reject
";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["prepare", dir] => prepare(Path::new(dir)),
        ["wasm", dir] => wasm(&Setup::load(Path::new(dir))?),
        ["durable", dir] => durable(&Setup::load(Path::new(dir))?),
        ["native", dir] => native(&Setup::load(Path::new(dir))?, Path::new(dir)),
        ["stored", dir] => stored(&Path::new(dir).join("state")),
        other => bail!("usage: bench prepare|wasm|durable|native|stored DIR, not {other:?}"),
    }
}

/// Telemetry, the same bytes each time, and a config for it.
fn prepare(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("hb.yaml"), CONFIG)?;
    fs::write(dir.join("telemetry_schema.yaml"), SCHEMA)?;
    for (name, records) in [("records.jsonl", RECORDS), ("learn.jsonl", LEARN)] {
        let mut out = BufWriter::new(File::create(dir.join(name))?);
        for n in 0..records {
            // Noise of three independent kinds; its quality does not matter, that it repeats does.
            let noise = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let part = |shift: u32| (noise >> shift & 0x3ff) as f64;
            let ms = n * 1_000 / RECORDS_PER_SEC;
            writeln!(
                out,
                r#"{{"timestamp":"2026-01-01T00:{:02}:{:02}.{:03}Z","host":"m{:04}","temp_f":{:.2},"power_w":{:.1},"lat_ms":{:.2}}}"#,
                ms / 60_000,
                ms / 1_000 % 60,
                ms % 1_000,
                n % HOSTS,
                160.0 + part(20) / 64.0,
                1_200.0 + part(34) / 16.0,
                12.0 + part(48) / 512.0,
            )?;
        }
        out.flush()?;
    }
    Ok(())
}

/// Everything a case needs before its first record.
struct Setup {
    file: ConfigFile,
    generation: Generation,
    limits: FeedLimits,
    baseline: Arc<Baseline>,
}

impl Setup {
    fn load(dir: &Path) -> Result<Setup> {
        let file = ConfigFile::load(&dir.join("hb.yaml"), &Surroundings::of_process())
            .map_err(|d| anyhow::anyhow!(d.render(false)))?;
        let generation = Generation::build(&file).map_err(|d| anyhow::anyhow!(d.render(false)))?;
        let limits = FeedLimits::of(&file.config);
        let baseline = Arc::new(learn(&generation, limits, &dir.join("learn.jsonl"))?);
        Ok(Setup { file, generation, limits, baseline })
    }

    fn engine(&self) -> Result<(Engine, PolicySet)> {
        let mut judge = policies_of(&self.generation.spec, &|hash| self.generation.blob(hash))?;
        let mut engine = Engine::new("bench", "live");
        engine.step(Input::Generation(Arc::clone(&self.generation.spec)), &mut judge);
        let baseline = Some((1, Arc::clone(&self.baseline)));
        engine.step(Input::Baseline { tag: "golden", baseline }, &mut judge);
        Ok((engine, judge))
    }
}

/// A baseline of the first minute.
fn learn(generation: &Generation, limits: FeedLimits, path: &Path) -> Result<Baseline> {
    let mut unit = generation.units[0].clone();
    let file = FileTransportConfig { path: path.to_owned(), follow: false };
    unit.transport = TransportConfig::File(file);
    let book = SeriesBook::default();
    let mut builder = Builder::new();
    run_feed(&unit, &book, limits, &mut |samples| {
        let defs = book.since(0);
        for i in 0..samples.series.len() {
            builder.push(&defs[samples.series[i] as usize], samples.time_ns[i], samples.value[i]);
        }
    })?;
    Ok(builder.build(vec!["learn".into()]))
}

/// Runs a unit to its end; returns its frames.
fn run_feed(
    unit: &hb::generation::Unit,
    book: &SeriesBook,
    limits: FeedLimits,
    each: &mut dyn FnMut(Samples<'_>),
) -> Result<u64> {
    let mut feed = Feed::start(unit, book, None, limits)?;
    let mut frames = 0;
    loop {
        match feed.next(Instant::now() + Duration::from_secs(1)) {
            Next::Batch(batch) => {
                frames += batch.frames.len() as u64;
                each(batch.columns.view(0, batch.columns.len()));
            }
            Next::Idle | Next::Swapped => {}
            Next::Ended => return Ok(frames),
            Next::Failed(e) => return Err(e.into()),
        }
    }
}

/// Source and normalizer as sandboxed plugins with their limits, windows and rules; nothing is stored.
fn wasm(setup: &Setup) -> Result<()> {
    let (mut engine, mut judge) = setup.engine()?;
    let book = SeriesBook::default();
    let (mut known, mut tally) = (0, Tally::default());
    let meter = Meter::start()?;
    tally.records = run_feed(&setup.generation.units[0], &book, setup.limits, &mut |samples| {
        for def in book.since(known) {
            engine.define(known as u32, def);
            known += 1;
        }
        tally.samples += samples.series.len() as u64;
        tally.take(&engine.step(Input::Samples(samples), &mut judge));
    })?;
    tally.take(&engine.step(Input::Seal { source: "plant" }, &mut judge));
    meter.print(&tally)
}

/// The same, and raw frames, journal, decisions and the signed log are durable in a state at the end.
fn durable(setup: &Setup) -> Result<()> {
    let dir = setup.file.path.parent().unwrap_or(Path::new(".")).join(format!("state-{}", std::process::id()));
    let signer = Signer::init(&dir)?;
    let state = State::open(&dir, Options::default())?;
    let program = setup.generation.program.clone();
    let commit = Commit {
        program: program.clone(),
        blobs: vec![(setup.baseline.hash(), setup.baseline.to_bytes())],
        baselines: vec![BaselineRow { version: 1, hash: setup.baseline.hash(), meta: Vec::new() }],
        tags: vec![("golden".into(), 1)],
        ..Commit::default()
    };
    state.commit(commit, &signer)?;
    let limits = CommitLimits::of(&setup.file.config, false);
    let meter = Meter::start()?;
    let mut recorder = Recorder::open(state, Arc::new(signer), &setup.generation, "live", limits)?;
    let mut count = Count::default();
    once::run(&mut recorder, &setup.generation.units, setup.limits, &|| false, &mut count)?;
    let counters: BTreeMap<String, u64> = recorder.state().reader()?.counters(&program, "live")?.into_iter().collect();
    for (name, n) in &counters {
        if name.starts_with("decisions.") {
            count.0.decisions += n;
        }
    }
    meter.print(&count.0)?;
    drop(recorder);
    fs::remove_dir_all(&dir)?;
    Ok(())
}

#[derive(Default)]
struct Count(Tally);

impl Watch for Count {
    fn committed(&mut self, _: &mut Recorder, _: Outcome) -> Result<(), PipelineError> {
        Ok(())
    }

    fn progress(&mut self, _: &str, frames: u64, samples: u64) {
        self.0.records += frames;
        self.0.samples += samples;
    }
}

/// A record as a program that knows its fields beforehand reads it.
#[derive(serde::Deserialize)]
struct Record<'a> {
    timestamp: &'a str,
    host: &'a str,
    temp_f: f64,
    power_w: f64,
    lat_ms: f64,
}

/// The same work without plugins and on one thread: what the sandbox costs is the difference.
fn native(setup: &Setup, dir: &Path) -> Result<()> {
    let (mut engine, mut judge) = setup.engine()?;
    let mut ids: HashMap<String, u32> = HashMap::new();
    let (mut ordinal, mut series, mut time_ns, mut value) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let batch = setup.limits.batch_frames as usize * 3;
    let mut tally = Tally::default();
    let meter = Meter::start()?;
    let mut input = BufReader::with_capacity(1 << 16, File::open(dir.join("records.jsonl"))?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let ended = input.read_until(b'\n', &mut line)? == 0;
        if ended || series.len() >= batch {
            let samples =
                Samples { source: "plant", ordinal: &ordinal, series: &series, time_ns: &time_ns, value: &value };
            tally.take(&engine.step(Input::Samples(samples), &mut judge));
            ordinal.clear();
            series.clear();
            time_ns.clear();
            value.clear();
        }
        if ended {
            break;
        }
        let r: Record<'_> = serde_json::from_slice(&line)?;
        let first = if let Some(&id) = ids.get(r.host) {
            id
        } else {
            let id = ids.len() as u32 * 3;
            for (k, (metric, unit)) in
                [("temperature", "degC"), ("power", "kW"), ("latency", "s")].into_iter().enumerate()
            {
                let labels = [("host".to_owned(), r.host.to_owned())];
                let def = SeriesDef::new(metric, unit, SeriesKind::Gauge, labels).map_err(anyhow::Error::msg)?;
                engine.define(id + k as u32, def);
            }
            ids.insert(r.host.to_owned(), id);
            id
        };
        let time = hb::clock::parse(r.timestamp).map_err(anyhow::Error::msg)?;
        for (k, v) in [(r.temp_f - 32.0) / 1.8, r.power_w / 1e3, r.lat_ms / 1e3].into_iter().enumerate() {
            ordinal.push(tally.records);
            series.push(first + k as u32);
            time_ns.push(time);
            value.push(v);
        }
        tally.records += 1;
        tally.samples += 3;
    }
    tally.take(&engine.step(Input::Seal { source: "plant" }, &mut judge));
    meter.print(&tally)
}

/// The whole numbers that the live lane of a state holds as samples, by metric: how many, how many different ones, and the
/// highest.
fn stored(state: &Path) -> Result<()> {
    let state = State::open(state, Options::default())?;
    let reader = state.reader()?;
    let mut metrics = BTreeMap::new();
    for (id, bytes) in reader.series("bench")? {
        metrics.insert(id, hb_log::cbor::decode::<SeriesDef>(&bytes)?.metric);
    }
    let mut values: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for row in reader.journal("bench", "live", 0)? {
        let Some(Row::Samples(columns)) = journal::decode(&row?.bytes) else { continue };
        for (series, value) in columns.series.iter().zip(&columns.value) {
            let metric = metrics.get(series).context("a series without a name")?;
            values.entry(metric).or_default().push(*value as u64);
        }
    }
    let mut told = serde_json::Map::new();
    for (metric, mut values) in values {
        let (all, max) = (values.len(), values.iter().max().copied());
        values.sort_unstable();
        values.dedup();
        told.insert(metric.to_owned(), serde_json::json!({ "values": all, "distinct": values.len(), "max": max }));
    }
    writeln!(std::io::stdout(), "{}", serde_json::Value::Object(told))?;
    Ok(())
}

/// What was done.
#[derive(Default)]
struct Tally {
    records: u64,
    samples: u64,
    decisions: u64,
}

impl Tally {
    fn take(&mut self, effects: &[Effect]) {
        self.decisions += effects.iter().filter(|e| matches!(e, Effect::Decision { .. })).count() as u64;
    }
}

/// Time and CPU time since it was made.
struct Meter {
    wall: Instant,
    cpu: f64,
}

impl Meter {
    fn start() -> Result<Meter> {
        Ok(Meter { wall: Instant::now(), cpu: cpu_sec()? })
    }

    fn print(&self, tally: &Tally) -> Result<()> {
        let (cpu, wall) = (cpu_sec()? - self.cpu, self.wall.elapsed().as_secs_f64());
        let line = serde_json::json!({
            "records": tally.records, "samples": tally.samples, "decisions": tally.decisions,
            "cpu_s": cpu, "wall_s": wall, "rss_kib": peak_rss_kib()?,
        });
        writeln!(std::io::stdout(), "{line}")?;
        Ok(())
    }
}

/// User and system time of all threads of this process so far.
fn cpu_sec() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The program's name may hold anything, so fields are counted behind its last parenthesis.
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS_PER_SEC)
}

fn peak_rss_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.split_whitespace().next().context("VmHWM")?.parse()?)
}
