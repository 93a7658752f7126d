//! The whole: routes inputs to partitions, keeps the clocks of sources, and checkpoints.
//!
//! Every sample and every other input has a number, its place in the one global journal. Checkpoints fall at places
//! that depend on the journal alone, so a run that was killed and recovered has the same ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use hb_log::cbor;
use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

use crate::NS_PER_SEC;
use crate::baseline::Baseline;
use crate::decision::{BaselineRef, Decision};
use crate::judge::Judge;
use crate::partition::{Partition, PartitionInput, RestoreError, Sample, World};
use crate::series::{PartitionKey, SeriesDef, SeriesId};
use crate::spec::EngineSpec;

/// Samples between two checkpoints: bounds what a recovery or an evidence pack has to replay to about a second.
pub const CHECKPOINT_SAMPLES: u64 = 200_000;

/// Decisions between two checkpoints, per partition beyond the first 64.
pub const CHECKPOINT_DECISIONS: u64 = 4;

/// Decisions between two checkpoints, at least.
pub const CHECKPOINT_DECISIONS_MIN: u64 = 256;

/// Grid of source clocks: finer steps would wake partitions more often than anyone reads.
pub const TICK_NS: i64 = NS_PER_SEC;

/// One entry of the journal.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// Samples of one source in frame order.
    Samples(Samples<'a>),
    /// The clock of a source, ns; sources with event-time clocks need none.
    Tick {
        /// Source.
        source: &'a str,
        /// Time reached.
        now_ns: i64,
    },
    /// A new generation judges from here.
    Generation(Arc<EngineSpec>),
    /// A tag names another baseline from here, or none.
    Baseline {
        /// Tag.
        tag: &'a str,
        /// What it names.
        baseline: Option<(u32, Arc<Baseline>)>,
    },
    /// A source has ended.
    Seal {
        /// Source.
        source: &'a str,
    },
    /// A frame gave nothing because a guest failed on it. Changes no state; its place in the journal is its meaning.
    Fault,
}

/// Samples as columns of equal length.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    /// Source.
    pub source: &'a str,
    /// Number of the frame a sample came from; never falls.
    pub ordinal: &'a [u64],
    /// Series, defined before.
    pub series: &'a [SeriesId],
    /// Event time, ns.
    pub time_ns: &'a [i64],
    /// Value, finite.
    pub value: &'a [f64],
}

/// Why a sample did not enter each window that its time belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// A window it belongs to was judged before.
    Late,
    /// Its time jumped, and nothing confirmed it.
    Jumped,
    /// A cap on buckets, series or assets was reached.
    Cap,
}

impl Refusal {
    /// The reason as counted and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Late => "late",
            Refusal::Jumped => "time_jump",
            Refusal::Cap => "cap",
        }
    }
}

/// What should happen, in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A check was decided.
    Decision {
        /// Number of the input that closed the window; 0 of a partition that is fed alone.
        seq: u64,
        /// SHA-256 of `bytes`.
        hash: Hash,
        /// The decision.
        decision: Box<Decision>,
        /// Its canonical bytes.
        bytes: Vec<u8>,
        /// The inputs since its snapshot: of a new FAIL, and of every decision of an asset that is traced.
        trace: Option<Vec<PartitionInput>>,
    },
    /// A sample did not enter each window that its time belongs to.
    Refused {
        /// Why.
        why: Refusal,
        /// Its frame.
        ordinal: u64,
        /// Its series.
        series: SeriesDef,
        /// Its event time, ns.
        time_ns: i64,
        /// Its value.
        value: f64,
    },
    /// A partition's state to keep: all of a checkpoint carry the same `seq`.
    Snapshot {
        /// Asset.
        asset: String,
        /// Inputs up to and including this number are in it.
        seq: u64,
        /// SHA-256 of `bytes`.
        hash: Hash,
        /// Canonical CBOR.
        bytes: Vec<u8>,
    },
    /// A checkpoint: with the newest snapshot of each asset up to `seq`, the engine can go on from here.
    Checkpoint {
        /// Inputs up to and including this number are in it.
        seq: u64,
        /// Canonical CBOR of [`Core`].
        bytes: Vec<u8>,
    },
}

