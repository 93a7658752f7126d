//! A generation: one immutable set of config, plugins and policies, named by the hash of what shapes decisions.
//!
//! Paths, batch sizes and worker counts are not part of the name, because they change no decision; plugins, their
//! settings, policies with their parameters, windows and limits are.

pub mod history;
pub mod secrets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ciborium::Value;
use hb_engine::judge::RuleUse;
use hb_engine::series::globs_meet;
use hb_engine::spec::{CheckSpec, EngineSpec};
use hb_log::cbor;
use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

use crate::alert::Routes;
use crate::config::{
    Config, ConfigFile, FileRole, MqttTransportConfig, NormalizerConfig, RuleConfig, SecretRef, TransportConfig,
};
use crate::diagnostic::{Area, Diagnostic, Diagnostics, Place};
use crate::plugin::{Grants, Host, HostOptions, Kind, Loaded, Manifest, Trust};
use crate::policy::{self, PolicyKind, PolicyProblem, PolicySet};
use crate::transport::mqtt::{ClientCertificate, MqttVersion, Qos, TlsOptions};
use crate::transport::{ExecOptions, FileOptions, MqttOptions, SocketOptions, TransportError, TransportOptions};

use secrets::SecretDigest;

/// Largest plugin file in bytes: a Python guest has 18 MB.
const MAX_WASM_BYTES: u64 = 128 << 20;

/// Everything that judges.
pub struct Generation {
    /// Name: the hash of `spec`.
    pub hash: Hash,
    /// Tenant.
    pub program: String,
    /// The engine's part.
    pub spec: Arc<EngineSpec>,
    /// Sources with their normalizers, in the order of the config.
    pub units: Vec<Unit>,
    /// Content by hash: plugins, settings, policies, the spec, the config file.
    pub blobs: Vec<(Hash, Vec<u8>)>,
    /// Config files by name, as hashes of blobs.
    pub files: Vec<(String, Hash)>,
    /// Who is told; changes no decision, and so is no part of the name.
    pub routes: Routes,
}

/// One source and the normalizer its frames go to, ready to run.
#[derive(Clone)]
pub struct Unit {
    /// Source name.
    pub name: String,
    /// Where bytes come from.
    pub transport: TransportConfig,
    /// Whether a file is known to be complete, its last line included.
    pub whole: bool,
    /// The source plugin.
    pub source: Part,
    /// The normalizer plugin.
    pub normalizer: Part,
    /// Normalizer instances.
    pub workers: usize,
    /// What its transport's secrets were when a daemon read them.
    pub secrets: SecretDigest,
}

/// A loaded plugin with its settings.
#[derive(Clone)]
pub struct Part {
    /// The checked component.
    pub loaded: Loaded,
    /// Settings, JSON.
    pub settings: String,
    /// How it is recorded.
    pub record: PartRecord,
}

/// What an evidence pack needs to run a plugin again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// Plugin name.
    pub plugin: String,
    /// Version its manifest declares.
    pub version: String,
    /// Hash of the component.
    pub wasm: Hash,
    /// Hash of the manifest.
    pub manifest: Hash,
    /// Hash of the settings JSON.
    pub settings: Hash,
}

/// A source's entry among the parts of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// The source plugin.
    pub source: PartRecord,
    /// The normalizer plugin.
    pub normalizer: PartRecord,
}

impl Unit {
    /// Canonical bytes of what names its plugins and their settings; frames are stored under the hash of it.
    pub fn record(&self) -> Vec<u8> {
        cbor::encode(&UnitRecord { source: self.source.record.clone(), normalizer: self.normalizer.record.clone() })
    }
}

