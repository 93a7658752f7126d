//! Makes the JSON Schema of the config from what the comments in the source say, for editors and other checkers.
//!
//! A comment says in words of its own what a machine can use: "`A` to `B`" are limits, "one of `x`, `y`" are the words
//! allowed, "Default: ..." and "Example: ..." stand at the end. The tests of the program hold all of it against what is
//! really read.

use super::generated::{Key, Section, anchor, item, title, unit};
use serde_json::{Map, Value, json};

/// The schema, beside the reference.
pub(super) const PAGE: &str = "docs/reference/hb.schema.json";

/// What a name is made of.
const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";

/// What a secret looks like in a config: a reference.
const SECRET: &str = r"^\$\{(file|credential|env):.+\}$";

/// The whole schema; the first section is the file.
pub(super) fn text(sections: &[Section]) -> String {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of hb",
        "$comment": "Made by `cargo xtask generate` of the comments in host/daemon/src/config; change them there.",
    });
    if let (Some(object), Some((file, parts))) = (schema.as_object_mut(), sections.split_first()) {
        object.extend(section(file, sections));
        let parts = parts.iter().map(|part| (anchor(&part.name), Value::Object(section(part, sections))));
        object.insert("$defs".to_owned(), parts.collect::<Map<_, _>>().into());
    }
    format!("{schema:#}\n")
}

fn section(section: &Section, all: &[Section]) -> Map<String, Value> {
    let (words, keys): (Vec<&Key>, Vec<&Key>) = section.keys.iter().partition(|key| key.kind.is_empty());
    // A key without a value counts as absent, where it may be absent.
    let of = |key: &Key| {
        let is_needed = section.is_choice || key.default.is_none();
        if is_needed { property(key, all) } else { or_nothing(property(key, all)) }
    };
    let properties: Map<String, Value> = keys.iter().map(|key| (key.name.clone(), of(key))).collect();
    let mut object = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if section.is_choice {
        (object["minProperties"], object["maxProperties"]) = (json!(1), json!(1));
    } else {
        let required: Vec<&str> = keys.iter().filter(|k| k.default.is_none()).map(|k| k.name.as_str()).collect();
        object["required"] = json!(required);
    }
    let described = if words.is_empty() {
        object
    } else {
        let words: Vec<&str> = words.iter().map(|word| word.name.as_str()).collect();
        json!({ "oneOf": [{ "enum": words }, object] })
    };
    let mut whole = Map::new();
    whole.insert("description".to_owned(), json!(section.about));
    whole.extend(described.as_object().cloned().unwrap_or_default());
    whole
}

fn property(key: &Key, all: &[Section]) -> Value {
    let mut one = json!({});
    let kind = item(&key.kind);
    let is_list = key.kind.starts_with("Vec<");
    if kind.ends_with("Config") {
        one["$ref"] = json!(format!("#/$defs/{}", anchor(kind)));
    } else {
        one = of_kind(key, kind);
    }
    let limits = range(key);
    if let Some(words) = words(&key.meaning) {
        one["enum"] = json!(words);
    } else if let Some((low, high)) =
        limits.clone().filter(|_| matches!(one["type"].as_str(), Some("integer" | "number")))
    {
        (one["minimum"], one["maximum"]) = (low, high);
    }
    let mut whole = if is_list { json!({ "type": "array", "items": one }) } else { one };
    if let Some((low, high)) = limits {
        let names = if is_list { Some(("minItems", "maxItems")) } else { None };
        let names = names.or((whole["type"] == "object").then_some(("minProperties", "maxProperties")));
        if let Some((least, most)) = names {
            (whole[least], whole[most]) = (low, high);
        }
    }
    let default = key.default.as_ref().map(|text| format!(" Default: {text}.")).unwrap_or_default();
    whole["description"] = json!(format!("{}{default}", key.meaning));
    if let Some(unit) = unit(&key.name) {
        whole["x-unit"] = json!(unit);
    }
    if let Some(default) = default_value(key) {
        whole["default"] = default;
    }
    whole["examples"] = json!([example(key, all)]);
    whole
}

/// The same, or nothing.
fn or_nothing(mut property: Value) -> Value {
    if let Some(kind) = property.get_mut("type") {
        *kind = json!([kind.take(), "null"]);
    }
    if let Some(words) = property.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
    let Some(held) = property.as_object_mut().and_then(|p| p.remove("$ref")) else { return property };
    let mut whole = json!({ "anyOf": [{ "$ref": held }, { "type": "null" }] });
    if let (Some(whole), Value::Object(rest)) = (whole.as_object_mut(), property) {
        whole.extend(rest);
    }
    whole
}

