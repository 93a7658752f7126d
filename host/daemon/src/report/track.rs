//! The numbers of one series over time, and when it was not as expected: what charts are drawn from.

use hb_engine::decision::Status;
use hb_engine::series::SeriesDef;
use serde::{Deserialize, Serialize};

use super::Judged;

/// Windows of all series together that tracks are made of at most: at about 300 bytes each some 150 MB. Older ones are
/// dropped first.
pub(crate) const WINDOWS_MAX: usize = 500_000;

/// The numbers of one series over time, for its chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesTrack {
    /// The check that looked at it: another one may have other windows and limits.
    pub check: String,
    /// The series as findings show it: metric and labels.
    pub label: String,
    /// Its unit, empty for a bare number.
    pub unit: String,
    /// One point per window, in the order of time.
    pub points: Vec<TrackPoint>,
    /// When it was not as expected; [`flagged_spans`] finds them.
    pub flagged: Vec<FlaggedSpan>,
    /// Where the baseline has it.
    pub band: Option<Band>,
    /// What its rule compared with, in the unit of the series.
    pub limits: Limits,
}

/// One window of a [`SeriesTrack`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackPoint {
    /// End of the window, ns since the epoch.
    pub end_ns: i64,
    /// Readings.
    pub count: u64,
    /// Mean; not finite when there was no sample.
    pub mean: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

/// Where the baseline has a series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Five in a hundred values lay below.
    pub p05: f64,
    /// Half of the values lay below.
    pub median: f64,
    /// Five in a hundred values lay above.
    pub p95: f64,
}

/// Where the mean of a window meets the limits of the rule; null where that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Beyond it a window is DRIFT.
    pub drift: Option<Range>,
    /// Beyond it a window counts towards FAIL.
    pub fail: Option<Range>,
}

/// A range of values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A time in which a series was not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlaggedSpan {
    /// Start of the first window, ns since the epoch.
    pub start_ns: i64,
    /// End of the first window, ns since the epoch.
    pub first_end_ns: i64,
    /// End of the last window, ns since the epoch.
    pub end_ns: i64,
    /// The status all of it has.
    pub status: Status,
    /// Why, as the first window says.
    pub reason: String,
}

/// A value that lies on a straight line over the means of windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line {
    /// What one unit of the mean adds to the value.
    pub(crate) slope: f64,
    /// The value at a mean of 0.
    pub(crate) start: f64,
}

impl Line {
    /// Fewest windows from which a line is found: two make one, and a third says whether it is one.
    const WINDOWS_MIN: usize = 3;

    /// How far a window may lie off it, relative to its value: what rounding does, and not more.
    const TOLERANCE: f64 = 1e-6;

    /// The line through (mean, value) of windows; none where the value follows something else.
    pub(crate) fn through(windows: &[(f64, f64)]) -> Option<Line> {
        let by_mean = |a: &&(f64, f64), b: &&(f64, f64)| a.0.total_cmp(&b.0);
        let (low, high) = (windows.iter().min_by(by_mean)?, windows.iter().max_by(by_mean)?);
        let slope = (high.1 - low.1) / (high.0 - low.0);
        let line = Line { slope, start: low.1 - slope * low.0 };
        let off = |(mean, value): &(f64, f64)| (line.at(*mean) - value).abs() / value.abs().max(1.0);
        let is_line = slope.is_finite() && slope != 0.0 && windows.iter().all(|w| off(w) <= Line::TOLERANCE);
        (windows.len() >= Line::WINDOWS_MIN && is_line).then_some(line)
    }

    /// The value at a mean.
    fn at(self, mean: f64) -> f64 {
        self.slope * mean + self.start
    }

    /// The mean at a value.
    pub(crate) fn mean_of(self, value: f64) -> f64 {
        (value - self.start) / self.slope
    }
}

/// The times in which a series was not PASS, for its chart: windows that touch or overlap and have the same status are
/// one span. In the order of time.
pub fn flagged_spans(decisions: &[Judged<'_>], series: &SeriesDef) -> Vec<FlaggedSpan> {
    let mut found: Vec<FlaggedSpan> = Vec::new();
    for j in decisions {
        let of_series = j.decision.findings.iter().filter(|f| f.series == *series && f.status != Status::Pass);
        if let Some(worst) = of_series.max_by_key(|f| f.status) {
            found.push(FlaggedSpan {
                start_ns: j.decision.start_ns,
                first_end_ns: j.decision.end_ns,
                end_ns: j.decision.end_ns,
                status: worst.status,
                reason: worst.reason.clone(),
            });
        }
    }
    found.sort_by_key(|s| (s.status, s.start_ns, s.end_ns));
    let mut merged: Vec<FlaggedSpan> = Vec::new();
    for span in found {
        match merged.last_mut() {
            Some(last) if last.status == span.status && span.start_ns <= last.end_ns => {
                last.end_ns = last.end_ns.max(span.end_ns);
            }
            _ => merged.push(span),
        }
    }
    merged.sort_by_key(|s| (s.start_ns, s.end_ns, s.status));
    merged
}
