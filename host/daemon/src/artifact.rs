//! A run's telemetry as files: `metrics.csv`, `run_meta.json` and, when there are events, `events.jsonl`.
//!
//! `metrics.csv` has the header `timestamp,metric,value,unit,labels`; times are RFC 3339 in UTC, labels are
//! `name=value;name=value` sorted by name, with `%`, `;`, `=` and control characters written as `%XX`. A row is a line:
//! a metric or unit with a line break has no place in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use hb_engine::inject::Record;
use hb_engine::series::SeriesDef;
use hb_log::hash::{Hash, Hasher};
use serde::{Deserialize, Serialize};

use crate::clock;

/// Name of the samples' file.
pub const METRICS: &str = "metrics.csv";

/// Name of the description.
pub const META: &str = "run_meta.json";

/// Name of the events' file.
pub const EVENTS: &str = "events.jsonl";

/// First line of `metrics.csv`.
pub const HEADER: &str = "timestamp,metric,value,unit,labels";

/// Longest line that is read, bytes: the limits of names and labels keep ours far below it.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Why a sample has no place in `metrics.csv`.
pub const NO_PLACE: &str = "a metric or unit with a line break has no place in metrics.csv";

/// Whether samples of a series can be written so that they come back as its own.
pub fn has_place_for(def: &SeriesDef) -> bool {
    ![&def.metric, &def.unit].iter().any(|name| name.contains(LINE_BREAKS))
}

/// What ends a line for some reader.
const LINE_BREAKS: [char; 2] = ['\n', '\r'];

/// What a run was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunMeta {
    /// Version of this file's schema.
    pub schema_version: u32,
    /// Id: `run-` and the first 12 digits of the hash of `metrics.csv`.
    pub run_id: String,
    /// Ties together everything one request caused; `HB_CORRELATION_ID`, or the run id.
    pub correlation_id: String,
    /// Where it came from: plugin and file name.
    pub source: String,
    /// Time of the oldest sample.
    pub start: Option<String>,
    /// Time of the newest sample.
    pub end: Option<String>,
    /// What was counted: frames, samples, events, rejects, ignored, faults.
    pub counts: BTreeMap<String, u64>,
    /// Why telemetry was refused, with counts.
    pub refused: BTreeMap<String, u64>,
    /// SHA-256 of `metrics.csv`.
    pub metrics_sha256: Option<Hash>,
    /// What made it: plugins and settings, as `name version sha256`.
    pub made_by: Vec<String>,
}

/// Writes an artifact directory; files appear under their names when they are whole.
pub struct Writer {
    dir: PathBuf,
    metrics: BufWriter<File>,
    events: Option<BufWriter<File>>,
    hasher: Hasher,
    line: String,
    /// Oldest and newest sample.
    span: Option<(i64, i64)>,
}

impl Writer {
    /// Starts in `dir`, which is created.
    pub fn create(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let metrics = BufWriter::new(File::create(dir.join(temporary(METRICS)))?);
        let mut writer = Writer {
            dir: dir.to_owned(),
            metrics,
            events: None,
            hasher: Hasher::new(),
            line: String::new(),
            span: None,
        };
        writer.line.push_str(HEADER);
        writer.end_line()?;
        Ok(writer)
    }

