//! Watches a judge at work: what each window looked like, for reports and charts.

use std::collections::BTreeMap;

use hb_engine::decision::{Decision, Severity, Status};
use hb_engine::judge::{Ask, BaselineRow, Judge, Verdict, WindowRow};
use hb_engine::series::SeriesDef;

use crate::report::{Band, Judged, Limits, Line, Range, SeriesTrack, TrackPoint, WINDOWS_MAX, flagged_spans};

/// Values of rules from here on are cut off, or say that a baseline has no spread.
const VALUE_MAX: f64 = 1e6;

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
    /// The worst that a rule said of it.
    pub status: Status,
    /// What the first rule that compared a value with a limit said.
    pub compared: Option<Compared>,
}

/// A value that a rule compared with a limit, both in the rule's terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// Value.
    pub value: f64,
    /// Limit.
    pub limit: f64,
    /// What came of it.
    pub status: Status,
}

/// A judge that remembers what it was asked.
pub struct Observer<J> {
    /// Who answers.
    pub inner: J,
    /// What was seen, in order.
    pub seen: Vec<Seen>,
    /// How much of it, the oldest, was dropped again because it was too much.
    pub dropped: u64,
    max: usize,
}

impl<J> Observer<J> {
    /// Watches `inner`.
    pub fn new(inner: J) -> Self {
        Observer { inner, seen: Vec::new(), dropped: 0, max: WINDOWS_MAX }
    }

    /// The same with another judge.
    pub fn with<K>(self, inner: K) -> Observer<K> {
        Observer { inner, seen: self.seen, dropped: self.dropped, max: self.max }
    }

    fn keep(&mut self, seen: Seen) {
        if self.seen.len() >= self.max {
            // Some at once: each time the rest is moved.
            let oldest = (self.max / 10).max(1);
            self.seen.drain(..oldest);
            self.dropped += oldest as u64;
        }
        self.seen.push(seen);
    }
}

impl<J: Judge> Judge for Observer<J> {
    fn judge(&mut self, ask: &Ask<'_>) -> Vec<Verdict> {
        let verdicts = self.inner.judge(ask);
        for (row, verdict) in ask.rows.iter().zip(&verdicts) {
            let of_ask = |s: &Seen| s.end_ns == ask.end_ns && s.check == ask.check && s.asset == ask.asset;
            // Several rules look at the same window: it is kept once.
            if let Some(again) = self.seen.iter_mut().rev().take_while(|s| of_ask(s)).find(|s| &s.series == row.series)
            {
                again.status = again.status.max(verdict.status);
                again.compared = again.compared.or(compared(verdict));
                continue;
            }
            self.keep(Seen {
                check: ask.check.to_owned(),
                asset: ask.asset.to_owned(),
                start_ns: ask.start_ns,
                end_ns: ask.end_ns,
                series: row.series.clone(),
                window: row.window,
                baseline: row.baseline,
                status: verdict.status,
                compared: compared(verdict),
            });
        }
        verdicts
    }

    fn severity(&mut self, decision: &Decision) -> Option<Severity> {
        self.inner.severity(decision)
    }
}

fn compared(verdict: &Verdict) -> Option<Compared> {
    let Verdict { value, limit, status, .. } = *verdict;
    let is_judged = matches!(status, Status::Pass | Status::Drift | Status::Fail);
    (is_judged && value.abs() < VALUE_MAX && limit.is_finite()).then_some(Compared { value, limit, status })
}

/// What was seen as tracks for a report's charts, one per check, asset and series, in that order.
pub fn tracks(seen: &[Seen], decisions: &[Judged<'_>]) -> Vec<SeriesTrack> {
    let mut by: BTreeMap<&str, BTreeMap<&SeriesDef, Vec<&Seen>>> = BTreeMap::new();
    for s in seen {
        by.entry(&s.check).or_default().entry(&s.series).or_default().push(s);
    }
    let mut tracks = Vec::new();
    for (check, all) in by {
        let notable = |j: &&Judged<'_>| j.decision.check == check && j.decision.status != Status::Pass;
        let notable: Vec<Judged<'_>> = decisions.iter().filter(notable).copied().collect();
        tracks.extend(all.into_iter().map(|(series, windows)| track(check, series, &windows, &notable)));
    }
    tracks
}

fn track(check: &str, series: &SeriesDef, windows: &[&Seen], decisions: &[Judged<'_>]) -> SeriesTrack {
    // The newest baseline is the one that counts.
    let baseline = windows.iter().rev().map(|s| s.baseline).find(|b| b[0].is_finite());
    SeriesTrack {
        check: check.to_owned(),
        label: series.to_string(),
        unit: series.unit.clone(),
        points: windows
            .iter()
            .map(|s| TrackPoint {
                end_ns: s.end_ns,
                count: s.window[0] as u64,
                mean: s.window[1],
                min: s.window[3],
                max: s.window[4],
            })
            .collect(),
        flagged: flagged_spans(decisions, series),
        band: baseline.map(|b| Band { p05: b[8], median: b[5], p95: b[9] }),
        limits: baseline.map_or_else(Limits::default, |b| limits(windows, &b)),
    }
}

/// Where the mean of a window meets the limits of its rule. Nothing here knows a rule: they are found where the values
/// that the rule compared lie on a line over the means, as those of `drift.robust_z` do.
fn limits(windows: &[&Seen], baseline: &BaselineRow) -> Limits {
    // Another baseline has another line.
    let judged = windows.iter().filter(|s| s.baseline == *baseline && s.window[1].is_finite());
    let judged: Vec<(f64, Compared)> = judged.filter_map(|s| Some((s.window[1], s.compared?))).collect();
    let windows: Vec<(f64, f64)> = judged.iter().map(|(mean, compared)| (*mean, compared.value)).collect();
    let Some(line) = Line::through(&windows) else { return Limits::default() };
    let range = |is_fail: bool| {
        let limit = judged.iter().rev().find(|j| (j.1.status == Status::Fail) == is_fail)?.1.limit;
        let (a, b) = (line.mean_of(limit), line.mean_of(-limit));
        (a.is_finite() && b.is_finite()).then(|| Range { low: a.min(b), high: a.max(b) })
    };
    Limits { drift: range(false), fail: range(true) }
}

#[cfg(test)]
mod tests {
    use hb_engine::series::SeriesKind;

    use super::*;

    #[test]
    fn the_oldest_windows_are_dropped_and_counted() {
        let series = SeriesDef::new("flow", "", SeriesKind::Gauge, []).unwrap();
        let mut observer = Observer { inner: (), seen: Vec::new(), dropped: 0, max: 20 };
        for end_ns in 0..30 {
            observer.keep(Seen {
                check: "quick".into(),
                asset: "p1".into(),
                start_ns: end_ns - 5,
                end_ns,
                series: series.clone(),
                window: [0.0; _],
                baseline: [0.0; _],
                status: Status::Pass,
                compared: None,
            });
        }
        let ends: Vec<i64> = observer.seen.iter().map(|s| s.end_ns).collect();
        assert_eq!((ends.as_slice(), observer.dropped), (&(10..30).collect::<Vec<i64>>()[..], 10));
    }
}
