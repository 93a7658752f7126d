//! `hb ingest` and `hb normalize`: telemetry through the plugins into files, without state.

mod origin;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use hb_engine::series::SeriesDef;
use serde_json::json;

use super::{Done, Failure, Global, progress, signals, tell};
use crate::artifact::{self, RunMeta, Writer};
use crate::clock;
use crate::config::{ConfigFile, FileTransportConfig, SourceConfig, TransportConfig, yaml};
use crate::diagnostic::{Area, Diagnostic, exit, neutralise};
use crate::generation::secrets::SecretDigest;
use crate::generation::{Part, Plugins, Unit};
use crate::pipeline::feed::{Feed, FeedLimits, Next};
use crate::pipeline::series::SeriesBook;
use crate::pipeline::{Cursor, Normalized};
use crate::plugin::{Grants, Kind};

use origin::OriginArgs;

/// The source of a file.
const FILE_SOURCE: &str = "file-replay";

/// The normalizer when a config names none.
const DEFAULT_NORMALIZER: &str = "schema-map";

/// Reasons for refusals that are listed one by one.
const REASONS_MAX: usize = 20;

/// How often it is looked whether a run is to end, ms.
const LOOK_MS: u64 = 100;

/// How often what has come is made durable, ms, when nobody waits for it.
const SAVE_MS: u64 = 1_000;

/// Arguments of `hb ingest`.
#[derive(Args)]
pub(crate) struct IngestArgs {
    /// Source plugin; by default the one that reads what is given: file-replay, mqtt or syslog. The config's source with
    /// this plugin says how it reads.
    #[arg(long, value_name = "PLUGIN")]
    source: Option<String>,
    /// Source of the config to read as, where several have the plugin; otherwise the first.
    #[arg(long, value_name = "NAME")]
    config_source: Option<String>,
    #[command(flatten)]
    origin: OriginArgs,
    /// Artifact directory to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Telemetry schema; overrides the config's.
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Lines of a file per second at most.
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// End after this time, as 30s or 5m. A broker or a socket has no end of its own: Ctrl-C and SIGTERM end it too, and
    /// what has come is written.
    #[arg(long = "for", value_name = "SPAN")]
    span: Option<String>,
    /// End after this many frames.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_frames: Option<u64>,
}

/// Arguments of `hb normalize`.
#[derive(Args)]
pub(crate) struct NormalizeArgs {
    /// Telemetry schema.
    #[arg(long, value_name = "FILE")]
    schema: PathBuf,
    /// Raw records, JSONL or CSV.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// metrics.csv to write, or a directory for all artifacts.
    #[arg(long, value_name = "FILE|DIR")]
    output: PathBuf,
}

/// Reads a file, a broker or a socket as the daemon would, into an artifact directory.
pub(crate) fn ingest(global: &Global, args: &IngestArgs) -> Done {
    let (file, _scratch) = global.load_or_defaults()?;
    let default = args.origin.default_plugin();
    let configured = find_source(&file, args.source.as_deref(), default, args.config_source.as_deref())?;
    let plugin = configured.map_or_else(|| args.source.as_deref().unwrap_or(default), |s| s.plugin.as_str());
    let max_bytes = file.config.limits.max_line_bytes as usize;
    let transport = args.origin.transport(plugin, configured, max_bytes)?;
    let is_live = !matches!(transport, TransportConfig::File(_));
    if args.rate.is_some() && is_live {
        return Err(Failure::usage("`--rate` belongs to files", "leave it out: what is live comes when it comes"));
    }
    let (what, config) = (origin_text(&transport), file.path.display());
    match (configured, file.config.normalizers.first()) {
        (Some(source), _) if args.config_source.is_none() => {
            tell(&format!("{what} is read as source `{}` of {config}\n", source.name));
        }
        (None, Some(first)) => {
            tell(&format!("no source of {config} reads so; {what} is normalized by `{}`\n", first.name));
        }
        _ => {}
    }
    let mut settings = configured.map_or_else(|| default_settings(plugin), |s| s.settings.clone());
    if let Some(rate) = args.rate {
        settings["rate_lines_per_sec"] = json!(rate);
    }
    let normalizer = configured.map(|s| s.normalizer.as_str());
    let unit = unit(&file, plugin, settings, transport, normalizer, args.schema.as_deref())?;
    let end = End::of(args, is_live)?;
    let limits = FeedLimits { max_frames: args.max_frames.unwrap_or(u64::MAX), ..FeedLimits::of(&file.config) };
    let meta = write_artifacts(&unit, limits, &args.out, &end)?;
    show(global, &meta, &args.out);
    Ok(exit::OK)
}