impl Generation {
    /// Loads and checks everything a config names. All mistakes are returned, not the first.
    pub fn build(file: &ConfigFile) -> Result<Generation, Diagnostics> {
        let config = &file.config;
        let mut found = Diagnostics::new();
        let mut blobs = Vec::new();
        let plugins = Plugins::of(file);
        let units = match &plugins {
            Ok(plugins) => build_units(file, plugins, &mut blobs, &mut found),
            Err(d) => {
                found.push(d.clone());
                Vec::new()
            }
        };
        let policies = load_policies(&config.policies_dir, &mut found);
        let checks = policies.as_ref().map(|p| build_checks(file, p, &mut blobs, &mut found)).unwrap_or_default();
        let severity = match (&config.severity, &policies) {
            (Some(rule), Some(p)) => resolve(file, "severity", rule, PolicyKind::Severity, p, &mut blobs, &mut found),
            _ => None,
        };
        if found.has_errors() {
            return Err(found);
        }
        let spec = EngineSpec {
            asset_label: config.asset_label.clone(),
            checks,
            severity,
            lateness_ns: config.event_time.lateness_ns,
            late: config.event_time.late,
            max_jump_ns: config.event_time.max_jump_ns,
            idle_ns: config.event_time.idle_ns,
            caps: config.limits.caps(),
            parts: BTreeMap::new(),
        };
        let files = config_files(file, &mut blobs);
        let generation = Generation::name(config.program.to_string(), spec, units, blobs, files);
        Ok(Generation { routes: Routes::of(config), ..generation })
    }

    /// What is allowed and makes no sense: a rule that is asked about none of its check's metrics. `file` is the config it
    /// was built from.
    pub fn warnings(&self, file: &ConfigFile) -> Diagnostics {
        let mut found = Diagnostics::new();
        for (i, check) in self.spec.checks.iter().enumerate() {
            for (j, rule) in check.rules.iter().enumerate() {
                let meets = |metric: &String| rule.applies_to.iter().any(|other| globs_meet(metric, other));
                if !check.metrics.iter().any(meets) {
                    let (id, applies) = (&rule.rule, rule.applies_to.join("`, `"));
                    let message = format!("rule `{id}` judges nothing here: it applies to `{applies}` alone");
                    let d = Diagnostic::warning(Area::Config, message)
                        .at(file.place(&format!("checks[{i}].rules[{j}].rule")));
                    let help = format!("remove it from check `{}`, or let `metrics` have what it applies to", check.id);
                    found.push(d.help(help));
                }
            }
        }
        found
    }

    /// The same judgement of other sources: an offline run's artifacts instead of the config's.
    #[must_use]
    pub fn with_units(self, units: Vec<Unit>, content: Vec<Vec<u8>>) -> Generation {
        let mut blobs = self.blobs;
        for bytes in content {
            add_blob(&mut blobs, bytes);
        }
        Generation::name(self.program, EngineSpec::clone(&self.spec), units, blobs, self.files)
    }

    fn name(
        program: String,
        mut spec: EngineSpec,
        units: Vec<Unit>,
        mut blobs: Vec<(Hash, Vec<u8>)>,
        files: Vec<(String, Hash)>,
    ) -> Generation {
        spec.parts.clear();
        for unit in &units {
            let hash = add_blob(&mut blobs, unit.record());
            spec.parts.insert(format!("source/{}", unit.name), hash);
        }
        let hash = add_blob(&mut blobs, cbor::encode(&spec));
        Generation { hash, program, spec: Arc::new(spec), units, blobs, files, routes: Routes::default() }
    }

    /// Content of this generation.
    pub fn blob(&self, hash: Hash) -> Option<Vec<u8>> {
        self.blobs.iter().find(|b| b.0 == hash).map(|b| b.1.clone())
    }

    /// Body of the log entry that makes it active after `before`: who wanted that, and why.
    pub fn entry(&self, before: Option<Hash>, author: &str, reason: &str) -> Value {
        let bytes = |h: &Hash| Value::Bytes(h.as_bytes().to_vec());
        let text = |t: &str| Value::Text(t.to_owned());
        let files = self.files.iter().map(|(name, h)| (Value::Text(name.clone()), bytes(h))).collect();
        let parts = self.spec.parts.iter().map(|(name, h)| (Value::Text(name.clone()), bytes(h))).collect();
        Value::Map(vec![
            (Value::Text("generation".into()), bytes(&self.hash)),
            (Value::Text("before".into()), before.as_ref().map_or(Value::Null, bytes)),
            (Value::Text("author".into()), text(author)),
            (Value::Text("reason".into()), text(reason)),
            (Value::Text("files".into()), Value::Map(files)),
            (Value::Text("parts".into()), Value::Map(parts)),
        ])
    }
}

