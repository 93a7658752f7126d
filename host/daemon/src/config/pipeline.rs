//! Where telemetry comes from, what gives it meaning, and where decisions go.

use std::path::PathBuf;

use hb_engine::NS_PER_SEC;
use serde::Serialize;
use serde_json::json;

use crate::config::grants::GrantsConfig;
use crate::config::name::Name;
use crate::config::read::{Fields, FromNode, Reader};
use crate::config::secret::{SecretRef, check_settings};
use crate::config::transport::TransportConfig;
use crate::config::yaml::{Node, Value};

/// Most workers of one normalizer: each owns a plugin instance, and beyond the cores of a machine they only wait.
pub const MAX_WORKERS: u8 = 16;

/// One stream of telemetry: a transport the host owns, the plugin that cuts it into frames, and the normalizer that
/// gives the frames meaning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceConfig {
    /// Unique among sources; part of the resume position's key, so renaming a source starts it anew. Example: `plant`.
    pub name: Name,
    /// Plugin of kind source, by its name in the plugins directory. Example: `file-replay`.
    pub plugin: Name,
    /// Where its bytes come from.
    pub transport: TransportConfig,
    /// Handed to the plugin, which checks them by its own schema. Default: none. Example: `{"format": "jsonl"}`.
    pub settings: serde_json::Value,
    /// Name of the normalizer that gets its frames. Example: `plant`.
    pub normalizer: Name,
    /// Secret references among the settings, in the order of the file.
    #[serde(skip)]
    pub secrets: Vec<SecretRef>,
}

/// What gives frames their meaning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NormalizerConfig {
    /// Unique among normalizers. Example: `plant`.
    pub name: Name,
    /// Plugin of kind normalizer, by its name in the plugins directory. Example: `schema-map`.
    pub plugin: Name,
    /// YAML file that becomes the settings. Either this or inline settings. Default: none. Example:
    /// `telemetry_schema.yaml`.
    pub schema: Option<PathBuf>,
    /// Handed to the plugin: the inline settings or the content of `schema`. Default: none. Example: `{"series": []}`.
    pub settings: serde_json::Value,
    /// Instances that work in parallel, 1 to 16; the result does not depend on it. Default: 1. Example: `2`.
    pub workers: u8,
}

/// Where decisions and alerts go.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SinkConfig {
    /// Unique among sinks. Example: `pager`.
    pub name: Name,
    /// Plugin of kind sink, by its name in the plugins directory. Example: `jsonl`.
    pub plugin: Name,
    /// Where the plugin's bytes go. Default: `stdout`.
    pub output: OutputConfig,
    /// What the plugin may reach. Default: nothing but `output`.
    pub grants: GrantsConfig,
    /// What it gets, each one of `alerts`, `decisions`: one document when a fault begins, gets worse or ends, each
    /// decision that is not an unchanged PASS. Default: `["alerts", "decisions"]`. Example: `["alerts"]`.
    pub deliver: Vec<DocumentKind>,
    /// How long a document that is not taken is offered again. Default: all its defaults.
    pub retry: RetryConfig,
    /// Handed to the plugin. Default: none. Example: `{"format": "bare"}`.
    pub settings: serde_json::Value,
    /// Secret references among the settings, in the order of the file.
    #[serde(skip)]
    pub secrets: Vec<SecretRef>,
}

/// A kind of document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    /// Alert events.
    Alerts,
    /// Decisions.
    Decisions,
}

impl DocumentKind {
    /// What one document of it is called.
    pub fn name(self) -> &'static str {
        match self {
            DocumentKind::Alerts => "alert",
            DocumentKind::Decisions => "decision",
        }
    }
}

/// How long a sink is offered a document again that it does not take; then it is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RetryConfig {
    /// Attempts, 1 to 100,000. Default: 2,000, more than three days have with the default wait. Example: `100`.
    pub max_attempts: u32,
    /// `max_age_sec`: seconds since the decision, 1 to 2,678,400. Default: 259,200, a weekend and a day. Example:
    /// `86400`. In ns here.
    pub max_age_ns: i64,
    /// `max_wait_sec`: seconds between two attempts at most, 1 to 3,600. Default: 300. Example: `60`. In ns here.
    pub max_wait_ns: i64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        RetryConfig { max_attempts: 2_000, max_age_ns: 3 * DAY_NS, max_wait_ns: 300 * NS_PER_SEC }
    }
}

const DAY_NS: i64 = 86_400 * NS_PER_SEC;

/// Where a sink's bytes go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputConfig {
    /// Standard output of the process.
    Stdout,
    /// A file that is appended to; a relative path starts at the config's directory. Example: `alerts.jsonl`.
    File(PathBuf),
}