    /// Adds a sample; of a series that has no place it is an error.
    pub fn sample(&mut self, def: &SeriesDef, time_ns: i64, value: f64) -> io::Result<()> {
        if !has_place_for(def) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, NO_PLACE));
        }
        self.span = Some(self.span.map_or((time_ns, time_ns), |(a, b)| (a.min(time_ns), b.max(time_ns))));
        self.line.push_str(&clock::rfc3339(time_ns));
        write_fields(&mut self.line, &def.metric, value, &def.unit, &def.labels);
        self.end_line()
    }

    /// Adds an event, one JSON object.
    pub fn event(&mut self, event: &serde_json::Value) -> io::Result<()> {
        let path = self.dir.join(temporary(EVENTS));
        let events = match &mut self.events {
            Some(events) => events,
            none => none.insert(BufWriter::new(File::create(path)?)),
        };
        writeln!(events, "{event}")
    }

    /// Makes durable what was added; the files are still to be finished.
    pub fn save(&mut self) -> io::Result<()> {
        for file in [Some(&mut self.metrics), self.events.as_mut()].into_iter().flatten() {
            file.flush()?;
            file.get_ref().sync_data()?;
        }
        Ok(())
    }

    /// Finishes the files; `meta` gets id, span and hash.
    pub fn finish(mut self, mut meta: RunMeta) -> io::Result<RunMeta> {
        self.metrics.flush()?;
        self.metrics.get_ref().sync_all()?;
        let hash = self.hasher.finalize();
        meta.schema_version = 1;
        meta.run_id = format!("run-{}", hash.short());
        if meta.correlation_id.is_empty() {
            meta.correlation_id.clone_from(&meta.run_id);
        }
        meta.metrics_sha256 = Some(hash);
        meta.start = self.span.map(|s| clock::rfc3339(s.0));
        meta.end = self.span.map(|s| clock::rfc3339(s.1));
        let text = serde_json::to_string_pretty(&meta)? + "\n";
        fs::write(self.dir.join(temporary(META)), text)?;
        // A run that lay here before ends with its description: whoever is cut short leaves none to believe.
        remove(&self.dir.join(META))?;
        match self.events {
            Some(mut events) => {
                events.flush()?;
                events.get_ref().sync_all()?;
                fs::rename(self.dir.join(temporary(EVENTS)), self.dir.join(EVENTS))?;
            }
            None => remove(&self.dir.join(EVENTS))?,
        }
        fs::rename(self.dir.join(temporary(METRICS)), self.dir.join(METRICS))?;
        // Last, so that a directory with a description is whole.
        fs::rename(self.dir.join(temporary(META)), self.dir.join(META))?;
        Ok(meta)
    }

    fn end_line(&mut self) -> io::Result<()> {
        self.line.push('\n');
        self.hasher.update(self.line.as_bytes());
        self.metrics.write_all(self.line.as_bytes())?;
        self.line.clear();
        Ok(())
    }
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A line of `metrics.csv` that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A line.
    #[error("{path}:{line}: {what}")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
}

/// Calls `each` with the records of a `metrics.csv`; returns the SHA-256 of the file.
pub fn read_metrics(path: &Path, mut each: impl FnMut(Record)) -> Result<Hash, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let (mut bytes, mut number, mut hasher) = (Vec::new(), 0, Hasher::new());
    loop {
        bytes.clear();
        number += 1;
        let wrong = |what: String| ReadError::Line { path: path.to_owned(), line: number, what };
        let n = io::Read::take(&mut reader, MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut bytes).map_err(failed)?;
        if n == 0 {
            return if number == 1 {
                Err(wrong(format!("expected the header `{HEADER}`")))
            } else {
                Ok(hasher.finalize())
            };
        }
        if n > MAX_LINE_BYTES {
            return Err(wrong(format!("a line has at most {MAX_LINE_BYTES} bytes")));
        }
        hasher.update(&bytes);
        let line = std::str::from_utf8(&bytes).map_err(|_| wrong("not UTF-8".into()))?.trim_end_matches(['\n', '\r']);
        if number == 1 {
            if line != HEADER {
                return Err(wrong(format!("expected the header `{HEADER}`; `hb ingest` and `hb normalize` write it")));
            }
            continue;
        }
        if !line.is_empty() {
            each(parse(line).map_err(wrong)?);
        }
    }
}