/// When a run ends before its source does.
#[derive(Default)]
struct End {
    at: Option<Instant>,
    is_asked: Option<signals::Flag>,
}

impl End {
    fn of(args: &IngestArgs, is_live: bool) -> Result<End, Failure> {
        let span = args.span.as_deref().map(clock::parse_span).transpose();
        let span =
            span.map_err(|e| Failure::usage(e, "as --for 30s"))?.map(|ns| Duration::from_nanos(ns.unsigned_abs()));
        // Half a file is no file: whoever interrupts that wants no artifacts.
        let is_asked = is_live.then(signals::flag).transpose();
        let is_asked = is_asked.map_err(|e| Failure::io("signal handling".as_ref(), &e))?;
        Ok(End { at: span.and_then(|span| Instant::now().checked_add(span)), is_asked })
    }

    fn has_come(&self) -> bool {
        self.at.is_some_and(|at| at <= Instant::now()) || self.is_asked.as_ref().is_some_and(|f| f.name().is_some())
    }
}

/// The source of the config with this name, or else the first with this plugin.
fn find_source<'c>(
    file: &'c ConfigFile,
    plugin: Option<&str>,
    default: &str,
    name: Option<&str>,
) -> Result<Option<&'c SourceConfig>, Failure> {
    let sources = &file.config.sources;
    let Some(name) = name else {
        return Ok(sources.iter().find(|s| s.plugin == *plugin.unwrap_or(default)));
    };
    let Some(source) = sources.iter().find(|s| s.name == *name) else {
        let message = format!("{} has no source `{}`", file.path.display(), neutralise(name));
        let d = Diagnostic::error(Area::Usage, message).suggest(name, sources.iter().map(|s| s.name.as_str()));
        return Err(Failure::new(exit::USAGE, d));
    };
    match plugin {
        Some(plugin) if source.plugin != *plugin => {
            let message = format!("source `{name}` is read by `{}`, not by `{}`", source.plugin, neutralise(plugin));
            Err(Failure::usage(message, "leave --source out, or name another --config-source"))
        }
        _ => Ok(Some(source)),
    }
}

fn default_settings(plugin: &str) -> serde_json::Value {
    if plugin == FILE_SOURCE { json!({ "format": "auto" }) } else { json!({}) }
}

/// Normalizes one file.
pub(crate) fn normalize(global: &Global, args: &NormalizeArgs) -> Done {
    let (file, _scratch) = global.load_or_defaults()?;
    let transport = TransportConfig::File(FileTransportConfig { path: args.input.clone(), follow: false });
    let unit = unit(&file, FILE_SOURCE, default_settings(FILE_SOURCE), transport, None, Some(&args.schema))?;
    let limits = FeedLimits::of(&file.config);
    let single = args.output.extension().is_some_and(|e| e == "csv");
    if !single {
        let meta = write_artifacts(&unit, limits, &args.output, &End::default())?;
        show(global, &meta, &args.output);
        return Ok(exit::OK);
    }
    // The directory is made beside the file, so that the rename stays on one file system.
    let parent = args.output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = tempfile::tempdir_in(parent).map_err(|e| Failure::io(parent, &e))?;
    let meta = write_artifacts(&unit, limits, dir.path(), &End::default())?;
    std::fs::rename(dir.path().join(artifact::METRICS), &args.output).map_err(|e| Failure::io(&args.output, &e))?;
    show(global, &meta, &args.output);
    Ok(exit::OK)
}