/// A policy that a generation names by hash and that is not there, or does not open any more.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MissingPolicy(String);

/// Opens the policies a spec uses, from their sources by hash.
pub fn policies_of(spec: &EngineSpec, blob: &dyn Fn(Hash) -> Option<Vec<u8>>) -> Result<PolicySet, MissingPolicy> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for rule in spec.checks.iter().flat_map(|c| &c.rules).chain(&spec.severity) {
        let missing = || MissingPolicy(format!("policy {} {} is missing or unreadable", rule.rule, rule.source));
        let text = blob(rule.source).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(missing)?;
        files.insert(format!("{}{}", rule.rule.replace('.', "/"), policy::EXTENSION), text);
    }
    let files: Vec<(String, String)> = files.into_iter().collect();
    let mut set = PolicySet::open(&files).map_err(|problems| {
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        MissingPolicy(text.join("; "))
    })?;
    set.use_severity(spec.severity.clone());
    Ok(set)
}

/// What a transport is told, from what the config says; `max_bytes` is the length of the longest frame.
pub fn transport_options(
    config: &TransportConfig,
    whole: bool,
    max_bytes: usize,
) -> Result<TransportOptions, TransportError> {
    Ok(match config {
        TransportConfig::File(file) => TransportOptions::File(FileOptions {
            path: file.path.clone(),
            follow: file.follow,
            whole,
            max_line_bytes: max_bytes,
        }),
        TransportConfig::Socket(socket) => TransportOptions::Socket(SocketOptions {
            framing: socket.framing.parse().unwrap_or_default(),
            ..SocketOptions::new(
                socket.listen.parse().map_err(|e| wrong_setting(&e, LISTEN_HELP))?,
                max_bytes,
                socket.max_connections as usize,
            )
        }),
        TransportConfig::Exec(exec) => {
            let options = ExecOptions {
                cursor_field: exec.cursor_field.clone(),
                cursor_argument: exec.cursor_argument.clone(),
                ..ExecOptions::new(exec.argv.clone(), max_bytes)
            };
            options.check()?;
            TransportOptions::Exec(options)
        }
        TransportConfig::Mqtt(mqtt) => TransportOptions::Mqtt(mqtt_options(mqtt, max_bytes)?),
    })
}

/// How an address to listen on is written.
const LISTEN_HELP: &str = "write udp://127.0.0.1:5514, tcp://[::]:5514 or unix:///run/hb/syslog.sock";

fn wrong_setting(what: &dyn std::fmt::Display, help: &'static str) -> TransportError {
    TransportError::Setting { what: what.to_string(), help }
}

fn mqtt_options(config: &MqttTransportConfig, max_payload_bytes: usize) -> Result<MqttOptions, TransportError> {
    let wrong =
        || wrong_setting(&format!("`{}` is no broker", config.broker), "write tcp://HOST:1883 or tls://HOST:8883");
    let (scheme, address) = config.broker.split_once("://").ok_or_else(wrong)?;
    let (is_tls, default_port) = match scheme {
        "tcp" | "mqtt" => (false, 1_883),
        "tls" | "ssl" | "mqtts" => (true, 8_883),
        _ => return Err(wrong()),
    };
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (address, default_port),
    };
    let client = config.cert_file.clone().zip(config.key_file.clone());
    let client = client.map(|(certificate_file, key_file)| ClientCertificate { certificate_file, key_file });
    let password = config.password.as_ref().map(SecretRef::resolve).transpose();
    let password = password.map_err(|e| wrong_setting(&e, "let the user hb runs as read the secret"))?;
    let options = MqttOptions {
        host: host.trim_matches(['[', ']']).to_owned(),
        port,
        tls: is_tls.then(|| TlsOptions { ca_file: config.ca_file.clone(), client }),
        version: if config.version == "5" { MqttVersion::V5 } else { MqttVersion::V3 },
        client_id: config.client_id.clone().unwrap_or_default(),
        user: config.user.clone(),
        password: password.map(|secret| secret.expose().to_owned()),
        topics: config.topics.clone(),
        qos: [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(config.qos.min(2))],
        keep_alive_s: config.keep_alive_sec,
        session_expiry_s: config.session_expiry_sec,
        in_flight_window: config.in_flight_window,
        unmarked: config.redelivery == "content",
        max_payload_bytes,
    };
    options.check()?;
    Ok(options)
}

