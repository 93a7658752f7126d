//! jsonl writes documents and points as JSON Lines to the output that the host granted: its stdout, or a file.

use hb_sdk::{Delivery, Document, Fault, Point, Points, SeriesKind, Sink, time, write_output};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// When the output could not be written (disk full, pipe closed), the world needs this long at least.
const RETRY_MS: u32 = 1_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Envelope,
    Bare,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    format: Format,
}

/// Writes JSON Lines.
pub struct Jsonl {
    format: Format,
}

impl Sink for Jsonl {
    fn configure(settings: &str) -> Result<Self, Fault> {
        let settings: Settings = serde_json::from_str(settings).map_err(|e| Fault::BadSettings(e.to_string()))?;
        Ok(Self { format: settings.format })
    }

    fn deliver(
        &mut self,
        _batch_id: u64,
        documents: &[Document],
        points: &Points<'_>,
        out: &mut Delivery,
    ) -> Result<(), Fault> {
        let mut lines = Vec::new();
        for document in documents {
            self.document(document, &mut lines).map_err(|e| Fault::Fatal(e.to_string()))?;
        }
        for point in points.iter() {
            self.point(&point, &mut lines).map_err(|e| Fault::Fatal(e.to_string()))?;
        }
        // All lines in one write, so that a failure leaves none behind.
        match write_output(&lines) {
            Ok(()) => out.all_delivered(),
            Err(reason) => out.retry_all(RETRY_MS, &reason),
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct PointLine<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    line_type: Option<&'static str>,
    timestamp: String,
    metric: &'a str,
    value: f64,
    unit: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<&'a str, &'a str>>,
    #[serde(flatten)]
    flat_labels: BTreeMap<Cow<'a, str>, &'a str>,
}

/// Fields of a bare point; a label of one of these names is written as `label_<name>`, so that none hides the other.
const TAKEN: [&str; 4] = ["timestamp", "metric", "value", "unit"];

impl Jsonl {
    fn document(&self, document: &Document, lines: &mut Vec<u8>) -> serde_json::Result<()> {
        if self.format == Format::Envelope {
            lines.extend_from_slice(b"{\"type\":\"document\",\"id\":");
            serde_json::to_writer(&mut *lines, &document.id)?;
            lines.extend_from_slice(b",\"kind\":");
            serde_json::to_writer(&mut *lines, &document.kind)?;
            lines.extend_from_slice(b",\"document\":");
        }
        // Outside of strings a line break is white space, and inside it cannot stand.
        lines.extend(document.json.iter().map(|&b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }));
        lines.extend_from_slice(if self.format == Format::Envelope { b"}\n" } else { b"\n" });
        Ok(())
    }

    fn point(&self, point: &Point<'_>, lines: &mut Vec<u8>) -> serde_json::Result<()> {
        let labels = || point.series.labels.iter().map(|a| (a.key.as_str(), a.value.as_str()));
        let envelope = self.format == Format::Envelope;
        let line = PointLine {
            line_type: envelope.then_some("point"),
            timestamp: time::format_rfc3339(point.time_ns),
            metric: &point.series.metric,
            value: point.value,
            unit: &point.series.unit,
            kind: envelope.then_some(kind_name(point.series.kind)),
            labels: envelope.then(|| labels().collect()),
            flat_labels: if envelope {
                BTreeMap::new()
            } else {
                labels().map(|(key, value)| (flat_name(key), value)).collect()
            },
        };
        serde_json::to_writer(&mut *lines, &line)?;
        lines.push(b'\n');
        Ok(())
    }
}

fn flat_name(label: &str) -> Cow<'_, str> {
    if TAKEN.contains(&label) { Cow::Owned(format!("label_{label}")) } else { Cow::Borrowed(label) }
}

fn kind_name(kind: SeriesKind) -> &'static str {
    match kind {
        SeriesKind::Gauge => "gauge",
        SeriesKind::Counter => "counter",
        SeriesKind::Boolean => "boolean",
        SeriesKind::State => "state",
    }
}

hb_sdk::export_sink!(Jsonl);

#[cfg(test)]
mod tests {
    use super::*;
    use hb_sdk::testkit::{SinkKit, host};
    use hb_sdk::{Attribute, SeriesDef};

    fn deliver(settings: &str) -> String {
        host::reset();
        let labels = vec![Attribute { key: "asset".into(), value: "m\"1".into() }];
        let def = SeriesDef { id: 7, metric: "power".into(), unit: "kW".into(), kind: SeriesKind::Gauge, labels };
        let mut kit = SinkKit::<Jsonl>::new(settings).unwrap();
        let alert = ("a-1", "alert", "{\"v\":1,\n\"text\":\"hot\"}");
        let answer = kit.deliver(&[alert], &[def], &[(7, 1_767_225_600_000_000_000, 1.5)]).unwrap();
        assert!(format!("{answer:?}").matches("Delivered").count() == 2, "{answer:?}");
        String::from_utf8(host::take_output()).unwrap()
    }

    #[test]
    fn an_envelope_says_what_each_line_is() {
        assert_eq!(
            deliver("{}"),
            "{\"type\":\"document\",\"id\":\"a-1\",\"kind\":\"alert\",\"document\":{\"v\":1, \"text\":\"hot\"}}\n\
             {\"type\":\"point\",\"timestamp\":\"2026-01-01T00:00:00.000000000Z\",\"metric\":\"power\",\"value\":1.5,\
             \"unit\":\"kW\",\"kind\":\"gauge\",\"labels\":{\"asset\":\"m\\\"1\"}}\n"
        );
    }

    #[test]
    fn bare_points_are_in_the_long_layout() {
        assert_eq!(
            deliver(r#"{"format":"bare"}"#),
            "{\"v\":1, \"text\":\"hot\"}\n\
             {\"timestamp\":\"2026-01-01T00:00:00.000000000Z\",\"metric\":\"power\",\"value\":1.5,\"unit\":\"kW\",\
             \"asset\":\"m\\\"1\"}\n"
        );
    }

    #[test]
    fn a_label_hides_no_field_of_a_bare_point() {
        assert_eq!(flat_name("value"), "label_value");
        assert_eq!(flat_name("asset"), "asset");
    }

    #[test]
    fn a_failed_write_delivers_nothing() {
        host::reset();
        host::set_output_error(Some("disk full"));
        let mut kit = SinkKit::<Jsonl>::new("{}").unwrap();
        let answer = kit.deliver(&[("a", "alert", "{}"), ("b", "alert", "{}")], &[], &[]).unwrap();
        assert_eq!(format!("{answer:?}").matches("disk full").count(), 3, "{answer:?}");
        assert!(host::take_output().is_empty());
    }

    #[test]
    fn unknown_settings_are_refused() {
        assert!(matches!(SinkKit::<Jsonl>::new(r#"{"fmt":1}"#).map(|_| ()), Err(Fault::BadSettings(_))));
    }
}
