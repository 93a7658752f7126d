//! `hb analyze`: an artifact directory against a baseline, with a report and a gate for CI.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use hb_engine::baseline::Baseline;
use hb_engine::decision::Status;
use hb_engine::engine::Effect;
use hb_log::cbor;
use hb_log::hash::{Hash, Hasher};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::daemon::{self, pack_due};
use super::{Done, Failure, Global, open_state, progress, session, tag_name};
use crate::artifact::{self, RunMeta};
use crate::case::Case;
use crate::clock;
use crate::config::{ConfigFile, FileTransportConfig, TransportConfig};
use crate::diagnostic::{Area, Diagnostic, Place, exit, neutralise};
use crate::dispatch::Sinks;
use crate::generation::secrets::SecretDigest;
use crate::generation::{Generation, Part, Plugins, Unit};
use crate::observe::{Observer, tracks};
use crate::pipeline::record::{Recorder, counter_of, text_map};
use crate::pipeline::recover::{Replay, load_blob};
use crate::plugin::{Grants, Kind};
use crate::report::{self, BaselineFacts, Report, ReportInput, ReportKind, Tally};
use crate::state::Reader;

/// The source of an offline run.
const SOURCE: &str = "artifact";

/// Names of the report, as a page and as data.
const REPORT_HTML: &str = "drift_report.html";
const REPORT_JSON: &str = "drift_report.json";

/// Asks for an exit code of its own when a run must not pass.
const GATE: &str = "HB_GATE_FAIL_EXIT";

/// Arguments of `hb analyze`.
#[derive(Args)]
pub(crate) struct AnalyzeArgs {
    /// Artifact directory, as `hb ingest` writes it.
    dir: PathBuf,
    /// Baseline tag all checks compare with; otherwise each check's own.
    #[arg(long, value_name = "TAG")]
    baseline: Option<String>,
    /// Where the reports go; otherwise beside the artifacts.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// A stored run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) run_id: String,
    pub(crate) correlation_id: String,
    pub(crate) status: Status,
    pub(crate) sentence: String,
    pub(crate) windows: BTreeMap<String, u64>,
    pub(crate) generation: Hash,
    pub(crate) baselines: BTreeMap<String, u32>,
    pub(crate) analyzed_at: String,
    /// The page, as an absolute path.
    pub(crate) report: String,
    pub(crate) cases: Vec<String>,
}

/// Judges an artifact directory.
pub(crate) fn analyze(global: &Global, args: &AnalyzeArgs) -> Done {
    let is_gate = is_gate()?;
    let mut file = global.load()?;
    let (dir, out) = (session::path(&args.dir), args.out.as_deref().map(session::path));
    let args = &AnalyzeArgs { dir, out, baseline: args.baseline.clone() };
    let meta = artifact::read_meta(&args.dir).map_err(|e| Failure::artifact(&e))?;
    if let Some(tag) = &args.baseline {
        let name = tag_name(tag)?;
        check_tag(&file, &name)?;
        file.config.checks.iter_mut().for_each(|c| c.baseline = Some(name.clone()));
    }
    let (samples, metrics) = count_samples(&args.dir)?;
    // The run's own source replaces those of the config; nothing else of the config changes.
    file.config.sources.clear();
    let (unit, content) = artifact_unit(&file, &args.dir)?;
    let generation = Generation::build(&file)?.with_units(vec![unit], content);
    let lane = run_id(metrics, &generation, &file)?;
    // A row is a frame.
    let bar = progress::share("analyze", samples);
    let (summary, mut recorder) = daemon::run_once(&file, &generation, &lane, Sinks::default(), bar)?;
    summary.ended?;
    check_taken(&recorder)?;
    let busy = progress::busy("report");
    let cases = cases_of(&recorder, &lane)?;
    let report = write_report(&recorder, &generation, &lane, &meta, &cases, args)?;
    let run = remember(&mut recorder, &report, &lane, &generation, cases, args)?;
    busy.finish_and_clear();
    let packed =
        if file.config.evidence.on_fail { pack_due(recorder.state(), recorder.signer(), &file.config) } else { Ok(()) };
    let shown = out_dir(args).join(REPORT_HTML);
    global.print(&run, |r| format!("{}: {}\n{}\nreport: {}\n", r.run_id, r.status, r.sentence, shown.display()));
    packed?;
    Ok(if is_gate && !passes(&report) { exit::GATE_FAIL } else { exit::OK })
}

/// Whether a run that must not pass ends with an exit code of its own. A word that means neither is a mistake: it must
/// not open the gate.
fn is_gate() -> Result<bool, Failure> {
    match session::var(GATE).as_deref() {
        None | Some("" | "0") => Ok(false),
        Some("1") => Ok(true),
        Some(word) => {
            let message = format!("{GATE} is `{}`", neutralise(word));
            Err(Failure::usage(message, "write 1 for a gate, 0 or nothing for none"))
        }
    }
}

