//! The drift report says what left its baseline, when, how far, and where to look next.
//!
//! [`Report::build`] sums decisions up; the result is the JSON a program reads, and [`html`] makes of it the page a
//! person reads. Both are functions of their input alone: no clock, no locale, so the same case gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use hb_engine::baseline::Baseline;
use hb_engine::decision::{Counts, Decision, Severity, Status};
use hb_engine::series::SeriesDef;
use hb_log::hash::Hash;
use hb_log::pack::root_name;
use serde::{Deserialize, Serialize};

use crate::case::Case;

mod chart;
pub mod html;
mod series;
mod tally;
mod track;
mod words;

pub use html::render;
pub use series::{FindingSummary, FlaggedTime, Onset, Readings, SeriesReport, Worst};
pub use tally::Tally;
pub use track::{Band, FlaggedSpan, Limits, Range, SeriesTrack, TrackPoint, flagged_spans};
pub(crate) use track::{Line, WINDOWS_MAX};
pub(crate) use words::{age, moment, moments};

/// Version of the report's structure, which `docs/reference/drift_report.schema.json` describes.
pub const SCHEMA_VERSION: u32 = 1;

/// Most decisions listed one by one; the counts speak of all.
pub const MAX_LISTED_DECISIONS: usize = 1_000;

/// Most flagged series described one by one, the worst first: at about 2 kB each the file stays below a few MB.
pub const MAX_LISTED_SERIES: usize = 1_000;

/// Most cases listed, in the order they were opened: each has four commands, and nobody types more of them.
pub const MAX_LISTED_CASES: usize = 20;

/// Digits of a decision's hash that commands name: as many as ids of cases have.
const SHORT_ID: usize = 12;

/// A decision and the id it has in the log.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// Id.
    pub id: &'a str,
    /// The decision.
    pub decision: &'a Decision,
}

/// What a report speaks of, and so where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportKind {
    /// An analysed run; it lies beside the numbers.
    Run,
    /// A case; it lies in the case's pack.
    Case,
}

/// What a report is made of.
#[derive(Clone, Debug)]
pub struct ReportInput<'a> {
    /// What it speaks of.
    pub kind: ReportKind,
    /// The run or case it speaks of.
    pub run_id: &'a str,
    /// Binds it to what others know of the same matter.
    pub correlation_id: &'a str,
    /// When it was made, ns since the epoch: of a sealed case the time of the sealing entry.
    pub made_at_ns: i64,
    /// The decisions.
    pub decisions: &'a Tally,
    /// What was seen of each series, also of those that were as expected.
    pub tracks: &'a [SeriesTrack],
    /// Windows of series that are missing in the tracks, because there were too many.
    pub undrawn: u64,
    /// What is known of the baselines that the decisions name.
    pub baselines: &'a BTreeMap<Hash, BaselineFacts>,
    /// Cases that were opened for these decisions, in the order they were opened.
    pub cases: &'a [Case],
    /// The files to look into, from where the report lies, and what each holds; the numbers first.
    pub files: &'a [(&'a str, &'a str)],
    /// Where the page lies: `drift_report.html`.
    pub report_ref: &'a str,
}

/// What is known of a baseline besides its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaselineFacts {
    /// Time of its oldest value, ns since the epoch.
    pub start_ns: i64,
    /// Time of its newest value, ns since the epoch.
    pub end_ns: i64,
    /// Series it has.
    pub series: u64,
    /// Where its values came from.
    pub sources: Vec<String>,
}

impl From<&Baseline> for BaselineFacts {
    fn from(b: &Baseline) -> Self {
        let (series, sources) = (b.series.len() as u64, b.sources.clone());
        BaselineFacts { start_ns: b.start_ns, end_ns: b.end_ns, series, sources }
    }
}

/// The drift report. Texts in it are for people and neutralised; names of series are data and left as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this structure.
    pub schema_version: u32,
    /// What it speaks of.
    pub kind: ReportKind,
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
    /// Series that were judged, as expected or not.
    pub series_judged: u64,
    /// Series that were not as expected.
    pub series_flagged: u64,
    /// Those, the worst first, at most 1,000.
    pub series: Vec<SeriesReport>,
    /// Where to look next.
    pub investigation_hints: Vec<String>,
    /// Files to look into.
    pub files: Vec<FileLink>,
    /// Where the proof of each flagged series lies.
    pub evidence_links: Vec<EvidenceLink>,
    /// Cases that were opened, at most 20.
    pub cases: Vec<CaseLine>,
    /// Decisions that are not PASS, in the order of time, at most 1,000.
    pub decisions: Vec<DecisionLine>,
    /// What is not in the lists above.
    pub left_out: LeftOut,
}

