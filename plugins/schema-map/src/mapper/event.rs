//! Events: an object as a record of its own, beside the readings in it.

use super::{Mapper, label_text};
use crate::json::Value;
use crate::plan::Body;
use crate::schema::Layout;
use crate::topics::Hit;
use hb_sdk::{Frame, Out};
use std::borrow::Cow;

/// Bytes of an attribute's value that the contract allows.
const MAX_VALUE: usize = 1_024;

impl Mapper {
    /// Files the fields of an object, those that patterns find in them, and the event that it is.
    #[inline(never)] // Apart from the path that most frames take.
    pub(super) fn rich_object(&mut self, frame: &Frame<'_>, hit: Option<&Hit>, out: &mut Out) -> Result<(), String> {
        let mut longer = std::mem::take(&mut self.longer);
        let answer = self.match_fields(frame, &mut longer).and_then(|()| {
            let bytes = if longer.is_empty() { frame.bytes } else { &longer };
            self.rich_fields(&Frame { bytes, ..*frame }, frame.bytes, hit, out)
        });
        self.is_event = false;
        self.longer = longer;
        answer
    }

    fn rich_fields(
        &mut self,
        frame: &Frame<'_>,
        object: &[u8],
        hit: Option<&Hit>,
        out: &mut Out,
    ) -> Result<(), String> {
        let missing = self.plan.timestamp.missing;
        if self.plan.events.is_none() {
            return self.file(frame, hit, missing, out);
        }
        self.is_event = true;
        // An event need not be a reading too.
        let is_row = !matches!(self.plan.layout, Layout::Long | Layout::Hb) || self.looks_long();
        if is_row {
            self.file(frame, hit, missing, out)?;
        }
        // Reading the time once more is cheaper than having every frame without events hand it out.
        let time = self.take_time_and_labels(frame, missing)?;
        self.event(frame, object, time, out)
    }

    /// The event of an object, if the schema asks for one. `object` is the frame as it came; the places of values are
    /// those in `frame`.
    pub(super) fn event(
        &self,
        frame: &Frame<'_>,
        object: &[u8],
        time: Option<i64>,
        out: &mut Out,
    ) -> Result<(), String> {
        let Some(events) = &self.plan.events else { return Ok(()) };
        let Some(time) = time else {
            return Err(format!("timestamp: field `{}` is missing", self.plan.timestamp.field));
        };
        let body = match &events.body {
            Body::Whole => Cow::Borrowed(object.trim_ascii()),
            Body::Field(name) => {
                let text = label_text(self.value_of(name.as_bytes()).unwrap_or(Value::Null), frame.bytes);
                let text = text.ok_or_else(|| format!("events.body: field `{name}`: an array is no text"))?;
                Cow::Owned(text.into_bytes())
            }
        };
        let mut attributes: Vec<(&str, String)> = Vec::with_capacity(events.attributes.len());
        for name in &events.attributes {
            let value = self.value_of(name.as_bytes()).and_then(|value| label_text(value, frame.bytes));
            let Some(mut value) = value.filter(|value| !value.is_empty()) else { continue };
            value.truncate(value.floor_char_boundary(MAX_VALUE));
            attributes.push((name, value));
        }
        let attributes: Vec<(&str, &str)> = attributes.iter().map(|(name, value)| (*name, value.as_str())).collect();
        out.event(&events.kind, time, &body, &attributes);
        Ok(())
    }

    /// The value of a field of this frame, by its name.
    pub(super) fn value_of(&self, name: &[u8]) -> Option<Value> {
        self.seen.iter().find(|seen| *self.fields.get(seen.field).name == *name).map(|seen| seen.value)
    }
}
