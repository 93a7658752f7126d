//! The drift report says what left its baseline, when, how far, and where to look next.
//!
//! [`Report::build`] sums decisions up; the result is the JSON a program reads, and [`html`] makes of it the page a
//! person reads. Both are functions of their input alone: no clock, no locale, so the same case gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use hb_engine::decision::{Decision, Severity, Status};
use hb_engine::series::SeriesDef;
use hb_log::hash::Hash;
use serde::{Deserialize, Serialize};

mod chart;
pub mod html;
mod series;
mod words;

pub use html::render;
pub use series::{FindingSummary, SeriesReport, Worst, flagged_spans};

/// Version of the report's structure.
pub const SCHEMA_VERSION: u32 = 1;

/// Most decisions listed one by one; the counts speak of all.
pub const MAX_LISTED_DECISIONS: usize = 1_000;

/// A decision and the id it has in the log.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// Id.
    pub id: &'a str,
    /// The decision.
    pub decision: &'a Decision,
}

/// What a report is made of.
#[derive(Clone, Debug)]
pub struct ReportInput<'a> {
    /// The run or case it speaks of.
    pub run_id: &'a str,
    /// Binds it to what others know of the same matter.
    pub correlation_id: &'a str,
    /// When it was made, ns since the epoch: of a sealed case the time of the sealing entry.
    pub made_at_ns: i64,
    /// The decisions, in any order.
    pub decisions: &'a [Judged<'a>],
    /// When the baseline was made, ns since the epoch; its age follows from it.
    pub baseline_made_at_ns: Option<i64>,
    /// Where the numbers lie, relative to the report: `normalized_metrics.csv`.
    pub artifact_ref: &'a str,
    /// Where the page lies: `drift_report.html`.
    pub report_ref: &'a str,
}

/// The numbers of one series over time, for its chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesTrack {
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    /// Five in a hundred values lay below.
    pub p05: f64,
    /// Half of the values lay below.
    pub median: f64,
    /// Five in a hundred values lay above.
    pub p95: f64,
}

/// A time in which a series was not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlaggedSpan {
    /// Start of the first window, ns since the epoch.
    pub start_ns: i64,
    /// End of the last window, ns since the epoch.
    pub end_ns: i64,
    /// The status all of it has.
    pub status: Status,
    /// Why, as the first window says.
    pub reason: String,
}

/// The drift report. Texts in it are for people and neutralised; names of series are data and left as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this structure.
    pub schema_version: u32,
    /// The run or case.
    pub run_id: String,
    /// Binds it to what others know of the same matter.
    pub correlation_id: String,
    /// When it was made, RFC 3339.
    pub made_at: String,
    /// Versions of the decision semantics that judged.
    pub engines: Vec<String>,
    /// Tenants.
    pub programs: Vec<String>,
    /// Assets.
    pub assets: Vec<String>,
    /// The time it speaks of; null without decisions.
    pub span: Option<Span>,
    /// The worst status of all decisions; NO_DATA without any.
    pub status: Status,
    /// The status in a sentence.
    pub status_sentence: String,
    /// Metric that most deserves a look.
    pub primary_issue: Option<String>,
    /// What was compared with; null when nothing was.
    pub baseline: Option<BaselineReport>,
    /// How many windows had which status.
    pub windows: WindowCounts,
    /// What was counted over all decisions.
    pub samples: SampleCounts,
    /// Series that were not as expected, the worst first.
    pub series: Vec<SeriesReport>,
    /// Where to look next.
    pub investigation_hints: Vec<String>,
    /// Where the proof of each flagged series lies.
    pub evidence_links: Vec<EvidenceLink>,
    /// Decisions that are not PASS, in the order of time, at most 1,000.
    pub decisions: Vec<DecisionLine>,
    /// Decisions that are not PASS and not listed.
    pub decisions_left_out: u64,
}

/// A time span, RFC 3339, the end not included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Start.
    pub start: String,
    /// End.
    pub end: String,
}

/// The baseline that was compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineReport {
    /// Tag.
    pub tag: String,
    /// Version the tag pointed to.
    pub version: u32,
    /// Hash of its content.
    pub hash: Hash,
    /// Age when the report was made, seconds; null when unknown.
    pub age_sec: Option<i64>,
    /// Other versions that some of the decisions were compared with.
    pub others: u32,
}

/// How many windows had which status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowCounts {
    /// All.
    pub total: u64,
    /// Within limits.
    pub pass: u64,
    /// Beyond the warn limit.
    pub drift: u64,
    /// Beyond the fail limit often enough.
    pub fail: u64,
    /// Nothing to judge.
    pub no_data: u64,
    /// A rule failed.
    pub error: u64,
}

/// What was counted over all decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleCounts {
    /// Samples judged, once per window they fall into.
    pub judged: u64,
    /// Refused as late.
    pub late: u64,
    /// Held back because their time jumped ahead, and never confirmed.
    pub jumped: u64,
    /// Refused because a cap was reached.
    pub shed: u64,
    /// Empty windows that were passed over.
    pub skipped_windows: u64,
}

/// Where the proof of a flagged series lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceLink {
    /// The series.
    pub metric_name: String,
    /// File with its numbers.
    pub artifact_ref: String,
    /// Its place in the page.
    pub report_ref: String,
    /// What to look at.
    pub hint: String,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionLine {
    /// Id in the log.
    pub id: String,
    /// Check.
    pub check: String,
    /// Asset.
    pub asset: String,
    /// Window.
    pub window: Span,
    /// Status.
    pub status: Status,
    /// Severity, when somebody was to be alerted.
    pub severity: Option<Severity>,
}

