//! Re-executes the decision of an evidence pack, from the pack alone: normalizer, engine and rules, compared byte for
//! byte. The first stage that differs is named with both values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hb_engine::ENGINE_VERSION;
use hb_engine::decision::Decision;
use hb_engine::engine::Effect;
use hb_engine::partition::{Names, Partition, PartitionInput, World};
use hb_engine::series::{SeriesDef, SeriesKind};
use hb_engine::spec::EngineSpec;
use hb_log::bag::Files;
use hb_log::cbor;
use hb_log::hash::Hash;
use hb_log::pack::names;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::evidence::made::watch;
use crate::evidence::{self, PackedFrame, plugin_path, policy_path, settings_name, unit_path};
use crate::generation::{PartRecord, UnitRecord, policies_of};
use crate::observe::Seen;
use crate::pipeline::calls::Calls;
use crate::pipeline::series::SeriesBook;
use crate::plugin::{Frames, Grants, Host, HostOptions, Manifest, NormalizerInstance, Trust};
use crate::policy::PolicySet;

/// What re-execution came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Whether the decision came out byte for byte.
    pub reproduced: bool,
    /// Frames on which a plugin failed, as recorded.
    pub recorded_faults: u64,
    /// Frames normalized again.
    pub frames: u64,
    /// Samples fed again.
    pub samples: u64,
    /// SHA-256 of the packed decision.
    pub decision: Hash,
    /// The first stage that differs.
    pub difference: Option<Difference>,
}

/// Where re-execution differs from the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `normalizer`, `engine` or `decision`.
    pub stage: &'static str,
    /// What is compared.
    pub what: String,
    /// As recorded.
    pub recorded: String,
    /// As it came out.
    pub computed: String,
}

/// Why a pack could not be re-executed at all.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The decision was made by another engine.
    #[error("the decision was made by engine version {found}; this release has version {ENGINE_VERSION}")]
    Version {
        /// Version in the decision.
        found: String,
    },
    /// A file is missing or unreadable.
    #[error("{path}: {what}")]
    File {
        /// Path within the bag.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A plugin of the pack does not start.
    #[error("plugin {plugin} does not start: {what}")]
    Plugin {
        /// Plugin.
        plugin: String,
        /// What is wrong.
        what: String,
    },
}

/// Re-executes a pack given as files by path within the bag. Verify it first: this believes its hashes.
pub fn replay(files: &Files) -> Result<Replayed, ReplayError> {
    let pack = Pack { files };
    let bytes = pack.file(names::DECISION)?;
    let decision: Decision = pack.cbor(names::DECISION)?;
    if decision.engine != ENGINE_VERSION {
        return Err(ReplayError::Version { found: decision.engine });
    }
    let inputs: Vec<PartitionInput> = pack.cbor(names::JOURNAL)?;
    let mut replayed = Replayed {
        reproduced: false,
        recorded_faults: 0,
        frames: 0,
        samples: inputs.iter().filter(|i| matches!(i, PartitionInput::Sample(_))).count() as u64,
        decision: Hash::of(bytes),
        difference: None,
    };
    let world = pack.world(&decision)?;
    replayed.difference = normalize_again(&pack, &decision, &world, &inputs, &mut replayed)?;
    if replayed.difference.is_none() {
        replayed.difference = decide_again(&pack, &decision, &world, inputs)?;
    }
    replayed.reproduced = replayed.difference.is_none();
    Ok(replayed)
}

/// What a pack holds of its decision, and what its rules saw.
pub struct Look {
    /// The decision.
    pub decision: Decision,
    /// SHA-256 of its bytes.
    pub id: Hash,
    /// Names of series, sources and baselines.
    pub told: Names,
    /// What the asset was fed.
    pub inputs: Vec<PartitionInput>,
    /// Generations and baselines.
    pub world: World,
    /// What the rules were asked.
    pub seen: Vec<Seen>,
}

/// Looks at the decision of a pack, without comparing anything. Verify it first: this believes its hashes.
pub fn look(files: &Files) -> Result<Look, ReplayError> {
    let pack = Pack { files };
    let bytes = pack.file(names::DECISION)?;
    let decision: Decision = pack.cbor(names::DECISION)?;
    if decision.engine != ENGINE_VERSION {
        return Err(ReplayError::Version { found: decision.engine });
    }
    let inputs: Vec<PartitionInput> = pack.cbor(names::JOURNAL)?;
    let world = pack.world(&decision)?;
    let (state, told) = (pack.state(&world)?, pack.names(&inputs, &world)?);
    let judge_of = |hash: &Hash| pack.policies(world.specs.get(hash));
    let seen = watch(state, &inputs, &decision, &world, &judge_of)?;
    Ok(Look { id: Hash::of(bytes), decision, told, inputs, world, seen })
}

