//! `hb explain`: what was decided, by which rule, from what, and where it stands in the log.
//!
//! What a decision says of itself is always there. How the series looked is found by feeding the asset what it was fed
//! then, as for evidence: from what a case keeps, from the journal as long as it is whole, or from a pack.

mod screen;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use hb_engine::alert::{AlertState, fingerprint};
use hb_engine::decision::{Counts, Decision, Finding, Mode, Severity, Status};
use hb_engine::partition::{Names, PartitionInput, World};
use hb_log::cbor;
use hb_log::hash::Hash;
use serde::Serialize;

use super::evidence::{log_entry, not_replayed, whole};
use super::session::{self, Stream};
use super::{Done, Failure, Global, existing_state};
use crate::alert::KeptAlert;
use crate::case::{Case, Held, packed_name};
use crate::diagnostic::{Area, Diagnostic, chain, exit, neutralise};
use crate::evidence::made::{Made, ordinals};
use crate::observe::{Seen, tracks};
use crate::pipeline::PipelineError;
use crate::replay;
use crate::report::{Band, Limits, Span, time};
use crate::state::{Lookup, Reader};

/// Version of the JSON.
const VERSION: u32 = 1;

/// Windows of one series that are told, the newest ones: more than a screen is wide.
const POINTS_MAX: usize = 200;

/// Series that are told: the worst ones, for findings stand in that order.
const SERIES_MAX: usize = 50;

/// Journal inputs that are fed again for a decision of which nothing was kept: some ten seconds of work.
const REPLAY_MAX: u64 = 2_000_000;

/// Arguments of `hb explain`.
#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// Decision or case; the beginning is enough when it is unique. A pack has only one.
    #[arg(required_unless_present = "pack")]
    id: Option<String>,
    /// Explain from an evidence pack, a directory or a .zip file; needs no state.
    #[arg(long, value_name = "PACK")]
    pack: Option<PathBuf>,
}

/// All that is known of a decision.
#[derive(Serialize)]
struct Explained {
    v: u32,
    decision: String,
    program: String,
    lane: String,
    asset: String,
    check: String,
    window: Span,
    status: Status,
    previous: Status,
    severity: Option<Severity>,
    mode: Mode,
    engine: String,
    baseline: Option<BaselineUsed>,
    /// Findings that are not PASS, the worst first.
    findings: Vec<Told>,
    findings_left_out: usize,
    counts: Counts,
    inputs: Inputs,
    /// The generation that judged.
    generation: Option<Hash>,
    /// All that fed the window, the one that judged last.
    generations: Vec<Hash>,
    log: Option<LogPlace>,
    case: Option<CaseTold>,
    alert: Option<AlertTold>,
    /// Why no values over time are told.
    no_values: Option<String>,
    /// The pack it was read from.
    #[serde(skip)]
    pack: Option<String>,
}

#[derive(Serialize)]
struct BaselineUsed {
    tag: String,
    version: u32,
    hash: Hash,
    /// The telemetry it was made from; null when it is not stored any more.
    span: Option<Span>,
    age_sec: Option<i64>,
}

/// One finding with what is known around it.
#[derive(Serialize)]
struct Told {
    label: String,
    #[serde(flatten)]
    finding: Finding,
    rule_version: Option<String>,
    /// SHA-256 of the rule's source.
    rule_source: Option<Hash>,
    band: Option<Band>,
    limits: Limits,
    /// The newest windows up to this one.
    points: Vec<Point>,
}

#[derive(Serialize)]
struct Point {
    #[serde(skip)]
    end_ns: i64,
    end: String,
    /// Mean of the window; null without samples.
    mean: Option<f64>,
    status: Status,
}

/// What the decision was made from.
#[derive(Serialize)]
struct Inputs {
    /// Hash of the asset's state before.
    snapshot: Hash,
    /// Hash over what it was fed from then on.
    journal: Hash,
    inputs: u64,
    /// Frames with samples of the window, by source; null when they are not known.
    frames: Option<BTreeMap<String, FrameRange>>,
}

#[derive(Serialize)]
struct FrameRange {
    first: u64,
    last: u64,
    count: usize,
}

#[derive(Serialize)]
struct LogPlace {
    /// Number of the entry that records the decision.
    entry: u64,
    /// Entries of the log that the newest signed head covers.
    size: u64,
}

#[derive(Serialize)]
struct CaseTold {
    id: String,
    /// Whether its evidence is packed here.
    packed: bool,
}

#[derive(Serialize)]
struct AlertTold {
    fingerprint: String,
    state: AlertState,
    severity: Severity,
    starts_at: String,
    ends_at: Option<String>,
}

