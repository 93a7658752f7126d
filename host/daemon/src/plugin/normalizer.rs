//! Normalizers: frames in, samples and events out, each frame by itself.
//!
//! The result is a function of settings, series table and each single frame. Three rules make it independent of how
//! frames were batched, even for frames that fault:
//!
//! 1. A call may spend the fuel that its *smallest* frame may spend alone, however many frames it carries. If a call
//!    fits, each of its frames would have fitted alone. Calls are cut to an expected half of that.
//! 2. A call that ends in any fault gives nothing. It is cut in halves, each on a fresh instance, down to single
//!    frames; so a frame is guilty only when it faults alone on a fresh instance. `k` guilty frames among `n` cost
//!    O(k log n) rebuilds.
//! 3. What comes back is checked as a whole: columns, order, ids, numbers, and that each frame is accounted for.

use std::ops::Range;

use wasmtime::Store;
use wasmtime::component::{Instance as Component, InstancePre};

use super::bindings::exports::hb::plugin::normalize;
use super::fault::{PluginFault, reason};
use super::frames::Frames;
use super::instance::{Answer, Budget, Counters, Exports, Guest, HostCalls, Instance};
use super::limits::MAX_CALL_BYTES;
use super::load::Loaded;
use super::{Event, Reject};

/// Frames in one call at most: beyond this a call costs nothing more per frame (measured flat from 256 on).
const MAX_CALL_FRAMES: usize = 4096;

/// What a frame costs besides its bytes, in bytes: the share of a call that does not grow with a frame's length.
const FRAME_OVERHEAD_BYTES: u64 = 64;

/// Fuel per byte assumed before the first call; then the measured value is used.
const FIRST_FUEL_PER_BYTE: u64 = 16;

/// What a batch became. Rows, events, rejects and faults are in the order of their frames.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Row `k` came from frame `frame[k]`; never falls.
    pub frame: Vec<u32>,
    /// Its series.
    pub series: Vec<u32>,
    /// Its event time, nanoseconds since the Unix epoch.
    pub time_ns: Vec<i64>,
    /// Its value; never NaN or infinite.
    pub value: Vec<f64>,
    /// Events.
    pub events: Vec<Event>,
    /// Frames the plugin could not read, with its reason (neutralised).
    pub rejects: Vec<Reject>,
    /// Frames that meant nothing to the plugin.
    pub ignored: u32,
    /// Guilty frames: for the dead-letter store.
    pub faults: Vec<(u32, PluginFault)>,
}

/// A normalizer at work.
pub struct NormalizerInstance {
    instance: Instance<normalize::Guest>,
    fuel_per_byte: u64,
}

impl NormalizerInstance {
    /// Starts a normalizer with settings (JSON) that its schema has accepted.
    pub fn new(loaded: &Loaded, settings_json: &str, calls: Box<dyn HostCalls>) -> Result<Self, PluginFault> {
        let instance = Instance::start(loaded, settings_json, calls)?;
        Ok(NormalizerInstance { instance, fuel_per_byte: FIRST_FUEL_PER_BYTE })
    }

    /// Normalizes a batch. Never fails as a whole: what goes wrong is in [`Outcome::faults`].
    pub fn run(&mut self, frames: &Frames) -> Outcome {
        let mut out = Outcome::default();
        let mut start = 0;
        while start < frames.len() {
            let end = self.cut(frames, start);
            self.run_range(frames, start..end, false, &mut out);
            start = end;
        }
        out
    }

    /// Runs each frame of `picks` again, alone and on a fresh instance, and compares the results bit by bit with
    /// `outcome` (of the same frames). The first difference is [`PluginFault::Impure`].
    pub fn probe(
        &mut self,
        frames: &Frames,
        outcome: &Outcome,
        picks: impl IntoIterator<Item = usize>,
    ) -> Result<(), PluginFault> {
        for i in picks {
            if i >= frames.len() || outcome.faults.iter().any(|(f, _)| *f as usize == i) {
                continue;
            }
            self.instance.retire();
            let mut alone = Outcome::default();
            if let Err(fault) = self.call(frames, i..i + 1, &mut alone) {
                return Err(self.impure(i, &format!("alone it faults: {fault}")));
            }
            if let Some(difference) = difference(outcome, &alone, i as u32) {
                return Err(self.impure(i, &difference));
            }
        }
        Ok(())
    }

    /// Calls, faults, rebuilds, fuel.
    pub fn counters(&self) -> Counters {
        self.instance.counters()
    }

