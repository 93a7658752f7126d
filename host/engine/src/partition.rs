//! One asset's state: its series, windows, rule states and the hash of everything it was fed.
//!
//! A partition is a function of its [`PartitionInput`]s: [`Partition::apply`] takes one and appends effects. The
//! engine feeds partitions while it runs; an evidence pack feeds one again, from a snapshot, and gets the same bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use hb_log::cbor::{self, CborError};
use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

use crate::baseline::Baseline;
use crate::decision::{BaselineRef, Counts, Mode, Status};
use crate::engine::{Effect, Refusal};
use crate::judge::Judge;
use crate::series::{PartitionKey, SeriesDef};
use crate::spec::{CheckSpec, EngineSpec, LatePolicy};
use crate::window::Grid;

mod names;
mod range;
mod verdict;

pub use names::Names;
use range::Range;

/// Distinct event times that must follow a jump before it is believed: one wrong clock reading is an error, three in
/// a row are a new clock.
const JUMP_CONFIRM_TIMES: usize = 3;

/// Distinct times that must follow a jump while another source of the asset still speaks at the old time: a clock that
/// is wrong for longer than most errors last, and yet not for ever.
const JUMP_CONFIRM_TIMES_ALONE: usize = 48;

/// Most samples held back while a jump is unconfirmed: three rows of a wide asset.
const JUMP_HELD_MAX: usize = 6_000;

/// Empty windows in a row that are judged, so that a k-of-n rule can conclude; later ones are only counted.
const EMPTY_WINDOWS_JUDGED: u32 = 16;

/// One thing a partition is told. Order is meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PartitionInput {
    /// A source appears; it gets the next source number.
    Source {
        /// Its name.
        name: String,
        /// Where its clock stands, ns: what the first time is measured against.
        clock_ns: Option<i64>,
    },
    /// A series appears; it gets the next series number.
    Series(SeriesDef),
    /// A sample.
    Sample(Sample),
    /// The clock of the sources that feed this partition reached this time, ns.
    Wake(i64),
    /// From now on this generation judges.
    Generation(Hash),
    /// From now on this tag names this baseline, or none.
    Baseline(String, Option<BaselineRef>),
    /// A source has ended; when all have, what is complete is judged now. Source number.
    Seal(u32),
}

/// A sample as a partition sees it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Source number.
    pub source: u32,
    /// Series number.
    pub series: u32,
    /// Frame it came from.
    pub ordinal: u64,
    /// Event time, ns.
    pub time_ns: i64,
    /// Value.
    pub value: f64,
}

/// Content a partition refers to by hash.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Generations by hash.
    pub specs: BTreeMap<Hash, Arc<EngineSpec>>,
    /// Baselines by hash.
    pub baselines: BTreeMap<Hash, Arc<Baseline>>,
}

/// State of one asset.
#[derive(Debug, Serialize, Deserialize)]
pub struct Partition {
    // In canonical order, as all that fills snapshots: an encoder that has to sort fields copies what is in them.
    v: u8,
    key: PartitionKey,
    mode: Mode,
    grids: Vec<Windows>,
    checks: Vec<CheckState>,
    counts: Counts,
    now_ns: i64,
    series: Vec<Series>,
    sources: Vec<Source>,
    baselines: BTreeMap<String, BaselineRef>,
    generation: Hash,
    /// Whether each decision hands out what it was made from, and not only a new FAIL.
    #[serde(skip)]
    is_traced: bool,
    #[serde(skip)]
    range: Range,
    #[serde(skip)]
    spec: Arc<EngineSpec>,
    #[serde(skip)]
    plans: Vec<verdict::Plan>,
}

