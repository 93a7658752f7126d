//! Makes baselines of stored telemetry, for operators and for the schedule.

use std::ops::Range;
use std::sync::Arc;

use hb_engine::baseline::{Baseline, Builder};
use hb_engine::engine::TICK_NS;
use hb_engine::series::SeriesDef;
use hb_log::cbor;
use serde::{Deserialize, Serialize};

use super::PipelineError;
use super::journal::{self, Row};
use super::record::text_map;
use crate::clock;
use crate::keys::Signer;
use crate::state::{BaselineRow, Commit, NewEntry, State, StateError};

/// Journal rows read at once: pages that a reader still sees cannot be used again, so none looks for long.
const ROWS_AT_ONCE: usize = 64;
/// Versions that make their own number anew when somebody was faster.
const ATTEMPTS: usize = 5;

/// What is kept beside a baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BaselineMeta {
    /// Schema version of this structure.
    pub v: u8,
    /// When it was made, ns.
    pub created_ns: i64,
    /// Where its samples came from.
    pub sources: Vec<String>,
    /// How many.
    pub samples: u64,
    /// What made it by itself: `rolling` or `first`; empty when an operator did.
    #[serde(default)]
    pub by: String,
}

/// What is to be learned by itself.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// Tenant.
    pub program: String,
    /// Lane.
    pub lane: String,
    /// `rolling` or `first`.
    pub by: &'static str,
    /// Tag that names the result.
    pub tag: String,
    /// Event times from here, ns.
    pub start_ns: i64,
    /// Event times up to this step of the clock, ns.
    pub end_ns: i64,
    /// Versions made like this that stay besides those that something names.
    pub keep: usize,
}

/// A baseline that has no version yet.
pub struct Draft {
    /// Tenant.
    pub program: String,
    /// The statistics.
    pub baseline: Baseline,
    /// What is kept beside it.
    pub meta: BaselineMeta,
    /// Tag that is to name it, if any.
    pub tag: Option<String>,
}

/// Learns from the journal and commits the result under its tag; none when there was no sample. May run beside the
/// recorder.
pub fn learn(state: &State, signer: &Arc<Signer>, lesson: &Lesson) -> Result<Option<u32>, PipelineError> {
    let mut builder = Builder::new();
    let samples =
        gather(state, &lesson.program, &lesson.lane, &until_clock(lesson.start_ns, lesson.end_ns), &mut builder)?;
    if samples == 0 {
        return Ok(None);
    }
    let span_sec = (lesson.end_ns - lesson.start_ns) / 1_000_000_000;
    let sources = vec![format!("{} {span_sec}s", lesson.lane)];
    let draft = Draft {
        program: lesson.program.clone(),
        baseline: builder.build(sources.clone()),
        meta: BaselineMeta { v: 1, created_ns: clock::now_ns(), sources, samples, by: lesson.by.to_owned() },
        tag: Some(lesson.tag.clone()),
    };
    commit(state, signer, &draft, &|stored| outlived(stored, lesson)).map(Some)
}

/// Event times from `start_ns` to where a clock stands. It goes in whole steps: the samples within its step are not ahead
/// of it.
pub fn until_clock(start_ns: i64, clock_ns: i64) -> Range<i64> {
    start_ns..clock_ns.saturating_add(TICK_NS)
}

/// Adds the samples of a lane with event times in `span`; returns how many there were. It reads all of the journal that
/// is kept, because any row may hold a late sample of the span, and holds a few rows of it at a time.
pub fn gather(
    state: &State,
    program: &str,
    lane: &str,
    span: &Range<i64>,
    builder: &mut Builder,
) -> Result<u64, PipelineError> {
    let (mut next, mut samples) = (0, 0);
    let mut defs: Vec<SeriesDef> = Vec::new();
    loop {
        let reader = state.reader()?;
        let known = reader.series(program)?;
        for (_, bytes) in known.iter().skip(defs.len()) {
            defs.push(cbor::decode(bytes).map_err(|e| PipelineError::corrupt("series", e))?);
        }
        let mut rows = 0;
        // What is removed meanwhile is not missed: it was the oldest.
        for row in reader.journal(program, lane, next)?.take(ROWS_AT_ONCE) {
            let row = row?;
            (rows, next) = (rows + 1, row.seq + u64::from(row.count));
            let Some(Row::Samples(columns)) = journal::decode(&row.bytes) else { continue };
            for k in (0..columns.len()).filter(|&k| span.contains(&columns.time_ns[k])) {
                if let Some(def) = defs.get(columns.series[k] as usize) {
                    builder.push(def, columns.time_ns[k], columns.value[k]);
                    samples += 1;
                }
            }
        }
        if rows < ROWS_AT_ONCE {
            return Ok(samples);
        }
    }
}

