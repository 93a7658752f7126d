//! Builds the tree from the parser's events, and refuses what a config does not need.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::IntErrorKind;

use serde_saphyr::granit_parser::{self, ErrorKind, Event, Parser, ScalarStyle, StrInput};

use super::{Entry, MAX_DEPTH, MAX_NODES, Node, QUOTED_CHARS, Source, Span, Value};
use crate::diagnostic::{Diagnostic, Diagnostics, clip};

/// The document of a file; `None` when there is none, or when the text could not be read to its end.
pub(super) fn document(source: &Source, out: &mut Diagnostics) -> Option<Node> {
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH
    };
    let parser = Parser::new_from_str_with_options(&source.text, options);
    let mut builder = Builder { source, parser, out, nodes: 0 };
    builder.document().ok()?
}

/// Parsing cannot go on; the reason is among the diagnostics.
struct Stopped;

struct Builder<'a> {
    source: &'a Source,
    parser: Parser<'a, StrInput<'a>>,
    out: &'a mut Diagnostics,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<Option<Node>, Stopped> {
        let mut root = None;
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(..) if root.is_some() => {
                    self.source.error(at, "the file holds a second document", self.out);
                    return Err(Stopped);
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => root = Some(self.node(event, at, 0)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Stopped> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                let same_line = span.end.line() == span.start.line();
                let len = if same_line { span.end.col().saturating_sub(span.start.col()) } else { 1 };
                Ok((event, span_of(&span.start, len)))
            }
            Some(Err(e)) => {
                let d = Diagnostic::error(self.source.area, scan_message(e.kind()));
                self.source.push(d, span_of(e.marker(), 1), self.out);
                Err(Stopped)
            }
            None => Err(Stopped),
        }
    }

    fn node(&mut self, event: Event<'a>, at: Span, depth: usize) -> Result<Node, Stopped> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.source.error(at, format!("more than {MAX_NODES} values in one file"), self.out);
            return Err(Stopped);
        }
        if depth > MAX_DEPTH {
            self.source.error(at, format!("nested deeper than {MAX_DEPTH} levels"), self.out);
            return Err(Stopped);
        }
        let value = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.plain_only(at, anchor, tag.is_some());
                if style == ScalarStyle::Plain { self.plain(&text, at) } else { Value::Text(text.into_owned()) }
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.plain_only(at, anchor, tag.is_some());
                self.list(depth)?
            }
            Event::MappingStart(_, anchor, tag) => {
                self.plain_only(at, anchor, tag.is_some());
                self.map(depth)?
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let d = Diagnostic::error(self.source.area, "aliases are not allowed here");
                self.source.push(d.help("repeat the value; text that begins with `*` needs quotes"), at, self.out);
                Value::Refused
            }
            _ => return Err(Stopped),
        };
        let len = if matches!(value, Value::List(_) | Value::Map(_)) { 1 } else { at.len };
        Ok(Node { at: Span { len, ..at }, value })
    }

    fn list(&mut self, depth: usize) -> Result<Value, Stopped> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, at) => items.push(self.node(event, at, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Stopped> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: BTreeMap<Cow<'a, str>, u32> = BTreeMap::new();
        loop {
            let (event, key_at) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(Value::Map(entries)),
                Event::Scalar(key, ..) => Some(key),
                event => {
                    self.source.error(key_at, "a key must be plain text", self.out);
                    self.node(event, key_at, depth + 1)?;
                    None
                }
            };
            let (event, at) = self.next()?;
            let value = self.node(event, at, depth + 1)?;
            let Some(key) = key else { continue };
            if key == "<<" {
                self.source.error(key_at, "merge keys (`<<`) are not allowed here", self.out);
            } else if let Some(&line) = seen.get(&key) {
                let d = Diagnostic::error(self.source.area, format!("duplicate key `{key}`"));
                self.source.push(d.help(format!("it is already given in line {line}")), key_at, self.out);
            } else {
                seen.insert(key.clone(), key_at.line);
                entries.push(Entry { key: key.into_owned(), key_at, value });
            }
        }
    }

    fn plain_only(&mut self, at: Span, anchor: usize, tagged: bool) {
        if anchor != 0 {
            let d = Diagnostic::error(self.source.area, "anchors are not allowed here");
            self.source.push(d.help("text that begins with `&` needs quotes"), at, self.out);
        }
        if tagged {
            let d = Diagnostic::error(self.source.area, "tags are not allowed here");
            self.source.push(d.help("text that begins with `!` needs quotes"), at, self.out);
        }
    }

    /// A scalar without quotes, by the core schema of YAML 1.2.
    fn plain(&mut self, text: &str, at: Span) -> Value {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
            "true" | "True" | "TRUE" => return Value::Bool(true),
            "false" | "False" | "FALSE" => return Value::Bool(false),
            _ => {}
        }
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let radix = |prefix, radix| text.strip_prefix(prefix).map(|digits| i128::from_str_radix(digits, radix));
        let whole = if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
            Some(text.parse::<i128>())
        } else {
            // A digit must follow at once: `from_str_radix` would take a sign.
            radix("0x", 16)
                .or_else(|| radix("0o", 8))
                .filter(|_| text.as_bytes().get(2).is_some_and(u8::is_ascii_hexdigit))
        };
        match whole {
            Some(Ok(i)) if i >= i128::from(i64::MIN) && i <= i128::from(u64::MAX) => return Value::Int(i),
            Some(Ok(_)) => return self.unfit(text, at),
            Some(Err(e)) if matches!(e.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => {
                return self.unfit(text, at);
            }
            _ => {}
        }
        if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
            return self.unfit(text, at);
        }
        let float_like = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && unsigned.bytes().any(|b| b.is_ascii_digit())
            && unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
        match text.parse::<f64>() {
            Ok(f) if float_like && f.is_finite() => Value::Float(f),
            Ok(_) if float_like => self.unfit(text, at),
            _ => Value::Text(text.to_owned()),
        }
    }

    fn unfit(&mut self, text: &str, at: Span) -> Value {
        let d = Diagnostic::error(self.source.area, format!("the number {} cannot be kept", clip(text, QUOTED_CHARS)));
        self.source.push(d.help("use a finite number within 64 bits, or quotes if text is meant"), at, self.out);
        Value::Refused
    }
}

fn span_of(marker: &granit_parser::Marker, len: usize) -> Span {
    Span { line: marker.line() as u32, col: marker.col() as u32 + 1, len: len as u32 }
}

fn scan_message(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::RecursionLimitExceeded => format!("nested deeper than {MAX_DEPTH} levels"),
        kind => format!("not valid YAML: {kind}"),
    }
}
