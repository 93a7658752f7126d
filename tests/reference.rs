//! The reference is held against the program: the config's schema against what is read, pages against what is said.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hb::config::{ConfigFile, Surroundings, template, yaml};
use hb::diagnostic::{Area, Diagnostics};
use serde_json::{Map, Value, json};

use crate::support::hb::{Hb, repository};

/// A word that resembles no key.
const STRANGE: &str = "qqqqqqqqqqqqqqqq";

#[test]
fn the_examples_and_the_template_fit_the_schema() {
    let schema = Schema::read();
    let validator = jsonschema::validator_for(&schema.whole).unwrap();
    let hb = Hb::new();
    hb.write("hb.yaml", &template::config(&[Path::new("publisher.pub")]));
    let mut configs: Vec<PathBuf> =
        fs::read_dir(repository().join("examples")).unwrap().map(|e| e.unwrap().path()).collect();
    configs = configs.into_iter().map(|dir| dir.join("hb.yaml")).filter(|file| file.is_file()).collect();
    assert!(configs.len() >= 3, "{configs:?}");
    for file in configs.into_iter().chain([hb.path("hb.yaml")]) {
        let (_, config) = yaml::load_json(&file, Area::Config).unwrap();
        let wrong: Vec<String> = validator.iter_errors(&config).map(|e| e.to_string()).collect();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", file.display());
    }
    // And it is a schema, not a wave-through.
    for wrong in [json!({ "sourcez": [] }), json!({ "limits": { "commit_ms": 0 } }), json!({ "asset_label": 7 })] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}

#[test]
fn the_schema_has_each_key_that_is_read_and_no_other() {
    let schema = Schema::read();
    for section in &schema.sections {
        let told = schema.load(&section.with(STRANGE, json!(1))).expect_err(&section.name);
        let named =
            told.iter().find(|d| d.message.contains(STRANGE)).unwrap_or_else(|| panic!("{}: {told}", section.name));
        let known = named.help.as_deref().and_then(|help| help.strip_prefix("known here: ")).unwrap_or_default();
        let known: BTreeSet<&str> = known.split(", ").collect();
        let described: BTreeSet<&str> = section.keys.keys().map(String::as_str).collect();
        assert_eq!(known, described, "{}", section.name);
    }
}

#[test]
fn a_misspelt_key_is_answered_with_the_right_one() {
    let schema = Schema::read();
    for section in &schema.sections {
        for key in section.keys.keys() {
            let (front, back) = key.split_at(key.len() / 2);
            let wrong = format!("{front}{}{back}", front.chars().next_back().unwrap());
            let told = schema.load(&section.with(&wrong, json!(1))).expect_err(&wrong);
            let help = format!("did you mean `{key}`?");
            let is_answer = |d: &hb::diagnostic::Diagnostic| {
                d.message.contains(&format!("`{wrong}`")) && d.help.as_ref() == Some(&help)
            };
            assert!(told.iter().any(is_answer), "{wrong} of {}: {told}", section.name);
        }
    }
}

#[test]
fn every_key_has_an_example_that_is_read_and_a_default_that_holds() {
    let schema = Schema::read();
    let validator = jsonschema::validator_for(&schema.whole).unwrap();
    let page = fs::read_to_string(repository().join("docs/reference/config.md")).unwrap();
    let mut defaults = 0;
    for section in &schema.sections {
        for (key, about) in &section.keys {
            let named = format!("{key} of {}", section.name);
            assert!(page.contains(&format!("\n| `{key}` |")), "{named} is not in the page");
            assert!(about["description"].as_str().is_some_and(|text| text.len() > 5), "{named}");
            let shown = section.with(key, about["examples"][0].clone());
            let wrong: Vec<String> = validator.iter_errors(&shown).map(|e| e.to_string()).collect();
            assert!(wrong.is_empty(), "{named}: {wrong:#?}\n{shown:#}");
            schema.load(&shown).unwrap_or_else(|told| panic!("{named}: {told}\n{shown:#}"));
            let Some(default) = about.get("default") else { continue };
            let stated =
                schema.load(&section.with(key, default.clone())).unwrap_or_else(|told| panic!("{named}: {told}"));
            let left_out = schema.load(&section.without(key)).unwrap_or_else(|told| panic!("{named}: {told}"));
            assert_eq!(stated.config, left_out.config, "{named}: the default is another");
            defaults += 1;
        }
    }
    assert!(defaults > 40, "{defaults}");
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        assert!(!row.contains("| |"), "a cell without a word: {row}");
    }
}

