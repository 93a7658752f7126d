//! Finds fields in text by patterns: in a line that is no JSON, or in a field of an object.

use super::Mapper;
use crate::fields::Role;
use crate::json::{Span, Text, Value};
use crate::reading::{excerpt, text};
use crate::schema::{Unmapped, UnmappedText};
use hb_sdk::Frame;
use regex_lite::Regex;
use std::rc::Rc;

impl Mapper {
    /// The named groups of the first pattern that matches the line.
    pub(super) fn match_line(&mut self, frame: &Frame<'_>) -> Result<(), String> {
        let line = frame.text().map_err(|e| e.to_string())?;
        let patterns = Rc::clone(&self.plan.patterns.lines);
        if self.match_text(&patterns, line, 0) {
            self.pending.take().map_or(Ok(()), Err)
        } else {
            Err(format!("no pattern of sources.syslog matches `{}`", excerpt(line)))
        }
    }

    /// For each field that has patterns, the named groups of the first one that matches its text.
    ///
    /// Values are parts of the frame, but a text with escapes is not itself a part of it: then `longer` becomes the
    /// frame with such texts behind it, in which all values have their place.
    pub(super) fn match_fields(&mut self, frame: &Frame<'_>, longer: &mut Vec<u8>) -> Result<(), String> {
        let all = Rc::clone(&self.plan.patterns.fields);
        longer.clear();
        for one in all.iter() {
            let Some(Value::Text(found)) = self.value_of(one.field.as_bytes()) else { continue };
            let (start, end) = if found.escaped {
                if longer.is_empty() {
                    longer.extend_from_slice(frame.bytes);
                }
                let decoded = text(found, longer).into_owned();
                let start = longer.len();
                longer.extend_from_slice(decoded.as_bytes());
                (start, longer.len())
            } else {
                (found.span.start as usize, found.span.end as usize)
            };
            let bytes = if longer.is_empty() { frame.bytes } else { longer.as_slice() };
            let content = String::from_utf8_lossy(&bytes[start..end]);
            if !self.match_text(&one.patterns, &content, start) {
                self.check_unmatched(&one.field, &content)?;
            }
        }
        self.pending.take().map_or(Ok(()), Err)
    }

    /// Notes the named groups of the first pattern that matches, as parts of what begins at `start`.
    fn match_text(&mut self, patterns: &[Regex], text: &str, start: usize) -> bool {
        for pattern in patterns {
            let Some(captures) = pattern.captures(text) else { continue };
            for name in pattern.capture_names().flatten() {
                let Some(group) = captures.name(name) else { continue };
                let field = self.fields.intern(name.as_bytes(), &self.plan);
                let span = Span { start: (start + group.start()) as u32, end: (start + group.end()) as u32 };
                self.note(field, Value::Text(Text { span, escaped: false }));
            }
            return true;
        }
        false
    }

    /// A field that only patterns explain, and none of them does, is text without a mapping like any other.
    fn check_unmatched(&mut self, field: &str, content: &str) -> Result<(), String> {
        let id = self.fields.intern(field.as_bytes(), &self.plan);
        let is_refused = match self.plan.unmapped {
            Unmapped::Reject => true,
            Unmapped::Keep => self.plan.unmapped_text == UnmappedText::Reject,
            Unmapped::Ignore => false,
        };
        if is_refused && self.plan.events.is_none() && self.fields.get(id).role == Role::Known {
            return Err(format!("field `{field}`: no pattern of sources.syslog matches `{}`", excerpt(content)));
        }
        Ok(())
    }
}
