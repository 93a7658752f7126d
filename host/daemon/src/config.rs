//! The config says what an operator wants: one YAML file, read strictly, with every mistake shown at its place.
//!
//! Settings are not state: nothing here changes while hb runs, and nothing hb learns is written back. Unknown and
//! duplicate keys are errors. Secrets stand here only as references, see [`SecretRef`].
//!
//! Reading: [`yaml`] makes a tree that knows lines and columns, [`read`] turns it into the structs of [`pipeline`],
//! [`transport`], [`grants`], [`checks`], [`http`] and [`limits`]; [`template`] is what `hb init` writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hb_engine::series::DEFAULT_ASSET;
use serde::Serialize;

use crate::diagnostic::{Area, Diagnostic, Diagnostics, Place};

pub mod checks;
pub mod grants;
pub mod http;
pub mod limits;
pub mod name;
pub mod pipeline;
mod read;
pub mod schedule;
pub mod secret;
pub mod template;
pub mod transport;
pub mod yaml;

pub use checks::{CheckConfig, EventTimeConfig, Pattern, RuleConfig};
pub use grants::{GrantsConfig, HttpGrantConfig};
pub use http::HttpConfig;
pub use limits::{EvidenceConfig, LimitsConfig};
pub use name::Name;
pub use pipeline::{DocumentKind, NormalizerConfig, OutputConfig, RetryConfig, SinkConfig, SourceConfig};
pub use schedule::{RollingConfig, ScheduleConfig};
pub use secret::{Secret, SecretRef};
pub use transport::{
    ExecTransportConfig, FileTransportConfig, MqttTransportConfig, SocketTransportConfig, TransportConfig,
};

use read::{Fields, Reader};
use yaml::{MAX_FILE_BYTES, Node, Source, Span};

/// Largest public key file in bytes; a minisign key has 114.
const MAX_KEY_BYTES: u64 = 4096;

/// Everything an operator configures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Tenant: the first part of every key of the state; another one needs a restart of the daemon. Default: `default`.
    /// Example: `plant`.
    pub program: Name,
    /// Directory of the state; another one needs a restart of the daemon. Default: `state` beside the config. Example:
    /// `/var/lib/hb`.
    pub state: PathBuf,
    /// Where plugins are installed. Default: `$HB_PLUGINS_DIR`, else `plugins` beside the executable or one directory
    /// above (a source tree), else `../lib/hb/plugins` from there. Example: `/opt/hb/lib/hb/plugins`.
    pub plugins_dir: PathBuf,
    /// Where policies lie. Default: `$HB_POLICIES_DIR`, else `../../policies` from the executable (a source tree), else
    /// `../share/hb/policies` from there. Example: `policies`.
    pub policies_dir: PathBuf,
    /// Whether plugins must carry a trusted publisher's signature. Default: true. Example: `true`.
    pub require_signed: bool,
    /// Public keys of trusted publishers. Default: none, which with `require_signed` lets no plugin load. Example:
    /// `["publisher.pub"]`.
    pub trusted_publishers: Vec<PathBuf>,
    /// Label whose value names the asset. Default: `asset`. Example: `machine`.
    pub asset_label: String,
    /// Where telemetry comes from. Default: none, and there is nothing to read.
    pub sources: Vec<SourceConfig>,
    /// What gives it meaning. Default: none.
    pub normalizers: Vec<NormalizerConfig>,
    /// Where decisions and alerts go. Default: none, they stay in the state.
    pub sinks: Vec<SinkConfig>,
    /// What is compared. Default: none, and nothing is judged.
    pub checks: Vec<CheckConfig>,
    /// Policy that names severities. Default: none, so that nothing alerts. Example: `{"rule": "alert.severity"}`.
    pub severity: Option<RuleConfig>,
    /// How often is judged, and what is learned by itself. Default: all its defaults.
    pub schedule: ScheduleConfig,
    /// How event time is kept. Default: all its defaults.
    pub event_time: EventTimeConfig,
    /// Upper bounds. Default: all its defaults.
    pub limits: LimitsConfig,
    /// What is packed as evidence. Default: all its defaults.
    pub evidence: EvidenceConfig,
    /// Where health and metrics are served; a change needs a restart of the daemon. Default: nowhere; `http: {}` is enough
    /// to have them.
    pub http: Option<HttpConfig>,
}

/// Where the defaults of directories come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Directory of the executable.
    pub exe_dir: PathBuf,
    /// `$HB_PLUGINS_DIR`.
    pub plugins_dir: Option<PathBuf>,
    /// `$HB_POLICIES_DIR`.
    pub policies_dir: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let exe = std::env::current_exe().unwrap_or_default();
        Surroundings {
            exe_dir: exe.parent().unwrap_or(Path::new("")).to_owned(),
            plugins_dir: set("HB_PLUGINS_DIR"),
            policies_dir: set("HB_POLICIES_DIR"),
        }
    }

    /// Where plugins are installed when the config does not say.
    pub fn plugins(&self) -> PathBuf {
        self.plugins_dir.clone().unwrap_or_else(|| self.first(&["plugins", "../plugins"], "../lib/hb/plugins"))
    }

    /// Where policies lie when the config does not say.
    pub fn policies(&self) -> PathBuf {
        self.policies_dir.clone().unwrap_or_else(|| self.first(&["../../policies"], "../share/hb/policies"))
    }

    /// The first of `near` that is there, else `installed`.
    fn first(&self, near: &[&str], installed: &str) -> PathBuf {
        let found = near.iter().map(|dir| self.exe_dir.join(dir)).find(|dir| dir.is_dir());
        found.unwrap_or_else(|| self.exe_dir.join(installed))
    }
}