/// The plugins directory of a config, with what it trusts.
pub struct Plugins {
    host: Host,
    dir: PathBuf,
    require_signed: bool,
    keys: Vec<String>,
    memory_bytes: usize,
}

impl Plugins {
    /// Those of a config.
    pub fn of(file: &ConfigFile) -> Result<Self, Diagnostic> {
        let keys = file.files.iter().filter(|f| f.role == FileRole::Publisher);
        let keys = keys.map(|f| String::from_utf8_lossy(&f.bytes).into_owned()).collect();
        let config = &file.config;
        let memory_bytes = (config.limits.plugin_memory_mib as usize) << 20;
        Plugins::open(&config.plugins_dir, &config.state, config.require_signed, keys, memory_bytes)
    }

    /// Plugins of `dir`; compiled code is kept below `cache`.
    pub fn open(
        dir: &Path,
        cache: &Path,
        require_signed: bool,
        keys: Vec<String>,
        memory_bytes: usize,
    ) -> Result<Self, Diagnostic> {
        let host = Host::new(HostOptions { cache_dir: Some(cache.join("cache")), compiler: own_program() })
            .map_err(|e| Diagnostic::error(Area::Plugin, format!("the plugin runtime does not start: {e:#}")))?;
        Ok(Plugins { host, dir: dir.to_owned(), require_signed, keys, memory_bytes })
    }

    /// Loads one plugin and checks its settings; also returns the component's and the manifest's bytes.
    pub fn load(
        &self,
        name: &str,
        kind: Kind,
        settings: &serde_json::Value,
        grants: &Grants,
    ) -> Result<(Part, Vec<u8>, String), Diagnostics> {
        let dir = self.dir.join(name);
        let wasm = read_file(&dir.join("plugin.wasm"), name)?;
        let text = String::from_utf8(read_file(&dir.join("plugin.yaml"), name)?).map_err(|_| {
            Diagnostic::error(Area::Plugin, "the manifest is not UTF-8").at(Place::file(dir.join("plugin.yaml")))
        })?;
        let mut manifest = Manifest::parse(&text).map_err(|e| {
            let (line, _) = e.place.unwrap_or((0, 0));
            Diagnostic::error(Area::Plugin, e.what).at(Place::line(dir.join("plugin.yaml"), line as u32)).help(e.help)
        })?;
        if manifest.kind != kind {
            let message = format!("plugin `{name}` is a {}; a {kind} is needed here", manifest.kind);
            return Err(Diagnostic::error(Area::Plugin, message).at(Place::file(dir.join("plugin.yaml"))).into());
        }
        manifest.limits.memory_bytes = manifest.limits.memory_bytes.min(self.memory_bytes);
        if let Err(problems) = manifest.check_settings(settings) {
            let mut found = Diagnostics::new();
            for p in problems {
                let at = if p.path.is_empty() { String::new() } else { format!(" at `{}`", p.path) };
                found.push(Diagnostic::error(Area::Plugin, format!("settings of `{name}`{at}: {}", p.what)));
            }
            return Err(found);
        }
        let signature = |file: &str| std::fs::read_to_string(dir.join(file)).ok();
        let trust = Trust {
            require_signed: self.require_signed,
            keys: self.keys.clone(),
            wasm_signature: signature("plugin.wasm.minisig"),
            manifest_signature: signature("plugin.yaml.minisig"),
        };
        let version = manifest.version.clone();
        let loaded = self.host.load(&wasm, manifest, grants, &trust).map_err(|e| {
            Diagnostic::error(Area::Plugin, e.what()).at(Place::file(dir.join("plugin.wasm"))).help(e.help())
        })?;
        let settings = settings.to_string();
        let record = PartRecord {
            plugin: name.to_owned(),
            version,
            wasm: Hash::of(&wasm),
            manifest: Hash::of(text.as_bytes()),
            settings: Hash::of(settings.as_bytes()),
        };
        Ok((Part { loaded, settings, record }, wasm, text))
    }
}