/// Writes records as a `metrics.csv`.
pub fn write_metrics(out: &mut dyn Write, records: &[Record]) -> io::Result<()> {
    writeln!(out, "{HEADER}")?;
    let mut line = String::new();
    for r in records {
        line.clear();
        line.push_str(&clock::rfc3339(r.time_ns));
        write_fields(&mut line, &r.metric, r.value, &r.unit, &r.labels);
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Reads the description of an artifact directory.
pub fn read_meta(dir: &Path) -> Result<RunMeta, ReadError> {
    let path = dir.join(META);
    let text = fs::read_to_string(&path).map_err(|source| ReadError::Io { path: path.clone(), source })?;
    serde_json::from_str(&text).map_err(|e| ReadError::Line { path, line: e.line() as u64, what: e.to_string() })
}

fn write_fields(line: &mut String, metric: &str, value: f64, unit: &str, labels: &BTreeMap<String, String>) {
    line.push(',');
    cell(line, metric);
    // The shortest text that reads back as the same number.
    line.push_str(&format!(",{value},"));
    cell(line, unit);
    line.push(',');
    let mut text = String::new();
    for (name, value) in labels {
        if !text.is_empty() {
            text.push(';');
        }
        escape(&mut text, name);
        text.push('=');
        escape(&mut text, value);
    }
    cell(line, &text);
}

/// A CSV cell as RFC 4180 has it, on one line whatever the text: where a break cannot be refused it is shown as in
/// labels, and is never mistaken for another name.
fn cell(line: &mut String, text: &str) {
    let text = text.replace('\n', "%0A").replace('\r', "%0D");
    if text.contains([',', '"']) {
        line.push('"');
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(&text);
    }
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        if matches!(c, '%' | ';' | '=') || c.is_control() {
            let mut buffer = [0; 4];
            for b in c.encode_utf8(&mut buffer).bytes() {
                out.push_str(&format!("%{b:02X}"));
            }
        } else {
            out.push(c);
        }
    }
}

fn unescape(text: &str) -> Result<String, String> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&b, tail)) = rest.split_first() {
        if b == b'%' {
            let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok());
            out.push(hex.and_then(|h| u8::from_str_radix(h, 16).ok()).ok_or("`%` is not followed by two hex digits")?);
            rest = &tail[2..];
        } else {
            out.push(b);
            rest = tail;
        }
    }
    String::from_utf8(out).map_err(|_| "a label is not UTF-8".into())
}

fn parse(line: &str) -> Result<Record, String> {
    let cells = cells(line)?;
    let [time, metric, value, unit, labels] = &cells[..] else {
        return Err(format!("{} cells; 5 are expected", cells.len()));
    };
    if metric.is_empty() {
        return Err("the metric has no name".into());
    }
    let number: f64 = value.parse().ok().filter(|v: &f64| v.is_finite()).ok_or(format!("`{value}` is no number"))?;
    let mut map = BTreeMap::new();
    for pair in labels.split(';').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(format!("label `{pair}` has no `=`"))?;
        map.insert(unescape(name)?, unescape(value)?);
    }
    Ok(Record { time_ns: clock::parse(time)?, metric: metric.clone(), value: number, unit: unit.clone(), labels: map })
}

fn cells(line: &str) -> Result<Vec<String>, String> {
    let (mut cells, mut rest) = (Vec::new(), line);
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut cell = String::new();
            let mut tail = quoted;
            loop {
                let end = tail.find('"').ok_or("a quoted cell is not closed")?;
                cell.push_str(&tail[..end]);
                tail = &tail[end + 1..];
                match tail.strip_prefix('"') {
                    Some(more) => {
                        cell.push('"');
                        tail = more;
                    }
                    None => break,
                }
            }
            cells.push(cell);
            rest = tail;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            cells.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Ok(cells),
            None => return Err("text behind a quoted cell".into()),
        }
    }
}

