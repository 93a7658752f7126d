//! The numbers of one series over time, and when it was not as expected: what charts are drawn from.

use hb_engine::decision::Status;
use hb_engine::series::SeriesDef;
use serde::{Deserialize, Serialize};

use super::Judged;

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