fn build_units(
    file: &ConfigFile,
    plugins: &Plugins,
    blobs: &mut Vec<(Hash, Vec<u8>)>,
    found: &mut Diagnostics,
) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut load =
        |at: String, name: &str, kind: Kind, settings: &serde_json::Value, found: &mut Diagnostics| match plugins.load(
            name,
            kind,
            settings,
            &Grants::default(),
        ) {
            Ok((part, wasm, manifest)) => {
                add_blob(blobs, wasm);
                add_blob(blobs, manifest.into_bytes());
                add_blob(blobs, part.settings.clone().into_bytes());
                Some(part)
            }
            Err(problems) => {
                place_all(problems, &file.place(&at), found);
                None
            }
        };
    for (i, s) in file.config.sources.iter().enumerate() {
        let source = load(format!("sources[{i}].plugin"), s.plugin.as_str(), Kind::Source, &s.settings, found);
        let Some((j, n)) = find_normalizer(&file.config, s.normalizer.as_str()) else { continue };
        let normalizer =
            load(format!("normalizers[{j}].plugin"), n.plugin.as_str(), Kind::Normalizer, &n.settings, found);
        if let (Some(source), Some(normalizer)) = (source, normalizer) {
            let transport = named_client(s.transport.clone(), &file.config, s.name.as_str());
            if let Err(e) = transport_options(&transport, false, file.config.limits.max_line_bytes as usize) {
                let d = Diagnostic::error(Area::Transport, e.to_string()).help(e.help());
                found.push(d.at(file.place(&format!("sources[{i}].transport"))));
            }
            let (name, workers) = (s.name.to_string(), n.workers.into());
            let secrets = SecretDigest::default();
            units.push(Unit { name, transport, whole: false, source, normalizer, workers, secrets });
        }
    }
    units
}

/// A subscription without a client id gets one that stays the same and that no other source has.
fn named_client(mut transport: TransportConfig, config: &Config, source: &str) -> TransportConfig {
    if let TransportConfig::Mqtt(mqtt) = &mut transport {
        mqtt.client_id.get_or_insert_with(|| format!("hb-{}-{source}", config.program));
    }
    transport
}

fn find_normalizer<'a>(config: &'a Config, name: &str) -> Option<(usize, &'a NormalizerConfig)> {
    config.normalizers.iter().enumerate().find(|(_, n)| n.name.as_str() == name)
}

fn load_policies(dir: &Path, found: &mut Diagnostics) -> Option<PolicySet> {
    if !dir.is_dir() {
        let d = Diagnostic::error(Area::Config, format!("there is no directory of policies {}", dir.display()));
        found.push(d.help("set `policies_dir` in the config, or HB_POLICIES_DIR"));
        return None;
    }
    let loaded = policy::files(&[dir]).and_then(|files| PolicySet::load(&files));
    loaded.map_err(|problems| problems.into_iter().for_each(|p| found.push(policy_diagnostic(p)))).ok()
}

/// A policy's problem as everything else is shown.
pub fn policy_diagnostic(p: PolicyProblem) -> Diagnostic {
    let mut d = Diagnostic::error(Area::Policy, p.message);
    if !p.file.is_empty() {
        let source = std::fs::read_to_string(&p.file).unwrap_or_default();
        d = d.at(Place::span(&p.file, &source, p.line, p.col, 1));
    }
    match p.help {
        Some(help) => d.help(help),
        None => d,
    }
}

fn build_checks(
    file: &ConfigFile,
    policies: &PolicySet,
    blobs: &mut Vec<(Hash, Vec<u8>)>,
    found: &mut Diagnostics,
) -> Vec<CheckSpec> {
    let mut checks = Vec::new();
    for (i, c) in file.config.checks.iter().enumerate() {
        let rules = c.rules.iter().enumerate().filter_map(|(j, rule)| {
            resolve(file, &format!("checks[{i}].rules[{j}]"), rule, PolicyKind::Rule, policies, blobs, found)
        });
        checks.push(CheckSpec {
            id: c.id.to_string(),
            window_ns: c.window_ns,
            every_ns: c.every_ns,
            baseline: c.baseline.as_ref().map(ToString::to_string),
            rules: rules.collect(),
            metrics: c.metrics.iter().map(|p| p.0.clone()).collect(),
            except: c.except.iter().map(|p| p.0.clone()).collect(),
            assets: c.assets.iter().map(|p| p.0.clone()).collect(),
            min_samples: c.min_samples,
        });
    }
    checks
}