/// Whether a gate lets a run pass: nothing failed, no rule broke, and something was judged.
fn passes(report: &Report) -> bool {
    let judged = report.windows.pass + report.windows.drift;
    !matches!(report.status, Status::Fail | Status::Error) && judged > 0
}

/// Reads all of an artifact once, for its samples and the hash of their file: what cannot be read, or holds nothing, must
/// not pass for telemetry without a fault.
fn count_samples(dir: &Path) -> Result<(u64, Hash), Failure> {
    let path = dir.join(artifact::METRICS);
    let busy = progress::busy("read");
    let mut samples = 0;
    let hash = artifact::read_metrics(&path, |_| samples += 1).map_err(|e| Failure::artifact(&e))?;
    busy.finish_and_clear();
    if samples == 0 {
        let d = Diagnostic::error(Area::Data, "there is no sample to judge").at(Place::file(path));
        let help = "look at `refused` in run_meta.json beside it: it says why `hb ingest` wrote none";
        return Err(Failure::new(exit::DATA, d.help(help)));
    }
    Ok((samples, hash))
}

/// Rows that can be read and that nobody believes are no telemetry either.
fn check_taken(recorder: &Recorder) -> Result<(), Failure> {
    let counters = recorder.state().reader()?.counters(recorder.program(), recorder.lane())?;
    let count = |name: &str| counters.iter().find(|c| c.0 == name).map_or(0, |c| c.1);
    if count("samples") > count("refused") {
        return Ok(());
    }
    let d = Diagnostic::error(Area::Data, "every row of the artifact was refused");
    Err(Failure::new(exit::DATA, d.help("`hb quarantine list` says why")))
}

/// A tag that names nothing would compare with nothing.
fn check_tag(file: &ConfigFile, tag: &str) -> Result<(), Failure> {
    let (state, _) = open_state(&file.config)?;
    let tags = state.reader()?.tags(&file.config.program)?;
    if tags.iter().any(|(known, _)| known == tag) {
        return Ok(());
    }
    let d = Diagnostic::error(Area::Data, format!("no baseline has the tag `{tag}`"));
    let d = d.help("`hb baseline promote --version N --tag NAME` gives one; `hb baseline list` shows them");
    Err(Failure::new(exit::DATA, d.suggest(tag, tags.iter().map(|(known, _)| known.as_str()))))
}

/// `metrics.csv` through the replay source and the normalizer that reads hb's own format.
fn artifact_unit(file: &ConfigFile, dir: &Path) -> Result<(Unit, Vec<Vec<u8>>), Failure> {
    let path = dir.join(artifact::METRICS);
    let plugins = Plugins::of(file)?;
    let mut content = Vec::new();
    let mut load = |name: &str, kind: Kind, settings: serde_json::Value| -> Result<Part, Failure> {
        let (part, wasm, manifest) = plugins.load(name, kind, &settings, &Grants::default())?;
        content.extend([wasm, manifest.into_bytes(), part.settings.clone().into_bytes()]);
        Ok(part)
    };
    let source = load("file-replay", Kind::Source, json!({ "format": "csv" }))?;
    let normalizer = load("schema-map", Kind::Normalizer, json!({ "version": 1, "layout": "hb" }))?;
    let transport = TransportConfig::File(FileTransportConfig { path, follow: false });
    Ok((
        Unit {
            name: SOURCE.into(),
            transport,
            whole: true,
            source,
            normalizer,
            workers: 1,
            secrets: SecretDigest::default(),
        },
        content,
    ))
}

/// A run is named by what it is made of, so analysing the same again is the same run.
fn run_id(metrics: Hash, generation: &Generation, file: &ConfigFile) -> Result<String, Failure> {
    let mut hasher = Hasher::new();
    hasher.update(metrics.as_bytes());
    hasher.update(generation.hash.as_bytes());
    let (state, _) = open_state(&file.config)?;
    for (tag, version) in state.reader()?.tags(&generation.program)? {
        hasher.update(format!("{tag}={version};").as_bytes());
    }
    Ok(format!("run-{}", hasher.finalize().short()))
}

