//! Payloads that only their topic explains: a bare value, or an object of a value and a time.

use super::{Entry, Mapper, define};
use crate::clock::event_time;
use crate::json::Value;
use crate::reading::{Reading, excerpt, is_boolean, read};
use crate::schema::MissingTime;
use crate::topics::Hit;
use hb_sdk::{Frame, Out, SeriesKind};

impl Mapper {
    /// `{"value": 21.5, "ts": ...}`.
    pub(super) fn topic_object(&mut self, frame: &Frame<'_>, hit: Option<&Hit>, out: &mut Out) -> Result<(), String> {
        let mut time = self.take_time_and_labels(frame, MissingTime::Reject)?;
        if time.is_none()
            && let Some(value) = self.value_of(b"ts").filter(|value| *value != Value::Null)
        {
            let ns = event_time(value, frame.bytes, self.plan.timestamp.format);
            time = Some(ns.map_err(|e| super::timestamp_error("ts", value, frame.bytes, e))?);
        }
        let value = self.value_of(b"value");
        if value.is_some() || self.plan.events.is_none() {
            self.topic_value_with_labels(frame, hit, value, time, out)?;
        }
        self.event(frame, frame.bytes, time.or(Some(frame.received_ns)), out)
    }

    /// A value that stands alone.
    pub(super) fn topic_value(
        &mut self,
        frame: &Frame<'_>,
        hit: Option<&Hit>,
        value: Option<Value>,
        time: Option<i64>,
        out: &mut Out,
    ) -> Result<(), String> {
        self.label_values.fill(None);
        self.topic_value_with_labels(frame, hit, value, time, out)
    }

    fn topic_value_with_labels(
        &mut self,
        frame: &Frame<'_>,
        hit: Option<&Hit>,
        value: Option<Value>,
        time: Option<i64>,
        out: &mut Out,
    ) -> Result<(), String> {
        let topic = || excerpt(frame.origin);
        let value = value.ok_or_else(|| format!("topic `{}`: an object without the field `value`", topic()))?;
        let boolean = is_boolean(value, frame.bytes);
        self.key.clear();
        self.key.extend_from_slice(&[b'T', u8::from(boolean)]);
        self.key_of_labels(frame, hit)?;
        let entry = if let Some(entry) = self.entries.get(self.key.as_slice()) {
            *entry
        } else {
            let metric = hit.and_then(|hit| self.plan.topics.metric(hit));
            let metric = metric.ok_or_else(|| format!("topic `{}` has no metric", topic()))?;
            let kind = metric.kind.unwrap_or(if boolean { SeriesKind::Boolean } else { SeriesKind::Gauge });
            let series = define(&metric.name, &metric.unit, kind, &self.labels(frame, hit))?;
            let entry = Entry { series, kind: metric.kind, convert: metric.convert };
            self.entries.insert(self.key.as_slice().into(), entry);
            entry
        };
        let reading = read(value, entry.kind, frame.bytes).map_err(|e| format!("topic `{}`: {e}", topic()))?;
        let value = match reading {
            Reading::Nothing => {
                out.ignore();
                return Ok(());
            }
            Reading::NoNumber(why) => return Err(format!("topic `{}`: {why}", topic())),
            Reading::State(state) => self.codes.code(entry.series, &state)?,
            Reading::Number(x) if boolean => x,
            Reading::Number(x) => entry.convert.apply(x),
        };
        if !value.is_finite() {
            return Err(format!("topic `{}`: the converted value is too large", topic()));
        }
        out.sample(entry.series, time.unwrap_or(frame.received_ns), value);
        Ok(())
    }
}