/// A unit for one transport: the source plugin with `settings`, and the normalizer of this name, or else the first, with
/// a schema of its own or the config's.
fn unit(
    file: &ConfigFile,
    source: &str,
    settings: serde_json::Value,
    transport: TransportConfig,
    normalizer: Option<&str>,
    schema: Option<&Path>,
) -> Result<Unit, Failure> {
    let plugins = Plugins::of(file)?;
    let configured = file.config.normalizers.iter().find(|n| normalizer.is_none_or(|name| n.name == *name));
    let normalizer_settings = match (schema, configured) {
        (Some(path), _) => yaml::load_json(path, Area::Schema)?.1,
        (None, Some(n)) => n.settings.clone(),
        (None, None) => {
            let d = Diagnostic::error(Area::Config, "nothing says what the fields mean");
            return Err(d.help("give --schema, or a config with `normalizers`: `hb init` writes one").into());
        }
    };
    let plugin = configured.map_or(DEFAULT_NORMALIZER, |n| n.plugin.as_str());
    Ok(Unit {
        name: source.to_owned(),
        whole: matches!(transport, TransportConfig::File(_)),
        transport,
        source: part(&plugins, source, Kind::Source, &settings)?,
        normalizer: part(&plugins, plugin, Kind::Normalizer, &normalizer_settings)?,
        workers: configured.map_or(1, |n| n.workers.into()),
        secrets: SecretDigest::default(),
    })
}

fn part(plugins: &Plugins, name: &str, kind: Kind, settings: &serde_json::Value) -> Result<Part, Failure> {
    Ok(plugins.load(name, kind, settings, &Grants::default())?.0)
}

/// Writes what a unit brings until it ends, or `end` has come.
fn write_artifacts(unit: &Unit, limits: FeedLimits, out: &Path, end: &End) -> Result<RunMeta, Failure> {
    let failed = |e: std::io::Error| Failure::io(out, &e);
    let book = SeriesBook::default();
    let mut feed = Feed::start(unit, &book, None, limits)?;
    let probe = feed.take_probe();
    let mut run = Run::create(unit, out).map_err(failed)?;
    let is_live = end.is_asked.is_some();
    if is_live {
        tell(&format!("reading from {}\n", origin_text(&unit.transport)));
    }
    let bar = progress::frames("ingest");
    let (mut is_ending, mut unsaved, mut saved): (_, Option<Cursor>, _) = (false, None, Instant::now());
    let mut fault = None;
    loop {
        let ends_now = !is_ending && end.has_come();
        let is_due = ends_now || feed.wants_commit() || saved.elapsed() >= Duration::from_millis(SAVE_MS);
        if is_live
            && is_due
            && let Some(cursor) = unsaved.take()
        {
            // A broker hears only of what is on disk.
            run.writer.save().map_err(failed)?;
            feed.committed(&cursor);
            saved = Instant::now();
        }
        if ends_now {
            fault = probe.as_ref().and_then(|probe| probe().fault);
            feed.finish();
            is_ending = true;
        }
        match feed.next(Instant::now() + Duration::from_millis(LOOK_MS)) {
            Next::Batch(batch) => {
                bar.inc(batch.frames.len() as u64);
                run.take(&batch, &book).map_err(failed)?;
                unsaved = Some(batch.cursor);
            }
            Next::Idle | Next::Swapped => {}
            Next::Ended => break,
            Next::Failed(e) => return Err(e.into()),
        }
    }
    bar.finish_and_clear();
    if let Some(why) = fault.filter(|_| bar.position() == 0) {
        // Nothing that came is something else than nothing that could come.
        let d = Diagnostic::error(Area::Transport, format!("nothing was read: {}", neutralise(&why)));
        return Err(Failure::new(exit::IO, d.help("no artifacts were written; run it again when that is mended")));
    }
    run.writer.finish(run.meta).map_err(failed)
}

