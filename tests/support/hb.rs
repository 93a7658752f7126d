//! Runs the real `hb` in a directory of its own, with the built plugins, the shipped policies and simulated telemetry.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use hb::state::{DecisionFilter, Options, State};
use tempfile::TempDir;

/// The program of [`Hb::plant`]'s config.
pub(crate) const PROGRAM: &str = "plant";

/// Seconds of simulated telemetry that are clean: a baseline may be made from them.
pub(crate) const CLEAN_SEC: u64 = 300;

/// A child that says nothing for this long hangs.
const SILENCE: Duration = Duration::from_mins(1);

/// A child that has not said what it should after this long never will, however much it says.
const PATIENCE: Duration = Duration::from_mins(5);

/// The environment variable that names the file of [`note`].
const NOTES: &str = "HB_TEST_NOTES";

/// Where simulated telemetry begins.
const BEGIN: &str = "2026-01-01T00:00:00Z";

/// A directory with a config, and the `hb` that works in it.
pub(crate) struct Hb {
    dir: TempDir,
}

/// What a finished run of `hb` left.
#[derive(Debug)]
pub(crate) struct Output {
    /// Exit code; -1 when a signal ended it.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

/// How [`Hb::plant`] sets a plant up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plant {
    /// Frames handed to a plugin at once.
    pub(crate) batch_frames: u32,
    /// Normalizer workers.
    pub(crate) workers: u8,
    /// Samples per commit.
    pub(crate) commit_samples: u32,
    /// Whether a FAIL is packed.
    pub(crate) evidence: bool,
}

impl Default for Plant {
    fn default() -> Self {
        Plant { batch_frames: 1_024, workers: 1, commit_samples: 10_000, evidence: false }
    }
}

impl Hb {
    /// An empty directory.
    pub(crate) fn new() -> Hb {
        Hb { dir: tempfile::Builder::new().prefix("hb-test-").tempdir().unwrap() }
    }

    /// A directory with simulated telemetry, its schema, a config and a promoted baseline of the clean part.
    pub(crate) fn plant(plant: Plant, telemetry: &str) -> Hb {
        let hb = Hb::new();
        hb.write("telemetry.jsonl", telemetry);
        hb.write("telemetry_schema.yaml", SCHEMA);
        hb.write("hb.yaml", &config(plant));
        let clean = format!("artifacts@..{}", at(CLEAN_SEC));
        hb.done(&["ingest", "telemetry.jsonl", "--out", "artifacts"]);
        hb.done(&["baseline", "create", "--from", &clean]);
        hb.done(&["baseline", "promote", "--version", "1", "--tag", "golden"]);
        hb
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Writes a file, and the folders above it.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The `hb` command with its surroundings, not started.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hb"));
        command.args(args).current_dir(self.dir()).stdin(Stdio::null());
        surround(&mut command);
        command
    }

    /// Runs `hb` to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        Output::of(&mut self.command(args))
    }

    /// Runs `hb`, which must succeed.
    pub(crate) fn done(&self, args: &[&str]) -> Output {
        let output = self.run(args);
        assert_eq!(output.code, 0, "hb {}: {output:#?}", args.join(" "));
        output
    }

    /// Runs `hb --json`, which must succeed, and reads what it says.
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let output = self.done(&args);
        serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", output.stdout))
    }

    /// The bytes of all live decisions, in the order they were made.
    pub(crate) fn decisions(&self, program: &str) -> Vec<Vec<u8>> {
        let state = State::open(&self.path("state"), Options::default()).unwrap();
        let rows = state.reader().unwrap().decisions(program, "live", DecisionFilter::default()).unwrap();
        rows.map(|row| row.unwrap().bytes).collect()
    }

    /// The live counters.
    pub(crate) fn counters(&self, program: &str) -> Vec<(String, u64)> {
        let state = State::open(&self.path("state"), Options::default()).unwrap();
        state.reader().unwrap().counters(program, "live").unwrap()
    }
}

impl Output {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Output {
        let done = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Output { code: done.status.code().unwrap_or(-1), stdout: text(&done.stdout), stderr: text(&done.stderr) }
    }
}

