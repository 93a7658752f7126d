//! What the decisions say of each series.

use std::collections::BTreeMap;

use super::{Decision, Deserialize, FlaggedSpan, Judged, Serialize, SeriesDef, Status, time};

/// A series that was not as expected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesReport {
    /// The series.
    pub series: SeriesDef,
    /// The series in one line: metric and labels.
    pub label: String,
    /// The asset it belongs to.
    pub asset: String,
    /// Its place in the page.
    pub anchor: String,
    /// The worst status.
    pub status: Status,
    /// Windows in which it was not PASS.
    pub windows_flagged: u64,
    /// Start of the first of them, RFC 3339.
    pub first_flagged: String,
    /// End of the last of them, RFC 3339.
    pub last_flagged: String,
    /// Its share in all that was found, 0 to 1.
    pub contribution: f64,
    /// What lay farthest beyond its limit.
    pub worst: Worst,
    /// What each rule said.
    pub findings: Vec<FindingSummary>,
}

/// The finding that lay farthest beyond its limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    /// End of the window, RFC 3339.
    pub at: String,
    /// Rule.
    pub rule: String,
    /// Value compared, in the rule's terms (a z, a count).
    pub value: Option<f64>,
    /// Limit it was compared with.
    pub limit: Option<f64>,
    /// Mean of the window, in the series' unit.
    pub observed: Option<f64>,
    /// Median of the baseline, in the series' unit.
    pub expected: Option<f64>,
    /// Why, for a person.
    pub reason: String,
}

/// What one rule said of one series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingSummary {
    /// Rule.
    pub rule: String,
    /// Status.
    pub status: Status,
    /// In how many windows.
    pub windows: u64,
    /// Why, as the first of them says.
    pub reason: String,
}

/// What is gathered of one series while the decisions are gone through.
struct Gathered<'a> {
    def: &'a SeriesDef,
    asset: &'a str,
    status: Status,
    windows: u64,
    last_window: Option<(&'a str, &'a str, i64)>,
    first_ns: i64,
    last_ns: i64,
    contribution: f64,
    worst: (&'a hb_engine::decision::Finding, i64),
    findings: BTreeMap<(&'a str, Status), (u64, &'a str)>,
}

/// The series that were not PASS, the worst first. `decisions` are in the order of time.
pub(super) fn summarise(decisions: &[&Decision]) -> Vec<SeriesReport> {
    let mut all: BTreeMap<&SeriesDef, Gathered<'_>> = BTreeMap::new();
    for decision in decisions {
        for finding in decision.findings.iter().filter(|f| f.status != Status::Pass) {
            let g = all.entry(&finding.series).or_insert_with(|| Gathered {
                def: &finding.series,
                asset: &decision.asset,
                status: finding.status,
                windows: 0,
                last_window: None,
                first_ns: decision.start_ns,
                last_ns: decision.end_ns,
                contribution: 0.0,
                worst: (finding, decision.end_ns),
                findings: BTreeMap::new(),
            });
            let window = Some((decision.asset.as_str(), decision.check.as_str(), decision.end_ns));
            if g.last_window != window {
                g.windows += 1;
                g.last_window = window;
            }
            g.status = g.status.max(finding.status);
            g.first_ns = g.first_ns.min(decision.start_ns);
            g.last_ns = g.last_ns.max(decision.end_ns);
            g.contribution += if finding.contribution.is_finite() { finding.contribution } else { 0.0 };
            if excess(finding) > excess(g.worst.0) {
                g.worst = (finding, decision.end_ns);
            }
            g.findings.entry((&finding.rule, finding.status)).or_insert((0, &finding.reason)).0 += 1;
        }
    }
    let total: f64 = all.values().map(|g| g.contribution).sum();
    let mut series: Vec<SeriesReport> = all.into_values().map(|g| report(&g, total)).collect();
    // The sort is stable: among equals the order is that of the definition.
    series.sort_by(|a, b| b.status.cmp(&a.status).then(b.contribution.total_cmp(&a.contribution)));
    for (i, s) in series.iter_mut().enumerate() {
        s.anchor = format!("series-{}", i + 1);
    }
    series
}

fn report(g: &Gathered<'_>, total: f64) -> SeriesReport {
    let (worst, at) = g.worst;
    SeriesReport {
        series: g.def.clone(),
        label: g.def.to_string(),
        asset: g.asset.to_owned(),
        anchor: String::new(),
        status: g.status,
        windows_flagged: g.windows,
        first_flagged: time(g.first_ns),
        last_flagged: time(g.last_ns),
        contribution: if total > 0.0 { g.contribution / total } else { 0.0 },
        worst: Worst {
            at: time(at),
            rule: worst.rule.clone(),
            value: worst.value,
            limit: worst.limit,
            observed: worst.observed,
            expected: worst.expected,
            reason: worst.reason.clone(),
        },
        findings: g
            .findings
            .iter()
            .map(|(&(rule, status), &(windows, reason))| FindingSummary {
                rule: rule.to_owned(),
                status,
                windows,
                reason: reason.to_owned(),
            })
            .collect(),
    }
}

/// How far beyond its limit, relative to it, the status first.
fn excess(f: &hb_engine::decision::Finding) -> (Status, f64) {
    let ratio = match (f.value, f.limit) {
        (Some(value), Some(limit)) if limit != 0.0 => (value / limit).abs(),
        _ => 0.0,
    };
    (f.status, if ratio.is_nan() { 0.0 } else { ratio })
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