/// The engine's state outside partitions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Core {
    /// Number of the newest input.
    pub seq: u64,
    /// Active generation.
    pub generation: Option<Hash>,
    /// Tags and what they name.
    pub baselines: BTreeMap<String, BaselineRef>,
    /// Clock of each source, ns, on the grid of [`TICK_NS`].
    pub ticks: BTreeMap<String, i64>,
    /// For each source, by how much the samples far from its clock outnumber those near it.
    pub strays: BTreeMap<String, u32>,
}

/// So many more samples far from a source's clock than near it set the clock anew. One asset with a wrong clock never
/// gets there while others keep time; a source whose clock was set does within seconds.
const STRAYS_MAX: u32 = 64;

/// The pure decider: one lane of one program.
pub struct Engine {
    program: String,
    lane: String,
    core: Core,
    world: World,
    spec: Arc<EngineSpec>,
    partitions: Vec<Partition>,
    /// Places in `partitions`, in order of the assets' names: an order that survives a recovery.
    assets: BTreeMap<String, u32>,
    series: Vec<Option<Arc<SeriesDef>>>,
    /// By source number and series number; forgotten whenever a generation or baseline may change them.
    routes: Vec<Vec<Route>>,
    sources: Vec<String>,
    samples_since: u64,
    decisions_since: u64,
    trace: Option<String>,
}

/// Where the samples of a series from one source go.
#[derive(Clone, Copy, Debug)]
enum Route {
    Unknown,
    Shed,
    To { partition: u32, source: u32, series: u32 },
}

impl Engine {
    /// An engine without history.
    pub fn new(program: &str, lane: &str) -> Self {
        Engine {
            program: program.to_owned(),
            lane: lane.to_owned(),
            core: Core::default(),
            world: World::default(),
            spec: Arc::default(),
            partitions: Vec::new(),
            assets: BTreeMap::new(),
            series: Vec::new(),
            routes: Vec::new(),
            sources: Vec::new(),
            samples_since: 0,
            decisions_since: 0,
            trace: None,
        }
    }

    /// An engine at a checkpoint: `core` and the newest snapshot of each asset up to `core.seq`.
    ///
    /// # Errors
    /// When a snapshot is unreadable or `world` lacks content it refers to.
    pub fn restore(
        program: &str,
        lane: &str,
        core: &[u8],
        snapshots: &[Vec<u8>],
        world: World,
    ) -> Result<Self, RestoreError> {
        let mut engine = Engine::new(program, lane);
        engine.core = cbor::decode(core)?;
        if let Some(hash) = engine.core.generation {
            let spec = world.specs.get(&hash).ok_or(RestoreError::Missing("generation", hash))?;
            engine.spec = Arc::clone(spec);
        }
        for bytes in snapshots {
            let partition = Partition::restore(bytes, &world)?;
            engine.assets.insert(partition.key().asset.clone(), engine.partitions.len() as u32);
            engine.partitions.push(partition);
        }
        engine.world = world;
        Ok(engine)
    }

    /// Number of the newest input.
    pub fn seq(&self) -> u64 {
        self.core.seq
    }

    /// State outside partitions.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The sources of an asset, in order of their numbers; none of an asset it does not know.
    pub fn sources_of(&self, asset: &str) -> Vec<String> {
        let known = self.assets.get(asset).map(|&i| &self.partitions[i as usize]);
        known.map_or_else(Vec::new, Partition::source_names)
    }

    /// The earliest time, ns, at which the clock of a source makes a window close that gets no more samples.
    pub fn deadline(&self, source: &str) -> Option<i64> {
        let fed = self.partitions.iter().filter(|p| p.find_source(source).is_some());
        fed.filter_map(Partition::deadline).min()
    }

    /// Tells the engine what a series number means. Must come before its first sample; not a journal entry, the
    /// meaning of a number never changes.
    pub fn define(&mut self, id: SeriesId, def: SeriesDef) {
        let at = id as usize;
        if self.series.len() <= at {
            self.series.resize(at + 1, None);
        }
        self.series[at] = Some(Arc::new(def));
    }

