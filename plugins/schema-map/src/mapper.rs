//! The mapper gives one frame its meaning: first it finds all fields, then it files their values.
//!
//! What it remembers between frames are ids of series and names of fields. All of it can be dropped at any time
//! without changing an output; that is what keeps the plugin pure and its memory bounded.

mod event;
mod long;
mod scan;
mod template;
mod text;
mod topic;
mod wide;

use crate::clock::{Minute, event_time};
use crate::fields::{ByteMap, Fields, Role};
use crate::json::{Scanner, Span, Text, Value};
use crate::plan::Plan;
use crate::reading::{excerpt, text};
use crate::schema::{Layout, MissingTime};
use crate::topics::Hit;
use crate::units::Convert;
use hb_sdk::{Frame, Out, Series, SeriesKind, SeriesTable};
use std::rc::Rc;

/// A field of the frame at hand.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    field: u32,
    value: Value,
}

/// A series with what is needed to fill it.
#[derive(Clone, Copy)]
struct Entry {
    series: Series,
    kind: Option<SeriesKind>,
    convert: Convert,
}

/// Gives frames their meaning.
pub(crate) struct Mapper {
    plan: Plan,
    fields: Fields,
    /// The keys that the last frames had, in their order.
    shape: Vec<scan::Expected>,
    pub(crate) templates: template::Templates,
    clock: Minute,
    seen: Vec<Seen>,
    /// The value of each label that comes from a field.
    label_values: Vec<Option<Value>>,
    /// Counts frames; only compared for equality with marks of the same frame.
    stamp: u64,
    /// The frame becomes an event too, so that what has no meaning as a reading is not lost.
    is_event: bool,
    /// What is wrong with the meaning of the frame, while its syntax is still being checked.
    pending: Option<String>,
    /// The frame with decoded texts behind it, for patterns.
    longer: Vec<u8>,
    path: Vec<u8>,
    key: Vec<u8>,
    /// Wide: label values to an index of `set_ids`.
    sets: ByteMap<u32>,
    /// Wide: for each set of labels, ids by field and kind.
    set_ids: Vec<Vec<Option<Series>>>,
    /// Long layout and topics: everything that names a series, to the series.
    entries: ByteMap<Entry>,
    codes: SeriesTable,
    hits: ByteMap<Option<Rc<Hit>>>,
}

/// Sets of labels and series that are remembered; a fleet has fewer, and the memory for it stays below 32 MiB.
const MAX_REMEMBERED: usize = 100_000;

/// Origins whose topic entry is remembered.
const MAX_HITS: usize = 10_000;

impl Mapper {
    pub(crate) fn new(plan: Plan) -> Self {
        let labels = plan.field_labels.len();
        Self {
            plan,
            fields: Fields::default(),
            shape: vec![],
            templates: template::Templates::default(),
            clock: Minute::default(),
            seen: vec![],
            label_values: vec![None; labels],
            stamp: 0,
            is_event: false,
            pending: None,
            longer: vec![],
            path: vec![],
            key: vec![],
            sets: ByteMap::default(),
            set_ids: vec![],
            entries: ByteMap::default(),
            codes: SeriesTable::default(),
            hits: ByteMap::default(),
        }
    }