/// What may stand at a key, by its type in the source.
fn of_kind(key: &Key, kind: &str) -> Value {
    match kind {
        "bool" => json!({ "type": "boolean" }),
        "i64" if key.name.ends_with("_sec") => json!({ "type": "number" }),
        "u8" | "u16" | "u32" | "u64" | "usize" | "i64" => json!({ "type": "integer" }),
        "Name" => json!({ "type": "string", "pattern": NAME }),
        "SecretRef" => json!({ "type": "string", "pattern": SECRET }),
        "serde_json::Value" => json!({ "type": "object" }),
        "BTreeMap<String, SecretRef>" => {
            let secret = json!({ "type": "string", "pattern": SECRET });
            json!({ "type": "object", "propertyNames": { "pattern": NAME }, "additionalProperties": secret })
        }
        "BTreeMap<String, Param>" => {
            json!({ "type": "object", "additionalProperties": { "type": ["boolean", "number", "string"] } })
        }
        _ => json!({ "type": "string", "minLength": 1 }),
    }
}

/// Limits as a comment says them: `1 to 65,536`, `4 KiB to 64 MiB`, `1 s to 31 days`.
fn range(key: &Key) -> Option<(Value, Value)> {
    let words: Vec<&str> = key.meaning.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "to").filter(|at| *at > 0)?;
    let from = words[..at].iter().rposition(|word| number(word).is_some())?;
    if from + 2 < at {
        return None;
    }
    let low = quantity(&words[from..at].join(" "), &key.name)?;
    let high = quantity(&words[at + 1..].join(" "), &key.name)?;
    Some((whole_or_fraction(low), whole_or_fraction(high)))
}

/// The words that a comment allows: "one of `a`, `b`".
fn words(meaning: &str) -> Option<Vec<&str>> {
    let (_, rest) = meaning.split_once("one of `")?;
    let mut words = Vec::new();
    let mut rest = rest;
    loop {
        let (word, behind) = rest.split_once('`')?;
        words.push(word);
        match behind.strip_prefix(", `") {
            Some(next) => rest = next,
            None => return Some(words),
        }
    }
}

/// A default that is a value and not a sentence.
fn default_value(key: &Key) -> Option<Value> {
    let text = key.default.as_deref()?;
    let stated = text.split(['.', ';']).next().filter(|_| !text.starts_with('`')).unwrap_or(text);
    let stated = stated.split(", ").next().unwrap_or(stated);
    let kind = key.kind.as_str();
    match stated {
        "true" | "false" if kind == "bool" => return Some(json!(stated == "true")),
        "none" if kind.starts_with("Vec<") => return Some(json!([])),
        "none" if kind.starts_with("BTreeMap<") || kind == "serde_json::Value" => return Some(json!({})),
        _ => {}
    }
    if let Some(quoted) = text.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
        let told_by_words = quoted.contains(['`', '<', '$']);
        return (!told_by_words).then(|| value(kind, quoted));
    }
    let is_number = matches!(item(kind), "u8" | "u16" | "u32" | "u64" | "usize" | "i64");
    quantity(text, &key.name).filter(|_| is_number).map(whole_or_fraction)
}

/// What stands at a key by its example; a section's is what it needs.
pub(super) fn example(key: &Key, all: &[Section]) -> Value {
    let kind = item(&key.kind);
    if let Some(text) = &key.example {
        return value(&key.kind, text);
    }
    let one = match all.iter().find(|section| section.name == kind) {
        Some(section) => {
            let needed: Vec<&Key> = section.keys.iter().filter(|k| k.default.is_none() && !k.kind.is_empty()).collect();
            let shown = if section.is_choice || needed.is_empty() {
                section.keys.iter().find(|k| !k.kind.is_empty()).into_iter().collect()
            } else {
                needed
            };
            shown.into_iter().map(|k| (k.name.clone(), example(k, all))).collect::<Map<_, _>>().into()
        }
        // What has no example is told by [`unexplained`].
        None => json!(""),
    };
    if key.kind.starts_with("Vec<") { json!([one]) } else { one }
}

/// A value as it stands in a file, between backticks in a comment.
fn value(kind: &str, text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::String(_) | Value::Array(_) | Value::Object(_))) => value,
        Ok(value) if matches!(item(kind), "bool" | "u8" | "u16" | "u32" | "u64" | "usize" | "i64") => value,
        Ok(_) | Err(_) => json!(text),
    }
}

