//! A file that is followed while it is rotated in every way: each line is there once, in order, whatever the writer and
//! the daemon do meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::reload::values;
use crate::support::hb::{Hb, Running};

/// Rotations: each way several times, and with the daemon away.
const ROTATIONS: u64 = 24;

/// Lines the writer adds at a time.
const LINES: u64 = 50;

/// How long what was written may take to be durable.
const PATIENCE: Duration = Duration::from_mins(2);

/// Who writes the log.
struct Writer {
    path: PathBuf,
    file: File,
    n: u64,
}

impl Writer {
    fn new(path: PathBuf) -> Writer {
        Writer { file: append(&path), path, n: 0 }
    }

    fn lines(&mut self) {
        for _ in 0..LINES {
            let n = self.n;
            writeln!(self.file, "{{\"t\":{}.{:03},\"n\":{n}}}", 1_767_225_600 + n / 500, n % 500 * 2).unwrap();
            self.n += 1;
        }
    }

    /// Notices at last that its file is not there any more.
    fn reopen(&mut self) {
        self.file = append(&self.path);
        self.lines();
    }
}

fn append(path: &PathBuf) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

#[test]
fn no_rotation_of_a_followed_file_loses_or_doubles_a_line() {
    let hb = Hb::new();
    hb.write(
        "hb.yaml",
        "program: live
state: ./state
require_signed: false
sources:
  - name: s
    plugin: file-replay
    transport: { file: { path: app.log, follow: true } }
    settings: { format: jsonl }
    normalizer: n
normalizers:
  - name: n
    plugin: schema-map
    settings: { version: 1, timestamp: { field: t }, layout: wide }
limits: { commit_ms: 100 }
",
    );
    let mut writer = Writer::new(hb.path("app.log"));
    let start = || {
        let mut running = Running::start(hb.command(&["daemon"]).env("RUST_LOG", "hb=info,hb::pipeline=debug"));
        running.wait_for("reading", 1);
        running
    };
    let mut running = start();
    for n in 0..ROTATIONS {
        writer.lines();
        let path = writer.path.clone();
        match n % 4 {
            // As logrotate does it: the writer goes on in the old file until it notices, empty new one or not.
            0 => {
                fs::rename(&path, hb.path(&format!("app.log.{n}"))).unwrap();
                writer.lines();
                File::create(&path).unwrap();
                writer.lines();
                wait_for_samples(&hb, writer.n);
                writer.lines();
                writer.reopen();
            }
            1 => {
                wait_for_samples(&hb, writer.n);
                fs::remove_file(&path).unwrap();
                writer.lines();
                writer.reopen();
            }
            // What is cut off before it was read is gone, so it is read before.
            2 => {
                wait_for_samples(&hb, writer.n);
                fs::copy(&path, hb.path(&format!("app.log.{n}"))).unwrap();
                OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
                writer.lines();
            }
            // Nobody reads while it happens.
            _ => {
                wait_for_samples(&hb, writer.n);
                running.kill();
                writer.lines();
                fs::rename(&path, hb.path(&format!("app.log.{n}"))).unwrap();
                writer.lines();
                writer.reopen();
                running = start();
            }
        }
        // Before it is rotated again.
        wait_for_samples(&hb, writer.n);
    }
    running.end();
    let values = values(&hb).remove("n").unwrap();
    assert_eq!(values, (0..writer.n).collect::<Vec<u64>>(), "each line once, in order");
}

/// Waits until so many samples are durable.
fn wait_for_samples(hb: &Hb, n: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = hb.json(&["status"]);
        let samples = status["counters"]["samples"].as_u64().unwrap_or(0);
        if samples >= n {
            return;
        }
        assert!(Instant::now() < deadline, "{samples} of {n} samples after {PATIENCE:?}: {status:#}");
    }
}
