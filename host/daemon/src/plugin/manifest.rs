//! `plugin.yaml`: what a plugin is called, what it is, what it asks for and which settings it takes.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use super::limits::{AskedLimits, Limits};

/// Bytes of a manifest: it is a page of text; anything longer is not one.
const MAX_MANIFEST_BYTES: usize = 256 << 10;

/// Settings problems reported at once: enough to see all of a real mistake.
const MAX_SETTINGS_PROBLEMS: usize = 16;

/// What a plugin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Turns what a transport received into frames.
    Source,
    /// Turns frames into samples and events.
    Normalizer,
    /// Carries documents and points outside.
    Sink,
}

impl Kind {
    /// The interface a component of this kind exports.
    pub fn export(self) -> &'static str {
        match self {
            Kind::Source => "produce",
            Kind::Normalizer => "normalize",
            Kind::Sink => "consume",
        }
    }

    /// The kind that exports `interface`.
    pub(crate) fn of_export(interface: &str) -> Option<Kind> {
        [Kind::Source, Kind::Normalizer, Kind::Sink].into_iter().find(|k| k.export() == interface)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Source => "source",
            Kind::Normalizer => "normalizer",
            Kind::Sink => "sink",
        })
    }
}

/// Something outside its sandbox that a plugin may use when the manifest asks and the configuration gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Write to the one stream that the host opened for this plugin.
    Output,
    /// Send requests to granted URLs.
    Http,
    /// Send datagrams and streams to granted addresses.
    Socket,
    /// Have requests signed with granted secrets, which it never sees.
    Secret,
}

impl Capability {
    /// All of them.
    pub const ALL: &'static [Capability] =
        &[Capability::Output, Capability::Http, Capability::Socket, Capability::Secret];

    /// Its name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Capability::Output => "output",
            Capability::Http => "http",
            Capability::Socket => "socket",
            Capability::Secret => "secret",
        }
    }

    /// Its interface in the contract; a secret has none of its own, since it never reaches a plugin.
    pub fn interface(self) -> Option<&'static str> {
        (self != Capability::Secret).then(|| self.name())
    }

    /// How the configuration gives it.
    pub fn grant(self) -> &'static str {
        match self {
            Capability::Output => "output: stdout",
            Capability::Http => "grants: { http: [{ url: \"https://hooks.example/hb/\", methods: [POST] }] }",
            Capability::Socket => "grants: { socket: [\"udp://10.0.0.1:514\"] }",
            Capability::Secret => "grants: { secrets: { signing: \"${file:/etc/hb/signing}\" } }",
        }
    }
}

/// A checked manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The plugin's name: lower case, digits and dashes.
    pub name: String,
    /// Its version, as its author counts.
    pub version: String,
    /// One sentence for lists.
    pub description: String,
    /// What it does.
    pub kind: Kind,
    /// The world it was built for.
    pub world: String,
    /// Transports it reads from (sources); the host owns them and the configuration names them.
    pub transports: BTreeSet<String>,
    /// What it asks for.
    pub capabilities: BTreeSet<Capability>,
    /// What it may use.
    pub limits: Limits,
    /// JSON Schema of its settings.
    pub settings: Value,
    // The file itself: what was signed, and what an evidence pack keeps.
    text: String,
}

/// Why a manifest or its settings were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct ManifestError {
    /// What is wrong.
    pub what: String,
    /// The way out.
    pub help: String,
    /// Line and column in the manifest, both from 1, where they are known.
    pub place: Option<(usize, usize)>,
}

/// One setting that its schema refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsProblem {
    /// JSON pointer into the settings; empty for the whole.
    pub path: String,
    /// What the schema says.
    pub what: String,
}

impl Manifest {
    /// Reads and checks a manifest.
    pub fn parse(yaml: &str) -> Result<Manifest, ManifestError> {
        if yaml.len() > MAX_MANIFEST_BYTES {
            return Err(refused(
                format!("the manifest has {} bytes; at most {MAX_MANIFEST_BYTES} are allowed", yaml.len()),
                "a manifest names a plugin; data belongs into its settings",
            ));
        }
        let raw: Raw = serde_saphyr::from_str(yaml).map_err(|e| {
            let place = e.location().map(|l| (l.line() as usize, l.column() as usize));
            ManifestError {
                what: e.without_snippet().to_string(),
                help: "the keys are name, version, description, kind, world, transports, capabilities, \
                       resource_limits, settings"
                    .into(),
                place,
            }
        })?;
        raw.check(yaml)
    }

    /// The line of `capabilities` in the file, from 1; none without one.
    pub fn capabilities_line(&self) -> Option<usize> {
        self.text.lines().position(|line| line.starts_with("capabilities:")).map(|at| at + 1)
    }