/// What the rules saw, and what it was made from.
struct Look {
    told: Names,
    inputs: Vec<PartitionInput>,
    world: World,
    seen: Vec<Seen>,
}

/// Explains a decision.
pub(crate) fn explain(global: &Global, args: &ExplainArgs) -> Done {
    let explained = match &args.pack {
        Some(_) => of_pack(args)?,
        None => of_state(global, args.id.as_deref().unwrap_or_default())?,
    };
    if global.json {
        global.print(&explained, |_| String::new());
    } else {
        // It neutralises its own parts: its colours are the only thing that acts.
        session::say(Stream::Out, &screen::draw(&explained, global.screen()));
    }
    Ok(exit::OK)
}

/// From a pack alone.
fn of_pack(args: &ExplainArgs) -> Result<Explained, Failure> {
    let path = args.pack.clone().unwrap_or_default();
    let (files, facts) = whole(&path)?;
    let look = replay::look(&files).map_err(|e| not_replayed(&path, &e))?;
    let (id, case) = (look.id.to_string(), facts.case.unwrap_or_default());
    if let Some(wanted) = args.id.as_deref().filter(|w| !id.starts_with(w.trim_start_matches("case-"))) {
        let d = Diagnostic::error(Area::Data, format!("the pack has no decision `{}`", neutralise(wanted)));
        return Err(Failure::new(exit::DATA, d.help(format!("its only decision is {id}"))));
    }
    let replay::Look { decision, id, told, inputs, world, seen } = look;
    let mut explained = told_of(id, &decision, &Ok(Look { told, inputs, world, seen }));
    explained.log = facts.decision_seq.zip(facts.log_size).map(|(entry, size)| LogPlace { entry, size });
    explained.case = Some(CaseTold { id: case, packed: true });
    explained.pack = Some(path.display().to_string());
    Ok(explained)
}

/// From the state.
fn of_state(global: &Global, id: &str) -> Result<Explained, Failure> {
    let file = global.load()?;
    let program = file.config.program.as_str();
    let state = existing_state(&file.config)?;
    let reader = state.reader()?;
    let row = match reader.decision(program, id.trim_start_matches("case-"))? {
        Lookup::One { row, .. } => row,
        Lookup::Many(ids) => {
            let ids: Vec<String> = ids.iter().map(Hash::short).collect();
            let message = format!("`{}` may be {}", neutralise(id), ids.join(", "));
            return Err(Failure::usage(message, "write more of it"));
        }
        Lookup::None => {
            let d = Diagnostic::error(Area::Data, format!("there is no decision or case `{}`", neutralise(id)));
            return Err(Failure::new(exit::DATA, d.help("`hb status` shows the newest, `hb log show` all of them")));
        }
    };
    let decision: Decision = cbor::decode(&row.bytes).map_err(|e| Failure::data(e.to_string()))?;
    let entry = log_entry(&reader, row.id)?;
    let case = Case::open(row.id, &decision, entry.unwrap_or_default());
    let is_case = reader.case(program, &case.id)?.is_some();
    let mut explained = told_of(row.id, &decision, &look(&reader, &case, row.seq)?);
    let size = reader.checkpoint()?.map_or(0, |head| head.checkpoint.size);
    explained.log = entry.map(|entry| LogPlace { entry, size });
    let packed = reader.meta(program, &packed_name(&case.id))?.is_some();
    explained.case = is_case.then(|| CaseTold { id: case.id.clone(), packed });
    explained.alert = alert(&reader, &decision)?;
    Ok(explained)
}

/// What the rules saw, or why nobody knows any more.
fn look(reader: &Reader, case: &Case, seq: u64) -> Result<Result<Look, String>, Failure> {
    let is_held = reader.meta(&case.program, &Held::name(&case.id))?.is_some();
    if !is_held && seq > REPLAY_MAX {
        return Ok(Err(format!("no case keeps them, and {seq} inputs are too many to be fed again")));
    }
    let looked = || -> Result<Look, PipelineError> {
        let made = Made::of(reader, case)?;
        let world = made.world(reader)?;
        let told = made.names(&world)?;
        let seen = made.watch(reader, &world)?;
        Ok(Look { told, inputs: made.inputs, world, seen })
    };
    match looked() {
        Ok(look) => Ok(Ok(look)),
        Err(e @ PipelineError::Gone(_)) => Ok(Err(chain(&e))),
        Err(e) => Err(e.into()),
    }
}

