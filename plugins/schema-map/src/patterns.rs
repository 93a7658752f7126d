//! Patterns that find fields in text: in lines that are no JSON, or in a field of an object.

use crate::schema::Pattern;
use regex_lite::{Regex, RegexBuilder};
use std::rc::Rc;

/// All patterns, each list in the order in which it is tried. Shared, so that a mapper can change while it reads them.
pub(crate) struct Patterns {
    /// For frames that are no JSON object.
    pub(crate) lines: Rc<[Regex]>,
    /// For fields of frames that are.
    pub(crate) fields: Rc<[FieldPatterns]>,
}

/// The patterns of one field.
pub(crate) struct FieldPatterns {
    pub(crate) field: String,
    pub(crate) patterns: Vec<Regex>,
}

/// Bytes that one compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 1 << 20;

impl Patterns {
    pub(crate) fn compile(patterns: &[Pattern]) -> Result<Self, String> {
        let mut lines = Vec::new();
        let mut fields: Vec<FieldPatterns> = Vec::new();
        for (i, pattern) in patterns.iter().enumerate() {
            let place = format!("sources.syslog.patterns[{i}]");
            let regex = RegexBuilder::new(&pattern.regex).size_limit(MAX_PATTERN_BYTES).build();
            let regex = regex.map_err(|e| format!("{place}.match: {e}"))?;
            if regex.capture_names().flatten().next().is_none() {
                return Err(format!("{place}.match: needs a named group such as (?<temperature>[0-9.]+)"));
            }
            match pattern.field.as_deref() {
                None => lines.push(regex),
                Some("") => return Err(format!("{place}.field: a field needs a name")),
                Some(field) => match fields.iter_mut().find(|known| known.field == field) {
                    Some(known) => known.patterns.push(regex),
                    None => fields.push(FieldPatterns { field: field.to_owned(), patterns: vec![regex] }),
                },
            }
        }
        Ok(Self { lines: lines.into(), fields: fields.into() })
    }
}