/// A config as it was read: the typed values, the bytes that are hashed, and the places later mistakes point to.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it says.
    pub config: Config,
    /// Files it names, as they were read: they belong to the generation and are hashed with it.
    pub files: Vec<ReferencedFile>,
    /// What works but is unwise.
    pub warnings: Diagnostics,
    source: Source,
    root: Node,
}

/// A file that a config names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferencedFile {
    /// What it is.
    pub role: FileRole,
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a referenced file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileRole {
    /// Settings of the normalizer of this name.
    Schema(Name),
    /// Public key of a trusted publisher.
    Publisher,
}

impl ConfigFile {
    /// Reads a config and the files it names. All mistakes are returned, not the first.
    pub fn load(path: &Path, surroundings: &Surroundings) -> Result<ConfigFile, Diagnostics> {
        let bytes = yaml::read_capped(path, Area::Config, MAX_FILE_BYTES).map_err(|mut d| {
            d.help.get_or_insert_with(|| "`hb init` writes a commented config".into());
            d
        })?;
        ConfigFile::from_bytes(path, bytes, surroundings)
    }

    /// Reads a config that is already at hand; `path` says where the files it names are looked for.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>, surroundings: &Surroundings) -> Result<ConfigFile, Diagnostics> {
        let source = Source::new(path, Area::Config, &bytes)?;
        let mut reader = Reader::new(&source);
        let root = source.parse(&mut reader.out);
        let Some(root) = root.filter(|root| !matches!(root.value, yaml::Value::Null)) else {
            if reader.out.is_empty() {
                let d = Diagnostic::error(Area::Config, "the file is empty").at(Place::file(path));
                reader.out.push(d.help("`hb init` writes a commented config"));
            }
            return Err(reader.out);
        };
        let mut config = read_config(&root, surroundings, &mut reader);
        let mut files = Vec::new();
        if let Some(config) = &mut config {
            check_names(config, &root, &mut reader);
            checks::fill_in(&mut config.checks, &config.schedule, &root, &mut reader);
            checks::check_against(&config.checks, &config.limits.caps(), &root, &mut reader);
            files = read_files(config, &root, &mut reader);
            if !reader.out.has_errors() {
                warn(config, &root, &mut reader);
            }
        }
        let found = reader.out;
        match config {
            Some(config) if !found.has_errors() => {
                Ok(ConfigFile { path: path.to_owned(), bytes, config, files, warnings: found, source, root })
            }
            _ => Err(found),
        }
    }

    /// The place of a value, for mistakes that show later: `checks[0].rules[1].rule`. A value that is not written out
    /// gives the place of the file.
    pub fn place(&self, path: &str) -> Place {
        match self.root.find(path) {
            Some(node) => self.source.place(node.at),
            None => Place::file(&self.path),
        }
    }
}

fn read_config(root: &Node, surroundings: &Surroundings, reader: &mut Reader<'_>) -> Option<Config> {
    let mut f = Fields::open(root, "the config", reader)?;
    let program = f.optional("program", reader);
    let state = f.or("state", reader.resolve("state".as_ref()), reader);
    let plugins_dir = f.optional("plugins_dir", reader);
    let policies_dir = f.optional("policies_dir", reader);
    let require_signed = f.or("require_signed", true, reader);
    let trusted_publishers = f.or("trusted_publishers", Vec::new(), reader);
    let asset_label = f.or("asset_label", "asset".to_owned(), reader);
    let sources = f.or("sources", Vec::new(), reader);
    let normalizers = f.or("normalizers", Vec::new(), reader);
    let sinks = f.or("sinks", Vec::new(), reader);
    let checks = f.or("checks", Vec::new(), reader);
    let severity = f.optional("severity", reader);
    let schedule = f.or("schedule", ScheduleConfig::default(), reader);
    let event_time = f.or("event_time", EventTimeConfig::default(), reader);
    let limits = f.or("limits", LimitsConfig::default(), reader);
    let packs = reader.resolve(limits::DEFAULT_EVIDENCE_DIR.as_ref());
    let evidence = f.or("evidence", EvidenceConfig { on_fail: true, dir: packs }, reader);
    let http = f.optional("http", reader);
    f.close(reader);
    Some(Config {
        program: program?.or_else(|| Name::parse(DEFAULT_ASSET))?,
        state: state?,
        plugins_dir: plugins_dir?.unwrap_or_else(|| surroundings.plugins()),
        policies_dir: policies_dir?.unwrap_or_else(|| surroundings.policies()),
        require_signed: require_signed?,
        trusted_publishers: trusted_publishers?,
        asset_label: asset_label?,
        sources: sources?,
        normalizers: normalizers?,
        sinks: sinks?,
        checks: checks?,
        severity: severity?,
        schedule: schedule?,
        event_time: event_time?,
        limits: limits?,
        evidence: evidence?,
        http: http?,
    })
}

