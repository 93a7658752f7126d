//! `hb ingest` and `hb normalize`: telemetry through the plugins into files, without state.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use hb_engine::series::SeriesDef;
use serde_json::json;

use super::{Done, Failure, Global, progress, tell};
use crate::artifact::{self, RunMeta, Writer};
use crate::clock;
use crate::config::{Config, ConfigFile, FileTransportConfig, SourceConfig, TransportConfig, yaml};
use crate::diagnostic::{Area, Diagnostic, exit, neutralise};
use crate::generation::{Part, Plugins, Unit};
use crate::pipeline::feed::{Feed, FeedLimits, Next};
use crate::pipeline::series::SeriesBook;
use crate::plugin::{Grants, Kind};

/// The source when nobody names one.
const DEFAULT_SOURCE: &str = "file-replay";

/// The normalizer when a config names none.
const DEFAULT_NORMALIZER: &str = "schema-map";

/// Reasons for refusals that are listed one by one.
const REASONS_MAX: usize = 20;

/// Arguments of `hb ingest`.
#[derive(Args)]
pub(crate) struct IngestArgs {
    /// Source plugin; file-replay by default. The config's source with this plugin says how it reads.
    #[arg(long, value_name = "PLUGIN")]
    source: Option<String>,
    /// Source of the config to read as, where several have the plugin; otherwise the first.
    #[arg(long, value_name = "NAME")]
    config_source: Option<String>,
    /// The file to read.
    path: PathBuf,
    /// Artifact directory to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Telemetry schema; overrides the config's.
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Lines per second at most.
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
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

/// Reads a file as the daemon would read it into an artifact directory.
pub(crate) fn ingest(global: &Global, args: &IngestArgs) -> Done {
    let (file, _scratch) = global.load_or_defaults()?;
    let configured = find_source(&file, args.source.as_deref(), args.config_source.as_deref())?;
    let (path, config) = (args.path.display(), file.path.display());
    match (configured, file.config.normalizers.first()) {
        (Some(source), _) if args.config_source.is_none() => {
            tell(&format!("{path} is read as source `{}` of {config}\n", source.name));
        }
        (None, Some(first)) => {
            tell(&format!("no source of {config} reads so; {path} is normalized by `{}`\n", first.name));
        }
        _ => {}
    }
    let plugin = configured.map_or_else(|| args.source.as_deref().unwrap_or(DEFAULT_SOURCE), |s| s.plugin.as_str());
    let mut settings = configured.map_or_else(default_settings, |s| s.settings.clone());
    if let Some(rate) = args.rate {
        settings["rate_lines_per_sec"] = json!(rate);
    }
    let normalizer = configured.map(|s| s.normalizer.as_str());
    let unit = unit(&file, plugin, settings, &args.path, normalizer, args.schema.as_deref())?;
    let meta = write_artifacts(&file.config, &unit, &args.out)?;
    show(global, &meta, &args.out);
    Ok(exit::OK)
}

/// The source of the config with this name, or else the first with this plugin.
fn find_source<'c>(
    file: &'c ConfigFile,
    plugin: Option<&str>,
    name: Option<&str>,
) -> Result<Option<&'c SourceConfig>, Failure> {
    let sources = &file.config.sources;
    let Some(name) = name else {
        return Ok(sources.iter().find(|s| s.plugin == *plugin.unwrap_or(DEFAULT_SOURCE)));
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

fn default_settings() -> serde_json::Value {
    json!({ "format": "auto" })
}

/// Normalizes one file.
pub(crate) fn normalize(global: &Global, args: &NormalizeArgs) -> Done {
    let (file, _scratch) = global.load_or_defaults()?;
    let unit = unit(&file, DEFAULT_SOURCE, default_settings(), &args.input, None, Some(&args.schema))?;
    let single = args.output.extension().is_some_and(|e| e == "csv");
    if !single {
        let meta = write_artifacts(&file.config, &unit, &args.output)?;
        show(global, &meta, &args.output);
        return Ok(exit::OK);
    }
    // The directory is made beside the file, so that the rename stays on one file system.
    let parent = args.output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = tempfile::tempdir_in(parent).map_err(|e| Failure::io(parent, &e))?;
    let meta = write_artifacts(&file.config, &unit, dir.path())?;
    std::fs::rename(dir.path().join(artifact::METRICS), &args.output).map_err(|e| Failure::io(&args.output, &e))?;
    show(global, &meta, &args.output);
    Ok(exit::OK)
}

/// A unit for one file: the source plugin with `settings`, and the normalizer of this name, or else the first, with a
/// schema of its own or the config's.
fn unit(
    file: &ConfigFile,
    source: &str,
    settings: serde_json::Value,
    path: &Path,
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
        transport: TransportConfig::File(FileTransportConfig { path: path.to_owned(), follow: false }),
        whole: true,
        source: part(&plugins, source, Kind::Source, &settings)?,
        normalizer: part(&plugins, plugin, Kind::Normalizer, &normalizer_settings)?,
        workers: configured.map_or(1, |n| n.workers.into()),
    })
}

fn part(plugins: &Plugins, name: &str, kind: Kind, settings: &serde_json::Value) -> Result<Part, Failure> {
    Ok(plugins.load(name, kind, settings, &Grants::default())?.0)
}

fn write_artifacts(config: &Config, unit: &Unit, out: &Path) -> Result<RunMeta, Failure> {
    let failed = |e: std::io::Error| Failure::io(out, &e);
    let book = SeriesBook::default();
    let mut feed = Feed::start(unit, &book, None, FeedLimits::of(config))?;
    let mut writer = Writer::create(out).map_err(failed)?;
    let mut meta = RunMeta { source: source_text(unit), ..RunMeta::default() };
    meta.correlation_id = std::env::var("HB_CORRELATION_ID").unwrap_or_default();
    meta.made_by = [&unit.source, &unit.normalizer].map(made_by).to_vec();
    let mut defs: Vec<SeriesDef> = Vec::new();
    let bar = progress::frames("ingest");
    loop {
        let batch = match feed.next(Instant::now() + Duration::from_secs(1)) {
            Next::Batch(batch) => batch,
            Next::Idle | Next::Swapped => continue,
            Next::Ended => break,
            Next::Failed(e) => return Err(e.into()),
        };
        bar.inc(batch.frames.len() as u64);
        defs.extend(book.since(defs.len()));
        let c = &batch.columns;
        let mut unfit = 0;
        for k in 0..c.len() {
            let def = &defs[c.series[k] as usize];
            if artifact::has_place_for(def) {
                writer.sample(def, c.time_ns[k], c.value[k]).map_err(failed)?;
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
            writer.event(&line).map_err(failed)?;
        }
        let mut count = |name: &str, n: usize| *meta.counts.entry(name.to_owned()).or_default() += n as u64;
        count("frames", batch.frames.len());
        count("samples", c.len() - unfit);
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
    bar.finish_and_clear();
    writer.finish(meta).map_err(failed)
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

fn source_text(unit: &Unit) -> String {
    let TransportConfig::File(file) = &unit.transport else { return unit.source.record.plugin.clone() };
    let name = file.path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    format!("{} {name}", unit.source.record.plugin)
}

fn made_by(part: &Part) -> String {
    format!("{} {} {} settings {}", part.record.plugin, part.record.version, part.record.wasm, part.record.settings)
}
