//! `hb baseline`: what is normal, made from clean telemetry, versioned and tagged.

use clap::{Args, Subcommand};
use hb_engine::baseline::{Baseline, Builder};
use hb_engine::judge::BASELINE_FIELDS;
use hb_engine::series::{SeriesDef, SeriesKind};
use hb_log::cbor;
use serde::Serialize;

use super::{Done, Failure, Global, existing_state, open_state, progress, session, tag_name};
use crate::artifact;
use crate::clock;
use crate::diagnostic::{Area, Diagnostic, exit};
use crate::pipeline::learn::{self, BaselineMeta, Draft};
use crate::pipeline::record::{LIVE, text_map};
use crate::pipeline::recover::{load_baseline, recover};
use crate::state::{Commit, NewEntry, State};

/// Verbs of `hb baseline`.
#[derive(Subcommand)]
pub(crate) enum BaselineVerb {
    /// Make a new version from artifact directories, or from the newest live telemetry.
    #[command(after_help = "Example: hb baseline create --from clean@2026-11-20T10:00:00Z..2026-11-20T12:00:00Z")]
    Create(CreateArgs),
    /// List versions and tags.
    #[command(after_help = "Example: hb baseline list --json")]
    List,
    /// Show the statistics of a version.
    #[command(after_help = "Example: hb baseline show --version 1")]
    Show {
        /// Version.
        #[arg(long)]
        version: u32,
    },
    /// Let a tag name a version; checks with this tag use it from then on.
    #[command(after_help = "Example: hb baseline promote --version 1 --tag golden")]
    Promote {
        /// Version.
        #[arg(long)]
        version: u32,
        /// Tag.
        #[arg(long, default_value = "golden")]
        tag: String,
    },
}

/// Arguments of `hb baseline create`.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct CreateArgs {
    /// Artifact directory, with an optional span: DIR@START..END, either may be left out.
    #[arg(long, value_name = "DIR[@START..END]")]
    from: Vec<String>,
    /// Span of live telemetry, back from where its clocks stand: 24h, 7d.
    #[arg(long, value_name = "SPAN")]
    window: Option<String>,
}

#[derive(Serialize)]
struct Line {
    version: u32,
    hash: String,
    created_at: String,
    start: String,
    end: String,
    series: usize,
    samples: u64,
    sources: Vec<String>,
    tags: Vec<String>,
}

/// Runs a baseline verb.
pub(crate) fn run(global: &Global, verb: &BaselineVerb) -> Done {
    match verb {
        BaselineVerb::Create(args) => create(global, args),
        BaselineVerb::List => list(global),
        BaselineVerb::Show { version } => show(global, *version),
        BaselineVerb::Promote { version, tag } => promote(global, *version, tag),
    }
}

fn create(global: &Global, args: &CreateArgs) -> Done {
    let file = global.load()?;
    let program = file.config.program.to_string();
    let (state, signer) = open_state(&file.config)?;
    let mut builder = Builder::new();
    let mut samples = 0;
    let mut sources = Vec::new();
    let busy = progress::busy("baseline");
    for from in &args.from {
        samples += gather_dir(from, &mut builder)?;
        sources.push(from.rsplit('/').next().unwrap_or(from).to_owned());
    }
    if let Some(window) = &args.window {
        let span = clock::parse_span(window).map_err(|e| Failure::usage(e, "as --window 24h"))?;
        samples += gather_live(&state, &program, span, &mut builder)?;
        sources.push(format!("{LIVE} {window}"));
    }
    busy.finish_and_clear();
    if builder.is_empty() {
        let d = Diagnostic::error(Area::Data, "there is no sample to learn from");
        return Err(Failure::new(exit::DATA, d.help("check the span, and that the source brought telemetry")));
    }
    let baseline = builder.build(sources.clone());
    let meta = BaselineMeta { v: 1, created_ns: clock::now_ns(), sources, samples, by: String::new() };
    let draft = Draft { program, baseline, meta, tag: None };
    let version = learn::commit(&state, &signer, &draft, &|_| Vec::new())?;
    let line = line(version, &draft.baseline, &draft.meta, &[]);
    global.print(&line, |l| {
        format!("baseline v{}: {} series, {} samples, {} to {}\n", l.version, l.series, l.samples, l.start, l.end)
    });
    Ok(exit::OK)
}