/// A recorded or computed sample of the asset. A series is compared by its name: its kind is the plugin's word, or that of
/// the baseline that expected it, and files of samples have none.
type Row = (u64, SeriesDef, i64, u64);

/// Runs the packed frames through the packed normalizers and compares with the samples in the journal.
fn normalize_again(
    pack: &Pack<'_>,
    decision: &Decision,
    world: &World,
    inputs: &[PartitionInput],
    replayed: &mut Replayed,
) -> Result<Option<Difference>, ReplayError> {
    let frames: BTreeMap<String, Vec<PackedFrame>> = pack.cbor(names::FRAMES)?;
    let mut recorded = recorded_rows(pack, world, inputs)?;
    let host = Host::new(HostOptions::default())
        .map_err(|e| ReplayError::Plugin { plugin: "runtime".into(), what: format!("{e:#}") })?;
    let label = |asset_of: &SeriesDef| world.specs.values().any(|s| asset_of.asset(&s.asset_label) == decision.asset);
    for (source, packed) in &frames {
        let want = recorded.remove(source).unwrap_or_default();
        replayed.frames += packed.len() as u64;
        replayed.recorded_faults += packed.iter().filter(|f| f.fault.is_some()).count() as u64;
        let mut got = Vec::new();
        // A swap of plugins or settings may lie within the range: each frame says who gave it its meaning.
        for run in packed.chunk_by(|a, b| a.unit == b.unit) {
            let unit: UnitRecord = pack.cbor(&unit_path(source, run[0].unit))?;
            got.extend(run_normalizer(pack, &host, &unit.normalizer, run)?);
        }
        got.retain(|row| label(&row.1) && !want.sheds(row));
        if let Some((recorded, computed)) = first_difference(&want.rows, &got) {
            let what = format!("samples of source {source}");
            return Ok(Some(Difference { stage: "normalizer", what, recorded, computed }));
        }
    }
    match recorded.into_iter().next() {
        Some((source, Recorded { rows, .. })) if !rows.is_empty() => Ok(Some(Difference {
            stage: "normalizer",
            what: format!("frames of source {source}"),
            recorded: format!("{} samples", rows.len()),
            computed: "no frame is packed".into(),
        })),
        _ => Ok(None),
    }
}

/// The first sample that one side lacks, as (recorded, computed). A range may begin and end inside a frame, because a
/// snapshot and a window's end lie between two samples: what the first and last frame gave beyond it is no difference.
fn first_difference(want: &[Row], got: &[Row]) -> Option<(String, String)> {
    let got = within(want, got);
    let same = want.iter().zip(got).take_while(|(w, g)| w == g).count();
    (want.len() != same || got.len() != same).then(|| (show(want.get(same)), show(got.get(same))))
}

/// The part of `got` that the range of `want` covers.
fn within<'r>(want: &[Row], got: &'r [Row]) -> &'r [Row] {
    let (Some(first), Some(last)) = (want.first(), want.last()) else { return got };
    let start = got.iter().take_while(|g| g.0 == first.0 && *g != first).count();
    // Without the recorded beginning there is nothing to cut off.
    let start = if got.get(start) == Some(first) { start } else { 0 };
    let got = &got[start..];
    let extra = got.len().saturating_sub(want.len());
    let in_last = got.iter().rev().take_while(|g| g.0 == last.0).count();
    &got[..got.len() - extra.min(in_last.saturating_sub(1))]
}

fn show(row: Option<&Row>) -> String {
    row.map_or_else(
        || "nothing".into(),
        |(ordinal, def, time, bits)| {
            format!("frame {ordinal}: {def} = {} at {}", f64::from_bits(*bits), crate::clock::rfc3339(*time))
        },
    )
}

/// What the journal has of a source.
#[derive(Default)]
struct Recorded {
    rows: Vec<Row>,
    /// The frames behind which the asset was at its cap, with the series that had a number: samples of others were shed
    /// before the journal.
    full: BTreeMap<u64, Arc<BTreeSet<SeriesDef>>>,
}

impl Recorded {
    /// Whether a computed sample was shed.
    fn sheds(&self, row: &Row) -> bool {
        self.full.get(&row.0).is_some_and(|numbered| !numbered.contains(&row.1))
    }
}