    /// From now on every decision of this asset hands out what it was made from, for an evidence pack.
    pub fn trace(&mut self, asset: &str) {
        self.trace = Some(asset.to_owned());
        if let Some(&i) = self.assets.get(asset) {
            self.partitions[i as usize].trace();
        }
    }

    /// Takes one journal entry and returns what follows from it.
    pub fn step(&mut self, input: Input<'_>, judge: &mut dyn Judge) -> Vec<Effect> {
        let mut out = Vec::new();
        match input {
            Input::Samples(samples) => self.samples(samples, judge, &mut out),
            Input::Tick { source, now_ns } => {
                self.core.seq += 1;
                self.tick(source, now_ns, judge, &mut out);
            }
            Input::Generation(spec) => {
                self.core.seq += 1;
                let hash = spec.hash();
                self.core.generation = Some(hash);
                self.world.specs.insert(hash, Arc::clone(&spec));
                self.spec = spec;
                self.routes.clear();
                self.broadcast(&PartitionInput::Generation(hash), judge, &mut out);
                self.forget_replaced();
            }
            Input::Baseline { tag, baseline } => {
                self.core.seq += 1;
                let named = baseline.map(|(version, b)| {
                    let named = BaselineRef { tag: tag.to_owned(), version, hash: b.hash() };
                    self.world.baselines.insert(named.hash, b);
                    named
                });
                match &named {
                    Some(n) => self.core.baselines.insert(tag.to_owned(), n.clone()),
                    None => self.core.baselines.remove(tag),
                };
                self.broadcast(&PartitionInput::Baseline(tag.to_owned(), named), judge, &mut out);
                // A baseline may give numbers to series it expects.
                self.routes.clear();
                self.forget_replaced();
            }
            Input::Seal { source } => {
                self.core.seq += 1;
                for i in self.by_name() {
                    if let Some(local) = self.partitions[i].find_source(source) {
                        self.feed(i, PartitionInput::Seal(local), judge, &mut out);
                    }
                }
            }
            Input::Fault => self.core.seq += 1,
        }
        self.checkpoint_when_due(&mut out);
        out
    }

    /// Checkpoints now. The end of a run does this so that the next one starts without replay.
    pub fn checkpoint(&mut self) -> Vec<Effect> {
        let mut out = Vec::new();
        self.write_checkpoint(&mut out);
        out
    }

    fn samples(&mut self, s: Samples<'_>, judge: &mut dyn Judge, out: &mut Vec<Effect>) {
        let source_no = self.sources.iter().position(|n| n == s.source).unwrap_or_else(|| {
            self.sources.push(s.source.to_owned());
            self.sources.len() - 1
        });
        let mut tick = self.core.ticks.get(s.source).copied();
        for k in 0..s.series.len() {
            self.core.seq += 1;
            self.samples_since += 1;
            let route = match self.route(source_no, s.series[k]) {
                Route::Unknown => self.find_route(source_no, s.source, s.series[k], judge, out),
                known => known,
            };
            if let Route::To { partition, source, series } = route {
                let p = partition as usize;
                let before = out.len();
                let sample = Sample { source, series, ordinal: s.ordinal[k], time_ns: s.time_ns[k], value: s.value[k] };
                self.partitions[p].apply_sample(sample, judge, out);
                self.number_decisions(&mut out[before..]);
                if let Some(mark) = self.partitions[p].mark(source) {
                    tick = Some(self.follow(s.source, tick, mark, judge, out));
                }
            } else if let (Route::Shed, Some(def)) = (route, &self.series[s.series[k] as usize]) {
                out.push(Effect::Refused {
                    why: Refusal::Cap,
                    ordinal: s.ordinal[k],
                    series: SeriesDef::clone(def),
                    time_ns: s.time_ns[k],
                    value: s.value[k],
                });
            }
            self.checkpoint_when_due(out);
        }
    }