/// Adds the samples of an artifact directory, within its span.
fn gather_dir(from: &str, builder: &mut Builder) -> Result<u64, Failure> {
    let usage = |e: String| Failure::usage(e, "write DIR@START..END with times as 2026-11-20T10:00:00Z");
    let (dir, span) = match from.rsplit_once('@') {
        Some((dir, span)) => (dir, Some(span.split_once("..").ok_or_else(|| usage(format!("`{span}` is no span")))?)),
        None => (from, None),
    };
    let bound = |text: &str, open: i64| if text.is_empty() { Ok(open) } else { clock::parse(text).map_err(usage) };
    let (start, end) = match span {
        Some((start, end)) => (bound(start, i64::MIN)?, bound(end, i64::MAX)?),
        None => (i64::MIN, i64::MAX),
    };
    let (mut n, mut wrong) = (0, None);
    let path = session::path(dir.as_ref()).join(artifact::METRICS);
    artifact::read_metrics(&path, |r| {
        if r.time_ns < start || r.time_ns >= end {
            return;
        }
        // The kind is not in the file; statistics do not depend on it.
        match SeriesDef::new(&r.metric, &r.unit, SeriesKind::Gauge, r.labels) {
            Ok(def) => builder.push(&def, r.time_ns, r.value),
            Err(e) => wrong = Some(e),
        }
        n += 1;
    })
    .map_err(|e| Failure::artifact(&e))?;
    match wrong {
        Some(e) => Err(Failure::data(format!("{}: {e}", path.display()))),
        None => Ok(n),
    }
}

/// Adds the live samples of the last `span` ns. They end where the newest clock of the sources stands: a time that the
/// engine did not believe is in the journal too, and moves no window.
fn gather_live(state: &State, program: &str, span: i64, builder: &mut Builder) -> Result<u64, Failure> {
    let ticks = recover(&state.reader()?, program, LIVE)?.engine.core().ticks.clone();
    let Some(&clock) = ticks.values().max() else { return Ok(0) };
    let end = learn::until_clock(clock, clock).end;
    Ok(learn::gather(state, program, LIVE, &(end.saturating_sub(span)..end), builder)?)
}

fn list(global: &Global) -> Done {
    let file = global.load()?;
    let program = file.config.program.to_string();
    let state = existing_state(&file.config)?;
    let reader = state.reader()?;
    let tags = reader.tags(&program)?;
    let mut lines = Vec::new();
    for row in reader.baselines(&program)? {
        let baseline = load_baseline(&reader, &program, row.version)?;
        let meta: BaselineMeta = cbor::decode(&row.meta).map_err(|e| Failure::data(e.to_string()))?;
        let named: Vec<String> = tags.iter().filter(|t| t.1 == row.version).map(|t| t.0.clone()).collect();
        lines.push(line(row.version, &baseline, &meta, &named));
    }
    global.print(&lines, |lines| {
        let mut text = String::new();
        for l in lines {
            let tags = if l.tags.is_empty() { String::new() } else { format!(" [{}]", l.tags.join(", ")) };
            text.push_str(&format!(
                "v{}{tags}: {} series, {} samples, {} to {}, from {}\n",
                l.version,
                l.series,
                l.samples,
                l.start,
                l.end,
                l.sources.join(", ")
            ));
        }
        text
    });
    Ok(exit::OK)
}

fn show(global: &Global, version: u32) -> Done {
    let file = global.load()?;
    let program = file.config.program.to_string();
    let state = existing_state(&file.config)?;
    let reader = state.reader()?;
    if reader.baseline(&program, version)?.is_none() {
        return Err(unknown(version));
    }
    let baseline = load_baseline(&reader, &program, version)?;
    global.print(&*baseline, |b| {
        let mut text = format!("baseline v{version}, {} series\n", b.series.len());
        for s in &b.series {
            text.push_str(&format!("{} [{}]\n ", s.series, s.series.unit));
            for (name, value) in BASELINE_FIELDS.iter().zip(&s.values) {
                text.push_str(&format!(" {name}={value}"));
            }
            text.push('\n');
        }
        text
    });
    Ok(exit::OK)
}

fn promote(global: &Global, version: u32, tag: &str) -> Done {
    let file = global.load()?;
    let program = file.config.program.to_string();
    let tag = tag_name(tag)?.to_string();
    let (state, signer) = open_state(&file.config)?;
    if state.reader()?.baseline(&program, version)?.is_none() {
        return Err(unknown(version));
    }
    let shown = version.to_string();
    let body = text_map(&[("tag", &tag), ("version", &shown)]);
    state.commit(
        Commit {
            program,
            tags: vec![(tag.clone(), version)],
            entries: vec![NewEntry { kind: "baseline.promoted".into(), time_ns: clock::now_ns(), body }],
            ..Commit::default()
        },
        &signer,
    )?;
    session::baselines_changed();
    global.print(&serde_json::json!({ "tag": tag, "version": version }), |_| format!("{tag} is v{version}\n"));
    Ok(exit::OK)
}

fn unknown(version: u32) -> Failure {
    let d = Diagnostic::error(Area::Data, format!("there is no baseline v{version}"));
    Failure::new(exit::DATA, d.help("`hb baseline list` shows what there is"))
}

fn line(version: u32, b: &Baseline, meta: &BaselineMeta, tags: &[String]) -> Line {
    Line {
        version,
        hash: b.hash().to_string(),
        created_at: clock::rfc3339(meta.created_ns),
        start: clock::rfc3339(b.start_ns),
        end: clock::rfc3339(b.end_ns),
        series: b.series.len(),
        samples: meta.samples,
        sources: meta.sources.clone(),
        tags: tags.to_vec(),
    }
}