/// Names are unique in their list, and a source names a normalizer that exists.
fn check_names(config: &Config, root: &Node, reader: &mut Reader<'_>) {
    let lists: [(&str, &str, Vec<&Name>); 4] = [
        ("sources", "name", config.sources.iter().map(|s| &s.name).collect()),
        ("normalizers", "name", config.normalizers.iter().map(|n| &n.name).collect()),
        ("sinks", "name", config.sinks.iter().map(|s| &s.name).collect()),
        ("checks", "id", config.checks.iter().map(|c| &c.id).collect()),
    ];
    for (list, key, names) in lists {
        let mut seen: BTreeMap<&Name, usize> = BTreeMap::new();
        for (i, name) in names.into_iter().enumerate() {
            if let Some(first) = seen.insert(name, i) {
                let line = at(root, &format!("{list}[{first}].{key}")).line;
                let d = reader.error(format!("`{name}` is used twice in `{list}`"));
                reader.push(at(root, &format!("{list}[{i}].{key}")), d.help(format!("first used in line {line}")));
            }
        }
    }
    for (i, source) in config.sources.iter().enumerate() {
        if !config.normalizers.iter().any(|n| n.name == source.normalizer) {
            let known = config.normalizers.iter().map(|n| n.name.as_str());
            let d = reader.error(format!("no normalizer is named `{}`", source.normalizer));
            reader.push(at(root, &format!("sources[{i}].normalizer")), d.suggest(&source.normalizer, known));
        }
    }
}

/// Reads schemas into the settings of their normalizers, and the publishers' keys.
fn read_files(config: &mut Config, root: &Node, reader: &mut Reader<'_>) -> Vec<ReferencedFile> {
    let mut files = Vec::new();
    for (i, normalizer) in config.normalizers.iter_mut().enumerate() {
        let Some(path) = normalizer.schema.clone() else { continue };
        match yaml::load_json(&path, Area::Schema) {
            Ok((bytes, settings)) => {
                normalizer.settings = settings;
                files.push(ReferencedFile { role: FileRole::Schema(normalizer.name.clone()), path, bytes });
            }
            Err(found) => blame(&found, &path, at(root, &format!("normalizers[{i}].schema")), reader),
        }
    }
    for (i, path) in config.trusted_publishers.iter().enumerate() {
        match yaml::read_capped(path, Area::Config, MAX_KEY_BYTES) {
            Ok(bytes) => files.push(ReferencedFile { role: FileRole::Publisher, path: path.clone(), bytes }),
            Err(d) => blame(&d.into(), path, at(root, &format!("trusted_publishers[{i}]")), reader),
        }
    }
    files
}

/// A mistake inside a named file stays where it is; a file that cannot be read at all is shown where it is named.
fn blame(found: &Diagnostics, path: &Path, named: Span, reader: &mut Reader<'_>) {
    for mut d in found.iter().cloned() {
        if d.place.as_ref().is_none_or(|p| p.line == 0) {
            d.message = format!("{}: {}", path.display(), d.message);
            d.area = Area::Config;
            reader.push(named, d);
        } else {
            reader.out.push(d);
        }
    }
}

fn warn(config: &Config, root: &Node, reader: &mut Reader<'_>) {
    let mut unwise = |path: &str, message: &str, help: &str| {
        let d = Diagnostic::warning(Area::Config, message).help(help);
        reader.push(at(root, path), d);
    };
    if config.sources.is_empty() {
        unwise("", "no sources: there is nothing to read", "add `sources`");
    }
    if config.checks.is_empty() {
        unwise("", "no checks: nothing is judged", "add `checks`");
    }
    if !config.require_signed {
        let help = "remove it where others can write to the plugins directory";
        unwise("require_signed", "unsigned plugins may be loaded", help);
    } else if config.trusted_publishers.is_empty() {
        unwise("", "no trusted publishers: no plugin can be loaded", "add a key to `trusted_publishers`");
    }
    if config.http.as_ref().is_some_and(|http| !http.listen.ip().is_loopback()) {
        let help = "let only those reach the port who may know how this instance stands";
        unwise("http.listen", "other machines can ask for health and metrics, without a password", help);
    }
    for (i, normalizer) in config.normalizers.iter().enumerate() {
        if !config.sources.is_empty() && !config.sources.iter().any(|s| s.normalizer == normalizer.name) {
            let message = format!("no source uses the normalizer `{}`", normalizer.name);
            unwise(&format!("normalizers[{i}].name"), &message, "remove it, or name it in a source");
        }
    }
}

fn at(root: &Node, path: &str) -> Span {
    root.find(path).map_or(root.at, |node| node.at)
}

#[cfg(test)]
mod tests;