/// A number with its unit at the begin of a text, in the unit of the key.
fn quantity(text: &str, name: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let first = words.next()?;
    let number = number(first)?;
    let ends = first.ends_with([',', ';', '.', ':']);
    let word = if ends { "" } else { words.next().unwrap_or_default().trim_end_matches([',', ';', '.', ':']) };
    let factor = match (word, unit(name)) {
        ("days", Some("s")) => 86_400.0,
        ("KiB", Some("bytes")) => 1_024.0,
        ("MiB", Some("bytes")) => 1_048_576.0,
        _ => 1.0,
    };
    Some(number * factor)
}

/// A number with commas between thousands.
fn number(word: &str) -> Option<f64> {
    let word = word.trim_end_matches([',', ';', '.', ':']);
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    word.replace(',', "").parse().ok()
}

fn whole_or_fraction(number: f64) -> Value {
    // Every number of a comment that is whole is far below 2^53.
    if number.fract() == 0.0 { json!(number as i64) } else { json!(number) }
}

/// Keys that no example explains.
pub(super) fn unexplained(sections: &[Section]) -> Vec<String> {
    let is_section = |kind: &str| sections.iter().any(|section| section.name == kind);
    let mut found = Vec::new();
    for section in sections {
        let bare = |key: &&Key| key.example.is_none() && !key.kind.is_empty() && !is_section(item(&key.kind));
        let name = title(&section.name).to_lowercase();
        found.extend(section.keys.iter().filter(bare).map(|key| format!("`{}` of {name}", key.name)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, kind: &str, meaning: &str, default: Option<&str>) -> Key {
        let text = |text: &str| text.to_owned();
        let example = Some(text("`7`"));
        Key { name: text(name), kind: text(kind), meaning: text(meaning), default: default.map(text), example }
    }

    #[test]
    fn limits_are_told_in_words() {
        for (name, meaning, expected) in [
            ("n", "Things, 1 to 65,536; more is no use.", Some((json!(1), json!(65_536)))),
            ("x_bytes", "Longest, 64 B to 64 MiB.", Some((json!(64), json!(67_108_864)))),
            ("x_mb", "Room, 4 to 1,048,576 MiB, or so.", Some((json!(4), json!(1_048_576)))),
            ("x_sec", "How long, 0.01 s to 31 days.", Some((json!(0.01), json!(2_678_400)))),
            ("x_ms", "Wait, 1 to 60,000 ms.", Some((json!(1), json!(60_000)))),
            ("n", "Handed to a plugin.", None),
            ("n", "7 in all, whether to wait.", None),
        ] {
            assert_eq!(range(&key(name, "u32", meaning, None)), expected, "{meaning}");
        }
    }

    #[test]
    fn a_default_is_a_value_or_a_sentence() {
        for (name, kind, text, expected) in [
            ("n", "u32", "2,000; more is a mistake", Some(json!(2_000))),
            ("n", "u32", "20, mosquitto's own", Some(json!(20))),
            ("x_sec", "i64", "7 days", Some(json!(604_800))),
            ("x_bytes", "u32", "1 MiB", Some(json!(1_048_576))),
            ("x", "bool", "false, the source ends there", Some(json!(false))),
            ("x", "String", "`5`", Some(json!("5"))),
            ("x", "Vec<Pattern>", "`[\"*\"]`", Some(json!(["*"]))),
            ("x", "Vec<PathBuf>", "none, which lets nothing load", Some(json!([]))),
            ("x", "serde_json::Value", "none", Some(json!({}))),
            ("x", "Option<Name>", "none", None),
            ("x", "PathBuf", "`state` beside the config", None),
            ("x", "Option<String>", "`hb-<program>`", None),
            ("x_mb", "u32", "an eighth of `max_state_mb`", None),
            ("x_sec", "i64", "`every_sec`, else `window_sec`", None),
        ] {
            assert_eq!(default_value(&key(name, kind, "", Some(text))), expected, "{text}");
        }
    }

    #[test]
    fn words_are_those_between_backticks() {
        assert_eq!(words("How, one of `a`, `b_c`. A `d` is none."), Some(vec!["a", "b_c"]));
        assert_eq!(words("Each one of `a`: one `b`."), Some(vec!["a"]));
        assert_eq!(words("`a` or `b`."), None);
    }
}
