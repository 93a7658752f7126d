//! What retention must know of a lane: which baselines it compares with, which of its cases are open, what a case needs.

use std::collections::{BTreeMap, BTreeSet};

use hb_engine::decision::{BaselineRef, Decision};
use hb_engine::engine::Core;
use hb_engine::partition::PartitionInput;
use hb_log::hash::Hash;

use super::PipelineError;
use crate::case::Case;
use crate::state::Reader;

/// Baselines that a lane compared with since its newest checkpoint.
#[derive(Debug, Default)]
pub(super) struct Compared(BTreeSet<Hash>);

impl Compared {
    /// A checkpoint was made.
    pub(super) fn restart(&mut self, core: &Core) {
        self.0 = core.baselines.values().map(|named| named.hash).collect();
    }

    /// Another one is compared with.
    pub(super) fn add(&mut self, named: Option<&BaselineRef>) {
        self.0.extend(named.map(|named| named.hash));
    }

    /// All since the checkpoint.
    pub(super) fn all(&self) -> Vec<Hash> {
        self.0.iter().copied().collect()
    }

    /// Those compared with now.
    pub(super) fn now(core: &Core) -> Vec<Hash> {
        let hashes: BTreeSet<Hash> = core.baselines.values().map(|named| named.hash).collect();
        hashes.into_iter().collect()
    }
}

/// Cases that are open, by check and asset.
#[derive(Debug, Default)]
pub(super) struct OpenCases(BTreeMap<(String, String), Vec<String>>);

impl OpenCases {
    /// Those of a lane.
    pub(super) fn load(reader: &Reader, program: &str, lane: &str) -> Result<Self, PipelineError> {
        let mut open = Self::default();
        for hold in reader.holds(program)?.into_iter().filter(|hold| hold.lane == lane && hold.kept.open) {
            open.0.entry((hold.check, hold.asset)).or_default().push(hold.case);
        }
        Ok(open)
    }

    /// A case was opened.
    pub(super) fn add(&mut self, case: &Case) {
        self.0.entry((case.check.clone(), case.asset.clone())).or_default().push(case.id.clone());
    }

    /// The cases that a better decision ends.
    pub(super) fn resolve(&mut self, decision: &Decision) -> Vec<String> {
        if self.0.is_empty() {
            return Vec::new();
        }
        self.0.remove(&(decision.check.clone(), decision.asset.clone())).unwrap_or_default()
    }
}

/// The frames that inputs came from: by source, the first and the last.
pub(super) fn frame_ranges(sources: &[String], inputs: &[PartitionInput]) -> Vec<(String, u64, u64)> {
    let mut ranges: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for input in inputs {
        if let PartitionInput::Sample(s) = input {
            let range = ranges.entry(s.source).or_insert((s.ordinal, s.ordinal));
            *range = (range.0.min(s.ordinal), range.1.max(s.ordinal));
        }
    }
    let named =
        ranges.into_iter().filter_map(|(source, (first, last))| Some((sources.get(source as usize)?, first, last)));
    named.map(|(source, first, last)| (source.clone(), first, last)).collect()
}
