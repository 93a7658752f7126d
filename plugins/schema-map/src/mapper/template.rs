//! Frames that look like an earlier one are read by it: devices repeat themselves, and comparing what stands between
//! the values is much cheaper than parsing it again.
//!
//! A template is a frame with its values cut out. A frame that has the same bytes around values of the same kinds is
//! the same JSON with other values, so nothing else of it needs to be checked. Whatever does not fit, or means
//! something new, is left to the mapper, which reads the frame from its beginning: a template says what the mapper
//! would say, or nothing.

use super::Mapper;
use crate::clock::event_time;
use crate::fields::{Field, Role};
use crate::json::{Number, Scanner, Span, Text, Value, short_number};
use crate::plan::Plan;
use crate::schema::{Layout, MissingTime};
use crate::units::Convert;
use crate::words::{behind, plain_until};
use hb_sdk::{Frame, Out, SeriesKind};

/// Kinds of frames that are remembered; a device has few.
const MAX_TEMPLATES: usize = 4;

/// Values of one frame; one with more takes long in any case.
const MAX_SLOTS: usize = 256;

/// Bytes of a frame around its values.
const MAX_GLUE: usize = 16_384;

/// Of so many frames that no template fits one becomes a template.
const MISSES: u32 = 8;

/// The templates, and what a frame is read into.
#[derive(Default)]
pub(crate) struct Templates {
    list: Vec<Template>,
    /// The one that fitted last.
    newest: usize,
    misses: u32,
    /// The index of a series in its set, and the value, for each number of the frame.
    row: Vec<(usize, f64)>,
}

/// A frame with its values cut out.
#[derive(PartialEq)]
struct Template {
    slots: Vec<Slot>,
    /// What stands behind the last value.
    tail: Box<[u8]>,
}

/// A value's place.
#[derive(PartialEq)]
struct Slot {
    /// What stands before it, since the value before. Of a text the quotes belong to it.
    glue: Box<[u8]>,
    want: Want,
    is_text: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Want {
    Time,
    Label(u16),
    Number { index: usize, convert: Convert, counts: bool },
    Nothing,
}

impl Templates {
    /// Whether a frame that no template fits becomes one.
    fn wants_more(&mut self) -> bool {
        self.misses = (self.misses + 1) % MISSES;
        self.misses == 0
    }

    fn add(&mut self, template: Template) {
        if self.list.contains(&template) {
            // Its frame has labels that were new, or a value out of the ordinary.
        } else if self.list.len() < MAX_TEMPLATES {
            self.list.push(template);
        } else {
            // The one after the newest has waited as long as any, and all get their turn.
            self.newest = (self.newest + 1) % MAX_TEMPLATES;
            self.list[self.newest] = template;
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }
}

impl Mapper {
    /// Files a frame by a template; false when none fits, and nothing was done then.
    pub(super) fn repeats(&mut self, frame: &Frame<'_>, out: &mut Out) -> bool {
        let (newest, n) = (self.templates.newest, self.templates.list.len());
        for at in (newest..n).chain(0..newest) {
            if self.read_by(at, frame).and_then(|time| self.file_row(frame, time, out)).is_some() {
                self.templates.newest = at;
                return true;
            }
        }
        false
    }

    /// Makes a template of a frame that was just filed in the wide layout.
    pub(super) fn remember(&mut self, frame: &Frame<'_>) {
        if self.templates.wants_more()
            && let Some(template) = self.template_of(frame.bytes)
        {
            self.templates.add(template);
        }
    }

    fn template_of(&self, bytes: &[u8]) -> Option<Template> {
        if !is_simple(&self.plan) || self.seen.len() > MAX_SLOTS || bytes.len() > MAX_GLUE || self.looks_long() {
            return None;
        }
        let mut slots = Vec::with_capacity(self.seen.len());
        let mut from = 0;
        for seen in &self.seen {
            let (span, is_text) = match seen.value {
                Value::Text(text) => (text.span, true),
                Value::Number(number) => (number.span, false),
                _ => return None,
            };
            let want = Want::of(self.fields.get(seen.field), seen.field, is_text)?;
            slots.push(Slot { glue: bytes[from..span.start as usize].into(), want, is_text });
            from = span.end as usize;
        }
        let has = |wanted: fn(&Want) -> bool| slots.iter().any(|slot| wanted(&slot.want));
        let is_timed = has(|w| matches!(w, Want::Time)) || self.plan.timestamp.missing == MissingTime::Received;
        let is_row = is_timed && has(|w| matches!(w, Want::Number { .. }));
        is_row.then(|| Template { slots, tail: bytes[from..].into() })
    }