    /// The file as it was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Checks a plugin's settings against the schema; all problems, not the first.
    pub fn check_settings(&self, settings: &Value) -> Result<(), Vec<SettingsProblem>> {
        // The schema was compiled once by `parse`; it is compiled again here because a reload is rare and a
        // manifest stays plain data this way.
        let validator = jsonschema::validator_for(&self.settings)
            .map_err(|e| vec![SettingsProblem { path: String::new(), what: e.to_string() }])?;
        let problems: Vec<_> = validator
            .iter_errors(settings)
            .take(MAX_SETTINGS_PROBLEMS)
            .map(|e| SettingsProblem { path: e.instance_path().to_string(), what: e.to_string() })
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    version: String,
    #[serde(default)]
    description: String,
    kind: Kind,
    world: String,
    #[serde(default)]
    transports: Vec<String>,
    #[serde(default)]
    capabilities: Vec<Capability>,
    #[serde(default)]
    resource_limits: AskedLimits,
    #[serde(default = "any_settings")]
    settings: Value,
}

impl Raw {
    fn check(self, yaml: &str) -> Result<Manifest, ManifestError> {
        let name_ok = !self.name.is_empty()
            && self.name.len() <= 64
            && self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !name_ok {
            return Err(refused(
                format!("`{}` is not a plugin name", self.name.escape_default()),
                "use lower case letters, digits and dashes, at most 64",
            ));
        }
        let worlds = worlds_of(self.kind);
        if !worlds.contains(&world_name(&self.world)) {
            return Err(refused(
                format!("world `{}` does not belong to kind `{}`", self.world.escape_default(), self.kind),
                &format!("write `world: {}`", worlds.join("` or `world: ")),
            ));
        }
        if self.kind != Kind::Source && !self.transports.is_empty() {
            return Err(refused(
                format!("`transports` does not belong to kind `{}`", self.kind),
                "only a source reads from a transport; remove the key",
            ));
        }
        let limits = self.resource_limits.resolve().map_err(|what| refused(what, "lower the value"))?;
        jsonschema::validator_for(&self.settings).map_err(|e| {
            refused(
                format!("`settings` is not a JSON Schema: {e}"),
                "write the schema of the plugin's settings, without references to other files",
            )
        })?;
        Ok(Manifest {
            name: self.name,
            version: self.version,
            description: self.description,
            kind: self.kind,
            world: self.world,
            transports: self.transports.into_iter().collect(),
            capabilities: self.capabilities.into_iter().collect(),
            limits,
            settings: self.settings,
            text: yaml.to_owned(),
        })
    }
}

fn worlds_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Source => &["source"],
        Kind::Normalizer => &["normalizer"],
        Kind::Sink => &["sink", "sink-output", "sink-http", "sink-socket"],
    }
}

// `hb:plugin/sink@0.1.0` and `sink` are the same world.
fn world_name(world: &str) -> &str {
    let world = world.strip_prefix("hb:plugin/").unwrap_or(world);
    world.split('@').next().unwrap_or(world)
}

fn any_settings() -> Value {
    serde_json::json!({ "type": "object" })
}

fn refused(what: String, help: &str) -> ManifestError {
    ManifestError { what, help: help.to_owned(), place: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
name: stdout
version: 0.1.0
kind: sink
world: sink-output
capabilities: [output]
resource_limits: { memory_mib: 16 }
settings:
  type: object
  additionalProperties: false
  properties: { path: { type: string } }
";

    #[test]
    fn a_manifest_is_read() {
        let m = Manifest::parse(GOOD).unwrap();
        assert_eq!((m.name.as_str(), m.kind, m.limits.memory_bytes), ("stdout", Kind::Sink, 16 << 20));
        assert!(m.capabilities.contains(&Capability::Output));
    }

    #[test]
    fn settings_are_checked_against_the_schema() {
        let m = Manifest::parse(GOOD).unwrap();
        assert_eq!(m.check_settings(&serde_json::json!({ "path": "x" })), Ok(()));
        let problems = m.check_settings(&serde_json::json!({ "path": 1, "pth": "x" })).unwrap_err();
        assert_eq!(problems.len(), 2);
        assert!(problems.iter().any(|p| p.path == "/path" && p.what.contains("string")), "{problems:?}");
        assert!(problems.iter().any(|p| p.what.contains("pth")), "{problems:?}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let e = Manifest::parse(&format!("{GOOD}kindd: sink\n")).unwrap_err();
        assert!(e.what.contains("kindd"), "{e}");
        assert_eq!(e.place.map(|p| p.0), Some(12));
        let e = Manifest::parse(&GOOD.replace("[output]", "[exec]")).unwrap_err();
        assert!(e.what.contains("exec") && e.what.contains("output"), "{e}");
        let e = Manifest::parse(&GOOD.replace("sink-output", "source")).unwrap_err();
        assert!(e.what.contains("does not belong to kind `sink`"), "{e}");
        let e = Manifest::parse(&GOOD.replace("memory_mib: 16", "memory_mib: 99999")).unwrap_err();
        assert!(e.what.contains("1 to 1024"), "{e}");
        let e = Manifest::parse(&format!("{GOOD}transports: [file]\n")).unwrap_err();
        assert!(e.what.contains("`transports` does not belong to kind `sink`"), "{e}");
        let e = Manifest::parse(&GOOD.replace("name: stdout", "name: ../x")).unwrap_err();
        assert!(e.what.contains("not a plugin name"), "{e}");
        let e = Manifest::parse(&GOOD.replace("type: string", "type: strin")).unwrap_err();
        assert!(e.what.contains("not a JSON Schema"), "{e}");
        assert!(Manifest::parse(&format!("{GOOD}name: again\n")).unwrap_err().what.contains("duplicate"));
    }
}
