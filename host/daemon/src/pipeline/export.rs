//! Where the lane stands, as files for people and scripts: exports; the state alone is the truth.
//!
//! `daemon_checkpoint.json` is replaced as a whole, at most once a second. `checkpoints.jsonl` collects signed heads of
//! the log, one a minute: whoever copied an older one can ask for the proof that the log only grew since.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hb_engine::engine::Core;
use hb_log::cbor;
use serde::Serialize;
use serde_json::Value;

use super::recover::core_name;
use super::{Cursor, PipelineError};
use crate::clock;
use crate::state::State;
use crate::transport::Position;

/// Where the lane stands.
pub const CHECKPOINT: &str = "daemon_checkpoint.json";
/// Signed heads of the log.
pub const HISTORY: &str = "checkpoints.jsonl";
/// Shortest time between two writes of the checkpoint.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Shortest time between two lines of the history.
const HISTORY_EVERY: Duration = Duration::from_mins(1);
/// Lines of the history that are kept: a week of minutes, 5 MB.
const HISTORY_LINES: usize = 10_080;

/// Where one source stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceStands {
    /// Frames taken.
    pub frames: u64,
    /// Lines or messages of the transport behind them.
    pub lines: u64,
    /// Whether the source has ended.
    pub ended: bool,
    /// The same in words.
    pub says: String,
    /// The transport's own position.
    pub position: Value,
}

/// Where a lane stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stands {
    /// Version of this structure.
    pub v: u8,
    /// When this was written.
    pub time: String,
    /// Tenant.
    pub program: String,
    /// Lane.
    pub lane: String,
    /// Host.
    pub host_id: String,
    /// Active generation, as of the newest engine checkpoint.
    pub generation: Option<String>,
    /// Commits since the state was created.
    pub commits: u64,
    /// Entries in the log.
    pub log_size: u64,
    /// Their root.
    pub log_root: Option<String>,
    /// Sources.
    pub sources: BTreeMap<String, SourceStands>,
}

impl Stands {
    /// Reads where a lane stands.
    pub fn read(state: &State, program: &str, lane: &str) -> Result<Self, PipelineError> {
        let reader = state.reader()?;
        let mut sources = BTreeMap::new();
        for (name, bytes) in reader.cursors(program)? {
            let Some(source) = name.strip_prefix(lane).and_then(|rest| rest.strip_prefix('/')) else { continue };
            let cursor: Cursor = cbor::decode(&bytes).map_err(|e| PipelineError::corrupt("cursor", e))?;
            sources.insert(source.to_owned(), stands(&cursor));
        }
        let core = reader.meta(program, &core_name(lane))?;
        let core: Option<Core> = core.and_then(|bytes| cbor::decode(&bytes).ok());
        let head = reader.checkpoint()?.map(|head| head.checkpoint);
        Ok(Stands {
            v: 1,
            time: clock::rfc3339(clock::now_ns()),
            program: program.to_owned(),
            lane: lane.to_owned(),
            host_id: state.host_id().to_owned(),
            generation: core.and_then(|core| core.generation).map(|hash| hash.to_string()),
            commits: reader.commits()?,
            log_size: head.as_ref().map_or(0, |head| head.size),
            log_root: head.map(|head| head.root.to_string()),
            sources,
        })
    }
}

fn stands(cursor: &Cursor) -> SourceStands {
    let position = Position::from_bytes(&cursor.transport).ok();
    let position = position.map_or(Value::Null, |at| serde_json::to_value(at).unwrap_or(Value::Null));
    let state = if cursor.ended { "ended behind" } else { "resumes behind" };
    let mut says = format!("{state} {} lines and {} frames", cursor.line, cursor.ordinal);
    let fields = position.as_object().and_then(|kinds| kinds.iter().next());
    if let Some((kind, fields)) = fields {
        says.push_str(&format!(" of the {}", kind.to_lowercase()));
        for (name, value) in fields.as_object().into_iter().flatten().filter(|(_, v)| v.is_number() || v.is_string()) {
            says.push_str(&format!(", {} {value}", name.replace('_', " ")));
        }
    }
    SourceStands { frames: cursor.ordinal, lines: cursor.line, ended: cursor.ended, says, position }
}

/// The files of one lane.
pub(super) struct Exports {
    dir: PathBuf,
    checkpoint_due: Instant,
    history_due: Instant,
    /// Commits came since the newest write.
    is_stale: bool,
    /// A write failed before, and was told.
    has_failed: bool,
    /// Lines of the history; none before they were counted.
    lines: Option<usize>,
}

impl Exports {
    pub(super) fn new(dir: &Path) -> Self {
        let now = Instant::now();
        let dir = dir.to_owned();
        Exports { dir, checkpoint_due: now, history_due: now, is_stale: false, has_failed: false, lines: None }
    }

    /// A commit was made.
    pub(super) fn committed(&mut self) {
        self.is_stale = true;
    }

    /// Writes what is due; all of it `at_the_end`. A file that cannot be written stops nothing.
    pub(super) fn write_due(&mut self, state: &State, program: &str, lane: &str, at_the_end: bool) {
        let now = Instant::now();
        if !self.is_stale || now < self.checkpoint_due && !at_the_end {
            return;
        }
        (self.is_stale, self.checkpoint_due) = (false, now + CHECKPOINT_EVERY);
        let written = self.write(state, program, lane, now, at_the_end);
        if let Err(error) = &written
            && !self.has_failed
        {
            tracing::warn!(%error, "the exports of the state are not written; the state itself is sound");
        }
        self.has_failed = written.is_err();
    }

    fn write(&mut self, state: &State, program: &str, lane: &str, now: Instant, at_the_end: bool) -> io::Result<()> {
        let stands = Stands::read(state, program, lane).map_err(io::Error::other)?;
        let text = serde_json::to_string_pretty(&stands)? + "\n";
        replace(&self.dir.join(CHECKPOINT), text.as_bytes())?;
        if now >= self.history_due || at_the_end {
            self.history_due = now + HISTORY_EVERY;
            self.append(state, &stands)?;
        }
        Ok(())
    }

    /// Adds the log's head to the history, and drops the oldest when there are a quarter too many.
    fn append(&mut self, state: &State, stands: &Stands) -> io::Result<()> {
        let head = state.reader().and_then(|reader| reader.checkpoint()).map_err(io::Error::other)?;
        let Some(head) = head else { return Ok(()) };
        let line = serde_json::json!({
            "time": stands.time, "commits": stands.commits, "size": head.checkpoint.size,
            "root": head.checkpoint.root.to_string(), "body": head.body, "signature": head.signature,
        });
        let path = self.dir.join(HISTORY);
        let mut lines = match self.lines {
            Some(lines) => lines,
            None => count_lines(&path)?,
        };
        if lines >= HISTORY_LINES + HISTORY_LINES / 4 {
            let kept = BufReader::new(File::open(&path)?).lines().skip(lines - HISTORY_LINES);
            let kept: Vec<String> = kept.collect::<Result<_, _>>()?;
            replace(&path, (kept.join("\n") + "\n").as_bytes())?;
            lines = kept.len();
        }
        OpenOptions::new().create(true).append(true).open(&path)?.write_all(format!("{line}\n").as_bytes())?;
        self.lines = Some(lines + 1);
        Ok(())
    }
}

fn count_lines(path: &Path) -> io::Result<usize> {
    match File::open(path) {
        Ok(file) => Ok(BufReader::new(file).lines().count()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

/// Whoever reads sees the old file or the new one. Not synced: the state can always tell it again.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, bytes)?;
    fs::rename(&new, path)
}