fn resolve(
    file: &ConfigFile,
    at: &str,
    rule: &RuleConfig,
    kind: PolicyKind,
    policies: &PolicySet,
    blobs: &mut Vec<(Hash, Vec<u8>)>,
    found: &mut Diagnostics,
) -> Option<RuleUse> {
    let id = rule.rule.as_str();
    let meta = policies.rule(id);
    if let Some(other) = meta.as_ref().filter(|m| m.kind != kind) {
        let message =
            format!("policy `{id}` is of kind {}; kind {} is needed here", other.kind.as_str(), kind.as_str());
        found.push(Diagnostic::error(Area::Config, message).at(file.place(&format!("{at}.rule"))));
        return None;
    }
    match policies.resolve(id, &rule.params) {
        Ok(used) => {
            add_blob(blobs, policies.text(id)?.as_bytes().to_vec());
            Some(used)
        }
        Err(problems) => {
            // What is written about parameters is shown there; else the rule with its defaults is to blame.
            let params = Some(file.place(&format!("{at}.params"))).filter(|place| meta.is_some() && place.line > 0);
            let place = params.unwrap_or_else(|| file.place(&format!("{at}.rule")));
            for p in problems {
                let mut d = Diagnostic::error(Area::Config, p.message).at(place.clone());
                d.help = p.help;
                found.push(d);
            }
            None
        }
    }
}

fn config_files(file: &ConfigFile, blobs: &mut Vec<(Hash, Vec<u8>)>) -> Vec<(String, Hash)> {
    let name = |p: &Path| p.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let mut files = vec![(name(&file.path), add_blob(blobs, file.bytes.clone()))];
    for other in &file.files {
        let mut shown = name(&other.path);
        // Two schemas in different directories may have the same name.
        while files.iter().any(|f| f.0 == shown) {
            shown.insert(0, '_');
        }
        files.push((shown, add_blob(blobs, other.bytes.clone())));
    }
    files
}

fn add_blob(blobs: &mut Vec<(Hash, Vec<u8>)>, bytes: Vec<u8>) -> Hash {
    let hash = Hash::of(&bytes);
    if blobs.iter().all(|b| b.0 != hash) {
        blobs.push((hash, bytes));
    }
    hash
}

/// This program, when it is hb and no test or tool that is made of its parts. By the kernel's name for what runs: a build
/// that has been installed over it meanwhile is another program.
fn own_program() -> Option<PathBuf> {
    const RUNNING: &str = "/proc/self/exe";
    let path = std::fs::read_link(RUNNING).ok()?;
    // The kernel marks one that was replaced by ` (deleted)`.
    let name = path.file_name()?.to_str()?.split(' ').next();
    (name == Some("hb")).then(|| RUNNING.into())
}

fn read_file(path: &Path, plugin: &str) -> Result<Vec<u8>, Diagnostic> {
    let refuse = |what: String| {
        let help = format!("install plugin `{plugin}` there, or set `plugins_dir`");
        Diagnostic::error(Area::Plugin, what).at(Place::file(path)).help(help)
    };
    let size = std::fs::metadata(path).map_err(|e| refuse(format!("plugin `{plugin}` cannot be read: {e}")))?.len();
    if size > MAX_WASM_BYTES {
        return Err(refuse(format!("{size} bytes; a plugin has at most {MAX_WASM_BYTES}")));
    }
    std::fs::read(path).map_err(|e| refuse(format!("plugin `{plugin}` cannot be read: {e}")))
}

/// Problems without a place of their own are shown where the config names the plugin.
fn place_all(problems: Diagnostics, at: &Place, found: &mut Diagnostics) {
    for mut d in problems.iter().cloned() {
        d.place.get_or_insert_with(|| Box::new(at.clone()));
        found.push(d);
    }
}