#[test]
fn a_word_in_place_of_a_section_is_read() {
    let schema = Schema::read();
    let validator = jsonschema::validator_for(&schema.whole).unwrap();
    let page = fs::read_to_string(repository().join("docs/reference/config.md")).unwrap();
    let mut words = 0;
    for section in &schema.sections {
        for word in &section.words {
            let mut shown = section.least.clone();
            *shown.pointer_mut(&section.at).unwrap() = json!(word);
            assert!(validator.is_valid(&shown), "{word} of {}: {shown:#}", section.name);
            schema.load(&shown).unwrap_or_else(|told| panic!("{word} of {}: {told}", section.name));
            assert!(page.contains(&format!("\n| `{word}` | word |")), "{word} of {} is not in the page", section.name);
            words += 1;
        }
    }
    assert!(words > 0);
}

#[test]
fn a_key_without_a_value_counts_as_absent() {
    let schema = Schema::read();
    let validator = jsonschema::validator_for(&schema.whole).unwrap();
    let mut optional = 0;
    for section in schema.sections.iter().filter(|section| !section.is_choice) {
        for key in section.keys.keys() {
            let empty = section.with(key, Value::Null);
            let named = format!("{key} of {}", section.name);
            let (read, left_out) = (schema.load(&empty), schema.load(&section.without(key)));
            assert_eq!(validator.is_valid(&empty), read.is_ok(), "{named}: schema and program do not agree");
            assert_eq!(read.ok().map(|c| c.config), left_out.ok().map(|c| c.config), "{named}");
            optional += u32::from(validator.is_valid(&empty));
        }
    }
    assert!(optional > 40, "{optional}");
}

#[test]
fn the_list_of_the_reference_names_each_page_and_schema() {
    let folder = repository().join("docs/reference");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name == "README.md" || list.contains(&format!("]({name})")),
            "{name} is not in docs/reference/README.md"
        );
    }
}