    // The end of the call that begins at `start`: expected to spend half of what its smallest frame may spend.
    fn cut(&self, frames: &Frames, start: usize) -> usize {
        let limits = &self.instance.loaded().inner.limits;
        let (mut cost, mut bytes, mut budget) = (0, 0, u64::MAX);
        for i in start..frames.len().min(start + MAX_CALL_FRAMES) {
            let len = frames.frame_len(i);
            cost += (len as u64 + FRAME_OVERHEAD_BYTES).saturating_mul(self.fuel_per_byte);
            bytes += len;
            budget = budget.min(limits.frame_fuel(len));
            if i > start && (cost > budget / 2 || bytes > MAX_CALL_BYTES) {
                return i;
            }
        }
        frames.len().min(start + MAX_CALL_FRAMES)
    }

    // Recursion is as deep as a call can be halved: 13 for MAX_CALL_FRAMES.
    fn run_range(&mut self, frames: &Frames, range: Range<usize>, fresh: bool, out: &mut Outcome) {
        if fresh {
            self.instance.retire();
        }
        // A guest that cannot even be started would blame each frame in turn; all of them say why at once.
        if let Err(fault) = self.instance.ensure_alive() {
            out.faults.extend(range.map(|i| (i as u32, fault.clone())));
            return;
        }
        let Err(fault) = self.call(frames, range.clone(), out) else { return };
        match range.len() {
            1 if fresh => out.faults.push((range.start as u32, fault)),
            1 => self.run_range(frames, range, true, out),
            n => {
                let mid = range.start + n / 2;
                self.run_range(frames, range.start..mid, true, out);
                self.run_range(frames, mid..range.end, true, out);
            }
        }
    }

    // One call into the guest; appends to `out` only when all of it is good.
    fn call(&mut self, frames: &Frames, range: Range<usize>, out: &mut Outcome) -> Result<(), PluginFault> {
        let limits = self.instance.loaded().inner.limits;
        let budget = range.clone().map(|i| limits.frame_fuel(frames.frame_len(i))).min().unwrap_or(0);
        let (answer, spent) = frames.view(range.clone(), |view| {
            self.instance.call(Budget::Fuel(budget), |exports, store| exports.call_run(store, view))
        });
        let answer = answer?;
        let bytes: u64 = range.clone().map(|i| frames.frame_len(i) as u64 + FRAME_OVERHEAD_BYTES).sum();
        self.fuel_per_byte = (spent / bytes.max(1)).max(1);
        let n = range.len() as u32;
        if let Err(text) = check(&answer, n, limits.rows_per_frame, |id| self.instance.knows_series(id)) {
            self.instance.count_fault();
            self.instance.retire();
            return Err(PluginFault::BadOutput(text));
        }
        append(out, answer, range.start as u32);
        Ok(())
    }

    fn impure(&mut self, frame: usize, text: &str) -> PluginFault {
        self.instance.count_fault();
        PluginFault::Impure(format!("frame {frame}: {text}"))
    }
}

impl Exports for normalize::Guest {
    fn find(store: &mut Store<Guest>, instance: &Component, pre: &InstancePre<Guest>) -> wasmtime::Result<Self> {
        normalize::GuestIndices::new(pre)?.load(store, instance)
    }

    fn configure(&self, store: &mut Store<Guest>, settings: &str) -> Answer<()> {
        self.call_configure(store, settings)
    }
}

// What the contract demands of an answer about `n` frames.
fn check(
    answer: &normalize::Outcome,
    n: u32,
    rows_per_frame: u32,
    knows_series: impl Fn(u32) -> bool,
) -> Result<(), String> {
    let s = &answer.samples;
    let rows = s.frame.len();
    if s.series.len() != rows || s.time_ns.len() != rows || s.value.len() != rows {
        return Err(format!(
            "columns of unequal length: {rows} frames, {} series, {} times, {} values",
            s.series.len(),
            s.time_ns.len(),
            s.value.len()
        ));
    }
    if let Some(k) = s.frame.windows(2).position(|w| w[0] > w[1]) {
        return Err(format!("row {}: the frame falls from {} to {}", k + 1, s.frame[k], s.frame[k + 1]));
    }
    if let Some(&frame) = s.frame.last().filter(|&&f| f >= n) {
        return Err(format!("a sample names frame {frame} of {n}"));
    }
    if let Some(k) = s.value.iter().position(|v| !v.is_finite()) {
        return Err(format!("row {k}: the value is {}", s.value[k]));
    }
    if let Some(k) = s.series.iter().position(|&id| !knows_series(id)) {
        return Err(format!("row {k}: series {} was not defined by this plugin", s.series[k]));
    }
    if let Some(w) = answer.events.windows(2).find(|w| w[0].frame > w[1].frame) {
        return Err(format!("the frame of the events falls from {} to {}", w[0].frame, w[1].frame));
    }
    if let Some(w) = answer.rejects.windows(2).find(|w| w[0].frame > w[1].frame) {
        return Err(format!("the frame of the rejects falls from {} to {}", w[0].frame, w[1].frame));
    }
    account(answer, n, rows_per_frame)
}

