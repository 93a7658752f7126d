//! What is normal: statistics of clean telemetry, per series.

use std::collections::BTreeMap;

use hb_log::cbor;
use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

use crate::judge::BaselineRow;
use crate::series::SeriesDef;
use crate::stats::{Moments, median_mad, sorted_quantile};

/// Most values of all series together that are gathered: 2 million are 32 MB with their times, at most twice that while
/// their vectors grow, and half as much again while the longest series is summed up. Beyond it the series with the most
/// values lose every other one, again and again, which keeps the whole span covered and each series seen.
pub const VALUES_MAX: usize = 2 << 20;

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

/// Gathers samples and makes a [`Baseline`] of them, in bounded memory.
#[derive(Debug)]
pub struct Builder {
    series: BTreeMap<SeriesDef, Gathered>,
    /// Values of all series.
    held: usize,
    values_max: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Builder { series: BTreeMap::new(), held: 0, values_max: VALUES_MAX }
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

    /// Adds one sample.
    pub fn push(&mut self, series: &SeriesDef, t: i64, value: f64) {
        if self.held >= self.values_max {
            self.thin_out();
        }
        let g = match self.series.get_mut(series) {
            Some(g) => g,
            None => self.series.entry(series.clone()).or_insert(Gathered { stride: 1, ..Gathered::default() }),
        };
        if g.seen % g.stride == 0 {
            g.samples.push((t, value));
            self.held += 1;
        }
        g.seen += 1;
    }

    /// Takes every other value from the series that have more than half of what the longest has.
    fn thin_out(&mut self) {
        let most = self.series.values().map(|g| g.samples.len()).max().unwrap_or(0);
        for g in self.series.values_mut().filter(|g| g.samples.len() > most / 2) {
            self.held -= g.samples.len() / 2;
            let mut keep = false;
            g.samples.retain(|_| {
                keep = !keep;
                keep
            });
            g.stride *= 2;
        }
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
            series.push(SeriesBaseline { series: def, values: columns(gathered.samples) });
        }
        Baseline { v: Baseline::V, start_ns, end_ns, sources, series }
    }
}

fn columns(samples: Vec<(i64, f64)>) -> BaselineRow {
    let mut values: Vec<f64> = samples.into_iter().map(|s| s.1).collect();
    let mut moments = Moments::default();
    for &value in &values {
        moments.push(value);
    }
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
        let n = VALUES_MAX as i64 + VALUES_MAX as i64 / 2;
        for t in 0..n {
            b.push(&def("long"), t, t as f64);
        }
        let base = b.build(vec![]);
        let row = base.series[0].values;
        assert!(row[0] <= VALUES_MAX as f64 && row[0] > VALUES_MAX as f64 / 4.0);
        assert!((row[5] / n as f64 - 0.5).abs() < 0.01, "the median stays in the middle");
    }

    #[test]
    fn many_series_share_the_room_and_each_keeps_its_span() {
        let mut b = Builder { values_max: 1_000, ..Builder::default() };
        let defs: Vec<SeriesDef> = (0..20).map(|i| def(&format!("m{i:02}"))).collect();
        for t in 0..10_000 {
            for (i, def) in defs.iter().enumerate() {
                // The last ones are rare.
                if i < 15 || t % 500 == 0 {
                    b.push(def, t, t as f64);
                }
            }
            assert!(b.held <= 1_000 && b.held == b.series.values().map(|g| g.samples.len()).sum::<usize>());
        }
        let base = b.build(vec![]);
        for (i, s) in base.series.iter().enumerate() {
            let (count, min, max, median) = (s.values[0], s.values[3], s.values[4], s.values[5]);
            assert!(if i < 15 { count >= 28.0 } else { count == 20.0 }, "{i}: {count} values");
            assert!(min == 0.0 && max >= 9_500.0 && (4_500.0..5_500.0).contains(&median), "{i}: {min} {median} {max}");
        }
    }
}