impl Report {
    /// Sums decisions up.
    pub fn build(input: &ReportInput<'_>) -> Report {
        let mut judged: Vec<&Judged<'_>> = input.decisions.iter().collect();
        judged.sort_by(|a, b| order(a).cmp(&order(b)));
        let decisions: Vec<&Decision> = judged.iter().map(|j| j.decision).collect();
        let windows = count_windows(&decisions);
        let samples = count_samples(&decisions);
        let series = series::summarise(&decisions);
        let status = decisions.iter().map(|d| d.status).max().unwrap_or(Status::NoData);
        let set = |name: fn(&Decision) -> &String| -> Vec<String> {
            decisions.iter().map(|d| name(d)).collect::<BTreeSet<_>>().into_iter().cloned().collect()
        };
        let start = decisions.iter().map(|d| d.start_ns).min();
        let end = decisions.iter().map(|d| d.end_ns).max();
        let mut report = Report {
            schema_version: SCHEMA_VERSION,
            run_id: input.run_id.to_owned(),
            correlation_id: input.correlation_id.to_owned(),
            made_at: time(input.made_at_ns),
            engines: set(|d| &d.engine),
            programs: set(|d| &d.program),
            assets: set(|d| &d.asset),
            span: start.zip(end).map(|(start, end)| Span { start: time(start), end: time(end) }),
            status,
            status_sentence: String::new(),
            primary_issue: series.first().map(|s| s.series.metric.clone()),
            baseline: baseline(&decisions, input),
            windows,
            samples,
            evidence_links: series.iter().map(|s| evidence_link(s, input)).collect(),
            series,
            investigation_hints: Vec::new(),
            decisions: Vec::new(),
            decisions_left_out: 0,
        };
        report.status_sentence = words::sentence(&report);
        report.investigation_hints = words::hints(&report);
        let notable: Vec<DecisionLine> =
            judged.iter().filter(|j| j.decision.status != Status::Pass).map(|j| line(j)).collect();
        report.decisions_left_out = notable.len().saturating_sub(MAX_LISTED_DECISIONS) as u64;
        report.decisions = notable;
        report.decisions.truncate(MAX_LISTED_DECISIONS);
        report
    }

    /// The JSON a program reads, with a final line feed.
    pub fn to_json(&self) -> String {
        // Plain structs with text keys always serialise; numbers that are not finite become null.
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }
}

fn order<'a>(j: &Judged<'a>) -> (i64, i64, &'a str, &'a str, &'a str) {
    (j.decision.start_ns, j.decision.end_ns, &j.decision.asset, &j.decision.check, j.id)
}

fn count_windows(decisions: &[&Decision]) -> WindowCounts {
    let mut counts = WindowCounts { total: decisions.len() as u64, ..WindowCounts::default() };
    for decision in decisions {
        *match decision.status {
            Status::Pass => &mut counts.pass,
            Status::Drift => &mut counts.drift,
            Status::Fail => &mut counts.fail,
            Status::NoData => &mut counts.no_data,
            Status::Error => &mut counts.error,
        } += 1;
    }
    counts
}

fn count_samples(decisions: &[&Decision]) -> SampleCounts {
    decisions.iter().fold(SampleCounts::default(), |sum, d| SampleCounts {
        judged: sum.judged.saturating_add(d.counts.samples),
        late: sum.late.saturating_add(d.counts.late),
        jumped: sum.jumped.saturating_add(d.counts.jumped),
        shed: sum.shed.saturating_add(d.counts.shed),
        skipped_windows: sum.skipped_windows.saturating_add(d.counts.skipped_windows),
    })
}

/// The baseline most decisions were compared with.
fn baseline(decisions: &[&Decision], input: &ReportInput<'_>) -> Option<BaselineReport> {
    let mut used: BTreeMap<(&str, u32, &Hash), u64> = BTreeMap::new();
    for b in decisions.iter().filter_map(|d| d.baseline.as_ref()) {
        *used.entry((&b.tag, b.version, &b.hash)).or_default() += 1;
    }
    let others = used.len().saturating_sub(1) as u32;
    let ((tag, version, hash), _) = used.into_iter().max_by_key(|&(_, n)| n)?;
    let age_sec = input.baseline_made_at_ns.map(|at| input.made_at_ns.saturating_sub(at) / hb_engine::NS_PER_SEC);
    Some(BaselineReport { tag: tag.to_owned(), version, hash: *hash, age_sec, others })
}

fn evidence_link(series: &SeriesReport, input: &ReportInput<'_>) -> EvidenceLink {
    EvidenceLink {
        metric_name: series.label.clone(),
        artifact_ref: input.artifact_ref.to_owned(),
        report_ref: format!("{}#{}", input.report_ref, series.anchor),
        hint: format!("its rows from {} to {}", series.first_flagged, series.last_flagged),
    }
}

fn line(judged: &Judged<'_>) -> DecisionLine {
    let d = judged.decision;
    DecisionLine {
        id: judged.id.to_owned(),
        check: d.check.clone(),
        asset: d.asset.clone(),
        window: Span { start: time(d.start_ns), end: time(d.end_ns) },
        status: d.status,
        severity: d.severity,
    }
}

/// RFC 3339 in UTC; the bare number of ns where a calendar has no such year.
fn time(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| format!("{ns} ns"), |t| t.to_string())
}

/// A number for people: five significant digits, without trailing zeros.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e7).contains(&magnitude) {
        return format!("{value:.4e}");
    }
    let before = format!("{:.0}", magnitude.trunc()).len();
    let after = if magnitude < 1.0 { 6 } else { 5_usize.saturating_sub(before) };
    let text = format!("{value:.after$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".into() } else { text.to_owned() }
}

#[cfg(test)]
mod tests;
