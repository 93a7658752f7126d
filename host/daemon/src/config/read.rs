//! Turns a YAML tree into typed settings: every field is asked for by name, and what nobody asked for is an error.
//!
//! A mapping is opened with [`Fields::open`], its keys are taken one by one, and [`Fields::close`] reports the keys
//! that are left with the nearest right one. A mistake is noted and reading goes on, so that one look at the file
//! shows all of them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::config::yaml::{Node, Source, Span, Value};
use crate::diagnostic::{Diagnostic, Diagnostics};

/// Where mistakes go while a file is read.
pub(crate) struct Reader<'a> {
    pub(crate) source: &'a Source,
    pub(crate) out: Diagnostics,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a Source) -> Self {
        Reader { source, out: Diagnostics::new() }
    }

    /// Starts an error of this file's area.
    pub(crate) fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.source.area, message)
    }

    /// Adds a diagnostic at a span.
    pub(crate) fn push(&mut self, at: Span, diagnostic: Diagnostic) {
        self.source.push(diagnostic, at, &mut self.out);
    }

    /// Notes that something else was expected here.
    pub(crate) fn expected(&mut self, node: &Node, what: &str) {
        if matches!(node.value, Value::Refused) {
            return;
        }
        let d = self.error(format!("expected {what}, found {}", node.describe()));
        self.push(node.at, d);
    }

    /// A path of the config, relative to the directory the config lies in; a `./` within it says nothing to whoever
    /// reads the path elsewhere.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        self.source.file.parent().unwrap_or(Path::new("")).join(path).components().collect()
    }
}

/// What can be read from a node. `None` means that the mistake has been noted.
pub(crate) trait FromNode: Sized {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self>;
}