    /// The source's clock follows what its partitions believe, a step of the grid at a time; where one partition
    /// leaps, the clock waits for the others to do the same.
    #[inline]
    fn follow(
        &mut self,
        source: &str,
        tick: Option<i64>,
        mark: i64,
        judge: &mut dyn Judge,
        out: &mut Vec<Effect>,
    ) -> i64 {
        if let Some(tick) = tick {
            let is_far = mark.abs_diff(tick) > self.spec.max_jump_ns.unsigned_abs();
            if (is_far || !self.core.strays.is_empty()) && !self.set_anew(source, is_far) {
                return tick;
            }
            if !is_far && mark < tick.saturating_add(TICK_NS) {
                return tick;
            }
        }
        let tick = mark.div_euclid(TICK_NS).saturating_mul(TICK_NS);
        self.core.ticks.insert(source.to_owned(), tick);
        self.wake(source, tick, judge, out);
        tick
    }

    /// Counts a sample near or far from a source's clock; whether the clock may follow it.
    #[cold]
    fn set_anew(&mut self, source: &str, is_far: bool) -> bool {
        let strays = self.core.strays.get(source).copied().unwrap_or(0);
        let strays = if is_far { strays + 1 } else { strays.saturating_sub(1) };
        if strays == 0 || strays > STRAYS_MAX {
            self.core.strays.remove(source);
        } else {
            self.core.strays.insert(source.to_owned(), strays);
        }
        !is_far || strays > STRAYS_MAX
    }

    #[inline]
    fn route(&self, source_no: usize, id: SeriesId) -> Route {
        self.routes.get(source_no).and_then(|r| r.get(id as usize)).copied().unwrap_or(Route::Unknown)
    }

    /// Finds or makes the partition, source and series numbers of a series, and remembers them.
    #[cold]
    fn find_route(
        &mut self,
        source_no: usize,
        source: &str,
        id: SeriesId,
        judge: &mut dyn Judge,
        out: &mut Vec<Effect>,
    ) -> Route {
        let def = self.series.get(id as usize).cloned().flatten();
        let def = def.expect("a series is defined before its first sample");
        let asset = def.asset(&self.spec.asset_label).to_owned();
        let route = match self.assets.get(&asset) {
            None if self.assets.len() >= self.spec.caps.max_assets as usize => Route::Shed,
            known => {
                let known = known.map(|&p| p as usize);
                let p = known.unwrap_or_else(|| self.create(&asset, judge, out));
                let partition = &self.partitions[p];
                match (partition.find_series(&def), partition.is_full()) {
                    (None, true) => Route::Shed,
                    (found, _) => {
                        let local_source = self.partitions[p].find_source(source);
                        let local_source = local_source.unwrap_or_else(|| {
                            let clock_ns = self.core.ticks.get(source).copied();
                            let name = source.to_owned();
                            self.feed(p, PartitionInput::Source { name, clock_ns }, judge, out);
                            self.partitions[p].find_source(source).expect("it was just added")
                        });
                        let series = found.unwrap_or_else(|| {
                            self.feed(p, PartitionInput::Series(SeriesDef::clone(&def)), judge, out);
                            self.partitions[p].find_series(&def).expect("it was just added")
                        });
                        Route::To { partition: p as u32, source: local_source, series }
                    }
                }
            }
        };
        if self.routes.len() <= source_no {
            self.routes.resize(source_no + 1, Vec::new());
        }
        let routes = &mut self.routes[source_no];
        if routes.len() <= id as usize {
            routes.resize(id as usize + 1, Route::Unknown);
        }
        routes[id as usize] = route;
        route
    }

    /// Makes a partition that knows the current generation and baselines, and snapshots it: the first range of its
    /// journal starts there.
    fn create(&mut self, asset: &str, judge: &mut dyn Judge, out: &mut Vec<Effect>) -> usize {
        let key = PartitionKey { program: self.program.clone(), lane: self.lane.clone(), asset: asset.to_owned() };
        let mut partition = Partition::new(key);
        if let Some(hash) = self.core.generation {
            partition.apply(PartitionInput::Generation(hash), &self.world, judge, out);
        }
        for (tag, named) in &self.core.baselines {
            partition.apply(PartitionInput::Baseline(tag.clone(), Some(named.clone())), &self.world, judge, out);
        }
        let (hash, bytes) = partition.snapshot();
        // It holds nothing of the input that is being taken.
        out.push(Effect::Snapshot { asset: asset.to_owned(), seq: self.core.seq - 1, hash, bytes });
        if self.trace.as_deref() == Some(asset) {
            partition.trace();
        }
        let at = self.partitions.len();
        self.assets.insert(asset.to_owned(), at as u32);
        self.partitions.push(partition);
        at
    }

