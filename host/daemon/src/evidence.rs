//! Evidence packs: everything a decision was made from, sealed so that anyone can verify and re-execute it.
//!
//! What the engine was fed is kept when a case is opened; for any other decision the lane is replayed up to it. A pack
//! is sealed once, at a position of the log that is stored, and the same case gives the same bytes again.

pub mod made;
mod seal;
pub mod shelf;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use hb_engine::decision::Decision;
use hb_engine::partition::{Names, PartitionInput, World};
use hb_engine::spec::EngineSpec;
use hb_log::bag::Files;
use hb_log::cbor::{self, Bytes};
use hb_log::entry::Entry;
use hb_log::hash::Hash;
use hb_log::pack::{self, names};
use hb_log::sign::PublicKey;
use serde::{Deserialize, Serialize};

use crate::case::{Case, seal_name};
use crate::clock;
use crate::generation::{PartRecord, UnitRecord};
use crate::keys::Signer;
use crate::observe::{Seen, tracks};
use crate::pipeline::PipelineError;
use crate::pipeline::frames;
use crate::plugin::Frames;
use crate::report::{self, BaselineFacts, Report, ReportInput, ReportKind, Tally};
use crate::state::{Commit, HoldChange, Reader, State};

use made::{Made, history, ordinals};
use seal::Seal;

/// Samples of one pack at most: two checkpoints' worth. The engine never lets a range grow beyond it.
const PACK_SAMPLES_MAX: usize = 500_000;

/// Where the spec of the judging generation lies in a pack.
pub const GENERATION: &str = "data/generation.cbor";

/// Where earlier generations of the range lie, by hash.
pub const GENERATIONS: &str = "data/generations/";

/// Where the plugins of sources are named: `<source>-<hash>.cbor`.
pub const UNITS: &str = "data/units/";

/// The decision for people.
pub const DECISION_JSON: &str = "data/decision.json";

/// What the pack was made with.
pub const ENVIRONMENT: &str = "data/environment.json";

/// A raw frame in a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedFrame {
    /// Its number at its source.
    pub ordinal: u64,
    /// SHA-256 of the record of the plugins that gave it its meaning.
    pub unit: Hash,
    /// Receive time, ns.
    pub received_ns: i64,
    /// Topic, host or file.
    pub origin: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// How a plugin failed on it; such a frame gave no samples.
    pub fault: Option<String>,
}

/// Adds a file to a payload; gives back what stood under the name before.
type Put<'p> = dyn FnMut(&str, Vec<u8>) -> Option<Vec<u8>> + 'p;

/// Makes the files of a case's pack, by path within the bag.
pub fn pack(state: &State, signer: &Signer, case: &Case) -> Result<Files, PipelineError> {
    let reader = state.reader()?;
    let gathered = gather(&reader, case)?;
    let stored = Seal::load(&reader, case)?;
    let head = match &stored {
        Some(seal) => seal.head()?,
        None => reader.checkpoint()?.ok_or_else(|| PipelineError::corrupt("log", "it has no head"))?,
    };
    let time_ns = if let Some(seal) = &stored {
        seal.time_ns
    } else {
        let last = reader.entry(head.checkpoint.size.saturating_sub(1))?;
        let last = last.ok_or_else(|| PipelineError::corrupt("log", "its last entry is gone"))?;
        Entry::decode(&last).map_err(|e| PipelineError::corrupt("log", e))?.time_ns
    };
    let mut payload = gathered;
    payload.insert(names::CUSTODY.to_owned(), custody(case, time_ns).into_bytes());
    let own = signer.public_text();
    let key = match &stored {
        Some(seal) => seal.key(state)?,
        None => PublicKey::parse(&own).map_err(|e| PipelineError::corrupt("key", e))?,
    };
    let entries = log_entries(&reader, case, head.checkpoint.size)?;
    reader.with_nodes(|nodes| {
        pack::put_log(&mut payload, &entries, &head.checkpoint, &head.signature, std::slice::from_ref(&key), nodes)
    })?;
    let verify = verify_text(case);
    payload.insert(names::VERIFY_MD.to_owned(), verify.into_bytes());
    let info = bag_info(case, time_ns);
    drop(reader);
    let mut made: Option<Seal> = None;
    let files = pack::seal(payload, &info, &mut |bytes, comment| {
        let signed = Hash::of(bytes);
        if let Some(seal) = stored.as_ref().filter(|s| s.signed == signed) {
            return seal.signature.clone();
        }
        let signature = signer.sign(bytes, comment);
        made = Some(Seal {
            v: Seal::V,
            body: head.body.clone(),
            head_signature: head.signature.clone(),
            time_ns,
            signed,
            signature: signature.clone(),
            key: Some(own.clone()),
        });
        signature
    });
    if let Some(seal) = made {
        let meta = vec![(seal_name(&case.id), cbor::encode(&seal))];
        let sealed_at = Some(head.checkpoint.size);
        let hold_changes = vec![HoldChange { case: case.id.clone(), sealed_at, ..HoldChange::default() }];
        state.commit(Commit { program: case.program.clone(), meta, hold_changes, ..Commit::default() }, signer)?;
    }
    Ok(files)
}

