//! What a decision was made from, as the engine was fed, and what its rules saw of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hb_engine::decision::Decision;
use hb_engine::engine::Effect;
use hb_engine::partition::{Names, Partition, PartitionInput, World};
use hb_log::cbor;
use hb_log::hash::Hash;

use crate::case::{Case, Held};
use crate::generation::policies_of;
use crate::observe::{Observer, Seen};
use crate::pipeline::PipelineError;
use crate::pipeline::recover::{Replay, load_blob, load_spec};
use crate::policy::PolicySet;
use crate::state::{DecisionFilter, Lookup, Reader};

/// Number of a lane's first journal input.
const FIRST_INPUT: u64 = 1;

/// Decisions of the asset that the pack's report speaks of at most, the newest ones: more than fit on a page.
const REPORT_DECISIONS_MAX: usize = 100;

/// What a decision was made from, as the engine was fed.
pub struct Made {
    /// The decision.
    pub decision: Decision,
    /// Its canonical bytes.
    pub bytes: Vec<u8>,
    /// Journal sequence number of the input that caused it.
    pub seq: u64,
    /// The first that is kept with it.
    pub from_seq: u64,
    /// The asset's state before the inputs.
    pub state_before: Vec<u8>,
    /// What the asset was fed from then on, up to the input that caused the decision.
    pub inputs: Vec<PartitionInput>,
}

impl Made {
    /// That of a case's decision: kept since the case was opened, or else made again.
    pub fn of(reader: &Reader, case: &Case) -> Result<Made, PipelineError> {
        match reader.meta(&case.program, &Held::name(&case.id))? {
            Some(held) => Made::held(reader, case, &held),
            None => Made::again(reader, case),
        }
    }

    /// What was kept when the case was opened.
    fn held(reader: &Reader, case: &Case, held: &[u8]) -> Result<Made, PipelineError> {
        let held: Held = cbor::decode(held).map_err(|e| PipelineError::corrupt("case", e))?;
        let missing = |what: &str| PipelineError::corrupt(what, "it is gone; run `hb log verify`");
        let Lookup::One { row, .. } = reader.decision(&case.program, &case.decision.to_string())? else {
            return Err(missing("decision"));
        };
        let snapshot = reader.snapshot(&case.program, &case.lane, &case.asset, held.snapshot_seq)?;
        let inputs = reader.blob(&held.inputs)?.ok_or_else(|| missing("journal range"))?;
        Ok(Made {
            decision: cbor::decode(&row.bytes).map_err(|e| PipelineError::corrupt("decision", e))?,
            bytes: row.bytes,
            seq: row.seq,
            from_seq: held.from_seq,
            state_before: snapshot.ok_or_else(|| missing("snapshot"))?.bytes,
            inputs: cbor::decode(&inputs).map_err(|e| PipelineError::corrupt("journal range", e))?,
        })
    }

    /// Replays the lane from its beginning up to the decision: for decisions that opened no case.
    fn again(reader: &Reader, case: &Case) -> Result<Made, PipelineError> {
        let first = reader.journal(&case.program, &case.lane, 0)?.next().transpose()?;
        if first.is_none_or(|first| first.seq > FIRST_INPUT) {
            let what = format!("the journal that decision {} was made from", case.decision.short());
            return Err(PipelineError::Gone(what));
        }
        let mut found: Option<Made> = None;
        let mut snapshot = (Hash::ZERO, Vec::new());
        let mut replay = Replay::begin(reader, &case.program, &case.lane, None)?;
        replay.engine.trace(&case.asset);
        replay.run(reader, &mut |effects, _| {
            for effect in effects {
                match effect {
                    // Only the newest can be what the next decision starts from.
                    Effect::Snapshot { asset, hash, bytes, .. } if asset == case.asset => snapshot = (hash, bytes),
                    Effect::Decision { seq, hash, decision, bytes, trace } if hash == case.decision => {
                        let (inputs, state_before) = (trace.unwrap_or_default(), snapshot.1.clone());
                        found = Some(Made { decision: *decision, bytes, seq, from_seq: 0, state_before, inputs });
                        break;
                    }
                    _ => {}
                }
            }
            found.is_none()
        })?;
        let made = found.ok_or_else(|| {
            PipelineError::corrupt("decision", "replaying the journal did not give it again; run `hb log verify`")
        })?;
        if snapshot.0 != made.decision.inputs.snapshot {
            return Err(PipelineError::corrupt("snapshot", made.decision.inputs.snapshot));
        }
        Ok(made)
    }

