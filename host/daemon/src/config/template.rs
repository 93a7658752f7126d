//! What `hb init` writes: a commented config and a telemetry schema that load as they are.

use std::fmt::Write as _;
use std::path::Path;

/// Name of the config `hb init` writes.
pub const CONFIG_NAME: &str = "hb.yaml";

/// Name of the schema the config refers to.
pub const SCHEMA_NAME: &str = "telemetry_schema.yaml";

/// The schema.
pub const SCHEMA: &str = include_str!("template/telemetry_schema.yaml");

/// The config, before publishers are filled in.
const CONFIG: &str = include_str!("template/hb.yaml");

/// The line of [`CONFIG`] that is replaced.
const NO_PUBLISHERS: &str = "trusted_publishers: []\n";

/// The config with these publishers' public keys.
pub fn config(publishers: &[&Path]) -> String {
    if publishers.is_empty() {
        return CONFIG.to_owned();
    }
    let mut list = String::from("trusted_publishers:\n");
    for path in publishers {
        // A JSON string is a YAML string, whatever the path holds.
        let quoted = serde_json::Value::from(path.to_string_lossy().into_owned());
        // Writing to a String cannot fail.
        let _ = writeln!(list, "  - {quoted}");
    }
    CONFIG.replace(NO_PUBLISHERS, &list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::load_json;
    use crate::config::{ConfigFile, Surroundings};
    use crate::diagnostic::Area;

    #[test]
    fn the_settings_fit_the_plugins_that_get_them() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let check = |plugin: &str, settings: &serde_json::Value| {
            let manifest = root.join("plugins").join(plugin).join("plugin.yaml");
            let (_, manifest) = load_json(&manifest, Area::Plugin).unwrap();
            let schema = jsonschema::validator_for(&manifest["settings"]).unwrap();
            let wrong: Vec<String> = schema.iter_errors(settings).map(|e| e.to_string()).collect();
            assert!(wrong.is_empty(), "{plugin}: {wrong:?}");
        };
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(SCHEMA_NAME), SCHEMA).unwrap();
        let path = dir.path().join(CONFIG_NAME);
        let config = ConfigFile::from_bytes(&path, config(&[]).into_bytes(), &Surroundings::default()).unwrap().config;
        config.sources.iter().for_each(|s| check(&s.plugin, &s.settings));
        config.normalizers.iter().for_each(|n| check(&n.plugin, &n.settings));
        config.sinks.iter().for_each(|s| check(&s.plugin, &s.settings));
    }

    #[test]
    fn publishers_are_filled_in() {
        assert!(CONFIG.contains(NO_PUBLISHERS));
        let text = config(&[Path::new("/etc/hb/a \"b\".pub"), Path::new("c.pub")]);
        assert!(text.contains("trusted_publishers:\n  - \"/etc/hb/a \\\"b\\\".pub\"\n  - \"c.pub\"\n"), "{text}");
        assert!(!text.contains("[]\n  -"));
    }
}