/// Name of a pack's directory, and of its archive without the ending.
pub fn root_name(case: &Case) -> String {
    pack::root_name(&case.id)
}

/// Collects what a case's decision was made from.
fn gather(reader: &Reader, case: &Case) -> Result<Files, PipelineError> {
    let made = Made::of(reader, case)?;
    if made.inputs.len() > PACK_SAMPLES_MAX {
        return Err(PipelineError::corrupt("journal range", format!("{} inputs", made.inputs.len())));
    }
    let world = made.world(reader)?;
    let names_told = made.names(&world)?;
    let mut files = Files::new();
    let mut put = |name: &str, content: Vec<u8>| files.insert(name.to_owned(), content);
    put(names::DECISION, made.bytes.clone());
    put(DECISION_JSON, json(&made.decision));
    put(names::JOURNAL, cbor::encode(&made.inputs));
    put(ENVIRONMENT, json(&environment()));
    put_generations(reader, &made.decision, &world, &mut put)?;
    put(names::SERIES, cbor::encode(&names_told.series));
    put(names::METRICS, metrics(&names_told, &made.inputs)?);
    let packed = packed_frames(reader, case, &made, &ordinals(&names_told, made.inputs.iter()))?;
    put(names::RAW_SLICE, raw_slice(&packed).into_bytes());
    put(names::FRAMES, cbor::encode(&packed));
    put_report(case, &history(reader, case, &made)?, &made.watch(reader, &world)?, &world, &mut put);
    put(names::STATE_BEFORE, made.state_before);
    Ok(files)
}

fn metrics(told: &Names, inputs: &[PartitionInput]) -> Result<Vec<u8>, PipelineError> {
    let mut records = Vec::new();
    for input in inputs {
        if let PartitionInput::Sample(s) = input {
            let def = told.series.get(s.series as usize);
            let def = def.ok_or_else(|| PipelineError::corrupt("journal", "a sample of an unknown series"))?;
            records.push(hb_engine::inject::Record {
                time_ns: s.time_ns,
                metric: def.metric.clone(),
                value: s.value,
                unit: def.unit.clone(),
                labels: def.labels.clone(),
            });
        }
    }
    let mut out = Vec::new();
    crate::artifact::write_metrics(&mut out, &records).map_err(|e| PipelineError::corrupt("metrics", e))?;
    Ok(out)
}

