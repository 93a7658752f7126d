//! Rebuilds a lane's engine from what is stored: the newest checkpoint, then the journal behind it.

use std::cell::Cell;
use std::sync::Arc;

use hb_engine::baseline::Baseline;
use hb_engine::engine::{Core, Effect, Engine, Input};
use hb_engine::judge::Judge;
use hb_engine::partition::World;
use hb_engine::series::SeriesDef;
use hb_engine::spec::EngineSpec;
use hb_log::cbor;
use hb_log::hash::Hash;

use super::PipelineError;
use super::journal::{self, Other, ROW_SAMPLES_MAX, Row};
use super::series::SeriesBook;
use crate::generation::policies_of;
use crate::policy::PolicySet;
use crate::state::Reader;

/// An engine as a lane's journal left it.
pub struct Recovered {
    /// The engine.
    pub engine: Engine,
    /// The policies of its generation.
    pub judge: PolicySet,
    /// The series table.
    pub book: SeriesBook,
}

/// Rebuilds a lane's engine: newest checkpoint, then the journal behind it. Effects are dropped, because the commit
/// that holds an input holds its effects.
pub fn recover(reader: &Reader, program: &str, lane: &str) -> Result<Recovered, PipelineError> {
    let core = reader.meta(program, &core_name(lane))?;
    let mut replay = Replay::begin(reader, program, lane, core.as_deref())?;
    replay.run(reader, &mut |_, _| true)?;
    Ok(Recovered { engine: replay.engine, judge: replay.judge, book: replay.book })
}

/// Feeds a lane's journal to an engine again.
pub struct Replay {
    /// The engine.
    pub engine: Engine,
    program: String,
    lane: String,
    judge: PolicySet,
    book: SeriesBook,
}

impl Replay {
    /// At a checkpoint (the bytes of its core), or at the very beginning.
    pub fn begin(reader: &Reader, program: &str, lane: &str, core: Option<&[u8]>) -> Result<Self, PipelineError> {
        let mut defs = Vec::new();
        for (_, bytes) in reader.series(program)? {
            defs.push(cbor::decode::<SeriesDef>(&bytes).map_err(|e| PipelineError::corrupt("series", e))?);
        }
        let (mut engine, mut judge) = (Engine::new(program, lane), PolicySet::default());
        if let Some(bytes) = core {
            let core: Core = cbor::decode(bytes).map_err(|e| PipelineError::corrupt("checkpoint", e))?;
            let mut world = World::default();
            if let Some(hash) = core.generation {
                let spec = load_spec(reader, hash)?;
                judge = load_policies(reader, &spec)?;
                world.specs.insert(hash, spec);
            }
            for named in core.baselines.values() {
                world.baselines.insert(named.hash, Arc::new(load_blob(reader, named.hash, "baseline")?));
            }
            let rows = reader.latest_snapshots(program, lane)?;
            // A partition made after the checkpoint is made again by the journal.
            let states: Vec<Vec<u8>> = rows.into_iter().filter(|s| s.seq <= core.seq + 1).map(|s| s.bytes).collect();
            engine = Engine::restore(program, lane, bytes, &states, world)
                .map_err(|e| PipelineError::corrupt("snapshot", e))?;
        }
        for (id, def) in defs.iter().enumerate() {
            engine.define(id as u32, def.clone());
        }
        Ok(Replay { engine, program: program.to_owned(), lane: lane.to_owned(), judge, book: SeriesBook::with(defs) })
    }

    /// Feeds what follows; `seen` gets the effects, and the engine, and says whether to go on. Samples come a row of the
    /// journal at once: whoever stops there stops up to that many inputs behind what it was looking for.
    pub fn run(
        &mut self,
        reader: &Reader,
        seen: &mut dyn FnMut(Vec<Effect>, &Engine) -> bool,
    ) -> Result<(), PipelineError> {
        self.judge = self.run_with(reader, |judge| judge, ROW_SAMPLES_MAX, seen)?;
        Ok(())
    }

