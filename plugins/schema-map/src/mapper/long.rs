//! The long layout: one reading per frame, which names its own metric and unit.

use super::{Entry, Mapper, define, push_part};
use crate::fields::{LongPart, kept};
use crate::hb_labels;
use crate::json::{Text, Value};
use crate::reading::{Reading, excerpt, is_boolean, read, text};
use crate::schema::{Layout, Unmapped};
use crate::topics::Hit;
use crate::units::Convert;
use hb_sdk::{Frame, Out, SeriesKind};

/// The parts of a row.
struct Row {
    metric: Text,
    unit: Option<Text>,
    value: Value,
}

impl Mapper {
    /// Whether there are both a metric's name and a value.
    pub(super) fn looks_long(&self) -> bool {
        let has = |part: LongPart, text: bool| {
            let fits = |v: Value| !text || matches!(v, Value::Text(_));
            self.seen.iter().any(|s| self.fields.get(s.field).long == part && fits(s.value))
        };
        has(LongPart::Metric, true) && has(LongPart::Value, false)
    }

    pub(super) fn long(
        &mut self,
        frame: &Frame<'_>,
        hit: Option<&Hit>,
        time: Option<i64>,
        out: &mut Out,
    ) -> Result<(), String> {
        let row = self.row()?;
        let boolean = is_boolean(row.value, frame.bytes);
        self.key.clear();
        self.key.extend_from_slice(&[b'L', u8::from(boolean)]);
        push_part(&mut self.key, row.metric.span.of(frame.bytes));
        push_part(&mut self.key, row.unit.map_or(&[][..], |unit| unit.span.of(frame.bytes)));
        self.key_of_labels(frame, hit)?;
        self.key_of_other_fields(frame)?;
        let entry = match self.entries.get(self.key.as_slice()) {
            Some(entry) => *entry,
            None => {
                if let Some(entry) = self.new_long_entry(frame, hit, &row, boolean)? {
                    entry
                } else {
                    out.ignore();
                    return Ok(());
                }
            }
        };
        let name = || excerpt(&text(row.metric, frame.bytes));
        let Some(time) = time else {
            return Err(format!("timestamp: field `{}` is missing", self.plan.timestamp.field));
        };
        let value = match read(row.value, entry.kind, frame.bytes) {
            Ok(Reading::Nothing) => {
                out.ignore();
                return Ok(());
            }
            // Nobody promised a number, and the event has it all.
            Ok(Reading::NoNumber(_)) | Err(_)
                if self.is_event && !self.plan.mapping.contains_key(&*text(row.metric, frame.bytes)) =>
            {
                return Ok(());
            }
            Ok(Reading::NoNumber(why)) | Err(why) => return Err(format!("metric `{}`: {why}", name())),
            Ok(Reading::State(state)) => self.codes.code(entry.series, &state)?,
            Ok(Reading::Number(x)) if boolean => x,
            Ok(Reading::Number(x)) => entry.convert.apply(x),
        };
        if !value.is_finite() {
            return Err(format!("metric `{}`: the converted value is too large", name()));
        }
        out.sample(entry.series, time, value);
        Ok(())
    }

    fn row(&self) -> Result<Row, String> {
        let find = |part: LongPart| self.seen.iter().find(|s| self.fields.get(s.field).long == part).map(|s| s.value);
        let long = &self.plan.long;
        let metric = match find(LongPart::Metric) {
            Some(Value::Text(name)) if name.span.start < name.span.end => name,
            Some(_) => return Err(format!("field `{}` is not a name", long.metric)),
            None => return Err(format!("field `{}` is missing", long.metric)),
        };
        let unit = match find(LongPart::Unit) {
            Some(Value::Text(unit)) => Some(unit),
            None | Some(Value::Null) => None,
            Some(_) => return Err(format!("field `{}` is not text", long.unit)),
        };
        let value = find(LongPart::Value).ok_or_else(|| format!("field `{}` is missing", long.value))?;
        Ok(Row { metric, unit, value })
    }

