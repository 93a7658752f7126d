//! What is normal: statistics of clean telemetry, per series.

use std::collections::BTreeMap;

use hb_log::cbor;
use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

use crate::judge::BaselineRow;
use crate::series::SeriesDef;
use crate::stats::{Moments, median_mad, sorted_quantile};

/// Most values of one series that enter a baseline: 4 million are 32 MB and a month at 1.5 Hz. Beyond it every other
/// value is dropped, again and again, which keeps the whole span covered.
pub const MAX_VALUES: usize = 4_000_000;

/// Reference statistics of a set of series. Immutable once made; named by its hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Schema version of this structure.
    pub v: u8,
    /// Time of the oldest value, ns.
    pub start_ns: i64,
    /// Time of the newest value, ns.
    pub end_ns: i64,
    /// Where the values came from: run ids, directories, `live`.
    pub sources: Vec<String>,
    /// Series in order of their definition.
    pub series: Vec<SeriesBaseline>,
}

/// Reference statistics of one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesBaseline {
    /// Identity.
    pub series: SeriesDef,
    /// The columns of [`crate::judge::BASELINE_FIELDS`].
    pub values: BaselineRow,
}

impl Baseline {
    /// Version of the structure written now.
    pub const V: u8 = 1;

    /// Canonical CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// SHA-256 of the canonical CBOR.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.to_bytes())
    }

    /// The series of this name, whatever its kind.
    pub fn find(&self, def: &SeriesDef) -> Option<&SeriesBaseline> {
        let from = self.series.partition_point(|s| (&s.series.metric, &s.series.unit) < (&def.metric, &def.unit));
        let same = self.series[from..].iter().take_while(|s| s.series.metric == def.metric);
        same.into_iter().find(|s| s.series.names_same(def))
    }
}

/// Gathers samples and makes a [`Baseline`] of them.
#[derive(Debug)]
pub struct Builder {
    series: BTreeMap<SeriesDef, Gathered>,
    values_max: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Builder { series: BTreeMap::new(), values_max: MAX_VALUES }
    }
}

#[derive(Debug, Default)]
struct Gathered {
    samples: Vec<(i64, f64)>,
    stride: u64,
    seen: u64,
}

impl Builder {
    /// A builder that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A builder that keeps at most so many values of a series, evenly over the whole span.
    pub fn bounded(values_max: usize) -> Self {
        Builder { values_max: values_max.clamp(2, MAX_VALUES), ..Self::default() }
    }

    /// Series seen so far.
    pub fn series_len(&self) -> usize {
        self.series.len()
    }

    /// Adds one sample.
    pub fn push(&mut self, series: &SeriesDef, t: i64, value: f64) {
        let g = match self.series.get_mut(series) {
            Some(g) => g,
            None => self.series.entry(series.clone()).or_insert(Gathered { stride: 1, ..Gathered::default() }),
        };
        if g.seen % g.stride == 0 {
            if g.samples.len() >= self.values_max {
                let mut keep = false;
                g.samples.retain(|_| {
                    keep = !keep;
                    keep
                });
                g.stride *= 2;
            }
            g.samples.push((t, value));
        }
        g.seen += 1;
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Makes the baseline.
    pub fn build(self, sources: Vec<String>) -> Baseline {
        let (mut start_ns, mut end_ns) = (i64::MAX, i64::MIN);
        let mut series = Vec::with_capacity(self.series.len());
        for (def, mut gathered) in self.series {
            // Equal times keep their order of arrival, so the sums below are reproducible.
            gathered.samples.sort_by_key(|s| s.0);
            if let (Some(first), Some(last)) = (gathered.samples.first(), gathered.samples.last()) {
                start_ns = start_ns.min(first.0);
                end_ns = end_ns.max(last.0);
            }
            series.push(SeriesBaseline { series: def, values: columns(&gathered.samples) });
        }
        Baseline { v: Baseline::V, start_ns, end_ns, sources, series }
    }
}

fn columns(samples: &[(i64, f64)]) -> BaselineRow {
    let mut moments = Moments::default();
    for s in samples {
        moments.push(s.1);
    }
    let mut values: Vec<f64> = samples.iter().map(|s| s.1).collect();
    let (median, mad) = median_mad(&mut values);
    let [p01, p05, p95, p99] = [0.01, 0.05, 0.95, 0.99].map(|q| sorted_quantile(&values, q));
    let m = &moments;
    [m.count() as f64, m.mean(), m.sd(), m.min(), m.max(), median, mad, p01, p05, p95, p99]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::SeriesKind;

    fn def(metric: &str) -> SeriesDef {
        SeriesDef::new(metric, "", SeriesKind::Gauge, []).unwrap()
    }

    #[test]
    fn a_ramp_has_the_statistics_of_a_ramp() {
        let mut b = Builder::new();
        for t in 0..100 {
            b.push(&def("ramp"), t, t as f64);
        }
        let base = b.build(vec!["test".into()]);
        let row = base.find(&def("ramp")).unwrap().values;
        assert_eq!(row, [100.0, 49.5, row[2], 0.0, 99.0, 49.5, 25.0, row[7], 4.95, 94.05, row[10]]);
        assert!((row[2] - libm::sqrt((100.0 * 100.0 - 1.0) / 12.0)).abs() < 1e-12);
        assert!(base.find(&def("other")).is_none());
        assert_eq!((base.start_ns, base.end_ns), (0, 99));
    }

    #[test]
    fn too_many_values_keep_the_whole_span() {
        let mut b = Builder::new();
        let n = MAX_VALUES as i64 + MAX_VALUES as i64 / 2;
        for t in 0..n {
            b.push(&def("long"), t, t as f64);
        }
        let base = b.build(vec![]);
        let row = base.series[0].values;
        assert!(row[0] <= MAX_VALUES as f64 && row[0] > MAX_VALUES as f64 / 4.0);
        assert!((row[5] / n as f64 - 0.5).abs() < 0.01, "the median stays in the middle");
    }
}