// Each frame ends as rows (samples, events), or as one reject, or is counted as ignored.
fn account(answer: &normalize::Outcome, n: u32, rows_per_frame: u32) -> Result<(), String> {
    const REJECTED: u32 = u32::MAX;
    let mut rows = vec![0u32; n as usize];
    for &frame in &answer.samples.frame {
        rows[frame as usize] += 1;
    }
    for event in &answer.events {
        let count = rows.get_mut(event.frame as usize).ok_or(format!("an event names frame {} of {n}", event.frame))?;
        *count += 1;
    }
    if let Some(i) = rows.iter().position(|&r| r > rows_per_frame) {
        return Err(format!("frame {i} gave {} rows; at most {rows_per_frame} are allowed", rows[i]));
    }
    for reject in &answer.rejects {
        match rows.get_mut(reject.frame as usize) {
            None => return Err(format!("a reject names frame {} of {n}", reject.frame)),
            Some(r @ 0) => *r = REJECTED,
            Some(&mut REJECTED) => return Err(format!("frame {} is rejected twice", reject.frame)),
            Some(_) => return Err(format!("frame {} is rejected and also gave rows", reject.frame)),
        }
    }
    let unaccounted = rows.iter().filter(|&&r| r == 0).count();
    if unaccounted != answer.ignored as usize {
        return Err(format!(
            "{unaccounted} frames gave neither rows nor a reject, but {} count as ignored",
            answer.ignored
        ));
    }
    Ok(())
}

fn append(out: &mut Outcome, answer: normalize::Outcome, offset: u32) {
    let s = answer.samples;
    out.frame.extend(s.frame.iter().map(|f| f + offset));
    out.series.extend_from_slice(&s.series);
    out.time_ns.extend_from_slice(&s.time_ns);
    out.value.extend_from_slice(&s.value);
    out.events.extend(answer.events.into_iter().map(|e| Event { frame: e.frame + offset, ..e }));
    out.rejects
        .extend(answer.rejects.into_iter().map(|r| Reject { frame: r.frame + offset, reason: reason(&r.reason) }));
    out.ignored += answer.ignored;
}

// How `alone` (frame 0 of its own batch) differs from frame `i` of `whole`.
fn difference(whole: &Outcome, alone: &Outcome, i: u32) -> Option<String> {
    let from = whole.frame.partition_point(|&f| f < i);
    let to = whole.frame.partition_point(|&f| f <= i);
    if to - from != alone.frame.len() {
        return Some(format!("{} samples in its batch, {} alone", to - from, alone.frame.len()));
    }
    for (k, row) in (from..to).enumerate() {
        let (a, b) = ((whole.series[row], whole.time_ns[row]), (alone.series[k], alone.time_ns[k]));
        if a != b {
            return Some(format!(
                "sample {k} is (series {}, time {}) in its batch, ({}, {}) alone",
                a.0, a.1, b.0, b.1
            ));
        }
        let (a, b) = (whole.value[row], alone.value[k]);
        if a.to_bits() != b.to_bits() {
            return Some(format!("sample {k} is {a} in its batch, {b} alone"));
        }
    }
    let events = whole.events.iter().filter(|e| e.frame == i);
    if !events.map(content).eq(alone.events.iter().map(content)) {
        return Some("its events differ".into());
    }
    let rejects = whole.rejects.iter().filter(|r| r.frame == i).map(|r| &r.reason);
    (!rejects.eq(alone.rejects.iter().map(|r| &r.reason))).then(|| "its reject differs".into())
}

fn content(e: &Event) -> (&str, i64, &[u8], Vec<(&str, &str)>) {
    let attributes = e.attributes.iter().map(|a| (a.key.as_str(), a.value.as_str())).collect();
    (&e.kind, e.time_ns, &e.body, attributes)
}
