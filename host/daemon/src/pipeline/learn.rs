//! Makes baselines of stored telemetry.

use std::sync::Arc;

use hb_engine::baseline::Builder;
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

/// Values that are kept in memory at most while a baseline is made: 64 MB.
const VALUES_MAX: usize = 4 << 20;
/// Values of one series at least, however many series there are.
const VALUES_MIN: usize = 64;
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

/// Learns from the journal and commits the result under its tag; none when there was no sample. Takes bounded memory,
/// and may run beside the recorder.
pub fn learn(state: &State, signer: &Arc<Signer>, lesson: &Lesson) -> Result<Option<u32>, PipelineError> {
    let mut builder = Builder::bounded(values_of_each(state, &lesson.program)?);
    let samples = gather(state, lesson, &mut builder)?;
    if samples == 0 {
        return Ok(None);
    }
    let span_sec = (lesson.end_ns - lesson.start_ns) / 1_000_000_000;
    let sources = vec![format!("{} {span_sec}s", lesson.lane)];
    let baseline = builder.build(sources.clone());
    let (bytes, hash) = (baseline.to_bytes(), baseline.hash());
    let created_ns = clock::now_ns();
    let meta = BaselineMeta { v: 1, created_ns, sources, samples, by: lesson.by.to_owned() };
    for attempt in 1.. {
        let reader = state.reader()?;
        let stored = reader.baselines(&lesson.program)?;
        drop(reader);
        let version = stored.iter().map(|row| row.version).max().unwrap_or(0) + 1;
        let shown = version.to_string();
        let hash_text = hash.to_string();
        let entry = |kind: &str, fields: &[(&str, &str)]| NewEntry {
            kind: kind.to_owned(),
            time_ns: created_ns,
            body: text_map(fields),
        };
        let committed = state.commit(
            Commit {
                program: lesson.program.clone(),
                blobs: vec![(hash, bytes.clone())],
                baselines: vec![BaselineRow { version, hash, meta: cbor::encode(&meta) }],
                tags: vec![(lesson.tag.clone(), version)],
                entries: vec![
                    entry("baseline.created", &[("version", &shown), ("sha256", &hash_text), ("by", lesson.by)]),
                    entry("baseline.promoted", &[("tag", &lesson.tag), ("version", &shown), ("by", lesson.by)]),
                ],
                forget_baselines: outlived(&stored, lesson),
                ..Commit::default()
            },
            signer,
        );
        match committed {
            Ok(_) => return Ok(Some(version)),
            // Somebody else took the number meanwhile.
            Err(StateError::Refused { .. }) if attempt < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// How many values of each series fit into memory.
fn values_of_each(state: &State, program: &str) -> Result<usize, PipelineError> {
    let series = state.reader()?.series(program)?.len().max(1);
    Ok((VALUES_MAX / series).max(VALUES_MIN))
}

/// Adds the samples of the lesson's span.
fn gather(state: &State, lesson: &Lesson, builder: &mut Builder) -> Result<u64, PipelineError> {
    let span = lesson.start_ns..lesson.end_ns.saturating_add(TICK_NS);
    let (mut next, mut samples) = (0, 0);
    let mut defs: Vec<SeriesDef> = Vec::new();
    loop {
        let reader = state.reader()?;
        let known = reader.series(&lesson.program)?;
        for (_, bytes) in known.iter().skip(defs.len()) {
            defs.push(cbor::decode(bytes).map_err(|e| PipelineError::corrupt("series", e))?);
        }
        let mut rows = 0;
        // What is removed meanwhile is not missed: it was the oldest.
        for row in reader.journal(&lesson.program, &lesson.lane, next)?.take(ROWS_AT_ONCE) {
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

/// Versions made by the same lesson before, but for the newest of them.
fn outlived(stored: &[BaselineRow], lesson: &Lesson) -> Vec<u32> {
    let mine = |row: &&BaselineRow| cbor::decode::<BaselineMeta>(&row.meta).is_ok_and(|meta| meta.by == lesson.by);
    let mut versions: Vec<u32> = stored.iter().filter(mine).map(|row| row.version).collect();
    versions.truncate((versions.len() + 1).saturating_sub(lesson.keep));
    versions
}
