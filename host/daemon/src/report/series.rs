//! What the decisions say of each series.

use std::collections::BTreeMap;

use hb_engine::NS_PER_SEC;
use hb_engine::decision::Finding;

use super::{
    Band, Decision, Deserialize, Judged, Limits, Line, ReportInput, Serialize, SeriesDef, SeriesTrack, Status,
    TrackPoint, time,
};

/// Most flagged times of one series: a chart has no room for more, and the list of decisions has all.
const MAX_TIMES: usize = 50;

/// The share of the farthest excess that counts as having arrived.
const ARRIVED: f64 = 0.9;

/// How many times as far out as the mean a reading must lie to be one of a few: two of ten that are shocks lie five
/// times as far out as the mean that they move.
const SINGLE_FACTOR: f64 = 3.0;

/// Fewest readings of which it means something that all are equal.
const STILL_MIN: u64 = 5;

/// A series that was not as expected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesReport {
    /// The series.
    pub series: SeriesDef,
    /// The series in one line: metric and labels.
    pub label: String,
    /// The asset it belongs to.
    pub asset: String,
    /// The check that flagged it, of several the one of its worst window.
    pub check: String,
    /// Its place in the page.
    pub anchor: String,
    /// The worst status.
    pub status: Status,
    /// Windows in which it was not PASS.
    pub windows_flagged: u64,
    /// Start of the first of them, RFC 3339.
    pub first_flagged: String,
    /// Whether it was flagged in the first window already, and its check in the one before: it began earlier.
    pub began_before: bool,
    /// End of the last of them, RFC 3339.
    pub last_flagged: String,
    /// What the last window of its check says of it; null when it was as expected.
    pub last_status: Option<Status>,
    /// How it left its baseline; null when that cannot be told.
    pub onset: Option<Onset>,
    /// How its readings lay in the worst window, where that says more than their mean.
    pub readings: Option<Readings>,
    /// Its share in all that was found, 0 to 1.
    pub contribution: f64,
    /// What lay farthest beyond its limit.
    pub worst: Worst,
    /// What each rule said.
    pub findings: Vec<FindingSummary>,
    /// Where the baseline has it; null without one.
    pub band: Option<Band>,
    /// Where the mean of a window meets the limits of the rule.
    pub limits: Limits,
    /// When it was flagged, in the order of time, at most 50.
    pub flagged: Vec<FlaggedTime>,
    /// Flagged times that are not listed.
    pub flagged_left_out: u64,
    /// The first case that was opened for it.
    pub case: Option<String>,
}

/// The finding that lay farthest beyond its limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    /// Id of the decision that holds it.
    pub decision: String,
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

/// How a series left its baseline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Onset {
    /// Whether it took no longer than one window.
    pub sudden: bool,
    /// From the end of the first flagged window to the first that lay nearly as far out as the farthest, seconds.
    pub took_sec: i64,
}

/// How the readings of a window lay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readings {
    /// A few lay far out, the rest did not.
    Single,
    /// All were equal.
    Still,
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

/// A time in which a series was flagged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlaggedTime {
    /// Start of the first window, RFC 3339.
    pub start: String,
    /// End of the last window, RFC 3339.
    pub end: String,
    /// The status all of it has.
    pub status: Status,
    /// Why, as the first window says.
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
    began_before: bool,
    last_ns: i64,
    last_status: Option<Status>,
    contribution: f64,
    worst: (&'a Finding, Judged<'a>),
    findings: BTreeMap<(&'a str, Status), (u64, &'a str)>,
    /// Where each flagged window lay, by check and rule: values of different rules have nothing in common.
    path: BTreeMap<(&'a str, &'a str), Vec<Step>>,
}

/// Where one flagged window lay.
struct Step {
    end_ns: i64,
    mean: f64,
    /// In the rule's terms.
    value: f64,
}