/// How many of each list are not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Flagged series.
    pub series: u64,
    /// Cases.
    pub cases: u64,
    /// Decisions that are not PASS.
    pub decisions: u64,
    /// Of those the ones that counts speak of, and `series` does not: the mildest, and of those the oldest.
    pub unsummed: u64,
    /// Windows of series that the charts lack, the oldest.
    pub undrawn: u64,
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
    /// The telemetry it was made from, its newest value included; null when unknown.
    pub span: Option<Span>,
    /// From its newest value to the end of the last window, seconds; null when unknown.
    pub age_sec: Option<i64>,
    /// Series it has; null when unknown.
    pub series: Option<u64>,
    /// Where its values came from.
    pub sources: Vec<String>,
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

/// A file to look into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLink {
    /// Its path from where the report lies.
    pub path: String,
    /// What it holds.
    pub holds: String,
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

/// One case, and what to type to see its evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseLine {
    /// Id.
    pub id: String,
    /// Id of its decision in the log.
    pub decision: String,
    /// Check.
    pub check: String,
    /// Asset.
    pub asset: String,
    /// Window.
    pub window: Span,
    /// Status.
    pub status: Status,
    /// Commands that explain it, export its evidence where that has not been done, verify and replay it.
    pub commands: Vec<String>,
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
        let all = input.decisions;
        let judged = all.kept();
        let mut series = series::summarise(&judged, input);
        let notable = judged.iter().filter(|j| j.decision.status != Status::Pass);
        let listed: Vec<DecisionLine> = notable.take(MAX_LISTED_DECISIONS).map(line).collect();
        let (windows, flagged) = (all.windows, all.flagged.len() as u64);
        let mut report = Report {
            schema_version: SCHEMA_VERSION,
            kind: input.kind,
            run_id: input.run_id.to_owned(),
            correlation_id: input.correlation_id.to_owned(),
            made_at: time(input.made_at_ns),
            engines: all.engines.iter().cloned().collect(),
            programs: all.programs.iter().cloned().collect(),
            assets: all.assets.iter().cloned().collect(),
            span: all.span.map(|(start, end)| span(start, end)),
            status: all.status.unwrap_or(Status::NoData),
            status_sentence: String::new(),
            primary_issue: series.first().map(|s| s.series.metric.clone()),
            baseline: baseline(all, input.baselines),
            windows,
            samples: all.samples,
            series_judged: series_judged(all, input.tracks).max(flagged),
            series_flagged: flagged,
            series: Vec::new(),
            investigation_hints: Vec::new(),
            files: input
                .files
                .iter()
                .map(|(path, holds)| FileLink { path: (*path).into(), holds: (*holds).into() })
                .collect(),
            evidence_links: Vec::new(),
            cases: input.cases.iter().take(MAX_LISTED_CASES).map(|case| case_line(case, input.kind)).collect(),
            left_out: LeftOut {
                series: flagged.saturating_sub(MAX_LISTED_SERIES as u64),
                cases: input.cases.len().saturating_sub(MAX_LISTED_CASES) as u64,
                decisions: (windows.total - windows.pass).saturating_sub(listed.len() as u64),
                unsummed: all.dropped,
                undrawn: input.undrawn,
            },
            decisions: listed,
        };
        // Words speak of all, the lists of the first.
        report.series = std::mem::take(&mut series);
        report.status_sentence = words::sentence(&report);
        report.investigation_hints = words::hints(&report);
        report.series.truncate(MAX_LISTED_SERIES);
        report.evidence_links = report.series.iter().map(|s| evidence_link(s, input)).collect();
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

impl WindowCounts {
    fn add(&mut self, status: Status) {
        self.total += 1;
        *match status {
            Status::Pass => &mut self.pass,
            Status::Drift => &mut self.drift,
            Status::Fail => &mut self.fail,
            Status::NoData => &mut self.no_data,
            Status::Error => &mut self.error,
        } += 1;
    }

    /// How many had this status.
    pub fn of(&self, status: Status) -> u64 {
        match status {
            Status::Pass => self.pass,
            Status::Drift => self.drift,
            Status::Fail => self.fail,
            Status::NoData => self.no_data,
            Status::Error => self.error,
        }
    }
}