fn recorded_rows(
    pack: &Pack<'_>,
    world: &World,
    inputs: &[PartitionInput],
) -> Result<BTreeMap<String, Recorded>, ReplayError> {
    let told = pack.names(inputs, world)?;
    let mut state = pack.state(world)?;
    let numbered = |state: &Partition| {
        let known = told.series.iter().take(state.series_len());
        state.is_full().then(|| Arc::new(known.map(unkinded).collect::<BTreeSet<SeriesDef>>()))
    };
    let mut full = numbered(&state);
    let mut recorded: BTreeMap<String, Recorded> = BTreeMap::new();
    let unknown = || ReplayError::File { path: names::JOURNAL.into(), what: "a sample of an unknown series".into() };
    for input in inputs {
        let s = match input {
            PartitionInput::Sample(s) => s,
            PartitionInput::Wake(_) | PartitionInput::Seal(_) => continue,
            naming => {
                state.learn(naming.clone(), world);
                full = numbered(&state);
                continue;
            }
        };
        let source = told.sources.get(s.source as usize).ok_or_else(unknown)?;
        let def = told.series.get(s.series as usize).ok_or_else(unknown)?;
        let of_source = recorded.entry(source.clone()).or_default();
        of_source.rows.push((s.ordinal, unkinded(def), s.time_ns, s.value.to_bits()));
        match &full {
            Some(numbered) => of_source.full.insert(s.ordinal, Arc::clone(numbered)),
            None => of_source.full.remove(&s.ordinal),
        };
    }
    Ok(recorded)
}

fn unkinded(def: &SeriesDef) -> SeriesDef {
    SeriesDef { kind: SeriesKind::default(), ..def.clone() }
}

fn run_normalizer(
    pack: &Pack<'_>,
    host: &Host,
    part: &PartRecord,
    packed: &[PackedFrame],
) -> Result<Vec<Row>, ReplayError> {
    let wasm = pack.file(&plugin_path(part, "plugin.wasm"))?;
    let failed = |what: String| ReplayError::Plugin { plugin: part.plugin.clone(), what };
    let manifest = Manifest::parse(pack.text(&plugin_path(part, "plugin.yaml"))?).map_err(|e| failed(e.what))?;
    let settings = pack.text(&plugin_path(part, &settings_name(part)))?;
    let loaded = host.load(wasm, manifest, &Grants::default(), &Trust::default()).map_err(|e| failed(e.what()))?;
    let book = SeriesBook::default();
    let calls = Box::new(Calls { plugin: part.plugin.clone(), book: book.clone() });
    let mut instance = NormalizerInstance::new(&loaded, settings, calls).map_err(|f| failed(f.to_string()))?;
    let mut batch = Frames::new();
    for frame in packed {
        batch.push(&frame.bytes.0, frame.received_ns, &frame.origin).map_err(|e| failed(e.to_string()))?;
    }
    let outcome = instance.run(&batch);
    let defs = book.since(0);
    let mut rows = Vec::with_capacity(outcome.series.len());
    for k in 0..outcome.series.len() {
        let frame = outcome.frame[k] as usize;
        let Some(def) = defs.get(outcome.series[k] as usize) else { continue };
        // A recorded fault took this frame away, whether or not it comes again.
        if packed[frame].fault.is_none() {
            rows.push((packed[frame].ordinal, unkinded(def), outcome.time_ns[k], outcome.value[k].to_bits()));
        }
    }
    Ok(rows)
}

/// Feeds the packed inputs to the packed state and compares the decision.
fn decide_again(
    pack: &Pack<'_>,
    decision: &Decision,
    world: &World,
    inputs: Vec<PartitionInput>,
) -> Result<Option<Difference>, ReplayError> {
    let mut partition = pack.state(world)?;
    let first = decision.generations.first().copied().unwrap_or(Hash::ZERO);
    let mut judge = pack.policies(world.specs.get(&first))?;
    let mut effects = Vec::new();
    for input in inputs {
        if let PartitionInput::Generation(hash) = &input {
            judge = pack.policies(world.specs.get(hash))?;
        }
        partition.apply(input, world, &mut judge, &mut effects);
    }
    let same = |d: &Decision| d.check == decision.check && d.end_ns == decision.end_ns;
    let computed = effects.into_iter().rev().find_map(|e| match e {
        Effect::Decision { decision, bytes, .. } if same(&decision) => Some((decision, bytes)),
        _ => None,
    });
    let Some((computed, bytes)) = computed else {
        return Ok(Some(Difference {
            stage: "engine",
            what: format!("decision of check {} at {}", decision.check, crate::clock::rfc3339(decision.end_ns)),
            recorded: decision.status.to_string(),
            computed: "no decision".into(),
        }));
    };
    if bytes == pack.file(names::DECISION)? {
        return Ok(None);
    }
    Ok(Some(field_difference(decision, &computed)))
}