/// Replays the run with somebody watching, and writes the report as JSON and HTML.
fn write_report(
    recorder: &Recorder,
    generation: &Generation,
    lane: &str,
    meta: &RunMeta,
    cases: &[Case],
    args: &AnalyzeArgs,
) -> Result<Report, Failure> {
    let reader = recorder.state().reader()?;
    let mut tally = Tally::default();
    let mut replay = Replay::begin(&reader, &generation.program, lane, None)?;
    let observer = replay.run_with(&reader, Observer::new, usize::MAX, &mut |effects, _| {
        for effect in effects {
            if let Effect::Decision { hash, decision, .. } = effect {
                tally.add(hash.to_string(), *decision);
            }
        }
        true
    })?;
    check_whole(&reader, generation, lane, &tally)?;
    let tracks = tracks(&observer.seen, &tally.kept());
    let numbers = numbers(args);
    let report = Report::build(&ReportInput {
        kind: ReportKind::Run,
        run_id: lane,
        correlation_id: &session::var("HB_CORRELATION_ID").unwrap_or_else(|| meta.correlation_id.clone()),
        made_at_ns: tally.end_ns(),
        decisions: &tally,
        tracks: &tracks,
        undrawn: observer.dropped,
        baselines: &baselines(&reader, &tally)?,
        cases,
        files: &[(&numbers, "the numbers of all series"), (REPORT_JSON, "the facts of this page for programs")],
        report_ref: REPORT_HTML,
    });
    let out = out_dir(args);
    std::fs::create_dir_all(out).map_err(|e| Failure::io(out, &e))?;
    for (name, text) in [(REPORT_JSON, report.to_json()), (REPORT_HTML, report::render(&report, &tracks))] {
        let path = out.join(name);
        std::fs::write(&path, text).map_err(|e| Failure::io(&path, &e))?;
    }
    Ok(report)
}

/// What the state has forgotten of a run, or never took because it was full, is in no report, and would pass.
fn check_whole(reader: &Reader, generation: &Generation, lane: &str, tally: &Tally) -> Result<(), Failure> {
    let counters = reader.counters(&generation.program, lane)?;
    let count = |name: &str| counters.iter().find(|c| c.0 == name).map_or(0, |c| c.1);
    let refused = |message: String| {
        let d = Diagnostic::error(Area::State, message);
        Err(Failure::new(exit::DATA, d.help("raise `limits.max_state_mb`, and analyze it in a state of its own")))
    };
    let windows = tally.windows();
    let made: u64 = daemon::STATUSES.iter().map(|s| count(counter_of(*s))).sum();
    if daemon::STATUSES.iter().any(|s| count(counter_of(*s)) != windows.of(*s)) {
        return refused(format!("the state holds {} of the {made} decisions of this run any more", windows.total));
    }
    match count("shed_frames") {
        0 => Ok(()),
        shed => refused(format!("the state was full: {shed} rows of this run were not judged")),
    }
}

/// Where the numbers lie, from where the report goes.
fn numbers(args: &AnalyzeArgs) -> String {
    if args.out.is_none() {
        return artifact::METRICS.to_owned();
    }
    let path = args.dir.join(artifact::METRICS);
    std::path::absolute(&path).unwrap_or(path).display().to_string()
}

/// Where the reports go.
fn out_dir(args: &AnalyzeArgs) -> &Path {
    args.out.as_ref().unwrap_or(&args.dir)
}

/// What is known of the baselines that decisions name.
fn baselines(reader: &Reader, tally: &Tally) -> Result<BTreeMap<Hash, BaselineFacts>, Failure> {
    let mut facts = BTreeMap::new();
    for hash in tally.baselines() {
        let baseline: Baseline = load_blob(reader, hash, "baseline")?;
        facts.insert(hash, BaselineFacts::from(&baseline));
    }
    Ok(facts)
}

/// The cases of a lane, in the order they were opened: the same run again opens none, and has them all the same.
fn cases_of(recorder: &Recorder, lane: &str) -> Result<Vec<Case>, Failure> {
    let mut cases = Vec::new();
    for (_, bytes) in recorder.state().reader()?.cases(recorder.program())? {
        let case: Case = cbor::decode(&bytes).map_err(|e| Failure::data(e.to_string()))?;
        if case.lane == lane {
            cases.push(case);
        }
    }
    cases.sort_by_key(|case| case.entry);
    Ok(cases)
}

fn remember(
    recorder: &mut Recorder,
    report: &Report,
    lane: &str,
    generation: &Generation,
    cases: Vec<Case>,
    args: &AnalyzeArgs,
) -> Result<Run, Failure> {
    let reader = recorder.state().reader()?;
    let path = out_dir(args).join(REPORT_HTML);
    let run = Run {
        run_id: lane.to_owned(),
        correlation_id: report.correlation_id.clone(),
        status: report.status,
        sentence: report.status_sentence.clone(),
        windows: daemon::STATUSES.iter().map(|s| (s.to_string(), report.windows.of(*s))).filter(|c| c.1 > 0).collect(),
        generation: generation.hash,
        baselines: reader.tags(&generation.program)?.into_iter().collect(),
        analyzed_at: clock::rfc3339(clock::now_ns()),
        // Whoever opens it later stands elsewhere.
        report: std::path::absolute(&path).unwrap_or(path).display().to_string(),
        cases: cases.into_iter().map(|case| case.id).collect(),
    };
    drop(reader);
    let bytes = serde_json::to_vec(&run).unwrap_or_default();
    recorder.pending().runs.push((lane.to_owned(), bytes));
    recorder.log("run", text_map(&[("run", lane), ("status", run.status.as_str())]));
    recorder.commit()?;
    Ok(run)
}
