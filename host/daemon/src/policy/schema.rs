//! Reads the table a policy file returns: a closed schema, in which an unknown or misspelt key is an error at its
//! place, with the nearest right key.

use std::collections::BTreeMap;

use hb_engine::judge::Param;
use mlua::{Function, Table, Value};

use super::PolicyProblem;
use super::lex::{Pos, Step, Tokens};
use crate::diagnostic::nearest;

/// Most parameters of one policy: more is two rules in one file.
const MAX_PARAMS: usize = 32;

/// Most state values of one rule: they are kept per series, check and window.
const MAX_STATE: usize = 16;

/// Longest id, parameter or state name, bytes.
const MAX_NAME: usize = 64;

/// Longest `about`, bytes: it is shown in one line of a list.
const MAX_ABOUT: usize = 400;

/// The function that judges a policy's parameters, in policies of both kinds.
const CHECK: &str = "check";

pub(super) const RULE_KEYS: [&str; 9] =
    ["id", "version", "kind", "about", "applies_to", "params", CHECK, "state", "judge"];
pub(super) const SEVERITY_KEYS: [&str; 7] = ["id", "version", "kind", "about", "params", CHECK, "severity"];

/// What a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyKind {
    /// Judges one series of one window.
    Rule,
    /// Gives a decision its severity.
    Severity,
}

impl PolicyKind {
    /// The text form, also the name of nothing else.
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyKind::Rule => "rule",
            PolicyKind::Severity => "severity",
        }
    }

    fn function(self) -> &'static str {
        match self {
            PolicyKind::Rule => "judge",
            PolicyKind::Severity => "severity",
        }
    }
}

/// A declared parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamDecl {
    /// Value without an override.
    pub default: Param,
    /// For a text with a closed list of values: the list, the default first.
    pub choices: Vec<String>,
}

/// What a policy file declares, without its functions.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) kind: PolicyKind,
    pub(crate) about: String,
    pub(crate) applies_to: Vec<String>,
    pub(crate) params: BTreeMap<String, ParamDecl>,
    /// Sorted by name: the order of the state columns.
    pub(crate) state: Vec<(String, f64)>,
}

/// The functions of a policy file.
pub(crate) struct Functions {
    /// Judges, or names a severity.
    pub(crate) main: Function,
    /// Says why parameters do not fit.
    pub(crate) check: Option<Function>,
}

