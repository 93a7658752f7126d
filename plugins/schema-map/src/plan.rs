//! The schema made ready: every unit pair resolved, every pattern compiled, every mistake found.

use crate::patterns::Patterns;
use crate::schema::{Events, Kind, LabelFrom, Layout, Long, Schema, Target, Timestamp, Unmapped, UnmappedText};
use crate::topics::Topics;
use crate::units::Convert;
use hb_sdk::SeriesKind;
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

/// What an event is made of.
pub(crate) struct EventParts {
    pub(crate) kind: String,
    pub(crate) body: Body,
    /// Names of fields.
    pub(crate) attributes: Vec<String>,
}

/// The body of an event.
pub(crate) enum Body {
    /// The object as it came.
    Whole,
    /// The text of a field.
    Field(String),
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
    pub(crate) patterns: Patterns,
    pub(crate) events: Option<EventParts>,
    /// Objects are neither events nor read by patterns.
    pub(crate) is_plain: bool,
}

/// Attributes of an event; searchable facts are few.
const MAX_ATTRIBUTES: usize = 64;

/// Bytes of an attribute's key that the contract allows.
const MAX_KEY: usize = 128;

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
            patterns: Patterns::compile(&schema.sources.syslog.patterns)?,
            events: schema.events.map(event_parts).transpose()?,
            is_plain: false,
        };
        plan.is_plain = plan.events.is_none() && plan.patterns.fields.is_empty();
        for (name, from) in schema.labels {
            plan.label(name, from)?;
        }
        Ok(plan)
    }

    /// Whether events or patterns have a use for the field.
    pub(crate) fn is_known(&self, field: &[u8]) -> bool {
        let is = |name: &str| name.as_bytes() == field;
        let in_event = self.events.as_ref().is_some_and(|events| {
            matches!(&events.body, Body::Field(name) if is(name)) || events.attributes.iter().any(|name| is(name))
        });
        in_event || self.patterns.fields.iter().any(|one| is(&one.field))
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

fn event_parts(events: Events) -> Result<EventParts, String> {
    let Events { kind, body, attributes } = events;
    if kind.is_empty() {
        return Err("events.kind: an event needs a kind such as syslog.message".to_owned());
    }
    let body = match body {
        None => Body::Whole,
        Some(body) if body == "whole" => Body::Whole,
        Some(field) if field.is_empty() => return Err("events.body: `whole` or the name of a field".to_owned()),
        Some(field) => Body::Field(field),
    };
    if attributes.len() > MAX_ATTRIBUTES {
        return Err(format!("events.attributes: {} fields; at most {MAX_ATTRIBUTES}", attributes.len()));
    }
    for (i, name) in attributes.iter().enumerate() {
        if name.is_empty() || name.len() > MAX_KEY {
            return Err(format!("events.attributes[{i}]: a name has 1 to {MAX_KEY} bytes"));
        }
        if attributes[..i].contains(name) {
            return Err(format!("events.attributes[{i}]: `{name}` is there twice"));
        }
    }
    Ok(EventParts { kind, body, attributes })
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