    /// Fields that are neither part of the row nor known as labels are labels of their own name.
    fn key_of_other_fields(&mut self, frame: &Frame<'_>) -> Result<(), String> {
        for seen in &self.seen {
            let field = self.fields.get(seen.field);
            let is_part = !matches!(field.long, LongPart::Other | LongPart::Labels);
            if is_part || field.is_no_label() {
                continue;
            }
            let strict = self.plan.layout == Layout::Hb || self.plan.unmapped == Unmapped::Reject;
            if strict && field.long == LongPart::Other {
                return Err(format!("field `{}` has no place in this layout", field.name()));
            }
            if self.plan.unmapped == Unmapped::Ignore && field.long == LongPart::Other {
                continue;
            }
            self.key.extend_from_slice(&seen.field.to_le_bytes());
            match super::label_text(seen.value, frame.bytes) {
                Some(text) => push_part(&mut self.key, text.as_bytes()),
                None => return Err(format!("field `{}`: an array is no label", field.name())),
            }
        }
        Ok(())
    }

    /// Defines the series of a row that is new; none when its metric is to be ignored.
    fn new_long_entry(
        &mut self,
        frame: &Frame<'_>,
        hit: Option<&Hit>,
        row: &Row,
        boolean: bool,
    ) -> Result<Option<Entry>, String> {
        let name = text(row.metric, frame.bytes);
        let unit = row.unit.map(|unit| text(unit, frame.bytes)).unwrap_or_default();
        let unit = unit.trim();
        let metric = match (self.plan.mapping.get(name.as_ref()), self.plan.unmapped) {
            (Some(mapped), _) => {
                let mut metric = mapped.clone();
                // The row's own unit says more than the schema's guess.
                if !unit.is_empty() && !matches!(metric.kind, Some(SeriesKind::Boolean | SeriesKind::State)) {
                    metric.convert = Convert::between(unit, &metric.unit)
                        .map_err(|e| format!("metric `{}`: {e}", excerpt(&name)))?;
                }
                metric
            }
            (None, Unmapped::Keep) => kept(name.clone().into_owned(), unit),
            (None, Unmapped::Ignore) if self.plan.layout == Layout::Hb => kept(name.clone().into_owned(), unit),
            (None, Unmapped::Ignore) => return Ok(None),
            (None, Unmapped::Reject) => return Err(format!("metric `{}` has no mapping", excerpt(&name))),
        };
        let mut labels = self.labels(frame, hit);
        for (key, value) in self.other_labels(frame)? {
            if labels.iter().any(|(known, _)| *known == key) {
                continue;
            }
            labels.push((key, value));
        }
        let kind = metric.kind.unwrap_or(if boolean { SeriesKind::Boolean } else { SeriesKind::Gauge });
        let series = define(&metric.name, &metric.unit, kind, &labels)?;
        let entry = Entry { series, kind: metric.kind, convert: metric.convert };
        self.entries.insert(self.key.as_slice().into(), entry);
        Ok(Some(entry))
    }

    fn other_labels(&self, frame: &Frame<'_>) -> Result<Vec<(String, String)>, String> {
        let mut labels = Vec::new();
        for seen in &self.seen {
            let field = self.fields.get(seen.field);
            if field.is_no_label() {
                continue;
            }
            let value = super::label_text(seen.value, frame.bytes).unwrap_or_default();
            match field.long {
                LongPart::Labels if self.plan.layout == Layout::Hb || value.contains('=') => {
                    labels.extend(hb_labels::parse(&value)?);
                }
                LongPart::Other if self.plan.unmapped == Unmapped::Ignore => {}
                LongPart::Labels | LongPart::Other if !value.is_empty() => {
                    let name = field.name();
                    // An object `labels` holds labels; its own name says nothing.
                    labels.push((name.strip_prefix("labels.").unwrap_or(&name).to_owned(), value));
                }
                _ => {}
            }
        }
        Ok(labels)
    }
}