/// The frames of these numbers, and those between them on which a plugin failed, by source.
fn packed_frames(
    reader: &Reader,
    case: &Case,
    made: &Made,
    wanted: &BTreeMap<String, BTreeSet<u64>>,
) -> Result<BTreeMap<String, Vec<PackedFrame>>, PipelineError> {
    let mut packed = BTreeMap::new();
    for (source, ordinals) in wanted {
        let (Some(&first), Some(&last)) = (ordinals.first(), ordinals.last()) else { continue };
        let faults = faults(reader, case, made, (source, first, last))?;
        let mut out = Vec::new();
        for block in reader.frames(&case.program, &case.lane, source, first, last + 1)? {
            let block = block?;
            let (batch, unit): (Frames, Hash) =
                frames::decode(&block.bytes).ok_or_else(|| PipelineError::corrupt("frames", block.first))?;
            for (i, frame) in batch.iter().enumerate() {
                let ordinal = block.first + i as u64;
                let fault = faults.get(&ordinal).cloned();
                if ordinals.contains(&ordinal) || fault.is_some() {
                    out.push(PackedFrame {
                        ordinal,
                        unit,
                        received_ns: frame.received_ns,
                        origin: frame.origin.to_owned(),
                        bytes: Bytes(frame.bytes.to_vec()),
                        fault,
                    });
                }
            }
        }
        packed.insert(source.clone(), out);
    }
    Ok(packed)
}

/// Faults of normalizers in a range of a source's frame numbers, as the journal has them.
fn faults(
    reader: &Reader,
    case: &Case,
    made: &Made,
    (of, first, last): (&str, u64, u64),
) -> Result<BTreeMap<u64, String>, PipelineError> {
    use crate::pipeline::Stage;
    use crate::pipeline::journal::{Other, Row, decode};
    let mut faults = BTreeMap::new();
    for row in reader.journal(&case.program, &case.lane, made.from_seq)? {
        let row = row?;
        if row.seq > made.seq {
            break;
        }
        if let Some(Row::Other(Other::Fault { source, stage, ordinal, cause })) = decode(&row.bytes)
            && source == of
            && stage == Stage::Normalizer.as_str()
            && (first..=last).contains(&ordinal)
        {
            faults.insert(ordinal, cause);
        }
    }
    Ok(faults)
}

/// Generations with their plugins, settings and policies, and the baselines.
fn put_generations(
    reader: &Reader,
    decision: &Decision,
    world: &World,
    put: &mut Put<'_>,
) -> Result<(), PipelineError> {
    let blob = |hash: Hash, what: &str| -> Result<Vec<u8>, PipelineError> {
        reader.blob(&hash)?.ok_or_else(|| PipelineError::corrupt(what, hash))
    };
    for (i, &hash) in decision.generations.iter().enumerate() {
        let bytes = blob(hash, "generation")?;
        let spec: EngineSpec = cbor::decode(&bytes).map_err(|e| PipelineError::corrupt("generation", e))?;
        let judging = i + 1 == decision.generations.len();
        put(&if judging { GENERATION.to_owned() } else { format!("{GENERATIONS}{hash}.cbor") }, bytes);
        for rule in spec.checks.iter().flat_map(|c| &c.rules).chain(&spec.severity) {
            put(&policy_path(&rule.rule, rule.source), blob(rule.source, "policy")?);
        }
        for (part, record_hash) in &spec.parts {
            let record = blob(*record_hash, "unit")?;
            let unit: UnitRecord = cbor::decode(&record).map_err(|e| PipelineError::corrupt("unit", e))?;
            for plugin in [&unit.source, &unit.normalizer] {
                put(&plugin_path(plugin, "plugin.wasm"), blob(plugin.wasm, "plugin")?);
                put(&plugin_path(plugin, "plugin.yaml"), blob(plugin.manifest, "plugin")?);
                put(&plugin_path(plugin, &settings_name(plugin)), blob(plugin.settings, "settings")?);
            }
            let source = part.strip_prefix("source/").unwrap_or(part);
            put(&unit_path(source, *record_hash), record);
        }
        for (name, file) in config_files(reader, hash)? {
            let dir = if judging {
                names::CONFIG_SNAPSHOT.to_owned()
            } else {
                format!("{}{}/", names::CONFIG_SNAPSHOT, hash.short())
            };
            put(&format!("{dir}{name}"), blob(file, "config")?);
        }
    }
    for &hash in world.baselines.keys() {
        put(&baseline_path(hash), blob(hash, "baseline")?);
    }
    Ok(())
}