    /// Reads numbers and labels of a frame that fits a template; returns its time.
    fn read_by(&mut self, at: usize, frame: &Frame<'_>) -> Option<i64> {
        let Templates { list, row, .. } = &mut self.templates;
        let template = &list[at];
        row.clear();
        let bytes = frame.bytes;
        let mut time = frame.received_ns;
        let mut at = 0;
        self.label_values.fill(None);
        for slot in &template.slots {
            at = behind(bytes, at, &slot.glue)?;
            if slot.is_text
                && matches!(slot.want, Want::Time)
                && let Some((ns, end)) = self.clock.read(bytes, at)
            {
                (time, at) = (ns, end);
                continue;
            }
            if slot.is_text {
                // Where the text ends too early the next glue does not stand.
                let end = plain_until(bytes, at);
                let text = Value::Text(Text { span: Span { start: at as u32, end: end as u32 }, escaped: false });
                match slot.want {
                    Want::Label(place) => self.label_values[usize::from(place)] = Some(text),
                    Want::Time => {
                        time = event_time(text, bytes, self.plan.timestamp.format).ok()?;
                        self.clock.learn(&bytes[at..end], time);
                    }
                    Want::Number { .. } | Want::Nothing => {}
                }
                at = end;
                continue;
            }
            if let Want::Number { index, convert, counts } = slot.want {
                let x;
                (x, at) = number_at(bytes, at)?;
                let value = convert.apply(x);
                if !value.is_finite() || (counts && x < 0.0) {
                    return None;
                }
                row.push((index, value));
                continue;
            }
            let number;
            (number, at) = long_number(bytes, at)?;
            if matches!(slot.want, Want::Time) {
                time = event_time(Value::Number(number), bytes, self.plan.timestamp.format).ok()?;
            }
        }
        (behind(bytes, at, &template.tail)? == bytes.len()).then_some(time)
    }

    /// Files the numbers that were read, if all their series are known.
    fn file_row(&mut self, frame: &Frame<'_>, time: i64, out: &mut Out) -> Option<()> {
        self.key.clear();
        self.key_of_labels(frame, None).ok()?;
        let set = *self.sets.get(self.key.as_slice())?;
        let (ids, row) = (&self.set_ids[set as usize], &self.templates.row);
        let series = |index: usize| ids.get(index).copied().flatten();
        if row.iter().any(|(index, _)| series(*index).is_none()) {
            return None;
        }
        for &(index, value) in row {
            out.sample(series(index)?, time, value);
        }
        Some(())
    }
}

impl Want {
    /// What the mapper does with a value of this field, where that is the same for each value.
    fn of(field: &Field, id: u32, is_text: bool) -> Option<Want> {
        match (field.role, field.labels.as_slice()) {
            (Role::Time, []) => Some(Want::Time),
            (Role::Label, &[place]) if is_text => Some(Want::Label(place)),
            (Role::Ignored, []) => Some(Want::Nothing),
            (Role::Mapped | Role::Kept, []) if !is_text => {
                let metric = field.metric.as_ref()?;
                let counts = match metric.kind {
                    None | Some(SeriesKind::Gauge) => false,
                    Some(SeriesKind::Counter) => true,
                    Some(SeriesKind::Boolean | SeriesKind::State) => return None,
                };
                // The same as in the wide layout, for what is no truth.
                Some(Want::Number { index: id as usize * 2, convert: metric.convert, counts })
            }
            _ => None,
        }
    }
}

/// Whether objects become rows and nothing else, wherever they come from.
fn is_simple(plan: &Plan) -> bool {
    plan.is_plain && plan.topics.is_empty() && !matches!(plan.layout, Layout::Long | Layout::Hb)
}

/// The number at `at` and the place behind it.
#[inline]
fn number_at(bytes: &[u8], at: usize) -> Option<(f64, usize)> {
    if let Some(short) = short_number(bytes, at) {
        return Some(short);
    }
    let (number, end) = long_number(bytes, at)?;
    let x = number.to_f64(bytes);
    x.is_finite().then_some((x, end))
}

fn long_number(bytes: &[u8], at: usize) -> Option<(Number, usize)> {
    let mut scanner = Scanner { bytes, pos: at, non_ascii: false };
    let begins = matches!(scanner.peek(), Some(b'-' | b'0'..=b'9'));
    let number = if begins { scanner.number().ok()? } else { return None };
    Some((number, scanner.pos))
}
