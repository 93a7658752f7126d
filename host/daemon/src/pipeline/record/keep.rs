//! What a recorder keeps beside decisions: what cases need, its schedule and exports, and its limits.

use std::sync::Arc;
use std::time::Instant;

use hb_engine::engine::Core;
use hb_engine::partition::PartitionInput;
use hb_log::cbor;
use hb_log::hash::Hash;

use super::{CommitLimits, Recorder, text_map};
use crate::case::{Case, Held, packed_name, seal_name};
use crate::config::Config;
use crate::pipeline::export::Exports;
use crate::pipeline::recover::core_name;
use crate::pipeline::retain::frame_ranges;
use crate::pipeline::schedule::{Schedule, ScheduleOptions};
use crate::pipeline::{Normalized, PipelineError};
use crate::state::{HoldRow, Kept, Options, Reader, StateError};

/// How a state is kept, from the config.
pub fn state_options(config: &Config) -> Options {
    Options {
        cap_bytes: u64::from(config.limits.max_state_mb) << 20,
        log_cap_bytes: u64::from(config.limits.max_audit_log_mb) << 20,
        waits_for_packs: config.evidence.on_fail,
        ..Options::default()
    }
}

impl Recorder {
    /// Keeps the limits of another config from now on.
    pub fn keep_within(&mut self, config: &Config) {
        self.limits = CommitLimits::of(config, self.limits.eager);
        self.state.limit(state_options(config));
        self.tell_usage();
    }

    /// Shows in the metrics how the log stands.
    pub fn tell_usage(&self) {
        let usage = self.state.usage();
        self.vitals.log(usage.log_bytes, usage.log_cap_bytes, usage.is_log_full);
    }

    /// Tells where the lane stands in files of the state's directory, and learns what the schedule says; again when
    /// another config says something else.
    pub fn attend(&mut self, schedule: ScheduleOptions) -> Result<(), PipelineError> {
        self.exports = self.state.dir().map(Exports::new);
        let (state, signer) = (self.state.clone(), Arc::clone(&self.signer));
        self.schedule = Some(Schedule::open(schedule, state, signer, &self.program, &self.lane)?);
        Ok(())
    }

    /// Why nothing more may be taken: what is taken must be recorded, and the log is full. Sources wait, unacknowledged.
    pub fn blocked(&self) -> Option<StateError> {
        let usage = self.state.usage();
        usage.is_log_full.then_some(StateError::LogFull { used: usage.log_bytes, cap: usage.log_cap_bytes })
    }

    /// Learns what is due, and compares with what was learned meanwhile.
    pub(super) fn follow_schedule(&mut self) -> Result<(), PipelineError> {
        if self.schedule.as_ref().is_some_and(|schedule| schedule.is_due(self.clock_ns())) {
            // It learns from what is stored.
            self.commit_pending()?;
        }
        let Some(mut schedule) = self.schedule.take() else { return Ok(()) };
        let turned = schedule.turn(self.clock_ns());
        self.schedule = Some(schedule);
        let turned = turned?;
        if let Some(meta) = turned.meta {
            self.pending.meta.retain(|m| m.0 != meta.0);
            self.pending.meta.push(meta);
            self.since.get_or_insert_with(Instant::now);
        }
        if turned.refresh {
            self.refresh_baselines()?;
        }
        Ok(())
    }

    /// Where the newest clock of the sources stands, ns.
    pub(super) fn clock_ns(&self) -> Option<i64> {
        self.engine.core().ticks.values().max().copied()
    }

    /// Whether samples are shed now; the log tells when that begins and ends.
    pub(super) fn sheds(&mut self) -> bool {
        let usage = self.state.usage();
        let is_shedding = usage.is_full();
        if is_shedding != self.is_shedding {
            self.is_shedding = is_shedding;
            let (lane, bytes, cap) = (self.lane.clone(), usage.bytes.to_string(), usage.cap_bytes.to_string());
            let kind = if is_shedding { "shed.begin" } else { "shed.end" };
            tracing::warn!(lane, bytes, cap, kind, "the state is at its cap");
            self.log(kind, text_map(&[("lane", &lane), ("bytes", &bytes), ("cap", &cap)]));
        }
        is_shedding
    }

    /// Drops a batch before engine and journal, so that what is journalled is all the engine ever saw. It is counted,
    /// and the source goes on behind it.
    pub(super) fn shed(&mut self, batch: &Normalized) {
        self.count("sheds", batch.columns.len() as u64);
        self.count("shed_frames", batch.frames.len() as u64);
        self.vitals.shed(batch.columns.len() as u64);
    }

    /// Keeps what a case's decision was made from: its asset's snapshot is pinned, the inputs since then are stored.
    /// `seq` is the number of the last of them.
    pub(super) fn hold(&mut self, case: &Case, seq: u64, trace: &[PartitionInput]) {
        let Some(&snapshot_seq) = self.snapshots.get(&case.asset) else { return };
        let bytes = cbor::encode(trace);
        let held = Held { v: 1, snapshot_seq, inputs: Hash::of(&bytes), from_seq: self.floor };
        let kept = Kept { open: true, pinned: false, unpacked: self.state.options().waits_for_packs };
        self.open.add(case);
        self.pending.holds.push(HoldRow {
            case: case.id.clone(),
            lane: self.lane.clone(),
            asset: case.asset.clone(),
            check: case.check.clone(),
            kept,
            from_seq: self.floor,
            to_seq: seq,
            snapshot_seq,
            inputs: held.inputs,
            frames: frame_ranges(&self.engine.sources_of(&case.asset), trace),
            baselines: self.compared.all(),
            // Its decision and its opening, which is logged next to it.
            entries: vec![case.entry, case.entry + 1],
            names: vec![Held::name(&case.id), packed_name(&case.id), seal_name(&case.id)],
        });
        self.pending.pins.push((case.asset.clone(), snapshot_seq));
        self.pending.blobs.push((held.inputs, bytes));
        self.pending.meta.push((Held::name(&case.id), cbor::encode(&held)));
    }
}

/// The first input behind a lane's newest checkpoint; 0 without one.
pub(super) fn floor_of(reader: &Reader, program: &str, lane: &str) -> Result<u64, PipelineError> {
    let Some(bytes) = reader.meta(program, &core_name(lane))? else { return Ok(0) };
    let core: Core = cbor::decode(&bytes).map_err(|e| PipelineError::corrupt("checkpoint", e))?;
    Ok(core.seq + 1)
}