/// Config files of a generation, from the log entry that made it active.
fn config_files(reader: &Reader, generation: Hash) -> Result<Vec<(String, Hash)>, PipelineError> {
    for item in reader.entries(0, u64::MAX)? {
        let entry = Entry::decode(&item?.1).map_err(|e| PipelineError::corrupt("log", e))?;
        if entry.kind != "generation" || field(&entry.body, "generation") != Some(generation) {
            continue;
        }
        let files = entry.body.as_map().and_then(|m| m.iter().find(|(k, _)| k.as_text() == Some("files")));
        let files = files.and_then(|(_, v)| v.as_map()).map(Vec::as_slice).unwrap_or_default();
        return Ok(files
            .iter()
            .filter_map(|(k, v)| {
                Some((k.as_text()?.to_owned(), Hash::from_bytes(v.as_bytes()?.as_slice().try_into().ok()?)))
            })
            .collect());
    }
    Ok(Vec::new())
}

/// The log's entries that belong to a case: its decision, and what made generations and baselines active before.
fn log_entries(reader: &Reader, case: &Case, size: u64) -> Result<Vec<Vec<u8>>, PipelineError> {
    // Of each tag, what it named last before the case: a tag that rolls names another baseline every hour.
    let mut named: BTreeMap<String, u64> = BTreeMap::new();
    for item in reader.entries(0, case.entry)? {
        let (index, bytes) = item?;
        let entry = Entry::decode(&bytes).map_err(|e| PipelineError::corrupt("log", e))?;
        let text = |name: &str| entry.field(name).and_then(|v| v.as_text());
        if entry.kind == "baseline.active" && text("lane") == Some(&case.lane) {
            named.insert(text("tag").unwrap_or_default().to_owned(), index);
        }
    }
    let mut entries = Vec::new();
    for item in reader.entries(0, size)? {
        let (index, bytes) = item?;
        let entry = Entry::decode(&bytes).map_err(|e| PipelineError::corrupt("log", e))?;
        let generation = entry.kind == "generation" && index < case.entry;
        let context = generation || named.values().any(|&at| at == index);
        let opened = entry.kind == "case.opened"
            && entry.body.as_map().is_some_and(|m| m.iter().any(|(_, v)| v.as_text() == Some(&case.id)));
        if index == case.entry || context || opened {
            entries.push(bytes);
        }
    }
    Ok(entries)
}

/// The 32 bytes under `name` in a log entry's body.
fn field(body: &ciborium::Value, name: &str) -> Option<Hash> {
    let (_, value) = body.as_map()?.iter().find(|(k, _)| k.as_text() == Some(name))?;
    Some(Hash::from_bytes(value.as_bytes()?.as_slice().try_into().ok()?))
}

/// Where the record of a source's plugins lies in a pack.
pub fn unit_path(source: &str, record: Hash) -> String {
    format!("{UNITS}{source}-{}.cbor", record.short())
}

/// Where a policy lies in a pack.
pub fn policy_path(id: &str, source: Hash) -> String {
    format!("{}{id}-{}.luau", names::POLICIES, source.short())
}

/// Where a file of a plugin lies in a pack.
pub fn plugin_path(record: &PartRecord, file: &str) -> String {
    format!("{}{}-{}/{file}", names::PLUGINS, record.plugin, record.wasm.short())
}

/// Name of a plugin's settings in its folder.
pub fn settings_name(record: &PartRecord) -> String {
    format!("settings-{}.json", record.settings.short())
}

/// Where a baseline lies in a pack.
pub fn baseline_path(hash: Hash) -> String {
    format!("{}{hash}.cbor", names::BASELINE)
}