    fn feed(&mut self, partition: usize, input: PartitionInput, judge: &mut dyn Judge, out: &mut Vec<Effect>) {
        let before = out.len();
        self.partitions[partition].apply(input, &self.world, judge, out);
        self.number_decisions(&mut out[before..]);
    }

    #[inline]
    fn number_decisions(&mut self, effects: &mut [Effect]) {
        for effect in effects {
            if let Effect::Decision { seq, .. } = effect {
                *seq = self.core.seq;
                self.decisions_since += 1;
            }
        }
    }

    /// Lets go of generations and baselines that nothing names any more: a baseline that rolls is another one each hour.
    fn forget_replaced(&mut self) {
        let Core { generation, baselines, .. } = &self.core;
        self.world.specs.retain(|hash, _| *generation == Some(*hash));
        self.world.baselines.retain(|hash, _| baselines.values().any(|named| named.hash == *hash));
    }

    fn broadcast(&mut self, input: &PartitionInput, judge: &mut dyn Judge, out: &mut Vec<Effect>) {
        for i in self.by_name() {
            self.feed(i, input.clone(), judge, out);
        }
    }

    fn by_name(&self) -> Vec<usize> {
        self.assets.values().map(|&i| i as usize).collect()
    }

    fn tick(&mut self, source: &str, now_ns: i64, judge: &mut dyn Judge, out: &mut Vec<Effect>) {
        let tick = now_ns.div_euclid(TICK_NS).saturating_mul(TICK_NS);
        let known = self.core.ticks.entry(source.to_owned()).or_insert(i64::MIN);
        if tick > *known {
            *known = tick;
            self.wake(source, tick, judge, out);
        }
    }

    /// Tells the partitions of a source whose deadline has passed. Looks at every partition, once per tick of the
    /// source: cheap against the samples of a tick, and nothing cached that a recovery would have to rebuild.
    fn wake(&mut self, source: &str, now_ns: i64, judge: &mut dyn Judge, out: &mut Vec<Effect>) {
        // A clock far from an asset's own is no news about the asset, whoever is right.
        let far = self.spec.max_jump_ns;
        let is_due = |p: &Partition| {
            let is_near = p.newest().is_some_and(|mark| now_ns <= mark.saturating_add(far));
            is_near && p.deadline().is_some_and(|d| d <= now_ns) && p.find_source(source).is_some()
        };
        let due = self.assets.values().map(|&i| i as usize).filter(|&i| is_due(&self.partitions[i]));
        for i in due.collect::<Vec<_>>() {
            self.feed(i, PartitionInput::Wake(now_ns), judge, out);
        }
    }

    #[inline]
    fn checkpoint_when_due(&mut self, out: &mut Vec<Effect>) {
        if self.samples_since >= CHECKPOINT_SAMPLES || self.decisions_since >= CHECKPOINT_DECISIONS_MIN {
            let decisions = CHECKPOINT_DECISIONS_MIN.max(CHECKPOINT_DECISIONS * self.partitions.len() as u64);
            if self.samples_since >= CHECKPOINT_SAMPLES || self.decisions_since >= decisions {
                self.write_checkpoint(out);
            }
        }
    }

    fn write_checkpoint(&mut self, out: &mut Vec<Effect>) {
        self.samples_since = 0;
        self.decisions_since = 0;
        for i in self.by_name() {
            let partition = &mut self.partitions[i];
            if !partition.is_clean() {
                let (hash, bytes) = partition.snapshot();
                let asset = partition.key().asset.clone();
                out.push(Effect::Snapshot { asset, seq: self.core.seq, hash, bytes });
            }
        }
        out.push(Effect::Checkpoint { seq: self.core.seq, bytes: cbor::encode(&self.core) });
    }
}

#[cfg(test)]
mod tests;