/// What a decision says, with what is known of its values.
fn told_of(id: Hash, d: &Decision, look: &Result<Look, String>) -> Explained {
    let known = look.as_ref().ok();
    let span = |start_ns, end_ns| Span { start: time(start_ns), end: time(end_ns) };
    let baseline = d.baseline.as_ref().map(|b| {
        let facts = known.and_then(|l| l.world.baselines.get(&b.hash));
        BaselineUsed {
            tag: b.tag.clone(),
            version: b.version,
            hash: b.hash,
            span: facts.map(|f| span(f.start_ns, f.end_ns)),
            age_sec: facts.map(|f| d.end_ns.saturating_sub(f.end_ns) / hb_engine::NS_PER_SEC),
        }
    });
    Explained {
        v: VERSION,
        decision: id.to_string(),
        program: d.program.clone(),
        lane: d.lane.clone(),
        asset: d.asset.clone(),
        check: d.check.clone(),
        window: span(d.start_ns, d.end_ns),
        status: d.status,
        previous: d.previous,
        severity: d.severity,
        mode: d.mode,
        engine: d.engine.clone(),
        baseline,
        findings: d.findings.iter().take(SERIES_MAX).map(|f| told(f, d, known)).collect(),
        findings_left_out: d.findings.len().saturating_sub(SERIES_MAX),
        counts: d.counts,
        inputs: Inputs {
            snapshot: d.inputs.snapshot,
            journal: d.inputs.journal,
            inputs: d.inputs.inputs,
            frames: known.map(|l| frames(d, l)),
        },
        generation: d.generations.last().copied(),
        generations: d.generations.clone(),
        log: None,
        case: None,
        alert: None,
        no_values: look.as_ref().err().cloned(),
        pack: None,
    }
}

fn told(finding: &Finding, d: &Decision, look: Option<&Look>) -> Told {
    let judged = look.zip(d.generations.last()).and_then(|(l, hash)| l.world.specs.get(hash));
    let check = judged.and_then(|spec| spec.checks.iter().find(|c| c.id == d.check));
    let rule = check.and_then(|c| c.rules.iter().find(|r| r.rule == finding.rule));
    let is_its = |s: &&Seen| s.check == d.check && s.end_ns <= d.end_ns && s.series == finding.series;
    let seen: Vec<Seen> = look.map(|l| l.seen.iter().filter(is_its).cloned().collect()).unwrap_or_default();
    let track = tracks(&seen, &[]).pop();
    let point = |s: &Seen| Point {
        end_ns: s.end_ns,
        end: time(s.end_ns),
        mean: Some(s.window[1]).filter(|m| m.is_finite()),
        status: s.status,
    };
    Told {
        label: finding.series.to_string(),
        finding: finding.clone(),
        rule_version: rule.map(|r| r.version.clone()),
        rule_source: rule.map(|r| r.source),
        band: track.as_ref().and_then(|t| t.band),
        limits: track.map(|t| t.limits).unwrap_or_default(),
        points: seen.iter().skip(seen.len().saturating_sub(POINTS_MAX)).map(point).collect(),
    }
}

/// The frames with samples of the window.
fn frames(d: &Decision, look: &Look) -> BTreeMap<String, FrameRange> {
    let is_inside =
        |i: &&PartitionInput| matches!(i, PartitionInput::Sample(s) if (d.start_ns..d.end_ns).contains(&s.time_ns));
    let by_source = ordinals(&look.told, look.inputs.iter().filter(is_inside));
    let range = |(source, numbers): (String, std::collections::BTreeSet<u64>)| {
        let (first, last) = (*numbers.first()?, *numbers.last()?);
        Some((source, FrameRange { first, last, count: numbers.len() }))
    };
    by_source.into_iter().filter_map(range).collect()
}

/// The alert that the decision belongs to, if it is still remembered.
fn alert(reader: &Reader, d: &Decision) -> Result<Option<AlertTold>, Failure> {
    let wanted = fingerprint(&d.program, &d.lane, &d.asset, &d.check);
    for (_, bytes) in reader.alerts(&d.program)? {
        let alert = cbor::decode::<KeptAlert>(&bytes).map_err(|e| Failure::data(e.to_string()))?.alert;
        let covers = alert.starts_at_ns <= d.start_ns && alert.ends_at_ns.is_none_or(|end| d.end_ns <= end);
        if alert.fingerprint == wanted && covers {
            return Ok(Some(AlertTold {
                fingerprint: alert.fingerprint,
                state: alert.state,
                severity: alert.severity,
                starts_at: time(alert.starts_at_ns),
                ends_at: alert.ends_at_ns.map(time),
            }));
        }
    }
    Ok(None)
}