#[test]
fn limits_and_words_are_those_of_the_program() {
    let schema = Schema::read();
    let (mut limits, mut words) = (0, 0);
    for section in &schema.sections {
        for (key, about) in &section.keys {
            let refused = |value: Value| {
                let told = schema.load(&section.with(key, value)).err();
                told.map(|told| told.to_string()).unwrap_or_default()
            };
            if let (Some(low), Some(high)) = (about["minimum"].as_f64(), about["maximum"].as_f64()) {
                let whole = about["type"] == "integer" || about["type"][0] == "integer";
                let number = |x: f64| if whole { json!(x as i64) } else { json!(x) };
                for beyond in [if low == 0.0 || whole { low - 1.0 } else { low / 2.0 }, high + 1.0] {
                    let told = refused(number(beyond));
                    assert!(told.contains("it must be"), "{key} of {}: {beyond} is taken: {told}", section.name);
                }
                for within in [low, high] {
                    let told = refused(number(within));
                    assert!(!told.contains("it must be"), "{key} of {}: {within} is refused: {told}", section.name);
                }
                limits += 1;
            }
            let listed = &about["items"]["enum"];
            let (described, strange) = match about["enum"].as_array().or(listed.as_array()) {
                Some(described) if listed.is_array() => (described, json!([STRANGE])),
                Some(described) => (described, json!(STRANGE)),
                None => continue,
            };
            let told = refused(strange);
            let known = told.split("known here: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or_default();
            let known: BTreeSet<&str> = known.split(", ").collect();
            let described: BTreeSet<&str> = described.iter().filter_map(Value::as_str).collect();
            assert_eq!(known, described, "{key} of {}: {told}", section.name);
            words += 1;
        }
    }
    assert!(limits > 25 && words > 3, "{limits} limits, {words} lists of words");
}

#[test]
fn the_page_of_files_names_each_file_of_a_pack_and_of_a_run() {
    let page = fs::read_to_string(repository().join("docs/reference/files.md")).unwrap();
    let mut named = 0;
    for source in ["host/log/src/pack/names.rs", "host/daemon/src/evidence.rs", "host/daemon/src/artifact.rs"] {
        let text = fs::read_to_string(repository().join(source)).unwrap();
        let constants = text.lines().filter_map(|line| line.strip_prefix("pub const ")?.split('"').nth(1));
        for name in constants.filter(|name| name.contains('/') || name.contains('.') && !name.contains(' ')) {
            assert!(page.contains(name), "{source} has {name}, which docs/reference/files.md does not name");
            named += 1;
        }
    }
    assert!(named > 25, "{named}");
    assert!(page.contains(hb::artifact::HEADER));
}

/// The schema of the config, and a config around each of its sections.
struct Schema {
    whole: Value,
    sections: Vec<Section>,
    /// What a config may name lies here.
    place: Hb,
}

/// A mapping of the config.
struct Section {
    name: String,
    /// By name, as the schema describes them.
    keys: Map<String, Value>,
    /// The shortest config that has it.
    least: Value,
    /// Where it stands in that, as a JSON pointer.
    at: String,
    /// One key alone is written.
    is_choice: bool,
    /// Words that may stand in its place.
    words: Vec<String>,
}

impl Section {
    /// The shortest config in which the section leaves this key out: another section may stand in it.
    fn without(&self, key: &str) -> Value {
        let mut config = self.least.clone();
        config.pointer_mut(&self.at).and_then(Value::as_object_mut).unwrap().shift_remove(key);
        config
    }

    /// The shortest config in which the section has this key too.
    fn with(&self, key: &str, value: Value) -> Value {
        let mut config = self.least.clone();
        let place = config.pointer_mut(&self.at).unwrap();
        if self.is_choice {
            *place = json!({});
        }
        place[key] = value;
        if config["sources"][0].is_object() && config.get("normalizers").is_none() {
            config["normalizers"] = json!([{ "name": "plant", "plugin": "schema-map" }]);
        }
        config
    }
}

impl Schema {
    fn read() -> Schema {
        let text = fs::read_to_string(repository().join("docs/reference/hb.schema.json")).unwrap();
        let whole: Value = serde_json::from_str(&text).unwrap();
        let place = Hb::new();
        place.write("telemetry_schema.yaml", "version: 1\n");
        place.write("publisher.pub", "a key\n");
        let mut schema = Schema { whole, sections: Vec::new(), place };
        schema.follow("the file", &schema.whole.clone(), json!({}), String::new());
        assert_eq!(schema.sections.len(), 1 + schema.whole["$defs"].as_object().unwrap().len(), "not all are reached");
        schema
    }

    /// Adds a section, and behind it those that its keys lead to.
    fn follow(&mut self, name: &str, section: &Value, least: Value, at: String) {
        if self.sections.iter().any(|known| known.name == name) {
            return;
        }
        // Where a word may stand in place of a mapping, the mapping is meant.
        let ways = section["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
        let words = ways.iter().filter_map(|way| way["enum"].as_array()).flatten();
        let words = words.filter_map(|word| word.as_str().map(str::to_owned)).collect();
        let section = ways.last().unwrap_or(section);
        let keys = section["properties"].as_object().unwrap().clone();
        let is_choice = section["maxProperties"] == 1;
        let this = Section { name: name.to_owned(), keys: keys.clone(), least, at: at.clone(), is_choice, words };
        let inner: Vec<_> = keys
            .iter()
            .filter_map(|(key, about)| {
                let is_list = about["items"].is_object();
                // What may be left out may be nothing too.
                let alone = if about["$ref"].is_string() { about } else { &about["anyOf"][0] };
                let held = if is_list { &about["items"]["$ref"] } else { &alone["$ref"] };
                let name = held.as_str()?.strip_prefix("#/$defs/")?.to_owned();
                let least = this.with(key, about["examples"][0].clone());
                Some((name, least, format!("{at}/{key}{}", if is_list { "/0" } else { "" })))
            })
            .collect();
        self.sections.push(this);
        for (name, least, at) in inner {
            let section = self.whole["$defs"][&name].clone();
            self.follow(&name, &section, least, at);
        }
    }

    /// Reads a config as the program does; JSON is YAML.
    fn load(&self, config: &Value) -> Result<ConfigFile, Diagnostics> {
        let text = config.to_string().into_bytes();
        ConfigFile::from_bytes(&self.place.path("hb.yaml"), text, &Surroundings::default())
    }
}