/// A running `hb` and what it says on stderr; it is killed when the test ends, however it ends.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Running {
    /// Starts a command; its stdout goes nowhere.
    pub(crate) fn start(command: &mut Command) -> Running {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Nobody listens any more when a test has ended.
                let _ = sender.send(line);
            }
        });
        Running { child, lines, said: Vec::new() }
    }

    /// Waits until `nth` further lines hold `word`.
    pub(crate) fn wait_for(&mut self, word: &str, nth: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut left = nth;
        while left > 0 {
            let wait = SILENCE.min(deadline.saturating_duration_since(Instant::now()));
            match self.lines.recv_timeout(wait) {
                Ok(line) => {
                    left -= usize::from(line.contains(word));
                    self.said.push(line);
                }
                Err(e) => panic!("{e}: `{word}` did not come {nth} times in {:#?}", self.said),
            }
        }
    }

    /// All it has said so far, as far as it was waited for.
    pub(crate) fn said(&self) -> &[String] {
        &self.said
    }

    /// Waits for the next line, whatever it is, but not longer than `wait`.
    pub(crate) fn wait_for_any(&mut self, wait: Duration) {
        self.said.extend(self.lines.recv_timeout(wait));
    }

    /// Waits until `found` holds for a line.
    pub(crate) fn wait_for_line(&mut self, mut found: impl FnMut(&str) -> bool) {
        loop {
            match self.lines.recv_timeout(SILENCE) {
                Ok(line) => {
                    let done = found(&line);
                    self.said.push(line);
                    if done {
                        return;
                    }
                }
                Err(e) => {
                    panic!("{e}: the line did not come in {:#?}", self.said.iter().rev().take(20).collect::<Vec<_>>())
                }
            }
        }
    }

    /// Sends it a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Asks it to end by SIGTERM, which must succeed.
    pub(crate) fn end(&mut self) {
        self.signal("TERM");
        self.wait();
    }

    /// Waits until it has ended, which must be with success.
    pub(crate) fn wait(&mut self) {
        let status = self.child.wait().unwrap();
        self.said.extend(self.lines.iter());
        assert_eq!(status.code(), Some(0), "{:#?}", self.said.iter().rev().take(20).collect::<Vec<_>>());
    }

    /// Waits until it has ended; its exit code, unless a signal ended it.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let status = self.child.wait().unwrap();
        self.said.extend(self.lines.iter());
        status.code()
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it where it stands, and returns all it said. It must not have ended by itself.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.code().is_none(), "it ended before the kill ({status}): {:#?}", self.said);
        self.said.extend(self.lines.iter());
        std::mem::take(&mut self.said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says what whoever reads of a green run should know, as what was skipped: `cargo xtask test` shows it at its end.
pub(crate) fn note(line: &str) {
    eprintln!("{line}");
    if let Some(path) = std::env::var_os(NOTES) {
        // One write for the whole line: tests run side by side.
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// Gives a command the built plugins and the shipped policies, and nothing of the caller's settings.
pub(crate) fn surround(command: &mut Command) {
    let repository = repository();
    let plugins = target().join("plugins");
    assert!(plugins.join("schema-map/plugin.wasm").is_file(), "no plugins are built: run `cargo xtask plugins` first");
    command.env("HB_PLUGINS_DIR", plugins).env("HB_POLICIES_DIR", repository.join("policies"));
    for name in ["HB_CONFIG", "HB_CORRELATION_ID", "HB_GATE_FAIL_EXIT", "HB_LOG_FORMAT", "RUST_LOG"] {
        command.env_remove(name);
    }
}

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    repository().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// The schema of [`telemetry`].
pub(crate) const SCHEMA: &str = "version: 1
timestamp: { field: timestamp, format: auto, missing: reject }
labels:
  asset: { field: asset, required: true }
field_mapping:
  temp_f: { metric: temperature, unit: degC, from: degF }
  rpm: { metric: speed, unit: rpm }
unmapped: keep
unmapped_text: ignore
";

/// A config for [`telemetry`].
pub(crate) fn config(plant: Plant) -> String {
    let Plant { batch_frames, workers, commit_samples, evidence } = plant;
    format!(
        "program: {PROGRAM}
state: ./state
require_signed: false
asset_label: asset
sources:
  - name: plant
    plugin: file-replay
    transport: {{ file: {{ path: telemetry.jsonl }} }}
    settings: {{ format: jsonl }}
    normalizer: plant
normalizers:
  - {{ name: plant, plugin: schema-map, schema: telemetry_schema.yaml, workers: {workers} }}
checks:
  - id: quick
    window_sec: 30
    every_sec: 10
    baseline: golden
    min_samples: 3
    rules:
      - {{ rule: drift.robust_z, params: {{ warn: 6, fail: 10, k: 2, n: 3 }} }}
      - rule: drift.missing
severity: {{ rule: alert.severity }}
limits: {{ batch_frames: {batch_frames}, commit_samples: {commit_samples}, commit_ms: 60000 }}
evidence: {{ on_fail: {evidence} }}
"
    )
}

/// Telemetry of a plant with four pumps, one line per pump and second, and what goes wrong in every plant: a slow
/// drift, a jump, a sensor that falls silent, and lines that mean nothing. Equal seeds give equal bytes.
pub(crate) fn telemetry(seed: u64, seconds: u64) -> String {
    let mut dice = Dice(seed);
    let mut text = String::new();
    for second in 0..seconds {
        let faulty = second >= CLEAN_SEC;
        let since = second.saturating_sub(CLEAN_SEC) as f64;
        // Not in the order of their names: what depends on the order in which assets came must show.
        for pump in [3, 1, 4, 2] {
            let mut temp = 140.0 + f64::from(pump) + dice.noise();
            let mut speed = Some(2_950.0 + 10.0 * dice.noise());
            match pump {
                1 if faulty => temp += 0.05 * since,
                2 if faulty && (second / 120) % 2 == 0 => speed = speed.map(|s| s + 900.0),
                3 if second > CLEAN_SEC + 200 => speed = None,
                _ => {}
            }
            let rpm = speed.map_or(String::new(), |s| format!(",\"rpm\":{s:.1}"));
            let time = at(second);
            writeln!(text, "{{\"timestamp\":\"{time}\",\"asset\":\"pump-{pump}\",\"temp_f\":{temp:.2}{rpm}}}").unwrap();
        }
        match dice.below(100) {
            0 => text.push_str("{\"timestamp\":\"2026-01-01T00:0\n"),
            1 => text.push_str("not telemetry at all\n"),
            2 => text.push_str("{\"asset\":\"pump-1\",\"temp_f\":1}\n"),
            3 => text.push('\n'),
            _ => {}
        }
    }
    text
}

/// The time of a simulated second.
pub(crate) fn at(second: u64) -> String {
    hb::clock::rfc3339(hb::clock::parse(BEGIN).unwrap() + second as i64 * 1_000_000_000)
}

/// Small seeded randomness: SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Noise around 0 with a deviation of about 1: the sum of twelve uniform numbers.
    fn noise(&mut self) -> f64 {
        (0..12).map(|_| (self.next() >> 11) as f64 / (1_u64 << 53) as f64).sum::<f64>() - 6.0
    }
}