    /// Names of series and sources that the inputs speak of by number.
    pub fn names(&self, world: &World) -> Result<Names, PipelineError> {
        Names::of_range(&self.state_before, &self.inputs, world).map_err(|e| PipelineError::corrupt("snapshot", e))
    }

    /// The generations and baselines that the inputs need.
    pub fn world(&self, reader: &Reader) -> Result<World, PipelineError> {
        let mut world = World::default();
        for &hash in &self.decision.generations {
            world.specs.insert(hash, load_spec(reader, hash)?);
        }
        let baselines = Names::baselines(&self.state_before, &self.inputs);
        for hash in baselines.map_err(|e| PipelineError::corrupt("snapshot", e))? {
            world.baselines.insert(hash, Arc::new(load_blob(reader, hash, "baseline")?));
        }
        Ok(world)
    }

    /// Feeds the inputs to the state again and watches what the rules are asked; this is what charts are drawn from.
    pub fn watch(&self, reader: &Reader, world: &World) -> Result<Vec<Seen>, PipelineError> {
        let state = Partition::restore(&self.state_before, world);
        let partition = state.map_err(|e| PipelineError::corrupt("snapshot", e))?;
        watch(partition, &self.inputs, &self.decision, world, &|hash| {
            let Some(spec) = world.specs.get(hash) else { return Ok(PolicySet::default()) };
            Ok(policies_of(spec, &|h| reader.blob(&h).ok().flatten())?)
        })
    }
}

/// Feeds inputs to an asset's state, with the policies of each generation, and returns what their rules were asked.
pub fn watch<E>(
    mut partition: Partition,
    inputs: &[PartitionInput],
    decision: &Decision,
    world: &World,
    judge_of: &dyn Fn(&Hash) -> Result<PolicySet, E>,
) -> Result<Vec<Seen>, E> {
    let first = decision.generations.first().copied().unwrap_or(Hash::ZERO);
    let mut observer = Observer::new(judge_of(&first)?);
    for input in inputs {
        if let PartitionInput::Generation(hash) = input {
            observer = observer.with(judge_of(hash)?);
        }
        partition.apply(input.clone(), world, &mut observer, &mut Vec::new());
    }
    Ok(observer.seen)
}

/// The decisions of the case's check on its asset that are kept with it, up to the case's own, oldest first.
pub fn history(reader: &Reader, case: &Case, made: &Made) -> Result<Vec<(Hash, Decision)>, PipelineError> {
    let filter = DecisionFilter {
        asset: Some(case.asset.clone()),
        check: Some(case.check.clone()),
        from_seq: made.from_seq,
        to_seq: Some(made.seq),
        newest_first: true,
        ..DecisionFilter::default()
    };
    let mut decisions = Vec::new();
    for row in reader.decisions(&case.program, &case.lane, filter)? {
        let row = row?;
        // One input can close several windows: those behind the case's own are another story.
        if row.end_ns > case.end_ns {
            continue;
        }
        let decision = cbor::decode(&row.bytes).map_err(|e| PipelineError::corrupt("decision", e))?;
        decisions.push((row.id, decision));
        if decisions.len() >= REPORT_DECISIONS_MAX {
            break;
        }
    }
    decisions.reverse();
    Ok(decisions)
}

/// Frame numbers of the samples, by source.
pub fn ordinals<'i>(told: &Names, inputs: impl Iterator<Item = &'i PartitionInput>) -> BTreeMap<String, BTreeSet<u64>> {
    let mut ordinals: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for input in inputs {
        if let PartitionInput::Sample(s) = input
            && let Some(source) = told.sources.get(s.source as usize)
        {
            ordinals.entry(source.clone()).or_default().insert(s.ordinal);
        }
    }
    ordinals
}