    /// Like [`Replay::run`], with a judge wrapped around the policies and samples in steps of `step`.
    pub fn run_with<J: Judge>(
        &mut self,
        reader: &Reader,
        mut wrap: impl FnMut(PolicySet) -> J,
        step: usize,
        seen: &mut dyn FnMut(Vec<Effect>, &Engine) -> bool,
    ) -> Result<J, PipelineError> {
        let mut judge = wrap(std::mem::take(&mut self.judge));
        let from = self.engine.seq() + 1;
        for row in reader.journal(&self.program, &self.lane, from)? {
            let row = row?;
            let decoded = journal::decode(&row.bytes).ok_or_else(|| PipelineError::corrupt("journal", row.seq))?;
            match decoded {
                Row::Samples(columns) => {
                    let skip = from.saturating_sub(row.seq) as usize;
                    for at in (skip..columns.len()).step_by(step) {
                        let to = columns.len().min(at + step);
                        let effects = self.engine.step(Input::Samples(columns.view(at, to)), &mut judge);
                        if !seen(effects, &self.engine) {
                            return Ok(judge);
                        }
                    }
                }
                Row::Other(other) => {
                    let effects = match other {
                        Other::Generation(hash) => {
                            let spec = load_spec(reader, hash)?;
                            judge = wrap(load_policies(reader, &spec)?);
                            self.engine.step(Input::Generation(spec), &mut judge)
                        }
                        Other::Baseline(tag, named) => {
                            let baseline = match named {
                                Some(n) => Some((n.version, Arc::new(load_blob(reader, n.hash, "baseline")?))),
                                None => None,
                            };
                            self.engine.step(Input::Baseline { tag: &tag, baseline }, &mut judge)
                        }
                        Other::Tick(source, now_ns) => {
                            self.engine.step(Input::Tick { source: &source, now_ns }, &mut judge)
                        }
                        Other::Seal(source) => self.engine.step(Input::Seal { source: &source }, &mut judge),
                        Other::Fault { .. } => self.engine.step(Input::Fault, &mut judge),
                    };
                    if !seen(effects, &self.engine) {
                        return Ok(judge);
                    }
                }
            }
        }
        Ok(judge)
    }
}

/// Loads a baseline by version.
pub fn load_baseline(reader: &Reader, program: &str, version: u32) -> Result<Arc<Baseline>, PipelineError> {
    let row = reader.baseline(program, version)?.ok_or_else(|| PipelineError::corrupt("baseline", version))?;
    Ok(Arc::new(load_blob(reader, row.hash, "baseline")?))
}

/// Name of the value that holds a lane's newest checkpoint.
pub(super) fn core_name(lane: &str) -> String {
    format!("core/{lane}")
}

/// A generation's spec by its hash.
pub fn load_spec(reader: &Reader, hash: Hash) -> Result<Arc<EngineSpec>, PipelineError> {
    Ok(Arc::new(load_blob(reader, hash, "generation")?))
}

/// The policies of a generation. A disk that cannot be read is not a policy that is missing.
fn load_policies(reader: &Reader, spec: &EngineSpec) -> Result<PolicySet, PipelineError> {
    let failed = Cell::new(None);
    let policies = policies_of(spec, &|hash| {
        reader.blob(&hash).unwrap_or_else(|e| {
            failed.set(Some(e));
            None
        })
    });
    match failed.into_inner() {
        Some(e) => Err(e.into()),
        None => Ok(policies?),
    }
}

/// A blob of this type.
pub fn load_blob<T: serde::de::DeserializeOwned>(reader: &Reader, hash: Hash, what: &str) -> Result<T, PipelineError> {
    let bytes = reader.blob(&hash)?.ok_or_else(|| PipelineError::corrupt(what, hash))?;
    cbor::decode(&bytes).map_err(|e| PipelineError::corrupt(what, e))
}
