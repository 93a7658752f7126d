//! The mapping file `telemetry_schema.yaml` as the author writes it; unknown keys are errors.

use serde::Deserialize;
use std::collections::BTreeMap;

/// The version of the file's layout.
const VERSION: u32 = 1;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Schema {
    pub(crate) version: u32,
    #[serde(default)]
    pub(crate) timestamp: Timestamp,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, LabelFrom>,
    #[serde(default)]
    pub(crate) layout: Layout,
    #[serde(default)]
    pub(crate) long: Long,
    #[serde(default)]
    pub(crate) field_mapping: BTreeMap<String, Target>,
    #[serde(default)]
    pub(crate) unmapped: Unmapped,
    #[serde(default)]
    pub(crate) unmapped_text: UnmappedText,
    #[serde(default)]
    pub(crate) events: Option<Events>,
    #[serde(default)]
    pub(crate) sources: Sources,
}

impl Schema {
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let schema: Self = serde_json::from_str(json).map_err(|e| e.to_string())?;
        if schema.version != VERSION {
            return Err(format!("version: {} is not known; known: {VERSION}", schema.version));
        }
        Ok(schema)
    }
}

/// Where the time of a frame stands.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timestamp {
    pub(crate) field: String,
    pub(crate) format: TimeFormat,
    pub(crate) missing: MissingTime,
}

impl Default for Timestamp {
    fn default() -> Self {
        Self { field: "timestamp".to_owned(), format: TimeFormat::default(), missing: MissingTime::default() }
    }
}

/// How a time is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TimeFormat {
    /// Text as RFC 3339 or naive; numbers as seconds, milli-, micro- or nanoseconds by their size.
    #[default]
    Auto,
    /// `2026-01-01T00:00:00Z`, with an offset.
    Rfc3339,
    /// `2014-03-07 03:41:00`, taken for UTC.
    Naive,
    UnixS,
    UnixMs,
    UnixUs,
    UnixNs,
}

/// What becomes of a frame without a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MissingTime {
    #[default]
    Reject,
    /// It happened when the host received it.
    Received,
}

/// Where the value of a label comes from: exactly one of `field`, `const` and `origin`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LabelFrom {
    pub(crate) field: Option<String>,
    #[serde(rename = "const")]
    pub(crate) constant: Option<String>,
    pub(crate) origin: bool,
    /// Used when the field is missing, null or empty; without it the label is left out.
    pub(crate) default: Option<String>,
    /// A frame without the field is rejected.
    pub(crate) required: bool,
}

/// How many readings a frame holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Layout {
    /// Long when the fields for metric and value are both there, else wide.
    #[default]
    Auto,
    /// Each field is a metric.
    Wide,
    /// One reading, with fields for metric, value and unit; the others are labels.
    Long,
    /// Long with the fields of hb's own export and no others.
    Hb,
}

/// Names of the fields of the long layout.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Long {
    pub(crate) metric: String,
    pub(crate) value: String,
    pub(crate) unit: String,
}

impl Default for Long {
    fn default() -> Self {
        Self { metric: "metric".to_owned(), value: "value".to_owned(), unit: "unit".to_owned() }
    }
}

/// What a vendor's name means.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) metric: String,
    #[serde(default)]
    pub(crate) unit: String,
    /// The unit of the incoming values; left out, the canonical one.
    #[serde(default)]
    pub(crate) from: Option<String>,
    #[serde(default)]
    pub(crate) kind: Option<Kind>,
}

/// What the values of a series mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Gauge,
    Counter,
    Boolean,
    State,
}

/// What becomes of a field without a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unmapped {
    /// It is a metric of its own name, without a unit.
    #[default]
    Keep,
    Ignore,
    /// The frame is rejected.
    Reject,
}

/// What becomes of text and arrays in a field that is kept without a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UnmappedText {
    /// The frame is rejected, so that nothing is lost unseen.
    #[default]
    Reject,
    Ignore,
}

/// The event that each object is, beside the readings in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Events {
    /// By convention dotted lower case, such as `syslog.message`.
    pub(crate) kind: String,
    /// `whole`, or the name of the field whose text is the body.
    #[serde(default)]
    pub(crate) body: Option<String>,
    /// Fields that become attributes of the same name.
    #[serde(default)]
    pub(crate) attributes: Vec<String>,
}

/// Payloads that need more than field names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sources {
    pub(crate) mqtt: Mqtt,
    pub(crate) syslog: Syslog,
}

/// Meaning by topic.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Mqtt {
    pub(crate) topic_map: BTreeMap<String, Topic>,
}

/// What a topic means. With a metric its payload is a bare value, or an object of a value and a time; without one it
/// only adds labels.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Topic {
    #[serde(default)]
    pub(crate) metric: Option<String>,
    #[serde(default)]
    pub(crate) unit: String,
    #[serde(default)]
    pub(crate) from: Option<String>,
    #[serde(default)]
    pub(crate) kind: Option<Kind>,
    /// `$1` is what the first wildcard matched, and so on.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
}

/// Meaning of lines of text.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Syslog {
    pub(crate) patterns: Vec<Pattern>,
}

/// A regular expression whose named groups become fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pattern {
    #[serde(rename = "match")]
    pub(crate) regex: String,
    /// The field of an object that it reads; left out, it reads lines that are no JSON.
    #[serde(default)]
    pub(crate) field: Option<String>,
}
