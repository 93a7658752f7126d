//! The schema made ready: every unit pair resolved, every pattern compiled, every mistake found.

use crate::schema::{Kind, LabelFrom, Layout, Long, Schema, Target, Timestamp, Unmapped, UnmappedText};
use crate::topics::Topics;
use crate::units::Convert;
use hb_sdk::SeriesKind;
use regex_lite::Regex;
use std::collections::BTreeMap;

/// What a field's values become.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) kind: Option<SeriesKind>,
    pub(crate) convert: Convert,
}

/// A label whose value differs from frame to frame.
#[derive(Clone, Debug)]
pub(crate) struct FieldLabel {
    pub(crate) name: String,
    pub(crate) field: String,
    pub(crate) default: Option<String>,
    pub(crate) required: bool,
}

/// What a normalizer does with each frame.
pub(crate) struct Plan {
    pub(crate) timestamp: Timestamp,
    pub(crate) layout: Layout,
    pub(crate) long: Long,
    /// The same for every frame.
    pub(crate) fixed_labels: Vec<(String, String)>,
    /// Labels that take the frame's origin.
    pub(crate) origin_labels: Vec<String>,
    pub(crate) field_labels: Vec<FieldLabel>,
    pub(crate) mapping: BTreeMap<String, Metric>,
    pub(crate) unmapped: Unmapped,
    pub(crate) unmapped_text: UnmappedText,
    pub(crate) topics: Topics,
    pub(crate) patterns: Vec<Regex>,
}

/// Bytes that one compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 1 << 20;

impl Plan {
    pub(crate) fn compile(schema: Schema) -> Result<Self, String> {
        let mut mapping = BTreeMap::new();
        for (field, Target { metric: name, unit, from, kind }) in &schema.field_mapping {
            let place = format!("field_mapping.{field}");
            mapping.insert(field.clone(), metric(&place, name, unit, from.as_deref(), *kind)?);
        }
        let mut plan = Self {
            timestamp: schema.timestamp,
            layout: schema.layout,
            long: if schema.layout == Layout::Hb { Long::default() } else { schema.long },
            fixed_labels: vec![],
            origin_labels: vec![],
            field_labels: vec![],
            mapping,
            unmapped: schema.unmapped,
            unmapped_text: schema.unmapped_text,
            topics: Topics::compile(&schema.sources.mqtt.topic_map)?,
            patterns: vec![],
        };
        for (name, from) in schema.labels {
            plan.label(name, from)?;
        }
        for (i, pattern) in schema.sources.syslog.patterns.iter().enumerate() {
            let place = format!("sources.syslog.patterns[{i}].match");
            let regex = regex_lite::RegexBuilder::new(&pattern.regex).size_limit(MAX_PATTERN_BYTES).build();
            let regex = regex.map_err(|e| format!("{place}: {e}"))?;
            if regex.capture_names().flatten().next().is_none() {
                return Err(format!("{place}: needs a named group such as (?<temperature>[0-9.]+)"));
            }
            plan.patterns.push(regex);
        }
        Ok(plan)
    }

    fn label(&mut self, name: String, from: LabelFrom) -> Result<(), String> {
        match from {
            LabelFrom { field: Some(field), constant: None, origin: false, default, required } => {
                self.field_labels.push(FieldLabel { name, field, default, required });
            }
            LabelFrom { field: None, constant: Some(value), origin: false, default: None, required: false } => {
                self.fixed_labels.push((name, value));
            }
            LabelFrom { field: None, constant: None, origin: true, default: None, required: false } => {
                self.origin_labels.push(name);
            }
            _ => {
                return Err(format!(
                    "labels.{name}: exactly one of `field: NAME`, `const: TEXT` and `origin: true`; \
                     `default` and `required` go with `field`"
                ));
            }
        }
        Ok(())
    }
}

/// Resolves what a field or topic is mapped to; `place` is where the schema says so.
pub(crate) fn metric(
    place: &str,
    name: &str,
    unit: &str,
    from: Option<&str>,
    kind: Option<Kind>,
) -> Result<Metric, String> {
    if name.is_empty() {
        return Err(format!("{place}.metric: a metric needs a name"));
    }
    let kind = kind.map(|kind| match kind {
        Kind::Gauge => SeriesKind::Gauge,
        Kind::Counter => SeriesKind::Counter,
        Kind::Boolean => SeriesKind::Boolean,
        Kind::State => SeriesKind::State,
    });
    let convert = match from {
        None => Convert::IDENTITY,
        Some(_) if matches!(kind, Some(SeriesKind::Boolean | SeriesKind::State)) => {
            return Err(format!("{place}.from: a boolean or a state has no unit to convert from"));
        }
        Some(from) => Convert::between(from, unit).map_err(|e| format!("{place}.from: {e}"))?,
    };
    Ok(Metric { name: name.to_owned(), unit: unit.to_owned(), kind, convert })
}