/// The first field of two decisions that differs.
fn field_difference(recorded: &Decision, computed: &Decision) -> Difference {
    let fields = |d: &Decision| {
        let json = serde_json::to_value(d).unwrap_or_default();
        json.as_object().cloned().unwrap_or_default()
    };
    let (a, b) = (fields(recorded), fields(computed));
    let differs = a.iter().find(|(k, v)| b.get(*k) != Some(v));
    let (name, recorded) = differs.map_or(("bytes".to_owned(), String::new()), |(k, v)| (k.clone(), v.to_string()));
    let computed = b.get(&name).map(ToString::to_string).unwrap_or_default();
    Difference { stage: "decision", what: name, recorded, computed }
}

/// The files of a pack, by what they are.
struct Pack<'a> {
    files: &'a Files,
}

impl Pack<'_> {
    fn file(&self, path: &str) -> Result<&[u8], ReplayError> {
        let found = self.files.get(path).map(Vec::as_slice);
        found.ok_or_else(|| ReplayError::File { path: path.to_owned(), what: "it is not in the pack".into() })
    }

    fn text(&self, path: &str) -> Result<&str, ReplayError> {
        std::str::from_utf8(self.file(path)?)
            .map_err(|_| ReplayError::File { path: path.to_owned(), what: "not UTF-8".into() })
    }

    fn cbor<T: DeserializeOwned>(&self, path: &str) -> Result<T, ReplayError> {
        cbor::decode(self.file(path)?).map_err(|e| ReplayError::File { path: path.to_owned(), what: e.to_string() })
    }

    fn specs(&self, decision: &Decision) -> Result<BTreeMap<Hash, Arc<EngineSpec>>, ReplayError> {
        let mut specs = BTreeMap::new();
        let paths =
            self.files.keys().filter(|p| p.as_str() == evidence::GENERATION || p.starts_with(evidence::GENERATIONS));
        for path in paths {
            let spec: EngineSpec = self.cbor(path)?;
            specs.insert(spec.hash(), Arc::new(spec));
        }
        match decision.generations.iter().find(|h| !specs.contains_key(h)) {
            Some(hash) => Err(ReplayError::File {
                path: evidence::GENERATION.into(),
                what: format!("generation {hash} is missing"),
            }),
            None => Ok(specs),
        }
    }

    /// Generations and baselines.
    fn world(&self, decision: &Decision) -> Result<World, ReplayError> {
        let mut world = World { specs: self.specs(decision)?, ..World::default() };
        for path in self.files.keys().filter(|p| p.starts_with(names::BASELINE)) {
            let baseline: hb_engine::baseline::Baseline = self.cbor(path)?;
            world.baselines.insert(baseline.hash(), Arc::new(baseline));
        }
        Ok(world)
    }

    /// The asset's state before the inputs.
    fn state(&self, world: &World) -> Result<Partition, ReplayError> {
        let wrong = |what: String| ReplayError::File { path: names::STATE_BEFORE.into(), what };
        Partition::restore(self.file(names::STATE_BEFORE)?, world).map_err(|e| wrong(e.to_string()))
    }

    /// Names that the inputs speak of by number.
    fn names(&self, inputs: &[PartitionInput], world: &World) -> Result<Names, ReplayError> {
        let wrong = |what: String| ReplayError::File { path: names::STATE_BEFORE.into(), what };
        Names::of_range(self.file(names::STATE_BEFORE)?, inputs, world).map_err(|e| wrong(e.to_string()))
    }

    fn policies(&self, spec: Option<&Arc<EngineSpec>>) -> Result<PolicySet, ReplayError> {
        let Some(spec) = spec else { return Ok(PolicySet::default()) };
        let blob = |hash: Hash| {
            let rules = spec.checks.iter().flat_map(|c| &c.rules).chain(&spec.severity);
            let rule = rules.into_iter().find(|r| r.source == hash)?;
            self.files.get(&policy_path(&rule.rule, hash)).cloned()
        };
        policies_of(spec, &blob).map_err(|e| ReplayError::File { path: names::POLICIES.into(), what: e.to_string() })
    }
}