fn raw_slice(packed: &BTreeMap<String, Vec<PackedFrame>>) -> String {
    let mut out = String::new();
    for (source, frames) in packed {
        for f in frames {
            let mut line = serde_json::json!({ "source": source, "ordinal": f.ordinal, "origin": f.origin });
            match std::str::from_utf8(&f.bytes.0) {
                Ok(text) => line["frame"] = text.into(),
                Err(_) => line["frame_base64"] = data_encoding::BASE64.encode(&f.bytes.0).into(),
            }
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

/// The report speaks of the case's check on its asset up to the decision; its date is the window's end.
fn put_report(case: &Case, decisions: &[(Hash, Decision)], seen: &[Seen], world: &World, put: &mut Put<'_>) {
    let mut tally = Tally::default();
    for (id, decision) in decisions {
        tally.add(id.to_string(), decision.clone());
    }
    let seen: Vec<Seen> = seen.iter().filter(|s| s.asset == case.asset && s.check == case.check).cloned().collect();
    let tracks = tracks(&seen, &tally.kept());
    let report = Report::build(&ReportInput {
        kind: ReportKind::Case,
        run_id: &case.id,
        correlation_id: &case.decision.short(),
        made_at_ns: case.end_ns,
        decisions: &tally,
        tracks: &tracks,
        undrawn: 0,
        baselines: &world.baselines.iter().map(|(hash, b)| (*hash, BaselineFacts::from(&**b))).collect(),
        cases: std::slice::from_ref(case),
        files: &[
            (beside(names::METRICS), "the numbers of all series"),
            (beside(names::RAW_SLICE), "the frames as they came"),
            (beside(DECISION_JSON), "the decision"),
            (beside(names::REPORT_JSON), "the facts of this page for programs"),
            (beside(names::VERIFY_MD), "how to verify all of it with stock tools"),
        ],
        report_ref: beside(names::REPORT_HTML),
    });
    put(names::REPORT_HTML, report::render(&report, &tracks).into_bytes());
    put(names::REPORT_JSON, report.to_json().into_bytes());
}

/// The path of a file of the payload from where the report lies.
fn beside(path: &'static str) -> &'static str {
    path.strip_prefix("data/").unwrap_or(path)
}

fn custody(case: &Case, time_ns: i64) -> String {
    let lines = [("collected", "from the journal of the host"), ("sealed", "as a BagIt bag, tag manifest signed")];
    lines
        .iter()
        .map(|(event, note)| {
            serde_json::json!({
                "case": case.id, "event": event, "time": clock::rfc3339(time_ns), "by": "hb", "note": note,
            })
            .to_string()
                + "\n"
        })
        .collect()
}

fn bag_info(case: &Case, time_ns: i64) -> Vec<(String, String)> {
    let date = clock::rfc3339(time_ns).chars().take(10).collect();
    [
        ("Bag-Software-Agent", format!("hb {}", env!("CARGO_PKG_VERSION"))),
        ("Bagging-Date", date),
        (pack::CASE_LABEL, case.id.clone()),
        ("External-Description", format!("{} of check {} on {}", case.status, case.check, case.asset)),
        ("HB-Program", case.program.clone()),
        ("HB-Decision-SHA256", case.decision.to_string()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .to_vec()
}

#[derive(Serialize)]
struct Environment {
    hb_version: &'static str,
    engine_version: &'static str,
    target: &'static str,
}

fn environment() -> Environment {
    Environment {
        hb_version: env!("CARGO_PKG_VERSION"),
        engine_version: hb_engine::ENGINE_VERSION,
        target: std::env::consts::ARCH,
    }
}

fn verify_text(case: &Case) -> String {
    include_str!("evidence/VERIFY.md").replace("{case}", &case.id).replace("{decision}", &case.decision.to_string())
}

/// Pretty JSON with a final line feed.
fn json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}
