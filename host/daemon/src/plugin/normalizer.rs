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
use super::fault::PluginFault;
use super::frames::Frames;
use super::guest::{Counters, Guest, HostCalls};
use super::instance::{Answer, Exports, Instance};
use super::limits::{Budget, MAX_CALL_BYTES};
use super::load::Loaded;
use super::outcome::{self, Outcome};

/// Frames in one call at most: beyond this a call costs nothing more per frame (measured flat from 256 on).
const MAX_CALL_FRAMES: usize = 4096;

/// What a frame costs besides its bytes, in bytes: the share of a call that does not grow with a frame's length.
const FRAME_OVERHEAD_BYTES: u64 = 64;

/// Fuel per byte assumed before the first call; then the measured value is used.
const FIRST_FUEL_PER_BYTE: u64 = 32;

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
            if let Some(difference) = outcome.difference(&alone, i as u32) {
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
        if let Err(text) = outcome::check(&answer, n, limits.rows_per_frame, |id| self.instance.knows_series(id)) {
            self.instance.count_fault();
            self.instance.retire();
            return Err(PluginFault::BadOutput(text));
        }
        out.append(answer, range.start as u32);
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
