//! YAML as a tree in which every key and value knows where it stands, read strictly and with all errors at once.
//!
//! YAML 1.2 core schema: `no` and `on` are text. Anchors, aliases, merge keys, tags and several documents in one file
//! are refused: a config needs none of them, and they are how small files grow large. The same reader serves the
//! config and every other YAML file an author writes, see [`load_json`].

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::config::secret::may_hold_secret;
use crate::diagnostic::{Area, Diagnostic, Diagnostics, MAX_KEPT, Place, clip};

mod build;

/// Largest YAML file in bytes: a config with a thousand checks has a fifth of it.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Deepest nesting: the config has 6 levels, schemas a few more; each costs stack.
pub const MAX_DEPTH: usize = 32;

/// Most keys, values and lists of one file: what 1 MiB of ordinary YAML holds.
pub const MAX_NODES: usize = 100_000;

/// Characters of a foreign value that are quoted in a message.
const QUOTED_CHARS: usize = 40;

/// A piece of one line of the file: line and column from 1, length in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Line.
    pub line: u32,
    /// Column.
    pub col: u32,
    /// Length.
    pub len: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub at: Span,
    /// What it is.
    pub value: Value,
}

/// What a [`Node`] is.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Something that was refused; the mistake has been noted.
    Refused,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A finite number with a fraction or exponent.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file; keys are unique.
    Map(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_at: Span,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// What the value is, for a message: `the text "abc"`, `a list`.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null | Value::Refused => "nothing".into(),
            Value::Bool(b) => format!("`{b}`"),
            Value::Int(i) => format!("the number {i}"),
            Value::Float(f) => format!("the number {f}"),
            Value::Text(t) => format!("the text \"{}\"", clip(t, QUOTED_CHARS)),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }

    /// The value of a key, when this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// The value behind a path such as `checks[0].rules[1].params`.
    pub fn find(&self, path: &str) -> Option<&Node> {
        path.split(['.', '[']).filter(|s| !s.is_empty()).try_fold(self, |node, step| match step.strip_suffix(']') {
            Some(index) => match &node.value {
                Value::List(items) => items.get(index.parse::<usize>().ok()?),
                _ => None,
            },
            None => node.get(step),
        })
    }

    /// The same as JSON. Whole numbers beyond 64 bits were refused when the file was read.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null | Value::Refused => serde_json::Value::Null,
            Value::Bool(b) => (*b).into(),
            Value::Int(i) => i64::try_from(*i).map_or_else(|_| (*i as u64).into(), Into::into),
            Value::Float(f) => (*f).into(),
            Value::Text(t) => t.as_str().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect(),
        }
    }
}

/// A text file an operator or author wrote, with what is needed to point into it.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file as it was named.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// Which part of hb speaks of it.
    pub area: Area,
}

impl Source {
    /// Takes the bytes of a file, which must be UTF-8 without control characters. A byte order mark is left out.
    pub fn new(file: &Path, area: Area, bytes: &[u8]) -> Result<Source, Diagnostic> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let wrong = |good: &[u8], what: String| {
            let good = String::from_utf8_lossy(good);
            let line = good.matches('\n').count() as u32 + 1;
            let col = good.rsplit('\n').next().map_or(0, |l| l.chars().count()) as u32 + 1;
            Diagnostic::error(area, what).at(Place { line, col, ..Place::file(file) })
        };
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let good = e.valid_up_to();
            wrong(&bytes[..good], format!("byte 0x{:02x} is not UTF-8 text", bytes[good]))
                .help("save the file as UTF-8")
        })?;
        let controls = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}');
        if let Some((at, c)) = text.char_indices().find(|&(_, c)| controls(c)) {
            return Err(wrong(&text.as_bytes()[..at], format!("control character \\u{{{:x}}}", u32::from(c)))
                .help("remove it; inside double quotes it can be written as an escape"));
        }
        Ok(Source { file: file.to_owned(), text: text.to_owned(), area })
    }

    /// The place of a span, with the text of its line unless that may hold a secret.
    pub fn place(&self, at: Span) -> Place {
        let place = Place::span(&self.file, &self.text, at.line, at.col, at.len);
        if place.source_line.as_deref().is_some_and(may_hold_secret) { place.hidden() } else { place }
    }

    /// Adds an error. Once the list is full the line's text is no longer looked up: hostile files have many errors.
    pub fn error(&self, at: Span, message: impl Into<String>, out: &mut Diagnostics) {
        self.push(Diagnostic::error(self.area, message), at, out);
    }

    /// Adds a diagnostic at a span.
    pub fn push(&self, diagnostic: Diagnostic, at: Span, out: &mut Diagnostics) {
        let full = out.errors() + out.warnings() >= MAX_KEPT;
        out.push(if full { diagnostic } else { diagnostic.at(self.place(at)) });
    }

    /// Reads the text as YAML. What is wrong goes to `out`; the tree holds what could be read.
    pub fn parse(&self, out: &mut Diagnostics) -> Option<Node> {
        build::document(self, out)
    }
}

/// Reads a YAML file strictly and turns it into JSON, for settings and schemas that plugins understand. The bytes are
/// those that were read, for hashing.
pub fn load_json(file: &Path, area: Area) -> Result<(Vec<u8>, serde_json::Value), Diagnostics> {
    let bytes = read_capped(file, area, MAX_FILE_BYTES)?;
    let source = Source::new(file, area, &bytes)?;
    let mut out = Diagnostics::new();
    let node = source.parse(&mut out);
    match node {
        Some(node) if !out.has_errors() => Ok((bytes, node.to_json())),
        None if out.is_empty() => Err(Diagnostic::error(area, "the file is empty").at(Place::file(file)).into()),
        _ => Err(out),
    }
}

/// Reads a whole file, but never more than `max_bytes`.
pub fn read_capped(file: &Path, area: Area, max_bytes: u64) -> Result<Vec<u8>, Diagnostic> {
    let cannot = |e: &std::io::Error| {
        let (what, help) = match e.kind() {
            std::io::ErrorKind::NotFound => ("file not found".into(), Some("check the path")),
            std::io::ErrorKind::PermissionDenied => {
                ("no permission to read the file".into(), Some("let the user hb runs as read it"))
            }
            std::io::ErrorKind::IsADirectory => ("this is a directory, not a file".into(), Some("name a file")),
            _ => (format!("cannot read the file: {e}"), None),
        };
        let d = Diagnostic::error(area, what).at(Place::file(file));
        if let Some(help) = help { d.help(help) } else { d }
    };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large from one that just fits, also for pipes.
    let read = File::open(file).and_then(|f| f.take(max_bytes + 1).read_to_end(&mut bytes));
    read.map_err(|e| cannot(&e))?;
    if bytes.len() as u64 > max_bytes {
        return Err(Diagnostic::error(area, format!("the file is larger than {max_bytes} bytes")).at(Place::file(file)));
    }
    Ok(bytes)
}
