//! What is normal: statistics of clean telemetry, per series, and of windows inside it, per check.

use std::collections::BTreeMap;

use hb_log::cbor;
use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

use crate::judge::{BASELINE_FIELDS, BaselineRow};
use crate::series::SeriesDef;
use crate::stats::{Moments, median_mad, sorted_quantile};
use crate::window::Grid;

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
    /// The first eleven columns of [`BASELINE_FIELDS`].
    pub values: [f64; VALUE_FIELDS],
    /// How windows of a given shape behave, by (window, step) in ns.
    pub windows: Vec<WindowReference>,
}

/// Columns of [`BASELINE_FIELDS`] that describe single values.
pub const VALUE_FIELDS: usize = 11;

/// Centre and spread of window means and window standard deviations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowReference {
    /// Window length, ns.
    pub window_ns: i64,
    /// Step, ns.
    pub every_ns: i64,
    /// Windows seen.
    pub windows: u64,
    /// Median of means, its MAD, median of standard deviations, its MAD.
    pub stats: [f64; BASELINE_FIELDS.len() - VALUE_FIELDS],
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

    /// The series with this definition.
    pub fn find(&self, def: &SeriesDef) -> Option<&SeriesBaseline> {
        self.series.binary_search_by(|s| s.series.cmp(def)).ok().map(|i| &self.series[i])
    }
}

impl SeriesBaseline {
    /// The columns of [`BASELINE_FIELDS`] for a check with this window; window columns are NaN when the baseline was
    /// made without that shape.
    pub fn row(&self, window_ns: i64, every_ns: i64) -> BaselineRow {
        let mut row = [f64::NAN; BASELINE_FIELDS.len()];
        row[..VALUE_FIELDS].copy_from_slice(&self.values);
        if let Some(w) = self.windows.iter().find(|w| w.window_ns == window_ns && w.every_ns == every_ns) {
            row[VALUE_FIELDS..].copy_from_slice(&w.stats);
        }
        row
    }
}

/// Gathers samples and makes a [`Baseline`] of them.
#[derive(Debug, Default)]
pub struct Builder {
    series: BTreeMap<SeriesDef, Gathered>,
    /// (window, step) of the checks that will compare with it, ns, with the least samples a window must have.
    shapes: Vec<(i64, i64, u32)>,
}

#[derive(Debug, Default)]
struct Gathered {
    samples: Vec<(i64, f64)>,
    stride: u64,
    seen: u64,
}

impl Builder {
    /// A builder that also learns windows of these shapes: (window ns, step ns, least samples).
    pub fn new(shapes: impl IntoIterator<Item = (i64, i64, u32)>) -> Self {
        let mut shapes: Vec<_> = shapes.into_iter().collect();
        shapes.sort_unstable();
        shapes.dedup();
        Builder { series: BTreeMap::new(), shapes }
    }

    /// Adds one sample.
    pub fn push(&mut self, series: &SeriesDef, t: i64, value: f64) {
        let g = match self.series.get_mut(series) {
            Some(g) => g,
            None => self.series.entry(series.clone()).or_insert(Gathered { stride: 1, ..Gathered::default() }),
        };
        if g.seen % g.stride == 0 {
            if g.samples.len() >= MAX_VALUES {
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
            let windows = self.shapes.iter().filter_map(|&shape| window_reference(&gathered.samples, shape)).collect();
            series.push(SeriesBaseline { series: def, values: value_fields(&gathered.samples), windows });
        }
        Baseline { v: Baseline::V, start_ns, end_ns, sources, series }
    }
}

fn value_fields(samples: &[(i64, f64)]) -> [f64; VALUE_FIELDS] {
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

/// Runs the sliding windows of one shape over sorted samples; `None` when not one window was full.
fn window_reference(samples: &[(i64, f64)], (window_ns, every_ns, least): (i64, i64, u32)) -> Option<WindowReference> {
    let (first, last) = (samples.first()?.0, samples.last()?.0);
    let mut grid = Grid::new(every_ns, (window_ns / every_ns) as usize);
    let (mut means, mut sds) = (Vec::new(), Vec::new());
    let mut end = grid.end_after(first.saturating_add(window_ns).saturating_sub(1));
    let mut close = |grid: &mut Grid, end: i64| {
        let row = grid.merged(0, end - window_ns, end).row();
        if row[0] >= f64::from(least.max(1)) {
            means.push(row[1]);
            sds.push(row[2]);
        }
        grid.forget_before(end - window_ns + every_ns);
    };
    for &(t, value) in samples {
        while t >= end {
            close(&mut grid, end);
            // Jump over a gap: windows without a sample say nothing.
            end = match grid.first_from(end - window_ns + every_ns) {
                Some(_) => end + every_ns,
                None => grid.end_after(t).max(end + every_ns),
            };
        }
        grid.push(0, t, value);
    }
    if last.saturating_add(1) >= end {
        close(&mut grid, end);
    }
    if means.is_empty() {
        return None;
    }
    let windows = means.len() as u64;
    let (ref_mean, ref_mean_mad) = median_mad(&mut means);
    let (ref_sd, ref_sd_mad) = median_mad(&mut sds);
    Some(WindowReference { window_ns, every_ns, windows, stats: [ref_mean, ref_mean_mad, ref_sd, ref_sd_mad] })
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
        let mut b = Builder::new([(10, 5, 1)]);
        for t in 0..100 {
            b.push(&def("ramp"), t, t as f64);
        }
        let base = b.build(vec!["test".into()]);
        let row = base.find(&def("ramp")).unwrap().row(10, 5);
        assert_eq!(&row[..7], &[100.0, 49.5, row[2], 0.0, 99.0, 49.5, 25.0]);
        // Windows [0,10) to [90,100): means 4.5, 9.5, ... 94.5.
        assert_eq!(base.series[0].windows[0].windows, 19);
        assert_eq!((row[11], row[12]), (49.5, 25.0));
        assert!(base.series[0].row(7, 7)[11].is_nan());
        assert!(base.find(&def("other")).is_none());
        assert_eq!((base.start_ns, base.end_ns), (0, 99));
    }

    #[test]
    fn a_gap_makes_no_windows() {
        let samples: Vec<(i64, f64)> = (0..10).chain(1_000_000..1_000_010).map(|t| (t, 1.0)).collect();
        let reference = window_reference(&samples, (4, 2, 4)).unwrap();
        assert_eq!(reference.windows, 8);
    }
}