    /// Files all values of a frame; the error is the reason of a reject.
    pub(crate) fn frame(&mut self, frame: &Frame<'_>, out: &mut Out) -> Result<(), String> {
        self.begin();
        if self.repeats(frame, out) {
            return Ok(());
        }
        let hit = self.topic_hit(frame.origin);
        let first = frame.bytes.iter().find(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r')).copied();
        let is_value = hit.as_deref().is_some_and(|hit| self.plan.topics.metric(hit).is_some());
        if is_value && !matches!(first, None | Some(b'{' | b'[' | b'"')) {
            // A bare payload such as `21.5` or `ON`.
            let value = plain_text(frame)?;
            return self.topic_value(frame, hit.as_deref(), Some(value), None, out);
        }
        if first != Some(b'{') && !self.plan.patterns.lines.is_empty() {
            self.match_line(frame)?;
            return self.file(frame, hit.as_deref(), MissingTime::Received, out);
        }
        let top = self.scan(frame.bytes)?;
        match (top, is_value) {
            (None, true) => self.topic_object(frame, hit.as_deref(), out),
            (None, false) if self.plan.is_plain => {
                self.file(frame, hit.as_deref(), self.plan.timestamp.missing, out)?;
                self.remember(frame);
                Ok(())
            }
            (None, false) => self.rich_object(frame, hit.as_deref(), out),
            (Some(value), true) => self.topic_value(frame, hit.as_deref(), Some(value), None, out),
            (Some(Value::Array), false) => Err("a JSON array; expected an object".to_owned()),
            (Some(_), false) => Err(format!(
                "a bare value; expected an object, or an entry for `{}` in sources.mqtt.topic_map",
                excerpt(frame.origin)
            )),
        }
    }

    fn begin(&mut self) {
        if self.fields.is_full() || self.sets.len() + self.entries.len() > MAX_REMEMBERED {
            self.fields.clear();
            self.shape.clear();
            self.templates = template::Templates::default();
            self.sets.clear();
            self.set_ids.clear();
            self.entries.clear();
            self.codes = SeriesTable::default();
        }
        self.stamp += 1;
        self.seen.clear();
        self.path.clear();
        self.pending = None;
    }

    /// Files the fields found, in the layout that the frame has.
    fn file(
        &mut self,
        frame: &Frame<'_>,
        hit: Option<&Hit>,
        missing: MissingTime,
        out: &mut Out,
    ) -> Result<(), String> {
        let is_long = match self.plan.layout {
            Layout::Wide => false,
            Layout::Long | Layout::Hb => true,
            Layout::Auto => self.looks_long(),
        };
        let time = self.take_time_and_labels(frame, missing)?;
        if is_long { self.long(frame, hit, time, out) } else { self.wide(frame, hit, time, out) }
    }

    /// The event time, if the frame has one; and the label values in their places.
    fn take_time_and_labels(&mut self, frame: &Frame<'_>, missing: MissingTime) -> Result<Option<i64>, String> {
        self.label_values.fill(None);
        let mut time = None;
        for seen in &self.seen {
            let field = self.fields.get(seen.field);
            if field.role == Role::Time && seen.value != Value::Null {
                let ns = event_time(seen.value, frame.bytes, self.plan.timestamp.format);
                time = Some(ns.map_err(|e| timestamp_error(&field.name(), seen.value, frame.bytes, e))?);
            }
            for &slot in &field.labels {
                self.label_values[usize::from(slot)] = Some(seen.value);
            }
        }
        Ok(time.or((missing == MissingTime::Received).then_some(frame.received_ns)))
    }

    /// Appends to `key` what distinguishes the labels of this frame.
    fn key_of_labels(&mut self, frame: &Frame<'_>, hit: Option<&Hit>) -> Result<(), String> {
        if hit.is_some() || !self.plan.origin_labels.is_empty() {
            push_part(&mut self.key, frame.origin.as_bytes());
        }
        for (slot, value) in self.label_values.iter().enumerate() {
            match *value {
                None | Some(Value::Null) => {
                    let label = &self.plan.field_labels[slot];
                    if label.required && label.default.is_none() {
                        return Err(format!("label `{}`: field `{}` is missing", label.name, label.field));
                    }
                    self.key.extend_from_slice(&u32::MAX.to_le_bytes());
                }
                Some(Value::Text(Text { span, escaped: false })) => push_part(&mut self.key, span.of(frame.bytes)),
                Some(value) => match label_text(value, frame.bytes) {
                    Some(text) => push_part(&mut self.key, text.as_bytes()),
                    None => return Err(format!("label `{}`: an array", self.plan.field_labels[slot].name)),
                },
            }
        }
        Ok(())
    }

    /// The labels of this frame by name; for a series that is new.
    fn labels(&self, frame: &Frame<'_>, hit: Option<&Hit>) -> Vec<(String, String)> {
        let mut labels = self.plan.fixed_labels.clone();
        labels.extend(self.plan.origin_labels.iter().map(|name| (name.clone(), frame.origin.to_owned())));
        for (label, value) in self.plan.field_labels.iter().zip(&self.label_values) {
            let value = value.and_then(|value| label_text(value, frame.bytes)).filter(|text| !text.is_empty());
            if let Some(value) = value.or_else(|| label.default.clone()) {
                labels.push((label.name.clone(), value));
            }
        }
        if let Some(hit) = hit {
            for (key, value) in &hit.labels {
                // The topic knows better than a field of the same label.
                labels.retain(|(known, _)| known != key);
                labels.push((key.clone(), value.clone()));
            }
        }
        labels
    }

    fn topic_hit(&mut self, origin: &str) -> Option<Rc<Hit>> {
        if self.plan.topics.is_empty() {
            return None;
        }
        if let Some(hit) = self.hits.get(origin.as_bytes()) {
            return hit.clone();
        }
        if self.hits.len() >= MAX_HITS {
            self.hits.clear();
        }
        let hit = self.plan.topics.find(origin).map(Rc::new);
        self.hits.insert(origin.as_bytes().into(), hit.clone());
        hit
    }
}

/// Asks the host for a series.
fn define(name: &str, unit: &str, kind: SeriesKind, labels: &[(String, String)]) -> Result<Series, String> {
    let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    hb_sdk::define(name, unit, kind, &labels).map_err(|e| format!("series `{}`: {e}", excerpt(name)))
}

/// Length first, so that no two lists of parts make the same key.
fn push_part(key: &mut Vec<u8>, part: &[u8]) {
    key.extend_from_slice(&(part.len() as u32).to_le_bytes());
    // In pieces of a fixed size: in a guest a call to copy so few costs more.
    let (words, rest) = part.as_chunks::<8>();
    for word in words {
        key.extend_from_slice(word);
    }
    for &byte in rest {
        key.push(byte);
    }
}

fn label_text(value: Value, bytes: &[u8]) -> Option<String> {
    match value {
        Value::Text(t) => Some(text(t, bytes).into_owned()),
        Value::Number(n) => Some(String::from_utf8_lossy(n.span.of(bytes)).into_owned()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Null => Some(String::new()),
        Value::Array => None,
    }
}

fn timestamp_error(field: &str, value: Value, bytes: &[u8], why: &str) -> String {
    let shown = label_text(value, bytes).unwrap_or_default();
    format!("timestamp: field `{field}`: `{}`: {why}", excerpt(&shown))
}

/// The payload as it is, without white space around it.
fn plain_text(frame: &Frame<'_>) -> Result<Value, String> {
    frame.text().map_err(|e| e.to_string())?;
    let start = frame.bytes.len() - frame.bytes.trim_ascii_start().len();
    let span = Span { start: start as u32, end: (start + frame.bytes.trim_ascii().len()) as u32 };
    Ok(Value::Text(Text { span, escaped: false }))
}

/// What a syntax error says to the operator.
fn not_json(error: crate::json::Syntax) -> String {
    format!("not JSON: {} at byte {}", error.what, error.offset)
}

impl Mapper {
    /// Finds all fields of an object; anything else comes back as a value.
    fn scan(&mut self, bytes: &[u8]) -> Result<Option<Value>, String> {
        let mut scanner = Scanner::new(bytes);
        scanner.skip_space();
        let top = if scanner.peek() == Some(b'{') {
            scanner.pos += 1;
            self.object(&mut scanner, 1).map_err(not_json)?;
            None
        } else {
            Some(scanner.flat_value(0).map_err(not_json)?)
        };
        scanner.end().map_err(not_json)?;
        if scanner.non_ascii
            && let Err(e) = std::str::from_utf8(bytes)
        {
            return Err(format!("not JSON: not UTF-8 at byte {}", e.valid_up_to()));
        }
        // The grammar has the first word: what is no JSON is said to be none, whatever else is wrong with it.
        self.pending.take().map_or(Ok(top), Err)
    }
}
