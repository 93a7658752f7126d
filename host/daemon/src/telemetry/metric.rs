//! What a metric is, and how metrics are written: as OpenMetrics, or as the older text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::table::{Id, METRICS};

/// One line of the table of metrics.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// What it measures.
    pub id: Id,
    /// How it moves.
    pub kind: Kind,
    /// Its name, as it is asked for.
    pub name: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means, as a sentence.
    pub help: &'static str,
}

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
    /// Always 1; its labels are what it says.
    Info,
}

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4.
    Prometheus,
}

impl Format {
    /// What stands in the header of an answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The value of one row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Count(u64),
    Number(f64),
    Buckets {
        /// Seconds altogether.
        sum: f64,
        /// Upper bounds, and how many fell between the bound before and this one. The last bound is infinite.
        counts: Vec<(f64, u64)>,
    },
}

/// What the metrics were at one moment: the values of the labels, and the value.
#[derive(Debug, Default)]
pub(super) struct Scrape(BTreeMap<Id, Vec<(Vec<String>, Value)>>);

impl Scrape {
    /// Adds a row; it has as many labels as the table says.
    pub(super) fn add(&mut self, id: Id, labels: &[&str], value: Value) {
        let labels = labels.iter().map(|&l| l.to_owned()).collect();
        self.0.entry(id).or_default().push((labels, value));
    }

    pub(super) fn count(&mut self, id: Id, labels: &[&str], n: u64) {
        self.add(id, labels, Value::Count(n));
    }

    pub(super) fn number(&mut self, id: Id, labels: &[&str], n: f64) {
        self.add(id, labels, Value::Number(n));
    }

    /// The text of all of them.
    pub(super) fn text(self, format: Format) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut text, &registry);
        match format {
            Format::OpenMetrics => text,
            Format::Prometheus => as_prometheus(&text),
        }
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in METRICS {
            let Some(rows) = self.0.get(&metric.id) else { continue };
            let (name, kind) = match metric.kind {
                Kind::Counter => (metric.name.trim_end_matches("_total"), MetricType::Counter),
                Kind::Gauge => (metric.name, MetricType::Gauge),
                Kind::Histogram => (metric.name, MetricType::Histogram),
                Kind::Info => (metric.name.trim_end_matches("_info"), MetricType::Info),
            };
            let mut family = encoder.encode_descriptor(name, metric.help, None, kind)?;
            for (values, value) in rows {
                let labels: Vec<(&str, &str)> =
                    metric.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
                if metric.kind == Kind::Info {
                    family.encode_info(&labels)?;
                } else if labels.is_empty() {
                    write_value(&mut family, metric.kind, value)?;
                } else {
                    write_value(&mut family.encode_family(&labels)?, metric.kind, value)?;
                }
            }
        }
        Ok(())
    }
}

fn write_value(out: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Count(n)) => out.encode_counter::<NoLabelSet, _, u64>(n, None),
        (Kind::Counter, Value::Number(n)) => out.encode_counter::<NoLabelSet, _, f64>(n, None),
        (_, Value::Count(n)) => out.encode_gauge(n),
        (_, Value::Number(n)) => out.encode_gauge(n),
        (_, Value::Buckets { sum, counts }) => {
            let all = counts.iter().map(|c| c.1).sum();
            out.encode_histogram::<NoLabelSet>(*sum, all, counts, None)
        }
    }
}

/// The older format differs in its comments: a counter is called by its whole name, what informs is a gauge, and
/// nothing marks the end.
fn as_prometheus(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            let meaning = help.take().map_or("", |(_, meaning)| meaning);
            out.push_str(&format!("# HELP {name}{suffix} {meaning}\n# TYPE {name}{suffix} {kind}\n"));
        } else if line != "# EOF" {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape() -> Scrape {
        let mut scrape = Scrape::default();
        scrape.count(Id::Frames, &["a\"b"], 3);
        scrape.number(Id::Ready, &[], 1.0);
        scrape.number(Id::Build, &["1.2.3"], 1.0);
        let counts = vec![(0.5, 2), (f64::INFINITY, 1)];
        scrape.add(Id::CommitLatency, &[], Value::Buckets { sum: 1.5, counts });
        scrape
    }

    #[test]
    fn open_metrics_has_an_end_and_short_names_of_families() {
        let help = |id: Id| METRICS.iter().find(|m| m.id == id).unwrap().help;
        let expected = format!(
            "# HELP hb_frames {}\n# TYPE hb_frames counter\nhb_frames_total{{source=\"a\\\"b\"}} 3\n\
             # HELP hb_commit_latency_seconds {}\n# TYPE hb_commit_latency_seconds histogram\n\
             hb_commit_latency_seconds_sum 1.5\nhb_commit_latency_seconds_count 3\n\
             hb_commit_latency_seconds_bucket{{le=\"0.5\"}} 2\nhb_commit_latency_seconds_bucket{{le=\"+Inf\"}} 3\n\
             # HELP hb_ready {}\n# TYPE hb_ready gauge\nhb_ready 1.0\n\
             # HELP hb_build {}\n# TYPE hb_build info\nhb_build_info{{version=\"1.2.3\"}} 1\n# EOF\n",
            help(Id::Frames),
            help(Id::CommitLatency),
            help(Id::Ready),
            help(Id::Build)
        );
        assert_eq!(scrape().text(Format::OpenMetrics), expected);
    }

    #[test]
    fn prometheus_names_counters_wholly_and_knows_no_info() {
        let text = scrape().text(Format::Prometheus);
        assert!(text.contains("# TYPE hb_frames_total counter\nhb_frames_total{"), "{text}");
        assert!(text.contains("# TYPE hb_build_info gauge\nhb_build_info{"), "{text}");
        assert!(!text.contains("EOF") && text.contains("# HELP hb_frames_total Frames"), "{text}");
    }
}
