//! The inputs of a partition since its newest snapshot: hashed as they come, and kept for the pack of a failure.

use hb_log::cbor;
use hb_log::hash::{Hash, Hasher};

use super::{PartitionInput, Sample};

/// The journal range since the newest snapshot.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) snapshot: Hash,
    pub(super) hasher: Hasher,
    pub(super) inputs: u64,
    pub(super) generations: Vec<Hash>,
    pub(super) trace: Trace,
}

/// The inputs themselves, samples apart because they are many: at most one checkpoint's worth, 32 bytes each.
#[derive(Debug, Default)]
pub(super) struct Trace {
    samples: Vec<Sample>,
    /// With the number of samples before it.
    others: Vec<(usize, PartitionInput)>,
}

impl Default for Range {
    fn default() -> Self {
        Range {
            snapshot: Hash::ZERO,
            hasher: Hasher::new(),
            inputs: 0,
            generations: Vec::new(),
            trace: Trace::default(),
        }
    }
}

impl Range {
    /// Begins anew behind a snapshot, keeping memory.
    pub(super) fn restart(&mut self, snapshot: Hash) {
        let mut trace = std::mem::take(&mut self.trace);
        trace.samples.clear();
        trace.others.clear();
        *self = Range { snapshot, trace, ..Range::default() };
    }

    /// Adds an input to the hash as marked canonical CBOR.
    pub(super) fn add(&mut self, input: &PartitionInput) {
        self.inputs += 1;
        let bytes = cbor::encode(input);
        // No source has this number, so the marker cannot be mistaken for a sample.
        self.hasher.update(&u32::MAX.to_le_bytes());
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(&bytes);
        self.trace.others.push((self.trace.samples.len(), input.clone()));
    }

    /// Adds a sample to the hash as 32 bytes.
    #[inline]
    pub(super) fn add_sample(&mut self, s: &Sample) {
        self.inputs += 1;
        let mut record = [0_u8; 32];
        record[..4].copy_from_slice(&s.source.to_le_bytes());
        record[4..8].copy_from_slice(&s.series.to_le_bytes());
        record[8..16].copy_from_slice(&s.ordinal.to_le_bytes());
        record[16..24].copy_from_slice(&s.time_ns.to_le_bytes());
        record[24..].copy_from_slice(&s.value.to_bits().to_le_bytes());
        self.hasher.update(&record);
        self.trace.samples.push(*s);
    }
}

impl Trace {
    /// All inputs in order.
    pub(super) fn inputs(&self) -> Vec<PartitionInput> {
        let mut inputs = Vec::with_capacity(self.samples.len() + self.others.len());
        let mut from = 0;
        for (at, other) in &self.others {
            inputs.extend(self.samples[from..*at].iter().map(|s| PartitionInput::Sample(*s)));
            inputs.push(other.clone());
            from = *at;
        }
        inputs.extend(self.samples[from..].iter().map(|s| PartitionInput::Sample(*s)));
        inputs
    }
}