impl SampleCounts {
    fn add(&mut self, counts: &Counts) {
        for (sum, more) in [
            (&mut self.judged, counts.samples),
            (&mut self.late, counts.late),
            (&mut self.jumped, counts.jumped),
            (&mut self.shed, counts.shed),
            (&mut self.skipped_windows, counts.skipped_windows),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// Series that were judged: those that were seen, but never fewer than the decisions counted at once.
fn series_judged(all: &Tally, tracks: &[SeriesTrack]) -> u64 {
    let mut counted: BTreeMap<&str, u32> = BTreeMap::new();
    for ((_, asset), ends) in &all.ends {
        let most = counted.entry(asset).or_default();
        *most = ends.series.max(*most);
    }
    let seen: BTreeSet<&str> = tracks.iter().map(|t| t.label.as_str()).collect();
    counted.into_values().map(u64::from).sum::<u64>().max(seen.len() as u64)
}

/// The baseline most decisions were compared with.
fn baseline(all: &Tally, known: &BTreeMap<Hash, BaselineFacts>) -> Option<BaselineReport> {
    let others = all.baselines.len().saturating_sub(1) as u32;
    let ((tag, version, hash), _) = all.baselines.iter().max_by_key(|&(_, n)| n)?;
    let facts = known.get(hash);
    let age = |f: &BaselineFacts| Some(all.span?.1.saturating_sub(f.end_ns) / hb_engine::NS_PER_SEC);
    Some(BaselineReport {
        tag: tag.clone(),
        version: *version,
        hash: *hash,
        span: facts.map(|f| span(f.start_ns, f.end_ns)),
        age_sec: facts.and_then(age),
        series: facts.map(|f| f.series),
        sources: facts.map(|f| f.sources.clone()).unwrap_or_default(),
        others,
    })
}

fn evidence_link(series: &SeriesReport, input: &ReportInput<'_>) -> EvidenceLink {
    EvidenceLink {
        metric_name: series.label.clone(),
        artifact_ref: input.files.first().map_or("", |file| file.0).to_owned(),
        report_ref: format!("{}#{}", input.report_ref, series.anchor),
        hint: format!("its rows from {} to {}", series.first_flagged, series.last_flagged),
    }
}

fn case_line(case: &Case, kind: ReportKind) -> CaseLine {
    let (id, decision, pack) = (&case.id, case.decision.to_string(), root_name(&case.id));
    let commands = match kind {
        ReportKind::Run => vec![
            explain_command(&decision),
            format!("hb export evidence-pack --case {id} --out packs"),
            format!("hb verify packs/{pack} --key hb.pub"),
            format!("hb replay packs/{pack}"),
        ],
        ReportKind::Case => vec![
            format!("hb explain --pack {pack}"),
            format!("hb verify {pack} --key hb.pub"),
            format!("hb replay {pack}"),
        ],
    };
    CaseLine {
        id: id.clone(),
        check: case.check.clone(),
        asset: case.asset.clone(),
        window: span(case.start_ns, case.end_ns),
        status: case.status,
        commands,
        decision,
    }
}

/// What to type to have a decision explained.
fn explain_command(decision: &str) -> String {
    format!("hb explain {}", decision.get(..SHORT_ID).unwrap_or(decision))
}

fn line(judged: &Judged<'_>) -> DecisionLine {
    let d = judged.decision;
    DecisionLine {
        id: judged.id.to_owned(),
        check: d.check.clone(),
        asset: d.asset.clone(),
        window: span(d.start_ns, d.end_ns),
        status: d.status,
        severity: d.severity,
    }
}

fn span(start_ns: i64, end_ns: i64) -> Span {
    Span { start: time(start_ns), end: time(end_ns) }
}

/// RFC 3339 in UTC; the bare number of ns where a calendar has no such year.
pub(crate) fn time(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| format!("{ns} ns"), |t| t.to_string())
}

/// A number for people: five significant digits, without trailing zeros.
pub(crate) fn number(value: f64) -> String {
    digits(value, 5)
}

/// A number to be seen at a glance, as rules tell them: four significant digits.
pub(crate) fn short(value: f64) -> String {
    digits(value, 4)
}

fn digits(value: f64, significant: usize) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e7).contains(&magnitude) {
        return format!("{value:.*e}", significant - 1);
    }
    // Zeros behind the point count for nothing.
    let before = if magnitude == 0.0 { 1 } else { magnitude.log10().floor() as i32 + 1 };
    let after = (significant as i32 - before).max(0) as usize;
    let text = format!("{value:.after$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".into() } else { text.to_owned() }
}

#[cfg(test)]
mod tests;