/// The series that were not PASS, the worst first. `judged` is in the order of time.
pub(super) fn summarise(judged: &[Judged<'_>], input: &ReportInput<'_>) -> Vec<SeriesReport> {
    let mut all: BTreeMap<&SeriesDef, Gathered<'_>> = BTreeMap::new();
    for &j in judged {
        let decision: &Decision = j.decision;
        let ends = input.decisions.ends_of(decision);
        let is_last = ends.is_some_and(|ends| ends.last_ns == decision.end_ns);
        let before = ends.filter(|ends| ends.first_ns == decision.end_ns).map_or(Status::Pass, |ends| ends.before);
        for finding in decision.findings.iter().filter(|f| f.status != Status::Pass) {
            let g = all.entry(&finding.series).or_insert_with(|| Gathered {
                def: &finding.series,
                asset: &decision.asset,
                status: finding.status,
                windows: 0,
                last_window: None,
                first_ns: decision.start_ns,
                began_before: false,
                last_ns: decision.end_ns,
                last_status: None,
                contribution: 0.0,
                worst: (finding, j),
                findings: BTreeMap::new(),
                path: BTreeMap::new(),
            });
            let window = Some((decision.asset.as_str(), decision.check.as_str(), decision.end_ns));
            if g.last_window != window {
                g.windows += 1;
                g.last_window = window;
            }
            g.status = g.status.max(finding.status);
            g.first_ns = g.first_ns.min(decision.start_ns);
            g.last_ns = g.last_ns.max(decision.end_ns);
            // What could not be judged before may have begun then, or not.
            g.began_before |= before != Status::Pass && before >= finding.status.min(Status::Drift);
            g.last_status = g.last_status.max(is_last.then_some(finding.status));
            g.contribution += if finding.contribution.is_finite() { finding.contribution } else { 0.0 };
            if excess(finding) > excess(g.worst.0) {
                g.worst = (finding, j);
            }
            g.findings.entry((&finding.rule, finding.status)).or_insert((0, &finding.reason)).0 += 1;
            // A series without samples lies nowhere.
            if let (Some(value), Some(mean)) = (finding.value, finding.observed) {
                let step = Step { end_ns: decision.end_ns, mean, value };
                g.path.entry((&decision.check, &finding.rule)).or_default().push(step);
            }
        }
    }
    let total: f64 = all.values().map(|g| g.contribution).sum();
    let tracks: BTreeMap<(&str, &str), &SeriesTrack> =
        input.tracks.iter().map(|t| ((t.check.as_str(), t.label.as_str()), t)).collect();
    let mut series: Vec<SeriesReport> = all.into_values().map(|g| report(&g, total, &tracks, input)).collect();
    // The sort is stable: among equals the order is that of the definition.
    series.sort_by(|a, b| b.status.cmp(&a.status).then(b.contribution.total_cmp(&a.contribution)));
    for (i, s) in series.iter_mut().enumerate() {
        s.anchor = format!("series-{}", i + 1);
    }
    series
}

fn report(
    g: &Gathered<'_>,
    total: f64,
    tracks: &BTreeMap<(&str, &str), &SeriesTrack>,
    input: &ReportInput<'_>,
) -> SeriesReport {
    let (worst, at) = g.worst;
    let (label, check) = (g.def.to_string(), &at.decision.check);
    let track = tracks.get(&(check.as_str(), label.as_str()));
    let spans = track.map(|t| t.flagged.as_slice()).unwrap_or_default();
    let case = input.cases.iter().find(|c| c.asset == g.asset && c.check == *check);
    let onset = onset(g, worst, at.decision);
    SeriesReport {
        series: g.def.clone(),
        asset: g.asset.to_owned(),
        check: check.clone(),
        anchor: String::new(),
        status: g.status,
        windows_flagged: g.windows,
        first_flagged: time(g.first_ns),
        last_flagged: time(g.last_ns),
        began_before: g.began_before,
        last_status: g.last_status,
        readings: track.filter(|_| onset.is_none()).and_then(|t| readings(t, worst, at.decision.end_ns)),
        onset,
        contribution: if total > 0.0 { g.contribution / total } else { 0.0 },
        worst: Worst {
            decision: at.id.to_owned(),
            at: time(at.decision.end_ns),
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
        band: track.and_then(|t| t.band).filter(|b| [b.p05, b.median, b.p95].iter().all(|v| v.is_finite())),
        limits: track.map(|t| t.limits).unwrap_or_default(),
        flagged: spans
            .iter()
            .take(MAX_TIMES)
            .map(|s| FlaggedTime {
                start: time(s.start_ns),
                end: time(s.end_ns),
                status: s.status,
                reason: s.reason.clone(),
            })
            .collect(),
        flagged_left_out: spans.len().saturating_sub(MAX_TIMES) as u64,
        case: case.map(|c| c.id.clone()),
        label,
    }
}

/// How a series came to lie where it lay farthest out. Only rules whose value follows the mean tell it: a count of
/// windows grows by itself. And only where the beginning was seen.
fn onset(g: &Gathered<'_>, worst: &Finding, of: &Decision) -> Option<Onset> {
    let path = g.path.get(&(of.check.as_str(), worst.rule.as_str())).filter(|_| !g.began_before)?;
    let windows: Vec<(f64, f64)> = path.iter().map(|step| (step.mean, step.value)).collect();
    Line::through(&windows)?;
    let farthest = path.iter().map(|step| step.value.abs()).fold(0.0, f64::max);
    let arrived = path.iter().find(|step| step.value.abs() >= ARRIVED * farthest)?.end_ns;
    let took_ns = arrived.saturating_sub(path[0].end_ns);
    // A window slides over a jump for as long as it is.
    let window_ns = of.end_ns.saturating_sub(of.start_ns);
    Some(Onset { sudden: took_ns <= window_ns, took_sec: took_ns / NS_PER_SEC })
}

/// What the readings of the worst window say that their mean does not.
fn readings(track: &SeriesTrack, worst: &Finding, end_ns: i64) -> Option<Readings> {
    let point: &TrackPoint = track.points.iter().find(|p| p.end_ns == end_ns)?;
    let (mean, normal, band) = (worst.observed?, worst.expected?, track.band?);
    let farthest = (point.min - normal).abs().max((point.max - normal).abs());
    // What noise does now and then does not reach so far.
    let width = band.p95 - band.p05;
    let is_outside = point.min < band.p05 - width || point.max > band.p95 + width;
    if point.count >= STILL_MIN && point.min == point.max && width > 0.0 {
        Some(Readings::Still)
    } else if is_outside && farthest >= SINGLE_FACTOR * (mean - normal).abs() {
        Some(Readings::Single)
    } else {
        None
    }
}

/// How far beyond its limit, relative to it, the status first.
fn excess(f: &Finding) -> (Status, f64) {
    let ratio = match (f.value, f.limit) {
        (Some(value), Some(limit)) if limit != 0.0 => (value / limit).abs(),
        _ => 0.0,
    };
    (f.status, if ratio.is_nan() { 0.0 } else { ratio })
}