/// An artifact directory that is being written.
struct Run {
    writer: Writer,
    meta: RunMeta,
    defs: Vec<SeriesDef>,
}

impl Run {
    fn create(unit: &Unit, out: &Path) -> std::io::Result<Run> {
        let source = format!("{} {}", unit.source.record.plugin, origin_text(&unit.transport));
        let meta = RunMeta {
            source,
            correlation_id: std::env::var("HB_CORRELATION_ID").unwrap_or_default(),
            made_by: [&unit.source, &unit.normalizer].map(made_by).to_vec(),
            ..RunMeta::default()
        };
        Ok(Run { writer: Writer::create(out)?, meta, defs: Vec::new() })
    }

    fn take(&mut self, batch: &Normalized, book: &SeriesBook) -> std::io::Result<()> {
        self.defs.extend(book.since(self.defs.len()));
        let c = &batch.columns;
        let mut unfit = 0;
        for k in 0..c.len() {
            let def = &self.defs[c.series[k] as usize];
            if artifact::has_place_for(def) {
                self.writer.sample(def, c.time_ns[k], c.value[k])?;
            } else {
                unfit += 1;
            }
        }
        for event in &batch.events {
            let attributes: BTreeMap<&str, &str> =
                event.attributes.iter().map(|a| (a.key.as_str(), a.value.as_str())).collect();
            let body = String::from_utf8_lossy(&event.body);
            let line = json!({
                "timestamp": clock::rfc3339(event.time_ns), "kind": event.kind, "body": body, "attributes": attributes,
            });
            self.writer.event(&line)?;
        }
        self.count(batch, unfit);
        Ok(())
    }

    fn count(&mut self, batch: &Normalized, unfit: usize) {
        let meta = &mut self.meta;
        let mut count = |name: &str, n: usize| *meta.counts.entry(name.to_owned()).or_default() += n as u64;
        count("frames", batch.frames.len());
        count("samples", batch.columns.len() - unfit);
        count("events", batch.events.len());
        count("ignored", batch.ignored as usize);
        count("rejects", batch.refused.len() + unfit);
        count("faults", batch.faults.len());
        for refused in &batch.refused {
            // Reasons may name what they found; beyond this many kinds they are counted together.
            let known = meta.refused.len() < REASONS_MAX || meta.refused.contains_key(&refused.reason);
            let key = if known { refused.reason.clone() } else { "other".to_owned() };
            *meta.refused.entry(key).or_default() += 1;
        }
        if unfit > 0 {
            *meta.refused.entry(artifact::NO_PLACE.to_owned()).or_default() += unfit as u64;
        }
        for fault in &batch.faults {
            *meta.refused.entry(format!("fault of {}", fault.plugin)).or_default() += 1;
        }
    }
}

fn show(global: &Global, meta: &RunMeta, out: &Path) {
    global.print(meta, |m| {
        let n = |k: &str| m.counts.get(k).copied().unwrap_or(0);
        let mut text = format!(
            "{}: {} ({} frames, {} samples, {} events, {} refused, {} faults)\n",
            out.display(),
            m.run_id,
            n("frames"),
            n("samples"),
            n("events"),
            n("rejects"),
            n("faults")
        );
        for (reason, n) in &m.refused {
            text.push_str(&format!("  {n} x {reason}\n"));
        }
        text
    });
}

/// What is read, without the paths of this machine.
fn origin_text(transport: &TransportConfig) -> String {
    match transport {
        TransportConfig::File(file) => {
            file.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        }
        TransportConfig::Socket(socket) => neutralise(&socket.listen).into_owned(),
        TransportConfig::Exec(exec) => neutralise(&exec.argv.join(" ")).into_owned(),
        TransportConfig::Mqtt(mqtt) => neutralise(&format!("{} {}", mqtt.broker, mqtt.topics.join(" "))).into_owned(),
    }
}

fn made_by(part: &Part) -> String {
    format!("{} {} {} settings {}", part.record.plugin, part.record.version, part.record.wasm, part.record.settings)
}