/// Free-form settings: a mapping, empty by default. Whether secrets may be among them depends on the plugin's kind.
struct Settings(serde_json::Value);

impl FromNode for Settings {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return Some(Settings(node.to_json()));
        }
        reader.expected(node, "a mapping");
        None
    }
}

fn settings(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> (Option<serde_json::Value>, Vec<SecretRef>) {
    let secrets = fields.get("settings").map(|node| check_settings(node, reader)).unwrap_or_default();
    let value = fields.or("settings", Settings(json!({})), reader);
    (value.map(|s| s.0), secrets)
}

impl FromNode for SourceConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut f = Fields::open(node, "a source", reader)?;
        let name = f.need("name", reader);
        let plugin = f.need("plugin", reader);
        let transport = f.need("transport", reader);
        let (settings, secrets) = settings(&mut f, reader);
        let normalizer = f.need("normalizer", reader);
        f.close(reader);
        Some(SourceConfig {
            name: name?,
            plugin: plugin?,
            transport: transport?,
            settings: settings?,
            normalizer: normalizer?,
            secrets,
        })
    }
}

impl FromNode for NormalizerConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut f = Fields::open(node, "a normalizer", reader)?;
        let name = f.need("name", reader);
        let plugin = f.need("plugin", reader);
        let schema: Option<Option<PathBuf>> = f.optional("schema", reader);
        // A normalizer can use no secret, and its settings name fields of foreign data: `token` may be one of them.
        let settings: Option<Option<Settings>> = f.optional("settings", reader);
        if let (Some(Some(_)), Some(Some(_))) = (&schema, &settings) {
            let d = reader.error("`schema` and `settings` exclude each other");
            reader.push(f.span("settings"), d.help("put the settings into the schema file"));
        }
        let workers = f.whole("workers", 1, &(1..=MAX_WORKERS), reader);
        f.close(reader);
        let settings = settings?.map_or_else(|| json!({}), |s| s.0);
        Some(NormalizerConfig { name: name?, plugin: plugin?, schema: schema?, settings, workers: workers? })
    }
}

impl FromNode for SinkConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mut f = Fields::open(node, "a sink", reader)?;
        let name = f.need("name", reader);
        let plugin = f.need("plugin", reader);
        let output = f.or("output", OutputConfig::Stdout, reader);
        let grants = f.or("grants", GrantsConfig::default(), reader);
        let all = || vec![DocumentKind::Alerts, DocumentKind::Decisions];
        let deliver: Option<Vec<DocumentKind>> = f.or("deliver", all(), reader);
        if deliver.as_ref().is_some_and(Vec::is_empty) {
            let d = reader.error("`deliver` is empty: the sink would get nothing");
            reader.push(f.span("deliver"), d.help("name `alerts`, `decisions` or both, or remove the sink"));
        }
        let retry = f.or("retry", RetryConfig::default(), reader);
        let (settings, secrets) = settings(&mut f, reader);
        f.close(reader);
        Some(SinkConfig {
            name: name?,
            plugin: plugin?,
            output: output?,
            grants: grants?,
            deliver: deliver?,
            retry: retry?,
            settings: settings?,
            secrets,
        })
    }
}

impl FromNode for DocumentKind {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let words = [("alerts", DocumentKind::Alerts), ("decisions", DocumentKind::Decisions)];
        let text = String::from_node(node, reader)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let d = reader.error(format!("no kind of document is named `{text}`"));
            reader.push(node.at, d.suggest(&text, words.iter().map(|(word, _)| *word)));
        }
        found.map(|(_, kind)| *kind)
    }
}

impl FromNode for RetryConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let d = RetryConfig::default();
        let mut f = Fields::open(node, "retry", reader)?;
        let max_attempts = f.whole("max_attempts", d.max_attempts, &(1..=100_000), reader);
        let max_age_ns = f.seconds("max_age_sec", Some(d.max_age_ns), &(NS_PER_SEC..=31 * DAY_NS), reader);
        let max_wait_ns = f.seconds("max_wait_sec", Some(d.max_wait_ns), &(NS_PER_SEC..=3_600 * NS_PER_SEC), reader);
        f.close(reader);
        Some(RetryConfig { max_attempts: max_attempts?, max_age_ns: max_age_ns?, max_wait_ns: max_wait_ns? })
    }
}

impl FromNode for OutputConfig {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Text(word) if word == "stdout" => return Some(OutputConfig::Stdout),
            Value::Map(_) => {
                let mut f = Fields::open(node, "the output", reader)?;
                let path = f.need("file", reader);
                f.close(reader);
                return path.map(OutputConfig::File);
            }
            _ => reader.expected(node, "`stdout` or `{ file: path }`"),
        }
        None
    }
}
