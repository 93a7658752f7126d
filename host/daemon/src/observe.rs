//! Watches a judge at work: what each window looked like, for reports and charts.

use std::collections::BTreeMap;

use hb_engine::decision::{Decision, Severity};
use hb_engine::judge::{Ask, BaselineRow, Judge, Verdict, WindowRow};
use hb_engine::series::SeriesDef;

use crate::report::{Band, Judged, SeriesTrack, TrackPoint, flagged_spans};

/// Window rows kept at most: at about 300 bytes each some 150 MB; older ones are dropped first.
const ROWS_MAX: usize = 500_000;

/// One series of one judged window.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Check.
    pub check: String,
    /// Asset.
    pub asset: String,
    /// Window start, ns.
    pub start_ns: i64,
    /// Window end, ns.
    pub end_ns: i64,
    /// Series.
    pub series: SeriesDef,
    /// Its numbers.
    pub window: WindowRow,
    /// Its baseline's numbers; NaN without one.
    pub baseline: BaselineRow,
}

/// A judge that remembers what it was asked.
pub struct Observer<J> {
    /// Who answers.
    pub inner: J,
    /// What was seen, in order.
    pub seen: Vec<Seen>,
}

impl<J> Observer<J> {
    /// Watches `inner`.
    pub fn new(inner: J) -> Self {
        Observer { inner, seen: Vec::new() }
    }
}

impl<J: Judge> Judge for Observer<J> {
    fn judge(&mut self, ask: &Ask<'_>) -> Vec<Verdict> {
        for row in &ask.rows {
            // Several rules look at the same window: it is kept once.
            let again = self.seen.iter().rev().take_while(|s| s.end_ns == ask.end_ns && s.check == ask.check);
            if again.clone().any(|s| s.asset == ask.asset && &s.series == row.series) {
                continue;
            }
            if self.seen.len() >= ROWS_MAX {
                self.seen.drain(..ROWS_MAX / 10);
            }
            self.seen.push(Seen {
                check: ask.check.to_owned(),
                asset: ask.asset.to_owned(),
                start_ns: ask.start_ns,
                end_ns: ask.end_ns,
                series: row.series.clone(),
                window: row.window,
                baseline: row.baseline,
            });
        }
        self.inner.judge(ask)
    }

    fn severity(&mut self, decision: &Decision) -> Option<Severity> {
        self.inner.severity(decision)
    }
}

/// What was seen as tracks for a report's charts, one per check, asset and series, in that order.
pub fn tracks(seen: &[Seen], decisions: &[Judged<'_>]) -> Vec<SeriesTrack> {
    let mut by: BTreeMap<(&str, &SeriesDef), Vec<&Seen>> = BTreeMap::new();
    for s in seen {
        by.entry((&s.check, &s.series)).or_default().push(s);
    }
    by.into_iter()
        .map(|((check, series), windows)| {
            let of_check: Vec<Judged<'_>> = decisions.iter().filter(|j| j.decision.check == check).copied().collect();
            // The newest baseline is the one that counts.
            let baseline = windows.iter().rev().map(|s| s.baseline).find(|b| b[0].is_finite());
            SeriesTrack {
                label: series.to_string(),
                unit: series.unit.clone(),
                points: windows
                    .iter()
                    .map(|s| TrackPoint { end_ns: s.end_ns, mean: s.window[1], min: s.window[3], max: s.window[4] })
                    .collect(),
                flagged: flagged_spans(&of_check, series),
                band: baseline.map(|b| Band { p05: b[8], median: b[5], p95: b[9] }),
            }
        })
        .collect()
}