/// Commits a baseline under the next version, and its tag; returns the version. `forget` says which of those stored
/// before may go.
pub fn commit(
    state: &State,
    signer: &Signer,
    draft: &Draft,
    forget: &dyn Fn(&[BaselineRow]) -> Vec<u32>,
) -> Result<u32, PipelineError> {
    let (bytes, hash, meta) = (draft.baseline.to_bytes(), draft.baseline.hash(), &draft.meta);
    let mut attempt = 1;
    loop {
        let stored = state.reader()?.baselines(&draft.program)?;
        let version = stored.iter().map(|row| row.version).max().unwrap_or(0) + 1;
        let committed = state.commit(
            Commit {
                program: draft.program.clone(),
                blobs: vec![(hash, bytes.clone())],
                baselines: vec![BaselineRow { version, hash, meta: cbor::encode(meta) }],
                tags: draft.tag.iter().map(|tag| (tag.clone(), version)).collect(),
                entries: entries(draft, version, &hash.to_string()),
                forget_baselines: forget(&stored),
                ..Commit::default()
            },
            signer,
        );
        match committed {
            Ok(_) => return Ok(version),
            // Somebody else took the number meanwhile.
            Err(StateError::Refused { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// What the log says of a new version.
fn entries(draft: &Draft, version: u32, sha256: &str) -> Vec<NewEntry> {
    let (version, meta) = (version.to_string(), &draft.meta);
    let entry = |kind: &str, fields: &[(&str, &str)]| NewEntry {
        kind: kind.to_owned(),
        time_ns: meta.created_ns,
        body: text_map(fields),
    };
    let from = meta.sources.join(", ");
    let origin = if meta.by.is_empty() { ("sources", from.as_str()) } else { ("by", meta.by.as_str()) };
    let mut entries = vec![entry("baseline.created", &[("version", &version), ("sha256", sha256), origin])];
    if let Some(tag) = &draft.tag {
        entries.push(entry("baseline.promoted", &[("tag", tag), ("version", &version), origin]));
    }
    entries
}

/// Versions made by the same lesson before, but for the newest of them.
fn outlived(stored: &[BaselineRow], lesson: &Lesson) -> Vec<u32> {
    let mine = |row: &&BaselineRow| cbor::decode::<BaselineMeta>(&row.meta).is_ok_and(|meta| meta.by == lesson.by);
    let mut versions: Vec<u32> = stored.iter().filter(mine).map(|row| row.version).collect();
    versions.truncate((versions.len() + 1).saturating_sub(lesson.keep));
    versions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Options;
    use hb_engine::series::SeriesKind;

    fn draft(value: f64, tag: Option<&str>) -> Draft {
        let mut builder = Builder::new();
        builder.push(&SeriesDef::new("temp", "degC", SeriesKind::Gauge, []).unwrap(), 0, value);
        let meta = BaselineMeta { v: 1, created_ns: 0, sources: vec!["test".into()], samples: 1, by: String::new() };
        let tag = tag.map(str::to_owned);
        Draft { program: "plant".into(), baseline: builder.build(vec!["test".into()]), meta, tag }
    }

    #[test]
    fn a_version_number_that_somebody_else_took_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let signer = Signer::init(dir.path()).unwrap();
        let state = State::open(dir.path(), Options::default()).unwrap();
        // Between the look at what is stored and the commit another one is faster, once.
        let faster = std::cell::Cell::new(true);
        let version = commit(&state, &signer, &draft(1.0, Some("golden")), &|_| {
            if faster.replace(false) {
                assert_eq!(commit(&state, &signer, &draft(2.0, None), &|_| Vec::new()).unwrap(), 1);
            }
            Vec::new()
        });
        assert_eq!(version.unwrap(), 2);
        let reader = state.reader().unwrap();
        let versions: Vec<u32> = reader.baselines("plant").unwrap().iter().map(|row| row.version).collect();
        assert_eq!((versions, reader.tags("plant").unwrap()), (vec![1, 2], vec![("golden".to_owned(), 2)]));
    }
}