/// Collects what is wrong with one file's table, each with its place.
pub(crate) struct Reading<'a> {
    pub(crate) file: &'a str,
    pub(crate) tokens: &'a Tokens<'a>,
    pub(crate) problems: Vec<PolicyProblem>,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(file: &'a str, tokens: &'a Tokens<'a>) -> Self {
        Reading { file, tokens, problems: Vec::new() }
    }

    /// Notes a mistake at the entry `path`.
    pub(crate) fn wrong(&mut self, path: &[Step<'_>], message: impl Into<String>, help: Option<String>) {
        self.wrong_at(self.tokens.place(path), message, help);
    }

    /// Notes a mistake at a place.
    pub(crate) fn wrong_at(&mut self, pos: Pos, message: impl Into<String>, help: Option<String>) {
        let (file, message) = (self.file.to_owned(), message.into());
        self.problems.push(PolicyProblem { file, line: pos.line, col: pos.col, message, help });
    }

    /// Notes every key of `table` that is not in `known`.
    pub(crate) fn closed(&mut self, table: &Table, path: &[Step<'_>], what: &str, known: &[&str]) {
        for (key, _) in entries(table) {
            let Value::String(key) = key else {
                self.wrong(path, format!("{what} has an entry without a name"), None);
                continue;
            };
            let key = key.to_string_lossy();
            if !known.contains(&key.as_str()) {
                let place = [path, &[Step::Key(&key)]].concat();
                let help = nearest(&key, known.iter().copied()).map(|n| format!("did you mean `{n}`?"));
                let help = help.unwrap_or_else(|| format!("known keys: {}", known.join(", ")));
                self.wrong(&place, format!("{what} has no key `{key}`"), Some(help));
            }
        }
    }

    /// Text at `key`, noting when it is missing or something else.
    pub(crate) fn text(&mut self, table: &Table, path: &[Step<'_>], key: &str) -> Option<String> {
        let place = [path, &[Step::Key(key)]].concat();
        match table.raw_get::<Value>(key).unwrap_or(Value::Nil) {
            Value::String(text) => Some(text.to_string_lossy()),
            Value::Nil => {
                self.wrong(path, format!("`{key}` is missing"), Some(format!("add `{key} = \"...\"`")));
                None
            }
            other => {
                self.wrong(&place, format!("`{key}` is a {}; expected a text", other.type_name()), None);
                None
            }
        }
    }

    /// Table at `key`; nil is none.
    pub(crate) fn table(&mut self, table: &Table, path: &[Step<'_>], key: &str) -> Option<Table> {
        match table.raw_get::<Value>(key).unwrap_or(Value::Nil) {
            Value::Table(inner) => Some(inner),
            Value::Nil => None,
            other => {
                let place = [path, &[Step::Key(key)]].concat();
                self.wrong(&place, format!("`{key}` is a {}; expected a table", other.type_name()), None);
                None
            }
        }
    }

    /// Reads a policy's table.
    pub(crate) fn policy(&mut self, table: &Table) -> Option<(Declared, Functions)> {
        let kind = match self.text(table, &[], "kind")?.as_str() {
            "rule" => PolicyKind::Rule,
            "severity" => PolicyKind::Severity,
            other => {
                let help = "write `kind = \"rule\"` or `kind = \"severity\"`".to_owned();
                self.wrong(&[Step::Key("kind")], format!("kind `{other}` is unknown"), Some(help));
                return None;
            }
        };
        let (known, what): (&[&str], _) = match kind {
            PolicyKind::Rule => (&RULE_KEYS, "a rule"),
            PolicyKind::Severity => (&SEVERITY_KEYS, "a severity policy"),
        };
        self.closed(table, &[], what, known);
        let id = self.text(table, &[], "id").unwrap_or_default();
        if !id.is_empty() && !is_id(&id) {
            let help = "use lower-case words joined by dots, as `drift.robust_z`".to_owned();
            self.wrong(&[Step::Key("id")], format!("id `{id}` is not a name"), Some(help));
        }
        let version = self.text(table, &[], "version").unwrap_or_default();
        if !version.is_empty() && !is_version(&version) {
            let help = "use three numbers, as `1.0.0`".to_owned();
            self.wrong(&[Step::Key("version")], format!("version `{version}` is not a version"), Some(help));
        }
        let about = self.text(table, &[], "about").unwrap_or_default();
        if about.len() > MAX_ABOUT {
            let message = format!("`about` has {} bytes; at most {MAX_ABOUT} are allowed", about.len());
            self.wrong(&[Step::Key("about")], message, None);
        }
        let applies_to = self.patterns(table);
        let params = self.params(table);
        let state = self.state(table);
        let main = self.function(table, kind.function());
        if matches!(table.raw_get(kind.function()), Ok(Value::Nil)) {
            let help = format!("add `{} = function(...) ... end`", kind.function());
            self.wrong(&[], format!("`{}` is missing", kind.function()), Some(help));
        }
        let check = self.function(table, CHECK);
        if !self.problems.is_empty() {
            return None;
        }
        Some((Declared { id, version, kind, about, applies_to, params, state }, Functions { main: main?, check }))
    }

    /// Function at `key`; nil is none.
    fn function(&mut self, table: &Table, key: &str) -> Option<Function> {
        match table.raw_get::<Value>(key).unwrap_or(Value::Nil) {
            Value::Function(function) => Some(function),
            Value::Nil => None,
            other => {
                self.wrong(&[Step::Key(key)], format!("`{key}` is a {}; expected a function", other.type_name()), None);
                None
            }
        }
    }

    fn patterns(&mut self, table: &Table) -> Vec<String> {
        let Some(list) = self.table(table, &[], "applies_to") else { return vec!["*".to_owned()] };
        let mut patterns = Vec::new();
        for (key, value) in entries(&list) {
            let (Value::Integer(_) | Value::Number(_), Value::String(text)) = (key, value) else {
                let help = Some("write `applies_to = { \"*\" }` or metric patterns".to_owned());
                self.wrong(&[Step::Key("applies_to")], "`applies_to` is no list of texts", help);
                return patterns;
            };
            patterns.push(text.to_string_lossy());
        }
        if patterns.is_empty() {
            let help = Some("write `applies_to = { \"*\" }` for every metric".to_owned());
            self.wrong(&[Step::Key("applies_to")], "`applies_to` is empty: the rule would judge nothing", help);
        }
        patterns
    }

    fn params(&mut self, table: &Table) -> BTreeMap<String, ParamDecl> {
        let mut params = BTreeMap::new();
        let Some(list) = self.table(table, &[], "params") else { return params };
        for (key, value) in entries(&list) {
            let Some(name) = self.member_name("params", &key) else { continue };
            let place = [Step::Key("params"), Step::Key(&name)];
            let number = value.as_number().or_else(|| value.as_integer().map(|i| i as f64));
            let decl = match (&value, number) {
                (_, Some(number)) if number.is_finite() => {
                    ParamDecl { default: Param::Number(number), choices: Vec::new() }
                }
                (Value::Boolean(on), _) => ParamDecl { default: Param::Bool(*on), choices: Vec::new() },
                (Value::String(text), _) => {
                    ParamDecl { default: Param::Text(text.to_string_lossy()), choices: Vec::new() }
                }
                (Value::Table(list), _) => {
                    let choices: Vec<String> = list.sequence_values::<String>().filter_map(Result::ok).collect();
                    if choices.is_empty() || choices.len() != entries(list).len() {
                        let help = Some("write the texts it may be, the default first: `{ \"a\", \"b\" }`".to_owned());
                        self.wrong(&place, format!("parameter `{name}` is no list of texts"), help);
                        continue;
                    }
                    ParamDecl { default: Param::Text(choices[0].clone()), choices }
                }
                (other, _) => {
                    let help = Some("a default is a number, a boolean, a text or a list of texts".to_owned());
                    let message = format!("parameter `{name}` is a {}, or not finite", other.type_name());
                    self.wrong(&place, message, help);
                    continue;
                }
            };
            params.insert(name, decl);
        }
        if params.len() > MAX_PARAMS {
            let message = format!("{} parameters; at most {MAX_PARAMS} are allowed", params.len());
            self.wrong(&[Step::Key("params")], message, None);
        }
        params
    }

    fn state(&mut self, table: &Table) -> Vec<(String, f64)> {
        let mut state = BTreeMap::new();
        let Some(list) = self.table(table, &[], "state") else { return Vec::new() };
        for (key, value) in entries(&list) {
            let Some(name) = self.member_name("state", &key) else { continue };
            let number = value.as_number().or_else(|| value.as_integer().map(|i| i as f64));
            if let Some(number) = number.filter(|n| n.is_finite()) {
                state.insert(name, number);
            } else {
                let help = Some("state is kept as numbers; write its first value".to_owned());
                let message = format!("state `{name}` is a {}; expected a finite number", value.type_name());
                self.wrong(&[Step::Key("state"), Step::Key(&name)], message, help);
            }
        }
        if state.len() > MAX_STATE {
            let message = format!("{} state values; at most {MAX_STATE} are allowed", state.len());
            self.wrong(&[Step::Key("state")], message, None);
        }
        state.into_iter().collect()
    }

    /// A parameter's or state's name: it becomes part of the trusted loop's text, so only plain names pass.
    fn member_name(&mut self, of: &str, key: &Value) -> Option<String> {
        let name = key.as_string().map(mlua::LuaString::to_string_lossy);
        match name {
            Some(name) if is_word(&name) => Some(name),
            Some(name) => {
                let help = Some("use lower-case letters, digits and `_`".to_owned());
                self.wrong(&[Step::Key(of), Step::Key(&name)], format!("`{name}` in `{of}` is not a name"), help);
                None
            }
            None => {
                self.wrong(&[Step::Key(of)], format!("`{of}` has an entry without a name"), None);
                None
            }
        }
    }
}

/// Entries in the order of their keys' text, so that messages come in the same order in every run.
pub(crate) fn entries(table: &Table) -> Vec<(Value, Value)> {
    let mut list: Vec<(Value, Value)> = table.pairs::<Value, Value>().filter_map(Result::ok).collect();
    let rank = |key: &Value| match key {
        Value::String(text) => (1, 0, text.to_string_lossy()),
        Value::Integer(i) => (0, *i, String::new()),
        Value::Number(n) => (0, *n as i64, String::new()),
        _ => (2, 0, String::new()),
    };
    list.sort_by_key(|(key, _)| rank(key));
    list
}

fn is_word(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !matches!(
            name,
            "and"
                | "break"
                | "do"
                | "else"
                | "elseif"
                | "end"
                | "false"
                | "for"
                | "function"
                | "if"
                | "in"
                | "local"
                | "nil"
                | "not"
                | "or"
                | "repeat"
                | "return"
                | "then"
                | "true"
                | "until"
                | "while"
        )
}

fn is_id(id: &str) -> bool {
    id.len() <= MAX_NAME && id.split('.').all(is_word)
}

fn is_version(version: &str) -> bool {
    let parts: Vec<&str> = version.split('.').collect();
    parts.len() == 3 && parts.iter().all(|p| !p.is_empty() && p.len() <= 6 && p.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions() {
        assert!(is_id("drift.robust_z") && !is_id("Drift") && !is_id("a..b") && !is_id("a.end"));
        assert!(is_version("1.0.0") && !is_version("1.0") && !is_version("1.0.0-x"));
    }
}