/// Clock and held samples of one source.
#[derive(Debug, Serialize, Deserialize)]
struct Source {
    name: String,
    /// Newest accepted event time, ns.
    mark: Option<i64>,
    /// Where the clock of the whole source stood when this asset first heard of it, ns.
    clock_ns: Option<i64>,
    /// Whether it has ended, and nothing came since.
    is_sealed: bool,
    /// Samples whose time jumped and is not confirmed.
    held: Vec<Sample>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Series {
    def: SeriesDef,
    /// Whether a sample of it was ever accepted.
    seen: bool,
}

/// A grid and how far its windows are judged.
#[derive(Debug, Serialize, Deserialize)]
struct Windows {
    grid: Grid,
    /// Empty windows judged in a row.
    empty: u32,
    /// Start of the bucket of the first sample; windows that start before it are incomplete and not judged.
    first_ns: i64,
    /// End of the next window to judge; none before the first sample.
    next_end: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CheckState {
    id: String,
    window_ns: i64,
    every_ns: i64,
    status: Status,
    rules: Vec<RuleState>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RuleState {
    rule: String,
    slots: Vec<String>,
    /// `slots.len()` values for each series in turn.
    values: Vec<f64>,
}

impl Windows {
    /// Keeps what windows of `keep` steps need from now on. What was forgotten for shorter ones is not there: a longer
    /// one that would need it is not judged.
    fn resize(&mut self, keep: usize) {
        if let Some(next) = self.next_end
            && keep > self.grid.keep()
        {
            self.first_ns = self.first_ns.max(self.grid.oldest_kept(next));
        }
        self.grid.keep_steps(keep);
        if let Some(next) = self.next_end {
            self.grid.forget_before(self.grid.oldest_kept(next));
        }
    }
}

impl Partition {
    const V: u8 = 1;

    /// An empty partition.
    pub fn new(key: PartitionKey) -> Self {
        Partition {
            v: Self::V,
            key,
            generation: Hash::ZERO,
            baselines: BTreeMap::new(),
            sources: Vec::new(),
            series: Vec::new(),
            grids: Vec::new(),
            checks: Vec::new(),
            counts: Counts::default(),
            now_ns: i64::MIN,
            mode: Mode::default(),
            is_traced: false,
            range: Range::default(),
            spec: Arc::default(),
            plans: Vec::new(),
        }
    }

    /// Canonical CBOR of the state and its hash; the journal range starts anew behind it.
    pub fn snapshot(&mut self) -> (Hash, Vec<u8>) {
        let bytes = cbor::encode(self);
        let hash = Hash::of(&bytes);
        self.start_range(hash);
        (hash, bytes)
    }

    /// Rebuilds a partition from a snapshot.
    ///
    /// # Errors
    /// When the bytes are no snapshot of this version, or refer to a generation or baseline that `world` lacks.
    pub fn restore(bytes: &[u8], world: &World) -> Result<Self, RestoreError> {
        let mut p: Partition = cbor::decode(bytes)?;
        if p.v != Self::V {
            return Err(RestoreError::Version(p.v));
        }
        if p.generation != Hash::ZERO {
            let spec = world.specs.get(&p.generation).ok_or(RestoreError::Missing("generation", p.generation))?;
            p.spec = Arc::clone(spec);
        }
        for named in p.baselines.values() {
            if !world.baselines.contains_key(&named.hash) {
                return Err(RestoreError::Missing("baseline", named.hash));
            }
        }
        p.start_range(Hash::of(bytes));
        p.plan(world);
        Ok(p)
    }

    /// Whose state this is.
    pub fn key(&self) -> &PartitionKey {
        &self.key
    }

    /// Whether nothing was fed since the newest snapshot.
    pub fn is_clean(&self) -> bool {
        self.range.inputs == 0
    }

    /// Number of the series, when it is known.
    pub fn find_series(&self, def: &SeriesDef) -> Option<u32> {
        self.series.iter().position(|s| s.def.names_same(def)).map(|i| i as u32)
    }

    /// Number of the source, when it is known.
    pub fn find_source(&self, name: &str) -> Option<u32> {
        self.sources.iter().position(|s| s.name == name).map(|i| i as u32)
    }

    /// Names of the sources, in order of their numbers.
    pub fn source_names(&self) -> Vec<String> {
        self.sources.iter().map(|s| s.name.clone()).collect()
    }

    /// Number of series known.
    pub fn series_len(&self) -> usize {
        self.series.len()
    }

    /// Whether a series that is not known is shed.
    pub fn is_full(&self) -> bool {
        self.series.len() >= self.spec.caps.max_series as usize
    }

    /// Newest accepted event time of a source, ns.
    pub fn mark(&self, source: u32) -> Option<i64> {
        self.sources.get(source as usize).and_then(|s| s.mark)
    }

    /// Newest accepted event time of all sources, ns.
    pub fn newest(&self) -> Option<i64> {
        self.sources.iter().filter_map(|s| s.mark).max()
    }

    /// The clock time, ns, at which a window must close even without a sample.
    pub fn deadline(&self) -> Option<i64> {
        let end = self.grids.iter().filter_map(|w| w.next_end).min()?;
        Some(end.saturating_add(self.spec.lateness_ns).saturating_add(self.spec.idle_ns))
    }

    /// From now on every decision hands out the inputs it was made from.
    pub fn trace(&mut self) {
        self.is_traced = true;
    }

    /// Takes one input and appends what follows from it.
    pub fn apply(&mut self, input: PartitionInput, world: &World, judge: &mut dyn Judge, out: &mut Vec<Effect>) {
        if let PartitionInput::Sample(sample) = input {
            return self.apply_sample(sample, judge, out);
        }
        self.range.add(&input);
        match input {
            PartitionInput::Sample(..) => {}
            PartitionInput::Wake(now) => {
                self.now_ns = self.now_ns.max(now);
                let until = now.saturating_sub(self.spec.idle_ns).saturating_sub(self.spec.lateness_ns);
                self.close_until(until, judge, out);
            }
            PartitionInput::Seal(source) => self.seal(source, judge, out),
            naming => self.learn(naming, world),
        }
    }

    /// Takes an input that names something: a source, a series, a generation, a baseline. Nothing is judged by it.
    pub fn learn(&mut self, input: PartitionInput, world: &World) {
        match input {
            PartitionInput::Source { name, clock_ns } => {
                self.sources.push(Source { name, mark: None, clock_ns, is_sealed: false, held: Vec::new() });
            }
            PartitionInput::Series(def) => {
                self.series.push(Series { def, seen: false });
                self.plan(world);
            }
            PartitionInput::Generation(hash) => self.turn_to(hash, world),
            PartitionInput::Baseline(tag, named) => {
                match named {
                    Some(named) => self.baselines.insert(tag, named),
                    None => self.baselines.remove(&tag),
                };
                self.plan(world);
            }
            PartitionInput::Sample(..) | PartitionInput::Wake(..) | PartitionInput::Seal(..) => {}
        }
    }

    /// Takes a sample without building an input for it: the hot path of [`Partition::apply`].
    #[inline]
    pub fn apply_sample(&mut self, sample: Sample, judge: &mut dyn Judge, out: &mut Vec<Effect>) {
        self.range.add_sample(&sample);
        let max_jump = self.spec.max_jump_ns;
        let src = &mut self.sources[sample.source as usize];
        let t = sample.time_ns;
        src.is_sealed = false;
        let known = src.mark.or(src.clock_ns);
        let near = known.is_none_or(|m| t <= m.saturating_add(max_jump) && t >= m.saturating_sub(max_jump));
        if !near {
            return self.hold(sample, judge, out);
        }
        if !src.held.is_empty() {
            let wrong = std::mem::take(&mut src.held);
            self.refuse(Refusal::Jumped, &wrong, out);
        }
        self.accept(sample, judge, out);
    }

    /// Keeps a sample whose time jumped until enough others say the same.
    #[cold]
    fn hold(&mut self, sample: Sample, judge: &mut dyn Judge, out: &mut Vec<Effect>) {
        let max_jump = self.spec.max_jump_ns.unsigned_abs();
        let old = self.sources[sample.source as usize].mark;
        let others = self.sources.iter().enumerate().filter(|(i, s)| *i != sample.source as usize && !s.is_sealed);
        let alone = old.is_some_and(|old| {
            let stayed = |m: i64| m.abs_diff(old) <= max_jump;
            others.filter_map(|(_, s)| s.mark).any(stayed)
        });
        let confirm = if alone { JUMP_CONFIRM_TIMES_ALONE } else { JUMP_CONFIRM_TIMES };
        let src = &mut self.sources[sample.source as usize];
        // Held samples must agree among themselves, or the newest one starts a new suspicion.
        let disagree = src.held.iter().any(|h| h.time_ns.abs_diff(sample.time_ns) > max_jump);
        let wrong = if disagree || src.held.len() >= JUMP_HELD_MAX { std::mem::take(&mut src.held) } else { vec![] };
        src.held.push(sample);
        let mut times: Vec<i64> = src.held.iter().map(|h| h.time_ns).collect();
        times.sort_unstable();
        times.dedup();
        let believed = if times.len() >= confirm { std::mem::take(&mut src.held) } else { vec![] };
        let back = src.mark.is_some_and(|m| sample.time_ns < m);
        self.refuse(Refusal::Jumped, &wrong, out);
        if back && !believed.is_empty() {
            self.restart_clock(sample.source);
        }
        for sample in believed {
            self.accept(sample, judge, out);
        }
    }

    /// Files a sample whose time is believed, then judges what it completes. It is refused when one grid does not take
    /// it: what is too late for windows of a second may be in time for those of an hour, and is lost to the former.
    fn accept(&mut self, sample: Sample, judge: &mut dyn Judge, out: &mut Vec<Effect>) {
        let (t, series) = (sample.time_ns, sample.series as usize);
        let mut refusal = None;
        for w in &mut self.grids {
            let judged = w.next_end.map_or(i64::MIN, |end| end.saturating_sub(w.grid.step_ns()));
            if w.next_end.is_none() {
                // Samples that are late within the allowance may come before this one, and are filed. But what began
                // before telemetry did is not judged: nothing was silent then.
                w.next_end = Some(w.grid.end_after(t.saturating_sub(self.spec.lateness_ns)));
                w.first_ns = w.grid.end_after(t).saturating_sub(w.grid.step_ns());
            }
            if t < judged && (self.spec.late != LatePolicy::Buffer || t < w.grid.oldest_kept(judged)) {
                refusal = Some(Refusal::Late);
            } else if w.grid.len() >= self.spec.caps.max_buckets as usize && !w.grid.holds(t) {
                refusal = Some(Refusal::Cap);
            } else {
                w.grid.push(series, t, sample.value);
            }
        }
        if let Some(why) = refusal {
            self.refuse(why, &[sample], out);
        }
        self.series[series].seen = true;
        let src = &mut self.sources[sample.source as usize];
        if src.mark.is_none_or(|m| t > m) {
            src.mark = Some(t);
            self.now_ns = self.now_ns.max(t);
            let until = self.watermark();
            self.close_until(until, judge, out);
        }
    }

    /// Oldest mark of the sources that are neither idle nor at their end, less the allowed lateness.
    fn watermark(&self) -> i64 {
        let running = self.sources.iter().filter(|s| !s.is_sealed);
        let newest = running.clone().filter_map(|s| s.mark).max().unwrap_or(i64::MIN);
        let idle_before = newest.saturating_sub(self.spec.idle_ns);
        let oldest = running.filter_map(|s| s.mark).filter(|m| *m >= idle_before).min();
        oldest.unwrap_or(newest).saturating_sub(self.spec.lateness_ns)
    }

    /// Judges every window that ends at or before `until`, oldest first.
    fn close_until(&mut self, until: i64, judge: &mut dyn Judge, out: &mut Vec<Effect>) {
        loop {
            let next = self.grids.iter().enumerate().filter_map(|(i, w)| w.next_end.map(|end| (end, i))).min();
            let Some((end, at)) = next else { return };
            if end > until || end == i64::MAX {
                return;
            }
            let step = self.grids[at].grid.step_ns();
            let keep_from = self.grids[at].grid.oldest_kept(end);
            let empty = self.grids[at].grid.first_from(keep_from).is_none_or(|start| start >= end);
            self.grids[at].empty = if empty { self.grids[at].empty.saturating_add(1) } else { 0 };
            if self.grids[at].empty > EMPTY_WINDOWS_JUDGED {
                self.counts.skipped_windows += 1;
            } else {
                self.judge_windows(step, end, self.grids[at].first_ns, judge, out);
            }
            let w = &mut self.grids[at];
            w.grid.forget_before(keep_from.saturating_add(step));
            let mut next = end.saturating_add(step);
            if w.empty >= EMPTY_WINDOWS_JUDGED {
                // Nothing will be judged before the next sample's bucket: go there in one step.
                let ahead = w.grid.first_from(i64::MIN).unwrap_or(until).min(until);
                let target = w.grid.end_after(ahead).max(next);
                self.counts.skipped_windows += (target.saturating_sub(next) / step) as u64;
                next = target;
            }
            w.next_end = Some(next);
        }
    }

    /// A source ends: it holds no window open any more. When none runs, nothing late can come, and all that is
    /// complete is judged.
    fn seal(&mut self, source: u32, judge: &mut dyn Judge, out: &mut Vec<Effect>) {
        let src = &mut self.sources[source as usize];
        src.is_sealed = true;
        let wrong = std::mem::take(&mut src.held);
        self.refuse(Refusal::Jumped, &wrong, out);
        let running = self.sources.iter().any(|s| !s.is_sealed && s.mark.is_some());
        let newest = self.sources.iter().filter_map(|s| s.mark).max();
        let until = if running { Some(self.watermark()) } else { newest.map(|m| m.saturating_add(1)) };
        if let Some(until) = until {
            self.close_until(until, judge, out);
        }
    }

    /// The clock of a source was set back: its windows start again there.
    fn restart_clock(&mut self, source: u32) {
        self.sources[source as usize].mark = None;
        for w in &mut self.grids {
            w.grid.forget_before(i64::MAX);
            w.next_end = None;
            w.empty = 0;
        }
        self.now_ns = i64::MIN;
    }

    fn refuse(&mut self, why: Refusal, samples: &[Sample], out: &mut Vec<Effect>) {
        let count = samples.len() as u64;
        match why {
            Refusal::Late => self.counts.late += count,
            Refusal::Jumped => self.counts.jumped += count,
            Refusal::Cap => self.counts.shed += count,
        }
        for s in samples {
            let series = self.series[s.series as usize].def.clone();
            out.push(Effect::Refused { why, ordinal: s.ordinal, series, time_ns: s.time_ns, value: s.value });
        }
    }

    /// Adopts a generation: windows and rule states of equal shape go on, others start anew.
    fn turn_to(&mut self, hash: Hash, world: &World) {
        let Some(spec) = world.specs.get(&hash) else { return };
        self.spec = Arc::clone(spec);
        self.generation = hash;
        self.range.generations.push(hash);
        let asset = self.key.asset.clone();
        let wanted: Vec<&CheckSpec> = self.spec.checks.iter().filter(|c| c.wants_asset(&asset)).collect();
        let mut steps: Vec<i64> = wanted.iter().map(|c| c.every_ns).collect();
        steps.sort_unstable();
        steps.dedup();
        let mut old: Vec<Windows> = std::mem::take(&mut self.grids);
        for step in steps {
            let keep = wanted.iter().filter(|c| c.every_ns == step).map(|c| c.buckets()).max().unwrap_or(1);
            let same = old.iter().position(|w| w.grid.step_ns() == step);
            let mut windows = same.map_or_else(
                || Windows { grid: Grid::new(step, keep), first_ns: 0, next_end: None, empty: 0 },
                |i| old.swap_remove(i),
            );
            windows.resize(keep);
            self.grids.push(windows);
        }
        let mut states = std::mem::take(&mut self.checks);
        for check in wanted {
            let same = states
                .iter()
                .position(|s| s.id == check.id && s.window_ns == check.window_ns && s.every_ns == check.every_ns);
            let mut state = same.map_or_else(
                || CheckState {
                    id: check.id.clone(),
                    window_ns: check.window_ns,
                    every_ns: check.every_ns,
                    status: Status::Pass,
                    rules: Vec::new(),
                },
                |i| states.swap_remove(i),
            );
            let mut rules = std::mem::take(&mut state.rules);
            for used in &check.rules {
                let slots: Vec<String> = used.state.iter().map(|s| s.0.clone()).collect();
                let same = rules.iter().position(|r| r.rule == used.rule && r.slots == slots);
                state.rules.push(same.map_or_else(
                    || RuleState { rule: used.rule.clone(), slots, values: Vec::new() },
                    |i| rules.swap_remove(i),
                ));
            }
            self.checks.push(state);
        }
        self.plan(world);
    }

    fn start_range(&mut self, snapshot: Hash) {
        self.range.restart(snapshot);
        if self.generation != Hash::ZERO {
            self.range.generations.push(self.generation);
        }
    }
}

/// Why a snapshot could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Not canonical CBOR of this structure.
    #[error("the snapshot cannot be read")]
    Decode(#[from] CborError),
    /// Written by another version.
    #[error("the snapshot has version {0}; this release reads version 1")]
    Version(u8),
    /// Content it refers to is not there.
    #[error("the snapshot needs {0} {1}, which is missing")]
    Missing(&'static str, Hash),
}