fn temporary(name: &str) -> String {
    format!(".{name}.part")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hb_engine::series::SeriesKind;
    use proptest::prelude::*;

    #[test]
    fn an_artifact_directory_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut w = Writer::create(dir.path()).unwrap();
        let def = SeriesDef::new("temp", "degC", SeriesKind::Gauge, [("asset".into(), "a;b=c%,\"x".into())]).unwrap();
        w.sample(&def, 1_500_000_000, 0.1).unwrap();
        assert!(!dir.path().join(METRICS).exists() && !dir.path().join(META).exists());
        let meta = w.finish(RunMeta::default()).unwrap();
        let bytes = fs::read(dir.path().join(METRICS)).unwrap();
        assert_eq!(Some(Hash::of(&bytes)), meta.metrics_sha256);
        assert_eq!(read_meta(dir.path()).unwrap(), meta);
        let mut back = Vec::new();
        read_metrics(&dir.path().join(METRICS), |r| back.push(r)).unwrap();
        assert_eq!(back[0].labels["asset"], "a;b=c%,\"x");
        assert_eq!(
            (back[0].time_ns, back[0].value, meta.start.as_deref()),
            (1_500_000_000, 0.1, Some("1970-01-01T00:00:01.5Z"))
        );
        assert!(!dir.path().join(EVENTS).exists());
    }

    #[test]
    fn a_second_run_leaves_nothing_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let def = SeriesDef::new("temp", "degC", SeriesKind::Gauge, []).unwrap();
        let mut first = Writer::create(dir.path()).unwrap();
        first.sample(&def, 0, 1.0).unwrap();
        first.event(&serde_json::json!({ "kind": "alarm" })).unwrap();
        let before = first.finish(RunMeta::default()).unwrap();
        assert!(dir.path().join(EVENTS).exists());
        let mut second = Writer::create(dir.path()).unwrap();
        second.sample(&def, 0, 2.0).unwrap();
        // Until it is finished the first one is whole.
        assert_eq!(read_meta(dir.path()).unwrap(), before);
        let meta = second.finish(RunMeta::default()).unwrap();
        assert_ne!(meta.run_id, before.run_id);
        assert_eq!(read_meta(dir.path()).unwrap(), meta);
        assert!(!dir.path().join(EVENTS).exists(), "the events were those of the first run");
        assert_eq!(Some(read_metrics(&dir.path().join(METRICS), |_| ()).unwrap()), meta.metrics_sha256);
    }

    #[test]
    fn a_run_cut_short_at_its_end_leaves_no_description() {
        let dir = tempfile::tempdir().unwrap();
        let def = SeriesDef::new("temp", "degC", SeriesKind::Gauge, []).unwrap();
        let mut first = Writer::create(dir.path()).unwrap();
        first.sample(&def, 0, 1.0).unwrap();
        first.finish(RunMeta::default()).unwrap();
        let mut second = Writer::create(dir.path()).unwrap();
        second.sample(&def, 0, 2.0).unwrap();
        // Its metrics cannot take the place of the first ones: it ends there, as if it were killed.
        fs::remove_file(dir.path().join(temporary(METRICS))).unwrap();
        second.finish(RunMeta::default()).unwrap_err();
        assert!(read_meta(dir.path()).is_err(), "metrics of one run under the description of another");
    }

    #[test]
    fn a_line_break_in_a_name_is_refused_or_shown_never_blurred() {
        let dir = tempfile::tempdir().unwrap();
        let mut w = Writer::create(dir.path()).unwrap();
        for (metric, unit) in [("a\nb", ""), ("a", "k\rW")] {
            let def = SeriesDef::new(metric, unit, SeriesKind::Gauge, []).unwrap();
            assert!(!has_place_for(&def));
            assert_eq!(w.sample(&def, 0, 1.0).unwrap_err().to_string(), NO_PLACE);
            let record =
                Record { time_ns: 0, metric: metric.into(), value: 1.0, unit: unit.into(), labels: BTreeMap::new() };
            let mut out = Vec::new();
            write_metrics(&mut out, &[record]).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(text.contains("%0A") || text.contains("%0D"), "{text}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.csv");
        for (body, want) in [
            ("", "expected the header"),
            ("time,x\n", "expected the header"),
            (&format!("{HEADER}\n1970-01-01T00:00:00Z,m,1\n"), ":2: 3 cells"),
            (&format!("{HEADER}\n1970-01-01T00:00:00Z,m,nan,,\n"), "`nan` is no number"),
            (&format!("{HEADER}\nlater,m,1,,\n"), "`later` is no time"),
            (&format!("{HEADER}\n1970-01-01T00:00:00Z,,1,,\n"), "the metric has no name"),
            (&format!("{HEADER}\n1970-01-01T00:00:00Z,\"m,1,,\n"), "not closed"),
        ] {
            fs::write(&path, body).unwrap();
            let error = read_metrics(&path, |_| {}).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_record_comes_back(metric in "[^\\p{Cc}]{1,20}", unit in "[^\\p{Cc}]{0,9}", value in -1e300..1e300_f64,
                                 labels in prop::collection::btree_map(".{1,9}", ".{0,9}", 0..4)) {
            let record = Record { time_ns: 5, metric, value, unit, labels };
            let mut out = Vec::new();
            write_metrics(&mut out, std::slice::from_ref(&record)).unwrap();
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(parse(text.lines().nth(1).unwrap()).unwrap(), record);
        }
    }
}