/// One mapping of the file that is being read.
pub(crate) struct Fields<'n> {
    node: &'n Node,
    what: &'static str,
    asked: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Opens a mapping; `what` names it in messages, as `a source`.
    pub(crate) fn open(node: &'n Node, what: &'static str, reader: &mut Reader<'_>) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return Some(Fields { node, what, asked: Vec::new() });
        }
        reader.expected(node, &format!("{what} with its keys"));
        None
    }

    /// The value of a key, if it is given. A key without value counts as absent.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        self.asked.push(key);
        self.node.get(key).filter(|n| !matches!(n.value, Value::Null))
    }

    /// Reads a key that may be absent. The outer `Option` is `None` after a mistake.
    #[expect(clippy::option_option, reason = "the outer one is a mistake, the inner one an absent key")]
    pub(crate) fn optional<T: FromNode>(&mut self, key: &'static str, reader: &mut Reader<'_>) -> Option<Option<T>> {
        match self.get(key) {
            Some(node) => T::from_node(node, reader).map(Some),
            None => Some(None),
        }
    }

    /// Reads a key that has a default.
    pub(crate) fn or<T: FromNode>(&mut self, key: &'static str, default: T, reader: &mut Reader<'_>) -> Option<T> {
        Some(self.optional(key, reader)?.unwrap_or(default))
    }

    /// Reads a key that must be there.
    pub(crate) fn need<T: FromNode>(&mut self, key: &'static str, reader: &mut Reader<'_>) -> Option<T> {
        let found = self.optional(key, reader)?;
        if found.is_none() {
            let d = reader.error(format!("{} needs the key `{key}`", self.what));
            reader.push(self.node.at, d);
        }
        found
    }

    /// Reads a whole number within limits.
    pub(crate) fn whole<T: TryFrom<i128> + Into<i128> + Copy>(
        &mut self,
        key: &'static str,
        default: T,
        limits: &RangeInclusive<T>,
        reader: &mut Reader<'_>,
    ) -> Option<T> {
        let Some(node) = self.get(key) else { return Some(default) };
        let (low, high): (i128, i128) = ((*limits.start()).into(), (*limits.end()).into());
        match node.value {
            Value::Int(i) if (low..=high).contains(&i) => T::try_from(i).ok(),
            Value::Int(i) => {
                let d = reader.error(format!("`{key}` is {i}; it must be {low} to {high}"));
                reader.push(node.at, d);
                None
            }
            _ => {
                reader.expected(node, "a whole number");
                None
            }
        }
    }

    /// Reads a time in seconds, fractions allowed, as nanoseconds; the limits are in nanoseconds too.
    pub(crate) fn seconds(
        &mut self,
        key: &'static str,
        default_ns: Option<i64>,
        limits: &RangeInclusive<i64>,
        reader: &mut Reader<'_>,
    ) -> Option<i64> {
        let sec: f64 = match default_ns {
            Some(default) => match self.optional(key, reader)? {
                Some(sec) => sec,
                None => return Some(default),
            },
            None => self.need(key, reader)?,
        };
        // The product is exact enough: the limits keep it below 2^53 ns or the fraction is in the nanoseconds.
        let ns = (sec * 1e9).round();
        if ns >= *limits.start() as f64 && ns <= *limits.end() as f64 {
            return Some(ns as i64);
        }
        let (low, high) = (*limits.start() as f64 / 1e9, *limits.end() as f64 / 1e9);
        let d = reader.error(format!("`{key}` is {sec} s; it must be {low} to {high} s"));
        reader.push(self.span(key), d);
        None
    }

    /// Reads one of several words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        words: &[(&str, T)],
        reader: &mut Reader<'_>,
    ) -> Option<T> {
        let Some(node) = self.get(key) else { return Some(default) };
        let Value::Text(text) = &node.value else {
            reader.expected(node, "a word");
            return None;
        };
        let found = words.iter().find(|(word, _)| word == text);
        if found.is_none() {
            let d = reader.error(format!("`{key}` cannot be `{text}`")).suggest(text, words.iter().map(|(w, _)| *w));
            reader.push(node.at, d);
        }
        found.map(|(_, value)| *value)
    }

    /// Where the value of a key stands, or the mapping when the key is absent.
    pub(crate) fn span(&self, key: &str) -> Span {
        self.node.get(key).map_or(self.node.at, |n| n.at)
    }

    /// Reports the keys that nobody asked for.
    pub(crate) fn close(self, reader: &mut Reader<'_>) {
        let Value::Map(entries) = &self.node.value else { return };
        for entry in entries.iter().filter(|e| !self.asked.contains(&e.key.as_str())) {
            let d =
                reader.error(format!("unknown key `{}`", entry.key)).suggest(&entry.key, self.asked.iter().copied());
            reader.push(entry.key_at, d);
        }
    }
}

impl FromNode for String {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text.is_empty() => {
                reader.expected(node, "some text");
                None
            }
            Value::Text(text) => Some(text.clone()),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                let d = reader.error(format!("expected text, found {}", node.describe()));
                reader.push(node.at, d.help("put it in quotes"));
                None
            }
            _ => {
                reader.expected(node, "text");
                None
            }
        }
    }
}

impl FromNode for PathBuf {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let text = String::from_node(node, reader)?;
        Some(reader.resolve(Path::new(&text)))
    }
}

impl FromNode for bool {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        if let Value::Bool(b) = node.value {
            return Some(b);
        }
        reader.expected(node, "true or false");
        None
    }
}

impl FromNode for f64 {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match node.value {
            Value::Int(i) => Some(i as f64),
            Value::Float(f) => Some(f),
            _ => {
                reader.expected(node, "a number");
                None
            }
        }
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::List(items) = &node.value else {
            reader.expected(node, "a list");
            return None;
        };
        // All items are read before a mistake in one of them counts.
        let read: Vec<Option<T>> = items.iter().map(|item| T::from_node(item, reader)).collect();
        read.into_iter().collect()
    }
}

impl<T: FromNode> FromNode for BTreeMap<String, T> {
    fn from_node(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            reader.expected(node, "a mapping");
            return None;
        };
        let read: Vec<Option<(String, T)>> =
            entries.iter().map(|e| Some((e.key.clone(), T::from_node(&e.value, reader)?))).collect();
        read.into_iter().collect()
    }
}
